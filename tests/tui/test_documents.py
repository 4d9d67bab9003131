"""Messages made into texts, and the numbers derived from them."""

from __future__ import annotations

from array import array
from math import nan
from pathlib import Path

import pytest

from inspector.drawing.tokens import FVU, LOSS, MODES, NONLINEAR, SHARE, TOTAL
from inspector.session.cards import SaeScores
from inspector.session.frames import pack
from inspector.session.protocol import ContextScores, Generated
from inspector.tui.documents import MAX_DOCUMENTS, ScoredText, Texts, main_measure, table
from inspector.tui.saved_state import write_export
from tests.drawing.documents import mode_named
from tests.tui.texts import floats, scored_text, two_widths


def scores(*totals: float) -> SaeScores:
    return SaeScores(
        l0=pack(floats(*[2.0] * len(totals))),
        sae_error_norm=pack(floats(*totals)),
        linear_error_norm=pack(floats(*[nan] * len(totals))),
        nonlinear_error_norm=pack(floats(*[nan] * len(totals))),
    )


def test_a_message_becomes_a_text() -> None:
    message = ContextScores(
        source="context", context=7, epoch=0, name="n", token_ids=[1, 2], tokens=["a", "b"], split="xt",
        loss=pack(floats(0.5, nan)), x_norm=pack(floats(3, 4)), saes=[scores(1, 2)],
    )  # fmt: skip
    text = ScoredText.of(message)
    assert text.key == ("context", 7)
    assert not text.has_map
    assert text.document.split == ["x", "t"]
    assert list(text.values(0, TOTAL)) == [1, 2]


def generated(
    start: int, totals: tuple[float, ...], finished: bool = False, loss_before: float | None = None
) -> Generated:
    n = len(totals)
    return Generated(
        start=start, token_ids=[9] * n, tokens=["g"] * n, split="h" * n,
        loss=pack(floats(*[nan] * n)), loss_before=loss_before, x_norm=pack(floats(*[1.0] * n)),
        saes=[scores(*totals)], epoch=1, finished=finished,
    )  # fmt: skip


def test_a_generated_text_grows_and_what_was_derived_follows() -> None:
    text = ScoredText.generated(generated(0, (1, 2)), "generated")
    assert text.top([0], TOTAL) == 2
    text.extend(generated(2, (5,), finished=True, loss_before=0.25))
    assert len(text) == 3
    assert text.finished
    assert list(text.values(0, TOTAL)) == [1, 2, 5]
    assert text.top([0], TOTAL) == 5
    assert text.document.loss[1] == 0.25


def test_tokens_that_do_not_follow_are_refused() -> None:
    text = ScoredText.generated(generated(0, (1, 2)), "generated")
    with pytest.raises(ValueError, match="start at 5"):
        text.extend(generated(5, (1,)))


def test_values_of_each_measure() -> None:
    text = scored_text(3)
    assert list(text.values(0, TOTAL)) == [5, 10, 15]
    assert list(text.values(1, NONLINEAR)) == [2, 4, 6]
    assert list(text.values(0, SHARE)) == pytest.approx([16 / 25] * 3)
    assert list(text.values(0, FVU)) == pytest.approx([(4 * k / 10) ** 2 for k in (1, 2, 3)], rel=1e-6)  # float32
    assert list(text.values(0, LOSS))[:2] == [0, 0.5]


def test_extents_leave_out_excluded_tokens_and_missing_numbers() -> None:
    text = scored_text(4, split="xhhx")
    assert text.extent([0, 1], TOTAL) == (5.0, 15.0)
    low, high = scored_text(4, has_map=False).extent([0], NONLINEAR)
    assert (low != low, high != high) == (True, True)


def test_every_mode_ranks_by_something() -> None:
    text = scored_text(4)
    for mode in MODES:
        assert len(text.ranked(0, mode)) == (2 if mode.id == "loss" else 3)
    assert text.ranked(0, mode_named("total")) == [3, 2, 1]
    assert main_measure(mode_named("share")) is SHARE
    assert main_measure(mode_named("mixed")) is TOTAL


def test_the_least_recently_used_text_goes() -> None:
    texts = Texts()
    for context in range(MAX_DOCUMENTS):
        texts.put(scored_text(2, context=context))
    texts.get("context", 0)
    texts.put(scored_text(2, context=999))
    assert len(texts) == MAX_DOCUMENTS
    assert texts.get("context", 0) is not None
    assert texts.get("context", 1) is None
    assert texts.get("prompt", 0) is None


def test_values_are_computed_once() -> None:
    text = scored_text(2)
    assert isinstance(text.values(0, SHARE), array)
    assert text.values(0, SHARE) is text.values(0, SHARE)


def test_the_whole_table() -> None:
    text = scored_text(3, has_map=False)
    text.document.tokens[1] = '\t\n"é\x1b'
    assert table(text, [1, 2], [0], two_widths().saes) == (
        "context\tposition\ttoken_id\ttoken\tsplit\tloss\tx_norm\tsae\tl0\tsae_error_norm\tlinear_error_norm\tnonlinear_error_norm\tcontext_on_screen\n"
        '0\t1\t101\t\\t\\n\\"\\u00e9\\u001b\ttest\t0.5\t10\tw256\t16\t10\t\t\t1\n'
        "0\t2\t102\t t2\ttest\t\t10\tw256\t16\t15\t\t\t1\n"
    )


def test_one_line_per_token_and_sae() -> None:
    lines = table(scored_text(4), range(4), [0, 1], two_widths().saes).splitlines()
    assert len(lines) == 1 + 4 * 2
    assert lines[2].split("\t")[7:] == ["w1k", "16", "2.5", "1.5", "2", "1"]


def test_context_300_on_the_screen_is_300_in_its_file_beside_the_index() -> None:
    names, row = table(scored_text(2, context=299), [0], [0], two_widths().saes).splitlines()
    said = dict(zip(names.split("\t"), row.split("\t"), strict=True))
    assert (said["context"], said["context_on_screen"]) == ("299", "300")


def test_an_export_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = write_export("context-1.tsv", "a\n")
    assert path.read_text() == "a\n"
    assert [p.name for p in path.parent.iterdir()] == ["context-1.tsv"]
