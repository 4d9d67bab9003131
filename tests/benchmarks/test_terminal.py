"""The harness must read a screen right before it may judge one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.terminal import Home, Screen, Terminal

SHOWS_SIZE = """
import os, signal, time
# Not by print, which may be in the middle of "ready" when the signal comes.
signal.signal(signal.SIGWINCH, lambda *_: os.write(1, str(os.get_terminal_size().columns).encode()))
print("ready", flush=True)
time.sleep(600)
"""
BLANKS_THEN_TEXT = """
import sys, time
print(" " * 30, end="", flush=True)
sys.stdin.readline()
print("x" * 25, end="", flush=True)
time.sleep(600)
"""
ASKS = """
import os, sys, tty
tty.setraw(0)
print("\\x1b[?2026$p", end="", flush=True)
print(repr(os.read(0, 100)), flush=True)
os.read(0, 1)
"""
COMPUTES_BETWEEN = """
import time
print("first", flush=True)
while time.process_time() < 1.0:
    pass
print("second", flush=True)
time.sleep(600)
"""
LEAVES_ONE_BEHIND = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print("done")
"""


def script(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "program.py"
    path.write_text(text, encoding="utf-8")
    return [sys.executable, str(path)]


@pytest.fixture
def home():
    with Home() as made:
        yield made


PAINTING = (
    b"\x1b[?2026h\x1b[>25u\x1b]0;a title\x07\x1b[2J\x1b[1;1H\x1b[1;38;2;10;20;30mab\x1b[0m"
    b"\x1b[2;3Hc\xc3\xa9\x1bP+q544e\x1b\\\x1b[?2026l"
)


def test_screen_shows_cells_and_swallows_titles_and_questions():
    screen = Screen(6, 2)
    screen.feed(PAINTING)
    assert screen.lines == ["ab    ", "  cé  "]
    assert screen.n_visible == 4
    assert screen.styles(0)[0] == ("a", "0a141e", "default")


def test_screen_does_not_depend_on_where_the_stream_was_cut():
    for cut in range(1, len(PAINTING)):
        screen = Screen(6, 2)
        screen.feed(PAINTING[:cut])
        screen.feed(PAINTING[cut:])
        assert screen.lines == ["ab    ", "  cé  "], cut


def test_screen_fed_byte_by_byte_is_the_same():
    screen = Screen(6, 2)
    for byte in PAINTING:
        screen.feed(bytes([byte]))
    assert screen.lines == ["ab    ", "  cé  "]


def test_an_escape_that_never_ends_does_not_swallow_the_rest():
    screen = Screen(20, 2)
    screen.feed(b"\x1b]0;" + b"x" * 5000)
    screen.feed(b"\x07\x1b[1;1Hshown")
    assert "shown" in "".join(screen.lines)


def test_terminal_counts_every_byte_and_first_paint_needs_visible_cells(tmp_path, home):
    with Terminal(script(tmp_path, BLANKS_THEN_TEXT), home) as terminal:
        assert terminal.wait_until(lambda _: len(terminal.raw) == 30, limit=120)
        n_blank = len(terminal.chunks)
        terminal.send("\n")  # only then it goes on
        assert terminal.wait_for("xxxxx", limit=120)
        assert len(terminal.raw) == 30 + len("\r\n") + 25  # the terminal echoes what is typed
        painted = terminal.first_painted()
        assert painted in {chunk.at - terminal.started for chunk in terminal.chunks[n_blank:]}  # blanks are no picture


def test_first_paint_of_a_blank_program_is_none(tmp_path, home):
    with Terminal(script(tmp_path, "print(' ')"), home) as terminal:
        terminal.read_until_silent(first=120)
        assert terminal.first_painted() is None


def test_burst_holds_only_what_came_after_the_key(tmp_path, home):
    text = "import sys\nprint('a'*10, flush=True)\nfor line in sys.stdin: print('b'*int(line), flush=True)"
    with Terminal(script(tmp_path, text), home) as terminal:
        assert terminal.wait_for("a" * 10, limit=120)
        burst = terminal.press("7\n", silence=1.0, limit=120)
        assert burst.n_bytes == len("7\r\n") + len("bbbbbbb\r\n")  # the terminal echoes what is typed
        assert burst.seconds > 0
        assert terminal.read_for(0.1).n_bytes == 0


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at /proc")
def test_a_program_that_computes_is_not_silent(tmp_path, home):
    with Terminal(script(tmp_path, COMPUTES_BETWEEN), home) as terminal:
        terminal.read_until_silent(silence=0.3, limit=120, first=120)
        assert b"second" in terminal.raw


def test_questions_of_the_program_are_answered(tmp_path, home):
    with Terminal(script(tmp_path, ASKS), home) as terminal:
        assert terminal.wait_for("[?2026;2$y", limit=120)


def test_resize_reaches_the_program(home):
    with Terminal([sys.executable, "-c", SHOWS_SIZE], home) as terminal:
        assert terminal.wait_for("ready", limit=120)
        terminal.resize(77, 20)
        assert terminal.wait_for("77", limit=120)


def test_home_is_private_and_ends_what_it_started(tmp_path):
    with Home() as home:
        environment = home.environment({"TERM": "dumb", "COLORTERM": ""})
        assert environment["TERM"] == "dumb"
        assert "COLORTERM" not in environment
        assert Path(environment["HOME"]) == home.path
        with Terminal(script(tmp_path, LEAVES_ONE_BEHIND), home) as terminal:
            assert terminal.wait_for("done", limit=120)
        if not Path("/proc").exists():
            pytest.skip("without /proc the harness cannot find what a program left behind")
        assert len(home.processes()) == 1
    assert home.processes() == []
    assert not home.path.exists()


def test_two_halves_of_a_wide_character_are_one_cell_pair():
    data = "日本".encode()
    for cut in range(1, len(data)):
        screen = Screen(8, 1)
        screen.feed(data[:cut])
        screen.feed(data[cut:])
        assert screen.lines[0].startswith("日")
