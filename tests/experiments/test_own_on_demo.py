"""The same comparisons as on the toy, on the shipped demo: real activations, SAEs in half precision on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import inspector.demo
from inspector.options import width_label
from inspector.sources.target import open_target
from inspector.spec import TargetSpec
from tests.experiments.own import Toy, finish

# Collected here, they take this module's `toy` and `results`.
from tests.experiments.test_own import (  # noqa: F401
    test_breakdown_is_scipys_fit_of_those_points,
    test_components_are_scikit_learns,
    test_planted_noise_is_scikit_learns,
    test_probe_is_numpys,
    test_pursuit_is_numpys,
    test_splices_are_transformers_own,
)

WIDTHS = (256, 512, 1024)
L0 = 16
NAMES = ("ce-splice", "cross-component", "dark-matter-breakdown", "probe-vs-latents", "pursuit", "synthetic-sae")


@pytest.fixture(scope="module")
def toy() -> Toy:
    """20 contexts: enough training tokens for 128 dimensions, few enough for a pursuit in plain numpy."""
    torch.set_num_threads(1)
    saes = tuple(f"layer_3/resid/width_{width_label(width)}/l0_{L0}" for width in WIDTHS)
    loaded = finish(open_target(TargetSpec(saes=saes, contexts=20, device="cpu", offline=True)))
    root = Path(inspector.demo.__file__).parent
    assert [sae.ref.d_sae for sae in loaded.saes] == list(WIDTHS)
    return Toy(root, loaded, layer=3, widths=WIDTHS, companion=1024, l0=L0)


@pytest.fixture(scope="module")
def results(toy: Toy) -> dict[str, dict[str, Any]]:
    return {each["experiment"]: each for each in toy.run(*NAMES, tokens="0", contexts="4")}
