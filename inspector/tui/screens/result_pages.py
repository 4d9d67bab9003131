"""What is drawn of several stored results, as one scrolled page: two side by side, and the paper's claims."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from textual.message import Message

from inspector.errors import InspectorError
from inspector.reports.comparison import Pair, pair_lines
from inspector.reports.result import Shelf, all_verdicts, open_result
from inspector.store.results import load
from inspector.tui.actions import actions_of, help_rows
from inspector.tui.screens.base import SideScreen
from inspector.tui.screens.help import PaneHelp
from inspector.tui.widgets.scrolling import LinesView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from inspector.drawing.palette import Line as DrawnLine
    from inspector.drawing.palette import TokenPalette
    from inspector.store.results import Record, Stored

COMPARE = actions_of(
    "compare",
    ("figure-next", "] right l", "figure(1)", "Next figure", "figure"),
    ("figure-back", "[ left h", "figure(-1)", "Previous figure"),
    ("swap", "s", "swap", "Swap left and right", "swap"),
    ("copy", "y", "copy", "Copy both commands", "copy commands"),
    ("help", "?", "help", "Help for comparing", "help"),
    ("back", "escape q c", "back", "Back to the results", "back"),
)
MOVES = (("↑ ↓ k j", "a line"), ("PgUp PgDn { }", "a page"), ("Home End g G", "top, bottom"))
HELP_OF_TWO = PaneHelp(
    title="Two results side by side",
    paragraphs=(
        "First what made them differ: profile, null, layer, tokens, seed. Then the same figure of both; then their "
        "numbers SAE by SAE with the change, right less left; then the claims that rest on each.",
        "SAEs are matched by name; where no name is shared, as between two layers, by width and nominal L0. The change "
        "has no interval: the two may rest on the same tokens, and then their errors are not independent.",
    ),
    keys=help_rows(MOVES, COMPARE),
)

CLAIMS = actions_of(
    "claims",
    ("copy", "y", "copy", "Copy the command that prints them", "copy command"),
    ("help", "?", "help", "Help for the claims", "help"),
    ("back", "p escape q r", "back", "Back to the results", "back"),
)
HELP_OF_CLAIMS = PaneHelp(
    title="The paper's claims",
    paragraphs=(
        "The paper's claims C1 to C19, judged by code from the newest result of each experiment, or from the marked "
        "ones: ✓ consistent with the paper, ✗ contradicts it, ? cannot tell. Under each: the paper's number, this "
        "run's number with its interval, why, and the results it rests on.",
        "The rules are strict about ignorance: a missing experiment, results of different targets, an interval that "
        "reaches both sides, or a fit that is not identified all mean 'cannot tell'.",
        "A small model is not the paper's: a claim that is contradicted on the demo is contradicted there.",
    ),
    keys=help_rows(MOVES, CLAIMS),
)


class DrawnPage(SideScreen):
    """A page that a thread draws for the room there is, again whenever that or the theme changes."""

    @dataclass
    class Drawn(Message):
        """The page is drawn."""

        turn: int
        lines: Sequence[DrawnLine]
        found: object
        """What was read for it."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = 0
        self._is_shown = False

    def compose(self) -> ComposeResult:
        """One page; it is drawn as soon as its room is known."""
        yield from super().compose()
        yield LinesView()

    def on_mount(self) -> None:
        """Keys go to the page."""
        super().on_mount()
        self.query_one(LinesView).focus()

    def made(self, width: int, height: int, palette: TokenPalette) -> tuple[Sequence[DrawnLine], object]:
        """In a thread: the page's lines, and what was read for them."""
        raise NotImplementedError

    def draw(self) -> None:
        """Begin to draw; an older drawing that is still under way is not shown any more."""
        width, height = self.query_one(LinesView).room
        self._turn += 1
        if width:
            self.in_thread("page", partial(self._draw, self._turn, width, height, self.palette))

    def _draw(self, turn: int, width: int, height: int, palette: TokenPalette) -> None:
        self.post_message(self.Drawn(turn, *self.made(width, height, palette)))

    def on_drawn_page_drawn(self, message: Drawn) -> None:
        """Show it, unless something else was asked for since."""
        if message.turn == self._turn:
            self.take(message.found)
            self.query_one(LinesView).show(message.lines, self.palette, keep_place=self._is_shown)
            self._is_shown = True

    def take(self, found: object) -> None:
        """Keep what was read, for the next drawing."""

    def on_lines_view_resized(self, message: LinesView.Resized) -> None:
        """Draw for the new room."""
        message.stop()
        self.draw()

    def restyle(self) -> None:
        """Colours of another theme."""
        self.draw()


