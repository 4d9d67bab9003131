"""One line to type into: a text to find, or a prompt to analyse. Says what Enter and Escape do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Static

if TYPE_CHECKING:
    from textual.app import ComposeResult

Purpose = Literal["find", "prompt", "latent"]
LABELS: dict[Purpose, tuple[str, str, str]] = {
    "find": (" find ", "text in any context", " Enter finds it · Esc closes "),
    "prompt": (" prompt ", "a text of your own", " Enter scores its tokens · Esc closes "),
    "latent": (" latent ", "its number", " Enter shows it · Esc closes "),
}
"""Name, what to type, and what the keys do."""


class CommandBar(Horizontal):
    """Hidden until it is opened; posts `Entered` or `Closed`."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "close", show=False, id="bar.close")]
    DEFAULT_CSS = """
    CommandBar {
        height: 1; dock: bottom; display: none; background: $surface;
        & > .bar--name { width: auto; background: $accent; color: $background; text-style: bold; }
        & > .bar--keys { width: auto; background: $panel; color: $foreground-muted; }
        & > Input { width: 1fr; height: 1; border: none; padding: 0 1; background: $surface; }
        & > Input:focus { border: none; background-tint: $foreground 0%; }
    }
    """

    @dataclass
    class Entered(Message):
        """Enter was pressed."""

        purpose: Purpose
        text: str

    class Closed(Message):
        """Escape was pressed, or Enter on nothing."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._purpose: Purpose = "find"
        self._texts: dict[Purpose, str] = {"find": "", "prompt": "", "latent": ""}

    def compose(self) -> ComposeResult:
        """A label and the input."""
        yield Static("", markup=False, classes="bar--name")
        field = Input(compact=True, select_on_focus=True)
        field.cursor_blink = False  # A blink is 2.6 kB each second over a line that may be slow.
        yield field
        yield Static("", markup=False, classes="bar--keys")

    def open(self, purpose: Purpose) -> None:
        """Show it, with what was typed the last time."""
        self._purpose = purpose
        label, placeholder, keys = LABELS[purpose]
        self.query_one(".bar--name", Static).update(label)
        self.query_one(".bar--keys", Static).update(keys)
        field = self.query_one(Input)
        field.placeholder = placeholder
        field.value = self._texts[purpose]
        self.display = True
        field.focus()

    def action_close(self) -> None:
        """Hide it."""
        self.display = False
        self.post_message(self.Closed())

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter."""
        event.stop()
        text = event.value
        self._texts[self._purpose] = text
        self.display = False
        if text.strip():
            self.post_message(self.Entered(self._purpose, text))
        else:
            self.post_message(self.Closed())
