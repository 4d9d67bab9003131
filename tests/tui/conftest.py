"""Tests of the app run on a loop that does not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

import pytest

from tests.tui.clock import Unhurried, time_of_the_loop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"unhurried": Unhurried}


@pytest.fixture(autouse=True)
def nobody_waits() -> Iterator[None]:
    with time_of_the_loop():
        yield
