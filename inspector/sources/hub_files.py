"""One file of the Hugging Face hub, from its headers to its place in the cache, and no claim of the server's believed.

The cache is laid out as huggingface_hub lays it out, so that every tool shares it; the library's own download is not
used, because it makes paths of whatever a server calls a file's content or commit, and takes whatever is sent. Here a
name becomes a path only if it is a plain name, no more bytes are taken than were announced, nothing packed is unpacked,
content that is named by its SHA-256 has that hash, and a server that hardly sends is left.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from inspector.disk.files import write_whole

ANSWER_SECONDS = 10.0
"""For the hub to begin an answer, and between two pieces of one."""
SLOW_SECONDS, SLOW_BYTES = 60.0, 60_000
"""A server that sends less than so many bytes in so many seconds is left: 1 kB/s."""
UNSAID_BYTES = 10_000_000
"""Taken at most of a file whose size the server does not say; those are small texts."""
LISTING_BYTES = 32_000_000
"""Of the answer that lists a repository; one with 100,000 files takes 10 MB."""
_TAG = re.compile(r"[0-9A-Za-z][\w.+=-]{0,127}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Stopped(BaseException):
    """Raised to leave a download; no library swallows it."""


class HubRefusal(Exception):
    """The hub's answer to a question about a file.

    Args:
        status: of HTTP.
        code: the hub's own word for what is wrong.
        retry_after: as the header says.
    """

    def __init__(self, status: int, code: str, retry_after: str | None) -> None:
        super().__init__(f"{status} {code}")
        self.status, self.code, self.retry_after = status, code, retry_after


class Lied(Exception):
    """What the hub sends is not what it announced. The message is ours, and holds nothing that was received."""


class Slow(Exception):
    """The hub hardly sends; what has arrived stays."""


class Count:
    """Bytes that have arrived, and the wish that no more should."""

    def __init__(self) -> None:
        self.done = 0
        self.stop = False


@dataclass(frozen=True, kw_only=True)
class About:
    """What the hub says of a file; every name in it is fit to be part of a path."""

    tag: str
    """Names the content: SHA-256 of a large file, git's hash of a small one."""
    commit: str
    size: int | None
    """Bytes; None if it does not say."""

    @property
    def most(self) -> int:
        """Bytes that are taken at most."""
        return UNSAID_BYTES if self.size is None else self.size


def about(repo: str, file: str) -> About:
    """What the hub says of a file, from one question. The library's own would be asked again for minutes by itself.

    Raises:
        HubRefusal: the hub does not give it.
        Lied: what it says cannot be used.
    """
    headers = _head(repo, file)
    tag = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
    if _TAG.fullmatch(tag) is None:
        raise Lied("names a content by something that is no name")
    commit = headers.get("X-Repo-Commit") or ""
    if _COMMIT.fullmatch(commit) is None:
        raise Lied("names a commit by something that is no commit")
    size = headers.get("X-Linked-Size") or headers.get("Content-Length") or ""
    return About(tag=tag, commit=commit, size=int(size) if re.fullmatch(r"[0-9]{1,15}", size) else None)


def part_of(repo: str, found: About, cache: Path) -> Path:
    """Where what has arrived of a file is, until it is whole."""
    return blob_of(repo, found, cache).with_name(f"{found.tag}.part")


def blob_of(repo: str, found: About, cache: Path) -> Path:
    """Where the whole content is."""
    return cache / f"models--{repo.replace('/', '--')}" / "blobs" / found.tag


def get(repo: str, file: str, found: About, cache: Path, count: Count) -> None:
    """Put a file where the library keeps it, going on where an earlier try stopped, and link it.

    Args:
        repo: ORGANISATION/NAME.
        file: path in it, no part of which is `..`.
        found: what `about` told.
        cache: the hub client's folder; the caller holds off other processes.
        count: counts the bytes; its wish to stop is looked at with each piece.

    Raises:
        HubRefusal: the hub does not give it.
        Lied: what it sends is not what it announced; nothing of it stays.
        Slow: it hardly sends; what has arrived stays.
        OSError: it cannot be written.
    """
    blob, part = blob_of(repo, found, cache), part_of(repo, found, cache)
    if not blob.exists():
        blob.parent.mkdir(parents=True, exist_ok=True)
        resumed = part.exists()
        try:
            _fetch(repo, file, found, part, count)
        except Lied:
            if not resumed:
                raise
            _fetch(repo, file, found, part, count)  # what was kept may have been at fault
        os.replace(part, blob)
    root = blob.parent.parent
    place = root / "snapshots" / found.commit / file
    place.parent.mkdir(parents=True, exist_ok=True)
    _link(blob, place)
    write_whole(root / "refs" / "main", found.commit)


