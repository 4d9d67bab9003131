"""The pass over training tokens: moments of x, of every SAE's error and of its squared norm; from them the affine maps.

It can be fitted at any time and go on, which is how a live session sharpens its picture.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from inspector.engine.decomposition import sae_error, squared_norm
from inspector.engine.moments import Moments
from inspector.engine.plan import Plan
from inspector.engine.regression import Factorisation, LinearMap
from inspector.events import Event
from inspector.sources.activations import ActivationBatch, Rows
from inspector.sources.sae import LoadedSae
from inspector.statistics.passes import Activations, Progress, Watch, contexts_with, walk
from inspector.statistics.sums import State


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


@dataclass(frozen=True, kw_only=True)
class Made:
    """A reconstruction that is no SAE's own, or of some of its tokens only."""

    x_hat: Tensor
    l0: Tensor


Reconstruct = Callable[["LoadedSae", "ActivationBatch"], Reconstruction]
"""What stands in the SAE's place: (sae, tokens) to their reconstruction."""


def by_the_sae(sae: LoadedSae, batch: ActivationBatch) -> Reconstruction:
    """The SAE itself."""
    return sae.reconstruct(batch.x)


@dataclass(frozen=True, kw_only=True)
class Reconstructed:
    """The reconstructions whose errors the passes look at, by name."""

    names: tuple[str, ...]
    made: Callable[[ActivationBatch, Tensor], Iterable[tuple[str, Reconstruction]]]
    """(whole contexts, rows [n] bool) to those rows' reconstructions in the order of the names, made as they are asked
    for: one x_hat is alive at a time."""
    batch: Callable[[Sequence[int]], ActivationBatch] | None = None
    """The contexts with some indices, if x is not the target's own; None: it is."""
    at_once: int | None = None
    """Contexts at most."""

    @classmethod
    def by(cls, saes: Sequence[LoadedSae], reconstruct: Reconstruct = by_the_sae) -> Reconstructed:
        """Of SAEs, or of what stands in their place."""

        def made(whole: ActivationBatch, rows: Tensor) -> Iterator[tuple[str, Reconstruction]]:
            batch = whole.rows(rows)
            for sae in saes:
                yield sae.ref.sae_id, reconstruct(sae, batch)

        return cls(names=tuple(sae.ref.sae_id for sae in saes), made=made)


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
            DataError: a number is NaN or infinite; the message says where. The sums are of no use after that.
        """
        if not bool(train_mask.any()):
            return
        rows = Rows(train_mask, batch.x.device)
        x, watch = rows.of(batch.x), Watch(batch, rows.places)
        watch.add(x, "activation")

        def targets() -> Iterator[tuple[str, Tensor]]:
            for sae_id, reconstruction in pairs(reconstructions):
                error = sae_error(x, rows.of(reconstruction.x_hat))
                watch.add(error, f"reconstruction of SAE '{sae_id}'")
                yield error_name(sae_id), error
                yield norm_name(sae_id), squared_norm(error)

        self.moments.update(x, targets())
        watch.require(watch.sums.cpu())

    def merge(self, other: FirstPass) -> None:
        """Add what another pass has seen."""
        self.moments.merge(other.moments)

    def state(self) -> State:
        """See `sums.Accumulator`."""
        tensors, facts = self.moments.state()
        return tensors, {**facts, "covariance": self.covariance}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device) -> None:
        """See `sums.Accumulator`."""
        names = facts["names"]
        if facts["covariance"] != self.covariance or names != self._target_names()[: len(names)]:
            raise ValueError("The stored sums are of another pass.")
        self.moments.restore(tensors, facts, device)

    def _target_names(self) -> list[str]:
        return [name for sae_id in self.sae_ids for name in (error_name(sae_id), norm_name(sae_id))]

    def fit(self, *, intercept: bool = True) -> dict[str, SaeMaps]:
        """Both maps of every SAE from what was added so far, with one factorisation.

        Raises:
            ValueError: nothing was added.
        """
        return Fit.of(self, intercept=intercept).maps

    def maps(self, factorisation: Factorisation, sae_id: str, intercept: bool) -> SaeMaps:
        """Both maps of one SAE, with a factorisation of this pass's moments."""
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
class Fit:
    """What was fitted on some of the training tokens."""

    first: FirstPass
    factorisation: Factorisation
    maps: dict[str, SaeMaps]
    intercept: bool

    @classmethod
    @torch.inference_mode()
    def of(cls, first: FirstPass, *, intercept: bool) -> Fit:
        """From what was added so far.

        Raises:
            ValueError: nothing was.
        """
        factorisation = Factorisation(first.moments)
        maps = {sae_id: first.maps(factorisation, sae_id, intercept) for sae_id in first.sae_ids}
        return cls(first=first, factorisation=factorisation, maps=maps, intercept=intercept)


