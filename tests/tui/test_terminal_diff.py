"""What is sent leads to the same picture as a whole repaint would, in a terminal emulator; and it is short."""

from __future__ import annotations

import io
import random
import re

import pyte
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, InlineUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from inspector.tui.terminal_diff import TerminalDiff

WIDTH, HEIGHT = 40, 6
STYLES = [
    Style.parse(text)
    for text in ("", "bold", "red", "red on blue", "bold red on #102030", "underline", "reverse #aabbcc")
]
TEXTS = ["a", " ", "xyz", "日", "e\u0301", "語本", "-----"]
HYPERLINK = re.compile("\x1b]8;[^\x1b]*\x1b\\\\")


def console() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=WIDTH, height=HEIGHT)


class Emulator:
    """A terminal that can be compared cell by cell."""

    def __init__(self) -> None:
        self.screen = pyte.Screen(WIDTH, HEIGHT)
        self.stream = pyte.Stream(self.screen)

    def feed(self, update: CompositorUpdate | None) -> int:
        text = "" if update is None else update.render_segments(console())
        self.stream.feed(HYPERLINK.sub("", text))
        return len(text)

    def cells(self) -> list[list[tuple[object, ...]]]:
        return [[tuple(self.screen.buffer[y][x]) for x in range(WIDTH)] for y in range(HEIGHT)]


def random_strip(rng: random.Random, width: int) -> Strip:
    segments: list[Segment] = []
    room = width - 1
    while room:
        text = rng.choice(TEXTS)
        size = Segment(text).cell_length
        if size <= room:
            segments.append(Segment(text, rng.choice(STYLES)))
            room -= size
    # pyte wraps before a combining mark in the last column, which terminals do not: keep marks out of it.
    return Strip([*segments, Segment(".")], width)


def whole(strips: list[Strip]) -> LayoutUpdate:
    return LayoutUpdate([[strip] for strip in strips], Region(0, 0, WIDTH, HEIGHT))


def changed_somewhere(rng: random.Random, strips: list[Strip]) -> list[Strip]:
    out = list(strips)
    for _ in range(rng.randint(1, 3)):
        y, x = rng.randrange(HEIGHT), rng.randrange(WIDTH - 8)
        left, _, right = (*out[y].divide([x, x + 8, WIDTH]),)
        out[y] = Strip([*left, *random_strip(rng, 8), *right])
    return out


def test_a_hundred_random_pictures_come_out_as_if_repainted() -> None:
    rng = random.Random(0)
    diff, ours = TerminalDiff(), Emulator()
    strips = [random_strip(rng, WIDTH) for _ in range(HEIGHT)]
    for _ in range(100):
        ours.feed(diff.reduce(whole(strips), console(), (WIDTH, HEIGHT)))
        reference = Emulator()
        reference.feed(whole(strips))
        assert ours.cells() == reference.cells()
        strips = changed_somewhere(rng, strips)


def plain(text: str, style: Style | None = None) -> Strip:
    return Strip([Segment(text.ljust(WIDTH), style)], WIDTH)


def test_the_same_picture_again_sends_nothing() -> None:
    diff = TerminalDiff()
    picture = whole([plain(f"line {y}") for y in range(HEIGHT)])
    assert diff.reduce(picture, console(), (WIDTH, HEIGHT)) is not None
    assert diff.reduce(picture, console(), (WIDTH, HEIGHT)) is None


def test_one_changed_digit_costs_a_move_and_the_digit() -> None:
    diff = TerminalDiff()
    lines = [plain("x" * 39) for _ in range(HEIGHT)]
    diff.reduce(whole(lines), console(), (WIDTH, HEIGHT))
    lines[3] = plain("x" * 30 + "7" + "x" * 8)
    update = diff.reduce(whole(lines), console(), (WIDTH, HEIGHT))
    assert update is not None
    assert update.render_segments(console()) == "\x1b[4;31H7"


def test_colours_are_sent_when_they_change_and_taken_back_at_the_end() -> None:
    diff = TerminalDiff()
    lines = [plain("") for _ in range(HEIGHT)]
    diff.reduce(whole(lines), console(), (WIDTH, HEIGHT))
    lines[0] = Strip([Segment("ab", Style.parse("red")), Segment("cd", Style.parse("red on blue")), Segment(" " * 36)])
    update = diff.reduce(whole(lines), console(), (WIDTH, HEIGHT))
    assert update is not None
    assert update.render_segments(console()) == "\x1b[1;1H\x1b[31mab\x1b[44mcd\x1b[0m"


