"""What both passes conclude, as plain numbers: the only thing an experiment computes from.

No tensors here, so that an experiment can be listed, tested and drawn without torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inspector.statistics.profiles import ERROR_COVARIANCE, ERROR_MAP, NORM_MAP, Need

if TYPE_CHECKING:
    from torch import Tensor

    from inspector.engine.regression import Factorisation
    from inspector.engine.resampling import Estimate
    from inspector.spec import SaeRef
    from inspector.statistics.first_pass import FirstPass, SaeMaps
    from inspector.statistics.heaviest import Weights
    from inspector.statistics.second_pass import HookSums


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of one SAE over one set of tokens. Unitless; None: undefined, or nobody needed it."""

    fvu: float | None = None
    fvu_nonlinear: float | None = None
    r2_norm: float | None = None
    r2_pooled: float | None = None
    r2_mean_dims: float | None = None


@dataclass(frozen=True, kw_only=True)
class SaeStatistics:
    """Everything measured about one SAE."""

    ref: SaeRef
    l0: float
    """Mean number of active latents per held-out token."""
    scores: Scores
    """On the tokens the profile scores: held out, except that paper-code takes fvu and fvu_nonlinear on all."""
    intervals: dict[str, tuple[float, float] | None]
    """By name of the score: 95% percentile interval over held-out contexts; None where there is none."""
    train: Scores
    """On the training tokens, in closed form from the moments."""
    switched: Scores
    """As `scores`, with the intercept the other way."""
    gaussian_r2_norm: float | None
    """r2_norm were x and sae_error jointly Gaussian with the same moments (S-20)."""
    undefined_dims: int
    """Dimensions of sae_error that are constant over the held-out tokens."""
    weights: Weights | None = None
    """How its squared error is spread over the held-out tokens; None: not known."""


