"""What the SAEs of a trained suite do on text they never saw.

Read back through plain sae-lens from the files just written, so that the numbers describe what a user will load: half
precision, folded scales, sae-lens' own arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from inspector.sources.activation_blocks import ActivationSource, Ids, chosen_rows, is_ordinary
from inspector.sources.suite_files import Quality, SaePlan


@torch.no_grad()
def measure(
    source: ActivationSource,
    held_out: Ids,
    root: Path,
    plans: Sequence[SaePlan],
    trained_tokens: int,
    special_ids: tuple[int, ...],
    model_batch: int = 16,
) -> tuple[Quality, ...]:
    """L0, FVU and dead latents of every SAE of `plans` below `root`.

    One pass over `held_out` [contexts, positions] serves all of them; `special_ids` are left out, as is what the source
    marks.
    """
    from sae_lens import SAE

    saes = {plan: SAE.load_from_disk(root / plan.sae_id, dtype="float32") for plan in plans}
    fired = {plan: torch.zeros(plan.d_sae, dtype=torch.int64) for plan in plans}
    error = dict.fromkeys(plans, 0.0)
    moments: dict[str, tuple[float, Tensor]] = {}
    n_tokens = 0
    for first in range(0, len(held_out), model_batch):
        ids = held_out[first : first + model_batch]
        ordinary = torch.from_numpy(is_ordinary(ids, special_ids))
        by_hook = {hook: x.cpu() for hook, x in chosen_rows(source(torch.from_numpy(ids)), ordinary)[0].items()}
        n_tokens += len(next(iter(by_hook.values())))
        for hook, x in by_hook.items():
            square, total = moments.get(hook, (0.0, torch.zeros(x.shape[1], dtype=torch.float64)))
            moments[hook] = square + float(x.double().square().sum()), total + x.double().sum(0)
        for plan, sae in saes.items():
            latents = sae.encode(by_hook[plan.hook_name])
            fired[plan] += (latents > 0).sum(0)
            error[plan] += float((by_hook[plan.hook_name] - sae.decode(latents)).double().square().sum())
    qualities = []
    for plan in plans:
        square, total = moments[plan.hook_name]
        variance = square - float(total.square().sum()) / n_tokens
        qualities.append(
            Quality(
                sae_id=plan.sae_id,
                d_sae=plan.d_sae,
                nominal_l0=plan.k,
                n_tokens=n_tokens,
                l0=float(fired[plan].sum()) / n_tokens,
                fvu=error[plan] / variance,
                dead_latents=int((fired[plan] == 0).sum()),
                trained_tokens=trained_tokens,
            )
        )
    return tuple(qualities)
