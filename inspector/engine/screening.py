"""Which latent has the largest inner product with a vector, exactly, at a fraction of the cost of all of them.

Most of a pursuit is this one question, asked of every latent for every token at every step. Here a product of 8-bit
integers gives every inner product to within a bound that is proved, not estimated; the few latents that the bound
cannot rule out are computed in full. Where an integer product is not at hand, or was found not to be exact, all inner
products are computed in float32, a slice of latents at a time.

Rejected: bounding how far an inner product can have moved since it was last computed (|change| <= |change of the
vector|). In 2304 dimensions it is fifty times larger than the moves that happen and rules nothing out.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

SLICE = 8192
"""Latents per slice: 256 tokens x 8192 scores are 8 MB, which stay in a processor's cache."""
PER_SLICE = 12
"""Candidates kept per slice; the largest bound among those let go is remembered, so too few costs time, not truth."""
CHECKED = (4, 12, 24, 48, 128)
"""Candidates computed in full, in this many rounds: of every vector first, then of those still open."""
BLOCK = 32
"""Scores whose largest is taken before they are sorted: the best nine of a slice are in the best nine blocks."""
_ROUNDING = 4e-6
"""Float32 rounding of a computed score, relative to the largest one it could be; 24 bits over sums of thousands."""


class Screen:
    """The rows of a dictionary, ready to be asked which of them points most along a vector.

    Args:
        rows: [m, d] float32. Kept, not copied.
        integers: use 8-bit products where they are exact; False computes everything in float32.
    """

    def __init__(self, rows: Tensor, *, integers: bool = True) -> None:
        self.rows = rows
        self._small: Tensor | None = None
        if integers and rows.shape[1] % 8 == 0 and exact_integer_product(rows.device):
            self._quantise()

    @property
    def n_bytes(self) -> int:
        """Memory beside the rows themselves."""
        return 0 if self._small is None else self._small.numel() + 12 * len(self.rows)

    def largest(self, vectors: Tensor, excluded: Tensor) -> Tensor:
        """[n] index of the row with the largest signed inner product with each of `vectors` [n, d].

        Args:
            vectors: float32, finite.
            excluded: [n, e] indices that are not to be found; -1 excludes nothing.
        """
        if self._small is None or len(self.rows) <= SLICE:
            return self._all(vectors, excluded)
        best, sure = self._screened(vectors, excluded)
        if not bool(sure.all()):
            doubtful = (~sure).nonzero()[:, 0]
            best[doubtful] = self._all(vectors[doubtful], excluded[doubtful])
        return best

    def _quantise(self) -> None:
        """8-bit rows with one scale each, and how far each is from the row it stands for."""
        m = len(self.rows)
        padded = -(-m // 8) * 8
        self._small = torch.zeros(padded, self.rows.shape[1], dtype=torch.int8, device=self.rows.device)
        self._scale = torch.zeros(padded, device=self.rows.device)
        self._error = torch.zeros(padded, device=self.rows.device)
        self._norm = torch.zeros(padded, device=self.rows.device)
        for start in range(0, m, SLICE):
            part = self.rows[start : start + SLICE]
            stop = start + len(part)
            scale = part.abs().amax(dim=1).clamp_min(1e-30) / 127.0
            small = (part / scale[:, None]).round_()
            self._small[start:stop] = small.to(torch.int8)
            self._scale[start:stop] = scale
            self._error[start:stop] = (part - small * scale[:, None]).norm(dim=1) * (1 + 1e-5)
            self._norm[start:stop] = part.norm(dim=1) * (1 + 1e-5)

    def _screened(self, vectors: Tensor, excluded: Tensor) -> tuple[Tensor, Tensor]:
        """Best row of each vector, and whether the bound proves it."""
        assert self._small is not None
        n, m = len(vectors), len(self.rows)
        scale = vectors.abs().amax(dim=1).clamp_min(1e-30) / 127.0
        small = (vectors / scale[:, None]).round_()
        # a.v = a~.v~ + (a - a~).v~ + a.(v - v~), and the last two are at most |a - a~| |v~| + |a| |v - v~|.
        size = small.norm(dim=1) * scale
        missed = (vectors - small * scale[:, None]).norm(dim=1) + _ROUNDING * vectors.norm(dim=1)
        integers = small.to(torch.int8)
        if n <= 16:  # a CUDA product wants more than 16 rows
            integers = torch.cat([integers, integers.new_zeros(24 - n, integers.shape[1])])
        bounds, places = [], []
        let_go = torch.full((n,), -torch.inf, device=vectors.device)
        for start in range(0, m, SLICE):
            stop = min(start + SLICE, m)
            end = -(-stop // 8) * 8
            # Ranked by the product alone, so that a slice is passed over once; the slice's largest bound is then added.
            scores = self._scale[start:stop] * torch._int_mm(integers, self._small[start:end].T)[:n, : stop - start]
            _exclude(scores, excluded, start)
            kept, where = _top(scores, min(PER_SLICE + 1, stop - start))
            slack = size * self._error[start:stop].max() + missed * self._norm[start:stop].max()
            kept = kept * scale[:, None] + slack[:, None]
            bounds.append(kept[:, :PER_SLICE])
            places.append(where[:, :PER_SLICE] + start)
            if kept.shape[1] > PER_SLICE:
                let_go = torch.maximum(let_go, kept[:, PER_SLICE])
        upper, order = torch.cat(bounds, dim=1).sort(dim=1, descending=True)
        candidates = torch.cat(places, dim=1).gather(1, order)
        best = candidates[:, 0].clone()
        value = torch.full((n,), -torch.inf, device=vectors.device)
        sure = torch.zeros(n, dtype=torch.bool, device=vectors.device)
        done = 0
        for checked in CHECKED:
            open_ = (~sure).nonzero()[:, 0]
            if len(open_) == 0 or done >= upper.shape[1]:
                break
            own, bound = candidates[open_, done:checked], upper[open_]
            exact = torch.bmm(self.rows[own], vectors[open_, :, None])[:, :, 0]
            found, winner = exact.masked_fill(bound[:, done:checked] == -torch.inf, -torch.inf).max(dim=1)
            better = found > value[open_]
            best[open_] = torch.where(better, own.gather(1, winner[:, None])[:, 0], best[open_])
            value[open_] = torch.maximum(found, value[open_])
            left = let_go[open_]
            if bound.shape[1] > checked:
                left = torch.maximum(left, bound[:, checked])
            sure[open_] = value[open_] >= left
            done = checked
        return best, sure

    def _all(self, vectors: Tensor, excluded: Tensor) -> Tensor:
        """By computing every inner product in float32."""
        best = torch.full((len(vectors),), -torch.inf, device=vectors.device)
        place = torch.zeros(len(vectors), dtype=torch.int64, device=vectors.device)
        for start in range(0, len(self.rows), SLICE):
            scores = vectors @ self.rows[start : start + SLICE].T
            _exclude(scores, excluded, start)
            value, where = scores.max(dim=1)
            better = value > best
            best = torch.where(better, value, best)
            place = torch.where(better, where + start, place)
        return place


def _top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row [n, s] and their places, as `topk`, which on a CPU takes five times as long."""
    n, width = scores.shape
    if width % BLOCK or width < 4 * k * BLOCK:
        found = scores.topk(k, dim=1)
        return found.values, found.indices
    blocks = scores.view(n, -1, BLOCK)
    chosen = blocks.amax(dim=2).topk(k, dim=1).indices
    inside = blocks.gather(1, chosen[:, :, None].expand(-1, -1, BLOCK)).flatten(1)
    values, where = inside.topk(k, dim=1)
    return values, chosen.gather(1, where // BLOCK) * BLOCK + where % BLOCK


def _exclude(scores: Tensor, excluded: Tensor, start: int) -> None:
    """Put -inf at the excluded rows that fall into this slice, in place."""
    local = excluded - start
    here = (local >= 0) & (local < scores.shape[1])
    tokens, slots = here.nonzero(as_tuple=True)
    scores[tokens, local[tokens, slots]] = -torch.inf


@cache
def exact_integer_product(device: torch.device) -> bool:
    """Whether this machine multiplies 8-bit matrices into exact 32-bit sums.

    Asked with the largest numbers there are: processors without the instructions for it add pairs in 16 bits, which
    overflow there. A machine that cannot do it at all says so with an error of its own.
    """
    generator = torch.Generator().manual_seed(0)
    random = torch.randint(-127, 128, (32, 256), generator=generator)
    extreme = torch.full((32, 256), 127)
    try:
        for left, right in ((random, random.flip(0)), (extreme, extreme), (extreme, -extreme)):
            ours = torch._int_mm(left.to(device, torch.int8), right.to(device, torch.int8).T)
            if not torch.equal(ours.cpu().long(), left @ right.T):
                return False
    except (RuntimeError, NotImplementedError, AttributeError):
        return False
    return True