@dataclass(frozen=True, kw_only=True)
class OutliersFound:
    """How many tokens outweigh all others, and what was done with them."""

    factor: float
    """In medians; see `engine.plan`."""
    median_norm: float
    n_train: int
    """Among the training tokens."""
    n_test: int
    """Among the held-out tokens."""
    left_out: bool
    """Of fit and scores."""

    @property
    def n(self) -> int:
        """All of them."""
        return self.n_train + self.n_test


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Everything measured at one hook."""

    d: int
    n_train: int
    n_test: int
    n_test_contexts: int
    intercept: bool
    """Whether the maps have one."""
    fvu_on: str
    """'held-out' or 'all': the tokens fvu and fvu_nonlinear are over."""
    effective_rank: int
    condition_number: float
    constant_share: float
    """q: share of the constant that x expresses without an intercept. 1: the intercept is in x already."""
    affine_fvu: float | None
    """FVU on the training tokens of the affine control map, a principal-component projection; None: not needed."""
    affine_fvu_nonlinear: float | None
    """Its fvu_nonlinear: 0 to 1e-10, or the regression is wrong (S-10)."""
    saes: tuple[SaeStatistics, ...]
    outliers: OutliersFound | None = None
    """The tokens that outweigh all others; None: nobody looked."""
    all_tokens: Statistics | None = None
    """The same with outliers fitted and scored like the others; None: they are here already, or nobody looked."""
    own: Mapping[str, object] = field(default_factory=dict)
    """By experiment id: what its own measurement returned."""

    @property
    def shuffled_r2(self) -> float:
        """The held-out R-squared to expect of shuffled targets: -p / n_train (S-06)."""
        return -(self.effective_rank + int(self.intercept)) / self.n_train


def conclude(
    *,
    refs: dict[str, SaeRef],
    first: FirstPass,
    factorisation: Factorisation,
    maps: dict[str, SaeMaps],
    held_out: HookSums,
    everything: HookSums | None,
    needs: Collection[Need],
    intercept: bool,
    seed: int,
    n_resamples: int,
) -> Statistics:
    """Turn the sums of both passes into numbers.

    Args:
        refs: of every SAE, in the order of the result.
        first: the finished first pass.
        factorisation: of its moments.
        maps: fitted from them, with or without `intercept`.
        held_out: sums over the held-out tokens.
        everything: sums over all included tokens, if fvu and fvu_nonlinear are to be over those.
        needs: scores that nobody needs are not computed.
        intercept: as fitted.
        seed: of the bootstrap.
        n_resamples: bootstrap draws; 0 gives no intervals.
    """
    from inspector.engine.nulls import gaussian_norm_r2
    from inspector.engine.resampling import resampling_counts
    from inspector.statistics import held_out as scoring
    from inspector.statistics.first_pass import error_name

    counts = resampling_counts(len(held_out.n), seed=seed, n_resamples=n_resamples)
    everything_counts = None
    if everything is not None:
        everything_counts = resampling_counts(len(everything.n), seed=seed, n_resamples=n_resamples)
    saes = []
    for sae_id, ref in refs.items():
        estimates = _estimates(held_out, sae_id, counts, needs)
        switched = _point_scores(held_out, sae_id, needs, switched=True)
        if everything is not None and everything_counts is not None:
            own = _estimates(everything, sae_id, everything_counts, needs)
            estimates |= {name: own[name] for name in ("fvu", "fvu_nonlinear") if name in own}
            other = _point_scores(everything, sae_id, needs, switched=True)
            switched |= {name: other[name] for name in ("fvu", "fvu_nonlinear") if name in other}
        gaussian = None
        if ERROR_COVARIANCE in needs:
            gaussian = gaussian_norm_r2(first.moments.target(error_name(sae_id)), factorisation, error_name(sae_id))
        saes.append(
            SaeStatistics(
                ref=ref,
                l0=scoring.l0(held_out, sae_id),
                scores=Scores(**{name: estimate.value for name, estimate in estimates.items()}),
                intervals={name: estimate.interval for name, estimate in estimates.items()},
                train=_train_scores(first, maps[sae_id], sae_id),
                switched=Scores(**switched),
                gaussian_r2_norm=gaussian,
                undefined_dims=scoring.undefined_dims(held_out, sae_id),
                weights=scoring.weights(held_out, sae_id) if sae_id in held_out.top else None,
            )
        )
    affine_fvu, affine_fvu_nonlinear = _affine_control(first, factorisation) if ERROR_MAP in needs else (None, None)
    return Statistics(
        d=first.moments.d,
        n_train=first.n_train,
        n_test=int(held_out.n.sum()),
        n_test_contexts=held_out.n_contexts,
        intercept=intercept,
        fvu_on="held-out" if everything is None else "all",
        effective_rank=factorisation.effective_rank,
        condition_number=factorisation.condition_number,
        constant_share=factorisation.constant_share,
        affine_fvu=affine_fvu,
        affine_fvu_nonlinear=affine_fvu_nonlinear,
        saes=tuple(saes),
    )


def _estimates(sums: HookSums, sae_id: str, counts: Tensor, needs: Collection[Need]) -> dict[str, Estimate]:
    from inspector.engine.resampling import percentile_estimate
    from inspector.statistics import held_out as scoring

    values = {"fvu": scoring.fvu(sums, sae_id, counts)}
    if NORM_MAP in needs:
        values["r2_norm"] = scoring.r2_norm(sums, sae_id, counts)
    if ERROR_MAP in needs:
        values["fvu_nonlinear"] = scoring.fvu_nonlinear(sums, sae_id, counts)
        values["r2_pooled"] = scoring.r2_pooled(sums, sae_id, counts)
        values["r2_mean_dims"] = scoring.r2_mean_dims(sums, sae_id, counts)
    return {name: percentile_estimate(value) for name, value in values.items()}


def _point_scores(sums: HookSums, sae_id: str, needs: Collection[Need], *, switched: bool) -> dict[str, float | None]:
    """The scores of the data as they are, without intervals."""
    import torch

    from inspector.engine.resampling import percentile_estimate
    from inspector.statistics import held_out as scoring

    counts = torch.ones(1, len(sums.n), dtype=torch.float64)
    values = {}
    if NORM_MAP in needs:
        values["r2_norm"] = scoring.r2_norm(sums, sae_id, counts, switched=switched)
    if ERROR_MAP in needs:
        values["fvu_nonlinear"] = scoring.fvu_nonlinear(sums, sae_id, counts, switched=switched)
        values["r2_pooled"] = scoring.r2_pooled(sums, sae_id, counts, switched=switched)
        values["r2_mean_dims"] = scoring.r2_mean_dims(sums, sae_id, counts, switched=switched)
    return {name: percentile_estimate(value).value for name, value in values.items()}


def _train_scores(first: FirstPass, maps: SaeMaps, sae_id: str) -> Scores:
    from inspector.engine.scores import fvu_from_moments, r2_from_moments
    from inspector.statistics.first_pass import error_name, norm_name

    error, norm = first.moments.target(error_name(sae_id)), first.moments.target(norm_name(sae_id))
    pooled, mean_dims = r2_from_moments(error, maps.error_map)
    return Scores(
        fvu=fvu_from_moments(error, None),
        fvu_nonlinear=fvu_from_moments(error, maps.error_map),
        r2_norm=r2_from_moments(norm, maps.norm_map)[0],
        r2_pooled=pooled,
        r2_mean_dims=mean_dims,
    )


def _affine_control(first: FirstPass, factorisation: Factorisation) -> tuple[float | None, float | None]:
    """FVU and fvu_nonlinear on the training tokens of a projection on the leading half of the principal components."""
    from inspector.engine.nulls import pca_moments
    from inspector.engine.scores import fvu_from_moments

    error = pca_moments(first.moments)
    return fvu_from_moments(error, None), fvu_from_moments(error, factorisation.fit_moments(error))
