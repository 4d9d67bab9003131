"""The command palette: every action of the table, the themes, and the SAEs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from inspector.tui.actions import ACTIONS, shown_keys
from inspector.tui.screens.side_screen import SideScreen

if TYPE_CHECKING:
    from inspector.tui.inspector_app import InspectorApp

Command = tuple[str, Callable[[], object], str]
"""Title, what to call, and a line of help."""


class ActionCommands(Provider):
    """What the palette offers."""

    @property
    def _app(self) -> InspectorApp:
        return cast("InspectorApp", self.app)

    def _all(self) -> Iterator[Command]:
        screen = self.screen
        if isinstance(screen, SideScreen):
            yield "Save the screen as an SVG picture", self._app.action_screenshot, "no key"
            for action in screen.ACTIONS:
                if action.call != "commands":
                    keys = shown_keys(action)
                    yield action.title, partial(screen.run_action, action.call), f"key {keys}" if keys else "no key"
        else:
            yield from self._of_stream()
        for theme in self._app.themes.values():
            yield f"Theme: {theme.title}", partial(self._app.choose_theme, theme.name), theme.summary
        yield "Redraw the whole screen", self._app.action_redraw, "no key"

    def _of_stream(self) -> Iterator[Command]:
        home = self._app.home
        choice = home.choice if home is not None else None
        n_widths = len(choice.rows) if choice is not None else 0
        absent = {f"stream.width-{number}" for number in range(n_widths + 1, 10)}
        for action in ACTIONS:
            if home is None or action.id == "stream.palette" or action.id in absent:
                continue
            keys = shown_keys(action)
            yield action.title, partial(home.run_action, action.call), f"key {keys}" if keys else "no key"
        if home is not None and choice is not None:
            for row, sae in enumerate(choice.saes):
                yield f"SAE: {sae.sae_id}", partial(home.choose_sae, row), f"{sae.d_sae:,} latents, colour by it"

    async def discover(self) -> Hits:
        """Everything, before anything is typed."""
        for title, call, text in self._all():
            yield DiscoveryHit(title, call, help=text)

    async def search(self, query: str) -> Hits:
        """What fits the typed letters."""
        matcher = self.matcher(query)
        for title, call, text in self._all():
            score = matcher.match(title)
            if score > 0:
                yield Hit(score, matcher.highlight(title), call, help=text)
