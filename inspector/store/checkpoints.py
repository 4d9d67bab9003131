"""What an unfinished run has got so far, so that after a kill the same command goes on and ends in the same bytes.

One folder per run. Its name is a hash of everything that decides the run's numbers and the order in which they are
added up: what the fingerprint holds, the experiments and parameters asked for, batch size and shards, the device, the
program's own code and the libraries' versions. Whatever of it changes, an older checkpoint is not found, rather than
continued with other rules.

    about.json                  what the folder belongs to, for people
    sums-NAME.json              facts about the newest sums of a pass, the name of their file and its checksum
    sums-NAME-N.safetensors     those sums; the file that the facts name is the one that counts
    done-NAME.json              the result of a finished experiment
    rows-N.json, rows-N.arrow   rows of the per-token table, part by part
    lock                        held by the process that works on it

Every file is written whole or not at all and has a checksum; what is damaged is removed and computed again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import inspector
from inspector.disk.files import HALF, remove_files, write_whole
from inspector.disk.folders import CHECKPOINTS, RESULTS
from inspector.disk.locks import LOCK_FILE, FolderLock
from inspector.disk.sealed import digest, file_digest, read_sealed, seal
from inspector.errors import ResourceError
from inspector.statistics.profiles import PROTOCOLS
from inspector.store.fingerprint import identity, versions

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from inspector.sources.target import Loaded
    from inspector.spec import RunSpec
    from inspector.statistics.sums import Kept

T = TypeVar("T")
FORMAT = 1
VARIABLE = "DM_INSPECT_CHECKPOINT_SECONDS"
"""Seconds between checkpoints; 0 keeps the sums of every batch."""
SECONDS = 30.0
COST = 20.0
"""At most 1/20 of the time goes into writing, however large the sums: at d_model 3584 they are gigabytes."""
ABOUT = "about.json"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OWN = re.compile(rf"({ABOUT}|(sums|done|rows)-[\w.-]+\.(json|safetensors|arrow)|\.[\w.-]+{HALF})")
_CODE = (
    *("engine", "formats", "sources", "training", "statistics", "experiments"),
    *("experiment.py", "runner.py", "spec.py"),
)
"""Parts of the program that decide numbers."""


class Checkpoints:
    """The checkpoints of one run; a `Keeper`. Use as a context manager: the folder is locked while a run uses it.

    Args:
        folder: of this run and no other; or what says it, asked when it is needed first, for it may have to read much.
        seconds: between two checkpoints; 0: at every chance.
        about: what is said of the run in about.json.
    """

    def __init__(
        self,
        folder: Path | Callable[[], Path],
        *,
        seconds: float = SECONDS,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self._where = folder
        self.seconds = seconds
        self._about = dict(about or {})
        self._lock: FolderLock | None = None
        self._last = time.monotonic()
        self._cost = 0.0
        self._n_rows = 0
        self._problems: list[str] = []

    def __enter__(self) -> Checkpoints:
        """Lock the folder, if that is possible; `usable` tells.

        Raises:
            ResourceError: the disk is full.
        """
        self._last = time.monotonic()
        self._lock = FolderLock(self.folder)
        try:
            if not self._lock.take():
                self._problems.append(
                    "Another process measures the same. This one keeps no checkpoints; both give the same numbers."
                )
                return self
            for rest in self.folder.glob(".*.tmp"):  # of a process that was killed while it wrote
                if is_own(rest.name):
                    rest.unlink(missing_ok=True)
            if not (self.folder / ABOUT).exists():
                write_whole(self.folder / ABOUT, seal({"format": FORMAT, **self._about}))
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise ResourceError(
                    f"{self.folder} cannot be made: {error.strerror}. Make room there, or set {RESULTS.variable} "
                    "to a folder on another disk."
                ) from error
            self._problems.append(
                f"No checkpoints are kept, because {self.folder} cannot be used: {error.strerror}. "
                f"Mend its permissions, or set {RESULTS.variable} to another folder."
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Unlock it."""
        if self._lock is not None:
            self._lock.release()

    @cached_property
    def folder(self) -> Path:
        """Where they are."""
        return self._where if isinstance(self._where, Path) else self._where()

    @property
    def usable(self) -> bool:
        """Whether this object has the folder to itself."""
        return self._lock is not None and self._lock.is_held

    def problems(self) -> list[str]:
        """What is to be told, each in two sentences; told once."""
        found, self._problems = self._problems, []
        return found

    # ---- sums -----------------------------------------------------------------------------------------------------

    def due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        wait = self.seconds and max(self.seconds, COST * self._cost)
        return self.usable and time.monotonic() - self._last >= wait

    def load(self, name: str) -> Kept | None:
        """The newest sums of a pass; None if there are none, or they are damaged: then they are removed."""
        if not self.usable:
            return None

        def kept(found: dict[str, Any]) -> Kept:
            from inspector.disk.tensors import read_tensors
            from inspector.statistics.sums import Kept

            return Kept(
                tensors=read_tensors(self.folder / str(found["file"]), str(found["file_sha256"])), facts=found["facts"]
            )

        return self._read(f"sums-{name}.json", kept)

    def store(self, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Keep the sums of a pass instead of those before.

        Raises:
            ResourceError: there is no room; the sums before are still there.
        """
        if not self.usable:
            return
        from inspector.disk.tensors import write_tensors

        path = self.folder / f"sums-{name}.json"
        before = [each.name for each in self.folder.glob(f"sums-{name}-*.safetensors")]
        numbers = [int(each.rpartition("-")[2].partition(".")[0]) for each in before]
        file = f"sums-{name}-{max(numbers, default=0) + 1}.safetensors"
        with self._timed():
            sha256 = write_tensors(self.folder / file, tensors)
            content = {"format": FORMAT, "name": name, "facts": facts, "file": file, "file_sha256": sha256}
            try:
                write_whole(path, seal(content))
            except ResourceError:
                self._remove(file)
                raise
            for each in before:
                self._remove(each)

    def forget(self, prefix: str) -> None:
        """Remove the sums of all passes whose names begin so: what they led to is kept."""
        for path in self.folder.glob(f"sums-{prefix}*") if self.usable else ():
            self._remove(path.name)

    # ---- rows of a table ------------------------------------------------------------------------------------------

    def rows(self) -> tuple[list[pa.Table], int]:
        """The rows that were kept, and of how many contexts they are; a damaged part ends them.

        What is behind a damaged part is removed with it, so that rows kept from now on follow those returned here.
        """
        tables: list[pa.Table] = []
        stop = number = 0
        while self.usable and (found := self._read(f"rows-{number}.json", self._part)) is not None:
            tables += found[0]
            stop = found[1]
            number += 1
        self._n_rows = number
        for each in self.folder.glob("rows-*.*") if self.usable else ():
            if int(each.stem.partition("-")[2]) >= number:
                self._remove(each.name)
        return tables, stop

    def _part(self, found: Mapping[str, Any]) -> tuple[list[pa.Table], int]:
        import pyarrow as pa
        from pyarrow import ipc

        file = self.folder / str(found["file"])
        if file_digest(file) != found["file_sha256"]:
            raise ValueError("its checksum does not fit")
        with ipc.open_stream(file) as reader:
            return [pa.Table.from_batches([batch]) for batch in reader], int(found["stop"])

    def store_rows(self, tables: Sequence[pa.Table], stop: int) -> None:
        """Keep more rows, after `rows` has told what there is; see `sums.RowKeeper`.

        Raises:
            ResourceError: there is no room; what was kept before is still there.
        """
        if not self.usable or not tables:
            return
        from pyarrow import ipc

        with self._timed():
            sink = io.BytesIO()
            with ipc.new_stream(sink, tables[0].schema) as writer:
                for table in tables:
                    writer.write_table(table)
            raw, file = sink.getvalue(), f"rows-{self._n_rows}.arrow"
            write_whole(self.folder / file, raw)
            content = {"format": FORMAT, "stop": stop, "file": file, "file_sha256": hashlib.sha256(raw).hexdigest()}
            write_whole(self.folder / f"rows-{self._n_rows}.json", seal(content))
        self._n_rows += 1

    # ---- finished experiments -------------------------------------------------------------------------------------

    def finished(self, experiment: str) -> dict[str, Any] | None:
        """The result of an experiment that was finished; None if it was not, or the file is damaged: it is removed."""
        if not self.usable:
            return None
        result: dict[str, Any] | None = self._read(f"done-{experiment}.json", lambda found: found["result"])
        return result

    def finish(self, experiment: str, result: Mapping[str, Any]) -> None:
        """Keep the result of a finished experiment.

        Raises:
            ResourceError: there is no room.
        """
        if self.usable:
            write_whole(
                self.folder / f"done-{experiment}.json",
                seal({"format": FORMAT, "experiment": experiment, "result": result}),
            )

    def discard(self) -> None:
        """The run is finished: nothing of it is needed any more."""
        if self.usable:
            remove_folder(self.folder)

    def _read(self, name: str, take: Callable[[dict[str, Any]], T]) -> T | None:
        """What `take` makes of a sealed file, and of the file that it names; None if there is none, or one is damaged:
        then that is told and the sealed one removed.
        """
        path = self.folder / name
        try:
            return take(read_sealed(path))
        except FileNotFoundError as error:
            if Path(str(error.filename)) == path:
                return None
            why = f"{error.filename} is missing"
        except (OSError, ValueError, KeyError) as error:
            why = str(error)
        self._problems.append(f"{path} is damaged ({why}). It was removed, and what it held is computed again.")
        self._remove(name)
        return None

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        """Writing, which decides when to write again."""
        began = time.monotonic()
        yield
        self._last = time.monotonic()
        self._cost = self._last - began

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            (self.folder / name).unlink(missing_ok=True)


def is_own(name: str) -> bool:
    """Whether a file of this name in a folder of checkpoints is one that this module writes, whole or half."""
    return _OWN.fullmatch(name) is not None


def remove_folder(folder: Path) -> bool:
    """Remove a folder of checkpoints whose lock the caller holds; the lock goes last, so that no run begins in between.

    Returns:
        Whether our files are gone; what others put there stays with the folder, and so does what a link points to.
    """
    try:
        remove_files(folder, is_own, last=LOCK_FILE)
    except OSError:
        return False
    return True


def damage_of(folder: Path) -> list[str]:
    """What is wrong with the files of one run, each as a part of a sentence.

    Raises:
        OSError: they cannot be read.
    """
    problems = []
    for path in sorted(folder.glob("*.json")):
        try:
            found = read_sealed(path)
            if "file" in found:
                file = folder / str(found["file"])
                if file_digest(file) != found["file_sha256"]:
                    problems.append(f"the checksum of {file.name} does not fit")
        except FileNotFoundError as error:
            problems.append(f"{Path(str(error.filename)).name} is missing")
        except (ValueError, KeyError) as error:
            problems.append(f"{path.name}: {error}")
    return problems


def checkpoints_for(spec: RunSpec, loaded: Loaded, *, seconds: float | None = None) -> Checkpoints:
    """The checkpoints of a run of this spec on this target. Opening them hashes the weights, unless that was done.

    Args:
        spec: of the run.
        loaded: its target.
        seconds: between two checkpoints; None: what VARIABLE says, or SECONDS.
    """

    def folder() -> Path:
        protocol = PROTOCOLS[spec.profile]
        split = protocol.split or loaded.target.split
        key = {
            "format": FORMAT,
            "identity": identity(loaded, spec, split=split, intercept=protocol.intercept),
            "experiments": list(spec.experiments),
            "params": dict(spec.params),
            # As they are used: a session may have room for fewer at once, and sums in another order end in other bits.
            "batch_size": loaded.at_once(spec.batch_size) if hasattr(loaded, "at_once") else spec.batch_size,
            "chunks": [getattr(sae, "chunk_tokens", None) for sae in loaded.saes],
            "shards": spec.shards,
            "device": str(getattr(loaded.model, "device", "")),
            "code": code_digest(),
            "versions": versions(),
        }
        return CHECKPOINTS.path() / digest(key)[:24]

    about = {
        "model": loaded.model.name,
        "hook_name": loaded.hook_name,
        "experiments": list(spec.experiments),
        "text": loaded.target.text,
    }
    return Checkpoints(folder, seconds=_seconds() if seconds is None else seconds, about=about)


@cache
def code_digest() -> str:
    """sha256 of the program's code that decides numbers: what an older version began is not continued by a newer."""
    root = Path(inspector.__file__).parent
    found = hashlib.sha256()
    for part in _CODE:
        path = root / part
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            found.update(f"{file.relative_to(root)}\0".encode())
            found.update(file.read_bytes())
    return found.hexdigest()


def _seconds() -> float:
    with contextlib.suppress(ValueError):
        return max(0.0, float(os.environ.get(VARIABLE, SECONDS)))
    return SECONDS
