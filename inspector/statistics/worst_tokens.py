"""Which tokens an SAE fails on: one pass over every token that counts, added up by what kind of token it is.

For one SAE the pass keeps the places with the largest number asked for, and sums by token id and by position; for all
of them, sums by class of token. Nothing has the size of the tokens. A token id is seen in few documents, so sums per id
are kept in BLOCKS blocks of documents: enough for an interval, at sixteen numbers where 512 groups would take 512.

The loss with the SAE in the place of x comes from a second run of each context, beside the plain one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inspector.engine.decomposition import Decomposition, decompose, squared_norm
from inspector.engine.moments import to_float64
from inspector.engine.plan import Plan
from inspector.engine.resampling import resampling_counts
from inspector.events import Event
from inspector.sources.activations import ActivationBatch
from inspector.sources.forward import loss_of
from inspector.sources.sae import LoadedSae
from inspector.statistics.grouping import groups_of, named
from inspector.statistics.measured import student
from inspector.statistics.passes import contexts_with, require_finite, walk
from inspector.statistics.pipeline import Measuring, plan_of
from inspector.statistics.sums import LARGEST, State, Sums, shaped
from inspector.statistics.token_kinds import CLASSES, OUTLIER, TokenKinds
from inspector.statistics.token_norms import Array

# ---- what is added up ------------------------------------------------------------------------------------------------

VALUES = ("nonlinear", "linear", "total", "share", "fvu", "loss", "damage")
"""Of a token: norms of both parts and of sae_error; ‖nonlinear‖² / (‖linear‖² + ‖nonlinear‖²); ‖nonlinear‖² / ‖x‖²;
nats for the next token, and how many more with x_hat in the place of x at this and all earlier places."""
K = len(VALUES)
SUMS = 2 + 2 * K
"""Columns of a table of sums: tokens, tokens with a share, then sums of VALUES, then of their squares. A share and an
fvu of nothing count as 0, and shares are divided by the tokens that have one."""
WITHOUT_SQUARES = 2 + K
LEAST_BLOCKS = 8
"""Blocks a token must be in for an interval of its mean: with fewer, Student's is wider than the mean."""
BLOCKS = 16
"""Blocks of documents by which sums per token id are kept."""
KEPT_OUTLIERS = 200
"""Places of outliers that are kept, the longest x first."""
PLACE = ("context", "position", "token_id", "class", "train", "x_norm", *VALUES)
"""Columns of a place."""
CONTEXT, POSITION, ID, KIND = range(4)


class Places:
    """Accumulator of the places with the largest value; of equal ones the first in the text.

    Args:
        most: places to keep.
        by: column of PLACE that is the value.
    """

    def __init__(self, most: int, by: str) -> None:
        self.most, self._by = most, PLACE.index(by)
        self._rows = torch.zeros(0, len(PLACE), dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """More places [n, PLACE]."""
        self._rows = torch.cat([self._rows, rows])
        if len(self._rows) > 2 * self.most:
            self._rows = self.rows

    @property
    def rows(self) -> Tensor:
        """[n, PLACE] float64, the largest first."""
        rows = self._rows
        table = rows.numpy()
        order = np.lexsort((table[:, POSITION], table[:, CONTEXT], -table[:, self._by]))
        return rows[torch.from_numpy(order[: self.most].copy())]

    def merge(self, other: Places, /) -> None:
        """See `sums.Accumulator`."""
        self.add(other._rows)

    def state(self) -> State:
        """See `sums.Accumulator`."""
        return {"rows": self.rows}, {"most": self.most, "by": PLACE[self._by]}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device) -> None:
        """See `sums.Accumulator`."""
        rows = tensors["rows"]
        if facts != self.state()[1] or rows.ndim != 2 or rows.shape[1] != len(PLACE) or len(rows) > self.most:
            raise ValueError("The stored places are of another pass.")
        self._rows = rows.clone()


