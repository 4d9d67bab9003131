"""The text of the installed Python: what the demo model was trained on, and what it never saw.

The demo needs real text on every machine without shipping or downloading any. Every CPython 3.11+ carries a few hundred
library sources and the language reference (`pydoc_data/topics.py`). A quarter of the library, chosen by the hash of the
file's path, and the whole reference are *held out*: the training recipe never reads them, the demo shows only them. The
rule looks at the path alone, so it names the same files on every Python version, whatever their content there.

Nothing here imports torch, and no file is ever executed.
"""

from __future__ import annotations

import ast
import hashlib
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from inspector.errors import DataError

Document = tuple[str, str]
"""Name (a relative posix path, or `topic:NAME`) and text."""

HELD_OUT_SHARE = 0.25
"""Share of the standard library's non-test files that training never sees. More would leave the model too little Python
of the plain kind, less would leave the demo too few pages."""

TEXT_SUFFIXES = (".py", ".pyi", ".md", ".rst")
LONG_LINE = 30
"""Stripped lines longer than this many characters identify a text; shorter ones (`return self`) occur everywhere."""

MAX_SHARED_LINES = 0.12
"""A training file with a larger share of its long lines in held-out files is a vendored or ported copy, and dropped."""

MAX_DOCUMENT_BYTES = 400_000
"""Longer files are generated tables, which teach a small model nothing but their table."""

_TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})
_NOT_LIBRARY = frozenset({"site-packages", "dist-packages", "__pycache__"})
_TOPICS = PurePosixPath("pydoc_data/topics.py")
_NOT_SHOWN = ("pydoc_data/", "encodings/")
"""Held out but no page of the demo: the topics are shown one by one, and the encodings are generated tables."""


def stdlib_root() -> Path:
    """The folder of the running Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def is_held_out(relative_path: str | PurePosixPath) -> bool:
    """Whether a standard-library file, named relative to the library's folder, is kept from training.

    True for everything below `pydoc_data` and for the non-test files whose path hashes into the first `HELD_OUT_SHARE`
    of SHA-256. Depends on nothing but the path.

    Args:
        relative_path: posix style, for example `json/decoder.py`.
    """
    path = PurePosixPath(relative_path)
    if path.parts[0] == "pydoc_data":
        return True
    if _TEST_FOLDERS.intersection(path.parts[:-1]):
        return False
    digest = hashlib.sha256(path.as_posix().encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def demo_documents(root: Path | None = None, *, sources: bool = True) -> Iterator[Document]:
    """Held-out library sources and reference topics, in an order that is fixed and mixes the two.

    The order is that of the SHA-256 of each name, so the first documents are a fair sample of all.

    Args:
        root: a standard-library folder; the running Python's when `None`.
        sources: false for the topics alone, which are English with some code in it.

    Raises:
        DataError: if the folder holds no held-out text, as in a Python whose library is zipped.
    """
    root = root or stdlib_root()
    files = _files(root, (".py",)) if sources else []
    names = [path for path in files if is_held_out(path) and not path.startswith(_NOT_SHOWN)]
    topics = read_topics(root / _TOPICS)
    names += [f"topic:{topic}" for topic in topics]
    if not names:
        raise DataError(
            f"{root} holds no readable standard-library text. Use --text FILE, or a Python whose library is unpacked."
        )
    for name in sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest()):
        text = topics[name.removeprefix("topic:")] if name.startswith("topic:") else _read(root / name)
        if text is not None and text.strip():
            yield name, text


def read_topics(path: Path) -> dict[str, str]:
    """The language reference's topics, from the literal in `pydoc_data/topics.py`.

    Empty if the file is not there, or is one day written in another way: the demo then shows sources only.
    """
    source = _read(path)
    try:
        for statement in ast.parse(source or "").body:
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
                value = ast.literal_eval(statement.value)
                return {str(key): str(text) for key, text in sorted(value.items())}
    except (SyntaxError, ValueError):
        pass
    return {}


def training_documents(roots: Sequence[Path]) -> Iterator[Document]:
    """Every text below `roots` that training may see, in sorted order, without duplicates and copies of held-out files.

    A root that is a standard library (it holds `os.py`) is read without its held-out files and without the
    packages installed inside it. Exact duplicates are yielded once.

    Args:
        roots: standard-library and site-packages folders, read in the order given.
    """
    held_out_lines = {line for _, text in demo_documents() for line in long_lines(text)}
    for root in roots:
        if is_library(root):
            held_out_lines.update(line for _, text in demo_documents(root) for line in long_lines(text))
    seen: set[bytes] = set()
    for root in roots:
        library = is_library(root)
        for name in _files(root, TEXT_SUFFIXES, library=library):
            if library and is_held_out(name):
                continue
            text = _read(root / name)
            if text is None or not text.strip():
                continue
            digest = hashlib.sha256(text.encode()).digest()
            if digest not in seen and shared_lines(text, held_out_lines) <= MAX_SHARED_LINES:
                seen.add(digest)
                yield name, text


def shared_lines(text: str, lines: set[str]) -> float:
    """Share of the long lines of `text` that are in `lines`; 0 for a text without long lines."""
    own = long_lines(text)
    return sum(line in lines for line in own) / len(own) if own else 0.0


def long_lines(text: str) -> list[str]:
    """The stripped lines of `text` that are long enough to identify it."""
    return [line for line in map(str.strip, text.splitlines()) if len(line) > LONG_LINE]


def is_library(root: Path) -> bool:
    """Whether `root` is a standard library rather than a folder of installed packages."""
    return (root / "os.py").is_file()


def _files(root: Path, suffixes: tuple[str, ...], *, library: bool = True) -> list[str]:
    """Posix paths of the text files below `root`, sorted; a library's own site-packages are not part of it."""
    skip = _NOT_LIBRARY if library else {"__pycache__"}
    found = []
    for path in root.rglob("*"):
        relative = path.relative_to(root)
        if path.suffix in suffixes and not skip.intersection(relative.parts) and path.is_file():
            found.append(relative.as_posix())
    return sorted(found)


def _read(path: Path) -> str | None:
    """The file's text; `None` when it is missing, unreadable, not UTF-8 or too long to be prose or code."""
    try:
        if path.stat().st_size > MAX_DOCUMENT_BYTES and path.name != _TOPICS.name:
            return None
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
