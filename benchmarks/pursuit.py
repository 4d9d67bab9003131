"""What a pursuit with a sparse active set costs beside a dense one: at the size of the paper's SAEs, and a narrow one.

131,072 or 256 latents, d_model 2304, 256 tokens, L0 60, all drawn at random: the costs are those of the sizes, not of
the weights. The dense pursuit is the formulation with a matrix of weights, tokens by latents, and three products with
the decoder per step. It runs for a few steps, which all cost the same, and is scaled up to 60; what it and ours picked
in those steps is compared. Ours decodes its codes as well, and makes the decoder ready before that, once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measures import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

GROUP = "pursuit"
LATENTS, NARROW, D_MODEL, TOKENS, L0 = 131_072, 256, 2304, 256, 60
DENSE_STEPS = 4
SPEEDUP, SCRATCH_MIB = 10.0, 2048.0


def measure(target: Sequence[str], runs: int) -> list[Measure]:
    """Each in a process of its own, because peak memory only ever grows."""
    return [*_rows(LATENTS, SPEEDUP), *_rows(NARROW, 1.0)]


def _rows(latents: int, speedup: float) -> list[Measure]:
    command = [sys.executable, "-m", "benchmarks.pursuit", str(latents)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    what = f"pursuit, {latents:,} latents, d {D_MODEL:,}, {TOKENS} tokens, L0 {L0}"
    return [
        Measure(
            group=GROUP,
            what=what,
            budget=f"{speedup:g} x faster than dense" if speedup > 1 else "no slower than dense",
            measured=(
                f"{found['dense'] / found['ours']:.1f} x: {found['ours']:.2f} s against {found['dense']:.2f} s; "
                f"same picks: {found['same']}"
            ),
            value=found["ours"] / found["dense"] if found["same"] else None,
            limit=1.0 / speedup,
        ),
        Measure(
            group=GROUP,
            what=f"scratch memory of the same with {latents:,} latents, beside decoder and tokens",
            budget="2 GB",
            measured=f"{found['scratch_mib']:,.0f} MiB, dense {found['dense_mib']:,.0f} MiB",
            value=found["scratch_mib"],
            limit=SCRATCH_MIB,
        ),
    ]


def main() -> None:
    """Measure and print one line of JSON."""
    import torch

    from inspector.engine.pursuit import Pursuit

    n_latents = int(sys.argv[1])
    with torch.inference_mode():
        generator = torch.Generator().manual_seed(0)
        decoder = torch.randn(n_latents, D_MODEL, generator=generator)
        decoder /= decoder.norm(dim=1, keepdim=True)
        chosen = torch.randint(0, n_latents, (TOKENS, L0), generator=generator)
        weights = torch.rand(TOKENS, L0, generator=generator) + 0.2
        x = torch.stack([w @ decoder[rows] for w, rows in zip(weights, chosen, strict=True)])
        x += 0.05 * torch.randn(TOKENS, D_MODEL, generator=generator)
        _forget_peak()
        held = _peak_mib()
        start = time.perf_counter()
        pursuit = Pursuit(decoder, torch.zeros(D_MODEL))
        prepared = time.perf_counter() - start
        start = time.perf_counter()
        codes = pursuit.encode(x, torch.full((TOKENS,), L0))
        x_hat = pursuit.decode(codes)
        ours = time.perf_counter() - start
        scratch = _peak_mib() - held
        few = pursuit.encode(x, torch.full((TOKENS,), DENSE_STEPS))
        _forget_peak()
        held = _peak_mib()
        start = time.perf_counter()
        dense = dense_pursuit(decoder, x, DENSE_STEPS)
        per_step = (time.perf_counter() - start) / DENSE_STEPS
        dense_mib = _peak_mib() - held
        same = torch.equal(_as_dense(few.indices, n_latents), dense > 0)
        scale = float(((x - x_hat) ** 2).sum() / (x**2).sum())
    print(
        json.dumps(
            {
                "ours": ours,
                "prepared": prepared,
                "dense": per_step * L0,
                "scratch_mib": scratch,
                "dense_mib": dense_mib,
                "same": same,
                "unexplained": scale,
            }
        )
    )


def dense_pursuit(decoder: Tensor, x: Tensor, steps: int) -> Tensor:
    """The same pursuit with a dense matrix of weights [tokens, latents], as one would write it first."""
    import torch

    weights = torch.zeros(len(x), len(decoder))
    for _ in range(steps):
        rest = x - weights @ decoder
        products = rest @ decoder.T
        active = weights > 0
        picked = products.masked_fill(active, -torch.inf).argmax(dim=1)
        active[torch.arange(len(x)), picked] = True
        gradient = products * active
        direction = gradient @ decoder
        rate = (direction * rest).sum(dim=1) / direction.square().sum(dim=1)
        weights = (weights + rate[:, None] * gradient).clamp_min(0.0)
    return weights


def _as_dense(indices: Tensor, n_latents: int) -> Tensor:
    import torch

    dense = torch.zeros(len(indices), n_latents + 1, dtype=torch.bool)
    return dense.scatter_(1, torch.where(indices < 0, n_latents, indices), True)[:, :n_latents]


def _forget_peak() -> None:
    """Let the peak start again from what is held now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_mib() -> float:
    """Most memory this process has held since. Without /proc, since it began: in kilobytes, on macOS in bytes."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main()
