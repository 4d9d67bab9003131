"""Help for the focused pane: what it shows, what the numbers mean, and the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from inspector.tui.actions import MOVES, by_id, shown_keys
from inspector.tui.help_texts import HELP

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from inspector.tui.help_texts import PaneHelp

KEY_COLUMN = 16


class HelpScreen(ModalScreen[None]):
    """Any of the closing keys leads back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,enter", "dismiss", "close", show=False, id="help.close"),
        Binding("j", "scroll(1)", "down", show=False, id="help.down"),
        Binding("k", "scroll(-1)", "up", show=False, id="help.up"),
    ]
    DEFAULT_CSS = """
    HelpScreen { align: center middle; background: $background; }
    HelpScreen > VerticalScroll { width: 88; max-width: 100%; height: auto; max-height: 100%; padding: 1 2; background:
    $surface; }
    """

    def __init__(self, pane: str | PaneHelp) -> None:
        super().__init__()
        self._help = HELP[pane] if isinstance(pane, str) else pane

    def compose(self) -> ComposeResult:
        """One scrollable text."""
        with VerticalScroll():
            yield Static(self._text())

    def _text(self) -> Text:
        text = Text(f"{self._help.title}\n\n", style="bold")
        rows = list(self._help.keys or MOVES)
        rows += [(shown_keys(by_id(name)), by_id(name).title) for name in self._help.actions]
        for keys, title in rows:
            text.append(f"{keys:<{KEY_COLUMN}}", style="bold")
            text.append(f"{title}\n", style="not bold")
        text.append(f"{': Ctrl+P':<{KEY_COLUMN}}", style="bold")
        text.append("every command by name\n", style="not bold")
        for paragraph in self._help.paragraphs:
            text.append(f"\n{paragraph}\n", style="not bold")
        text.append("\nEsc closes.", style="not bold")
        return text

    def on_mount(self) -> None:
        """Arrow keys scroll at once."""
        self.query_one(VerticalScroll).focus()

    def action_scroll(self, lines: int) -> None:
        """As in the other panes."""
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)
