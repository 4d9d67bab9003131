"""Commands that are killed (SIGKILL) within each stage of what they keep: nothing is lost, nothing is wrong.

After every kill what was there before is there in every byte, and whatever has a final name is whole: the bytes that an
undisturbed command leaves. Then the same command is given again, sometimes killed again, and ends in the same bytes.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest

from inspector.spec import TargetSpec, target_words
from inspector.store.results import list_results
from tests.conftest import Say
from tests.faults.forking import End, Forks, forks

KILLS = 20
"""Of each stage, in `make soak`."""
USAGE = 2
"""`ExitCode.USAGE`."""
RESULT = r"/results/[^/]*\.json"
CHECKPOINT = r"/(checkpoints|\.training)/"
TRAIN = ("train", "--layer", "1", "--widths", "32,64", "--l0", "4", "--tokens", "8192", "--out", "suite")
ERROR_SAES = ("error-saes", "-p", "sae_tokens=2048", "-p", "k=4", "-p", "expansion=2", "-p", "seeds=1",
              "-p", "controls=off")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where a command is killed."""

    command: tuple[str, ...]
    """Without a target; see `words`."""
    files: str
    """Around which it is killed; see `commander`."""
    before: bool = False
    """Killed before the first of them instead."""


STAGES = {
    "before the first checkpoint: run": Stage(command=("run", "error-vector"), files=CHECKPOINT + "sums", before=True),
    "before the first checkpoint: tokens": Stage(
        command=("tokens", "--out", "tokens.parquet"), files=CHECKPOINT + "sums", before=True
    ),
    "before the first checkpoint: train": Stage(command=TRAIN, files=CHECKPOINT, before=True),
    "a checkpoint: run": Stage(command=("run", "error-vector", "norm-prediction"), files=CHECKPOINT),
    "a checkpoint: tokens": Stage(command=("tokens", "--out", "tokens.parquet"), files=CHECKPOINT),
    "a checkpoint: train": Stage(command=TRAIN, files=CHECKPOINT),
    "an SAE: train": Stage(command=TRAIN, files=r"/suite/.*/width_"),
    "an SAE: error-saes": Stage(command=("run", *ERROR_SAES), files=r"/error-saes/[^/]+/[^.]"),
    "a result: run": Stage(command=("run", "error-vector", "norm-prediction"), files=RESULT),
    "a table: tokens": Stage(command=("tokens", "--out", "tokens.parquet"), files=r"/\.?tokens\.parquet"),
    "an export: csv": Stage(command=("results", "export", "norm-baselines", "--out", "x.csv"), files=r"/\.?x\.csv"),
    "an export: parquet": Stage(
        command=("results", "export", "norm-baselines", "--out", "x.parquet"), files=r"/\.?x\.parquet"
    ),
    "an export: svg": Stage(command=("results", "export", "norm-baselines", "--out", "x.svg"), files=r"/\.?x\.svg"),
    "a report": Stage(command=("results", "report", "--out", "x.html"), files=r"/\.?x\.html"),
}
NOT_FINAL = re.compile(
    r"(^|/)(\.cache|checkpoints|\.training|std(out|err)|index\.sqlite|training\.jsonl|lock)(/|$)|\.(tmp|partial)$"
)
"""What a killed command may leave half-done, and what it may know or not know afterwards; all else is final."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command leaves."""

    files: dict[str, bytes]
    """By path, of those with a final name; of a result, what was measured."""
    printed: bytes


@dataclass
class Counts:
    """What is printed of a stage."""

    kills: int = 0
    too_late: int = 0
    """Killed when the stage was over, or not at all."""
    finished: int = 0
    """Tries whose first kill came when all was written: given again, the command says so and writes nothing."""
    steps: int = 0
    left: set[str] = field(default_factory=set)
    """Names of half-done files that were still there in the end."""


