"""The pass over training tokens: moments of x, of every SAE's error and of its squared norm; from them the affine maps.

It can be fitted at any time and go on, which is how a live session sharpens its picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from inspector.engine.decomposition import sae_error, squared_norm
from inspector.engine.moments import Moments
from inspector.engine.regression import Factorisation, LinearMap
from inspector.statistics.finite import require_finite

if TYPE_CHECKING:
    import torch

    from inspector.sources.activations import ActivationBatch


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
