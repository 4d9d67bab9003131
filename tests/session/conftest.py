"""A toy target with a model, four SAEs and a text, written once and loaded once."""

from __future__ import annotations

import random
import warnings
from typing import TYPE_CHECKING

import pytest

from inspector.spec import TargetSpec

if TYPE_CHECKING:
    from inspector.sources.target import Loaded

WORDS = [
    "the", "error", "of", "a", "token", "is", "split", "into", "linear", "and", "nonlinear", "part",
    "model", "reads", "dark", "matter", "é", "日本", "x", "=", "f(y)\n",
]  # fmt: skip


@pytest.fixture(scope="session")
def toy_target(tmp_path_factory: pytest.TempPathFactory) -> TargetSpec:
    """A Gemma 2 of 16 dimensions, TopK SAEs of two widths and two L0s, 40 contexts of 32 tokens."""
    from tests.toy import fit_toy_suite, write_toy_model, write_toy_suite

    folder = tmp_path_factory.mktemp("toy")
    chosen = random.Random(0)
    text = " ".join(chosen.choice(WORDS) for _ in range(3000))
    (folder / "text.txt").write_text(text, encoding="utf-8")
    model = write_toy_model(folder / "model")
    return TargetSpec(
        model=str(model),
        suite=str(fit_toy_suite(write_toy_suite(folder / "suite"), model, text)),
        text=str(folder / "text.txt"),
        contexts=40,
        context_length=32,
        device="cpu",
    )


@pytest.fixture(scope="session")
def loaded(toy_target: TargetSpec) -> Loaded:
    """It, loaded."""
    from inspector.sources.target import open_target
    from tests.toy import remember_passes

    loading = open_target(toy_target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what transformer-lens and sae-lens say of each other when they are imported
        while True:
            try:
                next(loading)
            except StopIteration as done:
                result: Loaded = done.value
                remember_passes(result.model)
                return result
