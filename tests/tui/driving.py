"""The app on an invented session, driven by the pilot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from textual.pilot import Pilot

from inspector.session.protocol import ViewMessage
from inspector.tui.inspector_app import InspectorApp
from inspector.tui.screens.stream import StreamScreen
from tests.fake_session import FakeClient, FakeSession

LIMIT = 120.0
"""Seconds after which something is taken not to come; a machine may crawl."""
LOOKS = 30
"""After so many, 0.03 s apart, what is on its way has arrived, unless a thread or a process brings it."""
ENDLESS = ("session", "fetch")
"""Groups of workers that go on as long as somebody else wants."""


@dataclass
class Driven:
    """An app under test, its pilot, and the sessions it connected to."""

    app: InspectorApp
    pilot: Pilot[int]
    clients: list[FakeClient] = field(default_factory=list)

    @property
    def home(self) -> StreamScreen:
        assert self.app.home is not None
        return self.app.home

    @property
    def client(self) -> FakeClient:
        """The latest connection."""
        return self.clients[-1]

    def asked(self, kind: type[ViewMessage]) -> list[ViewMessage]:
        """Requests of one type, in order."""
        return [message for message in self.client.received if isinstance(message, kind)]

    async def until(self, condition: Callable[[], object], seconds: float = LIMIT) -> None:
        """Wait for something to become true; AssertionError if it does not."""
        for _ in range(int(seconds / 0.02)):
            if condition():
                await self.pilot.pause()
                return
            await self.pilot.pause(0.02)
        raise AssertionError(f"not true after {seconds:g} s: {condition}")

    async def press(self, *keys: str) -> None:
        """Keys, one after the other, and all that follows."""
        await self.pilot.press(*keys)
        await self.settle()

    async def settle(self) -> None:
        """Wait until all work has ended and nothing on the screen has changed for a while: answers and delayed painting
        have arrived.

        Gives up silently after some looks at which no work went on: a screen may have something on it that moves, and
        work may wait for the user.
        """
        unchanged, idle, before = 0, 0, self.screen_text()
        for _ in range(int(LIMIT / 0.03)):
            await self.pilot.pause(0.03)
            now = self.screen_text()
            unchanged = unchanged + 1 if now == before else 0
            idle += not asyncio.get_running_loop().waits_for_others()  # type: ignore[attr-defined]
            if (unchanged >= 3 and not self.is_at_work()) or idle == LOOKS:
                return
            before = now

    def is_at_work(self) -> bool:
        """Whether something was begun that ends by itself: a list that is read, an answer that is waited for."""
        return any(not worker.is_finished and worker.group not in ENDLESS for worker in self.app.workers)

    def screen_text(self) -> list[str]:
        """What is on the screen, line by line."""
        strips = self.app.screen._compositor.render_strips()
        return [strip.text for strip in strips]


@asynccontextmanager
async def driven(
    session: FakeSession | None = None,
    *,
    size: tuple[int, int] = (120, 40),
    theme: str | None = None,
    wait: bool = True,
    app_class: type[InspectorApp] = InspectorApp,
    notifications: bool = False,
    remember: bool = False,
    tooltips: bool = False,
) -> AsyncIterator[Driven]:
    """An app that has its first text (unless `wait` is false)."""
    clients: list[FakeClient] = []
    session = session if session is not None else FakeSession(hostile_share=0.0, epochs=1)

    async def connect() -> FakeClient:
        clients.append(FakeClient(session))
        return clients[-1]

    app = app_class("demo", connect, theme=theme, remember=remember)
    async with app.run_test(size=size, notifications=notifications, tooltips=tooltips) as pilot:
        driver = Driven(app=app, pilot=pilot, clients=clients)
        await driver.until(lambda: app.screen is app.home)
        if wait:
            await driver.until(lambda: driver.home.state.text is not None)
            await driver.until(lambda: driver.home.state.text is not None and driver.home.state.text.has_map)
            await driver.settle()
        yield driver
