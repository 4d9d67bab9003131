"""Files that hold anything but what their name says."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from inspector.errors import DataError, UsageError
from inspector.sources import readers, record_files
from inspector.sources.readers import HubText, check_file, check_text, read_records, read_text, record_name, shuffled
from inspector.sources.records import Decoder, Reading, decoded, mended


def records(path: Path) -> list[tuple[int, str]]:
    return list(read_records(path, Reading()))


def test_text_files_come_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfna\xc3\xafve\r\n\x1b[31m")
    assert read_text(path, 1000, seed=0) == ([("a.txt", "naïve\r\n\x1b[31m")], ())


def test_of_a_large_text_whole_lines_from_random_places_are_read_and_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    lines = [f"line {i:05}\n" for i in range(100_000)]
    path.write_text("".join(lines))
    size = {"piece_bytes": 1500, "whole": 1_000_000}
    pieces, notes = read_text(path, 30_000, seed=3, **size)
    assert notes == ("a.txt: 0.0 of its 1.1 MB were read, at 20 places by the seed.",)
    assert pieces == read_text(path, 30_000, seed=3, **size)[0] != read_text(path, 30_000, seed=4, **size)[0]
    assert set(pieces) < set(read_text(path, 60_000, seed=3, **size)[0])  # more are the same and others
    starts = []
    for name, text in pieces:
        start = int(name.removeprefix("a.txt from byte ").replace(",", ""))
        first = int(text[5:10])
        assert text == "".join(lines[first : first + len(text) // 11])  # whole lines, as they stand in the file
        assert (0 < first * 11 - start <= 11) or start == 0
        starts.append(first)
    assert starts == sorted(set(starts))
    assert starts[-1] - starts[0] > 60_000  # from all of the file, not from its front
    everything, notes = read_text(path, 10_000_000, seed=3, **size)
    assert notes == ()
    assert len(everything) == -(-1_100_000 // 1500)
    assert read_text(path, 10, seed=0, whole=1_100_000) == ([("a.txt", "".join(lines))], ())


def test_a_cut_through_a_character_is_not_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for character in ("é", "日", "😀"):
        path.write_text("x" + character * 1000, encoding="utf-8")
        for size in range(600, 610):
            pieces, notes = read_text(path, size, seed=0, piece_bytes=size, whole=size)
            assert set(pieces[0][1]) <= {"x", character}
            assert len(notes) == 1


def test_bytes_that_are_no_utf8_become_replacement_characters_and_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("naïve café, très bien \ufffd ".encode() * 50 + "déjà vu ".encode("latin-1") * 10)
    (_, text), notes = read_text(check_file(str(path)), 10_000, seed=0)[0][0], read_text(path, 10_000, seed=0)[1]
    assert text == "naïve café, très bien \ufffd " * 50 + "d\ufffdj\ufffd vu " * 10
    assert notes == ("a.txt: 20 characters were no valid UTF-8 or half a surrogate pair and became U+FFFD.",)


def test_halves_of_surrogate_pairs_are_mended() -> None:
    assert mended("plain 😀") == ("plain 😀", 0)
    assert mended("a\ud83d x") == ("a\ufffd x", 1)
    assert mended("\ude00\ud83d\ude00\udce9") == ("\ufffd😀\ufffd", 2)


def test_text_that_comes_in_pieces_is_what_it_is_whole() -> None:
    data = b"\xef\xbb\xbf" + "aé日😀\ufffd".encode() * 3 + b"\xff\xc3(\xed\xa0\xbd\xf0\x9f"
    expected = decoded(data)
    assert expected == ("aé日😀\ufffd" * 3 + data[42:].decode("utf-8", "replace"), 6)
    for size in range(1, 9):
        decoder = Decoder()
        text = "".join(decoder.decode(data[i : i + size]) for i in range(0, len(data), size))
        assert (text + decoder.decode(b"", last=True), decoder.replaced) == expected


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"text\x00more", r"is a binary file: byte 4 is NUL\."),
        ("привет мир".encode("cp1251"), r"is not UTF-8 text: 9 of 10 characters cannot be decoded\."),
        (bytes(random.Random(0).choices(range(1, 256), k=400)), "is a binary file: many of its bytes are control"),
        ("hello".encode("utf-16"), r"is UTF-16 text\. Save it as UTF-8\."),
        ("hello".encode("utf-16-le"), "is a binary file: byte 1 is NUL"),
    ],
)
def test_what_is_not_text_is_refused_with_the_place(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match=says):
        read_text(path, 1000, seed=0)


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
        ("hf:monology/pile-uncopyrighted", "monology/pile-uncopyrighted", "train", None),
        ("hf:some/set:validation", "some/set", "validation", None),
        ("hf:some/set:train:content", "some/set", "train", "content"),
    ],
)
def test_a_data_set_of_the_hub_is_named_with_split_and_field(
    typed: str, name: str, split: str, field: str | None
) -> None:
    assert check_text(typed) == HubText(name=name, split=split, field=field)


def test_a_field_can_be_named_once(tmp_path: Path) -> None:
    assert check_text("hf:some/set", "body") == HubText(name="some/set", split="train", field="body")
    assert check_text("hf:some/set:test:body", "body") == HubText(name="some/set", split="test", field="body")
    with pytest.raises(UsageError, match="names a field and --text-field 'other' another one"):
        check_text("hf:some/set:test:body", "other")
    (tmp_path / "a.txt").write_text("one text")
    for text in (str(tmp_path / "a.txt"), "demo"):
        with pytest.raises(UsageError, match=r"names a field of records, and .* has none. Leave it out"):
            check_text(text, "body")


@pytest.mark.parametrize("typed", ["hf:", "hf:../x", "hf:a/b/c", "hf:a b", "hf:/etc/passwd", "hf:a/b:\x1b:c"])
def test_what_names_no_data_set_is_refused(typed: str) -> None:
    with pytest.raises(DataError, match="names no data set"):
        check_text(typed)


def test_json_lines_take_the_text_field_or_the_one_with_most_text(tmp_path: Path) -> None:
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
    problems = Reading()
    assert list(read_records(path, problems)) == [(1, "one"), (5, "five")]
    broken, without = problems.notes(path.name)
    assert broken.startswith("a.jsonl: 2 lines could not be read and were left out; line 2: ")
    assert without == "a.jsonl: 1 record without text in field 'text' was left out."


def test_files_without_any_record_say_what_is_wrong_first(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("not json\n")
    with pytest.raises(DataError, match=r"has no record with text\. The first problem: line 1: "):
        records(path)
    path.write_text('{"n": 1}\n')
    with pytest.raises(DataError, match=r"has no field that holds text; its fields: n \(numbers\)"):
        records(path)
    path.write_bytes(b"\x1f\x8b\x00\x00")
    with pytest.raises(DataError, match="is a binary file: line 1 holds a NUL byte"):
        records(path)


def test_deeply_nested_json_is_a_broken_line_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("[" * 200_000 + '\n{"text": "two"}\n')
    assert records(path) == [(2, "two")]


def test_a_line_that_is_too_long_is_left_out_and_an_endless_one_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_files, "MAX_LINE", 1 << 20)
    path = tmp_path / "a.jsonl"
    path.write_text('"' + "x" * (2 << 20) + '"\n"short"\n')
    problems = Reading()
    assert list(read_records(path, problems)) == [(2, "short")]
    assert problems.notes("a.jsonl") == ("a.jsonl: 1 lines of more than 16 MB were left out.",)
    monkeypatch.setattr(record_files, "MAX_SKIPPED", 2 << 20)
    with pytest.raises(DataError, match=r"Line 1 of .* is longer than 2 MB"):
        records(path)


ROWS = [{"id": i, "url": f"u{i}", "text": None if i % 5 == 0 else f"record {i} \ud83d\ude00 é"} for i in range(3000)]


@pytest.mark.parametrize(
    "name", ["a.ndjson", "A.JSONL", "a.json", "lines.json", "pretty.json", "array.json", "b.ndjson.zst"]
)
def test_the_same_records_in_any_json_are_the_same_texts(tmp_path: Path, name: str) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    text = {
        "a.json": json.dumps(ROWS),
        "array.json": "\ufeff \n" + json.dumps(ROWS, indent=2),
        "pretty.json": "\n\n".join(json.dumps(row, indent=1) for row in ROWS),
    }.get(name, lines)
    path = tmp_path / name
    if name.endswith(".zst"):
        with pyarrow.output_stream(str(path), compression="zstd") as stream:
            stream.write(text.encode())
    else:
        path.write_text(text, encoding="utf-8")
    problems = Reading()
    assert check_file(str(path)) == path
    assert list(read_records(path, problems)) == [(i + 1, f"record {i} 😀 é") for i in range(3000) if i % 5]
    assert problems.field == "text"
    assert problems.notes(name) == (f"{name}: 600 records without text in field 'text' were left out.",)


def test_lines_of_a_large_file_come_in_seeded_order_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_files, "SCATTERED_FROM", 1000)
    monkeypatch.setattr(record_files, "PIECE", 64)
    path = tmp_path / "a.jsonl"
    lengths = random.Random(0).choices(range(200), k=300)  # lines shorter and longer than a piece
    lines = [
        json.dumps({"text": f"{i} " + "é" * n}, ensure_ascii=False).encode() + b"\n" for i, n in enumerate(lengths)
    ]
    lines[7:7] = [b"\n", b"nonsense\n"]
    data = b"\xef\xbb\xbf" + b"".join(lines).rstrip(b"\n")
    path.write_bytes(data)
    problems = Reading(seed=1)
    found = list(read_records(path, problems))
    assert found == list(read_records(path, Reading(seed=1))) != list(read_records(path, Reading(seed=2)))
    assert sorted(int(text.split()[0]) for _, text in found) == list(range(300))
    assert [int(text.split()[0]) for _, text in found] != list(range(300))
    for place, text in found:
        line = data[place:].split(b"\n")[0]
        assert json.loads(line.decode("utf-8-sig"))["text"] == text
    place = data.index(b"nonsense")
    assert problems.first.startswith(f"the line at byte {place:,}: Expecting value")
    assert (problems.broken, problems.any_order, record_name(path)) == (1, True, "record at byte")


def test_arrays_that_are_broken_say_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    for text, says in (
        ('[{"text": "one"}, {"text": tw}]', "Record 2 of .* cannot be read: Expecting value"),
        ('[{"text": "one"}, {"text": "t', "Record 2 of .* cannot be read: Unterminated string"),
        ("[" * 200_000, "Record 1 of .* cannot be read: maximum recursion depth"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=says):
            records(path)
    path.write_text('[{"text": "one"}, {"text": "two"}')
    problems = Reading()
    assert [text for _, text in read_records(path, problems)] == ["one", "two"]
    assert "the array is not closed" in problems.notes("a.json")[0]
    monkeypatch.setattr(record_files, "MAX_LINE", 1 << 20)
    path.write_text('["' + "x" * (4 << 20) + '"]')
    with pytest.raises(DataError, match=r"Record 1 of .* is broken or longer than 1 MB"):
        records(path)


def test_the_field_is_chosen_from_all_records_by_name_then_by_amount_of_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    def chosen(*rows: dict[str, object], asked: str | None = None) -> str | None:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        problems = Reading(field=asked)
        list(read_records(path, problems))
        return problems.field

    assert chosen({"url": "u"}, {"url": "u", "content": "c"}, {"text": "t"}) == "text"  # not what the first one has
    assert chosen({"title": "a long title", "Content": "c"}) == "Content"
    assert chosen({"id": "x1", "essay": "long enough"}) == "essay"
    assert chosen({"text": 5, "content": "c"}) == "content"
    assert chosen({"text": None, "essay": "e"}, {"text": None, "essay": None}) == "essay"
    assert chosen({"text": "t", "essay": "e"}, asked="essay") == "essay"
    with pytest.raises(DataError, match=r"has no field 'esay'; its fields: text \(text\), n \(numbers\)\."):
        chosen({"text": "t", "n": 1}, asked="esay")
    with pytest.raises(DataError, match=r"Field 'n' of .* holds numbers, no text"):
        chosen({"text": "t", "n": 1}, asked="n")
    path.write_text('"bare"\n')
    with pytest.raises(DataError, match=r"have no fields, so none is 'n'"):
        list(read_records(path, Reading(field="n")))


def test_characters_that_are_none_are_replaced_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "\\ud83d x"}\n{"text": "caf\xe9"}\n{"text": "\\ud83d\\ude00 \xef\xbf\xbd"}\n')
    problems = Reading()
    assert [text for _, text in read_records(path, problems)] == ["\ufffd x", "caf\ufffd", "😀 \ufffd"]
    assert problems.replaced == 2


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


def test_parquet_takes_the_text_column_or_the_one_with_most_text(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"id": [1, 2, 3], "meta": ["x", "y", "z"], "text": ["one", None, "three"]}), path)
    problems = Reading()
    assert list(read_records(path, problems)) == [(1, "one"), (3, "three")]
    assert problems.without_text == 1
    parquet.write_table(pyarrow.table({"id": [1], "body": pyarrow.array(["b"], pyarrow.large_string())}), path)
    assert records(path) == [(1, "b")]
    parquet.write_table(pyarrow.table({"id": [1], "n": [2.0]}), path)
    with pytest.raises(DataError, match=r"has no field that holds text; its fields: id \(int64\), n \(double\)\."):
        records(path)
    path.write_text("not parquet at all")
    with pytest.raises(DataError, match="is not a readable parquet file"):
        records(path)


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.string(),
        pyarrow.large_string(),
        pyarrow.binary(),
        pyarrow.large_binary(),
        pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        pyarrow.dictionary(pyarrow.int16(), pyarrow.large_string()),
    ],
    ids=str,
)
def test_parquet_text_of_every_type(tmp_path: Path, kind: pyarrow.DataType) -> None:
    texts = ["one é", None, "three", "one é", " ", "six"]
    table = pyarrow.table({"title": ["a longer title than any text"] * 6, "text": pyarrow.array(texts).cast(kind)})
    path = tmp_path / "a.PARQUET"
    parquet.write_table(table, path, row_group_size=4)
    problems = Reading()
    assert list(read_records(path, problems)) == [(1, "one é"), (3, "three"), (4, "one é"), (6, "six")]
    assert (problems.field, problems.without_text) == ("text", 2)


def test_parquet_columns_of_nothing_and_strings_with_odd_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    strings = pyarrow.string()
    table = {"text": pyarrow.array([None, None], strings), "url": ["u", "v"], "essay": ["one \0 two", "\x1b three"]}
    parquet.write_table(pyarrow.table(table), path)
    problems = Reading()
    assert [text for _, text in read_records(path, problems)] == ["one \0 two", "\x1b three"]
    assert problems.field == "essay"
    with pytest.raises(DataError, match=r"has no record with text"):
        list(read_records(path, Reading(field="text")))
    monkeypatch.setattr(record_files, "MAX_UNPACKED", 1 << 20)
    table = {"html": ["x" * 300_000] * 10, "text": ["one"] * 10}
    parquet.write_table(pyarrow.table(table), path, compression="zstd", use_dictionary=False)
    assert len(records(path)) == 10  # a bomb beside the text is not touched
    with pytest.raises(DataError, match="which no text does"):
        list(read_records(path, Reading(field="html")))


def test_row_groups_of_a_large_file_come_in_seeded_order_with_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": [f"text {i}" for i in range(1, 101)]}), path, row_group_size=7)
    assert [number for number, _ in records(path)] == list(range(1, 101))
    monkeypatch.setattr(record_files, "SHUFFLE_RECORDS", 99)
    one, again, other = (list(read_records(path, Reading(seed=seed))) for seed in (1, 1, 2))
    assert one == again != other
    assert sorted(one) == [(i, f"text {i}") for i in range(1, 101)] != one


def test_a_file_that_was_not_read_to_its_end_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n' * 10)
    reading = Reading()
    stream = read_records(path, reading)
    next(stream)
    assert reading.notes("a.jsonl") == ("a.jsonl was not read to its end: contexts are of its first 1 records.",)
    list(stream)
    assert reading.notes("a.jsonl") == ()


def test_bytes_that_are_no_text_are_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"content": [b"\x89PNG\0\0", b"\0"], "caption": ["a cat", "a dog"]}), path)
    problems = Reading()
    assert [text for _, text in read_records(path, problems)] == ["a cat", "a dog"]
    assert problems.field == "caption"
    with pytest.raises(DataError, match=r"Field 'content' of .* holds bytes, no text"):
        list(read_records(path, Reading(field="content")))


BOMB = """
import sys
from pathlib import Path
from inspector.errors import DataError
from inspector.sources.readers import read_records, shuffled
from inspector.sources.records import Reading
import pyarrow.parquet
from inspector.sources import record_files
record_files.MAX_SKIPPED = 100 << 20
peak = lambda: int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])  # of this process alone
before = peak()
try:
    n = sum(1 for _ in shuffled(read_records(Path(sys.argv[1]), Reading()), 0))
