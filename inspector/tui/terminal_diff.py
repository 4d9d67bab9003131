"""Send the terminal only the cells that changed.

Textual repaints whole spans: a changed digit at the right end of a line resends the line, a layout change resends the
screen. Over SSH that is most of the lag. This remembers what the terminal shows, cell by cell, and turns each of
Textual's updates into the shortest moves, colours and characters that lead to the same picture.

It must never guess: after the terminal was cleared or resized `forget` is called, and the next update is sent whole.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import get_character_cell_size
from rich.color import ColorSystem
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console
    from rich.style import Style
    from textual.strip import Strip

OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of control, format and surrogate characters and of separators of lines: never sent."""
MERGE_GAP = 3
"""Unchanged cells between two changed ones that are sent again: moving over them costs four bytes or more."""


class Look(NamedTuple):
    """How a cell is drawn, as the terminal's own codes; shared between equal styles, so `is` compares them."""

    attributes: str
    foreground: str
    background: str
    link: str


class Cell(NamedTuple):
    """One column of one line: a character with its combining marks; empty text is the right half of a wide one."""

    text: str
    look: Look


Row = list[Cell]
PLAIN = Look("", "", "", "")
UNKNOWN = Cell("?", Look("unknown", "", "", ""))
"""Equal to nothing that is ever drawn."""


class _Update(CompositorUpdate):
    """What Textual writes instead of its own update."""

    def __init__(self, text: str) -> None:
        self.text = text

    def render_segments(self, console: Console) -> str:
        return self.text


class TerminalDiff:
    """The picture on the terminal, and the way from it to the next one."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._width = 0
        self._looks: dict[Style | None, Look] = {None: PLAIN}
        self._shared: dict[Look, Look] = {PLAIN: PLAIN}
        self._color_system = ColorSystem.TRUECOLOR

    def forget(self) -> None:
        """The terminal was cleared, resized or written to by another program: send everything next time."""
        self._rows = []

    def reduce(self, update: CompositorUpdate, console: Console, size: tuple[int, int]) -> CompositorUpdate | None:
        """The smallest update with the same effect; None if the terminal already shows it.

        Args:
            update: What Textual wants to paint. A kind this does not know is passed on, and the picture forgotten.
            console: For its colour depth.
            size: Columns and lines of the screen.
        """
        if not isinstance(update, (ChopsUpdate, LayoutUpdate)):
            self.forget()
            return update
        color_system = ColorSystem(console._color_system or ColorSystem.TRUECOLOR)
        if color_system != self._color_system:
            self._color_system = color_system
            self._looks = {None: PLAIN}
            self.forget()
        width, height = size
        if len(self._rows) != height or self._width != width:
            self._width = width
            self._rows = [[UNKNOWN] * width for _ in range(height)]
        out: list[str] = []
        pen = _Pen(out)
        for y, x, strips in _painted(update):
            if 0 <= y < height:
                self._paint(pen, y, x, strips)
        if not out:
            return None
        pen.lift()
        return _Update("".join(out))

    def _paint(self, pen: _Pen, y: int, x: int, strips: Iterable[Strip]) -> None:
        cells: Row = []
        for strip in strips:
            self._cells(strip, cells)
        if not 0 <= x < self._width:  # While a window shrinks, an update may still be about the larger one.
            return
        row = self._rows[y]
        cells = cells[: self._width - x]
        end = x + len(cells)
        if row[x:end] == cells:
            return
        old, row[x:end] = row[x:end], cells
        for first, last in _changed(old, cells):
            pen.draw(x + first, y, cells[first:last])

    def _cells(self, strip: Strip, cells: Row) -> None:
        """Append the strip's cells."""
        looks = self._looks
        append = cells.append
        for text, style, control in strip:
            if control:
                continue
            look = looks.get(style)
            if look is None:
                look = looks[style] = self._look(style)
            if not text.isprintable():
                text = _harmless(text)
            if text.isascii():
                cells.extend([Cell(character, look) for character in text])
                continue
            for character in text:
                cell_size = get_character_cell_size(character)
                if cell_size == 0:
                    if cells:
                        cells[-1] = Cell(cells[-1].text + character, cells[-1].look)
                    continue
                append(Cell(character, look))
                if cell_size == 2:
                    append(Cell("", look))

    def _look(self, style: Style | None) -> Look:
        if style is None:
            return PLAIN
        system = self._color_system
        attributes = ";".join(
            code
            for code, on in (
                ("1", style.bold),
                ("2", style.dim),
                ("3", style.italic),
                ("4", style.underline),
                ("5", style.blink),
                ("7", style.reverse),
                ("9", style.strike),
                ("21", style.underline2),
                ("53", style.overline),
            )
            if on
        )
        foreground = ";".join(style.color.downgrade(system).get_ansi_codes(True)) if style.color else ""
        background = ";".join(style.bgcolor.downgrade(system).get_ansi_codes(False)) if style.bgcolor else ""
        link = style.link if style.link and style.link.isprintable() else ""
        look = Look(attributes, foreground, background, link)
        return self._shared.setdefault(look, look)


