"""The linear maps of a session: fitted in the time that is left, from more and more tokens, once per policy.

A fit is a generator of short steps. The maps are fitted after 1, 2, 4, 8, ... contexts and at the end, each time
measured on a few held-out contexts whose activations are kept; after the last fit on all of them. What it ends with is
what `dm-inspect run error-vector fvu-nonlinear` prints.

The beginning-of-sequence token and the first positions have activations unlike all others, a few of them enough to
move a fit. So they are left out ("excluded"); a view may ask to see what they do ("included"). Both policies share the
model, the SAEs and every text that was looked at, and what was fitted stays, so that switching back costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inspector.drawing.levels import HIGH_QUANTILE, LOW_QUANTILE
from inspector.engine.decomposition import decompose, sae_error, squared_norm
from inspector.engine.plan import Plan, with_everything
from inspector.engine.resampling import percentile_estimate, resampling_counts
from inspector.engine.scores import r2_scalar
from inspector.session.cards import SaeQuality
from inspector.session.protocol import GetPairs, MapImproved, Pairs, Policy, PolicySet
from inspector.sources.activations import stream
from inspector.statistics.first_pass import FirstPass, Reconstruction, SaeMaps
from inspector.statistics.held_out import HookSums
from inspector.statistics.second_pass import SecondPass

if TYPE_CHECKING:
    from inspector.engine.regression import LinearMap
    from inspector.sources.activations import ActivationBatch
    from inspector.sources.target import Loaded

N_EVALUATED = 16
"""Held-out contexts that measure every fit but the last; an interval needs some, patience allows few."""
TOKENS_PER_DIMENSION = 2
"""No fit before there are so many tokens per dimension of x: below, a map repeats its training tokens and predicts
nothing else."""
PART_TOKENS = 256
"""Tokens that all SAEs see before the next ones: an SAE takes no fewer at once, and what 40 of them make of more is
large. Where SAEs come in slices, all of them come for each part, and a part is a whole context."""
STEP_SECONDS = 0.06
"""What a step should take; a view's question waits for the end of one."""
EVALUATION_BYTES = 256 * 1024 * 1024
"""For reconstructions of the evaluated contexts; if they take more, they are made anew for every fit."""
RANGE_TOKENS = 64
"""Tokens of each evaluated context that say what colours run over: a thousand in all, enough for two quantiles."""
WIDE = 512
"""From this d on, a fit takes long enough to be done in a thread while questions are answered."""


@dataclass(frozen=True, kw_only=True)
class Improvement:
    """A fit and what to tell about it."""

    maps: Mapping[str, LinearMap]
    """x to sae_error, by sae_id."""
    message: MapImproved


class ErrorNorms:
    """Whether tokens on which one SAE does badly are those on which another does: Eq. 13, over the tokens seen so far.

    The squared error norm of SAE j is predicted as c times that of SAE i; c is fitted through the origin on training
    tokens, R-squared is of held-out tokens (spec `per-token-scaling`, the paper's text). Only one number per included
    token and SAE is kept, as the background pass comes across them; each context is added once.
    """

    def __init__(self, sae_ids: Sequence[str]) -> None:
        self._train: dict[str, list[Tensor]] = {sae_id: [] for sae_id in sae_ids}
        self._test: dict[str, list[Tensor]] = {sae_id: [] for sae_id in sae_ids}
        self.n_test = 0

    def add(self, norms_sq: Mapping[str, Tensor], train: Tensor, test: Tensor) -> None:
        """Add tokens.

        Args:
            norms_sq: [n] squared norm of sae_error by sae_id.
            train: [n] bool, tokens that may choose c.
            test: [n] bool, tokens that are scored.
        """
        for sae_id, values in norms_sq.items():
            values = values.detach().float().cpu()
            self._train[sae_id].append(values[train])
            self._test[sae_id].append(values[test])
        self.n_test += int(test.sum())

    def pairs(self, asked: GetPairs) -> Pairs:
        """R-squared of every pair in the order asked for: 1 on the diagonal, None below it or where undefined."""
        train = {sae_id: _joined(self._train[sae_id]) for sae_id in asked.sae_ids}
        test = {sae_id: _joined(self._test[sae_id]) for sae_id in asked.sae_ids}
        r2: list[list[float | None]] = []
        for i, first in enumerate(asked.sae_ids):
            row: list[float | None] = [None] * i + [1.0]
            row += [_r2(train[first], train[second], test[first], test[second]) for second in asked.sae_ids[i + 1 :]]
            r2.append(row)
        return Pairs(request=asked.request, sae_ids=asked.sae_ids, r2=r2, n_tokens=self.n_test)


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts).double() if parts else torch.zeros(0, dtype=torch.float64)


