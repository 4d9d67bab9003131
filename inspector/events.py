"""What a long piece of work says while it runs.

Work is a generator: it yields these and returns its result. Nothing is called back. Each event is a small immutable
snapshot; a newer one may replace an older one of the same type. Plain data, so they cross the socket as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Something is being loaded; one event as it starts and one when it is there."""

    what: str
    """'tokenizer', 'model', 'SAE 3/15', 'text', ..."""
    detail: str = ""
    seconds: float | None = None
    """How long it took; None while under way."""
    done: int = 0
    total: int = 0
    """Items, if countable; 0 of 0 if not."""


@dataclass(frozen=True, kw_only=True)
class Downloading:
    """Files are being fetched; the first event announces their size before a byte was asked for."""

    what: str
    """'model google/gemma-2-9b', 'SAE layer_20/width_16k/average_l0_58', ..."""
    file: str
    """Name within its repository; empty in the announcement."""
    done_bytes: int
    """Of all files together, those included that were there already."""
    total_bytes: int
    bytes_per_second: float = 0.0
    """0 until it is known."""
    kept_in: str = ""
    """The file that what has arrived of `file` is kept in until it is whole; empty where nothing is."""

    @property
    def amount(self) -> str:
        """How much has come: `1.20 of 30.07 GB, 35 MB/s, 14 min left`; `30.07 GB` before the first byte."""
        total = f"{self.total_bytes / 1e9:.2f} GB"
        if not self.file:
            return total
        parts = [f"{self.done_bytes / 1e9:.2f} of {total}"]
        if self.bytes_per_second > 0:
            minutes = (self.total_bytes - self.done_bytes) / self.bytes_per_second / 60
            parts += [f"{self.bytes_per_second / 1e6:.0f} MB/s", f"{minutes:.0f} min left" if minutes >= 1 else "soon"]
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class MemoryPlanned:
    """What will be on the device at most, told before anything is loaded."""

    rows: tuple[tuple[str, int], ...]
    """(what, bytes)."""
    needed: int
    """Bytes, together."""
    budget: int
    """Bytes that may be used."""
    device: str
    slices: str = ""
    """Which SAEs come in slices, from where, and what a page of text costs; empty: none does."""


@dataclass(frozen=True, kw_only=True)
class PassProgress:
    """A pass over the contexts has come this far."""

    name: str
    """Of the pass: 'moments', 'scores', 'splices', ..."""
    contexts_done: int
    contexts_total: int
    tokens_per_second: float
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """SAE training has come this far."""

    tokens_done: int
    tokens_total: int
    tokens_per_second: float
    seconds_left: float
    fvu: dict[str, float]
    """Batch FVU by sae_id. Unitless."""
    held_out: dict[str, dict[str, float]] = field(default_factory=dict)
    """By sae_id, where it was measured after this very step: fvu, l0 and dead latents on text not learned from."""


@dataclass(frozen=True, kw_only=True)
class JudgeProgress:
    """Asking a language model has come this far."""

    stage: str
    """'explaining', 'scoring'."""
    done: int
    """Questions answered of those that had to be asked."""
    total: int
    known: int
    """Questions whose answers were kept from before, of all stages so far."""
    retried: int
    """Tries that failed and were repeated, of all stages so far."""
    seconds_left: float
    """Negative until it is known."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One experiment of a run is finished; its result is to be kept before the next one is looked at."""

    index: int
    """Among the run's experiments, from 0."""
    total: int
    result: dict[str, Any]
    """As `--json` prints it."""


@dataclass(frozen=True, kw_only=True)
class Warned:
    """Something the user should know that is not an error."""

    message: str


@dataclass(frozen=True, kw_only=True)
class PassShared:
    """A pass is over that several processes shared, and what it took: of one of them, or of all at the end."""

    name: str
    """Of the pass; 'loading': opening the target, which each does for itself."""
    seconds: dict[int, float]
    """What each shard took, by its number, handing in included."""
    merging: float
    """Seconds from a process's last shard until it had the sums of all: waiting for the slowest, merging, fetching."""

    @property
    def told(self) -> str:
        """`moments: 16 shards of 0.41 to 0.52 s, 7.1 s together; 0.10 s until the last worker had the sums`."""
        if not self.seconds:
            return f"{self.name}: {self.merging:.2f} s for the slowest worker"
        took = self.seconds.values()
        return (
            f"{self.name}: {len(took)} shards of {min(took):.2f} to {max(took):.2f} s, {sum(took):.2f} s together; "
            f"{self.merging:.2f} s until the last worker had the sums"
        )


@dataclass(frozen=True, kw_only=True)
class WorkerInfo:
    """One worker of a run on a cluster."""

    number: int
    """From 1."""
    state: Literal["starting", "running", "done", "died"] = "starting"
    where: str = ""
    """Host and device: 'node-3 cuda:0'; empty until it has opened the target."""
    used_bytes: int = 0
    """Held by it on that device, or of the host's memory where the device is the CPU."""
    free_bytes: int = 0
    """There beside it, for whoever asks first."""
    stage: str = ""
    """The pass it has last added to."""
    contexts: int = 0
    """It has added to that pass."""
    tokens_per_second: float = 0.0

    @property
    def told(self) -> str:
        """What is known of it: `node-3 cuda:0 · 41.2 GB, 38.1 free · scores, 120 contexts · 9,100 tokens/s`."""
        memory = f"{self.used_bytes / 1e9:.1f} GB, {self.free_bytes / 1e9:.1f} free" if self.where else ""
        at = f"{self.stage}, {self.contexts:,} contexts" if self.stage else ""
        rate = f"{self.tokens_per_second:,.0f} tokens/s" if self.tokens_per_second else ""
        return " · ".join(each for each in (self.where, memory, at, rate) if each)


@dataclass(frozen=True, kw_only=True)
class Workers:
    """What each worker of a run on a cluster is at."""

    workers: tuple[WorkerInfo, ...]


Event = (
    Loading | Downloading | MemoryPlanned | PassProgress | TrainProgress | JudgeProgress | Measured | Warned
    | PassShared | Workers
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class GateLine:
    """One check of the load gate that failed and was accepted."""

    name: str
    sae_id: str | None
    measured: str
    expected: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one experiment would cost."""

    experiment: str
    seconds: float | None
    """Beside the shared passes and those asked for before it, with which it may share a measurement; None: it is not
    known."""
    alone: float | None = None
    """Seconds over all passes if nothing else is asked for, the shared ones included; None: not known."""
    measured: bool = False
    """Whether it has taken that time here, rather than being expected to."""
    why_not: str = ""
    """Not empty: it cannot run on this target, and why."""


JobState = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
"""'interrupted': its session died; it can be resumed."""


@dataclass(frozen=True, kw_only=True)
class JobInfo:
    """One job, as far as it has come."""

    id: str
    experiments: tuple[str, ...] = ()
    state: JobState = "queued"
    command: str
    """That does the same without a session."""
    created: float = 0.0
    """Seconds since the epoch; so the two below, 0 until then."""
    started: float = 0.0
    ended: float = 0.0
    stage: str = ""
    """What it is at, in a few words."""
    done: int = 0
    total: int = 0
    """Steps of the stage; 0 of 0 if they cannot be counted."""
    tokens_per_second: float = 0.0
    seconds_left: float | None = None
    results: tuple[str, ...] = ()
    """Ids of the stored results so far."""
    error: str = ""
    exit_code: int = 0
    workers: tuple[WorkerInfo, ...] = ()
    """Of a run on a cluster; empty for one in this process."""
