"""Two SAEs side by side: the same tokens coloured by each, or by which of the two has more.

Both are drawn on one scale, or the one with less could not look better. The tokens are those of the Stream, whose text
and cursor this screen begins with; it asks the Stream for the next context and is told when it is there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, ClassVar

from textual.containers import Horizontal, Vertical

from inspector.drawing.safe_text import visible
from inspector.drawing.tokens import (
    FVU,
    LINEAR,
    MODES,
    NONLINEAR,
    SHARE,
    TOTAL,
    difference,
    difference_document,
    difference_mode,
)
from inspector.options import width_label
from inspector.tui.actions import actions_of
from inspector.tui.documents import WORST_PER_CONTEXT, main_measure, number_on_screen, table
from inspector.tui.lines import Line, fit, joined, left, number, part
from inspector.tui.screens.base import ActionScreen
from inspector.tui.screens.help import PaneHelp
from inspector.tui.themes import palette_of
from inspector.tui.widgets.bars import FooterPane, TitleBar
from inspector.tui.widgets.detail import compact
from inspector.tui.widgets.line_pane import LinePane
from inspector.tui.widgets.token_lines import Legend
from inspector.tui.widgets.token_pane import TokenPane

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from inspector.drawing.levels import Ranges
    from inspector.drawing.tokens import Measure
    from inspector.spec import SaeRef
    from inspector.tui.documents import ScoredText
    from inspector.tui.screens.stream import StreamScreen
    from inspector.tui.selection import SaeChoice

COMPARED = tuple(mode for mode in MODES if main_measure(mode).per_sae)
"""Modes that differ from SAE to SAE."""
COLUMNS = (TOTAL, LINEAR, NONLINEAR, SHARE, FVU)
"""What is said of the token under the cursor."""
HEADS = ("total", "linear", "nonlin", "share", "FVU", "L0")
NAME, CELL = (14, 30), (7, 10)
"""Columns of the names and of a number below the tokens: at least, and where there is room."""
NARROW = 100
"""Columns below which only one of the two stands beside the differences' colours at a time."""


def other_row(choice: SaeChoice) -> int:
    """The SAE to compare the active one with: the widest that is shown, or of the widest one the narrowest."""
    rows = [row for _, row in choice.shown if row != choice.row] or [r for r in choice.picked if r != choice.row]
    wider = [row for row in rows if choice.saes[row].d_sae >= choice.sae.d_sae]
    return wider[-1] if wider else rows[0] if rows else (choice.row + 1) % len(choice.saes)


def short(sae: SaeRef) -> str:
    """'1k/16': width and nominal L0."""
    return f"{width_label(sae.d_sae)}/{'?' if sae.nominal_l0 is None else f'{sae.nominal_l0:g}'}"


