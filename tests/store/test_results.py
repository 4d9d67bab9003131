"""Results on disk: the same object comes back; a damaged file is named and hides no other; the index is only a help."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from inspector.errors import DataError, UsageError
from inspector.store.results import (
    INDEX_FILE,
    Record,
    list_results,
    load,
    newest_of_each,
    read,
    save,
    stored_ids,
)
from tests.store.objects import HOSTILE, result

COMMAND = "dm-inspect run error-vector"


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    record = save(result(), COMMAND, folder=tmp_path)
    assert record.id == "error-vector-0123456789"
    stored = load(record.id, folder=tmp_path)
    assert stored.result == result()
    assert stored.record == record
    assert (record.model, record.profile, record.command, record.null) == (HOSTILE, "careful", COMMAND, "")


def test_numbers_that_json_has_no_word_for_become_null(tmp_path: Path) -> None:
    saved = result(result={"nan": math.nan, "infinite": (math.inf, 1.0)})
    assert load(save(saved, COMMAND, folder=tmp_path).id, folder=tmp_path).result["result"] == {
        "nan": None,
        "infinite": [None, 1.0],
    }


def test_measuring_again_replaces_and_is_newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = save(result(warnings=["first"]), COMMAND, folder=tmp_path)
    (tmp_path / f"{first.id}.json").write_text(
        (tmp_path / f"{first.id}.json").read_text().replace(first.created, "2001-01-01T00:00:00+00:00")
    )
    second = save(result(warnings=["second"]), COMMAND, folder=tmp_path)
    assert second.id == first.id and second.created > "2001"
    assert stored_ids(tmp_path) == [first.id]
    assert load(first.id, folder=tmp_path).result["warnings"] == ["second"]


def test_other_parameters_are_another_result(tmp_path: Path) -> None:
    ids = {save(result(fingerprint=digits * 16), COMMAND, folder=tmp_path).id for digits in ("ab", "cd")}
    assert ids == {"error-vector-ababababab", "error-vector-cdcdcdcdcd"}


def test_a_name_that_is_not_utf8_hides_no_other_result(tmp_path: Path) -> None:
    odd = result("norm-prediction")
    odd["provenance"]["model"] = "caf\udce9"
    for each in (odd, result()):
        save(each, "dm-inspect run --text caf\udce9", folder=tmp_path)
    for _ in range(2):  # once from the files, once from the index
        listing = list_results(tmp_path)
        assert {record.experiment for record in listing.records} == {"norm-prediction", "error-vector"}
        assert listing.problems == ()


def test_the_list_is_newest_first_and_a_second_look_opens_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for experiment in ("b-test", "a-test"):
        save(result(experiment), COMMAND, folder=tmp_path)
    first = list_results(tmp_path)
    assert sorted(record.experiment for record in first.records) == ["a-test", "b-test"]

    def never(path: Path) -> Any:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr("inspector.store.results.read", never)
    assert list_results(tmp_path) == first


def test_a_flipped_byte_is_named_and_the_others_are_listed(tmp_path: Path) -> None:
    good = save(result("good-test"), COMMAND, folder=tmp_path)
    bad = save(result("bad-test"), COMMAND, folder=tmp_path)
    list_results(tmp_path)  # the index knows both as they were
    path = tmp_path / f"{bad.id}.json"
    data = bytearray(path.read_bytes())
    place = data.index(b"0.25")
    data[place + 3] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))
    listing = list_results(tmp_path)
    assert listing.records == (good,)
    assert listing.problems == (f"{path} is damaged: its checksum does not fit. Remove it and measure again.",)
    with pytest.raises(DataError, match="checksum does not fit"):
        load(bad.id, folder=tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"sha256": 3}', b"\xff\xfe", b"[" * 100_000, b"null"])
def test_a_file_that_is_no_result_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x-1.json").write_bytes(content)
    (problem,) = list_results(tmp_path).problems
    assert problem.startswith(f"{tmp_path / 'x-1.json'} is damaged: ")
    assert problem.count(". ") == 1


def test_a_file_under_another_name_is_not_that_result(tmp_path: Path) -> None:
    record = save(result(), COMMAND, folder=tmp_path)
    (tmp_path / f"{record.id}.json").rename(tmp_path / "norm-prediction-0123456789.json")
    (problem,) = list_results(tmp_path).problems
    assert "it is not a result of this name" in problem


def test_a_damaged_index_is_made_anew(tmp_path: Path) -> None:
    record = save(result(), COMMAND, folder=tmp_path)
    (tmp_path / INDEX_FILE).write_bytes(b"not a database at all, but long enough to be looked at as one" * 100)
    assert list_results(tmp_path).records == (record,)
    with sqlite3.connect(tmp_path / INDEX_FILE) as index:
        assert index.execute("SELECT id FROM results").fetchall() == [(record.id,)]
    index.close()


def test_an_index_of_another_version_is_made_anew(tmp_path: Path) -> None:
    record = save(result(), COMMAND, folder=tmp_path)
    index = sqlite3.connect(tmp_path / INDEX_FILE)
    with index:
        index.execute("CREATE TABLE results (something)")
    index.close()
    assert list_results(tmp_path).records == (record,)


def test_a_removed_file_leaves_the_list(tmp_path: Path) -> None:
    kept, gone = (save(result(name), COMMAND, folder=tmp_path) for name in ("kept-test", "gone-test"))
    list_results(tmp_path)
    (tmp_path / f"{gone.id}.json").unlink()
    assert list_results(tmp_path).records == (kept,)


def test_nothing_stored_is_an_empty_list(tmp_path: Path) -> None:
    listing = list_results(tmp_path / "missing")
    assert (listing.records, listing.problems) == ((), ())
    assert not (tmp_path / "missing").exists()


def test_an_id_may_be_shortened_while_it_is_the_only_one(tmp_path: Path) -> None:
    save(result(fingerprint="aa" * 8), COMMAND, folder=tmp_path)
    save(result(fingerprint="ab" * 8), COMMAND, folder=tmp_path)
    assert load("error-vector-aa", folder=tmp_path).record.id == "error-vector-aaaaaaaaaa"
    with pytest.raises(UsageError, match="is the beginning of 2 results: error-vector-a"):
        load("error", folder=tmp_path)
    with pytest.raises(UsageError, match=r"There is no result 'eror-vector-aa'\. Nearest: error-vector-a"):
        load("eror-vector-aa", folder=tmp_path)


@pytest.mark.parametrize("wanted", ["../secret", "/etc/passwd", "a\x00b", ".hidden"])
def test_an_id_is_no_path(tmp_path: Path, wanted: str) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "secret.json").write_text("{}")
    with pytest.raises(UsageError, match="There is no result"):
        load(wanted, folder=tmp_path / "store")


def test_the_newest_of_each_leaves_out_measured_controls(tmp_path: Path) -> None:
    made = result()["provenance"] | {"null": "shuffle", "fingerprint": "ff" * 8}
    save(result(provenance=made), COMMAND, folder=tmp_path)
    real = save(result(), COMMAND, folder=tmp_path)
    save(result("norm-prediction"), COMMAND, folder=tmp_path)
    assert [record.id for record in newest_of_each(list_results(tmp_path))] == [
        real.id,
        "norm-prediction-0123456789",
    ]


def test_a_file_is_plain_json_that_anyone_can_read(tmp_path: Path) -> None:
    record = save(result(), COMMAND, folder=tmp_path)
    content = json.loads((tmp_path / f"{record.id}.json").read_text("ascii"))
    assert set(content) == {"format", "id", "created", "command", "result", "sha256"}
    assert read(tmp_path / f"{record.id}.json").record == Record(
        id=record.id,
        experiment="error-vector",
        created=content["created"],
        command=COMMAND,
        profile="careful",
        model=HOSTILE,
        hook_name="blocks.3.hook_resid_post",
    )