class FirstApart:
    """The first pass with outliers apart: sums of the ordinary tokens, of the outliers, and where those are.

    Moments are additive, so one pass gives both fits, that of ordinary tokens and that of all. Outliers' own sums begin
    with the first outlier: a hook without any pays nothing. See `engine.plan` for which tokens are meant.

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
        self.places = Places()

    def update(self, batch: ActivationBatch, reconstructions: Reconstructions) -> None:
        """Add a batch, all of whose tokens are training tokens; see `FirstPass.update`."""
        everything = torch.ones(len(batch.positions), dtype=torch.bool)
        apart = batch.outlier
        if apart is None or not bool(apart.any()):
            self.ordinary.update(batch, reconstructions, everything)
            return
        few: list[tuple[str, Reconstruction]] = []
        rows = Rows(apart, batch.x.device)

        def noticed() -> Iterator[tuple[str, Reconstruction]]:
            """One reconstruction at a time, of which the outliers' few rows are kept."""
            for sae_id, made in pairs(reconstructions):
                few.append((sae_id, Made(x_hat=rows.of(made.x_hat), l0=rows.of(made.l0))))
                yield sae_id, made

        made = noticed()
        self.ordinary.update(batch, made, ~apart)
        for _ in made:  # a batch of outliers alone asks for none
            pass
        self.outliers = self.outliers or self._new()
        self.outliers.update(batch.rows(apart), few, everything[apart])
        self.places.update(batch)

    def merge(self, other: FirstApart) -> None:
        """Add what another one has seen."""
        self.ordinary.merge(other.ordinary)
        self.places.merge(other.places)
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

    def state(self) -> State:
        """See `sums.Accumulator`. What a version without outliers kept is the state of the ordinary tokens' alone."""
        tensors, facts = self.ordinary.state()
        if self.outliers is None:
            return tensors, facts
        own, own_facts = self.outliers.state()
        found = {**tensors, "outliers' places": self.places.found}
        return found | {f"outliers' {name}": values for name, values in own.items()}, {**facts, "outliers": own_facts}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device) -> None:
        """See `sums.Accumulator`."""
        self.ordinary.restore(tensors, facts, device)
        if "outliers" not in facts:
            return
        own = {name.removeprefix("outliers' "): v for name, v in tensors.items() if name.startswith("outliers' ")}
        self.places.restore({"found": own.pop("places")}, {}, device)
        self.outliers = self._new()
        self.outliers.restore(own, facts["outliers"], device)


class Places:
    """Where outliers were come across."""

    def __init__(self) -> None:
        self.found = torch.zeros((0, 2), dtype=torch.int64)
        """[k, 2] context and position."""

    def update(self, batch: ActivationBatch) -> None:
        """Add those of a batch."""
        if batch.outlier is not None:
            places = [each.cpu()[batch.outlier] for each in (batch.contexts, batch.positions)]
            self.found = torch.cat([self.found, torch.stack(places, dim=1)])

    def merge(self, other: Places) -> None:
        """Add those of another."""
        self.found = torch.cat([self.found, other.found])

    def state(self) -> State:
        """See `sums.Accumulator`."""
        return {"found": self.found}, {}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device) -> None:
        """See `sums.Accumulator`."""
        self.found = tensors["found"].clone()


def collect_first(
    activations: Activations,
    plan: Plan,
    of: Reconstructed | None = None,
    *,
    covariance: bool = False,
    name: str = "moments",
    progress: Progress | None = None,
) -> Generator[Event, None, FirstApart]:
    """Moments over the plan's training tokens; outliers apart, if the activations mark any.

    Args:
        activations: of the target.
        plan: what is training.
        of: whose errors; None: of all SAEs of the target.
        covariance: keep the whole covariance of every error.
        name: of the pass, in events and for what is kept.
        progress: as of `walk`.

    Raises:
        DataError: an activation or a reconstruction is not finite; the message says where.
        ResourceError: memory ran out with one context at a time, or there is no room for what is kept.
    """
    loaded = activations.loaded
    of = of or Reconstructed.by(loaded.saes)
    d = loaded.model.check_hook(loaded.hook_name)

    def add(part: FirstApart, whole: ActivationBatch) -> None:
        rows = plan.train[whole.contexts, whole.positions]
        part.update(whole.rows(rows), of.made(whole, rows))

    return (
        yield from walk(
            activations,
            contexts_with(plan.train),
            partial(FirstApart, d, of.names, covariance=covariance),
            add,
            name=name,
            batch=of.batch,
            at_once=of.at_once,
            progress=progress,
        )
    )
