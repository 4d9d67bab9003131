"""Which rows of a dictionary a vector lies along, and how much of it a few of them explain.

Rows come in blocks, so that a decoder of a million latents is never held or copied as a whole, and every block is a
step: whoever answers questions can put the work aside between two. Lengths do not matter: rows are scaled to unit
length, and a row of zeros, which points nowhere, has the cosine 0 with everything.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Blocks = Callable[[], Iterable[tuple[int, Tensor]]]
"""(index of the first row, rows [m, d]) of consecutive blocks; asked for again for every pass over them."""
SPANNED = 1e-6
"""A unit row of which less than this is left beside those before it is one of their combinations: float32 rows
are known to 1e-7."""


def nearest_rows(
    vectors: Tensor, blocks: Blocks, k: int, *, signed: bool = True
) -> Generator[None, None, tuple[Tensor, Tensor]]:
    """The rows with the largest cosine with each vector, largest first; a step per block.

    Args:
        vectors: [n, d].
        blocks: the rows.
        k: how many, or as many as there are.
        signed: False takes the largest magnitudes, whatever their sign.

    Returns:
        indices [n, k] int64 and cosines [n, k] float32, on the CPU.
    """
    units = torch.nn.functional.normalize(vectors.float(), dim=1)
    n = len(units)
    indices, cosines = torch.zeros(n, 0, dtype=torch.int64), torch.zeros(n, 0)
    for start, rows in blocks():
        here = _cosines(rows, units).T.cpu()
        places = torch.arange(start, start + len(rows)).expand(n, -1)
        cosines, indices = torch.cat([cosines, here], dim=1), torch.cat([indices, places], dim=1)
        kept = (cosines if signed else cosines.abs()).topk(min(k, cosines.shape[1]), dim=1).indices
        cosines, indices = cosines.gather(1, kept), indices.gather(1, kept)
        yield None
    return indices, cosines


@dataclass(frozen=True, kw_only=True)
class GreedyFit:
    """What a few rows, chosen one after the other, explain of each of n vectors."""

    indices: Tensor
    """[n, k] int64 in the order in which they were chosen; -1 where there was none left."""
    explained: Tensor
    """[n, k] float64: share of the squared norm that the first 1, 2, ... k of them explain together, from 0 to 1. NaN
    for a vector of zeros."""


def greedy_fit(vectors: Tensor, blocks: Blocks, k: int) -> Generator[None, None, GreedyFit]:
    """Orthogonal matching pursuit: k times the row that lies most along what is left, whatever its sign, then the
    least-squares fit of all rows chosen so far. A step per block and choice.

    Greedy, so k rows that explain more may exist: finding the best k is a search over all sets.

    Args:
        vectors: [n, d].
        blocks: the rows.
        k: how many to choose.
    """
    v = vectors.detach().cpu().double()
    n, d = v.shape
    rest, whole = v.clone(), v.square().sum(dim=1)
    basis = torch.zeros(n, k, d, dtype=torch.float64)
    indices = torch.full((n, k), -1, dtype=torch.int64)
    explained = torch.zeros(n, k, dtype=torch.float64)
    for step in range(k):
        best, chosen = torch.zeros(n), torch.zeros(n, d, dtype=torch.float64)
        units = torch.nn.functional.normalize(rest, dim=1).to(vectors.device, torch.float32)
        for start, rows in blocks():
            cosines = _cosines(rows, units).abs()
            used = indices[:, :step] - start
            token, slot = ((used >= 0) & (used < len(rows))).nonzero(as_tuple=True)
            cosines[used[token, slot].to(cosines.device), token.to(cosines.device)] = -1.0
            values, places = (each.cpu() for each in cosines.max(dim=0))
            better = values > best
            best = torch.where(better, values, best)
            indices[:, step] = torch.where(better, places + start, indices[:, step])
            found = rows[places.to(rows.device)].detach().cpu().double()
            chosen = torch.where(better[:, None], found, chosen)
            yield None
        direction = torch.nn.functional.normalize(chosen, dim=1)
        for _ in range(2):  # once more for what rounding left of the others
            direction = direction - torch.einsum("nk,nkd->nd", torch.einsum("nkd,nd->nk", basis, direction), basis)
        size = direction.norm(dim=1, keepdim=True)
        basis[:, step] = torch.where(size > SPANNED, direction / size.clamp_min(SPANNED), 0.0)
        rest = rest - (rest * basis[:, step]).sum(dim=1, keepdim=True) * basis[:, step]
        explained[:, step] = 1.0 - rest.square().sum(dim=1) / whole
    return GreedyFit(indices=indices, explained=explained)


def explained_by(vectors: Tensor, rows: Tensor) -> Tensor:
    """[n] float64: the share of each vector's squared norm that lies in the span of all rows [m, d], from 0 to 1."""
    v, wide = vectors.detach().cpu().double(), torch.nn.functional.normalize(rows.detach().cpu().double(), dim=1)
    _, sizes, directions = torch.linalg.svd(wide, full_matrices=False)
    spanned = directions[sizes > SPANNED]
    explained: Tensor = (v @ spanned.T).square().sum(dim=1) / v.square().sum(dim=1)
    return explained


def random_like(vector: Tensor, n: int, seed: Iterable[int]) -> Tensor:
    """[n, d] random directions of the length of a vector [d]: the control of everything above."""
    drawn = torch.from_numpy(np.random.default_rng(list(seed)).standard_normal((n, len(vector)))).to(vector)
    scaled: Tensor = vector.norm() * torch.nn.functional.normalize(drawn, dim=1)
    return scaled


def _cosines(rows: Tensor, units: Tensor) -> Tensor:
    """[m, n] of rows [m, d] with unit vectors [n, d]."""
    return torch.nn.functional.normalize(rows.to(units.device).float(), dim=1) @ units.T
