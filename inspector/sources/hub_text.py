"""Text of a Hugging Face data set, hf:NAME[:SPLIT[:FIELD]], taken as in the paper: streamed, shuffled, first tokens.

The order of a streamed shuffle depends on the version of the library. So the token ids are kept, with their hash: a
second run needs neither the network nor the library, and measures the same tokens.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from inspector.disk.files import parse_json, require_file, write_if_possible
from inspector.disk.folders import user_folder
from inspector.errors import DataError
from inspector.sources.readers import HubText
from inspector.sources.records import SAMPLE_CHARACTERS, Reading, Record, choose_field, fields_of

PAPER_SEED, PAPER_BUFFER = 42, 10_000
"""Of the paper's shuffle (spec 1.2)."""
KEPT_VERSION = 1
USUAL_FIELD = "text"
"""Of nearly all data sets, and until it could be chosen of all: what was kept then opens still."""
FOUND_FIELD = ""
"""Stands for the field in `Wanted` where the data set decided it: without the hub it is not known which one."""
_DECIDE = 100
"""Rows that decide which field is read."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What decides which tokens are taken."""

    name: str
    split: str
    field: str
    """The field that is read, or FOUND_FIELD."""
    seed: int
    n_contexts: int
    length: int
    """Tokens per context, BOS included."""
    tokenizer: str
    """Hash of the tokenizer."""

    @property
    def key(self) -> str:
        """Name of the file they are kept in."""
        return hashlib.sha256(json.dumps([KEPT_VERSION, asdict(self)], sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class KeptTokens:
    """Tokens taken before."""

    token_ids: Tensor
    """[c, t] int64."""
    names: tuple[str, ...]
    field: str
    """That was read."""
    notes: tuple[str, ...] = ()
    """What there was to say about the text."""


def tokenizer_hash(encode: Callable[[str], Sequence[int]], size: int) -> str:
    """Of what a tokenizer does: its size, and the ids of a text that uses much of it."""
    probe = (
        "".join(map(chr, range(32, 700)))
        + " the quick brown fox 12345 \n\t def f(x):\n    return x ** 2  # Zürich 東京"
    )
    return hashlib.sha256(json.dumps([size, list(encode(probe))]).encode()).hexdigest()


def kept(wanted: Wanted) -> KeptTokens | None:
    """The tokens, if they were taken before and are undamaged."""
    found = _read(_path(wanted))
    if found is None or found.token_ids.shape[1] != wanted.length:
        return None
    with contextlib.suppress(OSError):
        os.utime(_path(wanted))  # was of use today: `cache prune` removes the oldest
    return found


def _read(path: Path) -> KeptTokens | None:
    """The tokens of a file, if they are those that its metadata have the hash of."""
    try:
        require_file(path)
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            token_ids = file.get_tensor("token_ids")
        names = parse_json(about["names"])
        whole = token_ids.ndim == 2 and len(token_ids) == len(names) and about["sha256"] == _digest(token_ids, names)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    if not whole:
        return None
    field, notes = about.get("read_field") or about.get("field") or USUAL_FIELD, _notes(about)
    return KeptTokens(token_ids=token_ids.to(torch.int64), names=tuple(names), field=field, notes=notes)


def _notes(about: Mapping[str, str]) -> tuple[str, ...]:
    """None in files of older versions."""
    try:
        found = parse_json(about.get("notes", "[]"))
    except ValueError:
        return ()
    return tuple(map(str, found)) if isinstance(found, list) else ()


def checksum_file(path: Path) -> Path:
    """Where the checksum of all bytes of a file of tokens is."""
    return path.with_suffix(".sha256")


def damage_of(path: Path) -> str | None:
    """What is wrong with a file of tokens, as a part of a sentence; None if it is whole.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        if checksum_file(path).read_bytes() != f"{digest}\n".encode():
            return "its checksum does not fit"
    except FileNotFoundError:  # kept by an older version, or killed between the two files
        pass
    return None if _read(path) is not None else "its tokens are not those that were kept"


def keep(wanted: Wanted, taken: KeptTokens) -> None:
    """Keep them, if the disk lets us."""
    token_ids, names = taken.token_ids, taken.names
    about = {
        "names": json.dumps(list(names)),
        "sha256": _digest(token_ids, names),
        "read_field": taken.field,
        "notes": json.dumps(list(taken.notes)),
        **{name: str(value) for name, value in asdict(wanted).items()},
    }
    path = _path(wanted)
    with contextlib.suppress(OSError, SafetensorError):
        raw = save({"token_ids": token_ids}, metadata=about)
        checksum_file(path).unlink(missing_ok=True)  # a file without one is checked by what it says of itself
        if write_if_possible(path, raw):
            write_if_possible(checksum_file(path), f"{hashlib.sha256(raw).hexdigest()}\n")


def records(text: HubText, seed: int, reading: Reading, *, offline: bool) -> Iterator[Record]:
    """The texts of a data set in shuffled order, streamed; `reading` tells the field and what was left out.

    Raises:
        DataError: offline, no such data set, split or field, or the hub cannot be reached.
    """
    if offline:
        raise DataError(
            f"The tokens of {text} were not kept from an earlier run, and --offline forbids to fetch them. "
            "Run once without --offline, or give --text FILE."
        )
    try:
        rows = iter(streamed(text).shuffle(seed=PAPER_SEED + seed, buffer_size=PAPER_BUFFER))
        sample: list[Any] = []
        n_characters = 0
        for row in islice(rows, _DECIDE):
            sample.append(row)
            n_characters += sum(len(value) for value in row.values() if isinstance(value, str))
            if n_characters >= SAMPLE_CHARACTERS:
                break
        reading.field = choose_field(fields_of(sample), text.field, str(text))
        for number, row in enumerate(chain(sample, rows), start=1):
            found = reading.text_of(row.get(reading.field))
            if found is not None:
                yield number, found
    except DataError:
        raise
    except Exception as error:  # the library raises its own and those of four others; none may show a token
        raise DataError(_sentence(text, error)) from None


def streamed(text: HubText) -> Any:
    """The library's iterable over a split. It runs no code of the data set's."""
    from datasets import load_dataset

    _read_zstd()
    return load_dataset(text.name, split=text.split, streaming=True)


def _read_zstd() -> None:
    """Teach fsspec, through which the library reads, what the Pile's files are compressed with.

    By itself it can only if the package zstandard is installed, and then reads a file of several frames up to the end
    of the first one. pyarrow, which is here anyway, reads all of it.
    """
    from fsspec.compression import compr, register_compression  # type: ignore[import-untyped]

    if compr.get("zstd") is not _zstd_reader:
        register_compression("zstd", _zstd_reader, "zst", force=True)


def _zstd_reader(file: Any, mode: str = "rb", **_: Any) -> io.BufferedReader:
    import pyarrow

    if "r" not in mode:
        raise ValueError("only read here")
    stream: Any = pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd")
    return io.BufferedReader(stream, buffer_size=1 << 20)


def _sentence(text: HubText, error: Exception) -> str:
    kind = type(error).__name__
    if kind in ("DatasetNotFoundError", "RepositoryNotFoundError"):
        return f"The hub has no data set {text.name}, or does not show it to you. Check the name, or `hf auth login`."
    if kind == "GatedRepoError":
        return (
            f"{text.name} is gated: accept its terms at https://huggingface.co/datasets/{text.name}. "
            "Then log in with `hf auth login`."
        )
    if kind == "ValueError" and "split" in str(error):
        return f"{text.name} has no split {text.split!r}. Write hf:NAME:SPLIT, for example hf:{text.name}:train."
    return (
        f"{text} cannot be read from the hub ({kind}). Check the network or HF_ENDPOINT, or give --text FILE; "
        "kept tokens need no network."
    )


def _path(wanted: Wanted) -> Path:
    slug = re.sub(r"[^\w.-]", "-", wanted.name)[:60]
    return user_folder("cache") / "tokens" / f"{slug}-{wanted.key}.safetensors"


def _digest(token_ids: Tensor, names: Sequence[str]) -> str:
    digest = hashlib.sha256(token_ids.to(torch.int64).numpy().astype("<i8", copy=False).tobytes())
    digest.update(json.dumps(list(names)).encode())
    return digest.hexdigest()
