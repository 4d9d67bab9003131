"""How long the passes over tokens take, before anything is loaded: what they compute, over what a machine can do.

Counts products and numbers from sizes alone, no torch. An experiment that measures for itself says in its own file what
its passes are (`Experiment.passes`); those that all share are `shared_passes`. A command's plan and the screen of
experiments both read `estimate`.

What is counted is matrix products and the elementwise work on their results; launches, copies and Python are not, so
small models take longer than this says. Whoever has measured a pass scales by what it took (`Rates.slower`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

from inspector.sources.memory_plan import DISK_RATE, HOST_RATE, MemoryPlan, moved_bytes
from inspector.sources.memory_sums import CONTEXTS_AT_ONCE, Sizes
from inspector.statistics.profiles import ERROR_COVARIANCE, Need

if TYPE_CHECKING:
    import torch

    from inspector.engine.plan import Plan
    from inspector.events import PassProgress
    from inspector.spec import SaeRef

KEPT_BYTES = 256 << 20
"""Activations kept between passes: `passes.CACHE_BYTES`."""
TRAIN_SHARE = 150_000 / 246_900
"""Of the included tokens, fitted: `plan.PAPER_TRAIN` of `plan.PAPER_TOKENS`."""
USUAL_L0 = 60.0
"""Active latents of an SAE whose L0 is not known."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What a machine does in a second, on the shapes at hand rather than at its best."""

    model: float
    """Floating-point operations of matrix products in the model's dtype."""
    sae: float
    """The same in float32."""
    sums: float
    """The same in float64."""
    numbers: float
    """Float32 numbers that an exponential is taken of: stands for all elementwise work."""
    host: float = HOST_RATE
    disk: float = DISK_RATE
    """Bytes of sliced SAEs that come from the host's memory, and from disk."""

    def slower(self, times: float) -> Rates:
        """Everything so many times as slow."""
        return Rates(**{each.name: getattr(self, each.name) / times for each in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One walk over contexts."""

    name: str
    """As its progress is told."""
    contexts: int
    model: float = 0.0
    sae: float = 0.0
    sums: float = 0.0
    """Operations; see `Rates`."""
    numbers: float = 0.0
    host: float = 0.0
    disk: float = 0.0
    """Bytes."""

    def seconds(self, rates: Rates) -> float:
        """At these rates."""
        return float(sum(getattr(self, each.name) / getattr(rates, each.name) for each in fields(rates)))


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A target's tokens, model and SAEs, as far as they decide what passes cost."""

    sizes: Sizes
    n_layers: int
    """0: not known; then every pass counts as one through all layers."""
    layer: int | None
    n_train: int
    n_test: int
    """Tokens on either side of the split."""
    train_contexts: int
    test_contexts: int
    """With at least one token of that side."""
    memory: MemoryPlan | None = None
    """Where the SAEs are; None: all on the device."""

    @classmethod
    def expected(
        cls, sizes: Sizes, *, layer: int | None, n_layers: int | None, start: int, train_tokens: int | None
    ) -> Workload:
        """Before the text is read: every context full, none of its tokens special or an outlier.

        Args:
            sizes: of the target.
            layer: of the hook; None if it has none.
            n_layers: of the model; None: not known.
            start: first position that counts.
            train_tokens: that fit the maps, if fewer than usual.
        """
        per_context = max(1, sizes.length - 1 - start)
        n = sizes.n_contexts * per_context
        n_train = min(int(TRAIN_SHARE * n), 150_000 if train_tokens is None else train_tokens)
        contexts = sizes.n_contexts if sizes.by_token else -(-n_train // per_context)
        return cls(
            sizes=sizes,
            n_layers=n_layers or 0,
            layer=layer,
            n_train=n_train,
            n_test=n - n_train,
            train_contexts=contexts,
            test_contexts=sizes.n_contexts if sizes.by_token else sizes.n_contexts - contexts,
        )

    @classmethod
    def of_plan(cls, sizes: Sizes, plan: Plan, *, layer: int | None, n_layers: int | None) -> Workload:
        """Of a target whose text is there."""
        return cls(
            sizes=replace(sizes, n_contexts=len(plan.included), length=plan.included.shape[1]),
            n_layers=n_layers or 0,
            layer=layer,
            n_train=plan.n_train,
            n_test=plan.n_test,
            train_contexts=int(plan.train.any(dim=1).sum()),
            test_contexts=int(plan.test.any(dim=1).sum()),
        )

    @property
    def n_tokens(self) -> int:
        """Fitted or scored."""
        return self.n_train + self.n_test

    @property
    def contexts(self) -> int:
        """Of either side; those of both count twice, as they are run twice."""
        return self.train_contexts + self.test_contexts

    @property
    def saes(self) -> tuple[SaeRef, ...]:
        """All of the hook."""
        return self.sizes.saes

    def nearest(self, l0: float) -> list[SaeRef]:
        """As `grouping.nearest_l0`: per width the SAE of the nearest nominal L0; 0 takes all."""
        if not l0:
            return list(self.saes)
        by_width: dict[int, list[SaeRef]] = {}
        for ref in self.saes:
            by_width.setdefault(ref.d_sae, []).append(ref)
        return [min(same, key=lambda ref: abs((ref.nominal_l0 or 0.0) - l0)) for same in by_width.values()]

    def sampled(self, tokens: int) -> Workload:
        """On about so many tokens in whole contexts, as `grouping.sample_plan`; 0 takes all."""
        share = min(1.0, (tokens or self.n_tokens) / max(1, self.n_tokens))
        counts = (self.n_train, self.n_test, self.train_contexts, self.test_contexts)
        n_train, n_test, train, test = (max(1, round(share * n)) for n in counts)
        return replace(self, n_train=n_train, n_test=n_test, train_contexts=train, test_contexts=test)

    def walk(
        self, name: str, contexts: int, *, model: float = 0.0, sae: float = 0.0, sums: float = 0.0, numbers: float = 0.0
    ) -> Pass:
        """A pass, from an experiment's file, which then needs to import nothing for it.

        What is sliced of the SAEs is moved once for the contexts that go through together, as many as `run` takes if it
        is not told otherwise, or as memory allows.
        """
        host = disk = 0.0
        if self.memory is not None and sae:
            memory, at_once = self.memory, max(1, min(contexts, CONTEXTS_AT_ONCE, self.memory.contexts_at_once))
            tokens, turns = at_once * self.sizes.length, math.ceil(contexts / at_once)
            host, disk = (
                float(turns * sum(moved_bytes(ref, tokens) for ref in self.saes if ref.sae_id in names))
                for names in (memory.sliced_from_host, memory.sliced_from_disk)
            )
        return Pass(
            name=name, contexts=contexts, model=model, sae=sae, sums=sums, numbers=numbers, host=host, disk=disk
        )

    # ---- what is computed -------------------------------------------------------------------------------------------

    def forward(self, contexts: int, *, whole: bool = False) -> float:
        """Operations of the model up to the hook over so many contexts, or of all of it with its logits."""
        sizes = self.sizes
        vocabulary = sizes.vocab_size * sizes.d_model
        all_layers = self.n_layers or 1
        layers = all_layers if whole or self.layer is None else min(all_layers, self.layer + 1)
        weights = max(0, sizes.n_parameters - vocabulary) * layers / all_layers
        attention = 2 * sizes.length * sizes.d_model * layers
        return 2.0 * contexts * sizes.length * (weights + attention + whole * vocabulary)

    def again(self, contexts: int) -> float:
        """As `forward`, in a pass over activations that were kept as far as there was room."""
        needed = 4 * self.sizes.n_contexts * self.sizes.length * self.sizes.d_in
        return self.forward(contexts) * max(0.0, 1.0 - KEPT_BYTES / max(1, needed))

    def logits(self, contexts: int) -> float:
        """Numbers in the logits of so many contexts."""
        return float(contexts * self.sizes.length * self.sizes.vocab_size)

    def coded(self, tokens: int, saes: Iterable[SaeRef]) -> float:
        """Operations of encoding tokens and decoding their active latents."""
        return 2.0 * tokens * sum(ref.d_in * (ref.d_sae + (ref.nominal_l0 or USUAL_L0)) for ref in saes)

    def squares(self, tokens: int, n: int) -> float:
        """Operations of n products of a vector per token with another, summed over tokens."""
        return 2.0 * tokens * n * self.sizes.d_in**2

    def vectors(self, tokens: int, n: int) -> float:
        """Numbers in n vectors per token."""
        return float(tokens * n * self.sizes.d_in)


def shared_passes(work: Workload, needs: Iterable[Need]) -> list[Pass]:
    """The two passes that every experiment of a target shares, as `pipeline.measure_shared` makes them.

    Args:
        work: the target.
        needs: of all experiments together.
    """
    n, d = len(work.saes), work.sizes.d_in
    full = n if ERROR_COVARIANCE in set(needs) else 0
    return [
        work.walk(
            "moments",
            work.train_contexts,
            model=work.forward(work.train_contexts),
            sae=work.coded(work.n_train, work.saes),
            # x with x and with every error; then one eigen-decomposition (LAPACK's count) and a map per SAE.
            sums=work.squares(work.n_train, 1 + n + full) + 25.0 * d**3 + 6.0 * n * d**3,
            numbers=work.vectors(work.n_train, 4 * n),
        ),
        work.walk(
            "scores",
            work.test_contexts,
            model=work.forward(work.test_contexts),
            sae=work.coded(work.n_test, work.saes) + work.squares(work.n_test, n),
            numbers=work.vectors(work.n_test, 8 * n),
        ),
    ]


# ---- experiments ----------------------------------------------------------------------------------------------------


class Priced(Protocol):
    """What is asked of an experiment here; see `inspector.experiment.Experiment`."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """Of the shared passes."""

    @property
    def needs_target(self) -> bool:
        """Whether it makes those passes."""

    @property
    def own_work(self) -> Callable[..., Any] | None:
        """What it does beside them."""

    @property
    def passes(self) -> Callable[[Workload, Any], Iterable[Pass]] | None:
        """Of that work, from the target and its parameters."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one experiment costs."""

    experiment: str
    passes: tuple[Pass, ...] | None
    """All of them if it runs alone, the shared ones first; None: it does not say."""
    own_seconds: float | None
    """Beside the shared passes and the experiments before it; None: not known."""
    seconds: float | None
    """Alone, over all its passes."""
    measured: bool = False
    """Whether a run has taken this time, rather than being expected to."""


def estimate(
    experiments: Sequence[Priced],
    params: Mapping[str, object],
    work: Workload,
    rates: Rates,
    *,
    took: Mapping[str, float] | None = None,
    shared_took: float | None = None,
) -> tuple[list[Estimate], float]:
    """What experiments cost in one run, and seconds of the passes that they share.

    Args:
        experiments: in the order of the run.
        params: of each, by id.
        work: the target.
        rates: of the machine.
        took: by experiment, seconds beside the shared passes that runs on this target have taken.
        shared_took: seconds that the shared passes have taken.
    """
    took = took or {}
    shared = shared_passes(work, {need for each in experiments for need in each.needs})
    of_target = any(each.needs_target for each in experiments)
    shared_seconds = sum(each.seconds(rates) for each in shared) if shared_took is None else shared_took
    found: list[Estimate] = []
    counted: list[object] = []
    for experiment in experiments:
        own = _own_passes(experiment, params[experiment.id], work)
        seconds = took.get(experiment.id)
        if seconds is None and own is not None:
            seconds = sum(each.seconds(rates) for each in own)
        # Experiments with one measurement and equal parameters share it, and the first has taken the time of all.
        key = (experiment.own_work, params[experiment.id])
        again = experiment.own_work is not None and key in counted
        counted.append(key)
        before = shared_seconds if experiment.needs_target else 0.0
        found.append(
            Estimate(
                experiment=experiment.id,
                passes=None if own is None else (*(shared if experiment.needs_target else ()), *own),
                own_seconds=0.0 if again else seconds,
                seconds=None if seconds is None else before + seconds,
                measured=experiment.id in took,
            )
        )
    return found, shared_seconds if of_target else 0.0


def _own_passes(experiment: Priced, params: object, work: Workload) -> list[Pass] | None:
    """What it does beside the shared passes; None if it does something and does not say what."""
    if experiment.own_work is None:
        return []
    return None if experiment.passes is None else list(experiment.passes(work, params))


def passes_of(experiments: Sequence[Priced], params: Mapping[str, object], work: Workload) -> list[Pass]:
    """Every pass of one run, in its order: those that are shared, then each measurement once, then simulations."""
    ordered = sorted(experiments, key=lambda each: not each.needs_target)
    own = {(each.own_work, params[each.id]): _own_passes(each, params[each.id], work) or () for each in ordered}
    of_target = [each for each in experiments if each.needs_target]
    shared = shared_passes(work, {need for each in of_target for need in each.needs}) if of_target else []
    return [*shared, *(each for passes in own.values() for each in passes)]


class Ahead:
    """What is left of a run, from the pass it is at and those that follow.

    Args:
        passes: of the run, in its order.
        rates: as expected; each pass that runs shows how much slower it is.
        length: tokens per context.
    """

    def __init__(self, passes: Sequence[Pass], rates: Rates, length: int) -> None:
        self._passes = [(each.name, each.seconds(rates)) for each in passes]
        self._length = length
        self._at = 0

    def left(self, event: PassProgress) -> float:
        """Seconds left of the pass that tells this and of all that follow; of itself alone where it is not known."""
        here = (i for i in range(self._at, len(self._passes)) if event.name.startswith(self._passes[i][0]))
        at = next(here, None)
        if at is None:
            return event.seconds_left
        self._at = at
        after = sum(seconds for _, seconds in self._passes[at + 1 :])
        if event.tokens_per_second <= 0:  # a simulation, which tells no rate
            return event.seconds_left + after
        whole = event.contexts_total * self._length / event.tokens_per_second
        return event.seconds_left + after * whole / max(self._passes[at][1], 1e-9)


# ---- the machine at hand --------------------------------------------------------------------------------------------

ROWS = 256
"""Tokens of a product that is timed, as many as a chunk through an SAE has."""
MOST_NUMBERS = 1 << 22
"""Of a matrix that is timed: 16 MB in float32, more than a processor's cache holds."""
TIMED_SECONDS = 0.02
"""Per rate, about; the first try does not count."""


def measured_rates(work: Workload, device: torch.device, dtype: torch.dtype) -> Rates:
    """Time products of the target's own shapes on the device, a tenth of a second or two in all."""
    import torch

    d, sizes = max(1, work.sizes.d_in), work.sizes
    wide = max((ref.d_sae for ref in sizes.saes), default=sizes.d_ff)

    def product(inner: int, outer: int, kind: torch.dtype) -> float:
        """Operations per second of [ROWS, inner] times [inner, outer]."""
        outer = max(1, min(outer, MOST_NUMBERS // inner))
        left = torch.randn(ROWS, inner, device=device).to(kind)
        right = torch.randn(inner, outer, device=device).to(kind)
        return 2.0 * ROWS * inner * outer / _seconds(lambda: left @ right, device)

    n = min(MOST_NUMBERS, ROWS * wide)
    values = torch.randn(n, device=device)
    return Rates(
        model=product(max(1, sizes.d_model), sizes.d_ff or d, dtype),
        sae=product(d, wide, torch.float32),
        sums=product(d, d, torch.float64),
        numbers=n / _seconds(values.exp, device),
    )


def _seconds(work: object, device: torch.device) -> float:
    """Of one call, the median of as many as fit into the time."""
    import torch

    assert callable(work)
    took: list[float] = []
    with torch.inference_mode():
        while len(took) < 4 or sum(took) < TIMED_SECONDS:
            began = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            took.append(max(time.perf_counter() - began, 1e-9))
    return sorted(took[1:])[len(took) // 2 - 1]
