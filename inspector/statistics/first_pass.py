"""The pass over training tokens: moments of x, of every SAE's error and of its squared norm; from them the affine maps.

It can be fitted at any time and go on, which is how a live session sharpens its picture.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from inspector.engine.decomposition import sae_error, squared_norm
from inspector.engine.moments import Moments, sums_device
from inspector.engine.regression import Factorisation, LinearMap
from inspector.events import Event
from inspector.statistics.passes import Activations, Sums, contexts_with, require_finite, walk

if TYPE_CHECKING:
    from inspector.engine.plan import Plan
    from inspector.sources.activations import ActivationBatch
    from inspector.sources.sae import LoadedSae
    from inspector.statistics.passes import Keeper


class Reconstruction(Protocol):
    """What an SAE, or anything put in its place, makes of n activations."""

    @property
    def x_hat(self) -> Tensor:
        """[n, d] reconstruction of the activations."""

    @property
    def l0(self) -> Tensor:
        """[n] number of active latents."""


Reconstructions = Mapping[str, Reconstruction] | Iterable[tuple[str, Reconstruction]]
"""By sae_id. Pairs may be made one at a time, so that only one SAE's x_hat is alive; their order must stay the same."""


def pairs(reconstructions: Reconstructions) -> Iterable[tuple[str, Reconstruction]]:
    """The (sae_id, reconstruction) pairs of either form."""
    return reconstructions.items() if isinstance(reconstructions, Mapping) else reconstructions


def error_name(sae_id: str) -> str:
    """Name of an SAE's error among the targets of the moments."""
    return f"error {sae_id}"


def norm_name(sae_id: str) -> str:
    """Name of the squared norm of an SAE's error among the targets of the moments."""
    return f"norm {sae_id}"


@dataclass(frozen=True, kw_only=True)
class SaeMaps:
    """What was fitted for one SAE. Independent of the pass, which may go on."""

    error_map: LinearMap
    """x to sae_error (Eq. 11)."""
    norm_map: LinearMap
    """x to ‖sae_error‖² (Eq. 10)."""
    mean_error: Tensor
    """[d] float64 training mean of sae_error; held-out sums are kept around it."""
    mean_norm_sq: Tensor
    """[1] float64 training mean of ‖sae_error‖²."""
    constant_direction: Tensor
    """[d] float64 g: the constant 1 is approximated by g x when there is no intercept."""
    error_switch: Tensor
    """[d] float64. With the intercept switched the other way, the prediction at x changes by this times (1 - g x)."""
    norm_switch: Tensor
    """[1] float64, as `error_switch`."""


