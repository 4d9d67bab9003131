"""The line of the table, and the longer text it is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.memory import as_measure
from benchmarks.memory_worker import lengthened
from inspector.sources.contexts import Contexts, contexts_from
from inspector.spec import TargetSpec


def peaks(low: float, high: float) -> Any:
    def one(n_tokens: int, peak: float) -> dict[str, Any]:
        return {
            "n_tokens": n_tokens,
            "n_contexts": n_tokens // 100,
            "n_groups": 512,
            "seconds": 3.2,
            "loaded_mib": 600.0,
            "peak_mib": peak,
        }

    return as_measure(one(50_000, low), one(500_000, high))


def test_memory_that_grows_with_the_text_fails() -> None:
    assert peaks(614, 636).verdict == "met"
    assert peaks(614, 636).measured.startswith("614 and 636 MiB (600 once loaded), 5,000 contexts in 512 blocks")
    assert peaks(600, 700).verdict == "MISSED"


@dataclass(frozen=True, kw_only=True)
class FakeModel:
    special_ids: tuple[int, ...] = (0,)


@dataclass(frozen=True, kw_only=True)
class FakeLoaded:
    contexts: Contexts
    target: TargetSpec
    model: FakeModel
    plan: Any = None


def test_the_longer_text_is_the_same_contexts_again() -> None:
    rows = [[0, *range(10 * i, 10 * i + 9)] for i in range(1, 6)]
    contexts = contexts_from(rows, list("abcde"))
    short = FakeLoaded(contexts=contexts, target=TargetSpec(positions=(1, None)), model=FakeModel())
    long = lengthened(short, 1_005)  # type: ignore[arg-type]
    assert long.contexts.token_ids.shape == (101, 10)
    assert {tuple(row) for row in long.contexts.token_ids.tolist()} == {tuple(row) for row in rows}
    assert long.plan.n_train + long.plan.n_test == 101 * 8
    assert torch.equal(long.contexts.token_ids, lengthened(short, 1_005).contexts.token_ids)  # type: ignore[arg-type]
