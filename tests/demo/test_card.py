"""The model card: its numbers come from the files, and its R-squared from the definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from inspector.demo import suite
from inspector.demo.suite import Predictability, predictability, table, write_card
from inspector.training.suite_files import Quality
from tests.toy import write_toy_sae

HOOK, D_IN = "blocks.0.hook_resid_post", 16


def source(ids: Tensor) -> dict[str, Tensor]:
    vectors = torch.randn(500, D_IN, generator=torch.Generator().manual_seed(0))
    return {HOOK: vectors[ids] + 0.3 * vectors[ids.roll(1, dims=1)]}


def quality(sae_id: str) -> Quality:
    return Quality(
        sae_id=sae_id, d_sae=32, nominal_l0=4, n_tokens=100, l0=4.0, fvu=0.25, dead_latents=3, trained_tokens=10
    )


def test_predictability_equals_numpy_least_squares(tmp_path: Path) -> None:
    from sae_lens import SAE

    write_toy_sae(tmp_path / "sae", d_in=D_IN, d_sae=32, k=4, hook_name=HOOK)
    ids = np.random.default_rng(0).integers(3, 500, (60, 24))
    ids[:, 0] = 1
    found = predictability(source, ids, tmp_path, HOOK, ["sae"], (1,))["sae"]
    with torch.no_grad():
        x = source(torch.from_numpy(ids))[HOOK]
        error = (x - SAE.load_from_disk(tmp_path / "sae", dtype="float32")(x)).double().numpy()[:, 1:]
    wide = np.concatenate([x.double().numpy()[:, 1:], np.ones((60, 23, 1))], axis=2)
    for target, expected in (((error**2).sum(2, keepdims=True), found.r2_norm), (error, found.r2_pooled)):
        fitted = np.linalg.lstsq(wide[:30].reshape(-1, D_IN + 1), target[:30].reshape(690, -1), rcond=None)[0]
        tested = target[30:].reshape(690, -1)
        rest = ((tested - wide[30:].reshape(690, -1) @ fitted) ** 2).sum()
        # The map is applied in float32.
        assert expected == pytest.approx(1 - rest / ((tested - tested.mean(0)) ** 2).sum(), abs=1e-5)


def test_table_has_a_row_per_sae_and_says_when_a_number_is_undefined() -> None:
    predicted = {"a": Predictability(r2_norm=0.5, r2_pooled=None, fvu_nonlinear=0.2)}
    assert table([quality("a")], predicted).splitlines()[-1] == (
        "| a | 32 | 4 | 10 | 4.00 | 0.2500 | 3 | 0.500 | undefined | 0.2000 |"
    )
    with pytest.raises(KeyError):
        table([quality("b")], predicted)


def test_a_fact_that_is_missing_is_an_error_and_not_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = tmp_path / "template.md"
    template.write_text("seed ${seed}, Python ${python}\n")
    monkeypatch.setattr(suite, "TEMPLATE", template)
    write_card(tmp_path / "CARD.md", {"seed": 7, "python": "3.11.0"})
    assert (tmp_path / "CARD.md").read_text() == "seed 7, Python 3.11.0\n"
    with pytest.raises(KeyError, match="seed"):
        write_card(tmp_path / "CARD.md", {})
