"""JSON that every parser reads and no terminal obeys, and files that are whole or absent."""

from __future__ import annotations

import json
import math
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.cli.output import output_folder, print_json_list, to_json, whole_file
from inspector.errors import UsageError
from tests.commands import ROOT


def test_what_is_not_a_number_is_null() -> None:
    row = {"loss": math.nan, "range": (1.5, math.inf), "inner": [{"x": -math.inf}]}
    assert to_json(row) == '{"loss": null, "range": [1.5, null], "inner": [{"x": null}]}'


@given(st.text())
def test_any_token_becomes_printable_ascii_and_comes_back(token: str) -> None:
    line = to_json({"token": token})
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {"token": token}


def test_a_list_is_one_object_with_a_row_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json_list("rows", iter([{"a": 1}, {"a": 2}]))
    print_json_list("rows", iter(()))
    assert capsys.readouterr().out == '{"rows": [\n{"a": 1},\n{"a": 2}\n]}\n{"rows": []}\n'


def test_a_file_appears_whole(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        assert not (tmp_path / "a.json").exists()
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "whole"


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "old")]


def written(path: Path, text: str = "whole") -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text)


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    written(pipe)
    assert os.read(reader, 100) == b"whole"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.lstat().st_mode) and [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    """A link to /dev/null stands for it, so that a failure of this test breaks nobody's machine."""
    (tmp_path / "null").symlink_to("/dev/null")
    written(tmp_path / "null")
    assert (tmp_path / "null").is_symlink() and stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["null"]


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "old").write_text("old")
    (tmp_path / "link").symlink_to("there/old")
    (tmp_path / "new").symlink_to("there/new")
    written(tmp_path / "link")
    written(tmp_path / "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "new").is_symlink()
    assert {path.name: path.read_text() for path in (tmp_path / "there").iterdir()} == {"old": "whole", "new": "whole"}


def test_a_socket_and_a_directory_are_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "s"))
        with pytest.raises(UsageError, match="is neither a file nor something to write a stream into"):
            written(tmp_path / "s")
        assert stat.S_ISSOCK((tmp_path / "s").lstat().st_mode)
    with pytest.raises(UsageError, match="is a directory"):
        written(tmp_path)


@pytest.mark.parametrize(("mode", "kept"), [("wb", b""), ("ab", b"before\n")])
def test_stdout_by_its_name_is_what_the_shell_opened(tmp_path: Path, mode: str, kept: bytes) -> None:
    """`> FILE` and `>> FILE`; what the command prints itself follows in the same file."""
    code = (
        "from pathlib import Path; from inspector.cli.output import whole_file\n"
        "with whole_file(Path('/dev/stdout')) as temporary: temporary.write_text('whole\\n')\n"
        "print('after')"
    )
    (tmp_path / "out").write_bytes(b"before\n")
    with (tmp_path / "out").open(mode) as out:  # type: ignore[call-overload]
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True, cwd=ROOT)
    assert (tmp_path / "out").read_bytes() == kept + b"whole\nafter\n"


def test_a_link_under_the_name_of_a_temporary_file_is_not_written_through(tmp_path: Path) -> None:
    """In a folder that others can write to."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f".a.json.{os.getpid()}.tmp").symlink_to(victim)
    written(tmp_path / "a.json")
    assert victim.read_text() == "mine"


def test_modes_are_those_of_the_file_before_or_of_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    (tmp_path / "old").write_text("")
    (tmp_path / "old").chmod(0o640)
    written(tmp_path / "old")
    written(tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o640
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_missing_folder_is_named_before_anything_is_computed(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"^The folder .*/no does not exist\. Create it, or choose another place\.$"),
        whole_file(tmp_path / "no" / "a.json"),
    ):
        raise AssertionError("the block must not run")


def test_a_file_is_no_output_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"^The folder .*/file cannot be made: File exists\. Choose another place\.$"):
        output_folder(tmp_path / "file")
