"""What a bug report holds, and that it holds no secret."""

from __future__ import annotations

import json

import pytest

from inspector import __version__
from inspector.cli.info import colour_depth
from tests.cli.conftest import Run


def test_every_part_is_there(run: Run) -> None:
    outcome = run("info", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(outcome.out)
    assert list(found) == ["program", "packages", "folders", "terminal", "environment", "limits", "devices"]
    assert found["program"]["dm-inspect"] == __version__
    assert found["packages"]["torch"].startswith("2.")
    assert "not installed" not in found["packages"].values()
    assert found["devices"]["cpu"].endswith("threads")


def test_the_text_has_the_same_parts(run: Run) -> None:
    out = run("info").out
    headings = [line for line in out.splitlines() if not line.startswith(" ")]
    assert headings == ["program", "packages", "folders", "terminal", "environment", "limits", "devices"]
    assert f"  dm-inspect  {__version__}\n" in out


def test_no_secret_is_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("SSH_CONNECTION", "203.0.113.7 1 203.0.113.8 22")
    out = run("info").out
    assert "hf_secret" not in out
    assert "203.0.113" not in out
    assert "  SSH_CONNECTION  " in out


@pytest.mark.parametrize(
    ("environment", "depth"),
    [
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "24-bit"),
        ({"TERM": "screen-256color"}, "256"),
        ({"TERM": "xterm"}, "16"),
        ({"TERM": "dumb"}, "none (TERM)"),
        ({}, "none (TERM)"),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor", "NO_COLOR": "1"}, "none (NO_COLOR)"),
    ],
)
def test_colours_are_those_the_environment_promises(
    environment: dict[str, str], depth: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TERM", "COLORTERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert colour_depth() == depth
