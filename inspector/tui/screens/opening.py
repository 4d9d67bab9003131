"""The first picture: what the Stream screen shows before the session answers, drawn without loading the rest.

Nothing here imports messages, text fields or plots. The app puts the Stream screen in its place as soon as this is
painted; both draw the same lines, so the change sends next to nothing to the terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.screen import Screen

from inspector.tui.widgets.footer import FooterPane
from inspector.tui.widgets.header import HeaderPane
from inspector.tui.widgets.load_pane import LoadPane

if TYPE_CHECKING:
    from textual.app import ComposeResult


class OpeningScreen(Screen[int]):
    """Header, loading picture and footer."""

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [Binding("q", "app.quit", "quit", show=False, id="opening.quit")]

    def __init__(self, model: str) -> None:
        super().__init__()
        self._model = model

    def compose(self) -> ComposeResult:
        """As the Stream screen begins."""
        yield HeaderPane(self._model, id="header")
        yield FooterPane([("q", "quit")], id="footer")
        yield LoadPane(self._model, id="load")