class FirstPass:
    """Accumulator over training tokens.

    Args:
        d: width of x.
        sae_ids: the SAEs, all of which every batch must bring.
        covariance: keep the whole covariance of every error; costs one more product per batch and SAE.
    """

    def __init__(self, d: int, sae_ids: Sequence[str], *, covariance: bool = False) -> None:
        self.sae_ids = tuple(sae_ids)
        self.covariance = covariance
        self.moments = Moments(d, full=[error_name(sae_id) for sae_id in sae_ids] if covariance else ())

    @property
    def n_train(self) -> int:
        """Training tokens so far."""
        return self.moments.n

    def update(self, batch: ActivationBatch, reconstructions: Reconstructions, train_mask: Tensor) -> None:
        """Add a batch's training tokens.

        Args:
            batch: x [n, d] with the place of every token.
            reconstructions: of all the batch's tokens, for every SAE.
            train_mask: [n] bool.

        Raises:
            DataError: a number is NaN or infinite; the message says where.
        """
        if not bool(train_mask.any()):
            return
        rows = train_mask.to(batch.x.device)
        x = batch.x[rows]
        require_finite(x, batch, "activation", rows)

        def targets() -> Iterator[tuple[str, Tensor]]:
            for sae_id, reconstruction in pairs(reconstructions):
                error = sae_error(x, reconstruction.x_hat[rows])
                require_finite(error, batch, f"reconstruction of SAE '{sae_id}'", rows)
                yield error_name(sae_id), error
                yield norm_name(sae_id), squared_norm(error)

        self.moments.update(x, targets())

    def merge(self, other: FirstPass) -> None:
        """Add what another pass has seen."""
        self.moments.merge(other.moments)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The sums by name and what else `restore` needs, as JSON data; they share memory with the pass."""
        moments = self.moments
        return moments.state(), {"n": moments.n, "names": list(moments.names), "covariance": self.covariance}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device) -> None:
        """Take over what `state` of a pass over the same SAEs gave; this pass must be new.

        Raises:
            ValueError: it is not of such a pass.
        """
        names = facts["names"]
        if facts["covariance"] != self.covariance or names != self._target_names()[: len(names)]:
            raise ValueError("The stored sums are of another pass.")
        self.moments.restore(int(facts["n"]), names, tensors, device)

    def _target_names(self) -> list[str]:
        return [name for sae_id in self.sae_ids for name in (error_name(sae_id), norm_name(sae_id))]

    def fit(self, *, intercept: bool = True) -> dict[str, SaeMaps]:
        """Fit both maps of every SAE from what was added so far, with one factorisation.

        Raises:
            ValueError: nothing was added.
        """
        return self.fit_with(Factorisation(self.moments), intercept=intercept)

    def fit_with(self, factorisation: Factorisation, *, intercept: bool = True) -> dict[str, SaeMaps]:
        """As `fit`, with a factorisation of this pass's moments that is at hand already."""
        return {sae_id: self._maps(factorisation, sae_id, intercept) for sae_id in self.sae_ids}

    def _maps(self, factorisation: Factorisation, sae_id: str, intercept: bool) -> SaeMaps:
        error, norm = factorisation.fit(error_name(sae_id)), factorisation.fit(norm_name(sae_id))
        sign = -1.0 if intercept else 1.0
        return SaeMaps(
            error_map=error if intercept else factorisation.without_intercept(error),
            norm_map=norm if intercept else factorisation.without_intercept(norm),
            mean_error=self.moments.target(error_name(sae_id)).mean_y.clone(),
            mean_norm_sq=self.moments.target(norm_name(sae_id)).mean_y.clone(),
            constant_direction=factorisation.constant_direction,
            error_switch=sign * error.bias,
            norm_switch=sign * norm.bias,
        )


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A reconstruction of some tokens only."""

    x_hat: Tensor
    l0: Tensor


class FirstApart:
    """Accumulator over training tokens: ordinary ones, outliers, and where those are.

    Args:
        d: as of `FirstPass`; so the others.
        sae_ids: the SAEs.
        covariance: keep the whole covariance of every error.
    """

    def __init__(self, d: int, sae_ids: Sequence[str], *, covariance: bool = False) -> None:
        self._new = partial(FirstPass, d, sae_ids, covariance=covariance)
        self.ordinary = self._new()
        self.outliers: FirstPass | None = None
        """None until one came."""
        self.places = no_places()
        """[k, 2] int64 context and position of the outliers."""

    def update(self, batch: ActivationBatch, reconstructions: Reconstructions) -> None:
        """Add a batch, all of whose tokens are training tokens; see `FirstPass.update`."""
        everything = torch.ones(len(batch.positions), dtype=torch.bool)
        apart = batch.outlier
        if apart is None or not bool(apart.any()):
            self.ordinary.update(batch, reconstructions, everything)
            return
        few: list[tuple[str, Reconstruction]] = []
        rows = apart.to(batch.x.device)

        def noticed() -> Iterator[tuple[str, Reconstruction]]:
            """One reconstruction at a time, of which the outliers' few rows are kept."""
            for sae_id, made in pairs(reconstructions):
                few.append((sae_id, Rows(x_hat=made.x_hat[rows], l0=made.l0[rows])))
                yield sae_id, made

        made = noticed()
        self.ordinary.update(batch, made, ~apart)
        for _ in made:  # a batch of outliers alone asks for none
            pass
        self.outliers = self.outliers or self._new()
        self.outliers.update(batch.rows(apart), few, everything[apart])
        self.places = torch.cat([self.places, places_of(batch)])

    def merge(self, other: FirstApart) -> None:
        """Add what another one has seen."""
        self.ordinary.merge(other.ordinary)
        self.places = torch.cat([self.places, other.places])
        if other.outliers is not None:
            self.outliers = self.outliers or self._new()
            self.outliers.merge(other.outliers)

    def of_all_tokens(self) -> FirstPass:
        """The sums of both; the ordinary tokens' own where there is no outlier, else new ones."""
        if self.outliers is None:
            return self.ordinary
        both = self._new()
        both.merge(self.outliers)
        both.merge(self.ordinary)
        return both

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See `passes.Sums`. What a version without outliers kept is the state of the ordinary tokens' alone."""
        tensors, facts = self.ordinary.state()
        if self.outliers is None:
            return tensors, facts
        own, own_facts = self.outliers.state()
        found = {**tensors, "outliers' places": self.places}
        return found | {f"outliers' {name}": values for name, values in own.items()}, {**facts, "outliers": own_facts}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device) -> None:
        """Take over what `state` gave; this one must be new.

        Raises:
            ValueError: it is not of such a pass.
        """
        self.ordinary.restore(tensors, facts, device)
        if "outliers" not in facts:
            return
        own = {name.removeprefix("outliers' "): v for name, v in tensors.items() if name.startswith("outliers' ")}
        self.places = own.pop("places").clone()
        self.outliers = self._new()
        self.outliers.restore(own, facts["outliers"], device)


