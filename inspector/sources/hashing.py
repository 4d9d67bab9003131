"""Hashes of a target's weights, made beside everything else: 30 GB take a minute, and somebody may ask meanwhile."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from inspector.events import Event, Loading

if TYPE_CHECKING:
    from inspector.sources.target import Loaded

STEP_SECONDS = 0.1
QUIET_SECONDS = 0.5
"""Before the first word: small weights are hashed in a blink, and that is nobody's news."""


def hashed(loaded: Loaded) -> Generator[Event, None, None]:
    """Hash the model and every SAE that was not hashed yet, in a thread, with an event per step.

    Raises:
        TargetError: files changed since they were loaded.
    """
    parts = [loaded.model, *loaded.saes]
    with ThreadPoolExecutor(1, thread_name_prefix="hash") as pool:
        for number, part in enumerate(parts):
            future = pool.submit(getattr, part, "weights_hash")
            patience = QUIET_SECONDS
            while not future.done():
                wait([future], timeout=patience)
                patience = STEP_SECONDS
                if not future.done():
                    yield Loading(what="checksums of the weights", done=number, total=len(parts))
            future.result()