def _r2(train_1: Tensor, train_2: Tensor, test_1: Tensor, test_2: Tensor) -> float | None:
    """R-squared on test tokens of ‖e_2‖² = c ‖e_1‖², c from the training tokens; None if either is undefined."""
    scale = float((train_1 * train_1).sum())
    if scale == 0.0 or len(test_1) < 2:
        return None
    return r2_scalar(test_2, float((train_1 * train_2).sum()) / scale * test_1)


@dataclass(kw_only=True)
class PolicyFit:
    """What is known under one policy. Grows with every fit."""

    policy: Policy
    plan: Plan
    norms: ErrorNorms
    maps: Mapping[str, LinearMap] = field(default_factory=dict)
    """By sae_id; none before the first fit."""
    epoch: int = 0
    """Of the maps, as in MapImproved."""
    told: MapImproved | None = None
    """The newest message about it."""

    def improve(self, improved: Improvement) -> bool:
        """Take over a fit; whether the maps are others than before."""
        self.told = improved.message
        if improved.message.epoch <= self.epoch:
            return False
        self.maps, self.epoch = improved.maps, improved.message.epoch
        return True

    def split_of(self, context: int) -> str:
        """The letters of ContextScores.split for a context."""
        return "".join(
            "t" if train else "h" if included else "x"
            for included, train in zip(
                self.plan.included[context].tolist(), self.plan.train[context].tolist(), strict=True
            )
        )

    def split_of_ids(self, token_ids: Collection[int], special_ids: Collection[int]) -> str:
        """The letters for a text that is not among the contexts: held out, but for special tokens if they are out."""
        out = special_ids if self.policy == "excluded" else ()
        return "".join("x" if token in out else "h" for token in token_ids)


def policy_fits(loaded: Loaded) -> dict[Policy, PolicyFit]:
    """One per policy, nothing fitted yet."""
    everything = with_everything(loaded.plan, loaded.target.split, loaded.target.seed)
    plans: dict[Policy, Plan] = {"excluded": loaded.plan, "included": everything}
    sae_ids = [sae.ref.sae_id for sae in loaded.saes]
    return {policy: PolicyFit(policy=policy, plan=plan, norms=ErrorNorms(sae_ids)) for policy, plan in plans.items()}


def policy_set(loaded: Loaded, policy: Policy, request: int) -> PolicySet:
    """The answer to SetPolicy: how many tokens it is about."""
    ids, plan = loaded.contexts.token_ids, loaded.plan
    special = torch.isin(ids, torch.tensor(sorted(loaded.model.special_ids), dtype=torch.int64))
    out = ~plan.included
    out[:, -1] = False  # never counted, whatever the policy
    return PolicySet(
        request=request, policy=policy, n_special=int((out & special).sum()), n_before=int((out & ~special).sum())
    )


class Fits:
    """The background fits of all policies, one step at a time: first of those that a view waits for, in turns.

    Args:
        loaded: the target.
        states: by policy; each fit adds to the norms of its own.
    """

    def __init__(self, loaded: Loaded, states: Mapping[Policy, PolicyFit]) -> None:
        self._loaded = loaded
        self._states = states
        self._started: set[Policy] = set()
        self._running: dict[Policy, Iterator[Improvement | None]] = {}
        """In the order of their turns."""

    def want(self, policy: Policy) -> None:
        """Begin its fit, if it was not."""
        if policy not in self._started:
            self._started.add(policy)
            state = self._states[policy]
            self._running[policy] = background_fit(replace(self._loaded, plan=state.plan), state.norms, policy)

    @property
    def has_work(self) -> bool:
        """Whether a fit is unfinished."""
        return bool(self._running)

    def step(self, waited_for: Collection[Policy]) -> Improvement | None:
        """One step of one fit; nothing if none is running.

        Args:
            waited_for: policies of the views that are there.

        Raises:
            Exception: whatever the fit raised; it is over then, and the others go on.
        """
        wanted = [policy for policy in self._running if policy in waited_for] or list(self._running)
        if not wanted:
            return None
        work = self._running.pop(wanted[0])
        try:
            improved = next(work)
        except StopIteration:
            return None
        self._running[wanted[0]] = work  # behind the others
        return improved


def background_fit(loaded: Loaded, norms: ErrorNorms, policy: Policy = "excluded") -> Iterator[Improvement | None]:
    """One item per step: None, or a better map. Nothing at all if there is nothing to fit on.

    Args:
        loaded: the target, with the plan of the policy.
        norms: gets the error norms of every token that comes by.
        policy: as it is told with every map.
    """
    fit = _Fit(loaded, norms, policy)
    return fit.run()


