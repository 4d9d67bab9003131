"""The sizes a memory plan is made from: what files say of themselves, and what a device has free.

Headers only, no weight is read; and nothing in them is trusted: a size is a positive whole number below a bound, or it
is not known.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inspector.errors import ResourceError, TargetError, first_line
from inspector.formats import layout_of
from inspector.formats.weights import MAX_HEADER, tensor_entries
from inspector.sources.contexts import default_context_length
from inspector.sources.memory_plan import MemoryPlan, plan_memory
from inspector.sources.memory_sums import Sizes
from inspector.sources.model_files import ModelFiles
from inspector.spec import SaeRef, TargetSpec

if TYPE_CHECKING:
    import torch

CUDA_RESERVE = 600 << 20
"""Bytes that stay free: kernels, workspaces of cuBLAS and cuSOLVER, and what is lost between blocks."""
_LARGEST = 1 << 40
"""No size of a model or of one of its tensors is larger."""
_OF_TEXT = re.compile(r"(model\.)?language_model\.|lm_head\.")
"""Names of a multimodal checkpoint's weights that its text model has; see `loading`."""
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_MLP = ("intermediate_size", "n_inner", "ffn_dim", "d_ff")
_VOCABULARY = ("vocab_size", "n_vocab")


def sizes_of(
    files: ModelFiles, refs: Iterable[SaeRef], target: TargetSpec, *, dtype_bytes: int, session: bool, on_host: bool
) -> Sizes:
    """What the plan of a target is made from.

    Raises:
        TargetError: a weight file is damaged.
    """
    refs = tuple(refs)
    kept = {ref.sae_id: layout_of(ref.format).kept(Path(ref.path)) for ref in refs if ref.path is not None}
    d_model = files.d_model or 0
    n_ctx = files.n_ctx
    length = target.context_length or default_context_length(n_ctx if n_ctx is not None else 1024)
    return Sizes(
        n_parameters=n_parameters(files),
        dtype_bytes=dtype_bytes,
        d_model=d_model,
        n_heads=_known(files.config, _HEADS),
        d_ff=_known(files.config, _MLP) or 4 * d_model,
        vocab_size=_known(files.config, _VOCABULARY),
        saes=refs,
        d_in=max((ref.d_in for ref in refs), default=d_model),
        n_contexts=target.contexts,
        length=length,
        by_token=target.split == "token",
        session=session,
        on_host=on_host,
        host_free=0 if on_host else host_free(),
        whole=frozenset(sae_id for sae_id, how in kept.items() if how == "whole"),
        at_once=frozenset(sae_id for sae_id, how in kept.items() if how == "at once"),
    )


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What a target needs, and in which dtype its model computes."""

    memory: MemoryPlan
    sizes: Sizes
    dtype: Literal["float32", "bfloat16"]
    why: str = ""
    """Why it is not float32, though nothing was asked for; empty: it is, or it was."""


def planned(
    files: ModelFiles,
    refs: Iterable[SaeRef],
    target: TargetSpec,
    *,
    device: str,
    budget: int,
    session: bool,
    host_memory: int | None = None,
) -> Planned:
    """What will be on the device, or a refusal. Asks no device: it need not be there.

    `--dtype auto` is float32 where that fits, because errors are differences of nearly equal vectors, where half
    precision shows; else bfloat16, which is said, and how much it changes is measured (`precision`).

    Args:
        files: of the model, which may not be here.
        refs: the SAEs, with their sizes.
        target: as asked for.
        device: its name; 'cpu' plans for what lies on the host too.
        budget: bytes of the device.
        session: whether texts will be looked at and kept.
        host_memory: bytes beside the device; None: what is free here.

    Raises:
        ResourceError: nothing fits.
    """
    wide = sizes_of(files, refs, target, dtype_bytes=4, session=session, on_host=device == "cpu")
    if host_memory is not None:
        wide = replace(wide, host_free=host_memory * (device != "cpu"))
    half = replace(wide, dtype_bytes=2)

    def fitted(sizes: Sizes) -> MemoryPlan:
        may_halve = target.dtype == "float32"
        return plan_memory(sizes, budget, device=device, asked=target.max_memory, may_halve=may_halve)

    if target.dtype == "bfloat16":
        return Planned(memory=fitted(half), sizes=half, dtype="bfloat16")
    try:
        return Planned(memory=fitted(wide), sizes=wide, dtype="float32")
    except ResourceError as error:
        if target.dtype == "float32":
            raise
        memory, what = fitted(half), str(error).partition(". ")[0]
    why = f"In float32 it would not fit: {what[0].lower()}{what[1:]}."
    return Planned(memory=memory, sizes=half, dtype="bfloat16", why=why)


def require_plausible(files: ModelFiles) -> None:
    """Refuse a configuration that asks for more than the weight files hold, before a library tries to build it.

    A million layers are built one by one, for hours; numbers that are missing would be random ones.

    Raises:
        TargetError: with both sizes.
    """
    n_tensors = sum(len(_tensors(path)) for path in files.weights)
    n_layers, d_model = files.n_layers or 0, files.d_model or 0
    if n_layers > n_tensors or n_layers < 0:
        raise TargetError(
            f"config.json of {files.name} asks for {n_layers:,} layers, but its weights are {n_tensors:,} tensors in "
            "all. Copy the model again, with the config.json that belongs to it."
        )
    n_numbers = n_parameters(files)
    vocabulary = _known(files.config, _VOCABULARY)
    wanted = d_model * max(1, vocabulary, _known(files.config, _MLP) * n_layers)
    if d_model < 0 or wanted > n_numbers:
        raise TargetError(
            f"config.json of {files.name} asks for {d_model:,} dimensions, {n_layers:,} layers and {vocabulary:,} "
            f"tokens, but its weights are {n_numbers:,} numbers. Copy the model again, with its own config.json."
        )


def stored_dtypes(files: ModelFiles) -> frozenset[str]:
    """Types in which the model's weights are stored, in safetensors' words: F32, BF16, F16, ...

    Raises:
        TargetError: a weight file is damaged.
    """
    return frozenset(str(entry.get("dtype")) for path in files.weights for entry in _tensors(path).values())


def n_parameters(files: ModelFiles) -> int:
    """How many numbers the model's weights are once they are loaded: of a multimodal checkpoint its text model's alone.

    Raises:
        TargetError: a weight file is damaged.
    """
    if files.expected is not None:
        return files.expected
    has_more = isinstance(files.config.get("text_config"), Mapping)
    return sum(
        _numbers(path, name, entry)
        for path in files.weights
        for name, entry in _tensors(path).items()
        if not has_more or _OF_TEXT.match(name)
    )


def _numbers(path: Path, name: str, entry: Mapping[str, Any]) -> int:
    """How many numbers a tensor of a safetensors file stands for."""
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < _LARGEST for size in shape):
        raise TargetError(f"{path} has a tensor of shape {str(shape)[:60]}. Copy the model again.")
    packed = {"_blocks": 2, "_scales": 0} if entry.get("dtype") == "U8" else {}  # MXFP4: two numbers in a byte
    return math.prod(shape) * next((times for end, times in packed.items() if name.endswith(end)), 1)


def _tensors(path: Path) -> dict[str, Mapping[str, Any]]:
    """The entries of a safetensors header by name. `Any`: JSON of a file.

    Raises:
        TargetError: it has none.
    """
    try:
        return tensor_entries(path, MAX_HEADER)[0]
    except (OSError, ValueError, struct.error) as error:
        first = first_line(error, 120)
        raise TargetError(f"{path} is not a whole safetensors file ({first}). Copy the model again.") from error


def _known(config: Mapping[str, Any], keys: Iterable[str]) -> int:
    """The first of these that is a size; 0 if none is."""
    for part in (config, config.get("text_config")):
        if isinstance(part, Mapping):
            for key in keys:
                value = part.get(key)
                if type(value) is int and 0 < value < _LARGEST:
                    return value
    return 0


# ---- devices --------------------------------------------------------------------------------------------------------


def budget_of(device: torch.device, asked: int | None, held: int = 0) -> int:
    """Bytes of the device that may be used: what is free, or less if less was asked for.

    Args:
        device: the device.
        asked: at most.
        held: bytes of a model that is there already and stays; they count as free.

    Raises:
        ResourceError: more was asked for than the device has free.
    """
    free = free_bytes(device) + held
    if asked is None:
        return free
    if asked > free:
        raise ResourceError(
            f"--max-memory allows {asked / 1e9:.1f} GB, but {device} has only {free / 1e9:.1f} GB free. "
            "Close what else uses it, or give a smaller value."
        )
    return asked


def free_bytes(device: torch.device) -> int:
    """What is free on the device now; of the CPU's memory, what a process can get without swapping."""
    import torch

    if device.type == "cuda":
        # What torch holds back from earlier work it gives to what comes next.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return max(0, int(torch.cuda.mem_get_info(device)[0]) + held - CUDA_RESERVE)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return host_free()


