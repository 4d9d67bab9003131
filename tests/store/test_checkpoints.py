"""One folder per run: newest sums, finished experiments, a lock; what is damaged is told, removed and not used."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from inspector.errors import ResourceError
from inspector.store import checkpoints
from inspector.store.checkpoints import Checkpoints


def sums(value: float) -> dict[str, torch.Tensor]:
    return {"total": torch.full((3,), value, dtype=torch.float64), "seen": torch.tensor([True])}


def opened(folder: Path, seconds: float = 0.0) -> Checkpoints:
    return Checkpoints(folder / "run", seconds=seconds, about={"model": "toy"})


def test_the_newest_sums_of_each_pass_are_found_by_the_next_process(tmp_path: Path) -> None:
    with opened(tmp_path) as mine:
        assert mine.usable and mine.load("moments") is None
        for value in (1.0, 2.0):
            mine.store("moments", sums(value), {"done": value})
        mine.store("scores", sums(5.0), {"done": 0})
    with opened(tmp_path) as mine:
        kept = mine.load("moments")
        assert kept is not None and kept.facts == {"done": 2.0} and torch.equal(kept.tensors["total"], sums(2)["total"])
        assert mine.problems() == []
        names = sorted(each.name for each in mine.folder.iterdir())
        assert names == [
            *("about.json", "lock", "sums-moments-2.safetensors", "sums-moments.json"),
            *("sums-scores-1.safetensors", "sums-scores.json"),
        ]
        mine.discard()
    assert list(tmp_path.iterdir()) == []


def test_finished_experiments_are_kept(tmp_path: Path) -> None:
    result = {"experiment": "toy", "numbers": [0.1, None], "saes": []}
    with opened(tmp_path) as mine:
        assert mine.finished("toy-1") is None
        mine.finish("toy-1", result)
    with opened(tmp_path) as mine:
        assert mine.finished("toy-1") == result and mine.finished("toy-2") is None


def test_a_second_process_keeps_out(tmp_path: Path) -> None:
    with opened(tmp_path) as mine, opened(tmp_path) as other:
        assert mine.usable and not other.usable and not other.due()
        assert "Another process measures the same." in other.problems()[0] and other.problems() == []
        mine.store("moments", sums(1), {})
        mine.finish("toy", {})
        other.store("moments", sums(2), {})
        other.finish("toy", {"other": 1})
        assert other.load("moments") is None and other.finished("toy") is None
        other.discard()
        kept = mine.load("moments")
        assert kept is not None and torch.equal(kept.tensors["total"], sums(1)["total"]) and mine.finished("toy") == {}


@pytest.mark.parametrize("file", ["sums-moments.json", "sums-moments-1.safetensors", "done-toy.json"])
def test_any_changed_byte_is_told_and_computed_again(tmp_path: Path, file: str) -> None:
    with opened(tmp_path) as mine:
        mine.store("moments", sums(1), {"done": 1})
        mine.finish("toy", {"number": 1.5})
        path = mine.folder / file
        raw = path.read_bytes()
        chance = random.Random(file)
        for place in sorted({*chance.sample(range(len(raw)), min(len(raw), 60)), 0, len(raw) - 1}):
            mine.store("moments", sums(1), {"done": 1})
            mine.finish("toy", {"number": 1.5})
            path = max(mine.folder.glob(file.replace("-1.", "-*.")))
            damaged = bytearray(path.read_bytes())
            damaged[place] ^= chance.randrange(1, 256)
            path.write_bytes(damaged)
            found = mine.finished("toy") if file.startswith("done") else mine.load("moments")
            assert found is None
            (problem,) = mine.problems()
            assert "is damaged" in problem and problem.endswith("It was removed, and what it held is computed again.")
            assert (mine.finished("toy") if file.startswith("done") else mine.load("moments")) is None
            assert mine.problems() == []


def test_sums_without_their_file_are_damaged(tmp_path: Path) -> None:
    with opened(tmp_path) as mine:
        mine.store("moments", sums(1), {})
        (mine.folder / "sums-moments-1.safetensors").unlink()
        assert mine.load("moments") is None
        assert "sums-moments-1.safetensors is missing" in mine.problems()[0]


def test_what_a_killed_process_left_is_used_or_swept(tmp_path: Path) -> None:
    """Killed between the two files of a checkpoint: the facts name the older sums, and those count."""
    with opened(tmp_path) as mine:
        mine.store("moments", sums(1), {"done": 1})
        (mine.folder / "sums-moments-2.safetensors").write_bytes(b"half of it")
        (mine.folder / ".sums-moments-2.safetensors.x1y2z3_4.tmp").write_bytes(b"half")
    with opened(tmp_path) as mine:
        kept = mine.load("moments")
        assert kept is not None and kept.facts == {"done": 1}
        assert not list(mine.folder.glob(".*"))
        mine.store("moments", sums(3), {"done": 3})
        assert [each.name for each in mine.folder.glob("*.safetensors")] == ["sums-moments-3.safetensors"]


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with opened(tmp_path) as mine:
        mine.store("moments", sums(1), {"done": 1})
        with monkeypatch.context() as patched:
            patched.setattr("os.fsync", full)
            with pytest.raises(ResourceError, match=r"No space left on device\. Make room there"):
                mine.store("moments", sums(2), {"done": 2})
        kept = mine.load("moments")
        assert kept is not None and kept.facts == {"done": 1}
        mine.store("moments", sums(2), {"done": 2})
        kept = mine.load("moments")
        assert kept is not None and kept.facts == {"done": 2}


def test_without_a_place_a_run_goes_on_without_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")
    with opened(tmp_path) as mine:
        assert not mine.usable and mine.load("moments") is None
        assert "No checkpoints are kept" in mine.problems()[0]
    monkeypatch.setattr(Path, "mkdir", _full)
    with pytest.raises(ResourceError, match="No space left"), Checkpoints(tmp_path / "other"):
        pass


def _full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_writing_takes_a_twentieth_of_the_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with opened(tmp_path, seconds=30.0) as mine:
        assert not mine.due()
        now[0] += 30
        assert mine.due()
        honest = checkpoints.seal

        def slow(content: dict[str, object]) -> bytes:
            now[0] += 10
            return honest(content)

        monkeypatch.setattr(checkpoints, "seal", slow)
        mine.store("moments", sums(1), {})
        now[0] += 199
        assert not mine.due()
        now[0] += 2
        assert mine.due()


def test_the_code_that_decides_numbers_has_a_digest() -> None:
    assert checkpoints.code_digest() == checkpoints.code_digest() and len(checkpoints.code_digest()) == 64
