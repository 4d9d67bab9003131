"""Downloading SAEs from the view: one thread, told as it goes, left within a moment when nobody wants it any more."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inspector.errors import InspectorError
from inspector.events import Downloading, Loading
from inspector.spec import SaeRef, TargetSpec


@dataclass(frozen=True, kw_only=True)
class Fetching:
    """How far a download is."""

    number: int
    """Of the SAE under way, from 1."""
    total: int
    """SAEs in all."""
    what: str
    done_bytes: int = 0
    total_bytes: int = 0
    bytes_per_second: float = 0.0


def fetch_all(
    refs: Sequence[SaeRef], target: TargetSpec, tell: Callable[[Fetching], None], cancelled: Callable[[], bool]
) -> str:
    """Fetch those that are not on disk, one after the other. For a thread.

    Args:
        refs: published SAEs; what lies in a directory is there already.
        target: whose cache folder and --offline hold.
        tell: called a few times a second.
        cancelled: asked as often; what has arrived is kept for the next time.

    Returns:
        '' if all are there; else why not, in two sentences.
    """
    from inspector.sources.published import fetch_files

    missing = [ref for ref in refs if not ref.on_disk and ref.repo is not None]
    for number, ref in enumerate(missing, 1):
        steps = fetch_files(ref, target)
        told = Fetching(number=number, total=len(missing), what=ref.sae_id)
        tell(told)
        try:
            for step in steps:
                if cancelled():
                    steps.close()
                    return "The download was stopped. What has arrived is kept; d goes on with it."
                if isinstance(step, Downloading):
                    tell(Fetching(number=number, total=len(missing), what=ref.sae_id, done_bytes=step.done_bytes,
                                  total_bytes=step.total_bytes, bytes_per_second=step.bytes_per_second))  # fmt: skip
                elif isinstance(step, Loading):
                    tell(Fetching(number=number, total=len(missing), what=step.what))
        except InspectorError as error:
            return str(error)
    return ""


def fetch_commands(refs: Sequence[SaeRef]) -> list[str]:
    """What fetches the missing ones from a shell, with the hub's own client."""
    from inspector.sources.published import files_of

    missing = [ref for ref in refs if not ref.on_disk and ref.repo is not None]
    return [shlex.join(["hf", "download", ref.repo or "", *files_of(ref)]) for ref in missing]
