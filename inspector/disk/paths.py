"""Small helpers for names that users type: they may be too long, hold control characters, or be nearly right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inspector.disk.reading import NoFile, read_file
from inspector.errors import nearest

_SHOWN = 160
MOST = 1 << 31
"""No dimension of a model or an SAE is larger."""
MAX_JSON = 1 << 24
"""Bytes of a configuration or an index; the largest that exist are a few hundred thousand."""


def read_json(path: Path, most: int = MAX_JSON) -> Any:
    """What a small JSON file holds. `Any`: JSON of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, too large, too deeply nested, or no JSON.
    """
    try:
        raw = read_file(path, most)
    except NoFile:
        raise ValueError(f"{path.name} is not a regular file") from None
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}, which no configuration has") from None
    try:
        return json.loads(raw.decode("utf-8"))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None


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
