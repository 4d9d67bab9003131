"""Files of the Hugging Face hub: from its cache without a socket, or fetched into it with progress.

huggingface_hub does the fetching, into its own cache, so that every tool shares what was downloaded and an interrupted
download goes on where it stopped. Here are its refusals in one sentence each, the announcement of the size, and the
rule that one process at a time downloads. No message repeats what a server or a library said: it could hold a token.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from inspector.errors import InspectorError, ResourceError, TargetError
from inspector.events import Downloading, Event, Loading
from inspector.sources.model_files import find_model, hub_cache
from inspector.sources.quiet import quiet_libraries

POLL_SECONDS = 0.2
TRIES = 4
ANSWER_SECONDS = 10.0
"""For the hub to say how large a file is."""
RESUMED_FROM = 10_000_000
"""Bytes from which a file goes on where it stopped; smaller ones begin again."""
_CHUNK = 1 << 20
LONGEST_WAIT = 30.0
"""Seconds that a server may ask to wait before the next try; longer, and the user is told instead."""
_MODEL_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
)  # fmt: skip
"""What a text model consists of beside its weights; no code, no pickles."""
T = TypeVar("T")


def cached(repo: str, file: str, *, cache_dir: str | None, revision: str | None = None) -> Path | None:
    """A file of a model repository in the cache; None if it is not there. No network, no import of the hub's client.

    Args:
        repo: ORGANISATION/NAME.
        file: path in it; one that leaves the repository is never there.
        cache_dir: the hub client's own when None.
        revision: branch or commit; the main branch when None.
    """
    parts = PurePosixPath(file).parts
    if not parts or file.startswith("/") or ".." in parts or ".." in repo or not repo.count("/") <= 1:
        return None
    root = hub_cache(cache_dir) / f"models--{repo.replace('/', '--')}"
    commit = revision or "main"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if "/" not in commit and (root / "refs" / commit).is_file():
            commit = (root / "refs" / commit).read_text(encoding="utf-8").strip()
        if not commit or "/" in commit or commit.startswith("."):
            return None
        path = root / "snapshots" / commit / file
        # A link that leaves the repository's folder was not made by the hub's client.
        if path.is_file() and path.resolve().is_relative_to(root.resolve()):
            return path
    return None


def fetch(
    repo: str, files: Sequence[str], *, cache_dir: str | None, offline: bool, what: str
) -> Generator[Event, None, dict[str, Path]]:
    """Files of a model repository, by name: those in the cache as they are, the others downloaded into it.

    Closing the generator ends a download within a moment; what has arrived is kept for the next time.

    Args:
        repo: ORGANISATION/NAME.
        files: paths in it.
        cache_dir: the hub client's own when None.
        offline: answer at once with what is missing, instead of asking the network.
        what: 'model google/gemma-2-9b' or 'SAE ...', for people.

    Raises:
        TargetError: the hub does not have it, does not give it, or cannot be reached.
        ResourceError: the disk is full.
    """
    found = {file: cached(repo, file, cache_dir=cache_dir) for file in files}
    missing = [file for file, path in found.items() if path is None]
    if missing:
        if offline or os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
            raise _not_here(repo, missing, what, cache_dir)
        quiet_libraries()
        with contextlib.ExitStack() as stack:
            yield from _locked(hub_cache(cache_dir), stack)
            yield from _download(repo, missing, cache_dir, what)
        found = {file: cached(repo, file, cache_dir=cache_dir) for file in files}
    paths = {file: path for file, path in found.items() if path is not None}
    if len(paths) != len(found):
        lost = next(file for file in files if file not in paths)
        raise TargetError(f"{lost} of {repo} was downloaded but is not in the cache. Remove that repository there.")
    return paths


def fetch_model(hf_id: str, *, cache_dir: str | None, offline: bool) -> Generator[Event, None, Path]:
    """The folder of a model with configuration, tokenizer and safetensors; downloaded if it is not complete.

    Raises:
        TargetError: as `fetch`, or the repository has no safetensors.
    """
    try:
        return find_model(hf_id, cache_dir).directory
    except TargetError as error:
        if offline:
            raise TargetError(
                f"Model {hf_id} is not complete in the cache {hub_cache(cache_dir)}. "
                f"Run once without --offline, or fetch it with `hf download {hf_id}`."
            ) from error
    what = f"model {hf_id}"
    quiet_libraries()
    yield from _told(lambda: _size(hf_id, "config.json"), what, hf_id)  # is there such a model, and is it shown to us?
    names: list[str] = yield from _told(lambda: _listed(hf_id), what, hf_id)
    weights = [name for name in names if "/" not in name and name.endswith(".safetensors")]
    if not weights:
        raise TargetError(
            f"{hf_id} has no safetensors on the hub, and pickled weights are not loaded. Convert it first."
        )
    index = [name for name in names if name == "model.safetensors.index.json"]
    if index and "model.safetensors" not in weights:
        weights = [name for name in weights if name.startswith("model-")] or weights
    elif "model.safetensors" in weights:
        weights, index = ["model.safetensors"], []
    wanted = [name for name in _MODEL_FILES if name in names] + index + sorted(weights)
    paths = yield from fetch(hf_id, wanted, cache_dir=cache_dir, offline=offline, what=what)
    return paths["config.json"].parent


# ---- the download ---------------------------------------------------------------------------------------------------


class _Stopped(BaseException):
    """Raised inside the library to leave a download; no library swallows it."""


class _Count:
    """Bytes that have arrived, added up across files and told by a progress bar that draws nothing."""

    def __init__(self) -> None:
        self.done = 0
        self.stop = False

    def bar(self) -> type:
        """A stand-in for the class of a progress bar."""
        count = self

        class Bar:
            """As much of tqdm as huggingface_hub uses."""

            def __init__(self, *_: Any, initial: float = 0, total: float | None = None, **__: Any) -> None:
                self.n, self.total = initial, total
                count.done += int(initial)

            def update(self, n: float | None = 1) -> None:
                if count.stop:
                    raise _Stopped
                self.n += n or 0
                count.done += int(n or 0)

            def __enter__(self) -> Bar:
                return self

            def __exit__(self, *_: object) -> None:
                """Nothing was drawn."""

            def __getattr__(self, name: str) -> Callable[..., None]:
                if name.startswith("__"):
                    raise AttributeError(name)
                return lambda *_, **__: None

        return Bar


def _download(repo: str, files: Sequence[str], cache_dir: str | None, what: str) -> Generator[Event, None, None]:
    """Announce the size of all, then fetch one after the other."""
    sizes: dict[str, int] = yield from _told(lambda: {file: _size(repo, file) for file in files}, what, repo)
    total, before = sum(sizes.values()), 0
    yield Downloading(what=what, file="", done_bytes=0, total_bytes=total)
    began = time.monotonic()
    for file in files:
        count = _Count()

        def get(file: str = file, count: _Count = count) -> object:
            from huggingface_hub import hf_hub_download

            if sizes[file] >= RESUMED_FROM:
                _fetch_blob(repo, file, hub_cache(cache_dir), count)
            return hf_hub_download(repo, file, cache_dir=hub_cache(cache_dir), tqdm_class=count.bar())

        for _ in _retried(get, repo, count):
            done = before + min(count.done, sizes[file])
            rate = done / max(time.monotonic() - began, 1e-3)
            yield Downloading(what=what, file=file, done_bytes=done, total_bytes=total, bytes_per_second=rate)
        before += sizes[file]
    yield Downloading(what=what, file=files[-1], done_bytes=total, total_bytes=total)


class _Refused(Exception):
    """The hub's answer to a question about a file.

    Args:
        status: of HTTP.
        code: the hub's own word for what is wrong.
        retry_after: as the header says.
    """

    def __init__(self, status: int, code: str, retry_after: str | None) -> None:
        super().__init__(f"{status} {code}")
        self.status, self.code, self.retry_after = status, code, retry_after


def _size(repo: str, file: str) -> int:
    """Bytes of a file, from one question. The library's own would be asked again for minutes by itself."""
    headers = _head(repo, file)
    return int(headers.get("X-Linked-Size") or headers.get("Content-Length") or 0)


