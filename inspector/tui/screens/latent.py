"""One latent: its strongest examples with activations, density, decoder neighbours, explanation and score."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from textual.message import Message

from inspector.drawing.lines import cut, prose
from inspector.drawing.palette import LEVEL_MARKS, FigurePalette, Line, figure_palette
from inspector.drawing.safe_text import cell_width, visible
from inspector.drawing.scales import number_text
from inspector.drawing.terminal_figures import narrowed
from inspector.session.card_tables import latent_facts, latent_tables
from inspector.session.frames import unpack
from inspector.session.protocol import Failed, GetDetail, GetLatent, LatentView, SessionMessage, TokenDetail
from inspector.store.notes import of_latent
from inspector.tui.actions import actions_of, help_rows
from inspector.tui.screens.base import GoTo, SessionScreen
from inspector.tui.screens.help import PaneHelp
from inspector.tui.widgets.entry import CommandBar
from inspector.tui.widgets.scrolling import LinesView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from inspector.drawing.figures import Table
    from inspector.drawing.palette import CellStyle, TokenPalette
    from inspector.session.cards import LatentExample
    from inspector.session.protocol import LatentView
    from inspector.store.notes import Subject
    from inspector.tui.session import Link

MOST_NEIGHBOURS = 9
"""Those that a number key opens."""

ACTIONS = actions_of(
    "latent",
    ("go", "enter", "go", "Show this example in the stream", "go there"),
    ("other", "]", "other(1)", "Next latent of the token", "latent"),
    ("other-back", "[", "other(-1)", "Previous latent of the token"),
    ("index", "i", "index", "Another latent, by its number", "number"),
    *((f"neighbour-{n}", str(n), f"neighbour({n - 1})", f"Neighbour {n}") for n in range(1, MOST_NEIGHBOURS + 1)),
    ("before", "b", "before", "The latent shown before", "before"),
    ("copy", "c y", "copy", "Copy the examples as a table", "copy"),
    ("note", "*", "note", "Bookmark or note on this latent", "note"),
    ("help", "?", "help", "Help for the latent", "help"),
    ("back", "escape q L", "back", "Back to the stream", "back"),
)
MOVES = (("↑ ↓ k j", "the next or previous example"), ("PgUp PgDn { }", "a page"), ("1 to 9", "that neighbour"))
HELP = PaneHelp(
    title="One latent",
    paragraphs=(
        "What makes a latent of the active SAE fire: the windows of text, from all contexts, around the tokens at "
        "which it is strongest, at most one per context. Tokens where it is active are coloured by activation, on one "
        "scale for all examples; the strongest of each window stands in brackets. Without colours a block after the "
        "token says how large.",
        "Below the strongest are some drawn at random among all tokens at which it is active, with the quantile of "
        "their activation: the strongest alone make every latent look clean.",
        "Density is the share of all searched tokens at which it is active; above 10% it is called dense. Neighbours "
        "are the latents whose decoder directions have the largest cosine with this one's. Next tokens are those that "
        "the decoder row favours by itself, through the final norm and the unembedding, past all later blocks. The "
        "share of the SAE's squared error along the direction is the most that the latent could take of it.",
        "Explanation and score are those of the newest scoring that is stored, made by `dm-inspect interp`.",
        "The first question about an SAE searches every context and takes a while; the next ones are quick.",
    ),
    keys=help_rows(MOVES, [action for action in ACTIONS if not action.id.startswith("latent.neighbour")]),
    numbers=("activation", "error-share"),
)


class Examples(LinesView):
    """Lines in which up and down go from example to example."""

    @dataclass
    class Stepped(Message):
        """Up or down."""

        step: int

    def action_move(self, step: int) -> None:
        """The screen knows where examples begin."""
        self.post_message(self.Stepped(step))


class LatentScreen(SessionScreen):
    """Asks the session; draws its answer."""

    ACTIONS = ACTIONS
    HELP_TEXT = HELP

    @dataclass
    class Answered(Message):
        """The session has answered."""

        index: int | None
        """The latent asked about; None: it was asked which are active."""
        answer: SessionMessage

    def __init__(self, link: Link, at: GetDetail, d_sae: int, others: Sequence[int] = ()) -> None:
        """Nothing is asked yet.

        Args:
            link: to the session.
            at: the SAE and the token whose strongest latent is shown.
            d_sae: latents of the SAE.
            others: those active at the token, strongest first, if they are known already; empty: to be asked for.
        """
        super().__init__(link)
        self._at, self._sae_id, self._d_sae = at, at.sae_id, d_sae
        self._others = tuple(others)
        self.index: int | None = None
        """None while it is not known which latent is meant."""
        self.view: LatentView | None = None
        """What is shown; None while the session searches."""
        self.problem = ""
        self._before: list[int] = []
        self._cursor = 0
        self._page: LatentPage | None = None

    def compose(self) -> ComposeResult:
        """Title, page, keys."""
        yield from super().compose()
        yield CommandBar(id="latent-bar")
        yield Examples(id="latent-page")

    def on_mount(self) -> None:
        """Ask for the token's strongest latent."""
        super().on_mount()
        self.page.focus()
        if self._others:
            self.ask(self._others[0])
        else:
            self.show_view()
            self.in_worker("latent", self._find())

    @property
    def page(self) -> Examples:
        """The lines."""
        return self.query_one(Examples)

    # ---- asking -----------------------------------------------------------------------------------------------------

    def ask(self, index: int, *, remember: bool = True) -> None:
        """Show another latent."""
        if remember and self.view is not None:
            self._before.append(self.view.index)
        self.index, self.view, self.problem, self._cursor = index, None, "", 0
        self.show_view()
        self.in_worker("latent", self._ask(index))

    async def _find(self) -> None:
        """Which latents are active at the token."""
        self.post_message(self.Answered(None, await self.link.call(self._at)))

    async def _ask(self, index: int) -> None:
        answer = await self.link.call(GetLatent(sae_id=self._sae_id, index=index))
        self.post_message(self.Answered(index, answer))

    def on_latent_screen_answered(self, message: Answered) -> None:
        """Show the answer, unless another latent was asked for since."""
        if message.index != self.index:
            return
        if isinstance(message.answer, TokenDetail):
            self._others = tuple(latent.index for latent in message.answer.latents)
            if self._others:
                self.ask(self._others[0])
            else:
                self.problem = "No latent of this SAE is active at the token. i takes the number of one."
        elif isinstance(message.answer, LatentView):
            self.view = message.answer
        elif isinstance(message.answer, Failed):
            self.problem = message.answer.message
        self.show_view()

    # ---- drawing ----------------------------------------------------------------------------------------------------

    def show_view(self, *, keep_place: bool = False) -> None:
        """Everything."""
        name = f"  latent {self.index:,}" if self.index is not None else "  one latent"
        of = f"{visible(self._sae_id)} · {self._d_sae:,} latents"
        self.show_head((name, ""), end=of)
        keys = (("↑↓", "example"), ("1-9", "neighbour"), "go", "other", "index", "before", "copy", "help")
        self.show_keys(*keys, last=("Esc", "back"))
        width, _ = self.page.room
        palette = self.palette
        if self.view is not None and width:
            self._page = latent_page(self.view, self._cursor, width, palette)
            self.page.show(self._page.lines, palette, keep_place=keep_place)
        elif self.problem:
            self.page.show(prose(self.problem, max(width, 20), palette.plain), palette)
        else:
            self.page.show([[("searching the contexts …", palette.plain)]], palette)

    def on_lines_view_resized(self, message: LinesView.Resized) -> None:
        """Draw for the new room."""
        message.stop()
        self.show_view(keep_place=True)

    def restyle(self) -> None:
        """Colours of another theme."""
        self.show_view(keep_place=True)

    # ---- keys -------------------------------------------------------------------------------------------------------

    def on_examples_stepped(self, message: Examples.Stepped) -> None:
        """Another example; it comes into view."""
        message.stop()
        if self.view is None or not self.view.examples:
            return
        self._cursor = min(max(self._cursor + message.step, 0), len(examples_of(self.view)) - 1)
        self.show_view(keep_place=True)
        if self._page is not None:
            start, stop = self._page.starts[self._cursor], self._page.starts[self._cursor + 1]
            top, height = self.page.scroll_offset.y, self.page.room[1]
            if start < top or self._cursor == 0:
                self.page.scroll_to(y=0 if self._cursor == 0 else start, animate=False, force=True, immediate=True)
            elif stop > top + height:
                self.page.scroll_to(y=stop - height, animate=False, force=True, immediate=True)

    def action_go(self) -> None:
        """To the example's token in the Stream."""
        if self.view is None or not self.view.examples:
            return
        example = examples_of(self.view)[self._cursor]
        self.post_message(GoTo(example.context, example.position))
        self.dismiss()

    def action_other(self, step: int) -> None:
        """Another latent of the token, or the next number where there is no token."""
        if self.index is None:
            return
        if self.index in self._others:
            at = self._others.index(self.index)
            self.ask(self._others[(at + step) % len(self._others)], remember=False)
        else:
            self.ask((self.index + step) % self._d_sae, remember=False)

    def action_neighbour(self, number: int) -> None:
        """A latent of nearly the same direction."""
        if self.view is not None and number < len(self.view.neighbours):
            self.ask(self.view.neighbours[number].index)

    def action_before(self) -> None:
        """The latent shown before."""
        if self._before:
            self.ask(self._before.pop(), remember=False)

    def action_index(self) -> None:
        """Type a number."""
        self.query_one(CommandBar).open("latent")

    def on_command_bar_entered(self, message: CommandBar.Entered) -> None:
        """A number was typed, or something else."""
        message.stop()
        self.page.focus()
        text = message.text.strip().replace(",", "")
        if not text.isdecimal() or int(text) >= self._d_sae:
            self.notify(f"{visible(message.text)} is no latent. They are 0 to {self._d_sae - 1:,}.", severity="error",
                        markup=False)  # fmt: skip
        else:
            self.ask(int(text))

    def on_command_bar_closed(self, message: CommandBar.Closed) -> None:
        """Nothing was typed."""
        message.stop()
        self.page.focus()

    def note_subject(self) -> Subject | None:
        """The latent, and what was found of it."""
        view, ready = self.view, self.session.ready
        if view is None or ready is None:
            return None
        found = {"density": view.density, "max_activation": view.max_activation, "explanation": view.explanation}
        return of_latent(ready.model, view.sae_id, view.index, self.target_words(), **found, link=view.link)

    def action_copy(self) -> None:
        """The examples as a table."""
        if self.view is not None:
            what = f"{len(self.view.examples)} examples of latent {self.view.index}"
            self.copy_out(examples_table(self.view), what, f"latent-{self.view.index}.tsv")


