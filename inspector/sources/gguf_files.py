"""GGUF files: what they say of themselves, which of them are no language model, and where what is made of them lies.

The header is read here and not by a library, which believes every length in it. Nothing here imports torch or gguf;
`dequantising` makes the numbers.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import struct
from collections import Counter
from dataclasses import dataclass, field
from importlib import util
from io import BufferedReader
from pathlib import Path
from typing import Any

from inspector.disk.files import open_file, shown
from inspector.disk.folders import DEQUANTISED
from inspector.disk.sealed import file_digest, read_sealed, seal
from inspector.errors import TargetError

SUFFIX = ".gguf"
ABOUT = "gguf.json"
"""Says what a folder was made from."""
INSTALL = "pip install gguf"

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_KEYS, _MOST_TENSORS, _MOST_ITEMS = 1 << 16, 1 << 20, 1 << 22
_LONGEST_NAME, _LONGEST_TEXT = 1 << 16, 1 << 24
_LONGEST_HEADER = 1 << 28
_MOST_DIMS = 4
_LARGEST = 1 << 40
"""No tensor has more numbers."""
_ALIGNMENT = 32
CONTROL = 3
"""The type of a token that is no text, in `tokenizer.ggml.token_type`."""

TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip
"""Name, numbers per block and bytes per block, by the number that stands in the file."""
_WHOLE_TYPES = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a GGUF says before its weights."""

    path: Path
    values: dict[str, Any]
    """Numbers and strings by key; of an array of strings its length, of another its numbers. `Any`: of a file."""
    weights: Counter[str]
    """Numbers by the type that they are stored in."""

    @property
    def architecture(self) -> str:
        """llama, gemma3, clip, ...; empty if it does not say."""
        return str(self.values.get("general.architecture", ""))

    @property
    def label(self) -> str:
        """How its weights are stored: the quantised type that most of them have, or the only type that is there."""
        quantised = Counter({name: n for name, n in self.weights.items() if name not in _WHOLE_TYPES})
        return str((quantised or self.weights).most_common(1)[0][0])

    @property
    def n_weights(self) -> int:
        """All numbers together."""
        return self.weights.total()

    def notes(self) -> tuple[str, ...]:
        """What it says of its special tokens that its own list of tokens does not bear out."""
        types = self.values.get("tokenizer.ggml.token_type")
        told = []
        for word in ("bos", "eos"):
            token = self.values.get(f"tokenizer.ggml.{word}_token_id")
            if isinstance(types, tuple) and isinstance(token, int) and types[token] != CONTROL:
                told.append(
                    f"{self.path.name} names token {token} as {word.upper()}, which its list of tokens has as text."
                )
        return tuple(told)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The GGUF that a folder was made from."""

    path: Path
    label: str
    """Q4_1 and the like."""
    notes: tuple[str, ...] = field(default=())


def gguf_of(name: str) -> Path | None:
    """The GGUF that a typed name means: the file itself, or the only one of a folder that has no safetensors.

    Raises:
        TargetError: the folder has several.
    """
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            if any(path.glob("*.safetensors")):
                return None
            files = sorted(child for child in path.iterdir() if child.name.lower().endswith(SUFFIX))
            if len(files) > 1:
                listed = ", ".join(shown(child.name) for child in files[:4]) + (", ..." if len(files) > 4 else "")
                raise TargetError(f"{shown(name)} holds {len(files)} GGUF files ({listed}). Name one of them.")
            return files[0] if files else None
        return path if name.lower().endswith(SUFFIX) and os.path.exists(path) else None
    except (OSError, ValueError):
        return None


# ---- the header ------------------------------------------------------------------------------------------------------


class _Cut(Exception):
    """The file ends, or a length in it is impossible."""


class _Reader:
    """Reads a header from front to back, never beyond the file and never more than it says."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        self.at = 0

    def take(self, n_bytes: int) -> bytes:
        raw = self._file.read(n_bytes) if n_bytes <= self.size - self.at else b""
        if len(raw) != n_bytes:
            raise _Cut(f"it ends after {self.size:,} bytes, in the middle of its header")
        self.at += n_bytes
        if self.at > _LONGEST_HEADER:
            raise _Cut(f"its header has more than {_LONGEST_HEADER:,} bytes")
        return raw

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def count(self, most: int, what: str) -> int:
        found = int(self.number("Q"))
        if found > most:
            raise _Cut(f"it claims {found:,} {what}")
        return found

    def text(self, most: int = _LONGEST_TEXT) -> str:
        return self.take(self.count(most, "characters in one name or text")).decode("utf-8", "replace")

    def value(self) -> Any:
        kind = int(self.number("I"))
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.number(self._code(kind))
        kind = int(self.number("I"))
        length = self.count(_MOST_ITEMS, "items in one list")
        if kind == _STRING:
            for _ in range(length):
                self.take(self.count(_LONGEST_TEXT, "characters in one token"))
            return length
        code = self._code(kind)
        return struct.unpack(f"<{length}{code}", self.take(length * struct.calcsize(f"<{code}")))

    @staticmethod
    def _code(kind: int) -> str:
        if kind not in _SCALARS:
            raise _Cut(f"a value in it is of kind {kind}, which is not known")
        return _SCALARS[kind]