class Place:
    """One folder in which a command is tried again and again, always begun with the same files."""

    def __init__(self, server: Forks, target: TargetSpec, base: Path, folder: Path) -> None:
        self.server, self.target, self.base, self.folder = server, target, base, folder

    def fresh(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.base.exists():
            shutil.copytree(self.base, self.folder)
        else:
            self.folder.mkdir()

    def run(self, stage: Stage, *, kill_at: int = 0, asks: bool = False) -> End:
        environment = {
            "HOME": str(self.folder),
            "DM_INSPECT_RESULTS_DIR": str(self.folder / "results"),
            "DM_INSPECT_CHECKPOINT_SECONDS": "0",
        }
        self.server.begin(
            words=words(stage.command, self.target),
            folder=str(self.folder),
            environment=environment,
            files=stage.files,
            before=stage.before,
            kill_at=kill_at,
            asks=asks,
        )
        return self.server.ended()

    def outcome(self) -> Outcome:
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and not NOT_FINAL.search(name):
                found[name] = measured(path) if re.fullmatch(r"results/[^/]*\.json", name) else path.read_bytes()
        return Outcome(files=found, printed=(self.folder / "stdout").read_bytes())

    def is_refused_as_finished(self, expected: Outcome) -> bool:
        """Whether all was written before the kill, and the command given again says that it will not write over it."""
        return "holds an SAE already" in self.said.splitlines()[-1] and self.outcome().files == expected.files

    def left(self) -> set[str]:
        names = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())
        return {name for name in names if re.search(r"\.(tmp|partial)$|(^|/)(checkpoints|\.training)/", name)}

    @property
    def said(self) -> str:
        return (self.folder / "stderr").read_text()


def measured(path: Path) -> bytes:
    """Of a stored result, read with its checks, what was measured: not the second in which it was stored."""
    from inspector.store.results import read

    return json.dumps(read(path).result, sort_keys=True).encode()


def words(command: tuple[str, ...], target: TargetSpec) -> list[str]:
    if command[0] == "results":
        return [*command, *(("--format", command[-1].partition(".")[2]) if command[1] == "export" else ())]
    if command[0] == "train":
        size = ("--context-length", str(target.context_length), "--checkpoint-minutes", "0", "--device", "cpu")
        return [*command, "--model", target.model, "--text", str(target.text), *size]
    quick = ("-p", "resamples=20") if command[0] == "run" else ()
    return [*command, *quick, *target_words(target)]


@pytest.fixture(scope="module")
def place(toy_target: TargetSpec, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """With the result of an earlier command, which no kill may touch."""
    root = tmp_path_factory.mktemp("kills")
    target = replace(toy_target, layers=(1,), widths=(32,), l0=4)
    with forks("tests.faults.commander", json.dumps(asdict(target)), log=root / "log") as server:
        made = Place(server, target, root / "base", root / "place")
        made.fresh()
        assert made.run(Stage(command=("run", "norm-baselines"), files="(?!)")).code == 0, made.said
        for kept in ("results", ".cache"):
            shutil.copytree(made.folder / kept, made.base / kept)
        yield made


def killed(place: Place, stage: Stage, n: int, seed: int) -> Counts:
    """Kill the command `n` times within the stage; every try is repeated to its end."""
    place.fresh()
    end = place.run(stage)
    assert end.code == 0, place.said
    expected, counts, chosen = place.outcome(), Counts(steps=end.steps), random.Random(seed)
    assert end.steps > 0 and not place.left()
    while counts.kills < n:
        place.fresh()
        base = {name for name in expected.files if (place.base / name).exists()}
        for _ in range(chosen.randint(1, 3)):
            end = place.run(stage, kill_at=chosen.randint(1, counts.steps), asks=chosen.random() < 0.5)
            if end.code == USAGE and place.is_refused_as_finished(expected):
                break
            assert end.code in (0, -signal.SIGKILL), place.said
            counts.kills += end.met
            counts.too_late += not end.met
            found = place.outcome().files
            assert base <= found.keys()  # nothing lost
            wrong = [name for name, content in found.items() if expected.files.get(name) != content]
            assert not wrong, (wrong, end)
            assert list_results(place.folder / "results").problems == ()
        end = place.run(stage)
        if end.code == USAGE and place.is_refused_as_finished(expected):
            counts.finished += 1
        else:
            assert end.code == 0, place.said
            assert place.outcome() == expected, place.said
        counts.left |= {re.sub(r"\.\w{8}\.tmp", ".*.tmp", name) for name in place.left()}
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_killed_within_a_stage_nothing_is_lost_and_nothing_is_wrong(place: Place, name: str, say: Say) -> None:
    counts = killed(place, STAGES[name], KILLS, seed=0)
    say(
        f"kills: {name}",
        counts.kills,
        f"of {counts.steps:,} steps ({counts.too_late} more came too late, "
        f"{counts.finished} after the last file); none lost, none wrong; "
        f"left behind: {', '.join(sorted(counts.left)) or 'nothing'}",
    )