CURSOR = "▸ "
INDENT = "  "
BESIDE = 100
"""Columns from which tables stand beside each other, above the examples; below, they come after them."""


@dataclass(frozen=True, kw_only=True)
class LatentPage:
    """A latent's lines, and where each example stands in them."""

    lines: list[Line]
    starts: tuple[int, ...]
    """Of each example its first line; the last one is the line after them all."""


def latent_page(view: LatentView, cursor: int, width: int, palette: TokenPalette) -> LatentPage:
    """The whole page.

    Args:
        view: the session's answer.
        cursor: number of the example that is marked.
        width: columns.
        palette: of the theme.
    """
    styles = figure_palette(palette)
    tables = latent_tables(view, own=False)
    lines = [*_facts(view, width, styles), []]
    if view.neighbours:
        lines += [*_neighbours(view, width, styles), []]
    if width >= BESIDE:
        lines += _beside(tables[:2], width, styles) if len(tables) > 1 else []
        lines += [line for table in tables[2 if len(tables) > 1 else 0 :] for line in table_lines(table, width, styles)]
    if not view.examples:
        lines += prose(f"It is active at none of the {view.n_tokens:,} tokens searched.", width, styles.plain)
    starts = []
    top = view.max_activation
    for number, example in enumerate(examples_of(view)):
        if number == len(view.examples):
            title = f"drawn at random, from {view.card.n_drawn} of all activations, by quantile"
            lines += [[(cut(title, width), styles.strong)], []]
        starts.append(len(lines))
        lines += [*_example(example, number == cursor, top, width, palette, styles), []]
    starts.append(len(lines))
    if width < BESIDE:
        lines += [line for table in tables for line in table_lines(table, width, styles)]
    return LatentPage(lines=lines, starts=tuple(starts))


