"""The same toy target as the sessions' own tests, and a voice for counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.session.conftest import loaded, toy_target

__all__ = ["loaded", "toy_target"]
Say = Callable[[str], None]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Prints what `make soak` is to show, whatever else is captured."""

    def said(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")

    return said
