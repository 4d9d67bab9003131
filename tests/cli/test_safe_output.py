"""Nothing that lies in a file acts on the terminal of who looks at it."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import inspector
from inspector.cli.output import print_data, print_text
from inspector.drawing.safe_text import visible_block
from inspector.store import results
from inspector.store.jobs import JobStore
from tests.cli.conftest import Run
from tests.store.objects import result
from tests.store.test_jobs import job

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp\u2066\x00\r\x08\u200b"


def is_harmless(text: str) -> bool:
    """Whether no character of it is a control, a format or a separator character."""
    return all(line.isprintable() for line in text.split("\n"))


def poisoned(value: Any, key: str = "") -> Any:
    """The same object with EVIL in every string that is no name of an experiment or a profile."""
    if isinstance(value, dict):
        return {name: poisoned(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each) for each in value]
    return value + EVIL if isinstance(value, str) and key not in ("experiment", "fingerprint", "profile") else value


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of two results with a right checksum and poison in all of their texts; a job and its log beside them."""
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("DM_INSPECT_JOBS_DIR", str(tmp_path / "jobs"))
    first, second = (
        results.save(poisoned(result(fingerprint=digits * 32)), f"dm-inspect run {EVIL}").id for digits in ("0a", "1b")
    )
    JobStore(tmp_path / "jobs").add(job("aa01", state="done"))
    log = JobStore(tmp_path / "jobs").log("aa01").path
    log.parent.mkdir()
    log.write_text(f"one {EVIL}\ntwo\n")
    return [first, second]


def test_no_command_about_what_is_stored_lets_anything_through(run: Run, shelf: list[str]) -> None:
    one, other = shelf
    for words in (
        *(("results", "list"), ("results", "show", one), ("results", "compare", one, other), ("results", "claims")),
        *(("jobs", "list"), ("jobs", "show", "aa01"), ("jobs", "log", "aa01"), ("cache", "info"), ("cache", "verify")),
    ):
        done = run(*words)
        assert done.code == 0 and done.out + done.err, words
        assert is_harmless(done.out), words
        assert is_harmless(done.err), words


def test_in_colours_only_codes_of_our_own_are_left(run: Run, shelf: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import re

    from inspector.cli import report

    monkeypatch.setattr(report, "look_of_stdout", lambda: report.Look(width=100, depth="truecolor"))
    for words in (("results", "show", shelf[0]), ("results", "compare", *shelf), ("results", "claims")):
        out = run(*words).out
        assert "\x1b[" in out and is_harmless(re.sub(r"\x1b\[[0-9;]*m", "", out)), words
        assert "\x1b[2J" not in out and "\x9b" not in out


def test_a_line_stays_a_line_and_plain_text_is_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    plain = "R² = 1 − a ≤ b → c\n\n│ ─ ▁\n"
    print_text(plain, end="")
    assert capsys.readouterr().out == plain == visible_block(plain)
    print_text("a\x07b\n\x1b[31mc")
    assert capsys.readouterr().out == "a␇b\n␛[31mc\n"
    print_text("\x1b[31mc\x1b[0m\x1b[2J", coloured=True)
    assert capsys.readouterr().out == "\x1b[31mc\x1b[0m␛[2J\n"


def test_data_is_exact_in_a_pipe_and_harmless_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    print_data("a\x1b,b\n")
    assert capsys.readouterr().out == "a\x1b,b\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_data("a\x1b,b\n")
    assert capsys.readouterr().out == "a␛,b\n"


def test_text_leaves_the_commands_through_one_door() -> None:
    """`print` is called only where stderr is meant, and there behind the filter."""
    folder = Path(inspector.__file__).parent / "cli"
    calls = {
        path.name
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert calls == {"failures.py", "narration.py"}


def test_json_needs_no_filter(run: Run, shelf: list[str]) -> None:
    out = run("results", "show", shelf[0], "--json").out
    assert is_harmless(out) and out.isascii() and EVIL in json.loads(out)["provenance"]["model"]