def _fetch_blob(repo: str, file: str, cache: Path, count: _Count) -> None:
    """Put a large file where the library keeps it, going on where an earlier try stopped; it then only links it.

    The library forgets what has arrived when it is interrupted (its temporary file has a new name every time, because
    locks of some file systems cannot be trusted). Ours is named after the content, and `_locked` holds off others.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]

    about = _head(repo, file)
    tag = (about.get("X-Linked-Etag") or about.get("ETag") or "").removeprefix("W/").strip('"')
    size = int(about.get("X-Linked-Size") or about.get("Content-Length") or 0)
    blob = cache / f"models--{repo.replace('/', '--')}" / "blobs" / tag
    if re.fullmatch(r"[0-9a-f]{40,64}", tag) is None or blob.exists():
        return
    blob.parent.mkdir(parents=True, exist_ok=True)
    part = blob.with_name(f"{tag}.part")
    done = part.stat().st_size if part.exists() else 0
    done = done if done <= size else 0
    resumed = done > 0
    headers = build_hf_headers() | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    if done < size:
        with get_session().stream("GET", hf_hub_url(repo, file), headers=headers, follow_redirects=True) as answer:
            if answer.status_code >= 400:
                raise _Refused(answer.status_code, answer.headers.get("X-Error-Code", ""), None)
            if answer.status_code != 206:
                done = 0
            count.done += done
            with part.open("r+b" if done else "wb", buffering=0) as out:
                out.seek(done)
                for chunk in answer.iter_bytes(chunk_size=_CHUNK):
                    if count.stop:
                        raise _Stopped
                    out.write(chunk)
                    count.done += len(chunk)
                out.truncate()
    if part.stat().st_size != size or (resumed and len(tag) == 64 and _sha256(part) != tag):
        part.unlink()
        raise OSError("Consistency check failed")
    part.replace(blob)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _head(repo: str, file: str) -> Mapping[str, str]:
    """The headers of a file."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]

    url = hf_hub_url(repo, file)
    for _ in range(3):  # a repository that was renamed answers with its new place
        answer: Any = get_session().head(
            url,
            headers=build_hf_headers() | {"Accept-Encoding": "identity"},
            follow_redirects=False,
            timeout=ANSWER_SECONDS,
        )
        place = answer.headers.get("Location", "")
        if not (300 <= answer.status_code < 400 and place.startswith("/")):
            break
        url = url[: url.index("/", len("https://"))] + place
    if answer.status_code >= 400:
        code = answer.headers.get("X-Error-Code", "")
        raise _Refused(answer.status_code, code, answer.headers.get("Retry-After"))
    headers: Mapping[str, str] = answer.headers
    return headers


