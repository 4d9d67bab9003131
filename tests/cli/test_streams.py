"""Where output goes that nobody takes: closed, on a full disk, into a pipe without a reader. Codes as documented."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inspector import streams

FULL = "error: The disk is full while writing stdout. Free some space, or write somewhere else.\n"
COMMANDS = ["--help", "tokens --help", "experiments", "experiments --json", "results list --json", "cache info --json"]


def run(command: str, redirected: str, home: Path) -> subprocess.CompletedProcess[str]:
    """The command in a shell, its streams as written after it."""
    environment = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    environment = {name: value for name, value in environment.items() if not name.startswith("XDG_D")}
    line = f"{sys.executable} -m inspector {command} {redirected}"
    return subprocess.run(line, check=False, shell=True, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_stdout_wants_nothing_and_gets_it(command: str, tmp_path: Path) -> None:
    done = run(command, ">&-", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_disk_under_stdout_is_code_5(command: str, tmp_path: Path) -> None:
    done = run(command, ">/dev/full", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (5, "", FULL)


@pytest.mark.parametrize("command", ["--help", "experiments --json"])
def test_a_pipe_without_a_reader_is_success(command: str, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "inspector", *command.split()],
            check=False,
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_other_closed_streams(tmp_path: Path) -> None:
    """What goes to a closed stderr does not turn up among the data; no file takes a closed stream's number."""
    whole = run("experiments --json", "", tmp_path).stdout
    done = run("experiments --json", "2>&- <&-", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, whole, "")
    done = run("experiments --nonsense", "2>&-", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_a_stdout_that_cannot_be_written_to_is_one_sentence(tmp_path: Path) -> None:
    done = run("experiments --json", "1</dev/null", tmp_path)
    said = "error: The output cannot be written: Bad file descriptor. Send it somewhere else.\n"
    assert (done.returncode, done.stderr) == (5, said)


def test_a_pipe_that_breaks_elsewhere_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    """A session that hangs up raises the same error as `| head`, and is no success."""
    import click

    from inspector.cli.failures import run_command

    @click.command()
    def hung_up() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    assert not streams.nobody_reads()
    assert run_command(hung_up, [], open_app=lambda request: 0) == 1