class _Fit:
    """State of one background fit."""

    def __init__(self, loaded: Loaded, norms: ErrorNorms, policy: Policy) -> None:
        self.policy = policy
        self.loaded = loaded
        self.norms = norms
        self.sae_ids = [sae.ref.sae_id for sae in loaded.saes]
        self.seed = loaded.target.seed
        self.train_contexts = _shuffled(loaded.plan.train.any(dim=1), self.seed)
        self.test_contexts = _shuffled(loaded.plan.test.any(dim=1), self.seed + 1)
        self.d = loaded.model.check_hook(loaded.hook_name)
        self.first = FirstPass(self.d, self.sae_ids)
        self.epoch = 0
        n_tokens = min(N_EVALUATED, len(self.test_contexts)) * loaded.plan.included.shape[1]
        self.keeps_reconstructions = 4 * n_tokens * self.d * len(self.sae_ids) <= EVALUATION_BYTES
        self.evaluated: dict[int, list[tuple[ActivationBatch, dict[str, Reconstruction]]]] = {}
        """By context, the parts it is scored in; without reconstructions where they would take too much."""
        self.measured: set[int] = set()
        """Contexts whose error norms were added."""
        self.sizes: dict[str, list[Tensor]] = {}
        """By SAE, of tokens scored with the newest maps: [4, n] as `_ranges` takes them."""

    def run(self) -> Iterator[Improvement | None]:
        """The whole work."""
        due = 1
        fit_seconds, last_fit = 0.0, 0.0
        for n_done, index in enumerate(self.train_contexts, start=1):
            yield from self._train(index)
            enough = self.first.n_train >= TOKENS_PER_DIMENSION * self.d
            # Among thousands of dimensions a fit takes seconds: a fifth of the time may go into fits, not more.
            rested = time.monotonic() - last_fit >= 4 * fit_seconds
            if n_done >= due and enough and rested and n_done < len(self.train_contexts):
                due = 2 * n_done
                began = time.monotonic()
                maps = yield from self._fitted()
                fit_seconds, last_fit = time.monotonic() - began, time.monotonic()
                second = SecondPass(maps, self.loaded.plan, tokens="ordinary")
                yield from self._evaluate(second, self.test_contexts[: min(N_EVALUATED, 2 * n_done)])
                yield self._improvement(maps, second, finished=False)
        if self.first.n_train == 0:
            return
        maps = yield from self._fitted()
        second = SecondPass(maps, self.loaded.plan, tokens="ordinary")
        yield from self._evaluate(second, self.test_contexts[:N_EVALUATED])
        if len(self.test_contexts) > N_EVALUATED:
            yield self._improvement(maps, second, finished=False)
            yield from self._evaluate(second, self.test_contexts[N_EVALUATED:])
        self.evaluated.clear()
        yield self._improvement(maps, second, finished=True)

    def _train(self, index: int) -> Iterator[None]:
        """Add one context's training tokens."""
        plan = self.loaded.plan
        batch = self._activations(index)
        yield None
        for part in self._parts(batch):
            made = yield from self._reconstructed(part)
            with torch.inference_mode():
                self.first.update(part, made, part.ordinary(plan.train[part.contexts.cpu(), part.positions.cpu()]))
            yield None
        self.measured.add(index)

    def _parts(self, batch: ActivationBatch) -> Iterator[ActivationBatch]:
        """The batch in parts of PART_TOKENS, or as it is."""
        memory = self.loaded.memory
        size = PART_TOKENS if memory is None or not memory.sliced else len(batch.positions)
        for start in range(0, len(batch.positions), size):
            part = slice(start, start + size)
            yield replace(
                batch,
                contexts=batch.contexts[part],
                positions=batch.positions[part],
                token_ids=batch.token_ids[part],
                x=batch.x[part],
                outlier=None if batch.outlier is None else batch.outlier[part],
            )

    def _fitted(self) -> Generator[None, None, dict[str, SaeMaps]]:
        """Maps from what was added so far."""
        self.epoch += 1
        self.sizes = {sae_id: [] for sae_id in self.sae_ids}
        if self.d < WIDE:
            with torch.inference_mode():
                return self.first.fit()

        def fit() -> dict[str, SaeMaps]:
            with torch.inference_mode():  # a thread has its own mode
                return self.first.fit()

        with ThreadPoolExecutor(1, thread_name_prefix="fit") as pool:
            future = pool.submit(fit)
            while not future.done():
                wait([future], timeout=STEP_SECONDS)
                yield None
            return future.result()

    def _evaluate(self, second: SecondPass, contexts: Sequence[int]) -> Iterator[None]:
        """Score held-out contexts; the first N_EVALUATED are kept for the next fit."""
        for index in contexts:
            parts = self.evaluated.get(index)
            if parts is None:
                batch = self._activations(index)
                yield None
                parts = [(part, {}) for part in self._parts(batch)]
                if index in self.test_contexts[:N_EVALUATED]:
                    self.evaluated[index] = parts
            for part, known in parts:
                made = known or (yield from self._reconstructed(part))
                if self.keeps_reconstructions:
                    known.update(made)
                with torch.inference_mode():
                    second.update(part, made)
                    if index in self.test_contexts[:N_EVALUATED]:
                        self._note_sizes(second, part, made)
                yield None
            self.measured.add(index)

    def _note_sizes(self, second: SecondPass, part: ActivationBatch, made: Mapping[str, Reconstruction]) -> None:
        """Keep four numbers per SAE of some of the scored tokens, evenly spaced."""
        scored = second.mask(part).nonzero()[:, 0]
        rows = scored[:: max(1, len(scored) // RANGE_TOKENS)].to(part.x.device)
        x = part.x[rows]
        for sae_id, one in made.items():
            parts = decompose(x, one.x_hat[rows], second.maps[sae_id].error_map)
            rest = parts.nonlinear_error_norm
            norms = (parts.sae_error_norm, parts.linear_error_norm, rest, (rest / squared_norm(x).sqrt()).square())
            self.sizes[sae_id].append(torch.stack(norms).float().cpu())

    def _activations(self, index: int) -> ActivationBatch:
        with torch.inference_mode():
            batch = next(iter(stream(self.loaded.model, self.loaded.contexts, self.loaded.hook_name, [index], 1)))
        apart = self.loaded.outliers
        return batch if apart is None else replace(batch, outlier=apart.among(batch.x))

    def _reconstructed(self, batch: ActivationBatch) -> Generator[None, None, dict[str, Reconstruction]]:
        """What every SAE makes of some tokens, in steps of about STEP_SECONDS; notes the errors' norms in passing."""
        plan, places = self.loaded.plan, (batch.contexts.cpu(), batch.positions.cpu())
        made: dict[str, Reconstruction] = {}
        began = time.monotonic()
        for sae in self.loaded.saes:
            made[sae.ref.sae_id] = sae.reconstruct(batch.x)
            if time.monotonic() - began > STEP_SECONDS:
                yield None
                began = time.monotonic()
        if int(batch.contexts[0]) not in self.measured:
            with torch.inference_mode():
                norms_sq = {sae_id: squared_norm(sae_error(batch.x, one.x_hat)) for sae_id, one in made.items()}
            train, test = batch.ordinary(plan.train[places]), batch.ordinary(plan.test[places])
            self.norms.add(norms_sq, train=train, test=test)
        return made

    def _improvement(self, maps: Mapping[str, SaeMaps], second: SecondPass, *, finished: bool) -> Improvement:
        plan = self.loaded.plan
        with torch.inference_mode():
            sums = second.finish()
            qualities = [_quality(sums, sae_id, self.seed, _ranges(self.sizes[sae_id])) for sae_id in self.sae_ids]
        return Improvement(
            maps={sae_id: fitted.error_map for sae_id, fitted in maps.items()},
            message=MapImproved(
                epoch=self.epoch,
                n_tokens=self.first.n_train,
                n_tokens_goal=plan.n_train,
                n_held_out=0 if sums is None else int(sums.n.sum()),
                qualities=qualities,
                finished=finished,
                policy=self.policy,
            ),
        )


def _ranges(sizes: Sequence[Tensor]) -> dict[str, tuple[float, float]]:
    """What the colours of an SAE run over: quantiles of what `_note_sizes` kept, by id of the measure."""
    if not sizes:
        return {}
    ends = torch.quantile(torch.cat(list(sizes), dim=1), torch.tensor([LOW_QUANTILE, HIGH_QUANTILE]), dim=1).T.tolist()
    return {name: (low, high) for name, (low, high) in zip(("total", "linear", "nonlinear", "fvu"), ends, strict=True)}


def _quality(sums: HookSums | None, sae_id: str, seed: int, ranges: dict[str, tuple[float, float]]) -> SaeQuality:
    """Held-out scores of one SAE; nothing known if nothing is held out."""
    if sums is None:
        return SaeQuality(r2=None, r2_low=None, r2_high=None, fvu=None, fvu_nonlinear=None, l0=None)
    counts = resampling_counts(len(sums.n), seed=seed)
    r2 = percentile_estimate(sums.r2_pooled(sae_id, counts))
    return SaeQuality(
        r2=r2.value,
        r2_low=r2.low,
        r2_high=r2.high,
        fvu=percentile_estimate(sums.fvu(sae_id, counts[:1])).value,
        fvu_nonlinear=percentile_estimate(sums.fvu_nonlinear(sae_id, counts[:1])).value,
        l0=sums.l0(sae_id),
        ranges=ranges,
    )


def _shuffled(chosen: Tensor, seed: int) -> list[int]:
    """Indices where `chosen` [c] is True, in seeded order: the first few must not all be of one file."""
    indices: list[int] = chosen.nonzero()[:, 0].tolist()
    return [indices[i] for i in np.random.default_rng(seed).permutation(len(indices))]