class WorstOfEach:
    """Accumulator of the place with the largest value of each token id; of equal ones the first in the text.

    Args:
        n: ids.
    """

    def __init__(self, n: int) -> None:
        self.rows = torch.full((n, 3), -torch.inf, dtype=torch.float64)
        """[n, 3] value, context, position."""

    def add(self, numbers: Tensor, values: Tensor, contexts: Tensor, positions: Tensor) -> None:
        """More tokens [k], with the numbers of their ids."""
        table = torch.stack([to_float64(each) for each in (values, contexts, positions)], dim=1)
        order = np.lexsort((positions.numpy(), contexts.numpy(), -values.numpy(), numbers.numpy()))
        ordered, first = np.unique(numbers.numpy()[order], return_index=True)
        self._take(torch.from_numpy(ordered), table[torch.from_numpy(order[first])])

    def _take(self, numbers: Tensor, rows: Tensor) -> None:
        mine = self.rows[numbers]
        before = (rows[:, 1] < mine[:, 1]) | ((rows[:, 1] == mine[:, 1]) & (rows[:, 2] < mine[:, 2]))
        better = (rows[:, 0] > mine[:, 0]) | ((rows[:, 0] == mine[:, 0]) & before)
        self.rows[numbers[better]] = rows[better]

    def merge(self, other: WorstOfEach, /) -> None:
        """See `sums.Accumulator`."""
        self._take(torch.arange(len(self.rows)), other.rows)

    def state(self) -> State:
        """See `sums.Accumulator`."""
        return {"rows": self.rows}, {"n": len(self.rows)}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device) -> None:
        """See `sums.Accumulator`."""
        if tensors["rows"].shape != self.rows.shape:
            raise ValueError("The stored places are of other tokens.")
        self.rows = tensors["rows"].clone()


