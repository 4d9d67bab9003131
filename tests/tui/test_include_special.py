"""The app opened with --include-special begins under that policy; a key goes back as ever."""

from __future__ import annotations

import pytest

from inspector.session.protocol import SetPolicy
from inspector.spec import TargetSpec
from inspector.tui.inspector_app import InspectorApp
from tests.fake_session import FakeSession
from tests.tui.driving import driven


async def test_special_tokens_are_counted_from_the_start_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = InspectorApp._open_home

    async def with_target(app: InspectorApp) -> None:
        app.asked = TargetSpec(include_special=True)
        await opened(app)

    monkeypatch.setattr(InspectorApp, "_open_home", with_target)
    async with driven(FakeSession()) as app:
        await app.until(lambda: app.home.state.text is not None and app.home.state.text.policy == "included")
        await app.press("x")
        await app.until(lambda: app.home.state.text is not None and app.home.state.text.policy == "excluded")
        assert [message.policy for message in app.asked(SetPolicy)] == ["included", "excluded"]  # type: ignore[attr-defined]
