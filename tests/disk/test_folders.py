"""One list names every folder and every variable that names another; a process that is started means the same ones."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import inspector
from inspector.disk.folders import (
    ANSWERS,
    CHECKPOINTS,
    ERROR_SAES,
    JOBS,
    RESULTS,
    VARIABLES,
    Folder,
    child_environment,
    user_folder,
)

ALL = (RESULTS, JOBS, ANSWERS, ERROR_SAES, CHECKPOINTS)


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_a_checkout_keeps_everything_in_its_own_cache() -> None:
    cache = Path(inspector.__file__).parents[1] / "cache"
    assert [each.path() for each in ALL] == [cache / each.name for each in ALL]


def test_an_installed_program_keeps_everything_in_the_users_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspector, "__file__", str(tmp_path / "site-packages" / "inspector" / "__init__.py"))
    for each in ALL:
        assert each.path() == user_folder(each.user) / each.name
    assert {each.name for each in ALL if each.user == "data"} == {"results", "jobs"}


@pytest.mark.parametrize("folder", [each for each in ALL if each.variable])
def test_a_variable_names_another_folder(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(folder.variable, "")
    assert folder.path().parent.name == "cache"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(folder.variable, "there")
    assert folder.path() == tmp_path / "there"


def test_checkpoints_and_trained_saes_go_where_results_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RESULTS.variable, str(tmp_path))
    assert CHECKPOINTS.path() == tmp_path / "checkpoints" and ERROR_SAES.path() == tmp_path / "error-saes"
    monkeypatch.setenv(ERROR_SAES.variable, str(tmp_path / "mine"))
    assert ERROR_SAES.path() == tmp_path / "mine"


def test_a_process_that_works_elsewhere_means_the_same_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.setenv(name, f"here/{name}")
    monkeypatch.setenv("PYTHONPATH", "mine")
    found = child_environment()
    assert {name: found[name] for name in VARIABLES} == {name: str(tmp_path / "here" / name) for name in VARIABLES}
    assert found["PYTHONPATH"] == f"{Path(inspector.__file__).resolve().parents[1]}{os.pathsep}mine"
    assert {name for name in os.environ if found[name] != os.environ[name]} == {*VARIABLES, "PYTHONPATH"}


def test_no_other_variable_names_a_folder() -> None:
    """What the program reads and is not in the list: numbers, a switch, a key, a target's name, a socket."""
    code = "".join(path.read_text(encoding="utf-8") for path in Path(inspector.__file__).parent.rglob("*.py"))
    others = ("SESSION_SOCKET", "IDLE_MINUTES", "DEBUG", "MODEL", "JUDGE_KEY", "CHECKPOINT_SECONDS")
    assert set(re.findall(r"\bDM_INSPECT_\w+", code)) - set(VARIABLES) == {f"DM_INSPECT_{name}" for name in others}
