"""Nothing is waited for that never comes; a file is the old or the new one, never a part; what is linked to stays."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from inspector.disk.files import (
    NoFile,
    is_own_file,
    is_own_folder,
    open_file,
    parse_json,
    read_file,
    read_text,
    remove_files,
    remove_tree,
    require_file,
    write_if_possible,
    write_whole,
)
from inspector.errors import InspectorError, ResourceError
from tests.commands import ROOT

SECONDS = 120.0
"""For a command that must not wait for ever; none takes five."""


def pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


def test_only_a_regular_file_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "link", 4) == b"text" and read_text(tmp_path / "file") == "text"
    require_file(tmp_path / "file")
    require_file(tmp_path / "none")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "socket"))
        for path in (pipe(tmp_path / "pipe"), tmp_path / "socket", Path("/dev/zero")):
            with pytest.raises(OSError):
                open_file(path)
            with pytest.raises(NoFile, match="it is not a regular file"):
                require_file(path)
    with pytest.raises(ValueError, match="it has 4 bytes"):
        read_file(tmp_path / "file", 3)


@pytest.mark.parametrize("raw", ["[" * 100_000, '{"a":' * 100_000, "[1", b"\xff"])
def test_json_without_a_bottom_is_a_value_error(raw: bytes | str) -> None:
    with pytest.raises(ValueError):
        parse_json(raw)


def reads(read: Callable[[], object]) -> str:
    """What is said of a pipe in the place of a file; '' where it counts as no file at all."""
    try:
        read()
    except (InspectorError, OSError, ValueError) as error:
        return str(error)
    return ""


def test_a_pipe_in_place_of_any_file_of_ours_is_said_or_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If one of these waited, so would the test: its time is not measured, its end is."""
    from inspector.disk import sealed, tensors
    from inspector.interp.asking import ANSWERS_FILE, AnswerStore
    from inspector.sources import hub_text, registry
    from inspector.store import jobs, results
    from inspector.store.jobs import JobLogFile
    from inspector.training import checkpoint, error_saes
    from inspector.tui import saved_state, themes
    from tests.store.objects import result

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    saved = results.save(result(), "dm-inspect run", folder=tmp_path / "results")
    pipe(tmp_path / "results" / "norm-test-0123456789.json")
    pipe(tmp_path / "results" / results.INDEX_FILE)
    listing = results.list_results(tmp_path / "results")
    assert listing.records == (saved,) and "it is not a regular file" in listing.problems[0]
    assert (tmp_path / "results" / results.INDEX_FILE).is_fifo()

    said = [
        reads(lambda: jobs.JobStore(pipe(tmp_path / "jobs" / jobs.JOBS_FILE).parent).all()),
        reads(lambda: AnswerStore(pipe(tmp_path / "answers" / ANSWERS_FILE).parent)),
        reads(lambda: themes.load_theme(pipe(tmp_path / "x.toml"))),
        reads(lambda: sealed.read_sealed(pipe(tmp_path / "sealed.json"))),
        reads(lambda: tensors.read_tensors(pipe(tmp_path / "a.safetensors"), "0" * 64)),
        reads(lambda: checkpoint.load(pipe(tmp_path / "out/.training/checkpoint.json").parents[1], "run")),
        reads(lambda: error_saes.damage_of(pipe(tmp_path / "error" / error_saes.ABOUT_FILE).parent)),
        reads(lambda: error_saes.load_map(pipe(tmp_path / "linear_map.safetensors"))),
    ]
    assert [text for text in said if "not a regular file" not in text] == []
    assert hub_text._read(pipe(tmp_path / "tokens.safetensors")) is None
    assert registry._read(pipe(tmp_path / "registry.json")) is None
    pipe(saved_state.state_directory() / "view.json")
    assert saved_state.load_state() == saved_state.UiState()
    log = pipe(tmp_path / "logs" / "aa.log")
    JobLogFile(log).say("nobody reads this")
    assert JobLogFile(log).last_lines(3) == []