def examples_of(view: LatentView) -> list[LatentExample]:
    """In the order of the page."""
    return [*view.examples, *view.card.drawn]


def table_lines(table: Table, width: int, styles: FigurePalette, marked: int | None = None) -> list[Line]:
    """Title, header, rows, note and an empty line; what is wider than the screen loses its last columns.

    Args:
        table: what to draw.
        width: columns.
        styles: of the theme.
        marked: the row that carries the cursor.
    """
    header, _, *rows = narrowed(replace(table, title="", note=""), width - len(INDENT)).splitlines()
    lines: list[Line] = [[(cut(visible(table.title), width), styles.strong)]]
    lines.append([(cut(INDENT + header, width), styles.quiet)])
    for number, row in enumerate(rows):
        here = number == marked
        lines.append([(cut((CURSOR if here else INDENT) + row, width), styles.strong if here else styles.plain)])
    return [*lines, *_note(table.note, width, styles), []]


def _note(text: str, width: int, styles: FigurePalette) -> list[Line]:
    wrapped = prose(text, max(width - len(INDENT), 20), styles.quiet) if text else []
    return [[(INDENT, styles.plain), *line] for line in wrapped]


def _beside(tables: Sequence[Table], width: int, styles: FigurePalette) -> list[Line]:
    """Two tables side by side, and below them what is to be known of them."""
    half = width // 2
    left, right = (table_lines(replace(table, note=""), half - 1, styles)[:-1] for table in tables)
    lines: list[Line] = []
    for number in range(max(len(left), len(right))):
        line = left[number] if number < len(left) else []
        gap = half - sum(cell_width(text) for text, _ in line)
        lines.append([*line, (" " * gap, styles.plain), *(right[number] if number < len(right) else [])])
    notes = [line for table in tables for line in _note(table.note, width, styles)]
    return [*lines, *notes, []]