def no_places() -> Tensor:
    """None: [0, 2]."""
    return torch.zeros((0, 2), dtype=torch.int64)


def places_of(batch: ActivationBatch) -> Tensor:
    """[k, 2] int64 context and position of the batch's outliers."""
    if batch.outlier is None:
        return no_places()
    return torch.stack([batch.contexts.cpu()[batch.outlier], batch.positions.cpu()[batch.outlier]], dim=1)


Reconstruct = Callable[["LoadedSae", "ActivationBatch"], Reconstruction]
"""What stands in the SAE's place: (sae, tokens) to their reconstruction."""


def by_the_sae(sae: LoadedSae, batch: ActivationBatch) -> Reconstruction:
    """The SAE itself."""
    return sae.reconstruct(batch.x)


def collect_first(
    activations: Activations,
    plan: Plan,
    *,
    reconstruct: Reconstruct = by_the_sae,
    covariance: bool = False,
    shards: int = 1,
    name: str = "moments",
    keeper: Keeper | None = None,
) -> Generator[Event, None, FirstApart]:
    """Moments over the plan's training tokens, of all SAEs of the target; outliers apart, if the activations mark any.

    Args:
        activations: of the target.
        plan: what is training.
        reconstruct: what stands in the SAEs' place.
        covariance: keep the whole covariance of every error.
        shards: added up apart and then merged.
        name: of the pass, in events and for what is kept.
        keeper: where sums are kept on the way.

    Raises:
        DataError: an activation or a reconstruction is not finite; the message says where.
        ResourceError: memory ran out with one context at a time, or there is no room for what is kept.
    """
    loaded = activations.loaded
    saes = {sae.ref.sae_id: sae for sae in loaded.saes}
    d = loaded.model.check_hook(loaded.hook_name)

    def new() -> FirstApart:
        return FirstApart(d, list(saes), covariance=covariance)

    def add(part: FirstApart, whole: ActivationBatch) -> None:
        batch = whole.rows(plan.train[whole.contexts, whole.positions])
        part.update(batch, one_by_one(saes, batch, reconstruct))

    def restored(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> FirstApart:
        found = new()
        found.restore(tensors, facts, sums_device(loaded.model.device))
        return found

    sums = Sums(new=new, add=add, state=FirstApart.state, restored=restored, whole_batches=False)
    return (
        yield from walk(
            activations,
            contexts_with(plan.train),
            sums,
            name=name,
            tokens_per_context=plan.train.shape[1],
            shards=shards,
            keeper=keeper,
        )
    )


def one_by_one(
    saes: dict[str, LoadedSae], batch: ActivationBatch, reconstruct: Reconstruct
) -> Iterator[tuple[str, Reconstruction]]:
    """Reconstructions made as they are asked for, so that one x_hat is alive at a time."""
    for sae_id, sae in saes.items():
        yield sae_id, reconstruct(sae, batch)
