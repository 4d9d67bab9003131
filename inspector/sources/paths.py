"""Small helpers for names that users type: they may be too long, hold control characters, or be nearly right."""

from __future__ import annotations

from pathlib import Path

from inspector.errors import nearest

_SHOWN = 160


def shown(name: object) -> str:
    """A typed name as it may stand in a message: quoted, control characters spelled out, not endless."""
    text = str(name)
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def is_directory(path: Path) -> bool:
    """`Path.is_dir`, but False for names that no file system accepts."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def nearest_siblings(path: Path) -> str:
    """The sentence that names the directories beside a missing one, so that a typing error shows at once."""
    parent = path.parent
    if not is_directory(parent):
        return f" {shown(parent)} does not exist either."
    try:
        return nearest(path.name, sorted(child.name for child in parent.iterdir() if child.is_dir()))
    except OSError:
        return ""
