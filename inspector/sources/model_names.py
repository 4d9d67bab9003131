"""Short names of models and the Hugging Face ids they stand for. No imports of any library that knows models."""

from __future__ import annotations

from collections.abc import Iterable

IDS = {
    "gemma-2b": "google/gemma-2b",
    "gemma-2b-it": "google/gemma-2b-it",
    "gemma-2-2b": "google/gemma-2-2b",
    "gemma-2-2b-it": "google/gemma-2-2b-it",
    "gemma-2-9b": "google/gemma-2-9b",
    "gemma-2-9b-it": "google/gemma-2-9b-it",
    "gemma-2-27b": "google/gemma-2-27b",
    "gpt2": "openai-community/gpt2",
    "gpt2-small": "openai-community/gpt2",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "pythia-70m-deduped": "EleutherAI/pythia-70m-deduped",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "qwen3-1.7b": "Qwen/Qwen3-1.7B",
    "qwen3-4b": "Qwen/Qwen3-4B",
    "qwen3-8b": "Qwen/Qwen3-8B",
    "qwen3-14b": "Qwen/Qwen3-14B",
}
"""Names under which the registry speaks of models and that are no ids themselves."""

_GEMMA_3 = {"270m": (640, 1024), "1b": (1152, 1024), "4b": (2560, 2048), "12b": (3840, 4096), "27b": (5376, 4096)}
WIDTHS = {
    "google/gemma-2-2b": (2304, 2048),
    "google/gemma-2-2b-it": (2304, 2048),
    "google/gemma-2-9b": (3584, 4096),
    "google/gemma-2-9b-it": (3584, 4096),
    "google/gemma-2-27b": (4608, 4096),
    "meta-llama/Llama-3.1-8B": (4096, 4096),
    **{f"google/gemma-3-{size}{end}": widths for size, widths in _GEMMA_3.items() for end in ("", "-it", "-pt")},
}
"""d_model, and the width of hook_z, of models whose SAEs' sizes are to be known before anything was fetched."""


def hub_id(name: str) -> str:
    """The id that a registry's name of a model stands for; ids stand for themselves."""
    return IDS.get(name, name)


def aliases(ids: Iterable[str]) -> dict[str, str]:
    """Everything a user may type for these ids, in lower case: the id, its last part, and the short names."""
    known: dict[str, str] = {}
    for model in ids:
        known[model.lower()] = model
        known.setdefault(model.rsplit("/", 1)[-1].lower(), model)
    known.update({name: model for name, model in IDS.items() if model in set(known.values())})
    return known