def _facts(view: LatentView, width: int, styles: FigurePalette) -> list[Line]:
    first, *others = latent_facts(view)
    lines: list[Line] = [[(cut(first, width), styles.plain)]]
    lines += [[(cut(text, width), styles.quiet)] for text in others]
    if view.explanation:
        score = "not scored" if view.score is None else f"score {view.score:.2f}"
        lines += prose(f"{view.explanation} ({score})", width, styles.strong)
    else:
        lines.append([(cut("no explanation is stored: `dm-inspect interp` makes them", width), styles.quiet)])
    return lines


def _neighbours(view: LatentView, width: int, styles: FigurePalette) -> list[Line]:
    """Number key, index and cosine of the nearest decoder directions."""
    lines: list[Line] = [[(cut("nearest decoder directions, by number key", width), styles.strong)]]
    used = width
    for key, each in enumerate(view.neighbours[:MOST_NEIGHBOURS], 1):
        text = f"{key}: {each.index} {each.cosine:+.2f}".replace("+0.", "+.").replace("-0.", "-.")
        size = cell_width(text) + 3
        if used + size > width:
            lines.append([(INDENT, styles.plain)])
            used = len(INDENT)
        lines[-1].append((text + "   ", styles.plain))
        used += size
    return lines


def _example(
    example: LatentExample, marked: bool, top: float, width: int, palette: TokenPalette, styles: FigurePalette
) -> list[Line]:
    """A heading, then the window's tokens, those where the latent is active in its colour."""
    activations = list(unpack(example.activations))
    own = activations[example.position - example.start : example.position - example.start + 1]
    head = f"{CURSOR if marked else INDENT}context {example.context + 1}, position {example.position}"
    head += "" if example.quantile is None else f" · {100 * example.quantile:.0f}% are weaker"
    look = styles.strong if marked else styles.quiet
    lines: list[Line] = [[(cut(f"{head} · {number_text(*own or (0.0,))}", width), look)], [(INDENT, styles.plain)]]
    used = len(INDENT)
    for place, (token, value) in enumerate(zip(example.tokens, activations, strict=False), example.start):
        text, style = _token(token, value, top, place == example.position, palette, styles)
        text = cut(text, width - len(INDENT))
        if used + cell_width(text) > width:
            lines.append([(INDENT, styles.plain)])
            used = len(INDENT)
        lines[-1].append((text, style))
        used += cell_width(text)
    return lines


def _token(
    token: str, value: float, top: float, peak: bool, palette: TokenPalette, styles: FigurePalette
) -> tuple[str, CellStyle]:
    """A token; the strongest one in brackets, and without colours a block after each that says how large."""
    text = visible(token)
    active = value == value and value > 0.0
    style = styles.of_value(value, 0.0, top) if active else styles.plain
    if active and not styles.coloured:
        share = min(value / top, 1.0) if top > 0 else 0.0
        text += LEVEL_MARKS[min(int(share * len(LEVEL_MARKS)), len(LEVEL_MARKS) - 1)]
    if peak:
        return f"[{text}]", replace(style, bold=True)
    return text, style


def examples_table(view: LatentView) -> str:
    """The examples as tab-separated text, a line per token; tokens are escaped as in JSON."""
    import json

    lines = ["sae\tlatent\texample\tcontext\tposition\ttoken\tactivation"]
    for number, example in enumerate(view.examples, 1):
        for offset, (token, value) in enumerate(zip(example.tokens, unpack(example.activations), strict=False)):
            fields = (view.sae_id, str(view.index), str(number), str(example.context), str(example.start + offset),
                      json.dumps(token)[1:-1], f"{value:.7g}")  # fmt: skip
            lines.append("\t".join(fields))
    return "\n".join(lines) + "\n"
