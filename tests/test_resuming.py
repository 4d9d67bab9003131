"""A run that ends before its end, for any reason, goes on from its checkpoints and ends in the same bytes."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from inspector.errors import ExitCode, ResourceError, TargetError
from inspector.events import Event, Loading, Measured, PassProgress, Warned
from inspector.runner import checkpoints_for, run, table_checkpoints, token_table
from inspector.sources.target import Loaded
from inspector.spec import RunSpec
from inspector.store.checkpoints import Checkpoints
from tests.conftest import Say
from tests.killing import EXPERIMENTS, PARAMS, as_bytes, finish, loaded_toy
from tests.toy import remember_passes

SHARED = ("norm-prediction", "error-vector", "fvu-nonlinear")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    torch.set_num_threads(1)
    made = loaded_toy(tmp_path_factory.mktemp("toy"))
    remember_passes(made.model)
    return made


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path))
    yield


def spec_of(loaded: Loaded, *experiments: str, **changes: Any) -> RunSpec:
    base = RunSpec(target=loaded.target, experiments=experiments or SHARED, params={"resamples": "20"}, batch_size=2)
    return replace(base, **changes)


def kept(spec: RunSpec, loaded: Loaded) -> Checkpoints:
    return checkpoints_for(spec, loaded, seconds=0.0)


PLAIN: dict[str, tuple[list[dict[str, Any]], list[Event]]] = {}


def plain_run(spec: RunSpec, loaded: Loaded) -> tuple[list[dict[str, Any]], list[Event]]:
    """What an undisturbed run without checkpoints gives and tells, run once for all who compare with it."""
    if repr(spec) not in PLAIN:
        events: list[Event] = []
        PLAIN[repr(spec)] = finish(run(spec, loaded), events.append), events
    return PLAIN[repr(spec)]


def events_of(spec: RunSpec, loaded: Loaded, stop_after: int | None = None) -> tuple[list[Event], bytes | None]:
    """The events of a run with checkpoints, given up after so many; and its result in bytes if it ended."""
    work = run(spec, loaded, checkpoints=kept(spec, loaded))
    events: list[Event] = []
    while stop_after is None or len(events) < stop_after:
        try:
            events.append(next(work))
        except StopIteration as stop:
            return events, as_bytes(stop.value)
    work.close()
    return events, None


@pytest.mark.parametrize(
    "changes",
    [
        {"profile": "careful"},
        {"profile": "paper-code", "shards": 3},
        {"profile": "paper-text", "null": "affine"},
        {"null": "shuffle"},
        {"null": "gaussian"},
    ],
    ids=lambda changes: "-".join(str(value) for value in changes.values()),
)
def test_given_up_after_any_event_it_goes_on_in_the_same_bits(loaded: Loaded, changes: dict[str, Any]) -> None:
    """Twice given up, at seeded random events, then left to its end: no batch that was told comes again."""
    spec = spec_of(loaded, **changes)
    objects, plain = plain_run(spec, loaded)
    expected = as_bytes(objects)
    n_batches = sum(isinstance(event, PassProgress) for event in plain)
    chance = random.Random(str(changes))
    told: list[tuple[str, int]] = []
    for stop_after in (chance.randint(1, n_batches // 2), chance.randint(1, n_batches // 2), None):
        events, found = events_of(spec, loaded, stop_after)
        told += [(e.name, e.contexts_done) for e in events if isinstance(e, PassProgress) and e.name != "null"]
    assert found == expected
    assert told == [(e.name, e.contexts_done) for e in plain if isinstance(e, PassProgress) and e.name != "null"]
    assert not kept(spec, loaded).folder.exists()


def test_a_resumed_run_says_what_was_there_and_how_much_is_left(loaded: Loaded) -> None:
    spec = spec_of(loaded)
    before, _ = events_of(spec, loaded, 3)
    after, _ = events_of(spec, loaded)
    last, first = before[-1], next(event for event in after if isinstance(event, PassProgress))
    assert isinstance(last, PassProgress) and first.contexts_done == last.contexts_done + 2
    assert first.seconds_left > 0 and first.tokens_per_second > 0
    loading = [event for event in after if isinstance(event, Loading)]
    assert [event.what for event in loading] == ["'moments' of an interrupted run, 6 of 12 contexts"]


def test_finished_experiments_come_first_and_are_not_computed_again(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(loaded, *EXPERIMENTS, params=PARAMS)
    expected = as_bytes(plain_run(spec, loaded)[0])
    events: list[Event] = []
    work = run(spec, loaded, checkpoints=kept(spec, loaded))
    while sum(isinstance(event, Measured) for event in events) < 2:
        events.append(next(work))
    work.close()
    seen: list[int] = []
    honest = loaded.model.activations
    monkeypatch.setattr(loaded.model, "activations", lambda *given: (seen.append(1), honest(*given))[1])
    again, found = events_of(spec, loaded)
    assert found == expected and seen == []
    first_two = [event for event in events if isinstance(event, Measured)]
    assert again[:2] == first_two
    measured = [event for event in again if isinstance(event, Measured)]
    assert [event.index for event in measured] == [1, 2, 3, 0]
    assert as_bytes([event.result for event in sorted(measured, key=lambda event: event.index)]) == expected


def test_other_runs_do_not_find_them(loaded: Loaded) -> None:
    spec = spec_of(loaded)
    folders = {kept(spec, loaded).folder}
    for changes in (
        {"profile": "paper-text"},
        {"null": "affine"},
        {"batch_size": 3},
        {"shards": 2},
        {"experiments": SHARED[:2]},
        {"params": {"resamples": "21"}},
    ):
        folders.add(kept(replace(spec, **changes), loaded).folder)
    folders.add(kept(spec, replace(loaded, target=replace(loaded.target, seed=1))).folder)
    assert len(folders) == 8
    assert kept(spec, loaded).folder in folders  # and the same again


@pytest.mark.parametrize("file", ["sums-moments.json", "sums-moments-*.safetensors", "done-norm-prediction-*.json"])
def test_a_damaged_checkpoint_is_told_and_costs_only_time(loaded: Loaded, file: str) -> None:
    spec = spec_of(loaded)
    expected = as_bytes(plain_run(spec, loaded)[0])
    work = run(spec, loaded, checkpoints=kept(spec, loaded))
    while not isinstance(next(work), Measured):
        pass
    work.close()
    if file.startswith("sums"):
        for each in kept(spec, loaded).folder.glob("done-*"):
            each.unlink()  # so that the sums are wanted
    (path,) = kept(spec, loaded).folder.glob(file)
    raw = bytearray(path.read_bytes())
    # Of JSON a decimal, so that it still is JSON and only the checksum tells.
    decimal = re.compile(rb"\.\d").search(raw, len(raw) // 2) if path.suffix == ".json" else None
    raw[len(raw) // 2 if decimal is None else decimal.end() - 1] ^= 1
    path.write_bytes(raw)
    events, found = events_of(spec, loaded)
    assert found == expected
    (warned,) = [event.message for event in events if isinstance(event, Warned)]
    assert "is damaged (its checksum does not fit). It was removed" in warned and path.name.split("-")[1] in warned


def test_two_runs_of_the_same_at_once_do_not_disturb_each_other(loaded: Loaded) -> None:
    spec = spec_of(loaded)
    expected = as_bytes(plain_run(spec, loaded)[0])
    first = run(spec, loaded, checkpoints=kept(spec, loaded))
    for _ in range(3):
        next(first)
    events, found = events_of(spec, loaded)
    assert found == expected
    assert ["Another process measures the same." in e.message for e in events if isinstance(e, Warned)] == [True]
    assert as_bytes(finish(first)) == expected


# ---- the table of tokens ----


def table_of(loaded: Loaded, stop_after: int | None = None) -> tuple[list[Event], bytes | None]:
    """The table as a Parquet file, or what came until it was given up."""
    import pyarrow as pa
    from pyarrow import parquet

    checkpoints = table_checkpoints(loaded, 2)
    checkpoints.seconds = 0.0
    events: list[Event] = []
    with checkpoints:
        work = token_table(loaded, batch_size=2, checkpoints=checkpoints)
        while stop_after is None or len(events) < stop_after:
            try:
                events.append(next(work))
            except StopIteration as stop:
                sink = pa.BufferOutputStream()
                parquet.write_table(stop.value, sink)
                return events, sink.getvalue().to_pybytes()
        work.close()
    return events, None


@pytest.mark.parametrize("damaged", [None, "rows-1.arrow", "rows-2.json"])
def test_a_table_goes_on_where_it_was_and_is_the_same_file(loaded: Loaded, damaged: str | None) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(finish(token_table(loaded, batch_size=2)), sink)
    n_moments = 6
    before, _ = table_of(loaded, n_moments + 5)
    checkpoints = table_checkpoints(loaded, 2)
    if damaged is not None:
        path = checkpoints.folder / damaged
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
    more, _ = table_of(loaded, 2 if damaged is None else 3)  # and given up once more
    before += more
    after, found = table_of(loaded)
    assert found == sink.getvalue().to_pybytes()
    scores = [e.contexts_done for e in (*before, *after) if isinstance(e, PassProgress) and e.name == "scores"]
    again = 0 if damaged is None else 5 - int(damaged[5])
    assert scores == [2, 4, 6, 8, 10, *range(12 - 2 * again, 26, 2)]
    warned = [event.message for event in (*before, *after) if isinstance(event, Warned)]
    assert [damaged.partition(".")[0] in message for message in warned] == [True] if damaged else not warned
    assert [e.name for e in after if isinstance(e, PassProgress) and e.name == "moments"] == []
    with checkpoints:
        checkpoints.discard()


# ---- a full disk ----


def test_a_full_disk_ends_the_run_and_with_room_again_it_goes_on(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(loaded)
    expected = as_bytes(plain_run(spec, loaded)[0])
    work = run(spec, loaded, checkpoints=kept(spec, loaded))
    told = [next(work) for _ in range(4)]

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ResourceError, match="No space left on device") as error:
            finish(work)
    assert error.value.exit_code == ExitCode.RESOURCE
    events, found = events_of(spec, loaded)
    first, last = next(event for event in events if isinstance(event, PassProgress)), told[-1]
    assert isinstance(last, PassProgress) and first.contexts_done == last.contexts_done + 2
    assert found == expected


# ---- files that change ----


@pytest.mark.parametrize("of", ["SAE", "model"])
def test_weights_that_change_under_a_run_are_noticed_and_nothing_is_kept(
    loaded: Loaded, tmp_path: Path, of: str
) -> None:
    """The same bytes with another time: nobody can know that they were never others in between."""
    spec = spec_of(loaded)
    path = Path(loaded.saes[0].ref.path or "") / "sae_weights.safetensors"
    if of == "model":
        path = loaded.model.directory / "model.safetensors"
    state = path.stat()
    work = run(spec, loaded, checkpoints=kept(spec, loaded))
    for _ in range(4):
        next(work)
    try:
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000))
        told: list[Event] = []
        with pytest.raises(TargetError, match=f"{path.name} changed while it was in use") as error:
            finish(work, told.append)
        assert error.value.exit_code == ExitCode.TARGET
        assert not any(isinstance(event, Measured) for event in told)
        assert not list((tmp_path / "checkpoints").glob("*"))
        with pytest.raises(TargetError, match="changed while it was in use"):
            finish(token_table(loaded, prompts=["a token"]))
    finally:
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert finish(run(spec, loaded))


def test_a_hash_is_never_that_of_another_file(loaded: Loaded, tmp_path: Path) -> None:
    """Weights that are replaced after loading and before anybody asked for their hash."""
    import shutil

    from inspector.sources.sae_loading import load_sae

    shutil.copytree(loaded.saes[0].ref.path or "", tmp_path / "sae")
    sae = load_sae(replace(loaded.saes[0].ref, path=str(tmp_path / "sae")), torch.device("cpu"), 16)
    path = tmp_path / "sae" / "sae_weights.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.with_suffix(".new").write_bytes(raw)
    path.with_suffix(".new").replace(path)
    with pytest.raises(TargetError, match="changed while it was in use"):
        _ = sae.weights_hash


# ---- out of memory ----


def short_of_memory(loaded: Loaded, monkeypatch: pytest.MonkeyPatch, most: int, where: str) -> list[int]:
    """Memory for `most` contexts at once and no more; what was asked for."""
    asked: list[int] = []
    length = loaded.contexts.token_ids.shape[1]

    def limited(honest: Any, n_contexts: int, *given: Any) -> Any:
        asked.append(n_contexts)
        if n_contexts > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return honest(*given)

    if where == "model":
        honest = loaded.model.activations
        monkeypatch.setattr(
            loaded.model, "activations", lambda tokens, hook: limited(honest, len(tokens), tokens, hook)
        )
    else:
        last = loaded.saes[-1]
        reconstruct = last.reconstruct
        per_context = int(loaded.plan.included.sum(dim=1).max())
        assert per_context <= length
        monkeypatch.setattr(last, "reconstruct", lambda x: limited(reconstruct, -(-len(x) // per_context), x))
    return asked


@pytest.mark.parametrize("where", ["model", "last SAE"])
@pytest.mark.parametrize("profile", ["careful", "paper-code"])
def test_out_of_memory_halves_the_batch_and_the_numbers_stay(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, where: str, profile: Any
) -> None:
    """1e-9: only the order of float64 sums is another. In the last SAE the others' sums are spoilt: begun again."""
    from tests.test_runner import scores

    spec = spec_of(loaded, batch_size=8, profile=profile)
    plain = scores(plain_run(spec, loaded)[0])
    asked = short_of_memory(loaded, monkeypatch, 2, where)
    events: list[Event] = []
    found = scores(finish(run(spec, loaded), events.append))
    assert found.keys() == plain.keys() and max(abs(found[key] - plain[key]) for key in plain) < 1e-9
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert [message for message in warned if "Memory" in message] == [
        "Memory ran out with 8 contexts at once. The pass 'moments' goes on with 4 at a time.",
        "Memory ran out with 4 contexts at once. The pass 'moments' goes on with 2 at a time.",
    ]
    assert sum(n > 2 for n in asked) == 2  # the second pass knows
    done = [event.contexts_done for event in events if isinstance(event, PassProgress) and event.name == "scores"]
    assert done == [*range(2, done[-1], 2), done[-1]]