def _listed(repo: str) -> list[str]:
    from huggingface_hub import HfApi

    return list(HfApi().list_repo_files(repo))


def _told(work: Callable[[], T], what: str, repo: str) -> Generator[Event, None, T]:
    """Ask the hub something while the caller is told that it is asked."""
    yield Loading(what="asking the hub", detail=what)
    began, answer = time.monotonic(), [None]

    def ask() -> object:
        answer[0] = work()  # type: ignore[call-overload]
        return None

    for _ in _retried(ask, repo, _Count()):
        pass
    yield Loading(what="asking the hub", detail=what, seconds=time.monotonic() - began)
    return answer[0]  # type: ignore[return-value]


def _retried(work: Callable[[], object], repo: str, count: _Count) -> Iterator[None]:
    """Run in a thread, one item now and then until it has ended; again after a failure that may pass."""
    for attempt in range(TRIES):
        failure: list[BaseException] = []

        def attempted(failure: list[BaseException] = failure) -> None:
            try:
                work()
            except BaseException as error:  # handed to the other thread
                failure.append(error)

        thread = threading.Thread(target=attempted, daemon=True, name="download")
        thread.start()
        try:
            while thread.is_alive():
                thread.join(POLL_SECONDS)
                yield None
        except GeneratorExit:
            count.stop = True
            thread.join(2.0)
            raise
        if not failure:
            return
        wait = _wait_before_again(failure[0], attempt)
        if wait is None or attempt == TRIES - 1:
            raise _explained(failure[0], repo) from None  # the cause may hold a token
        count.done = 0
        until = time.monotonic() + wait
        while time.monotonic() < until:
            time.sleep(min(POLL_SECONDS, wait))
            yield None


