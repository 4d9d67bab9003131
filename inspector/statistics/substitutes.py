"""Nulls that are run for real: what is put in the place of the SAE, of its error or of x, everything else unchanged.

Each needs one more pass over the text before the two that measure.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from inspector.engine.moments import Moments
from inspector.engine.nulls import GaussianTwin, PcaMap, gaussian_twin, pca_of_fvu
from inspector.engine.plan import Plan
from inspector.engine.scores import fvu_from_moments
from inspector.events import Event
from inspector.sources.activations import ActivationBatch, Rows
from inspector.sources.sae import LoadedSae
from inspector.spec import Null
from inspector.statistics.first_pass import (
    Made,
    Places,
    Reconstruct,
    Reconstruction,
    by_the_sae,
    collect_first,
    error_name,
)
from inspector.statistics.passes import Activations, contexts_with, require_finite, walk

DEFINITIONS: dict[Null, str] = {
    "shuffle": (
        "Null: the SAE's errors are permuted across tokens, within training and within held-out tokens, so that x "
        "says nothing about them. Expect every R-squared at about -p/n_train (S-06)."
    ),
    "gaussian": (
        "Null: x is drawn from a Gaussian with the mean and covariance of the real activations and then goes through "
        "the same SAEs. Whatever is as predictable here needs no features to explain it."
    ),
    "affine": (
        "Null: in each SAE's place stands the principal-component projection whose FVU is nearest to its own; l0 is "
        "its number of components. fvu_nonlinear must be 0 to 1e-10 (S-10)."
    ),
}


def prepare(null: Null, activations: Activations, plan: Plan, seed: int) -> Generator[Event, None, Reconstruct]:
    """Run what the null needs first; sets up `activations` where x itself changes, and returns what reconstructs."""
    if null == "affine":
        return (yield from _affine(activations, plan))
    if null == "gaussian":
        return (yield from _gaussian(activations, plan, seed))
    return (yield from _shuffle(activations, plan, seed))


def _affine(activations: Activations, plan: Plan) -> Generator[Event, None, Reconstruct]:
    first = (yield from collect_first(activations, plan, name="null")).ordinary
    moments = first.moments
    maps: dict[str, PcaMap] = {}
    for sae_id in first.sae_ids:
        fvu = fvu_from_moments(moments.target(error_name(sae_id)), None)
        maps[sae_id] = pca_of_fvu(moments.n, moments.mean_x, moments.s_xx, 0.0 if fvu is None else fvu)

    def reconstruct(sae: LoadedSae, batch: ActivationBatch) -> Reconstruction:
        chosen = maps[sae.ref.sae_id]
        return Made(
            x_hat=chosen.reconstruct(batch.x),
            l0=torch.full((len(batch.x),), chosen.basis.shape[1], dtype=torch.int32, device=batch.x.device),
        )

    return reconstruct


def _gaussian(activations: Activations, plan: Plan, seed: int) -> Generator[Event, None, Reconstruct]:
    d = activations.loaded.model.check_hook(activations.loaded.hook_name)

    def add(moments: Moments, batch: ActivationBatch) -> None:
        rows = batch.ordinary(plan.train[batch.contexts, batch.positions])
        x = Rows(rows, batch.x.device).of(batch.x)
        require_finite(x, batch, "activation", rows)
        moments.update(x)

    plain = replace(activations, keep=frozenset())  # what is kept is drawn
    moments = yield from walk(plain, contexts_with(plan.train), lambda: Moments(d), add, name="null")
    activations.batch_size = plain.batch_size
    twin: GaussianTwin = gaussian_twin(moments.n, moments.mean_x, moments.s_xx)

    def substitute(batch: ActivationBatch) -> Tensor:
        # One seed per context: what a context becomes must not depend on the batch it comes in.
        indices, counts = torch.unique_consecutive(batch.contexts, return_counts=True)
        draws = [twin.sample(int(n), (seed, int(index))) for index, n in zip(indices, counts, strict=True)]
        return torch.cat(draws).to(batch.x)

    activations.substitute = substitute
    return by_the_sae


def _shuffle(activations: Activations, plan: Plan, seed: int) -> Generator[Event, None, Reconstruct]:
    """Keeps x of all tokens in memory: a permutation across the whole text cannot be had from a stream."""
    included = plan.included.cpu()
    row_of = torch.full(included.shape, -1, dtype=torch.int64)
    row_of[included] = torch.arange(int(included.sum()))
    indices = contexts_with(included)
    x = torch.zeros(int(included.sum()), activations.loaded.model.check_hook(activations.loaded.hook_name))

    def add(places: Places, batch: ActivationBatch) -> None:
        rows = included[batch.contexts, batch.positions]
        x[row_of[batch.contexts[rows], batch.positions[rows]]] = batch.x[rows.to(batch.x.device)].cpu()
        places.update(batch)

    places = (yield from walk(activations, indices, Places, add, name="null", resumable=False)).found
    outlier = torch.zeros_like(included)
    outlier[places[:, 0], places[:, 1]] = True
    partner = torch.arange(len(x))
    train, test = plan.train.cpu(), plan.test.cpu()
    for half in (train & ~outlier, test & ~outlier, train & outlier, test & outlier):
        places = row_of[half]
        raw = np.random.PCG64((seed, len(places))).random_raw(len(places))
        partner[places] = places[torch.from_numpy(np.argsort(raw, kind="stable"))]

    def reconstruct(sae: LoadedSae, batch: ActivationBatch) -> Reconstruction:
        other = x[partner[row_of[batch.contexts, batch.positions]]].to(batch.x.device)
        made = by_the_sae(sae, replace(batch, x=other))
        return Made(x_hat=batch.x - (other - made.x_hat), l0=made.l0)

    return reconstruct