def joint(one: Ranges, other: Ranges) -> dict[str, tuple[float, float]]:
    """The ranges that hold both."""
    return {
        name: (min(one[name][0], other[name][0]), max(one[name][1], other[name][1])) for name in one if name in other
    }


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Two SAEs on the tokens of a text that count."""

    n: int
    means: tuple[float, float]
    n_second_less: int
    """Tokens on which the second has less."""
    correlation: float
    """Pearson, of the two values; NaN for constant ones."""


def summary(text: ScoredText, rows: tuple[int, int], measure: Measure) -> Summary:
    """Of the tokens of a text for which both values are known."""
    first, second = (text.values(row, measure) for row in rows)
    pairs = [(first[p], second[p]) for p in text.document.included()]
    pairs = [(a, b) for a, b in pairs if a == a and b == b]
    n = len(pairs)
    nan = float("nan")
    if not n:
        return Summary(n=0, means=(nan, nan), n_second_less=0, correlation=nan)
    means = sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n
    both = sum((a - means[0]) * (b - means[1]) for a, b in pairs)
    spread = sqrt(sum((a - means[0]) ** 2 for a, _ in pairs) * sum((b - means[1]) ** 2 for _, b in pairs))
    less = sum(b < a for a, b in pairs)
    return Summary(n=n, means=means, n_second_less=less, correlation=both / spread if spread > 0 else nan)


class BesideScreen(ActionScreen):
    """Returns nothing; Enter moves the Stream's cursor to this token."""

    ACTIONS = actions_of(
        "beside",
        ("mode", "m", "mode(1)", "Next measure", "measure"),
        ("mode-back", "M", "mode(-1)", "Previous measure"),
        ("difference", "D =", "difference", "Colour by the difference, or each by its own", "difference"),
        ("first", "a", "sae(0, 1)", "Left: the next SAE", "left SAE"),
        ("first-back", "A", "sae(0, -1)", "Left: the SAE before"),
        ("second", "b", "sae(1, 1)", "Right: the next SAE", "right SAE"),
        ("second-back", "B", "sae(1, -1)", "Right: the SAE before"),
        ("worst", "n", "walk(1)", "Next token that differs most", "differs most"),
        ("worst-back", "N", "walk(-1)", "Previous token that differs most"),
        ("context-next", "> .", "context(1)", "Next context", "context"),
        ("context-back", "< ,", "context(-1)", "Previous context"),
        ("copy", "C", "copy", "Copy the numbers of all tokens for both SAEs", "copy"),
        ("take", "enter", "take", "Go to this token in the Stream"),
        ("help", "?", "help", "Help"),
        ("back", "escape q", "dismiss", "Back to the Stream"),
    )  # fmt: skip
    HELP_TEXT: ClassVar[PaneHelp] = PaneHelp(
        title="Two SAEs side by side",
        paragraphs=(
            "The same tokens twice, coloured by one SAE on the left and by the other on the right, on one scale. a and "
            "b choose among all SAEs that are loaded: any two widths, L0s or architectures of this hook. Of two layers "
            "`dm-inspect beside --other-layer N` makes the table.",
            "D colours by the difference instead: of shares in points, of norms and FVU in parts of the larger one, in "
            "steps at 10% and 30%. n walks over the tokens that differ most.",
        ),
        keys=(("← → ↑ ↓", "previous and next token, line up and down"), ("m M", "measure"), ("D =", "difference"),
              ("a A", "SAE on the left"), ("b B", "SAE on the right"), ("n N", "token that differs most"),
              ("> <", "context"), ("C", "copy the numbers"), ("Enter", "to this token in the Stream"), ("Esc", "back")),
        numbers=("sae-error", "linear", "nonlinear", "share", "l0"),
    )  # fmt: skip
    DEFAULT_CSS = """
    BesideScreen { layers: base; }
    BesideScreen #sides { height: 1fr; }
    BesideScreen #sides > Vertical { width: 1fr; }
    BesideScreen #second { margin-left: 1; }
    BesideScreen #facts { height: 5; padding: 0 1; }
    """

    def __init__(self, home: StreamScreen) -> None:
        """What the Stream shows, by its active SAE and another one.

        Args:
            home: the Stream.
        """
        super().__init__()
        self.home = home
        choice = home.state.choice
        assert choice is not None and home.state.text is not None, "there is something to compare"
        self.choice, self.text = choice, home.state.text
        self.rows = [choice.row, other_row(choice)]
        self.mode = home.state.mode if home.state.mode in COMPARED else COMPARED[0]
        self.by_difference = False

    def compose(self) -> ComposeResult:
        """Two panes of tokens, what their colours mean, what is known of the token, and the keys."""
        yield TitleBar(id="head")
        with Horizontal(id="sides"):
            for name in ("first", "second"):
                with Vertical(id=name):
                    yield TitleBar(id=f"{name}-title")
                    yield TokenPane(palette=palette_of(self.app), id=f"{name}-tokens")
        yield Legend(id="legend")
        yield LinePane(id="facts")
        yield FooterPane()

    @property
    def panes(self) -> tuple[TokenPane, TokenPane]:
        """Left and right."""
        return self.query_one("#first-tokens", TokenPane), self.query_one("#second-tokens", TokenPane)

    def on_mount(self) -> None:
        """Draw, and again when another text comes."""
        self.home.text_changed.subscribe(self, self._another_text)
        self.app.theme_changed_signal.subscribe(self, lambda _: self._draw())
        keys = ("mode", "difference", "first", "second", "worst", "context-next", "copy")
        known = {action.id.partition(".")[2]: action for action in self.ACTIONS}
        self.query_one(FooterPane).show([(known[key].keys[0], known[key].hint) for key in keys], ("Esc", "back"))
        self._draw(self.home.state.place.position)
        self.panes[0].focus()

    def on_resize(self) -> None:
        """A narrow window has no room for two."""
        self.query_one("#second").display = self.app.size.width >= NARROW and not self.by_difference

    def _another_text(self, text: ScoredText) -> None:
        moved = text.key != self.text.key
        self.text = text
        self._draw(self.home.state.place.position if moved else None)

    @property
    def measure(self) -> Measure:
        """What is compared."""
        return main_measure(self.mode)

    def _draw(self, position: int | None = None) -> None:
        """Everything, and the cursor if it goes elsewhere."""
        saes = [self.choice.saes[row] for row in self.rows]
        names = [short(sae) for sae in saes]
        self.query_one("#head", TitleBar).show(
            [("dm-inspect", "accent"), (f"  {names[0]} and {names[1]} · ", ""), (self.measure.title, "")],
            visible(self.text.document.name),
        )
        self.query_one("#second").display = self.app.size.width >= NARROW and not self.by_difference
        palette, mode, document, rows = palette_of(self.app), self.mode, self.text.document, list(self.rows)
        qualities = [self.home.session.quality(row) for row in rows]
        ranges = joint(*(quality.ranges if quality is not None else {} for quality in qualities))
        if self.by_difference:
            values = [self.text.values(row, self.measure) for row in rows]
            document = difference_document(document, self.measure, *values)
            mode, ranges, rows = difference_mode(self.measure, *names), {}, [0, 0]
            palette = replace(palette, shares=palette.differences)
        for pane, name, sae, row in zip(self.panes, ("first", "second"), saes, rows, strict=True):
            pane.set_palette(palette)
            pane.set_marks(self.home.marks)
            pane.set_mode(mode)
            pane.set_sae(row, ranges)
            if pane.document is not document:
                pane.set_document(document, cursor=pane.cursor if position is None and pane.document else position)
            title = (
                f"{short(sae)} · {sae.sae_id}" if not self.by_difference else " against ".join(s.sae_id for s in saes)
            )
            self.query_one(f"#{name}-title", TitleBar).show(visible(title), focused=pane.has_focus)
        self._draw_facts()

    def _draw_facts(self) -> None:
        self.query_one("#facts", LinePane).draw(lambda width, _: self._facts(width))

    def _facts(self, width: int) -> list[Line]:
        """The token under the cursor for both SAEs, and both on the whole text."""
        document, position = self.text.document, self.panes[0].cursor
        if not len(document):
            return []
        position = min(position, len(document) - 1)
        cell = min(max((width - NAME[0]) // len(HEADS), CELL[0]), CELL[1])
        name_width = min(max(width - cell * len(HEADS), NAME[0]), NAME[1])
        token = f"'{compact(document.tokens[position])}' "
        token += f"position {position}" if name_width >= 24 else f"{position}"
        lines: list[Line] = [[(left(token, name_width), "bold"), *((head.rjust(cell), "muted") for head in HEADS)]]
        values: list[list[float]] = []
        for row in self.rows:
            scalars = document.scalars(position, row)
            values.append([measure.value(scalars) * (100.0 if measure.percent else 1.0) for measure in COLUMNS])
            index = next(i for i, group in enumerate(self.choice.rows) if row in group)
            name: Line = [
                (left(f"  {short(self.choice.saes[row])}", name_width), f"series-{self.choice.series(index)}")
            ]
            cells: Line = [
                (f"{number(value)}{'%' if measure.percent and value == value else ''}".rjust(cell), "")
                for value, measure in zip(values[-1], COLUMNS, strict=True)
            ]
            lines.append([*name, *cells, (number(scalars.l0, 1).rjust(cell), "muted")])
        apart: Line = [(left("  difference", name_width), "muted")]
        for measure, first, second in zip(COLUMNS, *values, strict=True):
            by = (
                difference(measure, first / 100.0, second / 100.0)
                if measure.percent
                else difference(measure, first, second)
            )
            apart.append(
                (("-" if by != by else f"{100 * by:+.0f}{' pt' if measure is SHARE else '%'}").rjust(cell), "strong")
            )
        found = summary(self.text, (self.rows[0], self.rows[1]), self.measure)
        factor = 100.0 if self.measure.percent else 1.0
        means = " and ".join(number(mean * factor) for mean in found.means)
        told = fit(
            [
                part(2, [("this text, ", "muted")], []),
                part(4, [(f"{found.n:,} tokens: mean {means}", "muted")]),
                part(3, [(f", less on the right at {found.n_second_less:,}", "muted")], []),
                part(1, [(f", r {number(found.correlation, 2)}", "muted")], []),
            ],
            width,
            "",
        )
        return [*lines, apart, joined(told, "")]

    def _ranked(self) -> list[int]:
        """Positions of the tokens that differ most, the largest difference first; as many as the Stream's worst."""
        first, second = (self.text.values(row, self.measure) for row in self.rows)
        by = {p: difference(self.measure, first[p], second[p]) for p in self.text.document.included()}
        return sorted((p for p, v in by.items() if v == v), key=lambda p: (-abs(by[p]), p))[:WORST_PER_CONTEXT]

    # ---- keys -------------------------------------------------------------------------------------------------------

    def on_token_pane_cursor_moved(self, message: TokenPane.CursorMoved) -> None:
        """The cursors go together."""
        message.stop()
        for pane in self.panes:
            if pane is not message.pane:
                pane.move_to(message.pane.cursor)
        self._draw_facts()

    async def on_token_pane_edge_reached(self, message: TokenPane.EdgeReached) -> None:
        """Past an end of a context is its neighbour."""
        message.stop()
        await self.home.action_do("step_over_edge", message.step)

    def on_token_pane_legend_changed(self, message: TokenPane.LegendChanged) -> None:
        """One legend for both: they have one scale."""
        message.stop()
        self.query_one(Legend).show(self.panes[0].legend)

    def on_descendant_focus(self) -> None:
        """The titles say which pane has the focus."""
        if self.is_mounted:
            self._draw()

    def action_mode(self, step: int) -> None:
        """Compare something else."""
        self.mode = COMPARED[(COMPARED.index(self.mode) + step) % len(COMPARED)]
        self._draw()

    def action_difference(self) -> None:
        """One pane with the differences, or two."""
        self.by_difference = not self.by_difference
        self._draw()
        self.panes[0].focus()

    def action_sae(self, side: int, step: int) -> None:
        """Another SAE on a side; never the one on the other."""
        n = len(self.choice.saes)
        row = (self.rows[side] + step) % n
        if row == self.rows[1 - side]:
            row = (row + step) % n
        self.rows[side] = row
        self._draw()

    def action_walk(self, step: int) -> None:
        """Over the tokens by how much they differ, round and round."""
        ranked = self._ranked()
        if ranked:
            here = self.panes[0].cursor
            at = ranked.index(here) + step if here in ranked else 0
            self.panes[0].move_to(ranked[at % len(ranked)])

    async def action_context(self, step: int) -> None:
        """The neighbouring text."""
        await self.home.action_do("step_context", step)

    def action_copy(self) -> None:
        """All tokens with both SAEs."""
        text = table(self.text, range(len(self.text)), self.rows, self.choice.saes)
        document = self.text.document
        name = f"two-saes-{document.source}-{number_on_screen(document)}.tsv"
        self.copy_out(text, f"{len(self.text)} tokens of 2 SAEs", name)

    async def action_take(self) -> None:
        """Back, with the cursor here."""
        position = self.panes[0].cursor
        self.dismiss()
        await self.home.action_do("jump", position)


def compare(stream: StreamScreen) -> None:
    """Two SAEs on the text and the token that the Stream shows."""
    stream.app.push_screen(BesideScreen(stream))