@dataclass(kw_only=True)
class TokenSums(Sums):
    """What the pass adds up; tables as of SUMS."""

    classes: dict[str, Tensor]
    """[g, classes, SUMS] by SAE and group of documents."""
    positions: Tensor = shaped("g", "bins", "sums")
    """By position, in powers of two."""
    tokens: Tensor = shaped("blocks", "ids", "means")
    """By token id and block of documents, without the squares."""
    squares: Tensor = shaped("ids", "values")
    """Of VALUES, by token id."""
    token_classes: Tensor = shaped("ids", "kinds")
    """How often an id was of each class."""
    fitted: Tensor = shaped("sides", "sums")
    """Over the tokens that the map was fitted on, and over the others."""
    worst: WorstOfEach
    places: Places
    outliers: Places
    before_gap: float = field(default=0.0, metadata=LARGEST)
    """Largest change of any loss before the first replaced position (S-25)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokensFound:
    """Everything the pass found."""

    sae: str
    """Of all but `classes`."""
    by: str
    """The number by which places were chosen."""
    intercept: bool
    positions_counted: tuple[int, int]
    """Half-open range of positions whose tokens count; of a context the last never does."""
    n_contexts: int
    counts: Array
    """[1 + resamples, g] how often each group of documents is drawn; row 0 is the data as they are."""
    classes: Mapping[str, Array]
    positions: Array
    tokens: Array
    squares: Array
    token_classes: Array
    fitted: Array
    """As in `TokenSums`."""
    ids: Sequence[int]
    """[u] token ids."""
    texts: Sequence[str]
    """[u] their texts."""
    worst: Array
    places: Array
    outliers: Array
    """[n, PLACE]."""
    n_outliers: int
    median_norm: float | None
    before_gap: float


def measure_worst(
    measuring: Measuring, *, sae: str, by: str, places: int, held_out: bool, damage: bool
) -> Generator[Event, None, TokensFound]:
    """Look at every token that counts.

    Args:
        measuring: the target, with the maps of every SAE.
        sae: whose places and token ids; '': the middle one of the target.
        by: of VALUES: by which number places are chosen.
        places: to keep.
        held_out: leave out the tokens that the map was fitted on.
        damage: run every context once more, with the SAE in the place of x.

    Raises:
        TargetError: there is no such SAE.
        DataError: an activation, a reconstruction or a loss is not finite; the message says where.
    """
    work = _Work(measuring, sae, by, held_out=held_out, damage=damage)
    indices = contexts_with(work.scored)
    found = yield from walk(
        measuring.activations, indices, lambda: work.nothing(places), work.add, name="worst tokens", batch=work.batch
    )
    return work.conclude(found, len(indices))


class _Work:
    """How the sums of a target are made, fed and concluded from."""

    def __init__(self, measuring: Measuring, sae: str, by: str, *, held_out: bool, damage: bool) -> None:
        loaded = measuring.loaded
        self._measuring, self._loaded, self._by, self._damage = measuring, loaded, by, damage
        # The middle one by width and L0 is what the Stream begins with.
        self.sae = named(loaded.saes, sae) if sae else loaded.saes[len(loaded.saes) // 2]
        # The run's own plan has no outliers any more where they stand apart; here they are counted, apart.
        self._plan: Plan = plan_of(loaded, measuring.protocol)
        self._apart = loaded.outliers if measuring.protocol.outliers == "apart" else None
        self.scored = self._plan.test if held_out else self._plan.included
        """[c, t] bool."""
        self._groups = groups_of(self.scored, self._plan.documents)
        self._blocks = groups_of(self.scored, self._plan.documents, most=BLOCKS)
        self._kinds = TokenKinds(loaded)

    def batch(self, group: Sequence[int]) -> tuple[ActivationBatch, Tensor]:
        """The contexts with these indices, and the loss at each token [n]."""
        loaded, chosen = self._loaded, torch.tensor(list(group), dtype=torch.int64)
        token_ids = loaded.contexts.token_ids[chosen]
        run = loaded.model.score(token_ids, [loaded.hook_name])
        x = run.activations[loaded.hook_name].flatten(0, 1)
        return ActivationBatch(
            contexts=chosen.repeat_interleave(token_ids.shape[1]),
            positions=torch.arange(token_ids.shape[1]).repeat(len(group)),
            token_ids=token_ids.flatten(),
            x=x,
            outlier=None if self._apart is None else self._apart.among(x),
        ), run.loss.flatten()

    def nothing(self, places: int) -> TokenSums:
        """Sums of nothing."""
        n_ids, length = len(self._kinds.ids), self.scored.shape[1]
        g, c = self._groups.n, len(CLASSES)
        return TokenSums.zeros(
            classes={each.ref.sae_id: torch.zeros(g, c, SUMS, dtype=torch.float64) for each in self._loaded.saes},
            g=g,
            blocks=self._blocks.n,
            bins=(length - 1).bit_length() + 1,
            sums=SUMS,
            means=WITHOUT_SQUARES,
            values=K,
            ids=n_ids,
            sides=2,
            kinds=c,
            worst=WorstOfEach(n_ids),
            places=Places(places, self._by),
            outliers=Places(KEPT_OUTLIERS, "x_norm"),
        )

    def add(self, sums: TokenSums, whole: tuple[ActivationBatch, Tensor]) -> Iterator[None]:
        """Add a batch of whole contexts; pauses after each run of the model."""
        batch, loss = whole
        # The rows of every context of the batch, in the order of the batch.
        shape = -1, self.scored.shape[1]
        numbers, kinds = self._kinds.of(batch.token_ids.reshape(shape))
        rows = self.scored[batch.contexts, batch.positions]
        outlier = torch.zeros_like(rows) if batch.outlier is None else batch.outlier & rows
        kinds = torch.where(outlier, OUTLIER, kinds)
        tokens = batch.rows(rows)
        require_finite(tokens.x, tokens, "activation")
        loss = to_float64(loss).cpu()
        require_finite(loss[rows][:, None], tokens, "loss")
        damage = torch.zeros_like(loss)
        if self._damage:
            for context in torch.unique(batch.contexts).tolist():
                own = batch.contexts == context
                damage[own] = self._damage_of(sums, context, batch.x[own.to(batch.x.device)], outlier[own], loss[own])
                yield
        here = self._groups.of_context[batch.contexts[rows]]
        kinds, numbers, outlier = kinds[rows], numbers[rows], outlier[rows]
        for each in self._loaded.saes:
            chosen = each is self.sae
            table = self._table(each, tokens, loss[rows], damage[rows] if chosen else torch.zeros_like(here))
            into = sums.classes[each.ref.sae_id]
            into.view(-1, SUMS).index_add_(0, here * len(CLASSES) + kinds, table)
            if chosen:
                self._add_tokens(sums, tokens, table, here, kinds, numbers, outlier)
            yield

    def _add_tokens(
        self,
        sums: TokenSums,
        tokens: ActivationBatch,
        table: Tensor,
        here: Tensor,
        kinds: Tensor,
        numbers: Tensor,
        outlier: Tensor,
    ) -> None:
        """What is kept of one SAE alone; outliers stand apart."""
        train = self._plan.train[tokens.contexts, tokens.positions]
        x_norm = squared_norm(tokens.x).sqrt().cpu()
        about = (tokens.contexts, tokens.positions, tokens.token_ids, kinds, train, x_norm)
        places = torch.cat([torch.stack([to_float64(each) for each in about], dim=1), table[:, 2 : 2 + K]], dim=1)
        sums.outliers.add(places[outlier])
        keep = ~outlier
        places, table, kinds, numbers = places[keep], table[keep], kinds[keep], numbers[keep]
        sums.places.add(places)
        bins = torch.tensor([position.bit_length() for position in tokens.positions[keep].tolist()], dtype=torch.int64)
        n_bins = sums.positions.shape[1]
        sums.positions.view(-1, SUMS).index_add_(0, here[keep] * n_bins + bins, table)
        block = self._blocks.of_context[tokens.contexts[keep]]
        n_ids = sums.tokens.shape[1]
        by_block = sums.tokens.view(-1, WITHOUT_SQUARES)
        by_block.index_add_(0, block * n_ids + numbers, table[:, :WITHOUT_SQUARES])
        sums.squares.index_add_(0, numbers, table[:, WITHOUT_SQUARES:])
        ones = torch.ones(len(kinds), dtype=torch.float64)
        sums.token_classes.view(-1).index_add_(0, numbers * len(CLASSES) + kinds, ones)
        sums.fitted.index_add_(0, 1 - train[keep].to(torch.int64), table)
        values = places[:, PLACE.index(self._by)]
        sums.worst.add(numbers, values, tokens.contexts[keep], tokens.positions[keep])

    def _table(self, sae: LoadedSae, tokens: ActivationBatch, loss: Tensor, damage: Tensor) -> Tensor:
        """[n, SUMS] of some tokens, on the CPU."""
        made = sae.reconstruct(tokens.x)
        require_finite(made.x_hat, tokens, f"reconstruction of SAE '{sae.ref.sae_id}'")
        error_map = self._measuring.maps[sae.ref.sae_id].error_map
        parts = decompose(tokens.x, made.x_hat.to(tokens.x), error_map)
        values, has_share = values_of(parts)
        values = torch.cat([values.cpu(), loss[:, None], to_float64(damage)[:, None]], dim=1)
        ones = torch.ones(len(values), 1, dtype=torch.float64)
        return torch.cat([ones, to_float64(has_share.cpu())[:, None], values, values.square()], dim=1)

    def _damage_of(self, sums: TokenSums, context: int, x: Tensor, outlier: Tensor, loss: Tensor) -> Tensor:
        """[t] what the SAE's output in the place of x, wherever a token counts, adds to the losses of a context."""
        loaded = self._loaded
        replaced = self._plan.included[context] & ~outlier
        at = replaced.to(x.device)
        spliced = x.clone()
        spliced[at] = self.sae.reconstruct(x[at]).x_hat.to(x)
        tokens = loaded.contexts.token_ids[context : context + 1]
        outputs = loaded.model.splice(tokens, loaded.hook_name, spliced[None]).outputs[0]
        added = to_float64(loss_of(outputs, tokens[0])).cpu() - loss
        start = int(replaced.nonzero()[0, 0]) if bool(replaced.any()) else 0
        if start:
            sums.before_gap = max(sums.before_gap, float(added[:start].abs().max()))
        return added

    def conclude(self, sums: TokenSums, n_contexts: int) -> TokensFound:
        """As plain numbers."""
        loaded, measuring = self._loaded, self._measuring
        counted = self._plan.included.any(dim=0).nonzero()[:, 0]
        counts = resampling_counts(self._groups.n, seed=measuring.seed, n_resamples=measuring.n_resamples)
        return TokensFound(
            sae=self.sae.ref.sae_id,
            by=self._by,
            intercept=measuring.intercept,
            positions_counted=(int(counted[0]), int(counted[-1]) + 1),
            n_contexts=n_contexts,
            counts=counts.numpy(),
            classes={name: table.numpy() for name, table in sums.classes.items()},
            **{
                name: getattr(sums, name).numpy()
                for name in ("positions", "tokens", "squares", "token_classes", "fitted")
            },
            ids=self._kinds.ids.tolist(),
            texts=self._kinds.texts,
            worst=sums.worst.rows.numpy(),
            places=sums.places.rows.numpy(),
            outliers=sums.outliers.rows.numpy(),
            n_outliers=int(sums.classes[self.sae.ref.sae_id][:, OUTLIER, 0].sum()),
            median_norm=None if loaded.outliers is None else loaded.outliers.median_norm,
            before_gap=sums.before_gap,
        )


