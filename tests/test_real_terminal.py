"""The app in a real pseudo-terminal: hostile tokens, small and large windows, poor terminals.

What a terminal receives is judged by its bytes. A control sequence is token-born if its shape never occurs when the
same app shows harmless text; and no control character but those of the app's own sequences may occur at all.
"""

from __future__ import annotations

import contextlib
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

import pytest
from rich.cells import cell_len

from benchmarks.sessions import FakeServer
from benchmarks.terminal import Home, Terminal
from benchmarks.view import open_view, wait_for_colours
from tests.at_the_terminal import LIMIT, ended, redraw
from tests.fake_session import HOSTILE

SEQUENCE = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]+[0-~]|[0-OQ-WYZ\\`-~])"
)
WALK = ("\x1b[C", "\x1b[B", "\x1b[6~", "1", "2", "m", "]", "\x1b[6~", "n", "\x1b[C", "?", "\x1b")
EDGES = "│┃║▏▕▌▐"
INVISIBLE = {"Cc", "Cf", "Zl", "Zp"}


def shapes(raw: bytes) -> set[bytes]:
    """The control sequences that occur, numbers replaced by 0."""
    return {re.sub(rb"\d+(?:[;:]\d+)*", b"0", match.group()) for match in SEQUENCE.finditer(raw)}


def text_of(raw: bytes) -> str:
    """What is left when the sequences are taken out; invalid UTF-8 fails."""
    return SEQUENCE.sub(b"", raw).decode("utf-8")


def invisible(raw: bytes) -> set[str]:
    """Control, format and separator characters outside of sequences."""
    return {character for character in text_of(raw) if unicodedata.category(character) in INVISIBLE}


def walk(view: Terminal, keys: Iterable[str] = WALK) -> bytes:
    """Use the app for a while; all bytes it wrote meanwhile."""
    for key in keys:
        view.send(key)
        view.read_until_silent(0.1, limit=3.0, first=0.3)
    view.read_until_silent(0.6, LIMIT, first=0.6)  # longer than the app waits before it paints
    return view.raw


@contextlib.contextmanager
def attached(
    columns: int = 120, rows: int = 40, environment: Mapping[str, str] | None = None, **session: float
) -> Iterator[Terminal]:
    """The app on an invented session."""
    with Home() as home, FakeServer(home, n_contexts=6, **session) as server:
        extra = {**server.environment, **(environment or {})}
        with Terminal([sys.executable, "-m", "inspector"], home, columns=columns, rows=rows, extra=extra) as view:
            yield view


def show(hostile_share: float) -> bytes:
    with attached(hostile_share=hostile_share) as view:
        wait_for_colours(view, LIMIT)
        return walk(view)


@pytest.fixture(scope="module")
def harmless() -> bytes:
    return show(0.0)


def test_no_token_reaches_the_terminal_as_a_control_sequence(harmless):
    raw = show(0.6)
    assert shapes(raw) <= shapes(harmless)
    assert invisible(raw) <= {"\r", "\n"}
    for token in HOSTILE:
        if any(unicodedata.category(character) == "Cc" for character in token) and len(token) > 2:
            assert token.encode() not in raw, ascii(token)


def test_wide_combining_and_half_characters_keep_the_frame_straight():
    """The pane's edges stand in the same columns on every row, whatever the tokens are."""
    with attached(hostile_share=0.6) as view:
        wait_for_colours(view, LIMIT)
        lines = view.lines
    assert any("日" in line or "한" in line for line in lines)
    edges = {edge_columns(line) for line in lines[6:24]}
    assert len(edges) == 1, [line.rstrip() for line in lines]


@pytest.mark.parametrize("hostile_share", [0.0, 0.6])
def test_what_the_terminal_shows_after_many_small_updates_is_what_a_full_repaint_shows(hostile_share):
    """Only changed cells are sent; a cell that was forgotten on the way would differ from a repaint of everything."""
    with attached(hostile_share=hostile_share) as view:
        wait_for_colours(view, LIMIT)
        walk(view, (*WALK, "d", "\x1b[B", "d", "u", "\x1b[C", "u", *"345", "M", "\x1b[5~"))
        shown = cells_of(view)
        assert redraw(view) > 4000, "a full repaint"
        for row, (before, after) in enumerate(zip(shown, cells_of(view), strict=True)):
            assert before == after, row


def edge_columns(line: str) -> tuple[int, ...]:
    """Columns of vertical lines; a wide character is one character of the line and two of its cells."""
    columns = (sum(cell_len(c) for c in line[:i]) for i, character in enumerate(line) if character in EDGES)
    return tuple(columns)


def shows_tokens(lines: list[str]) -> bool:
    return any("self" in line or "return" in line for line in lines)


@pytest.mark.parametrize(("columns", "rows"), [(60, 16), (80, 24), (120, 40), (300, 80)])
def test_every_window_size_shows_tokens_and_survives_its_keys(columns, rows):
    with attached(columns, rows) as view:
        assert view.wait_until(shows_tokens, LIMIT), view.lines
        walk(view)
        assert view.process.poll() is None
        assert b"Traceback" not in view.raw
        assert view.screen.n_visible > 0


@pytest.mark.parametrize(("columns", "rows"), [(40, 10), (59, 40), (120, 15), (1, 1)])
def test_a_window_that_is_too_small_says_so_and_can_be_left(columns, rows):
    with attached(columns, rows) as view:
        if columns > 1:
            assert view.wait_for("60x16", LIMIT), view.lines
        view.resize(60, 16)
        assert view.wait_until(shows_tokens, LIMIT), view.lines
        view.resize(columns, rows)
        view.send("q")
        assert ended(view) == 0


def test_a_storm_of_resizes_while_tokens_stream_leaves_a_whole_screen():
    with attached(tokens_per_second=60) as view:
        wait_for_colours(view, LIMIT)
        view.send("g")
        view.read_for(0.4)
        view.send("\r")
        for step in range(40):
            view.resize(1 + (step * 37) % 200, 1 + (step * 13) % 60)
            view.send(WALK[step % 8])
            view.read_for(0.02 + 0.05 * (step % 2))
        view.resize(120, 40)
        view.read_until_silent(1.0, LIMIT)
        assert view.process.poll() is None
        assert b"Traceback" not in view.raw
        shown = cells_of(view)
        assert redraw(view) > 4000, "a full repaint"
        assert shown == cells_of(view)


def cells_of(view: Terminal) -> list[list[tuple[str, str, str]]]:
    return [view.screen.styles(row) for row in range(view.rows)]


@pytest.mark.parametrize(
    "environment",
    [
        {"NO_COLOR": "1"},
        {"TERM": "vt100", "COLORTERM": ""},
        {"TERM": "xterm", "COLORTERM": ""},
        {"TERM": "tmux-256color", "COLORTERM": ""},
        {"LANG": "C", "LC_ALL": "C"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=lambda env: ",".join(f"{k}={v}" for k, v in env.items()),
)
def test_poor_terminals_show_tokens(environment):
    with attached(environment=environment, hostile_share=0.3) as view:
        assert view.wait_until(shows_tokens, LIMIT), view.lines
        walk(view)
        assert view.process.poll() is None
        assert b"Traceback" not in view.raw
        if "NO_COLOR" in environment:
            assert hues(view.raw) == set()


def hues(raw: bytes) -> set[bytes]:
    """Colours sent that are no shade of grey."""
    found = {c for c in re.findall(rb"\d+;2;(\d+;\d+;\d+)", raw) if len(set(c.split(b";"))) > 1}
    plain = re.sub(rb"[34]8;2;\d+;\d+;\d+", b"", raw)
    return found | set(re.findall(rb"\x1b\[(?:\d*;)*(3[1-6]|4[1-6]|9[1-6]|10[1-6])(?:;\d*)*m", plain))


def test_a_dumb_terminal_gets_plain_text_instead_of_the_app():
    with Home() as home, Terminal([sys.executable, "-m", "inspector", "--help"], home, extra={"TERM": "dumb"}) as view:
        assert ended(view) == 0
        assert view.raw
        assert b"\x1b" not in view.raw


def test_leaving_gives_the_terminal_back():
    """Every mode that was switched on is switched off again, the cursor shown, the alternate screen left."""
    with attached() as view:
        wait_for_colours(view, LIMIT)
        view.send("q")
        assert ended(view) == 0
        raw = view.raw
    on = set(re.findall(rb"\x1b\[\?(\d+)h", raw)) - {b"25", b"7"}
    for mode in on:
        assert raw.rfind(b"\x1b[?%bl" % mode) > raw.rfind(b"\x1b[?%bh" % mode), mode
    assert raw.rfind(b"\x1b[?25h") > raw.rfind(b"\x1b[?25l")


WHOLE_TOKENS = ("\x1b[2J", "\x1b]0;pwned\x07", "\x9b31m", "日本", "\u0301", "\r", "\u202e", "\x1b[31m")
SPELLED = "\x1b[35m \x1bP+q\x1b\\ \x07 \x08 \u202e \u200b e\u0301 👩\u200d🔬 \x85"


@pytest.mark.slow
def test_a_real_session_on_text_full_of_escapes(harmless, tmp_path):
    """End to end: a tokenizer with escape sequences as whole tokens, a text that spells others byte by byte."""
    from tests import toy

    model = toy.write_toy_model(
        tmp_path / "model\x1b[2J\u202e", n_layers=2, context=64, vocab_size=300 + len(WHOLE_TOKENS)
    )
    toy.fit_toy_suite(toy.write_toy_suite(tmp_path / "suite", layers=(1,)), model)
    tokenizer = toy.toy_tokenizer(300)
    assert tokenizer.add_tokens(list(WHOLE_TOKENS)) == len(WHOLE_TOKENS)
    tokenizer.save(str(model / "tokenizer.json"))
    text = tmp_path / "text.txt"
    words = "the model reads a token and the linear part "
    text.write_text((words + "".join(WHOLE_TOKENS) + words + SPELLED) * 100, encoding="utf-8")
    target = ["--model", str(model), "--layer", "1", "--suite", str(tmp_path / "suite"), "--text", str(text)]
    target += ["--contexts", "24", "--context-length", "64", "--device", "cpu"]
    with Home() as home, open_view(home, target) as view:
        wait_for_colours(view, LIMIT, cells=20)  # 64 tokens are not many
        raw = walk(view)
    assert shapes(raw) <= shapes(harmless)
    assert invisible(raw) <= {"\r", "\n"}
