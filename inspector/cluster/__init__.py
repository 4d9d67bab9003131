"""The same run on several devices: workers that run one program on one target and share its passes, by Ray."""

from __future__ import annotations

import re

from inspector.errors import UsageError

SHARDS = 16
"""Where --shards says nothing: more than most have devices, so that a fast one does more of them."""
LOCAL = re.compile(r"local(?::([1-9]\d{0,2}))?")
ADDRESS = re.compile(r"(?:ray://)?(?:\[([^]]+)\]|([^:/]+)):(\d{1,5})")


def check_address(where: str) -> None:
    """Refuse what names no cluster, before anything is loaded.

    Raises:
        UsageError: it is none of local, local:N, auto and an address.
    """
    if where != "auto" and not LOCAL.fullmatch(where) and not ADDRESS.fullmatch(where):
        raise UsageError(f"--ray {where} is no cluster. Write local, local:N, auto, or an address such as HOST:6379.")
