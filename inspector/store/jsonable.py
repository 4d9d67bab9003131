"""Data as JSON can hold it, and as one line of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


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