def host_free() -> int:
    """What is available of this machine's memory, or of what its control group may use, if that is less."""
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    return max(0, min(available, *_control_groups()))


def _control_groups() -> list[int]:
    """Bytes left to this process by each control group above it; a container's limit is not in /proc/meminfo."""
    root = Path("/sys/fs/cgroup")
    found = [1 << 62]
    with contextlib.suppress(OSError, ValueError, IndexError):
        own = next(
            line.split(":", 2)[2].strip("/")
            for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
            if line.startswith("0::")
        )
        group = root / own
        while group.is_relative_to(root):
            with contextlib.suppress(OSError, ValueError):
                limit = (group / "memory.max").read_text(encoding="ascii").strip()
                if limit != "max":
                    used = int((group / "memory.current").read_text(encoding="ascii"))
                    # File pages that were not used lately are given back before anything fails.
                    statistics = (group / "memory.stat").read_text(encoding="ascii").splitlines()
                    inactive = next(
                        (int(line.split()[1]) for line in statistics if line.startswith("inactive_file")), 0
                    )
                    found.append(int(limit) - used + inactive)
            if group == root:
                break
            group = group.parent
    return found


def refuse_float16_gemma(files: ModelFiles) -> None:
    """Refuse a Gemma whose weights are stored in float16, unless the user chose a dtype and so knows.

    Gemma is published in bfloat16, whose range float16 does not have: activations pass 65,504, weights below 6e-8
    became zero when they were converted. It would load, and compute something else than the SAEs were trained on.

    Raises:
        TargetError: with what to do.
    """
    if not str(files.config.get("model_type", "")).startswith("gemma"):
        return
    said = files.config.get("dtype", files.config.get("torch_dtype"))
    # A model that says float32 was made so and only stored in half the room, as the demo is.
    if said == "float16" or (said != "float32" and "F16" in stored_dtypes(files)):
        raise TargetError(
            f"{files.name} is a Gemma in float16, which ends at 65,504 where Gemma's activations go beyond: its "
            "weights are not those that SAEs were trained on. Give the published bfloat16 ones, or say --dtype float32."
        )
