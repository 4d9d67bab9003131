"""The same comparisons as on the toy, on the shipped demo: real activations, SAEs in half precision on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import inspector.demo
from inspector.options import width_label
from inspector.sources.target import open_target
from inspector.spec import TargetSpec
from tests.experiments.own import Toy, finish

# Collected here, they take this module's `toy` and `results`.
from tests.experiments.test_tokens import (  # noqa: F401
    ALL,
    PARAMS,
    Results,
    reference,
    test_baselines_are_scikit_learns,
    test_gains_from_a_second_norm_are_scikit_learns,
    test_norms_are_scikit_learns,
    test_pairs_are_scikit_learns,
    test_shrinkage_is_numpys,
    test_slopes_and_correlations_are_numpys,
    test_they_agree_with_the_shared_passes,
    test_traces_are_numpys_and_held_out,
)

WIDTHS = (256, 512, 1024)
L0 = 16


@pytest.fixture(scope="module")
def toy() -> Toy:
    """30 contexts: enough training tokens for 128 dimensions."""
    torch.set_num_threads(1)
    saes = tuple(f"layer_3/resid/width_{width_label(width)}/l0_{L0}" for width in WIDTHS)
    loaded = finish(open_target(TargetSpec(saes=saes, contexts=30, device="cpu", offline=True)))
    root = Path(inspector.demo.__file__).parent
    assert [sae.ref.d_sae for sae in loaded.saes] == list(WIDTHS)
    return Toy(root, loaded, layer=3, widths=WIDTHS, companion=1024, l0=L0)


@pytest.fixture(scope="module")
def results(toy: Toy) -> Results:
    return {each["experiment"]: each for each in toy.run(*ALL, **PARAMS)}
