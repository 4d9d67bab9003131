"""Whether the files that something was loaded from are still those files.

A result names the weights it was measured with by their hash, and large weights are read from their files while they
are used. If somebody trains, copies or downloads over them meanwhile, the numbers belong to neither version.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from inspector.errors import TargetError

if TYPE_CHECKING:
    from inspector.sources.target import Loaded

FilesState = tuple[tuple[str, tuple[int, int, int, int] | None], ...]
"""Path, and device, inode, size and time of change of what is there; None if nothing is."""


def state_of(paths: Iterable[Path]) -> FilesState:
    """What the files are now."""
    return tuple((str(path), _state(path)) for path in paths)


def require_same(before: FilesState) -> None:
    """Raise if a file is not the one it was.

    Raises:
        TargetError: with its name.
    """
    for name, state in before:
        if _state(Path(name)) != state:
            raise TargetError(
                f"{name} changed while it was in use, so numbers from it belong to neither version. "
                "Nothing was kept; start again."
            )


def require_unchanged(loaded: Loaded) -> None:
    """Raise if a file of the target's model or of one of its SAEs is not the one that was loaded.

    Raises:
        TargetError: with its name.
    """
    for each in (loaded.model, *loaded.saes):
        require_same(getattr(each, "files", ()))  # what is made in memory has none


def _state(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
