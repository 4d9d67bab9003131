"""The same toy target as the sessions' own tests."""

from __future__ import annotations

from tests.session.conftest import loaded, toy_target

__all__ = ["loaded", "toy_target"]
