"""Every kind of file that is kept: any changed byte is found, and nothing goes that a process uses."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from inspector.cli.cache import answers_kind, dequantised_kind, experiments_kind
from inspector.interp.asking import AnswerStore
from inspector.sources import gguf_files, hub_text, registry
from inspector.store import cache, results
from inspector.store.cache import Kind, prune, verify
from inspector.store.checkpoints import Checkpoints
from inspector.store.jobs import JobStore
from inspector.store.results import list_results
from inspector.training.error_saes import save_map, write_about
from tests.gguf_writer import header_bytes
from tests.store.objects import result
from tests.store.test_jobs import job

DAY = 86400.0


def sums() -> dict[str, torch.Tensor]:
    return {"total": torch.arange(6, dtype=torch.float64)}


def some_results(folder: Path) -> Kind:
    for experiment in ("error-vector", "norm-prediction"):
        results.save(result(experiment), "dm-inspect run", folder=folder)
    return cache.results_kind(folder)


def some_index(folder: Path) -> Kind:
    some_results(folder)
    assert len(list_results(folder).records) == 2
    return cache.index_kind(folder)


def some_jobs(folder: Path) -> Kind:
    for job_id in ("aa01", "bb02"):
        JobStore(folder).add(job(job_id, state="done"))
    return cache.jobs_kind(folder)


def some_checkpoints(folder: Path, name: str = "run") -> Kind:
    with Checkpoints(folder / name, seconds=0.0, about={"model": "toy"}) as mine:
        mine.store("moments", sums(), {"done": 1})
        mine.finish("error-vector", result())
    return cache.checkpoints_kind(folder)


def some_tokens(folder: Path) -> Kind:
    wanted = hub_text.Wanted(
        name="a/b", split="train", field="text", seed=0, n_contexts=2, length=3, tokenizer="t" * 64
    )
    honest = hub_text.user_folder
    hub_text.user_folder = lambda _: folder  # type: ignore[assignment]
    try:
        token_ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
        hub_text.keep(wanted, hub_text.KeptTokens(token_ids=token_ids, names=("one", "two"), field="text"))
        assert hub_text.kept(wanted) is not None
    finally:
        hub_text.user_folder = honest
    return cache.tokens_kind(folder / "tokens")


def some_registry(folder: Path) -> Kind:
    index = {"release": {"model": "m", "repo": "r", "kind": None, "saes": [["a", "b", 60, None, None]]}}
    registry._write(folder / "registry-1.0-1.json", index)
    return cache.registry_kind(folder)


def some_answers(folder: Path) -> Kind:
    AnswerStore(folder).keep({f"{place:064x}": f"answer {place}" for place in range(5)})
    return answers_kind(folder)


def some_error_saes(folder: Path) -> Kind:
    from inspector.engine.regression import LinearMap

    one = folder / "0123456789abcdef"
    for part in ("linear_error", "nonlinear_error"):
        (one / part / "seed_0").mkdir(parents=True)
        for name in ("cfg.json", "sae_weights.safetensors"):
            (one / part / "seed_0" / name).write_bytes(f"{part} {name}".encode())
    linear_map = LinearMap(
        weight=torch.eye(2, dtype=torch.float64),
        bias=torch.zeros(2, dtype=torch.float64),
        centre=torch.ones(2, dtype=torch.float64),
        effective_rank=2,
        condition_number=1.0,
        n_train=9,
    )
    save_map(one / "linear_map.safetensors", linear_map)
    write_about(one, {"saes": [], "recipe": {"k": 3}})
    return cache.error_saes_kind(folder)


def some_dequantised(folder: Path) -> Kind:
    source = folder.parent / "m.gguf"
    folder.mkdir(parents=True, exist_ok=True)
    source.write_bytes(header_bytes({}, [("a", [1], 0, 0)], data=bytes(4)))
    one = folder / gguf_files.folder_of(source).name
    one.mkdir()
    (one / "model.safetensors").write_bytes(b"weights")
    (one / gguf_files.ABOUT).write_bytes(gguf_files.about(gguf_files.read_header(source), one))
    return dequantised_kind(folder)


MAKERS: dict[str, Callable[[Path], Kind]] = {
    "results": some_results,
    "index": some_index,
    "jobs": some_jobs,
    "checkpoints": some_checkpoints,
    "tokens": some_tokens,
    "registry": some_registry,
    "judge": some_answers,
    "error-saes": some_error_saes,
    "dequantised": some_dequantised,
}
TABLES = ("index", "jobs", "judge")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("DM_INSPECT_DEQUANTISED_DIR", str(tmp_path / "dequantised"))


def files_of(kind: Kind) -> list[Path]:
    paths = [each.path for each in kind.entries()]
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return [file for file in files if file.is_file() and file.name != "lock"]


@pytest.mark.parametrize("name", MAKERS)
def test_what_was_written_is_whole(tmp_path: Path, name: str) -> None:
    kind = MAKERS[name](tmp_path / name)
    assert kind.name == name and kind.what and kind.rebuild.endswith(".")
    found = verify([kind])
    assert found.n_entries > 0 and found.n_bytes > 0
    assert found.damaged == () and found.skipped == ()


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in TABLES])
def test_any_changed_byte_of_any_file_is_found(tmp_path: Path, name: str) -> None:
    """Seeded places of every file of every kind, the first and last byte among them; then as it was, whole again."""
    kind = MAKERS[name](tmp_path / name)
    chance = random.Random(name)
    n_flips = 0
    for file in files_of(kind):
        raw = file.read_bytes()
        for place in sorted({0, len(raw) - 1, *(chance.randrange(len(raw)) for _ in range(40))}):
            changed = bytearray(raw)
            changed[place] ^= chance.choice([1 << bit for bit in range(8)] + [chance.randrange(1, 256)])
            file.write_bytes(changed)
            damaged = verify([kind]).damaged
            assert damaged, (file.name, place)
            assert damaged[0].sentences.startswith(f"{damaged[0].path} is damaged: ")
            n_flips += 1
        for wrong in (b"", raw[:-1], raw + b"\n"):
            file.write_bytes(wrong)
            assert verify([kind]).damaged, (file.name, len(wrong))
        file.write_bytes(raw)
    assert n_flips >= 30 and verify([kind]).damaged == ()


@pytest.mark.parametrize("name", TABLES)
def test_no_changed_byte_of_a_table_tells_a_lie(tmp_path: Path, name: str) -> None:
    """A byte of a table that no row is made of may change; what rows say may not, unnoticed."""
    kind = MAKERS[name](tmp_path / name)
    (file,) = [each for each in files_of(kind) if each.suffix == ".sqlite"]
    with sqlite3.connect(file) as table:  # whatever is in a journal belongs into the file
        table.execute("PRAGMA journal_mode = DELETE")
    table.close()
    query = {"index": "results", "jobs": "jobs", "judge": "answers"}[name]

    def said() -> object:
        with sqlite3.connect(f"{file.as_uri()}?mode=ro&immutable=1", uri=True) as found:
            found.text_factory = bytes
            rows = sorted(found.execute(f"SELECT * FROM {query}").fetchall())
        found.close()
        return rows

    raw, honest = file.read_bytes(), said()
    chance = random.Random(name)
    used = [place for place, byte in enumerate(raw) if byte]
    told = 0
    for place in chance.sample(used, min(len(used), 250)):
        changed = bytearray(raw)
        changed[place] ^= chance.randrange(1, 256)
        file.write_bytes(changed)
        damaged = verify([kind]).damaged
        told += bool(damaged)
        if not damaged:
            now = said()
            # When an answer was kept decides only when it is pruned; a row of a result that is not there never counts.
            assert now == honest or name in ("judge", "index"), place
            if name == "judge":
                assert _without_times(file) == _without_times_of(raw, tmp_path), place
    assert told > 100
    file.write_bytes(raw)
    assert verify([kind]).damaged == ()


def _without_times(file: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(f"{file.as_uri()}?mode=ro&immutable=1", uri=True) as table:
        rows = table.execute("SELECT key, answer, sha256 FROM answers").fetchall()
    table.close()
    return sorted(rows)


def _without_times_of(raw: bytes, tmp_path: Path) -> list[tuple[object, ...]]:
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(raw)
    return _without_times(copy)


def test_the_list_of_experiments_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inspector.cli import experiments

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    experiments.listed()
    kind = experiments_kind()
    (file,) = files_of(kind)
    raw = file.read_bytes()
    chance = random.Random(0)
    for place in [0, 8, 9, len(raw) - 1, *(chance.randrange(len(raw)) for _ in range(60))]:
        changed = bytearray(raw)
        changed[place] ^= chance.randrange(1, 256)
        file.write_bytes(changed)
        assert verify([kind]).damaged, place
    assert experiments.listed()
    assert verify([kind]).damaged == ()


# ---- prune ----


def aged(path: Path, seconds: float) -> None:
    for file in [path, *(path.rglob("*") if path.is_dir() else [])]:
        os.utime(file, (time.time() - seconds,) * 2)


def everything(tmp_path: Path) -> list[Kind]:
    return [make(tmp_path / name) for name, make in MAKERS.items() if name != "index"]


def test_without_options_only_what_the_dead_left_goes(tmp_path: Path) -> None:
    kinds = everything(tmp_path)
    rests = [tmp_path / "results" / ".x.json.ab12_z9q.tmp", tmp_path / "jobs" / "jobs.sqlite.damaged-1"]
    fresh = tmp_path / "results" / ".y.json.cd12_z9q.tmp"
    for path in (*rests, fresh):
        path.write_text("half")
    for path in rests:
        aged(path, 2 * DAY)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    done = prune(kinds, dry_run=True)
    assert set(done.removed) == set(rests) and all(path.exists() for path in rests)
    done = prune(kinds)
    assert set(done.removed) == set(rests) and done.n_bytes == 8 and done.in_use == ()
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before - set(rests)


def test_what_is_not_surely_ours_stays(tmp_path: Path) -> None:
    """Names that are like ours, folders that no run of ours made, and files among those of a run."""
    kinds = everything(tmp_path)
    theirs = [
        *(tmp_path / "results" / name for name in ("notes.tmp", ".notes.tmp", ".x.json.ab.tmp", "a.damaged-1")),
        *(tmp_path / "checkpoints" / name / "best.ckpt" for name in ("run", "theirs")),
        *(tmp_path / "error-saes" / name / "notes.txt" for name in ("mine", "deadbeef")),
    ]
    for path in theirs:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    for kind in kinds:
        aged(kind.folder, 400 * DAY)
    prune(kinds, older_than=DAY, max_size=0)
    assert all(path.read_text() == "mine" for path in theirs)
    assert [path.name for path in (tmp_path / "checkpoints" / "run").iterdir()] == ["best.ckpt"]


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "index"])
def test_no_link_is_followed_in_any_folder_that_is_pruned(tmp_path: Path, name: str) -> None:
    """Folders and files that look like the kind's own, each behind a link with a name of the kind's own."""
    kind = MAKERS[name](tmp_path / "there")
    n_own = len(kind.entries())
    MAKERS[name](tmp_path / "theirs")
    for path in tmp_path.joinpath("theirs").rglob("*"):
        if path.is_file() or name in ("checkpoints", "error-saes", "dequantised"):
            new = "fedcba9876543210" if path.is_dir() else f"x-{'0' * 32}-{path.name}"
            kind.folder.joinpath(new).unlink(missing_ok=True)
            kind.folder.joinpath(new).symlink_to(path)
    for half in (".x.json.ab12_z9q.tmp", "jobs.sqlite.damaged-1"):
        kind.folder.joinpath(half).symlink_to(tmp_path / "theirs")
    before = {path: path.stat().st_size for path in sorted((tmp_path / "theirs").rglob("*")) if path.is_file()}
    links = [path for path in kind.folder.iterdir() if path.is_symlink()]
    assert before and len(links) >= 3
    prune([kind], older_than=0.0, max_size=0, now=time.time() + 400 * DAY)
    assert {path: path.stat().st_size for path in sorted((tmp_path / "theirs").rglob("*")) if path.is_file()} == before
    assert n_own > 0 and all(path.is_symlink() for path in links)


def test_a_run_uses_no_folder_behind_a_link(tmp_path: Path) -> None:
    """Or it would remove what is there when it is finished."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "about.json").write_text("mine")
    (tmp_path / "run").symlink_to(tmp_path / "theirs")
    with Checkpoints(tmp_path / "run", seconds=0.0) as mine:
        assert not mine.usable and "is a symbolic link" in mine.problems()[0]
        mine.store("moments", sums(), {})
        mine.discard()
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["about.json"]


