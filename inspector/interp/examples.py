"""Examples of latents: windows in which each is active, from the weakest to the strongest, and windows in which not.

One pass over the contexts fills bounded samples (see `windows.Reservoir`); from these come, for each latent:

- for the explainer, its strongest windows, at most one of a context as long as there are enough;
- for the test, ten deciles of the windows' largest activation with as many examples each, and negatives: windows in
  which it is active nowhere. All are of contexts that the explainer has not seen anything of (the paper's code tests on
  the explainer's own examples, D-15).

Which latents are looked at is drawn beforehand from all of them; those that cannot be judged are counted, with why.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inspector.errors import DataError, UsageError
from inspector.events import Event, PassProgress
from inspector.interp.prompts import SCORERS, Scorer
from inspector.interp.windows import Reservoir, Windows, keys_of, windows_of
from inspector.sources.activations import stream
from inspector.statistics.passes import require_finite

if TYPE_CHECKING:
    from inspector.interp.readers import Reader
    from inspector.sources.activations import ActivationBatch
    from inspector.sources.target import Loaded

N_DECILES = 10
PER_DECILE = 7
N_NEGATIVES = 50
N_EXPLAINED = 10
"""Windows that the explainer sees."""
CANDIDATES = 4
"""Strongest windows kept for each that is shown, so that they can be of different contexts."""
SAMPLE_BYTES = 512 * 1024 * 1024
"""For all samples of one SAE; they are never larger than `MOST_SAMPLED` windows per latent."""
MOST_SAMPLED = 500
"""Windows in which a latent is active, from which deciles are made: 50 each, more would move no boundary by much."""
FEWEST_SAMPLED = 150
MOST_EXPORTED = 20_000_000
"""Activations of an export: 320 MB."""
DEAD, FEW, DENSE = "dead", "too few examples", "too few negatives"

Ids = npt.NDArray[np.int64]
Activations = npt.NDArray[np.float32]


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
class Example:
    """One window as one latent sees it."""

    window: int
    """Index among the windows."""
    context: int
    start: int
    """Position of its first token."""
    token_ids: Ids
    """[length]."""
    activations: Activations
    """[length], of the latent; zeros in a negative."""

    @property
    def peak(self) -> float:
        """Largest activation."""
        return float(self.activations.max())


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentExamples:
    """What is shown of one latent."""

    index: int
    density: float
    """Share of the searched tokens at which it is active."""
    shown: tuple[Example, ...]
    """For the explainer, strongest first."""
    deciles: tuple[tuple[Example, ...], ...]
    """For the test; the weakest decile first."""
    negatives: tuple[Example, ...]
    spare: tuple[Example, ...]
    """More windows in which it is active, of no other list: for marks that are put on wrong tokens."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Gathered:
    """What was found of one SAE's latents."""

    reader: Reader
    drawn: Ids
    """Indices of the latents that were looked at."""
    latents: tuple[LatentExamples, ...]
    """Those of them that can be judged, with their examples."""
    skipped: dict[str, tuple[int, ...]]
    """Indices of the others by reason: dead, too few examples, too few negatives."""
    n_windows: int
    """That were searched; so the next."""
    n_tokens: int
    l0: float
    """Active latents per searched token, all latents counted."""
    everything: npt.NDArray[np.void] | None
    """[n] ACTIVATION of the drawn latents, in the order of the text; None: not kept."""


ACTIVATION = np.dtype([("window", np.uint32), ("place", np.uint32), ("latent", np.uint32), ("value", np.float32)])
"""One that is not zero, for an export: which window, which token of it, which latent."""


def draw_latents(d_sae: int, n: int, seed: int) -> Ids:
    """So many latents of all, in ascending order; the same for the same seed, and a beginning of more."""
    order = np.argsort(np.random.PCG64(seed).random_raw(d_sae), kind="stable")
    return np.sort(order[:n]).astype(np.int64)


