"""Marks the tokens that outweigh all others in what SAEs learn from, so that they are left out.

A squared error belongs to them: an SAE would spend its latents on a few tokens per thousand. See `engine.plan`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inspector.engine.plan import Outliers, outliers_of
from inspector.sources.activation_blocks import LEFT_OUT, ActivationSource, Ids, is_ordinary


class OutlierMarks:
    """An `ActivationSource` that says which of its tokens are outliers, at any of its hooks.

    Args:
        source: the model.
        factor: how many times the median norm makes an outlier.
        ids: [contexts, positions] token ids whose norms give the median of each hook, once.
        special_ids: tokens that do not count for it.
    """

    def __init__(self, source: ActivationSource, factor: float, ids: Ids, special_ids: tuple[int, ...]) -> None:
        self._source = source
        ordinary = torch.from_numpy(is_ordinary(ids, special_ids))
        self.rules: dict[str, Outliers] = {}
        """By hook; a hook whose median norm is 0 has none."""
        for hook, x in source(torch.from_numpy(ids)).items():
            norms = x[ordinary.to(x.device)].float().norm(dim=-1)
            rule = outliers_of(factor, float(norms.median())) if len(norms) else None
            if rule is not None:
                self.rules[hook] = rule

    def __call__(self, ids: Tensor) -> dict[str, Tensor]:
        """As the source, and the marks [contexts, positions] under LEFT_OUT."""
        made = self._source(ids)
        marks = torch.zeros(ids.shape, dtype=torch.bool)
        for hook, rule in self.rules.items():
            marks |= rule.among(made[hook])
        return {**made, LEFT_OUT: marks}
