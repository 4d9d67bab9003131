"""Bookmarks and notes of the user's: on a token, a latent or a result, each one row of one table.

A row carries its own checksum, and what it is about as that was when the note was taken: a note can be read where model
and results are gone. Taking a note again on the same thing changes it.
"""

from __future__ import annotations

import datetime
import hashlib
import shlex
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import msgspec

from inspector.disk.folders import NOTES, RESULTS
from inspector.disk.sealed import digest, jsonable
from inspector.disk.table import Row, Table
from inspector.errors import UsageError
from inspector.store.results import Record

Kind = Literal["token", "latent", "result"]
KINDS: tuple[Kind, ...] = get_args(Kind)
IDENTITY: dict[Kind, tuple[str, ...]] = {
    "token": ("model", "text", "source", "context", "position"),
    "latent": ("model", "sae", "index"),
    "result": ("result",),
}
"""By kind the facts that say which one is meant; the others say what it was like."""
FILE = "notes.sqlite"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a note is about."""

    kind: Kind
    title: str
    """One line; may hold any character."""
    about: dict[str, Any]
    """Plain JSON data: those of IDENTITY, and what else is worth keeping."""
    command: str
    """That shows it again."""

    @property
    def key(self) -> str:
        """The same for the same thing."""
        return digest({"kind": self.kind, **{name: self.about.get(name) for name in IDENTITY[self.kind]}})


@dataclass(frozen=True, kw_only=True)
class Note:
    """One of them."""

    number: int
    """By which commands know it; of no other note that is there."""
    created: str
    """UTC, ISO 8601, whole seconds; of the last change."""
    subject: Subject
    words: str = ""
    """What the user wrote; '': a bookmark."""


def of_token(
    model: str,
    text: str,
    source: str,
    context: int,
    position: int,
    words: Sequence[str],
    *,
    token: str = "",
    **more: Any,
) -> Subject:
    """A token of a text.

    Args:
        model: its name.
        text: TARGET's; '': the model's own.
        source: 'context', 'prompt' or 'generated'.
        context: counted from 0; 0 of what is no context.
        position: in it, from 0.
        words: options of the command line that load the target.
        token: its text; '': not known.
        more: what else is worth keeping.
    """
    where = f"context {context + 1}, position {position}" if source == "context" else f"{source}, position {position}"
    about = {"model": model, "text": text, "source": source, "context": context, "position": position}
    title = f"'{token}' in {where}" if token else where
    command = _command(words)
    if source == "context":
        command = _command(
            words, "anatomy", "--context", str(context + 1), "--position", str(position), sae=more.get("sae")
        )
    return Subject(kind="token", title=title, about=about | {"token": token} | more, command=command)


def of_latent(model: str, sae: str, index: int, words: Sequence[str], **more: Any) -> Subject:
    """A latent of an SAE."""
    about = {"model": model, "sae": sae, "index": index}
    command = _command(words, "latent", "--latent", str(index), sae=sae)
    return Subject(kind="latent", title=f"latent {index} of {sae}", about=about | more, command=command)


def of_result(record: Record) -> Subject:
    """A stored result."""
    about = {"result": record.id, "experiment": record.experiment, "model": record.model, "profile": record.profile,
             "hook_name": record.hook_name, "measured": record.created}  # fmt: skip
    return Subject(kind="result", title=record.id, about=about, command=record.command)


def _command(words: Sequence[str], *command: str, sae: str | None = None) -> str:
    """A command on the target; without one the app. The target's own --sae stays where it is one."""
    named = ["--sae", sae] if sae and "--sae" not in words else []
    return shlex.join(["dm-inspect", *command, *named, *words])


class Notes:
    """All notes of the user; nothing is read before it is asked for."""

    def __init__(self) -> None:
        columns = {"key": "TEXT", "number": "INTEGER", "body": "BLOB", "sha256": "TEXT"}
        self.table = Table(
            NOTES.path() / FILE, "notes", columns, version=1, variable=RESULTS.variable, is_whole=_is_whole
        )

    def all(self) -> list[Note]:
        """Every note, oldest first; rows that are not what was written are left out.

        Raises:
            ResourceError, InspectorError: the table cannot be read.
        """
        found = [note for note in map(_decoded, self.table.rows()) if note is not None]
        return sorted(found, key=lambda note: note.number)

    def find(self, subject: Subject) -> Note | None:
        """The note on this thing; None: there is none."""
        return next((note for note in self.all() if note.subject.key == subject.key), None)

    def put(self, subject: Subject, words: str) -> Note:
        """Take a note, or change the one that is there.

        Raises:
            ResourceError: the disk is full or cannot be written to.
        """
        subject = Subject(**_storable(jsonable(vars(subject))))
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

        def write(table: sqlite3.Connection) -> Note:
            known = self.table.row(table, subject.key)
            (largest,) = table.execute("SELECT coalesce(max(number), 0) FROM notes").fetchone()
            number = int(known[1] if known is not None else largest + 1)
            note = Note(number=number, created=created, subject=subject, words=_storable(words))
            body = msgspec.json.encode(note)
            self.table.put(table, [(subject.key, number, body, hashlib.sha256(body).hexdigest())])
            return note

        return self.table.transact(write)

    def remove(self, numbers: Sequence[int]) -> list[Note]:
        """Remove these, and give them back.

        Raises:
            UsageError: there is no such note; then none is removed.
            ResourceError: the disk cannot be written to.
        """
        known = {note.number: note for note in self.all()}
        for number in numbers:
            if number not in known:
                raise UsageError(f"There is no note {number}. `dm-inspect notes list` shows those that there are.")
        gone = [known[number] for number in dict.fromkeys(numbers)]
        keys = [(note.subject.key,) for note in gone]
        self.table.transact(lambda table: table.executemany("DELETE FROM notes WHERE key = ?", keys))
        return gone


def _storable(value: Any) -> Any:
    """Halves of surrogate pairs, of names that are not UTF-8, cannot be stored as text."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _storable(each) for key, each in value.items()}
    return [_storable(each) for each in value] if isinstance(value, list) else value


def _decoded(row: Row) -> Note | None:
    """The note of a row; None if it is not what was written."""
    key, number, body, checksum = row
    if not isinstance(body, bytes) or hashlib.sha256(body).hexdigest() != checksum:
        return None
    try:
        note = msgspec.json.decode(body, type=Note)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return note if (note.subject.key, note.number) == (key, number) else None


def _is_whole(row: Row) -> bool:
    return _decoded(row) is not None
