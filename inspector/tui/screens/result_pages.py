"""What is drawn of several stored results, as one scrolled page: two side by side, and the paper's claims."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from textual.containers import Horizontal
from textual.message import Message

from inspector.claims import CANNOT_TELL, CONSISTENT, CONTRADICTS, Verdict, commands, missing_for
from inspector.claims.drawing import SIGNS
from inspector.drawing.safe_text import visible
from inspector.errors import InspectorError
from inspector.experiments import ELSEWHERE
from inspector.reports.comparison import Pair, pair_lines
from inspector.reports.result import Shelf, all_verdicts, open_result
from inspector.store.results import load
from inspector.tui.actions import actions_of, help_rows
from inspector.tui.lines import Line, cut, left, wrapped
from inspector.tui.screens.base import OpenScreen, SideScreen
from inspector.tui.screens.help import PaneHelp
from inspector.tui.widgets.scrolling import LinesView, RowList

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from inspector.drawing.palette import Line as DrawnLine
    from inspector.drawing.palette import TokenPalette
    from inspector.store.results import Record, Stored
    from inspector.tui.screens.export import Export

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
    ("open", "enter", "open", "Run what the claim lacks, or go to its result", "run"),
    ("report", "w", "report", "Write the report: a page of all results, with the claims", "write report"),
    ("filter", "/", "filter", "Only the claims with these words", "filter"),
    ("copy", "y", "copy", "Copy the command that measures what is missing, or prints them", "copy command"),
    ("pane", "tab shift+tab", "pane", "Between the board and the text", "pane"),
    ("help", "?", "help", "Help for the claims", "help"),
    ("back", "p escape q r", "back", "Back to the results", "back"),
)
HELP_OF_CLAIMS = PaneHelp(
    title="The paper's claims",
    paragraphs=(
        "The paper's claims C1 to C19, judged by code from the newest result of each experiment, or from the marked "
        "ones: ✓ consistent with the paper, ✗ contradicts it, ? cannot tell. Beside it: the paper's number, this "
        "run's number with its interval, why, and the results it rests on. Enter runs what a claim lacks as a job of "
        "this session, and goes to the result where nothing is lacking; w writes the report.",
        "The rules are strict about ignorance: a missing experiment, results of different targets, an interval that "
        "reaches both sides, or a fit that is not identified all mean 'cannot tell'.",
        "A small model is not the paper's: a claim that is contradicted on the demo is contradicted there.",
    ),
    keys=help_rows((("↑ ↓ k j", "the next claim; in the text, a line"), *MOVES[1:]), CLAIMS),
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


@dataclass
class Measure(Message):
    """Run these experiments on what the session has loaded."""

    experiments: tuple[str, ...]


LOOKS = {CONSISTENT: "good", CONTRADICTS: "error", CANNOT_TELL: "muted"}
WORDS = {CONSISTENT: "consistent", CONTRADICTS: "contradicts", CANNOT_TELL: "cannot tell"}
WIDE = 110
"""Columns from which the board and what is said of a claim stand beside each other."""


class ClaimsScreen(SideScreen):
    """The paper's claims as a board, judged by the marked results, or by the newest of each experiment."""

    ACTIONS = CLAIMS
    HELP_TEXT = HELP_OF_CLAIMS
    DEFAULT_CSS = """
    #claims-body { height: 1fr; }
    #claims-list { width: 1fr; height: 1fr; }
    """

    @dataclass
    class Judged(Message):
        """The claims are held against the results."""

        verdicts: Sequence[Verdict]
        stored: Sequence[Stored]

    def __init__(self, shelf: Shelf, ids: Sequence[str]) -> None:
        """Nothing is judged yet.

        Args:
            shelf: every result.
            ids: of the marked ones; empty: the newest of each experiment.
        """
        super().__init__()
        self._shelf = shelf
        self._ids = tuple(ids)
        self.verdicts: Sequence[Verdict] = ()
        """Of the claims with the words of the filter."""
        self._all: Sequence[Verdict] = ()
        self._stored: Sequence[Stored] = ()
        self.writing = False
        """While the report is written."""

    def compose(self) -> ComposeResult:
        """Board, and the claim under the cursor."""
        yield from super().compose()
        with Horizontal(id="claims-body"):
            yield RowList(id="claims-list")
            yield LinesView(id="claims-text")

    def on_mount(self) -> None:
        """Paint, then judge."""
        super().on_mount()
        self.arrange_panes()
        self.query_one(RowList).focus()
        self.show_all()
        self.judge(self._shelf)

    def on_resize(self) -> None:
        """Beside each other, or one below the other."""
        self.arrange_panes()

    def arrange_panes(self) -> None:
        """Beside each other, or one below the other."""
        width, height = self.app.size
        self.query_one("#claims-body").styles.layout = "horizontal" if width >= WIDE else "vertical"
        text = self.query_one("#claims-text")
        text.styles.width = width * 9 // 20 if width >= WIDE else "100%"
        text.styles.height = "100%" if width >= WIDE else max(5, height * 2 // 5)

    def judge(self, shelf: Shelf) -> None:
        """Hold the claims against these results, which may be others than before."""
        self._shelf = shelf
        self.in_thread("claims", self._judge)

    def _judge(self) -> None:
        """In a thread."""
        chosen: list[Stored] = []
        for each in self._ids:
            try:
                chosen.append(self._shelf.stored.get(each) or load(each))
            except InspectorError:  # removed or damaged meanwhile: the list says so
                continue
        stored = chosen if self._ids else list(self._shelf.stored.values())
        self.post_message(self.Judged(all_verdicts(stored), stored))

    def on_claims_screen_judged(self, message: Judged) -> None:
        """Show them."""
        self._all, self._stored = message.verdicts, message.stored
        self.filtered()

    def filtered(self) -> None:
        """Other claims."""
        self.verdicts = [each for each in self._all if self.matches(f"{each.id} {each.claim} {each.verdict}")]
        self.show_all()

    # ---- drawing ----------------------------------------------------------------------------------------------------

    @property
    def verdict(self) -> Verdict | None:
        """Of the claim under the cursor."""
        cursor = self.query_one(RowList).cursor
        return self.verdicts[cursor] if cursor < len(self.verdicts) else None

    @property
    def missing(self) -> tuple[str, ...]:
        """Experiments that the claim under the cursor needs and that have no result."""
        measured = [stored.record.experiment for stored in self._stored if not stored.record.null]
        return missing_for(self.verdict, measured) if self.verdict is not None else ()

    def restyle(self) -> None:
        """The theme changed."""
        self.show_all()

    def show_all(self) -> None:
        """Title, board, claim, keys."""
        by = "judged by the marked" if self._ids else "judged by the newest of each experiment"
        counts: Line = [(f"   {sum(each.verdict == answer for each in self._all)} {SIGNS[answer]} {WORDS[answer]}",
                         look) for answer, look in LOOKS.items()]  # fmt: skip
        self.show_head(("  claims", "strong"), *(counts if self._all else ()), end=by)
        empty: list[Line] = [[], [("  no claim has these words" if self._all else "  judging …", "muted")]]
        self.query_one(RowList).show(
            len(self.verdicts), lambda number, width: _board_line(self.verdicts[number], width), empty=empty
        )
        self.show_claim()

    def show_claim(self) -> None:
        """What is said of the claim under the cursor, and what Enter does."""
        verdict, missing = self.verdict, self.missing
        self.query_one("#claims-text", LinesView).show_made(
            lambda width: _claim_lines(verdict, missing, width) if verdict is not None else [], keep_place=False
        )
        enter = "run what is missing" if missing else "its result"
        self.show_keys(("Enter", enter), "report", "filter", "copy", "pane", "back")

    # ---- keys -------------------------------------------------------------------------------------------------------

    def on_row_list_moved(self, message: RowList.Moved) -> None:
        """Another claim."""
        message.stop()
        self.show_claim()

    def on_row_list_chosen(self, message: RowList.Chosen) -> None:
        """Enter."""
        message.stop()
        self.action_open()

    def action_open(self) -> None:
        """Run what the claim lacks; with nothing lacking, go to a result that it rests on."""
        verdict, missing = self.verdict, self.missing
        here = tuple(each for each in missing if each not in ELSEWHERE)
        if here:
            self.post_message(Measure(here))
        elif missing:  # it needs a judge, whose address only a command line has
            self.copy_command(ELSEWHERE[missing[0]])
        elif verdict is not None and verdict.results:
            self.dismiss()
            self.app.post_message(OpenScreen("results", verdict.results))

    def action_report(self) -> None:
        """Write a page of all results that are judged by, into the present folder."""
        from inspector.tui.screens.export import cannot, exports

        install = cannot("html")
        if install:
            self.notify(f"The report's figures need matplotlib: {install}", severity="warning", markup=False)
        elif self._stored and not self.writing:
            self.writing = True
            ids = [stored.record.id for stored in self._stored]
            self.in_worker("report", self._write(exports(ids, "html", Path.cwd())[0]))
        elif not self._stored:
            self.notify("Nothing is measured yet: Enter runs what a claim needs.")

    async def _write(self, export: Export) -> None:
        from inspector.tui.screens.export import run_export

        self.notify(f"Writing {export.path.name} …")
        problem = await run_export(export)
        self.writing = False
        said = visible(problem or f"Wrote {export.path}")
        self.notify(said, severity="error" if problem else "information", timeout=6, markup=False)

    def action_pane(self) -> None:
        """Between the board and the text."""
        rows, text = self.query_one(RowList), self.query_one("#claims-text")
        (text if rows.has_focus else rows).focus()

    def action_copy(self) -> None:
        """What measures the claim under the cursor; with nothing missing what prints the claims."""
        lacking = commands(self.missing)
        self.copy_command("\n".join(lacking) or " ".join(["dm-inspect results claims", *self._ids]))


def _board_line(verdict: Verdict, width: int) -> Line:
    """Sign and word in the verdict's colour, the claim, and this run's number where there is room."""
    look = LOOKS[verdict.verdict]
    room = max(width - 20, 10)
    number = cut(visible(verdict.number), room // 2 - 2) if room >= 70 else ""
    return [
        (f"{SIGNS[verdict.verdict]} {WORDS[verdict.verdict]:<12}", look),
        (f"{verdict.id:<5}", "strong"),
        (left(verdict.claim, room - (room // 2 if number else 0)), ""),
        (number, "muted"),
    ]


def _claim_lines(verdict: Verdict, missing: Sequence[str], width: int) -> list[Line]:
    """All that is said of a claim."""
    lines = wrapped(f"{verdict.id}  {verdict.claim}", width, "strong")
    lines += [[(f"{SIGNS[verdict.verdict]} {verdict.verdict}", LOOKS[verdict.verdict])], []]
    said = (
        ("paper", verdict.paper),
        ("here", f"{verdict.number}{verdict.said_of}" if verdict.number else "no number yet"),
        ("why", verdict.why),
        ("all tokens", verdict.said_of_all_tokens),
        ("from", ", ".join(verdict.results)),
    )
    for name, text in said:
        if text:
            lines += [[(name, "accent")], *wrapped(visible(text), width), []]
    for each in missing:
        how = "y copies the command: it needs a judge" if each in ELSEWHERE else "Enter runs it here"
        lines.append([("missing  ", "warning"), (each, "strong"), (f"  {how}", "muted")])
    return lines
