"""A latent as lines: exact cells of a small one, hostile tokens shown as symbols, and what is missing said."""

from __future__ import annotations

import unicodedata
from array import array

import msgspec
import pytest

from inspector.drawing.lines import text_of
from inspector.drawing.palette import Depth
from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.drawing.safe_text import cell_width
from inspector.session.frames import pack
from inspector.session.protocol import GetLatent, LatentExample, LatentView, Neighbour
from inspector.tui.screens.latent import examples_table, latent_page
from tests.fake_session import HOSTILE, FakeSession

SESSION = FakeSession()


def small(**changes: object) -> LatentView:
    example = LatentExample(context=6, position=41, start=40, tokens=["the", " dark", "\n", "x"],
                            activations=pack(array("f", [0.0, 8.0, 2.0, 0.0])))  # fmt: skip
    values: dict[str, object] = {
        "sae_id": "s", "index": 7, "density": 0.0025, "n_tokens": 12345, "max_activation": 8.0, "examples": [example],
        "neighbours": [Neighbour(index=3, cosine=0.75), Neighbour(index=400, cosine=-0.5)],
    }  # fmt: skip
    return LatentView(**{**values, **changes})  # type: ignore[arg-type]


def shown(view: LatentView, width: int = 60, cursor: int = 0) -> list[str]:
    return text_of(latent_page(view, cursor, width, build_palette(DEFAULT_ENDPOINTS, "none")).lines).splitlines()


def test_a_latent_to_the_cell() -> None:
    assert shown(small(explanation="darkness", score=0.75, link="https://example.org/7")) == [
        "active at 0.25% of 12,345 tokens · largest activation 8.00",
        "https://example.org/7",
        "darkness (score 0.75)",
        "",
        "nearest decoder directions, by number key",
        "  1: 3 +.75   2: 400 -.50   ",
        "",
        "▸ context 7, position 41 · 8.00",
        "  the[ dark█]⏎▃x",
        "",
    ]


def test_what_is_missing_is_said() -> None:
    text = shown(small(examples=[], neighbours=[], density=0.0, max_activation=0.0))
    assert text[1] == "no explanation is stored: `dm-inspect interp` makes them"
    assert text[-1] == "It is active at none of the 12,345 tokens searched."
    assert "a dense latent" in shown(small(density=0.2))[0]
    assert "(not scored)" in "\n".join(shown(small(explanation="darkness")))


def test_the_cursor_marks_one_example_and_its_place_is_known() -> None:
    view = SESSION.latent(GetLatent(sae_id=SESSION.saes[0].sae_id, index=4))
    view = msgspec.structs.replace(view, examples=view.examples[:3])
    page = latent_page(view, 1, 80, build_palette(DEFAULT_ENDPOINTS, "none"))
    texts = ["".join(text for text, _ in line) for line in page.lines]
    assert [texts[start][:11] for start in page.starts[:-1]] == ["  context 5", "▸ context 1", "  context 1"]
    assert page.starts[-1] == len(page.lines)


@pytest.mark.parametrize("depth", ["truecolor", "16", "none"])
@pytest.mark.parametrize("width", [40, 77, 160])
def test_hostile_tokens_fit_and_are_symbols(depth: Depth, width: int) -> None:
    example = LatentExample(context=0, position=0, start=0, tokens=list(HOSTILE),
                            activations=pack(array("f", [1.0] * len(HOSTILE))))  # fmt: skip
    view = small(examples=[example], explanation="\x1b[2J", link="https://\x1b]0;x\x07")
    for line in latent_page(view, 0, width, build_palette(DEFAULT_ENDPOINTS, depth)).lines:
        text = "".join(piece for piece, _ in line)
        assert cell_width(text) <= width
        assert not any(unicodedata.category(character)[0] == "C" for character in text)


def test_the_table_has_a_line_per_token() -> None:
    assert examples_table(small()).splitlines() == [
        "sae\tlatent\texample\tcontext\tposition\ttoken\tactivation",
        "s\t7\t1\t6\t40\tthe\t0",
        "s\t7\t1\t6\t41\t dark\t8",
        "s\t7\t1\t6\t42\t\\n\t2",
        "s\t7\t1\t6\t43\tx\t0",
    ]
