"""A language model before anything heavy is imported: its names, where its files are, and whether it can be measured.

Reads JSON and file names only: neither torch nor the hub client. A wrong name, a missing shard or a layer out of range
is reported in milliseconds instead of after the imports.

    refusal(config)          why a model with this config.json is refused; None if it loads
    refusal_of(model)        the same for a model of the registry, from the table of what its authors published
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import util
from pathlib import Path
from typing import Any

from inspector.disk.files import is_directory, nearest_siblings, open_file, read_json, shown
from inspector.errors import TargetError, nearest
from inspector.sources import gguf_files
from inspector.sources.built_in import BUILT_IN, demo_model, weights_of

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5")
_LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_WIDTH_KEYS = ("hidden_size", "n_embd", "d_model")
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "seq_length")


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """A model's folder in the Hugging Face layout, complete as far as names can tell."""

    name: str
    """As the user gave it."""
    directory: Path
    config: dict[str, Any]
    """config.json, as it stands."""
    weights: tuple[Path, ...]
    """The safetensors files, sorted by name."""
    origin: gguf_files.Origin | None = None
    """The GGUF that they were made from; None: they are as they were published."""
    expected: int | None = None
    """Numbers in weights that are not here, of a model whose sizes are known all the same; see `model_shapes`."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything that numbers follow from."""
        return (self.directory / "config.json", *self.weights, *(() if self.origin is None else (self.origin.path,)))

    @property
    def n_layers(self) -> int | None:
        """Number of layers if the configuration says so under a usual name."""
        return _first_int(self.config, _LAYER_KEYS)

    @property
    def d_model(self) -> int | None:
        """Width of the residual stream if the configuration says so under a usual name."""
        return _first_int(self.config, _WIDTH_KEYS)

    @property
    def n_ctx(self) -> int | None:
        """Longest context in tokens if the configuration says so under a usual name."""
        return _first_int(self.config, _CONTEXT_KEYS)

    def digest(self) -> str:
        """sha256 over config.json and the weights, names and sizes included; of a GGUF over that alone, which says the
        same on every machine. Reads every byte, once: 1-2 s per GB.
        """
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return digest_files(self.files if self.origin is None else [self.origin.path])


def find_model(name: str, cache_dir: str | None = None) -> ModelFiles:
    """The files of a built-in model, of a directory, of a GGUF or of a Hugging Face id that is in the local cache.

    Args:
        name: as typed after --model. Of a GGUF those that `gguf_files.dequantise` has made.
        cache_dir: hub cache to look into; the hub client's own when `None`.

    Raises:
        TargetError: with what is missing and what to do.
    """
    gguf = weights_of(name)
    if gguf is None:
        directory, origin = _locate(name, cache_dir), None
    else:
        directory = gguf_files.folder_of(gguf)
        origin = gguf_files.origin_of(directory)
        if origin is None:
            raise TargetError(f"{gguf} was not dequantised yet. Open it once with --model {shown(name)}.")
    config = read_config(name, directory)
    return ModelFiles(name=name, directory=directory, config=config, weights=_weights(directory), origin=origin)


def digest_files(paths: Iterable[Path]) -> str:
    """sha256 over names, sizes and contents of the files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with open_file(path) as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


FilesState = tuple[tuple[str, tuple[int, int, int, int] | None], ...]
"""Path, and device, inode, size and time of change of what is there; None if nothing is.

A result names the weights it was measured with by their hash, and large weights are read from their files while they
are used. If they are written over meanwhile, the numbers belong to neither version."""


def state_of(paths: Iterable[Path]) -> FilesState:
    """What the files are now."""
    return tuple((str(path), _state(path)) for path in paths)


def require_same(before: FilesState) -> None:
    """Raise if a file is not the one it was.

    Raises:
        TargetError: with its name.
    """
    for name, state in before:
        if _state(Path(name)) != state:
            raise TargetError(
                f"{name} changed while it was in use, so numbers from it belong to neither version. "
                "Nothing was kept; start again."
            )


def _state(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def hub_cache(cache_dir: str | None = None) -> Path:
    """The hub client's cache folder, by its own rules, without importing it."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    if explicit := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(explicit).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(home).expanduser() / "hub"


def _locate(name: str, cache_dir: str | None) -> Path:
    if name in BUILT_IN:
        directory = demo_model()
        if not (directory / "config.json").is_file():
            raise TargetError(
                f"The demo's weights are not at {directory}. Reinstall dm-inspect, or name a model with --model DIR."
            )
        return directory
    if not name.strip():
        raise TargetError(f"--model is empty. Give a directory, a GGUF, a Hugging Face id, or {' or '.join(BUILT_IN)}.")
    path = Path(name).expanduser()
    if is_directory(path):
        return path
    if os.path.exists(path):
        raise TargetError(
            f"--model {shown(name)} is a file. Give the directory that holds config.json and the weights, or a .gguf."
        )
    if name.startswith((".", "~", os.sep)) or name.count("/") > 1:
        raise TargetError(f"There is no model directory {shown(name)}.{nearest_siblings(path)}")
    return _from_cache(name, hub_cache(cache_dir))


def snapshot_of(repo: str, cache: Path) -> Path | None:
    """The folder of a repository's newest commit in the cache; None if it is not there."""
    root = cache / f"models--{repo.replace('/', '--')}"
    if ".." in repo or repo.count("/") > 1 or not is_directory(root) or not (root / "refs" / "main").is_file():
        return None
    commit = (root / "refs" / "main").read_text(encoding="utf-8", errors="replace").strip()
    # Whatever else is written there leads out of the repository's folder.
    return root / "snapshots" / commit if re.fullmatch(r"[\w-]+", commit) else None