def test_out_of_memory_with_one_context_is_an_error_and_what_was_kept_is_there(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(loaded)
    expected = as_bytes(plain_run(spec, loaded)[0])
    events_of(spec, loaded, 3)
    with monkeypatch.context() as patched:
        short_of_memory(loaded, patched, 0, "model")
        with pytest.raises(ResourceError, match="Memory ran out in the pass 'moments' with one context") as error:
            events_of(spec, loaded)
    assert error.value.exit_code == ExitCode.RESOURCE
    events, found = events_of(spec, loaded)
    assert found == expected
    first = next(event for event in events if isinstance(event, PassProgress))
    assert first.contexts_done == 8


# ---- killed ----


def killed(tmp_path: Path, *options: str) -> dict[str, Any]:
    environment = {**os.environ, "DM_INSPECT_RESULTS_DIR": str(tmp_path / "results")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.killing", str(tmp_path), *options],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def check(found: dict[str, Any], kills: int) -> None:
    assert found["kills"] == kills and found["same_bytes"] and not found["checkpoints_left"]
    assert found["finished_batches_again"] == 0 and found["finished_experiments_again"] == 0
    # A batch that was kept and not yet told when it died is neither told nor computed again.
    assert found["batches"] - kills <= found["batches_told"] <= found["batches"]


def test_full_and_killed_at_random_moments_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """First a try with too little room for the sums of the second pass, then five that are killed, then the last."""
    options = ("--kills", "5", "--seed", "1", "--profile", "paper-code", "--null", "affine", "--room", "16000")
    found = killed(tmp_path, *options)
    check(found, 5)
    assert found["full_disk"] == ExitCode.RESOURCE
    assert 0 < found["batches_before_the_disk_was_full"] < found["batches"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("options", [(), ("--profile", "paper-code", "--shards", "3", "--null", "affine")])
def test_killed_at_twenty_random_moments_it_ends_in_the_same_bytes(
    tmp_path: Path, seed: int, options: tuple[str, ...], say: Say
) -> None:
    found = killed(tmp_path, "--kills", "20", "--seed", str(seed), *options)
    check(found, 20)
    what = f"kills: a run of {found['batches']} batches, {' '.join(options) or 'as it is'}"
    say(what, found["kills"], "none lost, none wrong")


# ---- measurements of their own ----

OWN = {
    "norm-test": {"start": "0", "length": "20"},
    "pursuit": {"tokens": "600"},
    "synthetic-sae": {"tokens": "400"},
    "linear-side-channel": {},
    "probe-vs-latents": {},
    "ce-splice": {"contexts": "3"},
    "worst-tokens": {"places": "50"},
}


@pytest.mark.parametrize("experiment", OWN)
@pytest.mark.parametrize("changes", [{}, {"shards": 2}], ids=["whole", "shards"])
def test_a_measurement_of_its_own_goes_on_in_the_same_bits(
    loaded: Loaded, experiment: str, changes: dict[str, Any]
) -> None:
    """Twice given up, at seeded random events, then left to its end: no context that was told comes again."""
    params = {"resamples": "20", **OWN[experiment]}
    spec = spec_of(loaded, experiment, params=params, profile="careful", **changes)
    objects, plain = plain_run(spec, loaded)
    expected = as_bytes(objects)

    def told(events: list[Event]) -> list[tuple[str, int]]:
        """Contexts done, by pass; not the pauses within one."""
        found = [(e.name, e.contexts_done) for e in events if isinstance(e, PassProgress)]
        return list(dict.fromkeys(found))

    chance = random.Random(experiment)
    seen: list[tuple[str, int]] = []
    for stop_after in (chance.randint(1, len(plain) // 2), chance.randint(1, len(plain) // 2), None):
        events, found = events_of(spec, loaded, stop_after)
        own = told(events)
        assert not set(own[1:]).intersection(seen)
        seen += own
    assert found == expected
    assert list(dict.fromkeys(seen)) == told(plain)
    assert not kept(spec, loaded).folder.exists()