def _fetch(repo: str, file: str, found: About, part: Path, count: Count) -> None:
    """The bytes into `part`, verified; what cannot be right does not stay."""
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    with open(handle, "r+b", buffering=0) as out:
        done = os.fstat(handle).st_size
        if found.size is None or done > found.size:
            done = 0
        free = shutil.disk_usage(part.parent).free
        if found.size is not None and found.size - done > free:
            raise OSError(errno.ENOSPC, "the file has no room")
        try:
            if found.size is None or done < found.size:
                _receive(repo, file, found, out, done, count)
            _verify(found, out)
        except Lied:
            part.unlink()
            raise


def _receive(repo: str, file: str, found: About, out: IO[bytes], done: int, count: Count) -> None:
    from huggingface_hub import hf_hub_url

    wanted = {"Range": f"bytes={done}-"} if done else {}
    with _streamed(hf_hub_url(repo, file, revision=found.commit), wanted) as answer:
        if answer.status_code != 206:
            done = 0
        elif not str(answer.headers.get("Content-Range", "")).startswith(f"bytes {done}-"):
            raise Lied("sends another part of a file than was asked for")
        count.done += done
        out.seek(done)
        out.truncate()
        since, seen = time.monotonic(), 0
        for piece in answer.iter_raw():
            if count.stop:
                raise Stopped
            done += len(piece)
            seen += len(piece)
            if done > found.most:
                raise Lied("sends more of a file than it announced")
            out.write(piece)
            count.done += len(piece)
            now = time.monotonic()
            if now - since > SLOW_SECONDS:
                if seen < SLOW_BYTES:
                    raise Slow
                since, seen = now, 0


@contextlib.contextmanager
def _streamed(url: str, wanted: Mapping[str, str] | None = None) -> Iterator[Any]:
    """An answer of the hub, its bytes as they are sent: packed ones could become any number of bytes."""
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    headers = {**_headers(), **(wanted or {})}
    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=ANSWER_SECONDS) as answer:
        _require_given(answer)
        if answer.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise Lied("sends a file packed, though asked not to")
        yield answer


def _headers() -> dict[str, str]:
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    return {**build_hf_headers(), "Accept-Encoding": "identity"}


def _require_given(answer: Any) -> None:
    if answer.status_code >= 400:
        code, retry_after = answer.headers.get("X-Error-Code", ""), answer.headers.get("Retry-After")
        raise HubRefusal(answer.status_code, code, retry_after)


def _verify(found: About, out: IO[bytes]) -> None:
    size = os.fstat(out.fileno()).st_size
    if found.size is not None and size != found.size:
        raise Lied("sends less of a file than it announced")
    if _SHA256.fullmatch(found.tag) is not None:
        out.seek(0)
        if hashlib.file_digest(out, "sha256").hexdigest() != found.tag:  # type: ignore[arg-type]
            raise Lied("sends something else than it announced")


def _link(blob: Path, place: Path) -> None:
    """As the library does: relative, so that the cache can be moved; the content itself where there are no links."""
    beside = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    try:
        beside.symlink_to(os.path.relpath(blob, place.parent))
    except OSError:
        os.replace(blob, place)
        return
    os.replace(beside, place)


def _head(repo: str, file: str) -> Mapping[str, str]:
    """The headers of a file."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    url = hf_hub_url(repo, file)
    for _ in range(3):  # a repository that was renamed answers with its new place
        answer: Any = get_session().head(url, headers=_headers(), follow_redirects=False, timeout=ANSWER_SECONDS)
        place = answer.headers.get("Location", "")
        if not (300 <= answer.status_code < 400 and place.startswith("/")):
            break
        url = url[: url.index("/", len("https://"))] + place
    _require_given(answer)
    headers: Mapping[str, str] = answer.headers
    return headers


def listed(repo: str) -> list[str]:
    """The files of a repository, those alone whose names are paths within it.

    Raises:
        HubRefusal: the hub does not show it.
        Lied: the list has no end, or is none.
    """
    from huggingface_hub import constants

    raw = bytearray()
    with _streamed(f"{constants.ENDPOINT}/api/models/{repo}") as answer:
        for piece in answer.iter_raw():
            raw += piece
            if len(raw) > LISTING_BYTES:
                raise Lied("lists files without end")
    try:
        names = [each["rfilename"] for each in json.loads(raw)["siblings"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Lied("lists its files in a form that is none") from None
    return [name for name in names if isinstance(name, str) and is_inside(name)]


def is_inside(file: str) -> bool:
    """Whether a name is that of a file within a repository, whatever folder it is joined to."""
    parts = file.split("/")
    return file.isprintable() and all(part not in ("", ".", "..") for part in parts) and len(file) < 1000