class CompareScreen(DrawnPage):
    """Two results, the first on the left."""

    ACTIONS = COMPARE
    HELP_TEXT = HELP_OF_TWO

    def __init__(self, one: Record, other: Record, shelf: Shelf) -> None:
        """Nothing is read yet.

        Args:
            one: on the left.
            other: on the right.
            shelf: whose results claims are judged with.
        """
        super().__init__()
        self._records = (one, other)
        self._shelf = shelf
        self.pair: Pair | None = None
        """None until both are read."""
        self._index = 0

    def on_mount(self) -> None:
        """Title and keys."""
        super().on_mount()
        self.show_head(("  two results side by side", ""))
        self.show_keys("figure-next", "swap", "copy", ("↑↓", "scroll"), "help", last=("Esc", "back"))

    def made(self, width: int, height: int, palette: TokenPalette) -> tuple[Sequence[DrawnLine], object]:
        """The pair, read the first time."""
        pair = self.pair
        if pair is None:
            one, other = (open_result(record, self._shelf) for record in self._records)
            pair = Pair(one=one, other=other)
        return pair_lines(pair, self._index, width, max(height * 2 // 3, 12), palette), pair

    def take(self, found: object) -> None:
        """The pair is read."""
        self.pair = found if isinstance(found, Pair) else None

    def action_figure(self, step: int) -> None:
        """Another figure of both."""
        self._index += step
        self.draw()

    def action_swap(self) -> None:
        """The right one to the left."""
        self._records = (self._records[1], self._records[0])
        if self.pair is not None:
            self.pair = Pair(one=self.pair.other, other=self.pair.one)
        self.draw()

    def action_copy(self) -> None:
        """The commands that measure both again."""
        self.copy_command("\n".join(record.command for record in self._records))


class ClaimsScreen(DrawnPage):
    """The paper's claims, judged by the marked results, or by the newest of each experiment."""

    ACTIONS = CLAIMS
    HELP_TEXT = HELP_OF_CLAIMS

    def __init__(self, shelf: Shelf, ids: Sequence[str]) -> None:
        """Nothing is judged yet.

        Args:
            shelf: every result.
            ids: of the marked ones; empty: the newest of each experiment.
        """
        super().__init__()
        self._shelf = shelf
        self._ids = tuple(ids)

    def on_mount(self) -> None:
        """Title and keys."""
        super().on_mount()
        by = "the marked" if self._ids else "the newest of each experiment"
        self.show_head(("  the paper's claims", ""), end=f"judged by {by}")
        self.show_keys("back", "copy", ("↑↓", "scroll"), last=("Esc", "back"))

    def judge(self, shelf: Shelf) -> None:
        """Other results are stored now."""
        self._shelf = shelf
        self.draw()

    def made(self, width: int, height: int, palette: TokenPalette) -> tuple[Sequence[DrawnLine], object]:
        """The table of claims; the count stands first here, where it is seen."""
        from inspector.claims import counted
        from inspector.claims.drawing import claims_lines
        from inspector.drawing.lines import prose
        from inspector.drawing.palette import figure_palette

        chosen: list[Stored] = []
        for each in self._ids:
            try:
                chosen.append(self._shelf.stored.get(each) or load(each))
            except InspectorError:  # removed or damaged meanwhile: the list says so
                continue
        verdicts = all_verdicts(chosen if self._ids else self._shelf.stored.values())
        *lines, _, _ = claims_lines(verdicts, width, palette)
        return [*prose(counted(verdicts), width, figure_palette(palette).strong), [], *lines], None

    def action_copy(self) -> None:
        """The command that prints the claims."""
        self.copy_command(" ".join(["dm-inspect results claims", *self._ids]))
