"""`dm-inspect cache`: what is printed where, exit codes, and JSON."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from inspector.cli.cache import AGE, LIMIT, amount
from inspector.store.results import save
from tests.cli.conftest import Run
from tests.store.objects import result
from tests.store.test_cache import some_checkpoints


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("DM_INSPECT_JOBS_DIR", str(tmp_path / "jobs"))
    monkeypatch.setenv("DM_INSPECT_ANSWERS_DIR", str(tmp_path / "judge"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


KINDS = [
    "results", "index", "jobs", "notes", "checkpoints", "tokens", "registry", "error-saes", "dequantised", "judge",
    "experiments",
]  # fmt: skip


def test_info_lists_every_kind(run: Run, tmp_path: Path) -> None:
    save(result(), "dm-inspect run")
    some_checkpoints(tmp_path / "results" / "checkpoints")
    done = run("cache", "info")
    assert done.code == 0 and done.err == ""
    lines = done.out.splitlines()
    assert lines[0].split() == ["kind", "items", "size", "in", "use", "what", "it", "is", "folder"]
    assert [line.split()[0] for line in lines[2:]] == KINDS
    assert lines[2].split()[1] == "1" and str(tmp_path / "results") in lines[2]
    rows = json.loads(run("cache", "info", "--json").out)["cache"]
    assert [row["kind"] for row in rows] == KINDS
    (checkpoints,) = [row for row in rows if row["kind"] == "checkpoints"]
    assert checkpoints["items"] == 1 and checkpoints["bytes"] > 0 and checkpoints["in_use"] == 0
    assert checkpoints["oldest"].endswith("+00:00") and checkpoints["pruned"] == "yes"
    assert [row["oldest"] for row in rows if not row["items"]] == [None] * 9


def test_verify_says_what_is_damaged_and_ends_with_4(run: Run, tmp_path: Path) -> None:
    save(result(), "dm-inspect run")
    some_checkpoints(tmp_path / "results" / "checkpoints")
    done = run("cache", "verify")
    assert (done.code, done.out) == (0, "") and done.err.startswith("2 items, ")
    assert done.err.endswith(": all as they were written\n")
    (path,) = (tmp_path / "results").glob("*.json")
    path.write_bytes(path.read_bytes().replace(b"0.25", b"0.26", 1))
    done = run("cache", "verify")
    assert done.code == 4
    assert done.out == (
        f"{path} is damaged: its checksum does not fit. "
        "Remove it and measure again; `dm-inspect results list` has the commands of the others.\n"
    )
    assert done.err == ("error: 1 of 2 items is damaged. What was printed says how to make each of them again.\n")
    done = run("cache", "verify", "--json")
    found = json.loads(done.out)
    assert done.code == 4 and found["verified"] == 2
    assert [(each["kind"], each["path"]) for each in found["damaged"]] == [("results", str(path))]


def test_prune_removes_what_is_old(run: Run, tmp_path: Path) -> None:
    some_checkpoints(tmp_path / "results" / "checkpoints")
    folder = tmp_path / "results" / "checkpoints" / "run"
    for file in folder.iterdir():
        os.utime(file, (time.time() - 90_000,) * 2)
    assert run("cache", "prune").out == "" and folder.is_dir()
    assert run("cache", "prune", "--older-than", "2d").out == "" and folder.is_dir()
    done = run("cache", "prune", "--older-than", "1d", "--dry-run")
    assert done.out == f"{folder}\n" and folder.is_dir() and " would be removed; " in done.err
    done = run("cache", "prune", "--older-than", "1d")
    assert done.code == 0 and done.out == f"{folder}\n" and not folder.exists()
    assert done.err.startswith("1 items, ") and done.err.endswith(" removed; 0 B may be pruned still\n")
    found = json.loads(run("cache", "prune", "--max-size", "1G", "--json").out)
    assert found == {"removed": [], "bytes": 0, "in_use": [], "left_bytes": 0, "dry_run": False}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--older-than", "30", "'30' is no age. Write for example 30d, 12h or 90m."),
        ("--older-than", "-3d", "'-3d' is no age."),
        ("--max-size", "much", "'much' is not an amount of bytes. Write 20G, 800M, or 16GiB."),
    ],
)
def test_what_is_no_age_or_size_is_refused(run: Run, option: str, value: str, message: str) -> None:
    done = run("cache", "prune", option, value)
    assert done.code == 2 and message in done.err and done.out == ""


def test_ages_and_sizes_are_read() -> None:
    assert [AGE.read(text) for text in ("90s", "1.5h", "30 d", "2W")] == [90, 5400, 2592000, 1209600]
    read = [LIMIT.read(text) for text in ("12", "500M", "2GiB", "1.5 gb", "3k")]
    assert read == [12, 500_000_000, 2 * 2**30, 1_500_000_000, 3000]
    assert [amount(n) for n in (0, 999, 1500, 14_200_000, 3 * 10**12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "14.2 MB",
        "3.0 TB",
    ]


def test_no_torch_is_needed_to_look(tmp_path: Path) -> None:
    """`info` is for somebody whose disk is full, now."""
    from tests.cli.conftest import run_process

    assert run_process("cache", "info").returncode == 0
    import subprocess
    import sys

    code = "from inspector.cli.cache import all_kinds; import sys; all_kinds(); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
