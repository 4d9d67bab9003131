"""Stream, the home screen: tokens coloured by linear and nonlinear SAE error, and all that hangs on the cursor.

Third part: the keys. See `stream_view` for the state and the picture, `stream_talk` for the session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding, BindingType
from textual.message import Message

from inspector.drawing.tokens import next_mode
from inspector.session.protocol import AnalysePrompt, Find, Generate, GetDetail, Policy, SetPolicy
from inspector.tui import documents
from inspector.tui.actions import ACTIONS
from inspector.tui.screens.stream_talk import StreamTalk
from inspector.tui.stream_state import Choice, Search, walk_worst
from inspector.tui.widgets.command_bar import CommandBar
from inspector.tui.widgets.token_lines import Legend

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inspector.drawing.palette import TokenPalette
    from inspector.tui.inspector_app import InspectorApp
    from inspector.tui.widgets.token_pane import TokenPane
    from inspector.tui.widgets.trace import TracePane

GENERATE_TOKENS = 200
"""Tokens per press of the key; Escape stops earlier."""


def _textual_keys(keys: Iterable[str]) -> str:
    """Keys as a Textual binding lists them; the comma separates, so it goes by name."""
    return ",".join("comma" if key == "," else key for key in keys)


class StreamScreen(StreamTalk):
    """The home screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(_textual_keys(action.keys), action.call, action.title, show=False, id=action.id)
        for action in ACTIONS
        if action.keys
    ]

    class MarksChosen(Message):
        """The user wants the second channel, or not; worth keeping for the next time."""

        def __init__(self, marks: bool) -> None:
            super().__init__()
            self.marks = marks

    def on_mount(self) -> None:
        """Paint first; connect when that is done."""
        self.tokens.set_marks(self.marks)
        self.arrange_panes()
        self.show_session()
        self.call_after_refresh(self.start)

    @property
    def _app(self) -> InspectorApp:
        return cast("InspectorApp", self.app)

    # ---- widgets tell -----------------------------------------------------------------------------------------------

    def on_token_pane_cursor_moved(self, message: TokenPane.CursorMoved) -> None:
        """The cursor is on another token. The pane is asked where: it may have moved on since."""
        message.stop()
        self.cursor_moved(message.pane.cursor)

    async def on_token_pane_edge_reached(self, message: TokenPane.EdgeReached) -> None:
        """Past an end of a context is its neighbour."""
        message.stop()
        if self.place.source == "context":
            await self._neighbour(message.step)

    def on_token_pane_legend_changed(self, message: TokenPane.LegendChanged) -> None:
        """The colours mean something else."""
        message.stop()
        self.query_one(Legend).show(message.legend)

    def on_trace_pane_chosen(self, message: TracePane.Chosen) -> None:
        """A token was clicked in the plot."""
        message.stop()
        self.tokens.move_to(message.position)

    async def on_command_bar_entered(self, message: CommandBar.Entered) -> None:
        """Something was typed."""
        message.stop()
        self.tokens.focus()
        if message.purpose == "find":
            self.search = Search(text=message.text)
            await self._talk.ask("find", Find(text=message.text))
            self.show_title()
        else:
            self._wanted = ("prompt", 0, "first")
            await self._talk.ask("prompt", AnalysePrompt(text=message.text))

    def on_command_bar_closed(self, message: CommandBar.Closed) -> None:
        """Nothing was typed."""
        message.stop()
        self.tokens.focus()

    # ---- what is looked at ------------------------------------------------------------------------------------------

    def action_mode(self, step: int) -> None:
        """Another meaning of the colours."""
        self.mode = next_mode(self.mode, step)
        self.tokens.set_mode(self.mode)
        self.show_title()
        self.show_trace()

    async def action_press_width(self, index: int) -> None:
        """A number key."""
        if self.choice is not None:
            await self._choose(self.choice.press(index))

    async def action_step_l0(self, step: int) -> None:
        """A sparser or denser SAE."""
        if self.choice is not None:
            await self._choose(self.choice.step_l0(step))

    async def choose_sae(self, row: int) -> None:
        """Colour by this SAE; the other widths take their nearest L0."""
        if self.choice is not None:
            width = next(index for index, group in enumerate(self.choice.rows) if row in group)
            choice = self.choice if width == self.choice.active else self.choice.press(width)
            await self._choose(choice.pick(row))

    async def _choose(self, choice: Choice) -> None:
        before = self.choice
        if choice == before or before is None:
            return
        self.choice = choice
        # Asked before drawing: an answer that comes quickly is painted together with the rest.
        if before.row != choice.row and self.detail_is_visible:
            self._stop("detail")
            await self._ask_detail()
        self.tokens.set_sae(choice.row)
        if before.shown != choice.shown:
            self._ask_pairs_soon()
        self.show_all()

    # ---- where ------------------------------------------------------------------------------------------------------

    def action_page(self, step: int) -> None:
        """A page of tokens, whichever pane has the focus."""
        self.tokens.action_page(step)

    async def action_context(self, step: int) -> None:
        """The neighbouring context; from a prompt or a generation, back to the contexts."""
        if self.place.source != "context":
            await self.go("context", self._home.context, self._home.position)
        elif self.session.ready is not None:
            context = (self.place.context + step) % self.session.ready.n_contexts
            await self.go("context", context, "first")

    async def _neighbour(self, step: int) -> None:
        """Walking over an end; the first and the last context have only one neighbour."""
        ready = self.session.ready
        context = self.place.context + step
        if ready is not None and 0 <= context < ready.n_contexts:
            await self.go("context", context, 0 if step > 0 else "last")

    async def action_walk(self, step: int) -> None:
        """To the next place found, or the next worst token."""
        if self.search is not None and self.search.hits:
            await self.walk_hits(step)
            return
        if self.text is None:
            return
        ranked = self.text.ranked(self.row, self.mode, outliers=self.walks_outliers)
        contexts, position = walk_worst(ranked, self.place.position, step)
        if position is not None:
            self.tokens.move_to(position)
        elif self.place.source == "context" and self.session.ready is not None:
            context = (self.place.context + contexts) % self.session.ready.n_contexts
            await self.go("context", context, "worst" if step > 0 else "last-worst")
        elif ranked:
            self.tokens.move_to(ranked[0])

    def action_outliers(self) -> None:
        """Whether the walk over the worst tokens meets those that outweigh all others."""
        self.walks_outliers = not self.walks_outliers
        self.notify("n walks over outliers too." if self.walks_outliers else "n passes over outliers.")

    async def action_leave(self) -> None:
        """Escape: stop a generation, else end the search, else go back to the contexts."""
        if self._talk.is_open("generate"):
            await self._talk.cancel("generate")
        elif self.search is not None:
            self.search = None
            self.show_hits()
            self.show_title()
        elif self.place.source != "context" and self.text is not None:
            await self.go("context", self._home.context, self._home.position)

    # ---- texts ------------------------------------------------------------------------------------------------------

    def action_find(self) -> None:
        """Open the line for a text to find."""
        if self.text is not None:
            self.query_one(CommandBar).open("find")

    def action_prompt(self) -> None:
        """Open the line for a prompt."""
        if self.text is not None:
            self.query_one(CommandBar).open("prompt")

    async def action_generate(self) -> None:
        """Sample from the model after the text up to the cursor."""
        if self.text is None or self._talk.is_open("generate"):
            return
        self._n_generations += 1
        ids = self.text.document.token_ids[: self.place.position + 1]
        request = Generate(prompt_ids=ids, max_tokens=GENERATE_TOKENS, seed=self._n_generations)
        if await self._talk.ask("generate", request):
            self.notify("Generating from the text up to the cursor. Esc stops.", timeout=3)

    # ---- appearance -------------------------------------------------------------------------------------------------

    async def action_policy(self) -> None:
        """Special tokens and early positions in, or out again: the other maps, and every number of theirs."""
        if self.text is not None and not self._talk.is_open("policy"):
            policy: Policy = "included" if self.session.policy == "excluded" else "excluded"
            await self._talk.ask("policy", SetPolicy(policy=policy))

    def action_marks(self) -> None:
        """The second channel."""
        self._marks_wanted = not self.marks
        self.tokens.set_marks(self.marks)
        self.post_message(self.MarksChosen(self.marks))

    def show_palette(self, palette: TokenPalette) -> None:
        """The theme changed; marks stay as the user set them."""
        self._palette = palette
        self.tokens.set_palette(palette)
        self.tokens.set_marks(self.marks)
        self.show_all()

    def action_detail(self) -> None:
        """Show or hide the detail pane; in a narrow window it takes turns with the plot."""
        self._show_detail = not self._show_detail
        self._low = "detail" if self._low == "trace" else "trace"
        self.arrange_panes()
        self._ask_detail_soon()

    def action_zoom(self, step: int) -> None:
        """More or fewer tokens in the plot."""
        self.trace.zoom(step)

    def action_enlarge(self) -> None:
        """The plot on the whole screen."""
        if self.trace.data is not None:
            from inspector.tui.widgets.trace import EnlargedTrace

            self.app.push_screen(EnlargedTrace(self.trace.data), self._enlarged_left)

    def _enlarged_left(self, position: int | None) -> None:
        if position is not None:
            self.tokens.move_to(position)

    async def action_results(self) -> None:
        """What was measured before; while there is no session, the key tries to connect again."""
        if self.session.stage in ("failed", "lost"):
            self.start()
        else:
            await self._app.open_results()

    async def action_open_results(self) -> None:
        """What was measured before, session or not."""
        await self._app.open_results()

    def action_help(self) -> None:
        """What the focused pane shows, and its keys."""
        from inspector.tui.screens.help import HelpScreen

        self.app.push_screen(HelpScreen(self.focused_pane()))

    def action_commands(self) -> None:
        """The command palette."""
        self.app.action_command_palette()

    # ---- taking things along ----------------------------------------------------------------------------------------

    def action_copy_token(self) -> None:
        """The numbers of the token under the cursor, for each enabled SAE."""
        if self.text is not None and self.choice is not None and len(self.text):
            rows = [row for _, row in self.choice.shown]
            position = self.place.position
            self._copy(documents.table(self.text, [position], rows, self.choice.saes), f"token {position}", None)

    def action_copy_context(self) -> None:
        """The numbers of every token of this text, for each enabled SAE."""
        if self.text is not None and self.choice is not None:
            rows = [row for _, row in self.choice.shown]
            name = f"{self.place.source}-{self.place.context}.tsv"
            table = documents.table(self.text, range(len(self.text)), rows, self.choice.saes)
            self._copy(table, f"{len(self.text)} tokens of {len(rows)} SAEs", name)

    def _copy(self, table: str, what: str, name: str | None) -> None:
        """To the clipboard through the terminal, which may not support it and never says so; so to a file as well."""
        fits = len(table) <= documents.MAX_CLIPBOARD
        if fits:
            self.app.copy_to_clipboard(table)
        try:
            path = documents.write_export(name or "token.tsv", table)
        except OSError as error:
            if fits:
                self.notify(f"Copied {what}; the file could not be written: {error}.", markup=False)
            else:
                self.notify(f"{what} is too long for the clipboard, and {error}.", severity="error", markup=False)
            return
        self.notify(f"Copied {what}.\nAlso in {path}" if fits else f"Saved {what}:\n{path}", markup=False)

    # ---- the program ------------------------------------------------------------------------------------------------

    def action_retry(self) -> None:
        """Connect again, if there is no connection."""
        if self.session.stage in ("failed", "lost"):
            self.start()

    async def action_latent(self) -> None:
        """The strongest latent of the active SAE at the cursor."""
        if self.choice is None or self.text is None:
            return
        from inspector.tui.screens.latent import LatentScreen

        sae, place, detail = self.choice.sae, self.place, self._detail
        at = GetDetail(source=place.source, context=place.context, position=place.position, sae_id=sae.sae_id)
        known = detail is not None and all(
            getattr(detail, name) == getattr(at, name) for name in ("source", "context", "position", "sae_id")
        )
        others = [latent.index for latent in detail.latents] if known and detail is not None else []
        await self._app.push_screen(LatentScreen(at, sae.d_sae, others))

    async def action_suites(self) -> None:
        """Which SAEs there are for this model."""
        await self._app.open_suites()

    async def action_experiments(self) -> None:
        """What can be measured."""
        await self._app.open_side("experiments")

    async def action_jobs(self) -> None:
        """What runs and what ran."""
        await self._app.open_side("jobs")

    def action_quit(self) -> None:
        """Leave; while a job runs, ask what becomes of it."""
        self._app.leave()