def test_the_old_goes_but_never_results_and_jobs(tmp_path: Path) -> None:
    kinds = everything(tmp_path)
    some_checkpoints(tmp_path / "checkpoints", "fresh")
    for path in (tmp_path / "checkpoints" / "run", *tmp_path.glob("[!c]*")):
        aged(path, 40 * DAY)
    with sqlite3.connect(tmp_path / "judge" / "answers.sqlite") as table:
        table.execute("UPDATE answers SET created = created - ? WHERE answer < 'answer 3'", (40 * DAY,))
    table.close()
    done = prune(kinds, older_than=30 * DAY)
    assert {path.name.partition("-")[0] for path in done.removed} == {
        *("run", "a", "registry", "0123456789abcdef", "answers.sqlite", "m"),
    }
    assert [each.name for each in (tmp_path / "checkpoints").iterdir()] == ["fresh"]
    assert len(results.stored_ids(tmp_path / "results")) == 2 and len(JobStore(tmp_path / "jobs").all().jobs) == 2
    left = AnswerStore(tmp_path / "judge").find([f"{place:064x}" for place in range(5)])
    assert left == {f"{place:064x}": f"answer {place}" for place in (3, 4)}


def test_beyond_a_size_the_oldest_goes_first(tmp_path: Path) -> None:
    for days, name in ((3, "old"), (2, "middle"), (1, "young")):
        kind = some_checkpoints(tmp_path, name)
        aged(tmp_path / name, days * DAY)
    size = kind.entries()[0].n_bytes
    assert prune([kind], max_size=3 * size).removed == ()
    done = prune([kind], max_size=2 * size)
    assert [path.name for path in done.removed] == ["old"] and done.left_bytes == 2 * size
    assert [path.name for path in prune([kind], max_size=0).removed] == ["middle", "young"]
    assert list(tmp_path.iterdir()) == []


def test_a_running_process_keeps_what_it_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path))
    kind = some_checkpoints(tmp_path / "checkpoints")
    trained = some_error_saes(tmp_path / "error-saes")
    aged(tmp_path, 40 * DAY)
    with Checkpoints(tmp_path / "checkpoints" / "run", seconds=0.0) as mine:
        assert verify([kind]).skipped == (mine.folder,)
        done = prune([kind, trained], older_than=DAY, max_size=0)
        assert done.removed == () and set(done.in_use) == {mine.folder, next((tmp_path / "error-saes").iterdir())}
        kept = mine.load("moments")
        assert kept is not None and mine.problems() == []
    assert len(prune([kind, trained], older_than=DAY).removed) == 2


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    kinds: list[Kind] = [
        kind(tmp_path / "none")
        for kind in (
            *(cache.results_kind, cache.index_kind, cache.jobs_kind, cache.checkpoints_kind),
            *(cache.tokens_kind, cache.registry_kind, cache.error_saes_kind, answers_kind),
        )
    ]
    assert verify(kinds).n_entries == 0
    assert prune(kinds, older_than=0.0, max_size=0).removed == ()
    assert not (tmp_path / "none").exists()