def values_of(parts: Decomposition) -> tuple[Tensor, Tensor]:
    """The first five of VALUES [n, 5] of some tokens, and which of them have a share [n] bool."""
    linear, nonlinear, total, x = (
        squared_norm(each) for each in (parts.linear_error, parts.nonlinear_error, parts.sae_error, parts.x)
    )
    both = linear + nonlinear
    share = torch.where(both > 0, nonlinear / both, 0.0)
    fvu = torch.where(x > 0, nonlinear / x, 0.0)
    values = [nonlinear.sqrt(), linear.sqrt(), total.sqrt(), share, fvu]
    return torch.stack([to_float64(each) for each in values], dim=1), both > 0


# ---- means of groups -------------------------------------------------------------------------------------------------


def moments_of(table: Array, place: int) -> tuple[Array, Array]:
    """Means and standard deviations of VALUES[place] from sums [..., columns]."""
    n = table[..., 1] if VALUES[place] == "share" else table[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = table[..., 2 + place] / n
        # Of sums of squares, in float64: a spread below 1e-7 of the mean would drown, and none of tokens is.
        variance = table[..., 2 + len(VALUES) + place] / n - mean**2
    return mean, np.sqrt(np.maximum(variance, 0.0))


def halves_of(table: Array, place: int, n_blocks: Sequence[int]) -> list[float | None]:
    """Half the 95% interval of means over blocks [b, ids, columns]; None for a token in too few of them.

    A mean is a ratio of two sums over blocks; its variance is that of the residuals s - mean n, over all blocks, those
    without the token among them, and Student's quantile has one freedom less than there are blocks with it.
    """
    b = len(table)
    n = table[..., 1] if VALUES[place] == "share" else table[..., 0]
    total = np.maximum(n.sum(axis=0), 1.0)
    mean = table[..., 2 + place].sum(axis=0) / total
    error = np.sqrt(b / max(b - 1, 1) * ((table[..., 2 + place] - mean * n) ** 2).sum(axis=0)) / total
    quantiles = {count: student(count - 1) for count in set(n_blocks) if count >= LEAST_BLOCKS}
    return [
        float(f"{quantiles[count] * each:.4g}") if count in quantiles else None
        for count, each in zip(n_blocks, error.tolist(), strict=True)
    ]