def _from_cache(name: str, cache: Path) -> Path:
    snapshot = snapshot_of(name, cache)
    if snapshot is not None and is_directory(snapshot):
        return snapshot
    cached = [path.name.removeprefix("models--").replace("--", "/", 1) for path in cache.glob("models--*")]
    raise TargetError(
        f"Model {shown(name)} is neither a directory nor in the Hugging Face cache {cache}. "
        "Give a directory, or fetch it first with `hf download ORGANISATION/NAME`."
        f"{nearest(name, [*BUILT_IN, *cached])}"
    )


def read_config(name: str, directory: Path) -> dict[str, Any]:
    """What config.json of a model's folder holds.

    Raises:
        TargetError: it is not there, or describes no transformers model.
    """
    path = directory / "config.json"
    if not path.is_file():
        if (directory / "cfg.json").is_file():
            raise TargetError(f"{directory} is an SAE, not a model. Use --sae for it, and --model for its model.")
        inside = ", ".join(sorted(child.name for child in directory.iterdir())[:5]) or "nothing"
        raise TargetError(
            f"{directory} is not a model directory: it has no config.json (it holds {inside}). "
            "Give the folder of a Hugging Face model with config.json, safetensors and a tokenizer."
        )
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        raise TargetError(f"{path} cannot be read as JSON ({error}). Copy the model again.") from error
    if not isinstance(config, dict) or "model_type" not in config:
        hint = " It looks like an SAE: use --sae for it." if isinstance(config, dict) and "d_sae" in config else ""
        raise TargetError(f"{path} does not describe a transformers model: it has no model_type.{hint}")
    return config


def _weights(directory: Path) -> tuple[Path, ...]:
    """The safetensors files; a clear refusal of pickled ones, which can run code as they load."""
    if (directory / _SINGLE).is_file():
        return (directory / _SINGLE,)
    index = directory / _INDEX
    if not index.is_file():
        pickled = sorted(path.name for pattern in _PICKLED for path in directory.glob(pattern))
        if pickled:
            raise TargetError(
                f"{directory} has its weights in {pickled[0]}, which is not loaded because such a file can run code. "
                "Convert it with transformers: save_pretrained(DIR) writes safetensors."
            )
        raise TargetError(f"{directory} has a config.json but no model.safetensors. Copy the weights there as well.")
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
        if strangers := [name for name in names if Path(name).name != name]:
            raise ValueError(f"{strangers[0][:80]!r} is not a file beside it")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise TargetError(f"{index} is not a list of weight files ({error}). Copy the model again.") from error
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
        raise TargetError(
            f"{directory} lacks {len(missing)} of {len(names)} weight files, {missing[0]} first. Finish the download."
        )
    return tuple(directory / name for name in names)


def _first_int(config: dict[str, Any], keys: Iterable[str]) -> int | None:
    for part in (config, config.get("text_config")):
        if isinstance(part, dict):
            for key in keys:
                if isinstance(part.get(key), int):
                    return int(part[key])
    return None


DEQUANTISED = frozenset({"mxfp4"})
"""Methods of quantisation whose weights transformers turns back into numbers without another package."""


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
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
    r"openai-community/gpt2": PublishedModel(architecture="GPT2LMHeadModel"),
    r"EleutherAI/pythia-.+": PublishedModel(architecture="GPTNeoXForCausalLM"),
    r"google/gemma-2b(-it)?": PublishedModel(architecture="GemmaForCausalLM"),
    r"google/gemma-2-\d+b(-it)?": PublishedModel(architecture="Gemma2ForCausalLM"),
    r"google/gemma-3-(270m|1b)(-it|-pt)?": PublishedModel(architecture="Gemma3ForCausalLM"),
    r"google/gemma-3-(4|12|27)b(-it|-pt)": PublishedModel(
        architecture="Gemma3ForConditionalGeneration", has_text_config=True
    ),
    r"mistralai/Mistral-7B-v0\.1": PublishedModel(architecture="MistralForCausalLM"),
    r"(meta-llama/(Meta-)?Llama-3|deepseek-ai/DeepSeek-R1-Distill-Llama-8B).*": PublishedModel(
        architecture="LlamaForCausalLM"
    ),
    r"Qwen/Qwen2\.5-7B-Instruct": PublishedModel(architecture="Qwen2ForCausalLM"),
    r"Qwen/Qwen3-[\d.]+B(-Base)?": PublishedModel(architecture="Qwen3ForCausalLM"),
    r"Qwen/Qwen3-\d+B-A3B(-Base)?": PublishedModel(architecture="Qwen3MoeForCausalLM"),
    r"Qwen/Qwen3\.5-\d+B(-Base)?": PublishedModel(architecture="Qwen3_5ForConditionalGeneration", has_text_config=True),
    r"Qwen/Qwen3\.5-\d+B-A3B(-Base)?": PublishedModel(
        architecture="Qwen3_5MoeForConditionalGeneration", has_text_config=True
    ),
    r"openai/gpt-oss-20b": PublishedModel(architecture="GptOssForCausalLM", quantised="mxfp4"),
}
"""The models that SAEs of the registry were trained on, by their Hugging Face ids."""


def published(model: str) -> PublishedModel | None:
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
