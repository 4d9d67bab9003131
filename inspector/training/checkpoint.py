"""What a training leaves on its way: a checkpoint, and a log of what it measured.

    OUT/.training/state-123456.safetensors     weights, optimiser, random numbers
    OUT/.training/checkpoint.json              which run it is, how far, and the SHA-256 of both files
    OUT/training.jsonl                         one JSON object per line

The tensors are written and flushed under a name of their own first; then the JSON takes the place of the old one in a
single rename. Killed in between, the old pair is still whole. Nothing is pickled, and nothing that does not match its
checksum is gone on with.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from inspector.disk.files import HALF, SMALL, is_own_folder, parse_json, read_file, read_text, remove_files, write_whole
from inspector.disk.tensors import read_tensors, write_tensors
from inspector.errors import DataError, ResourceError, UsageError

FOLDER = ".training"
FACTS_FILE = "checkpoint.json"
FORMAT = 1
LOG_FILE = "training.jsonl"
_OWN = re.compile(rf"({re.escape(FACTS_FILE)}|state-\d+\.safetensors)(\.partial)?|\.[\w.-]+{HALF}|\.tmp\w+")
"""Also what a version before this one, `disk.files` and safetensors call what they have not finished."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a run needs to go on."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    """As given to `save`: numbers, strings, lists and dictionaries of them."""


def exists(out: Path) -> bool:
    """Whether a training below `out` was interrupted."""
    return (out / FOLDER / FACTS_FILE).exists()


def is_of(out: Path, fingerprint: str) -> bool:
    """Whether there is one, of this run, as far as can be seen at once; `load` looks closely."""
    try:
        return bool(parse_json(read_file(out / FOLDER / FACTS_FILE, SMALL))["fingerprint"] == fingerprint)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def save(out: Path, fingerprint: str, number: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Replace the checkpoint below `out`.

    Args:
        out: the folder of the training.
        fingerprint: of the run; another run is not gone on with.
        number: grows from checkpoint to checkpoint: the tokens done.
        tensors: by name.
        facts: go into the JSON.

    Raises:
        ResourceError: it cannot be written; the checkpoint before it, if any, is untouched.
    """
    folder, name = out / FOLDER, f"state-{number}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not is_own_folder(folder):  # what a link points to is not this program's
            raise OSError(errno.ELOOP, "it is a symbolic link", str(folder))
        sha256 = write_tensors(folder / name, tensors)
        about: dict[str, Any] = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "tensors": {"file": name, "bytes": (folder / name).stat().st_size, "sha256": sha256},
            "facts": dict(facts),
        }
        about["sha256"] = _digest(about)
        write_whole(folder / FACTS_FILE, json.dumps(about, indent=1) + "\n")
        remove_files(folder, lambda old: _OWN.fullmatch(old) is not None and old not in (name, FACTS_FILE))
    except (OSError, ResourceError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        raise ResourceError(
            f"The checkpoint in {folder} could not be written: {getattr(cause, 'strerror', None) or cause}. "
            "Make room there; the same command goes on from the checkpoint before it."
        ) from error


def load(out: Path, fingerprint: str) -> Checkpoint | None:
    """The checkpoint below `out`; None if there is none.

    Raises:
        UsageError: it belongs to a different run.
        DataError: it is damaged.
    """
    folder = out / FOLDER
    if not exists(out):
        return None
    try:
        about = parse_json(read_file(folder / FACTS_FILE, SMALL))
        if about.pop("sha256") != _digest(about) or about["format"] != FORMAT:
            raise ValueError(f"{FACTS_FILE} does not match its checksum")
        if about["fingerprint"] != fingerprint:
            raise UsageError(
                f"{out} holds the checkpoint of a different training run. "
                f"Choose another folder, or delete {folder} to start over."
            )
        named = about["tensors"]
        path = folder / Path(named["file"]).name
        try:
            tensors = read_tensors(path, named["sha256"])
        except ValueError:
            raise ValueError(f"{path.name} does not match its checksum") from None
        return Checkpoint(tensors=tensors, facts=about["facts"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"The checkpoint in {folder} is damaged: {why}. Delete that folder to start over.") from error


def forget(out: Path) -> None:
    """Remove the checkpoint of a finished run, the JSON first, so that no half of one is left; also what a process that
    was killed meanwhile has left of one. Behind a link nothing is removed.
    """
    folder = out / FOLDER
    if not is_own_folder(folder):
        return
    with contextlib.suppress(FileNotFoundError):
        remove_files(folder, lambda name: name == FACTS_FILE)
        remove_files(folder, lambda name: _OWN.fullmatch(name) is not None)


def _digest(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


class TrainingLog:
    """The log's lines of one run; those of others in the same folder stay.

    A run that was killed has lines its checkpoint knows nothing of; it measures those places again, so they are dropped
    first, and the log reads as if nothing had happened but the clock.

    Args:
        out: the folder of the training.
        run: short name of the run.
        tokens_done: where the run begins or goes on.
    """

    def __init__(self, out: Path, run: str, tokens_done: int) -> None:
        self._path, self._run = out / LOG_FILE, run
        lines = [] if not self._path.exists() else read_text(self._path, errors="replace").splitlines()
        kept = [line for line in lines if self._stays(line, tokens_done)]
        if kept != lines:
            write_whole(self._path, "".join(f"{line}\n" for line in kept))

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
