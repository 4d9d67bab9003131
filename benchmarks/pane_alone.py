"""The token pane and nothing else, on invented scores: what a step, a page and a recolouring cost by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType

from inspector.tui.documents import ScoredText
from inspector.tui.widgets.token_pane import TokenPane
from tests.fake_session import FakeSession

if TYPE_CHECKING:
    from textual.app import ComposeResult


class PaneAlone(App[None]):
    """One context of 8,192 tokens; the number keys switch widths."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(key + 1), f"width({key})", show=False) for key in range(5)),
        Binding("q", "quit", show=False),
    ]

    def compose(self) -> ComposeResult:
        """The pane."""
        yield TokenPane()

    def on_mount(self) -> None:
        """Colour it by a finished map."""
        session = self.session = FakeSession(context_length=8192)
        pane = self.query_one(TokenPane)
        pane.set_document(ScoredText.of(session.context_scores(0, session.epochs)).document)
        pane.focus()

    def action_width(self, width: int) -> None:
        """The middle L0 of a width."""
        row = 3 * width + 1
        self.query_one(TokenPane).set_sae(row, self.session.ranges(row, self.session.epochs))


if __name__ == "__main__":
    PaneAlone().run()
