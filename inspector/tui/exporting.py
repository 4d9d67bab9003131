"""Writing results into a folder: by the command that does the same from a shell, in a process of its own.

So the screen stays free of matplotlib, pyarrow and numpy, never waits, and what it writes is what a script gets.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inspector.disk.folders import child_environment

FORMATS: tuple[tuple[str, str], ...] = (
    ("csv", "a row per SAE, every number as it was measured"),
    ("parquet", "the same table, typed, with the whole result inside"),
    ("json", "the result as `run --json` printed it"),
    ("svg", "the figures, as vectors"),
    ("pdf", "the figures, for a paper"),
    ("png", "the figures, as pixels"),
    ("html", "one page of all that are chosen, with the claims"),
)
"""(format, what it is)."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """One command and the file that it writes."""

    arguments: tuple[str, ...]
    """After `dm-inspect`."""
    path: Path

    @property
    def command(self) -> str:
        """As a shell takes it."""
        return shlex.join(("dm-inspect", *self.arguments))


def exports(ids: Sequence[str], kind: str, folder: Path) -> list[Export]:
    """The commands that write these results: a file each, but one page of all.

    Args:
        ids: of stored results.
        kind: one of FORMATS.
        folder: where.
    """
    if kind == "html":
        name = f"{ids[0]}.html" if len(ids) == 1 else "report.html"
        return [Export(arguments=("results", "report", *ids, "--out", str(folder / name)), path=folder / name)]
    made = []
    for each in ids:
        path = folder / f"{each}.{kind}"
        made.append(Export(arguments=("results", "export", each, "--format", kind, "--out", str(path)), path=path))
    return made


async def run_export(export: Export) -> str:
    """Run one; '' when the file is there, else why not, in the command's own words."""
    # -P: a module of the user's in the current folder must not take the place of one of ours.
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "inspector", *export.arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            env=child_environment(),
        )  # fmt: skip
    except OSError as error:
        return f"No process could be started: {error.strerror}. Free some memory and try again."
    try:
        _, said = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode == 0:
        return ""
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"The command ended with {process.returncode}. Run it in a shell to see why."
