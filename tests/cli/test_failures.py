"""Each kind of error: its whole text, its stream and its exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from inspector.cli.failures import run_command
from inspector.cli.narration import follow
from inspector.errors import Cancelled, DataError, ExitCode, InspectorError, ResourceError, TargetError, UsageError
from inspector.events import Loading
from inspector.spec import AppRequest


def fail_with(error: BaseException) -> int:
    @click.command()
    def command() -> None:
        raise error

    return run_command(command, [], open_app=no_app)


def no_app(_request: AppRequest) -> int:
    raise AssertionError("no command here opens the app")


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UsageError("Bad. Do better."), 2, "Bad. Do better."),
        (TargetError("No model. Name one."), 3, "No model. Name one."),
        (DataError("No text. Give some."), 4, "No text. Give some."),
        (ResourceError("Full. Empty it."), 5, "Full. Empty it."),
        (Cancelled("Stopped. Go on."), 6, "Stopped. Go on."),
        (InspectorError("Odd. See the log."), 1, "Odd. See the log."),
        (KeyboardInterrupt(), 6, "Cancelled at your request. Nothing unfinished was written."),
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/a.parquet"),
            5,
            "The disk is full while writing /data/a.parquet. Free some space, or write somewhere else.",
        ),
        (
            OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            5,
            "There was not enough memory. Lower --batch-size or --context-length, or take fewer SAEs with --widths.",
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory"),
            5,
            "There was not enough memory. Lower --batch-size or --context-length, or take fewer SAEs with --widths.",
        ),
        (
            MemoryError(),
            5,
            "There was not enough memory. Lower --batch-size or --context-length, or take fewer SAEs with --widths.",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_error_is_one_line_on_stderr(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail_with(error) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"error: {text}\n")


@pytest.fixture
def foreground() -> Iterator[None]:
    """A shell lets what it runs in the background ignore Ctrl-C, tests too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    hook = sys.excepthook
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert sys.excepthook is hook
    signal.signal(signal.SIGINT, before)


CANCELLED = "Cancelled at your request. Nothing unfinished was written."


def swallowed() -> None:
    """A library that is interrupted and goes on."""
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("foreground")
@pytest.mark.parametrize(
    ("instead", "code", "text"),
    [
        (ImportError("initialization failed"), 6, CANCELLED),
        (UsageError("It is not installed. Install it."), 6, CANCELLED),
        (Cancelled("Stopped; 12 bytes stay. Go on."), 6, "Stopped; 12 bytes stay. Go on."),
        (ResourceError("Full. Empty it."), 5, "Full. Empty it."),
    ],
)
def test_what_a_library_makes_of_ctrl_c_is_still_a_cancellation(
    instead: Exception, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def command() -> None:
        swallowed()
        raise instead

    assert run_command(command, [], open_app=no_app) == code
    assert capsys.readouterr().err == f"error: {text}\n"


@pytest.mark.usefixtures("foreground")
def test_ctrl_c_that_is_swallowed_acts_at_the_next_import_of_a_library(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def command() -> None:
        swallowed()
        with contextlib.suppress(ImportError):
            pass
        with contextlib.suppress(ImportError):
            import no_such_package  # noqa: F401
        raise AssertionError("it went on")

    assert run_command(command, [], open_app=no_app) == 6
    assert capsys.readouterr().err == f"error: {CANCELLED}\n"
    with pytest.raises(ModuleNotFoundError):
        import no_such_package  # noqa: F401


@pytest.mark.usefixtures("foreground")
def test_ctrl_c_that_is_swallowed_acts_between_two_events(capsys: pytest.CaptureFixture[str]) -> None:
    closed = []

    def work() -> Iterator[Loading]:
        try:
            swallowed()
            yield Loading(what="a")
            yield Loading(what="it went on")
        finally:
            closed.append(True)

    @click.command()
    def command() -> None:
        follow(work(), quiet=True)  # type: ignore[arg-type]

    assert run_command(command, [], open_app=no_app) == 6
    assert (closed, capsys.readouterr().err) == ([True], f"error: {CANCELLED}\n")


def test_every_exit_code_of_the_contract_is_reached() -> None:
    assert {code.value for code in ExitCode} == set(range(7))


def test_a_bug_leaves_its_traceback_in_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inspector.session.discovery.log_dir", lambda: tmp_path)
    monkeypatch.delenv("DM_INSPECT_DEBUG", raising=False)
    assert fail_with(ZeroDivisionError("division by zero")) == 1
    captured = capsys.readouterr()
    (log,) = tmp_path.iterdir()
    assert (captured.out, captured.err) == (
        "",
        "error: ZeroDivisionError: division by zero. "
        f"Please report it with {log} and the output of `dm-inspect info`.\n",
    )
    assert re.fullmatch(r"error-\d{8}-\d{6}-\d+\.log", log.name)
    assert log.read_text().startswith("Traceback (most recent call last):\n")
    assert log.read_text().endswith("ZeroDivisionError: division by zero\n")


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DM_INSPECT_DEBUG", "1")
    assert fail_with(DataError("No text. Give some.")) == 4
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.endswith("error: No text. Give some.\n")


def test_a_reader_that_has_enough_is_no_error() -> None:
    """As in `dm-inspect tokens | head -1`: nothing on stderr, and the code of success."""
    script = """
import sys, click
from inspector.cli.failures import run_command
from inspector.cli.narration import follow
@click.command()
def many() -> None:
    for number in range(200_000):
        click.echo(number)
sys.exit(run_command(many, [], open_app=None))
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert (process.wait(120), process.stderr.read()) == (0, b"")


def test_a_stream_that_is_not_utf8_shows_question_marks() -> None:
    script = """
import sys, click
from inspector.cli.failures import run_command
from inspector.cli.narration import follow
@click.command()
def one() -> None:
    print("R\\u00b2 \\u2192 1")
sys.exit(run_command(one, [], open_app=None))
"""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"R? ? 1\n", b"")
