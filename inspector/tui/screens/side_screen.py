"""What the screens beside the Stream have in common: actions from a table, help, the theme, and workers that report.

They are opened over the Stream screen and left with Escape; the session goes on talking to the Stream below.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding
from textual.screen import Screen
from textual.worker import Worker, WorkerState

from inspector.tui.side_actions import keys_text

if TYPE_CHECKING:
    from inspector.drawing.palette import TokenPalette
    from inspector.tui.actions import Action
    from inspector.tui.help_texts import PaneHelp
    from inspector.tui.inspector_app import InspectorApp


def bindings_of(actions: Sequence[Action]) -> list[Binding]:
    """Textual's bindings of a table of actions."""
    return [
        Binding(",".join("comma" if key == "," else key for key in action.keys), action.call, action.title, show=False,
                id=action.id)
        for action in actions if action.keys
    ]  # fmt: skip


class SideScreen(Screen[None]):
    """A screen with a table of actions, which the command palette offers as well."""

    ACTIONS: ClassVar[tuple[Action, ...]] = ()
    AUTO_FOCUS = ""

    @property
    def help_text(self) -> PaneHelp:
        """What `?` says here."""
        raise NotImplementedError

    @property
    def palette(self) -> TokenPalette:
        """Of the theme in use."""
        app = cast("InspectorApp", self.app)
        return app.chosen_theme.palette(app.depth)

    def on_mount(self) -> None:
        """Draw again when the theme changes."""
        self.app.theme_changed_signal.subscribe(self, lambda _: self.restyle())

    def restyle(self) -> None:
        """The theme changed."""

    def hints(self, *ids: str) -> list[tuple[str, str]]:
        """Keys and words for the footer, of the actions with these ids."""
        known = {action.id: action for action in self.ACTIONS}
        return [(keys_text(known[each]).partition(" ")[0], known[each].hint) for each in ids]

    def action_help(self) -> None:
        """What this screen shows, and its keys."""
        from inspector.tui.screens.help import HelpScreen

        self.app.push_screen(HelpScreen(self.help_text))

    def action_commands(self) -> None:
        """The command palette."""
        self.app.action_command_palette()

    def action_back(self) -> None:
        """To the screen below."""
        self.dismiss()

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """A worker that broke is a bug: it ends the program as any other would, with one line and a log."""
        error = event.worker.error
        if event.state == WorkerState.ERROR and isinstance(error, Exception):
            self.app._handle_exception(error)
