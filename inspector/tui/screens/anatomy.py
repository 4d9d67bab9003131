"""Why an SAE fails on one token: its nonlinear error from width to width, what it does, what takes it up, its likes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from textual.message import Message

from inspector.drawing.lines import prose
from inspector.drawing.palette import figure_palette
from inspector.drawing.safe_text import visible
from inspector.drawing.terminal_figures import render_table
from inspector.options import width_label
from inspector.session.card_tables import anatomy_sections, similar_section
from inspector.session.protocol import Anatomy, Failed, GetAnatomy, GetDetail, GetLatent, GetSimilar, SimilarErrors
from inspector.tui.actions import actions_of, help_rows
from inspector.tui.screens.base import GoTo, SessionScreen
from inspector.tui.screens.help import PaneHelp
from inspector.tui.screens.latent import Examples, LatentScreen, table_lines

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from inspector.drawing.palette import FigurePalette, Line
    from inspector.session.card_tables import Section
    from inspector.session.protocol import Hit, SessionMessage, ViewMessage
    from inspector.tui.session import Link
    from inspector.tui.widgets.scrolling import LinesView

MOST_WIDTHS = 9

ACTIONS = actions_of(
    "anatomy",
    ("go", "enter", "go", "Open this latent, or show this token in the stream", "open"),
    *((f"width-{n}", str(n), f"width({n - 1})", f"Width {n}: its error here") for n in range(1, MOST_WIDTHS + 1)),
    ("copy", "c y", "copy", "Copy every table", "copy"),
    ("help", "?", "help", "Help for the anatomy", "help"),
    ("back", "escape q a", "back", "Back to the stream", "back"),
)
MOVES = (
    ("↑ ↓ k j", "the next or previous latent or token"), ("PgUp PgDn { }", "a page"), ("1 to 9", "that width's error"),
)  # fmt: skip
HELP = PaneHelp(
    title="Anatomy of an error",
    paragraphs=(
        "The nonlinear error of the active SAE at one token: what an affine map of x cannot predict of x - x_hat. "
        "Every number stands beside what it would be if there were nothing to see, and below each table stands how to "
        "read it.",
        "Linear and nonlinear error are not orthogonal on one token, and neither are the directions of latents: shares "
        "are signed and may take each other back. Only what is called a sum adds up.",
        "Latents that take it up: r, the narrower SAE's nonlinear error, is exactly the sum of the wider SAE's active "
        "latents, plus its bias less what the narrower one had, plus the wider SAE's own error; each part's share is "
        "its inner product with r over r's squared norm. Enter opens the latent.",
        "Tokens that fail alike: the largest cosines of the nonlinear errors of all scored tokens. The first question "
        "about an SAE searches every context and takes a while. Enter shows the token.",
        "`dm-inspect anatomy` gives the same from a shell, with --json.",
    ),
    keys=help_rows(MOVES, [action for action in ACTIONS if not action.id.startswith("anatomy.width")]),
    numbers=("sae-error", "linear", "nonlinear", "cosine", "kl"),
)


class AnatomyScreen(SessionScreen):
    """Asks the session twice, for the token and for its likes; draws what is there."""

    ACTIONS = ACTIONS
    HELP_TEXT = HELP

    @dataclass
    class Answered(Message):
        """The session has answered, or refused."""

        asked: ViewMessage
        answer: SessionMessage

    def __init__(self, link: Link, at: GetDetail) -> None:
        """Nothing is asked yet; `at`: the SAE and the token."""
        super().__init__(link)
        ready = link.session.ready
        self._at, self._saes = at, {sae.sae_id: sae for sae in (ready.saes if ready is not None else ())}
        self.anatomy: Anatomy | None = None
        self.similar: SimilarErrors | None = None
        """None while the session is at it."""
        self.problems: dict[type[ViewMessage], str] = {}
        """Why there will be no answer, by the question."""
        self._cursor = 0
        self._starts: list[int] = []
        """Of each place to go to its line on the page."""

    def compose(self) -> ComposeResult:
        """Title, page, keys."""
        yield from super().compose()
        yield Examples(id="anatomy-page")

    def on_mount(self) -> None:
        """Ask."""
        super().on_mount()
        self.page.focus()
        self.ask(self._at.sae_id)

    @property
    def page(self) -> Examples:
        """The lines."""
        return self.query_one(Examples)

    # ---- asking -----------------------------------------------------------------------------------------------------

    def ask(self, sae_id: str) -> None:
        """Show this SAE's error at the token."""
        self._at = msgspec.structs.replace(self._at, sae_id=sae_id)
        self.anatomy = self.similar = None
        self.problems, self._cursor = {}, 0
        place = {name: getattr(self._at, name) for name in ("source", "context", "position", "sae_id")}
        self.show_page()
        self.in_worker("anatomy", self._ask(GetAnatomy(**place)))
        self.in_worker("similar", self._ask(GetSimilar(**place)))

    async def _ask(self, question: ViewMessage) -> None:
        self.post_message(self.Answered(question, await self.link.call(question)))

    def on_anatomy_screen_answered(self, message: Answered) -> None:
        """Show the answer, unless another width was asked for since."""
        message.stop()
        if getattr(message.asked, "sae_id", "") != self._at.sae_id:
            return
        match message.answer:
            case Anatomy():
                self.anatomy = message.answer
            case SimilarErrors():
                self.similar = message.answer
            case Failed():
                self.problems[type(message.asked)] = message.answer.message
        self.show_page(keep_place=True)

    # ---- drawing ----------------------------------------------------------------------------------------------------

    @property
    def sections(self) -> list[Section]:
        """What is there so far."""
        if self.anatomy is None:
            return []
        found = anatomy_sections(self.anatomy.card, self._at.sae_id)
        if self.similar is not None:
            found.append(similar_section(self.similar.card, self.anatomy.card.token))
        return found

    @property
    def places(self) -> list[GetLatent | Hit]:
        """Everything that Enter opens, in the order of the page."""
        return [place for section in self.sections for place in section.goes]

    def show_page(self, *, keep_place: bool = False) -> None:
        """Everything."""
        at, sae = self._at, self._saes.get(self._at.sae_id)
        token = "" if self.anatomy is None else f" '{visible(self.anatomy.card.token)}'"
        where = f"context {at.context + 1}, " if at.source == "context" else f"{at.source}, "
        width = "" if sae is None else f" · {width_label(sae.d_sae)}"
        self.show_head((f"  why{token}", ""), end=f"{where}position {at.position}{width} · {visible(at.sae_id)}")
        n = 0 if self.anatomy is None else len(self.anatomy.card.widths)
        widths = [(f"1-{min(n, MOST_WIDTHS)}", "width")] if n > 1 else []
        self.show_keys(("↑↓", "latent, token"), "go", *widths, "copy", "help", last=("Esc", "back"))
        columns, _ = self.page.room
        palette = self.palette
        lines = self._lines(max(columns, 20), figure_palette(palette))
        self.page.show(lines, palette, keep_place=keep_place)

    def _lines(self, width: int, styles: FigurePalette) -> list[Line]:
        lines: list[Line] = []
        self._starts = []
        for section in self.sections:
            first = len(self._starts)
            marked = self._cursor - first if first <= self._cursor < first + len(section.goes) else None
            # Rows stand below a title and a header.
            self._starts += [len(lines) + 2 + row for row in range(len(section.goes))]
            lines += table_lines(section.table, width, styles, marked)
        card = self.anatomy.card if self.anatomy is not None else None
        if card is not None and card.wider is None:
            lines += [*prose(card.why_no_wider, width, styles.quiet), []]
        for problem in dict.fromkeys(self.problems.values()):
            lines += [*prose(problem, width, styles.plain), []]
        if card is None and GetAnatomy not in self.problems:
            lines.append([("looking at the error …", styles.plain)])
        elif self.similar is None and GetSimilar not in self.problems:
            lines.append([("searching the contexts for tokens that fail alike …", styles.plain)])
        return lines

    def on_lines_view_resized(self, message: LinesView.Resized) -> None:
        """Draw for the new room."""
        message.stop()
        self.show_page(keep_place=True)

    def restyle(self) -> None:
        """Colours of another theme."""
        self.show_page(keep_place=True)

    # ---- keys -------------------------------------------------------------------------------------------------------

    def on_examples_stepped(self, message: Examples.Stepped) -> None:
        """Another latent or token; it comes into view."""
        message.stop()
        if not self._starts:
            return
        top, height = self.page.scroll_offset.y, self.page.room[1]
        seen = top <= self._starts[self._cursor] < top + height
        if seen:
            self._cursor = min(max(self._cursor + message.step, 0), len(self._starts) - 1)
        self.show_page(keep_place=True)
        line = self._starts[self._cursor]
        if line < top + 2 or line >= top + height:
            # With its title and header above; the page begins with what stands before the first place.
            self.page.scroll_to(y=max(line - height // 2, 0), animate=False, force=True, immediate=True)

    def action_go(self) -> None:
        """Open the latent, or show the token in the Stream."""
        places = self.places
        if not places:
            return
        place = places[self._cursor]
        if not isinstance(place, GetLatent):
            self.post_message(GoTo(place.context, place.position))
            self.dismiss()
            return
        latents = [each.index for each in places if isinstance(each, GetLatent)]
        at = latents.index(place.index)
        there = msgspec.structs.replace(self._at, sae_id=place.sae_id)
        others = (*latents[at:], *latents[:at])
        self.app.push_screen(LatentScreen(self.link, there, self._saes[place.sae_id].d_sae, others))

    def action_width(self, number: int) -> None:
        """The error of another width."""
        if self.anatomy is not None and number < len(self.anatomy.card.widths):
            self.ask(self.anatomy.card.widths[number].sae_id)

    def action_copy(self) -> None:
        """Every table as text."""
        if self.anatomy is not None:
            text = "\n".join(render_table(section.table) for section in self.sections)
            what = f"the anatomy of {visible(self.anatomy.card.token)!r}"
            self.copy_out(text, what, f"anatomy-{self._at.source}-{self._at.context}-{self._at.position}.txt")
