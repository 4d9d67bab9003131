"""Notes: one per thing, whole after anything, and read back as they were taken."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from inspector.errors import UsageError
from inspector.reports.notes import code, fenced, markdown
from inspector.store import notes
from inspector.store.notes import KINDS, Note, Notes, Subject, of_latent, of_result, of_token
from inspector.store.results import save
from tests.store.objects import HOSTILE, result


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path))
    return tmp_path / "notes"


def token(position: int = 45, **more: Any) -> Subject:
    return of_token("demo", "", "context", 11, position, ["--layer", "3"], token=" import", **more)


def test_nothing_is_made_by_looking(folder: Path) -> None:
    assert Notes().all() == [] and Notes().find(token()) is None and not folder.exists()


def test_notes_come_back_as_they_were_taken() -> None:
    subjects = [token(numbers={"loss": 0.1 + 0.2, "share": None}), of_latent("demo", "layer_3/x", 37, [], density=0.5)]
    taken = [Notes().put(subject, words) for subject, words in zip(subjects, ("", HOSTILE), strict=True)]
    assert Notes().all() == taken
    assert [(note.number, note.words) for note in taken] == [(1, ""), (2, HOSTILE)]
    assert [note.subject for note in taken] == subjects
    assert taken[0].subject.title == "' import' in context 12, position 45"
    assert taken[0].subject.command == "dm-inspect anatomy --context 12 --position 45 --layer 3"
    assert taken[1].subject.command == "dm-inspect latent --latent 37 --sae layer_3/x"


def test_a_note_on_the_same_thing_changes_it() -> None:
    first = Notes().put(token(numbers={"loss": 1.0}), "before")
    again = Notes().put(token(numbers={"loss": 2.0}), "after")
    assert again.number == first.number and Notes().all() == [again]
    assert Notes().find(token()) == again  # whatever its numbers are by now
    assert Notes().put(token(46), "beside").number == 2


def test_numbers_are_not_of_two_notes() -> None:
    for position in range(3):
        Notes().put(token(position), "")
    assert [note.number for note in Notes().remove([2])] == [2]
    assert Notes().put(token(9), "").number == 4
    with pytest.raises(UsageError, match="There is no note 2"):
        Notes().remove([1, 2])
    assert [note.number for note in Notes().all()] == [1, 3, 4]


@pytest.mark.parametrize("column,value", [("body", b"{}"), ("body", "text"), ("number", 7), ("sha256", "")])
def test_a_changed_row_is_left_out_and_the_others_are_read(column: str, value: object) -> None:
    for position in range(3):
        Notes().put(token(position), "")
    with sqlite3.connect(Notes().table.path) as table:
        table.execute(f"UPDATE notes SET {column} = ? WHERE number = 2", (value,))
    assert [note.number for note in Notes().all()] == [1, 3]
    problems, _ = Notes().table.check()
    assert problems == ["1 of 3 notes do not fit their checksums"]


def test_a_damaged_file_is_put_aside_and_what_is_whole_is_kept(folder: Path) -> None:
    Notes().put(token(), "kept")
    path = Notes().table.path
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 500)
    assert Notes().all() == []
    Notes().put(token(), "new")
    assert [note.words for note in Notes().all()] == ["new"]
    assert [each.name for each in folder.iterdir() if "damaged" in each.name]


def test_halves_of_characters_are_kept_as_what_they_are() -> None:
    note = Notes().put(of_token("demo", "\udcff.txt", "context", 0, 1, ["--text", "\udcff.txt"]), "\udcff")
    assert Notes().all() == [note] and note.words == "\\udcff"


def test_every_kind_says_what_makes_it_the_same() -> None:
    assert set(notes.IDENTITY) == set(KINDS)


# ---- as Markdown -----------------------------------------------------------------------------------------------------


def test_what_a_token_holds_stands_in_code() -> None:
    for text in ("a", "`", "``b`", " a", HOSTILE, "\n"):
        shown = code(text)
        marks = shown[: len(shown) - len(shown.lstrip("`"))]
        assert shown.endswith(marks) and marks not in shown[len(marks) : -len(marks)] and "\x1b" not in shown
    assert fenced("```")[0] == "````"


def test_the_page_has_words_facts_figures_and_commands() -> None:
    record = save(result(), "dm-inspect run error-vector --model tiny")
    page = markdown(
        [
            Note(number=1, created="2026-01-02T03:04:05+00:00", subject=token(numbers={"loss": 0.25}), words="*mine*"),
            Note(number=2, created="2026-01-02T03:04:05+00:00", subject=of_result(record)),
        ]
    )
    assert page.startswith(
        "# Notes\n\n## 1. token: `' import' in context 12, position 45`\n\n*mine*\n\n- model: `demo`\n"
    )
    assert "- loss: `0.25`" in page and "```sh\ndm-inspect anatomy --context 12 --position 45 --layer 3\n```" in page
    assert f"## 2. result: `{record.id}`" in page and "```sh\ndm-inspect run error-vector --model tiny\n```" in page
    assert "Error vector" in page.split("## 2")[1] and "│" in page and "\x1b" not in page


def test_a_result_that_is_gone_has_no_figures_but_its_note() -> None:
    record = save(result(), "dm-inspect run error-vector")
    subject = of_result(record)
    (Path(Notes().table.path).parents[1] / f"{record.id}.json").unlink()
    page = markdown([Note(number=1, created="now", subject=subject, words="still here")])
    assert "still here" in page and "Its figures cannot be drawn: There is no result" in page
