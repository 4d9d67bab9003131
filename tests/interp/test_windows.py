"""The sample is uniform, the same however it comes, and holds what it should."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inspector.interp.windows import Reservoir, keys_of

LATENTS = np.arange(5, dtype=np.int64)
WINDOWS = np.arange(400, dtype=np.int64)


def test_keys_are_uniform_and_depend_on_everything() -> None:
    keys = keys_of(3, np.arange(200, dtype=np.int64), WINDOWS).numpy()
    assert keys.min() >= 0 and keys.max() < 1
    # 80,000 uniform numbers: the mean is 0.5 with a standard error of 0.001, each tenth holds 10% within 0.1%.
    assert abs(keys.mean() - 0.5) < 0.005
    assert np.all(np.abs(np.histogram(keys, bins=10, range=(0, 1))[0] / keys.size - 0.1) < 0.005)
    assert len(np.unique(keys)) == keys.size
    assert not np.array_equal(keys, keys_of(4, np.arange(200, dtype=np.int64), WINDOWS).numpy())
    # Neither rows nor columns are related: correlations of 400 or 200 pairs stay within five standard errors.
    assert abs(np.corrcoef(keys[0], keys[1])[0, 1]) < 0.25 and abs(np.corrcoef(keys[:, 0], keys[:, 1])[0, 1]) < 0.36


@pytest.mark.parametrize("step", [1, 7, 64, 400])
def test_it_holds_the_smallest_keys_however_they_come(step: int) -> None:
    keys = keys_of(0, LATENTS, WINDOWS)
    keys[2, 10:] = torch.inf  # a latent that wants ten windows only
    keys[3] = torch.inf  # and one that wants none
    activations = keys.float()[:, :, None] + torch.arange(3.0)
    sample = Reservoir(5, 20, 3)
    order = np.random.default_rng(1).permutation(400)
    for first in range(0, 400, step):
        part = torch.from_numpy(order[first : first + step])
        sample.offer(keys[:, part], part, activations[:, part])
    for latent in range(5):
        expected = np.argsort(keys[latent].numpy(), kind="stable")[: int(keys[latent].isfinite().sum())][:20]
        places, windows = sample.items(latent)
        assert windows.tolist() == expected.tolist()
        assert torch.equal(sample.activations[latent, places], activations[latent, windows])