except DataError as error:
    n = error
print((peak() - before) // 1024, n)
"""


def bombed(path: Path) -> tuple[int, str]:
    """MB that reading took, and how many records there were, or what was said."""
    done = subprocess.run([sys.executable, "-c", BOMB, str(path)], capture_output=True, text=True, check=True)
    used, _, said = done.stdout.strip().partition(" ")
    return int(used), said


def test_a_small_file_of_large_texts_takes_little_memory_or_is_refused(tmp_path: Path) -> None:
    """60 rows of 30 MB in 3 kB took 5.3 GB. Here they are 12 MB; held are 64 M characters and a few texts."""
    path = tmp_path / "bomb.parquet"
    text = "a" * 12_000_000
    places = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 60, pyarrow.int32()), [text])
    parquet.write_table(pyarrow.table({"text": places}), path, compression="zstd")
    assert path.stat().st_size < 3000
    used, said = bombed(path)
    assert said == "60"
    assert used < 400
    parquet.write_table(pyarrow.table({"text": [text] * 24}), path, compression="zstd", use_dictionary=False)
    used, said = bombed(path)
    assert re.search(r"would unpack [\d,]+ bytes to 288,000,\d+, which no text does. Choose another", said)
    assert used < 100
    path = tmp_path / "bomb.jsonl.zst"
    with pyarrow.output_stream(str(path), compression="zstd") as stream:
        for _ in range(4):
            stream.write(b"a" * (30 << 20))
    used, said = bombed(path)
    assert "is longer than 100 MB. Put a record on a line." in said
    assert used < 200


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
