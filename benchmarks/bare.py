"""The least a Textual program can be: what first paint is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import App
from textual.widgets import Static

if TYPE_CHECKING:
    from textual.app import ComposeResult


class Bare(App[None]):
    """One line of text."""

    def compose(self) -> ComposeResult:
        """The line."""
        yield Static("The least that a Textual program can be: one line of text.")


if __name__ == "__main__":
    Bare().run()
