"""What the view remembers between runs: one small versioned JSON file in the user's state directory.

Written whole to a temporary file and renamed, so that a crash leaves the old one. A file that cannot be read, or is of
a newer version, is as good as none: the program never refuses to start because of it.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class UiState:
    """Choices worth keeping. None: never chosen."""

    theme: str | None = None
    marks: bool | None = None


def state_directory() -> Path:
    """$XDG_STATE_HOME/dm-inspect, or ~/.local/state/dm-inspect. Not created here."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "dm-inspect"


def load_state() -> UiState:
    """As saved; the defaults where nothing usable is."""
    try:
        saved = json.loads((state_directory() / "view.json").read_text(encoding="utf-8"))
        if saved.pop("version") != VERSION:
            return UiState()
        known = {field.name for field in fields(UiState)}
        state = UiState(**{key: value for key, value in saved.items() if key in known})
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return UiState()
    good = isinstance(saved.get("theme"), str | None) and isinstance(saved.get("marks"), bool | None)
    return state if good else UiState()


def save_state(state: UiState) -> None:
    """Write; a full disk or a read-only home is not worth an error."""
    directory = state_directory()
    temporary = directory / f".view.json.{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary.write_text(json.dumps({"version": VERSION, **asdict(state)}), encoding="utf-8")
        os.replace(temporary, directory / "view.json")
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
