"""The SAEs that are compared between widths: their errors' sizes, token by token, and the products of any two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from inspector.statistics.own.token_fits import TARGETS, Fits, X
from inspector.statistics.own.token_norms import ONE, SIZES, Products, column
from inspector.statistics.own.token_sums import GroupProducts

PARTS = {"error": "sae_error_sq", "linear": "linear_error_sq", "nonlinear": "nonlinear_error_sq"}
"""What is kept of each SAE of the series, and which of its numbers that is."""
KINDS = {"squared": SIZES[0], "plain": SIZES[1]}
"""Norms squared or not, and the size of the error that is meant."""


def compared(
    kind: str, numbers: Mapping[str, Mapping[str, Tensor]], series: Sequence[str], *, probes: bool = False
) -> dict[str, Tensor]:
    """‖x‖ and the norms of each SAE's error and its parts; with `probes` the predictions of the error's from x."""
    x_sq = numbers[X]["x_sq"]
    found = {X: x_sq if kind == "squared" else x_sq.sqrt()}
    for sae_id in series:
        for what, name in PARTS.items():
            value = numbers[sae_id][name]
            found[column(what, sae_id)] = value if kind == "squared" else value.sqrt()
    if probes:
        found |= {column("probe", sae_id): numbers[sae_id][f"probe {kind}"] for sae_id in series}
    return found


def products_of(kind: str, test: GroupProducts, trained: GroupProducts, series: Sequence[str], fits: Fits) -> Products:
    """The products of the series; over training tokens those of the probes with errors come in closed form.

    A probe is fitted from all training tokens, so that none of them could be asked for its prediction on the way.
    """
    own = trained.values[0]
    k = len(test.names)
    train = torch.full((k, k), torch.nan, dtype=torch.float64)
    train[: len(own), : len(own)] = own
    index = TARGETS.index(KINDS[kind])
    n, mean_x = fits.moments.n, fits.moments.mean_x
    one = test.names.index(ONE)
    for probed in series:
        i = test.names.index(column("probe", probed))
        weight, bias = fits.on[probed].weight[index], fits.on[probed].bias[index]
        mean = float(weight @ mean_x + bias)
        train[i, one] = train[one, i] = n * mean
        train[i, i] = float(weight @ fits.moments.s_xx @ weight) + n * mean**2
        for other in series:
            j = test.names.index(column("error", other))
            target = fits.moments.target(other)
            crossed = float(weight @ target.s_xy[:, index]) + n * mean * float(target.mean_y[index])
            train[i, j] = train[j, i] = crossed
    return Products(names=test.names, train=train.numpy(), test=test.values.numpy())