def test_after_forgetting_everything_is_sent() -> None:
    diff = TerminalDiff()
    picture = whole([plain("x") for _ in range(HEIGHT)])
    first = diff.reduce(picture, console(), (WIDTH, HEIGHT))
    diff.forget()
    again = diff.reduce(picture, console(), (WIDTH, HEIGHT))
    assert first is not None
    assert again is not None
    assert again.render_segments(console()) == first.render_segments(console())


def test_another_size_is_another_picture() -> None:
    diff = TerminalDiff()
    picture = whole([plain("x") for _ in range(HEIGHT)])
    diff.reduce(picture, console(), (WIDTH, HEIGHT))
    assert diff.reduce(picture, console(), (WIDTH + 1, HEIGHT)) is not None


def test_partial_updates_touch_only_their_chops() -> None:
    """As Textual makes them: strips by first column; one that is None was not rendered and must stay as it is."""
    diff, ours = TerminalDiff(), Emulator()
    ours.feed(diff.reduce(whole([plain("." * WIDTH) for _ in range(HEIGHT)]), console(), (WIDTH, HEIGHT)))
    chops = [{0: None, 20: None} for _ in range(HEIGHT)]
    chops[2] = {0: None, 20: Strip([Segment("new".ljust(20, "."))], 20)}
    update = ChopsUpdate(chops, [(2, 20, 25)], [[20, 40] for _ in range(HEIGHT)])
    sent = diff.reduce(update, console(), (WIDTH, HEIGHT))
    assert sent is not None
    assert sent.render_segments(console()) == "\x1b[3;21Hnew"
    ours.feed(sent)
    assert ours.screen.display[2] == "." * 20 + "new" + "." * 17


def test_an_update_of_another_kind_is_passed_on_and_the_picture_forgotten() -> None:
    diff = TerminalDiff()
    picture = whole([plain("x") for _ in range(HEIGHT)])
    diff.reduce(picture, console(), (WIDTH, HEIGHT))
    unknown = InlineUpdate([plain("y")])
    assert diff.reduce(unknown, console(), (WIDTH, HEIGHT)) is unknown
    assert diff.reduce(picture, console(), (WIDTH, HEIGHT)) is not None


def test_after_a_wide_character_the_column_is_stated() -> None:
    """Terminals disagree about widths: what follows must not depend on theirs."""
    diff = TerminalDiff()
    lines = [plain("") for _ in range(HEIGHT)]
    diff.reduce(whole(lines), console(), (WIDTH, HEIGHT))
    lines[0] = Strip([Segment("日" + " " * 8 + "z" + " " * 29)])
    update = diff.reduce(whole(lines), console(), (WIDTH, HEIGHT))
    assert update is not None
    assert update.render_segments(console()) == "\x1b[1;1H日\x1b[1;11Hz"


def test_an_update_for_a_larger_window_than_there_is_now_paints_what_fits() -> None:
    diff = TerminalDiff()
    assert diff.reduce(whole([random_strip(random.Random(1), WIDTH)]), console(), (WIDTH // 2, 1)) is not None
    beside = LayoutUpdate([[Strip([Segment("beyond")])]], Region(WIDTH, 0, 6, 1))
    assert diff.reduce(beside, console(), (WIDTH // 2, 1)) is None
    below = LayoutUpdate([[Strip([Segment("beyond")])]], Region(0, 1, 6, 1))
    assert diff.reduce(below, console(), (WIDTH // 2, 1)) is None


def test_the_last_gate_sends_nothing_that_a_terminal_obeys() -> None:
    hostile = "a\x1b[2Jb\x9b31mc\u202ed\x07\u200be\u2028f\u00a0g\ue000"
    update = TerminalDiff().reduce(whole([Strip([Segment(hostile)])]), console(), (WIDTH, 1))
    assert update is not None
    text = update.render_segments(console())
    assert text.removeprefix("\x1b[1;1H").startswith("a[2Jb31mcde")
    assert not set(text.removeprefix("\x1b[1;1H")) & set("\x1b\x9b\u202e\x07\u200b\u2028")
