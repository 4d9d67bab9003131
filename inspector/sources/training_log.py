"""What a training measured on its way, one JSON object per line beside what it writes.

A run that was killed has lines its checkpoint knows nothing of; it measures those places again, so they are dropped
first, and the log reads as if nothing had happened but the clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspector.disk.files import parse_json, read_text
from inspector.errors import ResourceError

FILE = "training.jsonl"


class TrainingLog:
    """The lines of one run; those of others in the same folder stay.

    Args:
        out: the folder of the training.
        run: short name of the run.
        tokens_done: where the run begins or goes on.
    """

    def __init__(self, out: Path, run: str, tokens_done: int) -> None:
        self._path, self._run = out / FILE, run
        lines = [] if not self._path.exists() else read_text(self._path, errors="replace").splitlines()
        kept = [line for line in lines if self._stays(line, tokens_done)]
        if kept != lines:
            partial = self._path.with_name(FILE + ".partial")
            partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            partial.replace(self._path)

    def write(self, tokens: int, about: Mapping[str, Any]) -> None:
        """Add a line.

        Raises:
            ResourceError: it cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"run": self._run, "tokens": tokens, **about}) + "\n")
        except OSError as error:
            raise ResourceError(f"{self._path} could not be written: {error.strerror}. Make room there.") from error

    def _stays(self, line: str, tokens_done: int) -> bool:
        try:
            about = parse_json(line)
            return bool(about["run"] != self._run or about["tokens"] <= tokens_done)
        except (ValueError, KeyError, TypeError):
            return False  # torn by the kill
