"""Files that hold anything but what their name says."""

import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from inspector.errors import DataError
from inspector.sources import readers
from inspector.sources.readers import HubText, Problems, check_file, check_text, read_records, read_text, shuffled


def records(path: Path) -> list[tuple[int, str]]:
    return list(read_records(path, Problems()))


def test_text_files_come_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfna\xc3\xafve\r\n\x1b[31m")
    assert read_text(path, 1000) == ("naïve\r\n\x1b[31m", ())


def test_large_text_files_are_read_up_to_the_last_whole_line_and_say_so(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("abc\n" * 1000)
    text, notes = read_text(path, 1003)
    assert text == "abc\n" * 250
    assert notes == ("Only the first 0.0 MB of a.txt were read.",)
    assert read_text(path, 4000) == ("abc\n" * 1000, ())


def test_a_cut_through_a_character_is_not_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("é" * 100, encoding="utf-8")
    assert read_text(path, 51)[0] == "é" * 25


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"text\x00more", r"is a binary file: byte 4 is NUL\."),
        (b"caf\xe9 noir", r"is not UTF-8 text: byte 3 is 0xe9\."),
        ("hello".encode("utf-16"), r"is UTF-16 text\. Save it as UTF-8\."),
        ("hello".encode("utf-16-le"), "is a binary file: byte 1 is NUL"),
    ],
)
def test_what_is_not_text_is_refused_with_the_place(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match=says):
        read_text(path, 1000)


def test_paths_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("")
    (tmp_path / "corpus.tar.gz").write_text("x")
    (tmp_path / "spaces.txt").write_text(" \n ")
    (tmp_path / "binary.py").write_bytes(b"x" * 3000 + b"\0")
    for given, says in (
        ("corpus.txt", "is empty"),
        ("spaces.txt", "is empty"),
        ("binary.py", "is a binary file: byte 3,000 is NUL"),
        ("x" * 5000, r"There is no text file '.*x\.\.\.'"),
        ("a\0b", "There is no text file"),
        ("corpos.txt", r"There is no text file .*Nearest: corpus\.txt"),
        (".", "is a directory. Give one file of it"),
        ("corpus.tar.gz", "compressed in a way that is not read"),
        ("missing/a.txt", "There is no text file"),
    ):
        with pytest.raises(DataError, match=says):
            check_file(str(tmp_path / given))
    with pytest.raises(DataError, match="is not a regular file"):
        check_file("/dev/null")


@pytest.mark.parametrize(
    ("typed", "name", "split", "field"),
    [
        ("hf:monology/pile-uncopyrighted", "monology/pile-uncopyrighted", "train", "text"),
        ("hf:some/set:validation", "some/set", "validation", "text"),
        ("hf:some/set:train:content", "some/set", "train", "content"),
    ],
)
def test_a_data_set_of_the_hub_is_named_with_split_and_field(typed: str, name: str, split: str, field: str) -> None:
    assert check_text(typed) == HubText(name=name, split=split, field=field)


@pytest.mark.parametrize("typed", ["hf:", "hf:../x", "hf:a/b/c", "hf:a b", "hf:/etc/passwd", "hf:a/b:\x1b:c"])
def test_what_names_no_data_set_is_refused(typed: str) -> None:
    with pytest.raises(DataError, match="names no data set"):
        check_text(typed)


def test_json_lines_take_the_text_field_or_the_first_string(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1, "meta": "x", "text": "one"}\n\n{"text": "three", "meta": "y"}\n')
    assert records(path) == [(1, "one"), (3, "three")]
    path.write_text('{"id": 1, "content": "one", "url": "u"}\n{"url": "u", "content": "two"}\n')
    assert records(path) == [(1, "one"), (2, "two")]
    path.write_text('"bare"\n"strings"\n')
    assert records(path) == [(1, "bare"), (2, "strings")]


def test_broken_lines_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n{"text": "tw\n{"text": 5}\nnonsense\n{"text": "five"}\n')
    problems = Problems()
    assert list(read_records(path, problems)) == [(1, "one"), (5, "five")]
    broken, without = problems.notes(path)
    assert broken.startswith("a.jsonl: 2 lines could not be read and were left out; line 2: ")
    assert without == "a.jsonl: 1 records without text were left out."


def test_files_without_any_record_say_what_is_wrong_first(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("not json\n")
    with pytest.raises(DataError, match=r"has no record with text\. The first problem: line 1: "):
        records(path)
    path.write_text('{"n": 1}\n')
    with pytest.raises(DataError, match="Each record needs a field that holds a string"):
        records(path)
    path.write_bytes(b"\x1f\x8b\x00\x00")
    with pytest.raises(DataError, match="is a binary file: line 1 holds a NUL byte"):
        records(path)


def test_deeply_nested_json_is_a_broken_line_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("[" * 200_000 + '\n{"text": "two"}\n')
    assert records(path) == [(2, "two")]


def test_an_endless_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_LINE", 1 << 20)
    path = tmp_path / "a.jsonl"
    path.write_text('"' + "x" * (2 << 20))
    with pytest.raises(DataError, match=r"Line 1 of .* is longer than 1 MB"):
        records(path)


def test_zstandard_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    text = "".join(json.dumps({"text": f"record {i}"}) + "\n" for i in range(5000))
    with pyarrow.output_stream(str(path), compression="zstd") as stream:
        stream.write(text.encode())
    assert records(path) == [(i + 1, f"record {i}") for i in range(5000)]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cannot be read: .* Is it complete"):
        records(path)
    path.write_text("plain text")
    with pytest.raises(DataError, match="cannot be read"):
        records(path)


def test_parquet_takes_the_text_column_or_the_first_of_strings(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"id": [1, 2, 3], "meta": ["x", "y", "z"], "text": ["one", None, "three"]}), path)
    problems = Problems()
    assert list(read_records(path, problems)) == [(1, "one"), (3, "three")]
    assert problems.without_text == 1
    parquet.write_table(pyarrow.table({"id": [1], "body": pyarrow.array(["b"], pyarrow.large_string())}), path)
    assert records(path) == [(1, "b")]
    parquet.write_table(pyarrow.table({"id": [1], "n": [2.0]}), path)
    with pytest.raises(DataError, match=r"has no column of strings. Its columns: id, n\."):
        records(path)
    path.write_text("not parquet at all")
    with pytest.raises(DataError, match="is not a readable parquet file"):
        records(path)


def test_the_shuffle_is_seeded_complete_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = [(i, "x" * 10) for i in range(100)]
    first, again, other = (list(shuffled(data, seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(first) == data != first
    monkeypatch.setattr(readers, "SHUFFLE_RECORDS", 10)
    bounded = [number for number, _ in shuffled(data, 1)]
    assert sorted(bounded) == list(range(100)) != bounded
    assert all(number <= place + 10 for place, number in enumerate(bounded))  # nothing comes before it was read
    monkeypatch.setattr(readers, "SHUFFLE_CHARACTERS", 35)
    assert all(number <= place + 4 for place, (number, _) in enumerate(shuffled(data, 1)))
