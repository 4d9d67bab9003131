"""Which language models can be measured, and their names: known from their configuration alone, no library run.

refusal(config)          why a model with this config.json is refused; None if it loads
refusal_of(model)        the same for a model of the registry, from the table of what its authors published
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import util
from pathlib import Path
from typing import Any

from inspector.disk.files import shown
from inspector.errors import TargetError

DEQUANTISED = frozenset({"mxfp4"})
"""Methods of quantisation whose weights transformers turns back into numbers without another package."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What config.json of a published model says that matters here."""

    architecture: str
    has_text_config: bool = False
    """It also sees or hears, and its text model is one part of it."""
    quantised: str | None = None

    def config(self) -> dict[str, Any]:
        """The keys in question."""
        parts: dict[str, Any] = {"architectures": [self.architecture]}
        parts |= {"text_config": {}} if self.has_text_config else {}
        return parts | ({"quantization_config": {"quant_method": self.quantised}} if self.quantised else {})


PUBLISHED = {
    r"openai-community/gpt2": Published(architecture="GPT2LMHeadModel"),
    r"EleutherAI/pythia-.+": Published(architecture="GPTNeoXForCausalLM"),
    r"google/gemma-2b(-it)?": Published(architecture="GemmaForCausalLM"),
    r"google/gemma-2-\d+b(-it)?": Published(architecture="Gemma2ForCausalLM"),
    r"google/gemma-3-(270m|1b)(-it|-pt)?": Published(architecture="Gemma3ForCausalLM"),
    r"google/gemma-3-(4|12|27)b(-it|-pt)": Published(
        architecture="Gemma3ForConditionalGeneration", has_text_config=True
    ),
    r"mistralai/Mistral-7B-v0\.1": Published(architecture="MistralForCausalLM"),
    r"(meta-llama/(Meta-)?Llama-3|deepseek-ai/DeepSeek-R1-Distill-Llama-8B).*": Published(
        architecture="LlamaForCausalLM"
    ),
    r"Qwen/Qwen2\.5-7B-Instruct": Published(architecture="Qwen2ForCausalLM"),
    r"Qwen/Qwen3-[\d.]+B(-Base)?": Published(architecture="Qwen3ForCausalLM"),
    r"Qwen/Qwen3-\d+B-A3B(-Base)?": Published(architecture="Qwen3MoeForCausalLM"),
    r"Qwen/Qwen3\.5-\d+B(-Base)?": Published(architecture="Qwen3_5ForConditionalGeneration", has_text_config=True),
    r"Qwen/Qwen3\.5-\d+B-A3B(-Base)?": Published(
        architecture="Qwen3_5MoeForConditionalGeneration", has_text_config=True
    ),
    r"openai/gpt-oss-20b": Published(architecture="GptOssForCausalLM", quantised="mxfp4"),
}
"""The models that SAEs of the registry were trained on, by their Hugging Face ids."""


def published(model: str) -> Published | None:
    """What is known of a model of the registry, by its id or the registry's name for it; None if nothing is."""
    named = hub_id(model)
    return next((found for pattern, found in PUBLISHED.items() if re.fullmatch(pattern, named)), None)


def refusal_of(model: str) -> str | None:
    """Why a model of the registry cannot be loaded as it is published; None if it can.

    Says that nothing is known where nothing is: what was not tried does not count as loading.
    """
    found = published(model)
    return "its architecture is not known here" if found is None else refusal(found.config())


def refusal(config: Mapping[str, Any]) -> str | None:
    """Why a model with this config.json cannot be measured, as the end of a sentence; None if nothing says so."""
    quantised = config.get("quantization_config")
    if isinstance(quantised, Mapping) and (method := quantised.get("quant_method")) not in DEQUANTISED:
        return f"its weights are quantised ({shown(method or 'by an unnamed method')}), which is not read here"
    architectures = [each for each in config.get("architectures") or () if isinstance(each, str)]
    known = supported_architectures()
    if not architectures or not known:
        return None  # an old configuration, or another transformer-lens: then loading says it
    named = shown(architectures[0])
    text = config.get("text_config")
    if config.get("is_encoder_decoder") or not any(_is_text_model(each, text) for each in architectures):
        sees = any(key in config for key in ("vision_config", "audio_config"))
        return f"it is a {named}, " + (
            "whose text model is no part of its own" if sees else "which does not predict the next token of a text"
        )
    if isinstance(text, Mapping) and (kind := text.get("model_type")) is not None:
        inside = text_models().get(str(kind))
        if text_models() and inside is None:
            return f"it is a {named}, whose text model ({shown(kind)}) transformers does not run on its own"
        architectures = [inside] if inside else architectures
    if not any(each in known for each in architectures):
        return f"it is a {shown(architectures[0])}, which transformer-lens does not know"
    return None


def require_known(config: Mapping[str, Any], name: str) -> None:
    """Refuse from config.json alone a model that cannot be measured here, before a weight is fetched or read.

    Raises:
        TargetError: of an architecture that transformer-lens does not know, that generates no text, or whose weights
            are quantised.
    """
    reason = refusal(config)
    if reason is not None:
        other = (
            "the model as it was before, in bfloat16 or float32" if "quantised" in reason else "another causal model"
        )
        raise TargetError(f"{name} cannot be measured: {reason}. Give {other}.")


@cache
def supported_architectures() -> frozenset[str]:
    """The architectures for which transformer-lens has an adapter, read from its source without running any of it.

    Empty if it is written differently from version 3.9.
    """
    source = _source("transformer_lens", "factories/architecture_adapter_factory.py")
    return frozenset(re.findall(r'^    "(\w+)": \w+', source, re.MULTILINE))


@cache
def text_models() -> Mapping[str, str]:
    """Classes of transformers that predict the next token, by model_type; read likewise, and empty likewise."""
    source = _source("transformers", "models/auto/modeling_auto.py")
    table = re.search(r"^MODEL_FOR_CAUSAL_LM_MAPPING_NAMES = (.+?)^\)", source, re.MULTILINE | re.DOTALL)
    return dict(re.findall(r'\("([\w-]+)", "(\w+)"\)', table[1])) if table else {}


def _source(package: str, file: str) -> str:
    """A file of an installed package; empty if there is none."""
    spec = util.find_spec(package)
    for folder in [] if spec is None else list(spec.submodule_search_locations or []):
        path = Path(folder) / file
        if path.is_file():
            return path.read_text(encoding="utf-8")
    return ""


def _is_text_model(architecture: str, text_config: object) -> bool:
    """Whether it predicts the next token, alone or as the text model inside one that also sees or hears."""
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return True
    return architecture.endswith("ForConditionalGeneration") and isinstance(text_config, Mapping)


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