def test_commands_end_beside_pipes(tmp_path: Path) -> None:
    """The whole way, in a process of its own, which is ended if it waits."""
    pipe(tmp_path / "results" / "norm-test-0123456789.json")
    pipe(tmp_path / "jobs" / "jobs.sqlite")
    environment = os.environ | {
        "HOME": str(tmp_path),
        "DM_INSPECT_RESULTS_DIR": str(tmp_path / "results"),
        "DM_INSPECT_JOBS_DIR": str(tmp_path / "jobs"),
    }
    for words, code in ((("results", "list"), 0), (("jobs", "list"), 5), (("cache", "verify"), 4)):
        done = subprocess.run(
            [sys.executable, "-m", "inspector", *words],
            env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS,
        )  # fmt: skip
        assert done.returncode == code and "not a regular file" in done.stdout + done.stderr, words


def test_a_theme_of_brackets_is_left_out(tmp_path: Path) -> None:
    from inspector.tui.themes import find_themes

    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    (tmp_path / "large.toml").write_text("#" * (2 << 20))
    found, problems = find_themes([tmp_path])
    assert found == {} and len(problems) == 2 and all("cannot be read" in problem for problem in problems)


def test_a_folder_of_experiments_that_everybody_can_write_to_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inspector.errors import UsageError
    from inspector.experiments import files

    (tmp_path / "mine.py").write_text("")
    monkeypatch.setenv("DM_INSPECT_EXPERIMENTS_DIR", str(tmp_path))
    assert "mine" in files()
    for path in (tmp_path, tmp_path / "mine.py"):
        mode = path.stat().st_mode
        path.chmod(mode | 0o002)
        with pytest.raises(UsageError, match=f"Everybody on this machine can write to {path}"):
            files()
        path.chmod(mode)


def thesis(folder: Path) -> Path:
    """A folder that is somebody's."""
    folder.mkdir()
    (folder / "about.json").write_text("mine")
    return folder


def test_a_link_is_no_folder_and_no_file_of_ours(tmp_path: Path) -> None:
    theirs = thesis(tmp_path / "theirs")
    (tmp_path / "folder").symlink_to(theirs)
    (tmp_path / "file").symlink_to(theirs / "about.json")
    os.mkfifo(tmp_path / "pipe")
    assert is_own_folder(theirs) and is_own_file(theirs / "about.json")
    assert not is_own_folder(tmp_path / "folder") and not is_own_folder(tmp_path / "none")
    assert not any(is_own_file(tmp_path / name) for name in ("file", "pipe", "folder", "none", "theirs"))


def test_a_link_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    theirs = thesis(tmp_path / "theirs")
    (tmp_path / "link").symlink_to(theirs)
    with pytest.raises(OSError):
        remove_files(tmp_path / "link", lambda name: True)
    with pytest.raises(OSError):
        remove_tree(tmp_path / "link")
    assert (theirs / "about.json").read_text() == "mine"


def test_of_a_link_inside_only_the_link_goes(tmp_path: Path) -> None:
    theirs = thesis(tmp_path / "theirs")
    (tmp_path / "ours" / "deep").mkdir(parents=True)
    (tmp_path / "ours" / "deep" / "link").symlink_to(theirs)
    remove_tree(tmp_path / "ours")
    assert not (tmp_path / "ours").exists() and (theirs / "about.json").read_text() == "mine"


def test_only_files_of_our_names_go_and_the_last_goes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.own", "z.own", "lock", "notes.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "b.own").mkdir()
    gone: list[str] = []
    unlink = os.unlink
    monkeypatch.setattr(os, "unlink", lambda name, **more: (gone.append(name), unlink(name, **more)))
    assert not remove_files(tmp_path, lambda name: name.endswith(".own"), last="lock")
    assert gone == ["a.own", "z.own", "lock"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.own", "notes.txt"]


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "result.json"
    write_whole(path, "{}")
    assert path.read_text() == "{}"
    write_whole(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(path.parent) == ["result.json"]


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_whole(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match=r"result\.json could not be written: No space left on device\. "):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]


def test_an_interruption_leaves_the_old_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_whole(path, "old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["result.json"]


def test_what_can_be_made_again_is_written_if_the_disk_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)  # what can be made again need not outlive a power cut
    path = tmp_path / "new" / "list.json"
    assert write_if_possible(path, "é") and path.read_bytes() == "é".encode()
    monkeypatch.setattr(os, "replace", full)
    assert not write_if_possible(path, "other")
    assert path.read_bytes() == "é".encode() and os.listdir(path.parent) == ["list.json"]
