"""Files of the Hugging Face hub: from its cache without a socket, or fetched into it with progress.

What is fetched lies in the cache of huggingface_hub as that lays it out, so that every tool shares it, and a download
that was interrupted goes on where it stopped. Here are the hub's refusals in one sentence each, the announcement of the
size, and the rule that one process at a time downloads; `hub_files` takes one file. No message repeats what a server or
a library said: it could hold a token.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from inspector.disk.files import shown
from inspector.disk.locks import FolderLock
from inspector.errors import InspectorError, ResourceError, TargetError
from inspector.events import Downloading, Event, Loading
from inspector.sources import quiet_libraries
from inspector.sources.hub_files import About, Count, HubRefusal, Lied, Slow, about, get, is_inside, listed, part_of
from inspector.sources.model_files import find_model, hub_cache, read_config, require_known, snapshot_of

POLL_SECONDS = 0.2
TRIES = 4
ASKING_SECONDS = 60.0
"""For the hub to answer a question, and as many more as files are asked about: an answer can be made to trickle."""
LONGEST_WAIT = 30.0
"""Seconds that a server may ask to wait before the next try; longer, and the user is told instead."""
_MODEL_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
)  # fmt: skip
"""What a text model consists of beside its weights; no code, no pickles."""
T = TypeVar("T")


def cached(repo: str, file: str, *, cache_dir: str | None) -> Path | None:
    """A file of a model repository in the cache; None if it is not there. No network, no import of the hub's client.

    Args:
        repo: ORGANISATION/NAME.
        file: path in it; one that leaves the repository is never there.
        cache_dir: the hub client's own when None.
    """
    snapshot = snapshot_of(repo, hub_cache(cache_dir))
    with contextlib.suppress(OSError):
        if snapshot is not None and is_inside(file) and (snapshot / file).is_file():
            # A link that leaves the repository's folder was not made by the hub's client.
            inside = (snapshot / file).resolve().is_relative_to(snapshot.parents[1].resolve())
            return snapshot / file if inside else None
    return None


def fetch(
    repo: str,
    files: Sequence[str],
    *,
    cache_dir: str | None,
    offline: bool,
    what: str,
    optional: Collection[str] = (),
) -> Generator[Event, None, dict[str, Path]]:
    """Files of a model repository, by name: those in the cache as they are, the others downloaded into it.

    Closing the generator ends a download within a moment; what has arrived is kept for the next time.

    Args:
        repo: ORGANISATION/NAME.
        files: paths in it.
        cache_dir: the hub client's own when None.
        offline: answer at once with what is missing, instead of asking the network.
        what: 'model google/gemma-2-9b' or 'SAE ...', for people.
        optional: of the files, those that the repository may not have. They are asked for with the others, and not once
            those are there.

    Raises:
        TargetError: the hub does not have it, does not give it, or cannot be reached.
        ResourceError: the disk is full.
    """
    found = {file: cached(repo, file, cache_dir=cache_dir) for file in files}
    if any(path is None for file, path in found.items() if file not in optional):
        missing = [file for file, path in found.items() if path is None]
        if offline or os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
            raise _not_here(repo, sorted(missing, key=lambda file: file in optional), what, cache_dir)
        quiet_libraries()
        with contextlib.ExitStack() as stack:
            yield from _locked(hub_cache(cache_dir), stack)
            yield from _download(repo, missing, cache_dir, what, optional)
        found = {file: cached(repo, file, cache_dir=cache_dir) for file in files}
    paths = {file: path for file, path in found.items() if path is not None}
    if lost := next((file for file in files if file not in paths and file not in optional), None):
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
    yield from _told(lambda: about(hf_id, "config.json"), what, hf_id)  # is there such a model, and is it shown to us?
    names: list[str] = yield from _told(lambda: listed(hf_id), what, hf_id)
    weights = [name for name in names if "/" not in name and name.endswith(".safetensors")]
    if not weights:
        raise TargetError(
            f"{hf_id} has no safetensors on the hub, and pickled weights are not loaded. Convert it first."
        )
    config = (yield from fetch(hf_id, ["config.json"], cache_dir=cache_dir, offline=offline, what=what))["config.json"]
    require_known(read_config(hf_id, config.parent), hf_id)
    index = [name for name in names if name == "model.safetensors.index.json"]
    if index and "model.safetensors" not in weights:
        weights = [name for name in weights if name.startswith("model-")] or weights
    elif "model.safetensors" in weights:
        weights, index = ["model.safetensors"], []
    wanted = [name for name in _MODEL_FILES if name in names] + index + sorted(weights)
    paths = yield from fetch(hf_id, wanted, cache_dir=cache_dir, offline=offline, what=what)
    return paths["config.json"].parent


# ---- the download ---------------------------------------------------------------------------------------------------


def _download(
    repo: str, files: Sequence[str], cache_dir: str | None, what: str, optional: Collection[str]
) -> Generator[Event, None, None]:
    """Announce the size of all, then fetch one after the other."""
    for file in files:
        if not is_inside(file):
            raise TargetError(f"{shown(file)} is no file within {repo}. Update sae-lens, or choose another.")
    cache = hub_cache(cache_dir)

    def all_of_them() -> dict[str, About]:
        answers = {file: _about_if_there(repo, file) if file in optional else about(repo, file) for file in files}
        return {file: answer for file, answer in answers.items() if answer is not None}

    found = yield from _told(all_of_them, what, repo, len(files))
    files = list(found)
    total, before = sum(each.size or 0 for each in found.values()), 0
    yield Downloading(what=what, file="", done_bytes=0, total_bytes=total)
    began = time.monotonic()
    for file in files:
        count, size = Count(), found[file].size or 0
        kept_in = str(part_of(repo, found[file], cache))

        def work(file: str = file, count: Count = count) -> None:
            get(repo, file, found[file], cache, count)

        for _ in _retried(work, repo, count):
            done = before + min(count.done, size)
            rate = done / max(time.monotonic() - began, 1e-3)
            yield Downloading(
                what=what, file=file, done_bytes=done, total_bytes=total, bytes_per_second=rate, kept_in=kept_in
            )
        before += size
    yield Downloading(what=what, file=files[-1], done_bytes=total, total_bytes=total)


def _about_if_there(repo: str, file: str) -> About | None:
    """As `about`; None if the repository is there and has no such file."""
    try:
        return about(repo, file)
    except HubRefusal as answer:
        if answer.status == 404 and answer.code in ("EntryNotFound", ""):
            return None
        raise


def _told(work: Callable[[], T], what: str, repo: str, n_files: int = 1) -> Generator[Event, None, T]:
    """Ask the hub something while the caller is told that it is asked."""
    yield Loading(what="asking the hub", detail=what)
    began, answer = time.monotonic(), [None]

    def ask() -> object:
        answer[0] = work()  # type: ignore[call-overload]
        return None

    for _ in _retried(ask, repo, Count()):
        if time.monotonic() - began > ASKING_SECONDS + n_files:
            raise TargetError(f"The hub does not answer about {repo}. Try again later, or check HF_ENDPOINT.")
    yield Loading(what="asking the hub", detail=what, seconds=time.monotonic() - began)
    return answer[0]  # type: ignore[return-value]


def _retried(work: Callable[[], object], repo: str, count: Count) -> Iterator[None]:
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
            yield None  # at once, so that what is fetched is told before anything has come
            while thread.is_alive():
                thread.join(POLL_SECONDS)
                yield None
        except (GeneratorExit, KeyboardInterrupt):
            count.stop = True
            thread.join(1.0)
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
    if isinstance(error, HubRefusal) and (error.status == 429 or error.status >= 500):
        asked = error.retry_after
        wait = float(asked) if asked is not None and asked.replace(".", "", 1).isdigit() else 2.0**attempt
        return wait if wait <= LONGEST_WAIT else None
    broke_off = type(error).__name__ in ("ReadError", "RemoteProtocolError", "ReadTimeout", "ChunkedEncodingError")
    return 2.0**attempt if broke_off else None


def _explained(error: BaseException, repo: str) -> InspectorError:
    """One sentence about what happened and one about what to do, without a word of the error's own."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(f"The disk is full while {repo} is downloaded. Make room, or choose another --cache-dir.")
    if isinstance(error, InspectorError):
        return error
    if isinstance(error, PermissionError):
        return ResourceError(f"The cache for {repo} cannot be written. Choose another with --cache-dir.")
    if isinstance(error, Slow):
        return TargetError(f"The hub sends next to nothing of {repo}. What has arrived is kept; try again later.")
    if isinstance(error, Lied):
        return TargetError(f"The hub {error}, of {repo}. Nothing of it was kept; try again, or check HF_ENDPOINT.")
    if not isinstance(error, HubRefusal):
        return TargetError(
            f"The hub cannot be reached for {repo} ({type(error).__name__}). Check the network or HF_ENDPOINT; "
            "with --offline only what is on disk is used."
        )
    if error.code == "GatedRepo" or error.status == 403:
        return TargetError(
            f"{repo} is gated: its licence must be accepted at https://huggingface.co/{repo} by the account you use. "
            "Then log in with `hf auth login`."
        )
    if error.status == 401:
        return TargetError(
            f"The hub has no repository {repo}, or does not show it to you. "
            "Check the name; for a private one log in with `hf auth login`."
        )
    if error.status == 404:
        return TargetError(
            f"{repo} does not have the file that the registry names. Update sae-lens, or choose another."
        )
    if error.status == 429:
        return TargetError(f"The hub asks for a pause before {repo} is downloaded (429). Try again in some minutes.")
    return TargetError(f"The hub answered {error.status} for {repo}. Try again later.")


def _not_here(repo: str, missing: Sequence[str], what: str, cache_dir: str | None) -> TargetError:
    more = f" and {len(missing) - 1} more files" if len(missing) > 1 else ""
    return TargetError(
        f"{what} is not in the cache {hub_cache(cache_dir)}: {missing[0]}{more} of {repo}. "
        f"Run once without --offline, or fetch it with `hf download {repo} {missing[0]}`."
    )


def _locked(cache: Path, stack: contextlib.ExitStack) -> Generator[Event, None, None]:
    """Hold the cache's download lock until the stack is closed; says so while another process has it."""
    lock = FolderLock(cache / ".dm-inspect")
    stack.callback(lock.release)
    try:
        while not lock.take():
            yield Loading(what="waiting for another download", detail=str(cache))
            time.sleep(POLL_SECONDS)
    except OSError as error:
        raise ResourceError(
            f"The cache {cache} cannot be written ({error.strerror}). Choose another with --cache-dir."
        ) from error