def read_header(path: Path) -> Header:
    """What a GGUF says of itself, checked against the file's length.

    Raises:
        TargetError: it cannot be read, is none, is cut off, or says what cannot be.
    """
    try:
        with open_file(path) as file:
            return _read(path, _Reader(file))
    except OSError as error:
        raise TargetError(
            f"{path} cannot be read ({error.strerror or error}). Check the name and its permissions."
        ) from error
    except _Cut as error:
        raise TargetError(f"{path} is not a whole GGUF file: {error}. Download it again.") from error


def _read(path: Path, reader: _Reader) -> Header:
    if reader.size < len(_MAGIC) or reader.take(len(_MAGIC)) != _MAGIC:
        raise _Cut("it does not begin as one")
    version = int(reader.number("I"))
    if version not in _VERSIONS:
        kind = "of a machine with the other byte order" if version >> 16 else "not read here"
        raise _Cut(f"its version is {version}, which is {kind}")
    n_tensors = reader.count(_MOST_TENSORS, "tensors")
    values: dict[str, Any] = {}
    for _ in range(reader.count(_MOST_KEYS, "entries")):
        key = reader.text(_LONGEST_NAME)
        values[key] = reader.value()
    weights: Counter[str] = Counter()
    names: set[str] = set()
    end = 0
    for _ in range(n_tensors):
        names.add(name := reader.text(_LONGEST_NAME))
        dims = int(reader.number("I"))
        shape = [int(reader.number("Q")) for _ in range(dims)] if dims <= _MOST_DIMS else []
        stored, offset = int(reader.number("I")), int(reader.number("Q"))
        if not shape or 0 in shape or math.prod(shape) > _LARGEST:
            raise _Cut(f"tensor {shown(name)} has {dims} dimensions of {shape}")
        if stored not in TYPES:
            raise _Cut(f"tensor {shown(name)} is stored as type {stored}, which is not known")
        word, block, n_bytes = TYPES[stored]
        if shape[0] % block:
            raise _Cut(f"tensor {shown(name)} has rows of {shape[0]:,} numbers, which are no blocks of {block}")
        weights[word] += math.prod(shape)
        end = max(end, offset + math.prod(shape) // block * n_bytes)
    if len(names) < n_tensors:
        raise _Cut("two of its tensors have the same name")
    alignment = values.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
        raise _Cut(f"it claims an alignment of {shown(alignment)}")
    whole = -(-reader.at // alignment) * alignment + end
    if n_tensors and whole > reader.size:
        raise _Cut(f"it has {reader.size:,} bytes of {whole:,}")
    return Header(path=path, values=values, weights=weights)


def require_model(header: Header) -> None:
    """Refuse what is no language model that transformers reads, by name.

    Raises:
        TargetError: with what it is.
    """
    kind, architecture = str(header.values.get("general.type", "")), header.architecture
    what = None
    if kind == "imatrix" or "imatrix.datasets" in header.values or "imatrix.chunk_count" in header.values:
        what = "an importance matrix, with which models are quantised"
    elif kind == "mmproj" or architecture == "clip":
        what = "a projector, the part of a model that sees or hears"
    elif kind == "adapter":
        what = "an adapter, which changes another model"
    elif not header.n_weights:
        what = "a vocabulary without weights"
    if what is not None:
        raise TargetError(f"{header.path} is {what}, not a language model. Name the model's own GGUF.")
    parts = header.values.get("split.count", 0)
    if isinstance(parts, int) and parts > 1:
        raise TargetError(
            f"{header.path} is one of {parts} parts of a model. Join them with `llama-gguf-split --merge`, and name "
            "the file that it makes."
        )
    known = architectures()
    if known and _plain(architecture) not in map(_plain, known):
        raise TargetError(
            f"{header.path} holds a model of the architecture {shown(architecture)}, which transformers does not read "
            f"from GGUF. It reads {', '.join(sorted(known))}."
        )
    _check_tokens(header)


def _check_tokens(header: Header) -> None:
    """Refuse special tokens that are none of the tokens."""
    n_tokens = header.values.get("tokenizer.ggml.tokens")
    types = header.values.get("tokenizer.ggml.token_type")
    if not isinstance(n_tokens, int) or not n_tokens:
        raise TargetError(f"{header.path} holds no tokenizer. Name a GGUF that is complete.")
    if types is not None and (not isinstance(types, tuple) or len(types) != n_tokens):
        raise TargetError(f"{header.path} has {n_tokens:,} tokens and not as many types of them. Download it again.")
    for key, value in header.values.items():
        is_id = key.startswith("tokenizer.ggml.") and key.endswith("_token_id")
        if is_id and not (isinstance(value, int) and 0 <= value < n_tokens):
            raise TargetError(
                f"{header.path} names {shown(value)} as {key.removeprefix('tokenizer.ggml.')}, but its tokens are 0 to "
                f"{n_tokens - 1:,}. Take the file of another publisher."
            )


def architectures() -> frozenset[str]:
    """What transformers reads from GGUF, found in its source without running any of it; empty if it is elsewhere."""
    spec = util.find_spec("transformers")
    for folder in [] if spec is None else list(spec.submodule_search_locations or []):
        for name in ("ggml.py", "gguf.py"):
            path = Path(folder) / "integrations" / name
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            table = re.search(r"^GGUF_CONFIG_MAPPING = \{(.+?)^\}", text, re.MULTILINE | re.DOTALL)
            if table:
                found = set(re.findall(r'^    "(\w+)": \{', table[1], re.MULTILINE))
                return frozenset(found - {"general", "tokenizer"})
    return frozenset()


def _plain(architecture: str) -> str:
    """qwen2moe and qwen2_moe, gpt-oss and gpt_oss are the same."""
    return architecture.replace("-", "").replace("_", "")


# ---- the numbers -----------------------------------------------------------------------------------------------------


def folder_of(path: Path) -> Path:
    """Where the dequantised model of a GGUF is kept, as long as the file is what it is now.

    Raises:
        OSError: the file is gone.
    """
    path = path.resolve()
    state = path.stat()
    about = f"{path}\0{state.st_size}\0{state.st_mtime_ns}"
    return DEQUANTISED.path() / f"{path.stem[:60]}-{hashlib.sha256(about.encode()).hexdigest()[:16]}"


def is_ours(folder: Path) -> bool:
    """Whether a folder has such a name, made or half made."""
    return re.fullmatch(r".+-[0-9a-f]{16}(\.half-\w+)?", folder.name) is not None


def origin_of(folder: Path) -> Origin | None:
    """What a folder was made from; None: it is not finished, or not one of these."""
    try:
        said = read_sealed(folder / ABOUT)
        return Origin(path=Path(said["path"]), label=str(said["label"]), notes=tuple(map(str, said["notes"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def about(header: Header, folder: Path) -> bytes:
    """What ABOUT holds of a folder whose other files are written."""
    said = {"path": str(header.path.resolve()), "label": header.label, "notes": header.notes()}
    return seal({**said, "files": _digests(folder)})


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.name != ABOUT}


def damage_of(folder: Path) -> list[str]:
    """What is wrong with a folder of dequantised weights, each as a part of a sentence.

    Raises:
        OSError: it cannot be read.
    """
    origin = origin_of(folder)
    if origin is None:
        return ["it was not finished"]
    if not origin.path.is_file():
        return [f"{origin.path}, of which it was made, is gone"]
    if folder_of(origin.path) != folder:
        return [f"{origin.path}, of which it was made, has changed since"]
    said, there = read_sealed(folder / ABOUT)["files"], _digests(folder)
    return [f"{name} is not what was written" for name in sorted({*said, *there}) if said.get(name) != there.get(name)]