def _wait_before_again(error: BaseException, attempt: int) -> float | None:
    """Seconds before another try makes sense; None if it does not."""
    status = _status(error)
    if status == 429 or (status is not None and status >= 500):
        asked = error.retry_after if isinstance(error, _Refused) else None
        wait = float(asked) if asked is not None and asked.replace(".", "", 1).isdigit() else 2.0**attempt
        return wait if wait <= LONGEST_WAIT else None
    broke_off = type(error).__name__ in ("ReadError", "RemoteProtocolError", "ReadTimeout", "ChunkedEncodingError")
    return 2.0**attempt if broke_off or "Consistency check failed" in str(error) else None


def _explained(error: BaseException, repo: str) -> InspectorError:
    """One sentence about what happened and one about what to do, without a word of the error's own."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(f"The disk is full while {repo} is downloaded. Make room, or choose another --cache-dir.")
    kind, status = type(error).__name__, _status(error)
    code = error.code if isinstance(error, _Refused) else ""
    if kind == "GatedRepoError" or code == "GatedRepo" or status == 403:
        return TargetError(
            f"{repo} is gated: its licence must be accepted at https://huggingface.co/{repo} by the account you use. "
            "Then log in with `hf auth login`."
        )
    if kind == "RepositoryNotFoundError" or status == 401:
        return TargetError(
            f"The hub has no repository {repo}, or does not show it to you. "
            "Check the name; for a private one log in with `hf auth login`."
        )
    if kind in ("EntryNotFoundError", "RemoteEntryNotFoundError", "RevisionNotFoundError") or status == 404:
        return TargetError(
            f"{repo} does not have the file that the registry names. Update sae-lens, or choose another."
        )
    if status == 429:
        return TargetError(f"The hub asks for a pause before {repo} is downloaded (429). Try again in some minutes.")
    if status is not None:
        return TargetError(f"The hub answered {status} for {repo}. Try again later.")
    if isinstance(error, PermissionError):
        return ResourceError(f"The cache for {repo} cannot be written. Choose another with --cache-dir.")
    if "Consistency check failed" in str(error):
        return TargetError(f"What the hub sent of {repo} has another size than it said. It was not kept; try again.")
    return TargetError(
        f"The hub cannot be reached for {repo} ({kind}). Check the network or HF_ENDPOINT; "
        "with --offline only what is on disk is used."
    )


def _status(error: BaseException | None) -> int | None:
    """HTTP status of an error or of what caused it."""
    while error is not None:
        if isinstance(error, _Refused):
            return error.status
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def _not_here(repo: str, missing: Sequence[str], what: str, cache_dir: str | None) -> TargetError:
    more = f" and {len(missing) - 1} more files" if len(missing) > 1 else ""
    return TargetError(
        f"{what} is not in the cache {hub_cache(cache_dir)}: {missing[0]}{more} of {repo}. "
        f"Run once without --offline, or fetch it with `hf download {repo} {missing[0]}`."
    )


def _locked(cache: Path, stack: contextlib.ExitStack) -> Generator[Event, None, None]:
    """Hold the cache's download lock until the stack is closed; says so while another process has it."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(cache / ".dm-inspect.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ResourceError(
            f"The cache {cache} cannot be written ({error.strerror}). Choose another with --cache-dir."
        ) from error
    stack.callback(os.close, descriptor)
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not told:
                yield Loading(what="waiting for another download", detail=str(cache))
                told = True
            time.sleep(POLL_SECONDS)
            yield Loading(what="waiting for another download", detail=str(cache))
