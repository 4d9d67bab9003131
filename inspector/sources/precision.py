"""In which precision numbers are made: none that was not asked for, and what bfloat16 changes where it was chosen.

`exact_products` is the one place that says how float32 products are made. `raised` lets a model that is loaded in
bfloat16 compute in float32, one layer at a time, so that the two can be compared where the float32 model has no room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inspector.errors import is_out_of_memory

if TYPE_CHECKING:
    from inspector.sources.sae import LoadedSae


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a model in bfloat16 changes against the same rounded weights in float32, on a few tokens."""

    why: str
    """It is in bfloat16."""
    n_tokens: int
    x: float | None
    """‖x - x in float32‖ over ‖x in float32‖, over all tokens; None: no room even for one layer in float32."""
    error_norms: dict[str, float]
    """By SAE: the median over tokens of the relative change of ‖sae_error‖."""

    @property
    def note(self) -> str:
        """For a user, who did not ask for it."""
        begin = f"The model is in bfloat16. {self.why}"
        if self.x is None:
            return f"{begin} What that changes could not be measured: one layer in float32 found no room beside it."
        most = max(self.error_norms.values(), default=0.0)
        return (
            f"{begin} On the first {self.n_tokens:,} tokens, against float32 layer by layer, x changes by {self.x:.2g} "
            f"of its length, and the length of an SAE's error by {most:.2g} of itself at most (median over tokens). "
            "Every result says so; --dtype float32 with fewer --widths avoids it."
        )


def exact_products() -> None:
    """Make float32 products in float32, whoever asked for less: a variable of a container, a library, a notebook.

    TF32 has ten bits where float32 has 23: 0.19% of active latents flip and the linear error moves by 3e-4. Sums inside
    bfloat16 products stay in float32. Costs microseconds, so it is said before every pass. Nothing is asked first:
    torch refuses to tell where its old and its new switches were mixed.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    cudnn: Any = torch.backends.cudnn  # untyped here
    cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "ieee"  # which the switch above may leave as they are
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


@torch.inference_mode()
def effect_of(low: Tensor, high: Callable[[], Tensor], saes: Sequence[LoadedSae], why: str) -> Effect:
    """Compare the two on the same tokens.

    Args:
        low: [n, d] float32 values of a model in bfloat16.
        high: makes the same in float32, if there is room for it.
        saes: of the hook.
        why: the model is in bfloat16.
    """
    try:
        exact = high()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return Effect(why=why, n_tokens=len(low), x=None, error_norms={})
    both, changed = torch.cat([low, exact]), {}
    for sae in saes:
        before, after = (both - sae.reconstruct(both).x_hat).norm(dim=1).chunk(2)
        changed[sae.ref.sae_id] = float(((before - after).abs() / after.clamp_min(1e-12)).median())
    return Effect(why=why, n_tokens=len(low), x=float((low - exact).norm() / exact.norm()), error_norms=changed)


@contextmanager
def raised(parts: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Parameters are float32 while the module that owns them computes, and what they were afterwards."""
    handles: list[Any] = []
    kept: dict[torch.nn.Module, list[tuple[Tensor, Tensor]]] = {}

    def before(module: torch.nn.Module, args: tuple[Any, ...]) -> Any:
        own = [each for each in module.parameters() if each.is_floating_point()]
        kept[module] = [(each, each.data) for each in own]
        if args and isinstance(args[0], Tensor) and not args[0].is_floating_point():
            # An embedding: only the rows that are asked for, as the whole may be a tenth of a model.
            rows, places = args[0].unique(return_inverse=True)
            for each in own:
                each.data = each.data[rows].float()
            for inside in module.modules():  # Gemma's factor, which was rounded to bfloat16 with the rest
                scale, buffer = getattr(inside, "scalar_embed_scale", None), getattr(inside, "embed_scale", None)
                if scale is not None and isinstance(buffer, Tensor):
                    kept[module].append((buffer, buffer.data))
                    buffer.data = torch.tensor(scale, device=rows.device)
            return (places, *args[1:])
        for each in own:
            each.data = each.data.float()
        return None

    def after(module: torch.nn.Module, _args: Any, _value: Any) -> None:
        for each, was in reversed(kept.pop(module, [])):  # what was raised twice was first what it is to be again
            each.data = was

    try:
        for module in parts:
            handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after, always_call=True)]
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module in list(kept):
            after(module, None, None)
