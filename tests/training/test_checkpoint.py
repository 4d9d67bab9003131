"""Checkpoints of a training: whole or not at all, and never gone on with when damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from inspector.errors import DataError, ResourceError, UsageError
from inspector.training.checkpoint import FACTS_FILE, FOLDER, exists, forget, load, save

TENSORS = {"a|w": torch.arange(6.0).view(2, 3), "|random": torch.arange(5, dtype=torch.uint8)}


def test_it_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    assert not exists(tmp_path) and load(tmp_path, "run") is None
    save(tmp_path, "run", 10, TENSORS, {"tokens_done": 10})
    save(tmp_path, "run", 20, TENSORS, {"tokens_done": 20})
    found = load(tmp_path, "run")
    assert found is not None and found.facts == {"tokens_done": 20}
    assert all(torch.equal(found.tensors[name], value) for name, value in TENSORS.items())
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == [FACTS_FILE, "state-20.safetensors"]
    forget(tmp_path)
    assert list(tmp_path.iterdir()) == []
    forget(tmp_path)


def test_what_a_kill_has_left_of_a_forgotten_one_is_forgotten_too(tmp_path: Path) -> None:
    save(tmp_path, "run", 10, TENSORS, {})
    (tmp_path / FOLDER / FACTS_FILE).unlink()
    forget(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_behind_a_link_is_not_used_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "state-1.safetensors").write_text("mine")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / FOLDER).symlink_to(theirs)
    with pytest.raises(ResourceError, match="it is a symbolic link"):
        save(tmp_path / "one", "run", 10, TENSORS, {})
    forget(tmp_path / "one")
    assert (theirs / "state-1.safetensors").read_text() == "mine"
    save(tmp_path / "other", "run", 10, TENSORS, {})
    (tmp_path / "other" / FOLDER / "notes.txt").write_text("mine")
    save(tmp_path / "other", "run", 20, TENSORS, {})
    forget(tmp_path / "other")
    assert [path.name for path in (tmp_path / "other" / FOLDER).iterdir()] == ["notes.txt"]


def test_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    save(tmp_path, "run", 10, TENSORS, {})
    with pytest.raises(
        UsageError, match=r"holds the checkpoint of a different training run. Choose another folder, or"
    ):
        load(tmp_path, "other")


@pytest.mark.parametrize("damage", ["bit", "cut", "gone", "facts", "no json", "another's tensors"])
def test_damage_is_noticed(tmp_path: Path, damage: str) -> None:
    save(tmp_path, "run", 10, TENSORS, {"tokens_done": 10})
    state, facts = tmp_path / FOLDER / "state-10.safetensors", tmp_path / FOLDER / FACTS_FILE
    raw = bytearray(state.read_bytes())
    if damage == "bit":
        raw[-1] ^= 1
        state.write_bytes(raw)
    elif damage == "cut":
        state.write_bytes(raw[:-8])
    elif damage == "gone":
        state.unlink()
    elif damage == "facts":
        facts.write_text(facts.read_text().replace('"tokens_done": 10', '"tokens_done": 11'))
    elif damage == "no json":
        facts.write_text(facts.read_text()[:-20])
    else:
        about = json.loads(facts.read_text())
        about["tensors"]["file"] = "../../elsewhere"
        facts.write_text(json.dumps(about))
    with pytest.raises(DataError, match=r"The checkpoint in .* is damaged: .*\. Delete that folder to start over\."):
        load(tmp_path, "run")


def test_a_kill_between_the_two_files_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "run", 10, TENSORS, {"tokens_done": 10})

    def killed(partial: str, path: Path) -> None:
        if path.name == FACTS_FILE:
            raise KeyboardInterrupt
        os.rename(partial, path)

    with monkeypatch.context() as patch:
        patch.setattr("inspector.disk.files.os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, "run", 20, {"a|w": torch.zeros(1)}, {"tokens_done": 20})
    found = load(tmp_path, "run")
    assert found is not None and found.facts == {"tokens_done": 10}
    assert torch.equal(found.tensors["a|w"], TENSORS["a|w"])


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    with pytest.raises(ResourceError, match=r"could not be written: .* the same command goes on from the checkpoint"):
        save(tmp_path, "run", 10, TENSORS, {})