class Collector:
    """Samples of one SAE's latents from batches of whole contexts.

    Args:
        reader: the SAE and what it reads.
        latents: indices of those to look at.
        windows: to choose from.
        seed: of all samples.
        keep_all: also keep every activation of these latents, for an export.
    """

    def __init__(self, reader: Reader, latents: Ids, windows: Windows, seed: int, *, keep_all: bool = False) -> None:
        self.reader, self.latents = reader, latents
        self._windows, self._seed = windows, seed
        self._columns = torch.from_numpy(latents)
        n, length = len(latents), windows.length
        room = SAMPLE_BYTES // max(1, 4 * n * length)
        self._active = Reservoir(n, min(len(windows), max(FEWEST_SAMPLED, min(MOST_SAMPLED, room))), length)
        self._strongest = Reservoir(n, min(len(windows), CANDIDATES * N_EXPLAINED), length)
        self._silent = Reservoir(n, min(len(windows), 2 * N_NEGATIVES))
        self._n_windows = torch.zeros(n, dtype=torch.int64)
        self._n_tokens = torch.zeros(n, dtype=torch.int64)
        self._tokens = self._all_active = 0
        self._everything: list[npt.NDArray[np.void]] | None = [] if keep_all else None
        self._n_kept = 0

    def update(self, batch: ActivationBatch) -> None:
        """Look at all windows of the batch's contexts."""
        windows = self._windows
        contexts = torch.unique_consecutive(batch.contexts)
        which = windows.of(contexts)
        if len(which) == 0:
            return
        length = len(batch.contexts) // len(contexts)
        begins = {context: row * length for row, context in enumerate(contexts.tolist())}
        firsts = torch.tensor([begins[context] for context in windows.contexts[which].tolist()])
        rows = (firsts + windows.starts[which])[:, None] + torch.arange(windows.length)[None, :]
        found, n_active = self.reader.active(batch.x[rows.flatten().to(batch.x.device)], self._columns)
        latents = found.view(*rows.shape, -1).permute(2, 0, 1)  # [latents, windows, tokens]
        self._all_active += n_active
        self._tokens += rows.numel()
        peaks = latents.amax(dim=2).double()
        is_active = peaks > 0
        self._n_windows += is_active.sum(dim=1)
        self._n_tokens += (latents > 0).sum(dim=(1, 2))
        keys = keys_of(self._seed, self.latents, which.numpy())
        never = torch.full_like(keys, torch.inf)
        self._active.offer(torch.where(is_active, keys, never), which, latents)
        self._silent.offer(torch.where(is_active, never, keys), which)
        # The key decides between windows of equal strength: the same text twice, say.
        self._strongest.offer(torch.where(is_active, -peaks * (1 - 1e-9 * keys), never), which, latents)
        if self._everything is not None:
            self._everything.append(self._all(latents, which))

    def _all(self, latents: Tensor, which: Tensor) -> npt.NDArray[np.void]:
        row, window, place = latents.nonzero(as_tuple=True)
        self._n_kept += len(row)
        if self._n_kept > MOST_EXPORTED:
            raise DataError(
                f"The latents have more than {MOST_EXPORTED:,} activations in these contexts, which is too much to "
                "export. Use fewer --contexts or --latents, or leave out --out."
            )
        found = np.empty(len(row), ACTIVATION)
        found["window"], found["place"] = which[window].numpy(), place.numpy()
        found["latent"], found["value"] = self.latents[row.numpy()], latents[row, window, place].numpy()
        return found

    def finish(self, token_ids: Tensor) -> Gathered:
        """The examples of every latent that has enough, and why the others have not.

        Args:
            token_ids: [contexts, positions] of all contexts.
        """
        found: list[LatentExamples] = []
        skipped: dict[str, list[int]] = {reason: [] for reason in (DEAD, FEW, DENSE)}
        for row, index in enumerate(self.latents.tolist()):
            made = self._examples(row, index, token_ids)
            if isinstance(made, str):
                skipped[made].append(index)
            else:
                found.append(made)
        nothing = np.empty(0, ACTIVATION)
        return Gathered(
            reader=self.reader,
            drawn=self.latents,
            latents=tuple(found),
            skipped={reason: tuple(indices) for reason, indices in skipped.items()},
            n_windows=len(self._windows),
            n_tokens=self._tokens,
            l0=self._all_active / self._tokens if self._tokens else 0.0,
            everything=None if self._everything is None else np.concatenate([nothing, *self._everything]),
        )

    def _examples(self, row: int, index: int, token_ids: Tensor) -> LatentExamples | str:
        """The examples, or why there are none."""
        n_windows = int(self._n_windows[row])
        if n_windows == 0:
            return DEAD
        if n_windows < N_EXPLAINED + N_DECILES * PER_DECILE:
            return FEW
        shown = self._shown(row, token_ids)
        seen = {example.context for example in shown}
        own = self._unseen(self._active, row, seen)
        silent = self._unseen(self._silent, row, seen)
        if len(own) < N_DECILES * PER_DECILE:
            return FEW
        if len(silent) < N_NEGATIVES:
            return DENSE
        activations = self._active.activations[row]
        peaks = activations.amax(dim=1)[[place for place, _ in own]]
        # They come in the random order of their keys, which a stable sort leaves to equal ones: the first of a decile
        # are a random choice from it.
        order = peaks.argsort(stable=True).numpy()
        chosen = [sorted(part.tolist())[:PER_DECILE] for part in np.array_split(order, N_DECILES)]
        used = {i for part in chosen for i in part}
        spare = [i for i in range(len(own)) if i not in used][:N_NEGATIVES]

        def active(i: int) -> Example:
            place, window = own[i]
            return self._example(window, token_ids, activations[place])

        return LatentExamples(
            index=index,
            density=int(self._n_tokens[row]) / self._tokens,
            shown=tuple(shown),
            deciles=tuple(tuple(active(i) for i in part) for part in chosen),
            negatives=tuple(self._example(window, token_ids) for _, window in silent[:N_NEGATIVES]),
            spare=tuple(active(i) for i in spare),
        )

    def _unseen(self, reservoir: Reservoir, row: int, seen: set[int]) -> list[tuple[int, int]]:
        """Places in the reservoir's row and their windows, in the order of the keys, without those contexts."""
        places, which = reservoir.items(row)
        contexts = self._windows.contexts[which].tolist()
        pairs = zip(places.tolist(), which.tolist(), contexts, strict=True)
        return [(place, window) for place, window, context in pairs if context not in seen]

    def _shown(self, row: int, token_ids: Tensor) -> list[Example]:
        """The strongest windows, of different contexts first."""
        places, which = self._strongest.items(row)
        candidates = [
            self._example(int(window), token_ids, self._strongest.activations[row, place])
            for place, window in zip(places.tolist(), which.tolist(), strict=True)
        ]
        first: list[Example] = []
        again: list[Example] = []
        contexts: set[int] = set()
        for example in candidates:
            (again if example.context in contexts else first).append(example)
            contexts.add(example.context)
        return sorted([*first, *again][:N_EXPLAINED], key=lambda example: -example.peak)

    def _example(self, window: int, token_ids: Tensor, activations: Tensor | None = None) -> Example:
        context, start = int(self._windows.contexts[window]), int(self._windows.starts[window])
        length = self._windows.length
        return Example(
            window=window,
            context=context,
            start=start,
            token_ids=token_ids[context, start : start + length].numpy(),
            activations=np.zeros(length, np.float32) if activations is None else activations.numpy(),
        )


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
        for collector in collectors:
            collector.update(batch)
        done += len(batch.contexts) // length
        seconds = max(time.perf_counter() - began, 1e-9)
        yield PassProgress(
            name="examples",
            contexts_done=done,
            contexts_total=len(indices),
            tokens_per_second=done * length / seconds,
            seconds_left=seconds / done * (len(indices) - done),
        )
    gathered = [collector.finish(loaded.contexts.token_ids) for collector in collectors]
    for one in gathered:
        if not one.latents:
            counts = ", ".join(f"{len(found)} have {reason}" for reason, found in one.skipped.items() if found)
            raise DataError(
                f"None of {len(one.drawn)} latents of {one.reader.name} can be judged from {one.n_windows:,} windows "
                f"({counts.replace('have dead', 'are dead')}). Use more --contexts, a shorter --window or more "
                "--latents."
            )
    return windows, gathered
