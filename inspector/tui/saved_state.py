"""What the view remembers between runs: one small versioned JSON file in the user's state directory.

Written whole to a temporary file and renamed, so that a crash leaves the old one. A file that cannot be read, or is of
a newer version, is as good as none: the program never refuses to start because of it.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import msgspec

from inspector.disk.files import parse_json, read_text, writing_whole
from inspector.errors import ResourceError
from inspector.tui.own_texts import OwnText

VERSION = 1


N_VIEWS = 30
"""Targets whose view is remembered; the one looked at longest ago goes first."""


@dataclass(frozen=True, kw_only=True)
class SavedView:
    """A place in a target: enough to go on there after the terminal was lost."""

    context: int = 0
    position: int = 0
    sae_ids: tuple[str, ...] = ()
    """Per width, narrowest first: the SAE that is shown."""
    enabled: tuple[int, ...] = ()
    """d_sae of the widths that are drawn."""
    active: int = 0
    """d_sae of the width that colours the tokens."""
    mode: str = ""
    """Id of the colour mode."""
    texts: tuple[OwnText, ...] = ()
    """Typed and generated."""


@dataclass(frozen=True, kw_only=True)
class UiState:
    """Choices worth keeping. None: never chosen."""

    theme: str | None = None
    marks: bool | None = None
    tour: bool = False
    """Whether the tour was shown."""
    views: dict[str, SavedView] = field(default_factory=dict)
    """By target, the one looked at last at the end."""

    def with_view(self, target: str, view: SavedView) -> UiState:
        """The same, with this view of a target."""
        kept = {key: value for key, value in self.views.items() if key != target}
        names = list(kept)[max(0, len(kept) - N_VIEWS + 1) :]
        return replace(self, views={**{name: kept[name] for name in names}, target: view})


def state_directory() -> Path:
    """$XDG_STATE_HOME/dm-inspect, or ~/.local/state/dm-inspect. Not created here."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "dm-inspect"


def load_state() -> UiState:
    """As saved; the defaults where nothing usable is."""
    try:
        saved = parse_json(read_text(state_directory() / "view.json"))
        if saved.pop("version") != VERSION:
            return UiState()
        theme, marks = saved.get("theme"), saved.get("marks")
        if not (isinstance(theme, str | None) and isinstance(marks, bool | None)):
            return UiState()
        found = {key: _view(value) for key, value in saved.get("views", {}).items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return UiState()
    views = {key: view for key, view in found.items() if view is not None}
    return UiState(theme=theme, marks=marks, tour=saved.get("tour") is True, views=views)


def _view(saved: object) -> SavedView | None:
    """A view as it was written; None if it makes no sense; the views of other targets stand."""
    if not isinstance(saved, dict):
        return None
    numbers = [saved.get(key, 0) for key in ("context", "position", "active")]
    names, widths, mode = saved.get("sae_ids", []), saved.get("enabled", []), saved.get("mode", "")
    if not (isinstance(names, list) and isinstance(widths, list) and isinstance(mode, str)):
        return None
    if not all(isinstance(number, int) and number >= 0 for number in (*numbers, *widths)):
        return None
    if not all(isinstance(name, str) for name in names):
        return None
    return SavedView(
        context=numbers[0],
        position=numbers[1],
        active=numbers[2],
        sae_ids=tuple(names),
        enabled=tuple(widths),
        mode=mode,
        texts=tuple(text for each in _list(saved.get("texts")) if (text := _text(each)) is not None),
    )


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _text(saved: object) -> OwnText | None:
    """A text as it was written; None if it makes no sense."""
    try:
        return msgspec.convert(saved, OwnText)
    except msgspec.ValidationError:
        return None


def save_state(state: UiState) -> None:
    """Write; a full disk or a read-only home is not worth an error."""
    with contextlib.suppress(OSError, ResourceError):
        _write(state_directory() / "view.json", json.dumps({"version": VERSION, **asdict(state)}))


def write_export(name: str, text: str) -> Path:
    """Save what a key copied under the state directory's exports.

    Raises:
        OSError, ResourceError: the folder cannot be made, or the disk does not take it.
    """
    path = state_directory() / "exports" / name
    _write(path, text)
    return path


def _write(path: Path, text: str) -> None:
    """Not flushed to the disk: the screen would wait for it, and a power cut costs little here."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with writing_whole(path, lasting=False) as file:
        file.write(text.encode())
