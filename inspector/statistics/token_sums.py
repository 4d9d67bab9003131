"""Adding up per-token numbers by group of contexts, in memory that does not grow with the text.

Every interval resamples documents, so sums are kept for each, or per block of them where there are very many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from inspector.engine.moments import to_float64
from inspector.statistics.grouping import groups_of
from inspector.statistics.token_norms import ONE, Sums


class Blocks:
    """The groups of the contexts in which a [c, t] mask is True anywhere; see `statistics.grouping`.

    Args:
        mask: the tokens that are scored.
        documents: of the plan.
    """

    def __init__(self, mask: Tensor, documents: Tensor | None = None) -> None:
        groups = groups_of(mask, documents)
        self._of_context = groups.of_context
        self.n = len(groups.first)
        self.n_contexts = int((groups.of_context >= 0).sum())

    def runs(self, contexts: Tensor) -> list[tuple[int, slice]]:
        """(group, rows) of every context among tokens [n] that come context by context."""
        found, lengths = torch.unique_consecutive(contexts.cpu(), return_counts=True)
        runs, start = [], 0
        for context, length in zip(found.tolist(), lengths.tolist(), strict=True):
            runs.append((int(self._of_context[context]), slice(start, start + length)))
            start += length
        return runs


Runs = Sequence[tuple[int, slice]]


class GroupSums:
    """Running sums of named per-token numbers, per group; float64 on the CPU."""

    def __init__(self, n_groups: int) -> None:
        self._n_groups = n_groups
        self._names: tuple[str, ...] = ()
        self._values = torch.zeros(n_groups, 0, dtype=torch.float64)

    def update(self, numbers: Mapping[str, Tensor], runs: Runs) -> None:
        """Add tokens: [n] for every name, the same names each time."""
        if not self._names:
            self._names = tuple(numbers)
            self._values = torch.zeros(self._n_groups, len(numbers), dtype=torch.float64)
        table = table_of(numbers, self._names)
        for group, rows in runs:
            self._values[group] += table[rows].sum(dim=0)

    def finish(self) -> Sums:
        """What was added."""
        return Sums(names=self._names, values=self._values.numpy())


class GroupProducts:
    """Running sums of the products of any two of some named numbers and 1, per group; float64 on the CPU."""

    def __init__(self, n_groups: int) -> None:
        self._n_groups = n_groups
        self.names: tuple[str, ...] = ()
        self.values = torch.zeros(n_groups, 0, 0, dtype=torch.float64)

    def update(self, numbers: Mapping[str, Tensor], runs: Runs) -> None:
        """Add tokens: [n] for every name, the same names each time."""
        if not self.names:
            self.names = (ONE, *numbers)
            self.values = torch.zeros(self._n_groups, len(self.names), len(self.names), dtype=torch.float64)
        table = table_of(numbers, self.names[1:])
        table = torch.cat([torch.ones(len(table), 1, dtype=torch.float64), table], dim=1)
        for group, rows in runs:
            self.values[group] += table[rows].T @ table[rows]


class RowSums:
    """Running sums of whole vectors [n, d], per group; float64 on the CPU."""

    def __init__(self, n_groups: int, d: int) -> None:
        self.values = torch.zeros(n_groups, d, dtype=torch.float64)

    def update(self, rows_of: Tensor, runs: Runs) -> None:
        """Add tokens [n, d]."""
        for group, rows in runs:
            self.values[group] += rows_of[rows].sum(dim=0).cpu()


def table_of(numbers: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """[n, names] float64 on the CPU, with one copy from the device."""
    return to_float64(torch.stack([to_float64(numbers[name]) for name in names], dim=1)).cpu()


class ClassSums:
    """Running sums of numbers [n, q] per class of token; float64 where the tokens are."""

    def __init__(self, n_classes: int) -> None:
        self._n_classes = n_classes
        self.n = torch.zeros(n_classes, dtype=torch.float64)
        self.values = torch.zeros(n_classes, 0, dtype=torch.float64)

    def update(self, classes: Tensor, numbers: Tensor) -> None:
        """Add tokens: their class [n] int64, and [n, q] float64."""
        if not self.values.shape[1]:
            self.values = torch.zeros(self._n_classes, numbers.shape[1], dtype=torch.float64, device=numbers.device)
            self.n = self.n.to(numbers.device)
        classes = classes.to(numbers.device)
        self.values.index_add_(0, classes, numbers)
        self.n.index_add_(0, classes, torch.ones(len(classes), dtype=torch.float64, device=numbers.device))

    def means(self, otherwise: Tensor) -> Tensor:
        """[classes, q] mean of each class; `otherwise` [q] for a class without tokens."""
        return torch.where(self.n[:, None] > 0, self.values / self.n[:, None].clamp_min(1.0), otherwise)
