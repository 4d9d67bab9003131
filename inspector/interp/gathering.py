"""One pass over the contexts that finds the examples of every SAE's latents."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.errors import DataError, UsageError
from inspector.events import Event, PassProgress
from inspector.interp.examples import Collector, Coverage, LatentExamples, collect, draw_latents
from inspector.interp.scorers import SCORERS, Scorer
from inspector.interp.windows import Windows, windows_of
from inspector.sources.activations import stream
from inspector.statistics.finite import require_finite

if TYPE_CHECKING:
    from inspector.interp.readers import Reader
    from inspector.sources.target import Loaded


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How latents are chosen and tested; everything here moves numbers."""

    latents: int = 100
    """Drawn of each SAE. The paper draws 1000."""
    scorer: Scorer = "detection"
    window: int = 32
    """Tokens of an excerpt."""
    shown: int = 4
    """Excerpts to a question, as in the paper's code. More cost less and are judged worse."""
    seed: int = 0
    resamples: int = 1000
    """Draws of latents for the intervals."""
    control: bool = False
    """Also judge every latent by the explanation of another."""
    thinking: int = 0
    """Tokens a judge may think in <think> before each answer; without room its answers are cut off."""

    def __post_init__(self) -> None:
        for name, value, least in (("latents", self.latents, 1), ("window", self.window, 2), ("shown", self.shown, 1)):
            if value < least:
                raise UsageError(f"--{name} {value} is too few. Use {least} or more.")
        if self.scorer not in SCORERS:
            raise UsageError(f"There is no scorer {self.scorer!r}. Use {' or '.join(SCORERS)}.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Gathered:
    """One SAE's latents with their examples."""

    reader: Reader
    latents: tuple[LatentExamples, ...]
    coverage: Coverage
    collector: Collector
    """For an export of everything it has seen."""


def gather(
    loaded: Loaded, readers: Sequence[Reader], settings: Settings, *, batch_size: int, for_export: bool = False
) -> Generator[Event, None, tuple[Windows, list[Gathered]]]:
    """Examples of latents of several SAEs that read the same hook, from one pass.

    Args:
        loaded: the target.
        readers: its SAEs, or those that read parts of its errors.
        settings: see there.
        batch_size: contexts at once; changes no example.
        for_export: also keep every activation of the drawn latents.

    Raises:
        UsageError: the windows do not fit.
        DataError: no window, no latent that can be judged, or an activation that is not finite.
    """
    windows = windows_of(loaded.plan, settings.window)
    collectors = [
        Collector(
            reader,
            draw_latents(reader.sae.ref.d_sae, settings.latents, settings.seed),
            windows,
            settings.seed,
            keep_all=for_export,
        )
        for reader in readers
    ]
    indices = sorted(set(windows.contexts.tolist()))
    length = loaded.contexts.token_ids.shape[1]
    began = time.perf_counter()
    done = 0
    for batch in stream(loaded.model, loaded.contexts, loaded.hook_name, indices, batch_size):
        scored = loaded.plan.included[batch.contexts, batch.positions]
        require_finite(batch.x[scored.to(batch.x.device)], batch, "activation", scored)
        collect(collectors, batch)
        done += len(batch.contexts) // length
        seconds = max(time.perf_counter() - began, 1e-9)
        yield PassProgress(
            name="examples",
            contexts_done=done,
            contexts_total=len(indices),
            tokens_per_second=done * length / seconds,
            seconds_left=seconds / done * (len(indices) - done),
        )
    gathered = []
    for collector in collectors:
        latents, coverage = collector.finish(loaded.contexts.token_ids)
        if not latents:
            raise DataError(_nothing_to_judge(collector.reader.name, coverage))
        gathered.append(
            Gathered(reader=collector.reader, latents=tuple(latents), coverage=coverage, collector=collector)
        )
    return windows, gathered


def _nothing_to_judge(name: str, coverage: Coverage) -> str:
    counts = ", ".join(f"{len(found)} have {reason}" for reason, found in coverage.skipped.items() if found)
    return (
        f"None of {coverage.n_drawn} latents of {name} can be judged from {coverage.n_windows:,} windows "
        f"({counts.replace('have dead', 'are dead')}). Use more --contexts, a shorter --window or more --latents."
    )
