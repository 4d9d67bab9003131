"""JSON that every parser reads and no terminal obeys, and files that are whole or absent."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.cli.output import output_folder, print_json_list, to_json, whole_file
from inspector.errors import UsageError


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
