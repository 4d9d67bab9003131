"""Kinds of the cache that only layers above the store know: judge answers, and the list of experiments."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from inspector.cli import experiment_list
from inspector.interp import answer_store
from inspector.store.cache import Kind
from inspector.store.cache_kinds import table_rows

_ROWS = "SELECT key, answer, sha256, created FROM answers"


class Answers(Kind):
    """Answers of judges, in one table; they cost money or hours, so only an age removes them, one by one."""

    name = "judge"
    what = "answers of judges"
    leftover = rf"{re.escape(answer_store.NAME)}\.damaged-\d+"
    rebuild = "Damaged answers are asked for again when they are wanted."
    prunable = "by age"

    @classmethod
    def here(cls) -> Answers:
        """Of this user and environment."""
        return cls(answer_store.answers_folder())

    def paths(self) -> Iterator[Path]:
        """See `Kind`."""
        path = self.folder / answer_store.NAME
        if path.is_file():
            yield path

    def damage(self, path: Path) -> list[str]:
        """The table must be sound and every answer fit its checksum."""
        problems, rows = table_rows(path, _ROWS)
        bad = sum(answer_store.checksum(str(key), str(answer)) != sha256 for key, answer, sha256, _ in rows)
        return [*problems, *([f"{bad} of {len(rows)} answers do not fit their checksums"] if bad else [])]

    def remove(self, path: Path) -> bool:
        """Never as a whole: a process may be about to write into it."""
        return False

    def remove_older(self, path: Path, than: float) -> int:
        """Answers from before this time; other processes may go on reading and writing."""
        before = path.stat().st_size
        try:
            with contextlib.closing(sqlite3.connect(path, timeout=10)) as table:
                with table:
                    gone = table.execute("DELETE FROM answers WHERE created < ?", (than,)).rowcount
                if gone:
                    table.execute("VACUUM")
        except sqlite3.Error:  # in use, or damaged: `verify` tells
            return 0
        return max(1, before - path.stat().st_size) if gone else 0


class ExperimentList(Kind):
    """What `dm-inspect experiments` says."""

    name = "experiments"
    what = "the list that `dm-inspect experiments` prints"
    rebuild = "The next `dm-inspect experiments` makes it again."
    leftover = r"experiments\.json\.\d+\.tmp"

    @classmethod
    def here(cls) -> ExperimentList:
        """Of this user."""
        return cls(Path(os.path.dirname(experiment_list.kept_in())))

    def paths(self) -> Iterator[Path]:
        """See `Kind`."""
        path = Path(experiment_list.kept_in())
        if path.is_file():
            yield path

    def damage(self, path: Path) -> list[str]:
        """Its first line is the checksum of the rest."""
        return [] if experiment_list.is_whole(str(path)) else ["its checksum does not fit"]
