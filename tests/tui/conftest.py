"""Tests of the app run on a loop that does not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from textual.notifications import Notification

from tests.tui.clock import Unhurried, now


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"unhurried": Unhurried}


@pytest.fixture(autouse=True)
def time_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Textual's timers and notices go by."""

    def raised(*arguments: Any, **options: Any) -> Notification:
        return Notification(*arguments, raised_at=now(), **options)

    monkeypatch.setattr("textual._time.get_time", now)
    monkeypatch.setattr("textual.notifications.time", now)
    monkeypatch.setattr("textual.app.Notification", raised)