class _Pen:
    """Writes cells, remembering where the terminal's cursor is and which colours are on."""

    def __init__(self, out: list[str]) -> None:
        self.out = out
        self._look = PLAIN
        self._at: tuple[int, int] | None = None

    def draw(self, x: int, y: int, cells: Row) -> None:
        self._move(x, y)
        for text, look in cells:
            if not text:
                continue
            if look is not self._look:
                self._use(look)
            self.out.append(text)
        simple = all(len(cell.text) == 1 for cell in cells)
        # Terminals disagree about the width of wide and combining characters; after them, do not trust where we are.
        self._at = (x + len(cells), y) if simple else None

    def lift(self) -> None:
        """End in the terminal's plain state, on which all other output relies."""
        self._use(PLAIN)

    def _move(self, x: int, y: int) -> None:
        if self._at == (x, y):
            return
        if self._at is not None and self._at[1] == y and x > self._at[0]:
            distance = x - self._at[0]
            self.out.append("\x1b[C" if distance == 1 else f"\x1b[{distance}C")
        else:
            self.out.append(f"\x1b[{y + 1};{x + 1}H")

    def _use(self, look: Look) -> None:
        old, self._look = self._look, look
        if old.link != look.link:
            self.out.append(f"\x1b]8;;{look.link}\x1b\\")
        if old[:3] == look[:3]:
            return
        if look[:3] == PLAIN[:3]:
            self.out.append("\x1b[0m")
        elif old.attributes != look.attributes:
            codes = ";".join(part for part in ("0" if old[:3] != PLAIN[:3] else "", *look[:3]) if part)
            self.out.append(f"\x1b[{codes}m")
        else:
            changed = []
            if old.foreground != look.foreground:
                changed.append(look.foreground or "39")
            if old.background != look.background:
                changed.append(look.background or "49")
            self.out.append(f"\x1b[{';'.join(changed)}m")


def _harmless(text: str) -> str:
    """The text without what a terminal would obey, as wide as Textual laid it out.

    Panes show such characters as symbols (`drawing.safe_text`). This is the last gate before the terminal, for a name
    that came to a message or a title on another way.
    """
    return "".join(
        " " * get_character_cell_size(character) if unicodedata.category(character) in OBEYED else character
        for character in text
    )


def _painted(update: ChopsUpdate | LayoutUpdate) -> Iterator[tuple[int, int, Iterable[Strip]]]:
    """Line, first column and strips of everything the update may have changed."""
    if isinstance(update, LayoutUpdate):
        for y, line in enumerate(update.strips, update.region.y):
            yield y, update.region.x, line
        return
    lines = {y: (x1, x2) for y, x1, x2 in update.spans}
    for y, x1, x2 in update.spans:
        first, last = lines[y]
        lines[y] = min(first, x1), max(last, x2)
    for y, (x1, x2) in lines.items():
        for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if strip is not None and x < x2 and end > x1:
                yield y, x, [strip]


def _changed(old: Row, new: Row) -> Iterator[tuple[int, int]]:
    """Half-open runs of cells to send, small gaps closed, wide characters whole."""
    runs: list[list[int]] = []
    for index, (before, after) in enumerate(zip(old, new, strict=True)):
        if before is after or before == after:
            continue
        if runs and index - runs[-1][1] <= MERGE_GAP:
            runs[-1][1] = index + 1
        else:
            runs.append([index, index + 1])
    for run in runs:
        while run[0] > 0 and not new[run[0]].text:
            run[0] -= 1
        while run[1] < len(new) and not new[run[1]].text:
            run[1] += 1
        yield run[0], run[1]
