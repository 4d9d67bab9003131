"""The side pane's lines, to the character."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest

from inspector.drawing.tokens import TokenScalars
from inspector.session.cards import Latent
from inspector.session.protocol import GetDetail, TokenDetail
from inspector.tui.lines import Line, text_of, width_of
from inspector.tui.widgets.detail import (
    TokenFacts,
    bar,
    compact,
    guess_lines,
    latent_lines,
    norm_lines,
    note_lines,
    title_pieces,
)
from tests.fake_session import FakeSession
from tests.tui.texts import scored_text, two_widths


def facts(position: int = 2, has_map: bool = True, scale: float = 30.0) -> TokenFacts:
    return TokenFacts(text=scored_text(has_map=has_map), position=position, choice=two_widths(), scale=scale)


def texts(lines: list[Line]) -> list[str]:
    return [text_of(line) for line in lines]


def test_norms_of_a_token() -> None:
    """Norms 15 and 7.5 on a scale of 30 in 10 columns; 3:4 norms are 9:16 squared, so 36% of a bar is linear. 9, 12 and
    15 are a right angle."""
    assert texts(norm_lines(facts(), 52)) == [
        "loss 1.00  ‖x‖ 10.0  held out",
        "",
        "         total           ▓ linear █ nonlin   cos  L0",
        "● 256     15.0 ▓▓███         9.00     12.0 +0.00  16",
        "◉ 1k      7.50 ▓█            4.50     6.00 +0.00  16",
    ]


def test_the_parts_of_an_error_that_is_shorter_than_one_of_them_are_at_an_obtuse_angle() -> None:
    """The case that looks like a bug: total 10.7, linear 8.08, nonlinear 13.0."""
    token = TokenScalars(0.0, 1.0, 1.0, 10.7, 8.08, 13.0)
    sides = np.array([[8.08, 0.0], [13.0 * token.cosine, 13.0 * np.sqrt(1 - token.cosine**2)]])
    assert token.cosine < 0
    assert np.linalg.norm(sides.sum(axis=0)) == pytest.approx(10.7, rel=1e-9)  # float64
    assert TokenScalars(0.0, 1.0, 1.0, 5.0, 3.0, 0.0).cosine != TokenScalars(0.0, 1.0, 1.0, 5.0, 3.0, 0.0).cosine
    shown = facts()
    columns = shown.text.document.saes[0]
    for column, norm in zip(columns.columns()[1:], (10.7, 8.08, 13.0), strict=True):
        column[2] = norm
    assert texts(norm_lines(shown, 52))[3].endswith("8.08     13.0 -0.57  16")


def test_the_bars_say_what_they_are_where_there_is_room() -> None:
    assert texts(note_lines(facts(), 60, 9)) == [
        "Bars: length is the total, split by squared norms.",
        "Parts are not orthogonal on one token:",
        "total² = linear² + nonlin² + 2·cos·linear·nonlin.",
    ]
    assert texts(note_lines(facts(), 20, 1)) == ["Bars split by squar…"]
    assert note_lines(facts(), 60, 0) == note_lines(facts(has_map=False), 60, 9) == []


def test_before_the_first_map_the_bars_have_no_parts() -> None:
    assert texts(norm_lines(facts(has_map=False), 52))[2:] == [
        "         total            no linear map yet",
        "● 256     15.0 ▒▒▒▒▒     ",
        "◉ 1k      7.50 ▒▒        ",
    ]


def test_an_unknown_loss_and_an_excluded_token_are_said() -> None:
    assert texts(norm_lines(facts(position=5), 52))[0] == "loss -     ‖x‖ 10.0  held out"
    assert texts(norm_lines(facts(position=0), 52))[0] == "loss 0.00  ‖x‖ 10.0  excluded"


def test_a_bar_is_as_long_as_its_norm_and_split_by_squared_norms() -> None:
    assert bar(10.0, 6.0, 8.0, 20.0, 20) == [("▓▓▓▓", "linear"), ("██████", "nonlinear"), (" " * 10, "")]
    assert bar(10.0, 0.0, 10.0, 20.0, 4) == [("██", "nonlinear"), ("  ", "")]
    assert bar(nan, nan, nan, 20.0, 4) == [("-   ", "muted")]
    assert bar(5.0, nan, nan, 10.0, 4) == [("▒▒", "muted"), ("  ", "")]


def test_a_norm_beyond_the_scale_is_marked() -> None:
    assert bar(40.0, 6.0, 8.0, 20.0, 5) == [("▓▓", "linear"), ("██›", "nonlinear")]
    assert bar(40.0, 1.0, 0.0, 20.0, 3) == [("▓▓›", "linear")]


@pytest.mark.parametrize("linear", [0.0, 0.1, 1.0, 5.0, nan])
@pytest.mark.parametrize("total", [0.0, 0.4, 19.9, 20.0, 21.0, nan])
def test_a_bar_always_fills_its_room(total: float, linear: float) -> None:
    for room in (4, 17):
        assert width_of(bar(total, linear, 1.0, 20.0, room)) == room


def test_hostile_tokens_are_shown_harmless() -> None:
    shown = facts(position=1)
    shown.text.document.tokens[1] = "\x1b[31m\n"
    assert texts([title_pieces(shown)[0], title_pieces(shown)[1]]) == ["'␛[31m⏎'", "position 1 · id 101"]
    assert compact("\n" + " " * 12) == "⏎␣×12"
    assert compact(" a") == " a"


def test_a_token_within_a_character_names_the_character() -> None:
    shown = facts(position=3)
    shown.text.document.tokens[1:4] = ["語", "", ""]
    assert texts([title_pieces(shown)[0]]) == ["'語' ⋯"]


def detail(latents: list[Latent]) -> TokenDetail:
    return TokenDetail(
        source="context", context=0, position=0, sae_id="x", latents=latents, n_active=len(latents), guesses={}
    )


def test_latents_in_columns_and_how_many_are_not_shown() -> None:
    latents = [
        Latent(index=10**k, activation=12.0 / (k + 1), link="https://e.org/1" if k == 0 else "") for k in range(5)
    ]
    assert texts(latent_lines(detail(latents), facts(), 26, 3)) == [
        "latents of 1k, L0 16 · 5 active, strongest 4",
        "    1 +12⇗     10 +6.0  ",
        "  100 +4.0   1000 +3.0  ",
    ]
    text, look = latent_lines(detail(latents), facts(), 26, 9)[1][0]
    assert text == "    1 +12⇗" and look.endswith(" link=https://e.org/1")
    assert len(latent_lines(detail(latents), facts(), 26, 9)) == 4


def test_no_latents_and_no_answer_yet() -> None:
    assert texts(latent_lines(detail([]), facts(), 40, 5)) == ["latents of 1k, L0 16 · 0 active", "none is active"]
    assert texts(latent_lines(None, facts(), 40, 5)) == ["latents of 1k, L0 16", "…"]
    assert latent_lines(None, facts(), 40, 1) == []


def test_guesses_stand_side_by_side_and_the_models_own_is_bold_everywhere() -> None:
    session = FakeSession()
    asked = GetDetail(source="context", context=0, position=40, sae_id=session.saes[7].sae_id)
    lines = guess_lines(session.detail(asked), 52)
    assert texts(lines) == [
        "next token, with the SAE's output spliced in",
        "model        Sae          +linear      +nonlin      ",
        "⇄        .70 ␣×8      .60 ⇄        .50 ⇄        .40 ",
        "[bold r… .28 _name    .24 [bold r… .20 [bold r… .16 ",
        "↵        .11  dark    .10 ↵        .08 ↵        .06 ",
    ]
    assert [style for text, style in lines[2] if "." not in text] == ["strong", "", "strong", "strong"]
    assert len(guess_lines(None, 52)) == 5, "no jump when the answer comes"
