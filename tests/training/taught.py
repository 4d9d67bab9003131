"""A 'model' of a few lines for tests of training, and a program that trains on it until it is killed."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import sae_lens.training.sae_trainer  # noqa: F401  before the forks, or each of them would import it
import torch
from torch import Tensor

from inspector.training.suite_files import SaePlan
from inspector.training.trainer import TrainSettings, train_suite

D_IN, VOCAB, LENGTH = 16, 50, 24
HOOK = "blocks.3.hook_resid_post"
OTHER = "blocks.1.hook_mlp_out"
ARCHITECTURES = ("topk", "batchtopk", "jumprelu")


def token_table(seed: int) -> Tensor:
    return torch.randn(VOCAB, D_IN, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def source(ids: Tensor) -> dict[str, Tensor]:
    """Activations that are sums of two token vectors: sparse by construction."""
    return {
        hook: token_table(seed)[ids] + 0.5 * token_table(seed)[ids.roll(1, dims=1)]
        for seed, hook in enumerate((HOOK, OTHER))
    }


def contexts(n: int, seed: int = 0) -> npt.NDArray[np.int64]:
    ids = np.random.default_rng(seed).integers(3, VOCAB, (n, LENGTH))
    ids[:, 0] = 1
    return ids


def train_all_kinds(out: Path, after_step: Callable[[], object] = lambda: None) -> None:
    """One SAE of each architecture in lockstep, with a checkpoint after every step."""
    plans = tuple(SaePlan(hook_name=HOOK, d_sae=64, k=4, architecture=kind) for kind in ARCHITECTURES)  # type: ignore[arg-type]
    settings = TrainSettings(tokens=6000, batch_tokens=128, block_contexts=16, special_ids=(1,), checkpoint_minutes=0.0)
    for _ in train_suite(source, contexts(64), contexts(16, seed=9), plans, settings, out, {"model_name": "toy"}):
        after_step()


def _killed_after(out: Path, steps: int) -> None:
    """Train in a process of its own that is killed while it works on what follows its `steps`-th step."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        train_all_kinds(out, after_step=partial(os.write, writing, b"."))
        os._exit(7)  # it must not come so far
    os.close(writing)
    for _ in range(steps):
        assert os.read(reading, 1) == b".", "it ended by itself"
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reading)
    assert os.WIFSIGNALED(status), status


def main(root: Path, seed: int) -> None:
    """Train below `root`; killed three times at random moments and gone on with."""
    warnings.simplefilter("ignore")
    for steps in np.random.default_rng(seed).integers(1, 14, 3).tolist():
        _killed_after(root, steps)
    train_all_kinds(root)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
