"""What lies and what explodes, all of it in one go, with the memory that it took: the counts of `make soak`."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from inspector.errors import InspectorError
from inspector.sources.readers import read_records
from inspector.sources.records import Reading
from tests.conftest import Say
from tests.formats import test_hostile_headers as headers
from tests.hub_server import Hub
from tests.measured_memory import forget, resident
from tests.sources.test_hostile_files import DEEP
from tests.sources.test_hub import fetch, hub
from tests.sources.test_hub_lies import LARGE, SMALL, files_outside

__all__ = ["hub"]
MOST_MB = 200
"""That a lie of the hub or a bomb may take."""


@dataclass(frozen=True, kw_only=True)
class Lie:
    """What a hub does, and the file that is asked for."""

    tell: Callable[[Hub], object]
    file: str = LARGE
    settings: tuple[tuple[str, object], ...] = ()


LIES = {
    **{
        f"ETag {tag[:12]!r} of {file}": Lie(tell=lambda hub, file=file, tag=tag: hub.tag.update({file: tag}), file=file)
        for file, tag in (
            (SMALL, "../../../x"),
            *((LARGE, t) for t in ("../../../x", "/x", "..", "a\\..\\b", "x" * 300)),
        )
    },
    **{
        f"commit {commit!r}": Lie(tell=lambda hub, commit=commit: setattr(hub, "commit", commit), file=SMALL)
        for commit in ("../../../x", "main", "")
    },
    **{
        f"no end of {file}": Lie(tell=lambda hub, file=file: hub.endless.add(file), file=file)
        for file in (SMALL, LARGE)
    },
    **{f"packed {file}": Lie(tell=lambda hub, file=file: hub.packed.add(file), file=file) for file in (SMALL, LARGE)},
    "another content": Lie(tell=lambda hub: hub.tag.update({LARGE: "0" * 64})),
    "less than announced": Lie(
        tell=lambda hub: (hub.says.update({SMALL: 25}), hub.tag.update({SMALL: "a" * 40})), file=SMALL
    ),
    "more than the disk holds": Lie(tell=lambda hub: hub.says.update({LARGE: 10**14})),
    "a trickle": Lie(tell=lambda hub: hub.trickling.add(LARGE), settings=(("SLOW_SECONDS", 0.2),)),
}


@pytest.mark.slow
def test_every_lie_of_a_hub_is_refused(tmp_path: Path, hub: Hub, say: Say) -> None:
    honest, most = dict(vars(hub)), 0
    for number, (name, lie) in enumerate(LIES.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        lie.tell(hub)
        got = fetch(folder, hub, [lie.file], settings=dict(lie.settings))
        assert got["code"] in (3, 5) and got["error"], (name, got)
        assert files_outside(folder) <= {Path("cache/.dm-inspect/lock")}, name
        kept = sum(path.stat().st_size for path in (folder / "cache").rglob("*") if path.is_file())
        assert kept <= (1 << 20 if name == "a trickle" else 0), (name, kept)
        most = max(most, got["used"] >> 20)
        assert most < MOST_MB, name
        for each in ("tag", "says", "endless", "packed", "trickling"):
            getattr(hub, each).clear()
        hub.commit = honest["commit"]
    say("hub lies", len(LIES), f"all refused, nothing written elsewhere; at most {most} MB of memory")


@dataclass(frozen=True, kw_only=True)
class Bomb:
    """A small file, and what opens it."""

    make: Callable[[Path], object]
    open: Callable[[Path], object]


def _read_texts(root: Path) -> None:
    (path,) = root.iterdir()
    for _ in read_records(path, Reading()):
        pass


def _read_theme(root: Path) -> None:
    from inspector.tui.themes import load_theme

    load_theme(root / "x.toml")


def _read_result(root: Path) -> None:
    from inspector.store.results import read

    read(root / "x.json")


def _many_latents(root: Path) -> None:
    many = 1 << 28
    said = {"W_enc": (headers.D_IN, many), "W_dec": (many, headers.D_IN), "b_enc": (many,), "threshold": (many,)}
    members = {name: headers.array(shape) for name, shape in said.items()}
    headers.npz(headers.place(root), zipfile.ZIP_DEFLATED, **members)


def _large_tensor(root: Path) -> None:
    entries = headers.entries()
    entries["W_enc"] |= {"shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
    headers.safetensors(headers.place(root), entries)


def _parquet(root: Path) -> None:
    table = pyarrow.table({"text": ["a" * 12_000_000] * 24})
    parquet.write_table(table, root / "x.parquet", compression="zstd", use_dictionary=False)


def _zstd(root: Path) -> None:
    with pyarrow.output_stream(str(root / "x.jsonl.zst"), compression="zstd") as stream:
        for _ in range(64):
            stream.write(b"a" * (4 << 20))


BOMBS = {
    "npz: 2^28 latents in 5 kB": Bomb(make=_many_latents, open=headers.load),
    "safetensors: 4 TB in 8 kB": Bomb(make=_large_tensor, open=headers.load),
    "safetensors: 100,000 brackets": Bomb(
        make=lambda root: headers.safetensors(headers.place(root), b'{"a":' * 100_000), open=headers.load
    ),
    "parquet: 288 MB in 30 kB": Bomb(make=_parquet, open=_read_texts),
    "jsonl.zst: a line of 256 MB": Bomb(make=_zstd, open=_read_texts),
    "json: 100,000 brackets": Bomb(make=lambda root: (root / "x.jsonl").write_text(DEEP), open=_read_texts),
    "theme: 100,000 brackets": Bomb(
        make=lambda root: (root / "x.toml").write_text("a = " + "[" * 100_000), open=_read_theme
    ),
    "result: 100,000 brackets": Bomb(make=lambda root: (root / "x.json").write_text(DEEP), open=_read_result),
}


def apart(work: Callable[[Path], object], root: Path) -> tuple[int, str]:
    """MB that some work took in a process of its own, and the error that came of it."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads
        pid = os.fork()
    if not pid:
        os.close(reader)
        forget()
        before, said = resident("VmRSS"), "nothing"
        try:
            work(root)
        except InspectorError as error:
            said = str(error)
        except BaseException as error:
            said = f"!{type(error).__name__}: {error}"
        os.write(writer, f"{(resident('VmHWM') - before) >> 20} {said}".encode()[:4096])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8", errors="replace") as file:
        used, _, said = file.read().partition(" ")
    os.waitpid(pid, 0)
    return int(used), said


@pytest.mark.slow
def test_every_bomb_is_a_sentence(tmp_path: Path, say: Say) -> None:
    headers.safetensors(headers.place(tmp_path), headers.entries())
    headers.load(tmp_path)  # what is imported for an honest file is no part of what the others take
    most = 0
    for number, (name, bomb) in enumerate(BOMBS.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert apart(bomb.make, folder)[1] == "nothing"
        used, said = apart(bomb.open, folder)
        assert said != "nothing" and not said.startswith("!"), (name, said)
        most = max(most, used)
        assert used < MOST_MB, (name, used)
    say("bombs", len(BOMBS), f"all ended in a sentence; at most {most} MB of memory")
