"""Two stored results side by side, as one scrolled page."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType
from textual.message import Message

from inspector.drawing.safe_text import visible
from inspector.reports.comparison import Pair, pair_lines
from inspector.reports.result import Shelf, open_result
from inspector.tui.actions import actions_of, help_rows
from inspector.tui.screens.base import SideScreen, bindings_of
from inspector.tui.screens.help import PaneHelp
from inspector.tui.widgets.bars import FooterPane, TitleBar
from inspector.tui.widgets.scrolling import LinesView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from inspector.drawing.palette import Line as DrawnLine
    from inspector.drawing.palette import TokenPalette
    from inspector.store.results import Record

ACTIONS = actions_of(
    "compare",
    ("figure-next", "] right l", "figure(1)", "Next figure", "figure"),
    ("figure-back", "[ left h", "figure(-1)", "Previous figure"),
    ("swap", "s", "swap", "Swap left and right", "swap"),
    ("copy", "y", "copy", "Copy both commands", "copy commands"),
    ("help", "?", "help", "Help for comparing", "help"),
    ("back", "escape q c", "back", "Back to the results", "back"),
)
MOVES = (("↑ ↓ k j", "a line"), ("PgUp PgDn { }", "a page"), ("Home End g G", "top, bottom"))
HELP = PaneHelp(
    title="Two results side by side",
    paragraphs=(
        "First what made them differ: profile, null, layer, tokens, seed. Then the same figure of both; then their "
        "numbers SAE by SAE with the change, right less left; then the claims that rest on each.",
        "SAEs are matched by name; where no name is shared, as between two layers, by width and nominal L0. The change "
        "has no interval: the two may rest on the same tokens, and then their errors are not independent.",
    ),
    actions=(),
    keys=help_rows(MOVES, ACTIONS),
)


class CompareScreen(SideScreen):
    """Both results, the first on the left."""

    ACTIONS = ACTIONS
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(ACTIONS)]

    class Prepared(Message):
        """Both are read and drawn."""

        def __init__(self, turn: int, pair: Pair, lines: Sequence[DrawnLine]) -> None:
            super().__init__()
            self.turn = turn
            self.pair = pair
            self.lines = lines

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
        self._turn = 0

    def compose(self) -> ComposeResult:
        """One page."""
        yield TitleBar(id="compare-head")
        yield FooterPane(id="compare-footer")
        yield LinesView(id="compare-page")

    def on_mount(self) -> None:
        """Paint, then read."""
        super().on_mount()
        self.query_one(TitleBar).show([("dm-inspect", "accent"), ("  two results side by side", "")], "", False)
        ids = ("compare.figure-next", "compare.swap", "compare.copy")
        self.query_one(FooterPane).show([*self.hints(*ids), ("↑↓", "scroll"), ("?", "help")], ("Esc", "back"))
        self.query_one(LinesView).focus()

    def draw(self) -> None:
        """In a thread."""
        width, height = self.query_one(LinesView).room
        self._turn += 1
        work = partial(self._prepare, self._turn, self.pair, self._index, width, height, self.palette)
        self.run_worker(work, thread=True, exclusive=True, group="compare", exit_on_error=False)

    def _prepare(
        self, turn: int, pair: Pair | None, index: int, width: int, height: int, palette: TokenPalette
    ) -> None:
        if pair is None:
            one, other = (open_result(record, self._shelf) for record in self._records)
            pair = Pair(one=one, other=other)
        lines = pair_lines(pair, index, width, max(height * 2 // 3, 12), palette) if width else []
        self.post_message(self.Prepared(turn, pair, lines))

    def on_compare_screen_prepared(self, message: Prepared) -> None:
        """Show it, unless something else was asked for since."""
        if message.turn == self._turn and message.lines:
            first = self.pair is None
            self.pair = message.pair
            self.query_one(LinesView).show(message.lines, self.palette, keep_place=not first)

    def on_lines_view_resized(self, message: LinesView.Resized) -> None:
        """Draw for the new room."""
        message.stop()
        self.draw()

    def restyle(self) -> None:
        """Colours of another theme."""
        self.draw()

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
        commands = "\n".join(record.command for record in self._records)
        self.app.copy_to_clipboard(commands)
        self.notify(f"Copied:\n{visible(commands, newline=' ')}", markup=False)

    @property
    def help_text(self) -> PaneHelp:
        """What `?` says here."""
        return HELP
