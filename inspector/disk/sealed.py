"""JSON that tells when it is not what was written: one line of pure ASCII with its own checksum.

Every byte counts. The line is read only if writing its content again gives the very same bytes, so a changed space is
found as surely as a changed number.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspector.disk.files import open_file, read_file


def jsonable(value: Any) -> Any:
    """The same data as JSON can hold it: tuples become lists, not-a-number and infinities become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return value


def to_json(value: Any) -> str:
    """One line of pure ASCII: whatever a token holds, nothing in it can act on a terminal."""
    return json.dumps(jsonable(value), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """sha256 of plain data, the same for the same content whatever the order of its keys.

    Raises:
        TypeError: for anything JSON has no word for.
        ValueError: for a NaN or an infinity.
    """
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


LARGEST = 256 * 2**20
"""Bytes; a file of more was not written by this program."""
_KEY = "sha256"


def seal(content: Mapping[str, Any]) -> bytes:
    """The line. Not-a-number and infinities become null, tuples lists.

    Args:
        content: JSON data without a key 'sha256'.
    """
    body = to_json(content)
    return (to_json({**json.loads(body), _KEY: _digest(body)}) + "\n").encode("ascii")


def unseal(raw: bytes) -> dict[str, Any]:
    """The content of a line that `seal` made.

    Raises:
        ValueError: it is not such a line, or a byte of it changed.
    """
    try:
        content = json.loads(raw)
        claimed = content.pop(_KEY)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__} while reading it") from error
    if claimed != _digest(to_json(content)) or seal(content) != raw:
        raise ValueError("its checksum does not fit")
    found: dict[str, Any] = content
    return found


def read_sealed(path: Path) -> dict[str, Any]:
    """The content of a file with one such line.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not what was written.
    """
    return unseal(read_file(path, LARGEST))


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode("ascii")).hexdigest()
