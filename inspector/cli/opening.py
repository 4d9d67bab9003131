"""The beginning of every command that computes: load the target, and say on stderr what the user should know."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector import threads
from inspector.disk.files import read_text
from inspector.errors import DataError, UsageError
from inspector.events import Event, Warned

if TYPE_CHECKING:
    from inspector.sources.target import Loaded
    from inspector.spec import TargetSpec


LONGEST_PROMPT = 1 << 24
"""Bytes of a prompt in a file; no model reads more."""


def prompt_file_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --prompt-file; its function receives `prompt_files: tuple[Path, ...]`, for `prompts_of`."""
    told = "Score the text in this file, all its lines; repeat for more texts."
    kind = click.Path(path_type=Path)
    return click.option("--prompt-file", "prompt_files", type=kind, multiple=True, metavar="FILE", help=told)(function)


def prompts_of(prompt: str | None, files: Sequence[Path]) -> tuple[str, ...]:
    """The texts to score in the place of the target's; none were given: ().

    Raises:
        UsageError: both a text and files were given, or as of `prompt_in`.
        DataError: as of `prompt_in`.
    """
    if prompt is not None and files:
        raise UsageError("--prompt and --prompt-file were both given. Leave one out.")
    return (prompt,) if prompt is not None else tuple(map(prompt_in, files))


def prompt_in(path: Path) -> str:
    """The whole text of a file in UTF-8: every line, and nothing stripped.

    Raises:
        UsageError: there is no such file.
        DataError: it is not UTF-8, or empty, or too long for a prompt.
    """
    try:
        text = read_text(path.expanduser(), LONGEST_PROMPT)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}). Name a text file.") from error
    except ValueError as error:
        raise DataError(f"{path} is no prompt: {error}. Name a text file in UTF-8.") from error
    if not text:
        raise DataError(f"{path} is empty. Write a text into it.")
    return text


def opened(target: TargetSpec) -> Generator[Event, None, Loaded]:
    """Load the target; its warnings become events. Leaves a core to others, as a session does: the same number of
    threads, so that a job and its command end in the same bits.
    """
    from inspector.sources.target import open_target

    threads.limit(spare=1)
    loaded = yield from open_target(target)
    for warning in loaded.warnings:
        yield Warned(message=warning)
    return loaded


def one_context(loaded: Loaded, index: int = 0) -> Loaded:
    """The same target with a single context; what was fitted on all of them can be applied to it."""
    contexts, plan = loaded.contexts, loaded.plan
    here = slice(index, index + 1)
    included, train = plan.included[here], plan.train[here]
    return replace(
        loaded,
        contexts=replace(contexts, token_ids=contexts.token_ids[here], names=contexts.names[here]),
        plan=replace(
            plan, included=included, train=train, n_train=int(train.sum()), n_test=int((included & ~train).sum())
        ),
    )


PATIENCE_SECONDS = 0.7
"""For the step under way to end by itself. After that it is ended as a second Ctrl-C ends it: what was kept before
stays, and a step that takes so long is one that is repeated from there.
"""


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a wish that is asked for between two steps.

    A second one acts at once, and so does the first where the next step does not come within `PATIENCE_SECONDS`.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    main = threading.get_ident()
    impatience = threading.Timer(PATIENCE_SECONDS, signal.pthread_kill, (main, signal.SIGINT))
    impatience.daemon = True

    def wish(number: int, _frame: object) -> None:
        stop.set()
        for each, handler in before.items():
            signal.signal(each, handler)
        if not impatience.ident:
            impatience.start()

    def asked() -> bool:
        if stop.is_set():
            impatience.cancel()  # what is saved now is saved in peace
        return stop.is_set()

    for number in before:
        signal.signal(number, wish)
    try:
        yield asked
    finally:
        impatience.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
