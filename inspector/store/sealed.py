"""JSON that tells when it is not what was written: one line of pure ASCII with its own checksum.

Every byte counts. The line is read only if writing its content again gives the very same bytes, so a changed space is
found as surely as a changed number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspector.disk.reading import read_file
from inspector.store.jsonable import to_json

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
