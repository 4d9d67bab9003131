"""Every answer of a judge, kept as soon as it comes: what was asked once is not asked again, whatever died since.

One SQLite file; an answer is committed whole or not at all, and carries a checksum. Kept under the judge's name, the
version of the prompts, and all that was asked. Readable by its owner alone, because it holds the text that was shown.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path

import inspector
from inspector.disk.reading import require_file
from inspector.errors import ResourceError
from inspector.interp.judge import Question

VARIABLE = "DM_INSPECT_ANSWERS_DIR"
"""Names another folder."""
NAME = "answers.sqlite"
VERSION = 1
_TABLE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT, sha256 TEXT, created REAL)"


def answers_folder() -> Path:
    """Where answers are kept: in a checkout its cache/judge, else the user's cache folder; not made here."""
    asked = os.environ.get(VARIABLE)
    if asked:
        return Path(asked).absolute()
    checkout = Path(inspector.__file__).parents[1]
    if (checkout / "cache" / "README.md").is_file() and (checkout / "pyproject.toml").is_file():
        return checkout / "cache" / "judge"
    import platformdirs

    return platformdirs.user_cache_path("dm-inspect") / "judge"


def key_of(judge: str, version: str, question: Question) -> str:
    """sha256 of who is asked, with which prompts, and what."""
    asked = [judge, version, question.max_tokens, [[each.role, each.text] for each in question.messages]]
    return hashlib.sha256(json.dumps(asked, ensure_ascii=True).encode()).hexdigest()


class AnswerStore:
    """The answers in a folder. Usable as a context; several processes may have it open.

    A damaged file is put aside under another name, and one that cannot be opened at all ends the run before the judge
    is paid for answers that would be lost.

    Args:
        folder: where; None: `answers_folder()`.

    Raises:
        ResourceError: the folder cannot be written to.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.path = (folder or answers_folder()) / NAME
        self.was_damaged = False
        """A file was put aside."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            require_file(self.path)
            self.path.touch(mode=0o600)
        except OSError as error:
            raise ResourceError(
                f"Answers cannot be kept in {self.path.parent}: {error.strerror}. Make room, or set {VARIABLE}."
            ) from error
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # locked, or a disk that fails: no damage to put aside
                raise self._failed(error) from error
            self.was_damaged = True
            self.path.replace(self.path.with_name(f"{NAME}.damaged-{time.time_ns()}"))
            self.path.touch(mode=0o600)
            self._connection = self._open()

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def find(self, key: str) -> str | None:
        """The answer, or None; one that does not fit its checksum counts as none."""
        try:
            row = self._connection.execute("SELECT answer, sha256 FROM answers WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._failed(error) from error
        if row is None or not isinstance(row[0], str) or checksum(key, row[0]) != row[1]:
            return None
        return row[0]

    def keep(self, answers: Mapping[str, str]) -> None:
        """Keep answers by key, on the disk before this returns.

        Raises:
            ResourceError: the disk is full or cannot be written to.
        """
        rows = []
        for key, answer in answers.items():
            whole = answer.encode("utf-8", "replace").decode()  # half characters cannot be stored
            rows.append((key, whole, checksum(key, whole), time.time()))
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30)
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] not in (0, VERSION):
                raise sqlite3.DatabaseError("another version")
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("SELECT key, answer, sha256, created FROM answers LIMIT 1").fetchone()
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection

    def _failed(self, error: sqlite3.Error) -> ResourceError:
        return ResourceError(f"The answers in {self.path} cannot be used: {error}. Make room there, or set {VARIABLE}.")


def checksum(key: str, answer: str) -> str:
    """sha256 of an answer and what it answers."""
    return hashlib.sha256(f"{key}\0{answer}".encode()).hexdigest()
