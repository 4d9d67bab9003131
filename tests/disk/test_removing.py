"""Whatever is linked to stays, whatever is not ours stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inspector.disk.removing import is_own_file, is_own_folder, remove_files, remove_tree


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
