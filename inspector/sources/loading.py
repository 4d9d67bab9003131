"""Loads a language model from files, and says in one sentence why it cannot.

The Hugging Face model is loaded here and handed to TransformerBridge, rather than by it, for three refusals that the
bridge does not make: pickled weights, missing weights (they would be random), and code that comes with a model.

TransformerBridge replaces parts of a model by its own, and for some architectures what it computes then is another
function. Activations would look plausible and be of no model that exists. So at the first load of each set of weights
both are run on the same few hundred tokens, and the answer is kept under the hash of the weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inspector.disk.files import read_json, shown, write_if_possible
from inspector.disk.folders import user_folder
from inspector.errors import TargetError, UsageError
from inspector.sources import explained, quiet_libraries
from inspector.sources.dequantising import provided
from inspector.sources.forward import Native
from inspector.sources.model import LanguageModel
from inspector.sources.model_files import FilesState, ModelFiles, require_known, state_of
from inspector.sources.tokenizer import Tokenizer, load_tokenizer
from inspector.spec import TargetSpec


def load_model(target: TargetSpec) -> LanguageModel:
    """The target's model, on its device, in its dtype.

    Raises:
        TargetError: when it is missing, incomplete, of an unknown architecture, or gives numbers that are not finite.
        ResourceError: when it does not fit into memory.
    """
    quiet_libraries(offline=target.offline)
    files = provided(target.model, target.cache_dir)
    require_known(files.config, files.name)
    before = state_of(files.files)
    device = pick_device(target.device)
    too_large = f"{files.name} does not fit into memory. Use --dtype bfloat16, a smaller model, or another --device."
    with explained(too_large, lambda first: _why(files, first)):
        tokenizer = load_tokenizer(files.directory)
        # Before transformer-lens sees it, which makes the end-of-text token the BOS of models that have none.
        text = Tokenizer(tokenizer)
        hf_model, warnings = _load_weights(files, device, pick_dtype(target.dtype))
        quiet_libraries(offline=target.offline)
        question = Question.of(files, hf_model, before)
        expected = None if question.was_answered() else question.logits_of(hf_model)
        native = Native(hf_model)
        bridge = _bridge(files, hf_model, tokenizer, device)
        told = () if files.origin is None else files.origin.notes
        model = LanguageModel(bridge, text, files, (*warnings, *told, *_disagreements(files, text)), native)
        model.files = before
        _check(model)
        if expected is not None:
            question.require_same(expected, model.bridged(question.tokens)[None])
    return model


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA if there is one, else the CPU (Apple's GPU has no float64, which the sums need).

    Raises:
        UsageError: if it is not a device at all.
        TargetError: if this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name} is not a device. Use auto, cpu, cuda, cuda:N or mps.") from error
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= n_cuda:
        raise TargetError(f"--device {name}: this machine has {n_cuda} usable CUDA devices. Use --device cpu or auto.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise TargetError("--device mps: this machine has no Apple GPU that torch can use. Use --device cpu or auto.")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"--device {name} is not supported. Use auto, cpu, cuda, cuda:N or mps.")
    return device


def pick_dtype(name: str) -> torch.dtype:
    """`auto` is float32: errors are differences of nearly equal vectors, where half precision shows.

    Raises:
        UsageError: for any other name; float16 overflows in Gemma.
    """
    known = {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}
    if name not in known:
        raise UsageError(f"--dtype {shown(name)} is not supported. Use auto, float32 or bfloat16.")
    return known[name]


_TEXT_WEIGHTS = {
    r"^model\.language_model\.": "model.",
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
}
"""Where multimodal checkpoints keep the weights of their text model, in the two ways in which they were published."""


def _load_weights(files: ModelFiles, device: torch.device, dtype: torch.dtype) -> tuple[Any, tuple[str, ...]]:
    """The Hugging Face model with every weight from the files; the text model of one that also sees or hears."""
    from transformers import AutoConfig, AutoModelForCausalLM, Mxfp4Config

    whole = AutoConfig.from_pretrained(str(files.directory), local_files_only=True, trust_remote_code=False)
    config = whole.get_text_config(decoder=True)
    has_more = config is not whole
    options: dict[str, Any] = {}
    if has_more:
        options["key_mapping"] = _TEXT_WEIGHTS
        # Whether the embedding is the output as well is said for the whole, and its parts may have another default.
        config.tie_word_embeddings = getattr(whole, "tie_word_embeddings", config.tie_word_embeddings)
    if isinstance(files.config.get("quantization_config"), dict):  # of the one method that `require_known` lets through
        options["quantization_config"] = Mxfp4Config(dequantize=True)
    model, info = AutoModelForCausalLM.from_pretrained(
        str(files.directory),
        config=config,
        dtype=dtype,
        attn_implementation="eager",  # the one implementation that Gemma 2 and every hook accept
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
        **options,
    )
    missing = sorted(info.get("missing_keys") or ())
    if missing:
        raise TargetError(
            f"{files.directory} lacks {len(missing)} weights that config.json asks for, {missing[0]} first. "
            "Copy the model again, with the config.json that belongs to it."
        )
    model.eval().requires_grad_(False).to(device)
    # Both are what transformer-lens looks for; `Question` asks afterwards whether it computes the same with them.
    model.config.architectures = [type(model).__name__]
    _name_delta_rules(model)
    if has_more:
        return model, (f"{files.name} is a multimodal checkpoint ({whole.model_type}); its text model is used alone.",)
    unused = sorted(info.get("unexpected_keys") or ())
    if unused:
        return model, (
            f"{len(unused)} stored weights of {files.name} are not used by its architecture ({unused[0]}, ...).",
        )
    return model, ()


def _disagreements(files: ModelFiles, tokenizer: Tokenizer) -> tuple[str, ...]:
    """Where config.json and the tokenizer name different tokens for the beginning or the end of a text."""
    told = []
    inside = files.config.get("text_config")
    for key, name, ours in (("bos_token_id", "beginning", tokenizer.bos_id), ("eos_token_id", "end", tokenizer.eos_id)):
        said = files.config.get(key)
        if said is None and isinstance(inside, dict):
            said = inside.get(key)
        theirs = [i for i in (said if isinstance(said, list) else [said]) if type(i) is int]
        if ours is not None and theirs and ours not in theirs:
            texts = " or ".join(f"{i} ({_text_of(tokenizer, i)})" for i in theirs[:3])
            used = "the tokenizer's is used" if name == "beginning" else "what is generated ends at either"
            told.append(
                f"config.json of {files.name} says that the {name} of a text is token {texts}, its tokenizer says "
                f"{ours} ({_text_of(tokenizer, ours)}); {used}."
            )
    return tuple(told)


def _text_of(tokenizer: Tokenizer, token_id: int) -> str:
    return shown(tokenizer.token_text(token_id)) if 0 <= token_id < len(tokenizer) else "which is no token"


def _name_delta_rules(model: Any) -> None:
    """Give linear attention (Qwen 3.5) its functions by the names that transformer-lens 3.9 knows.

    transformers keeps them beside the class since 5.20, and no longer in each instance.
    """
    for module in model.modules():
        if type(module).__name__.endswith("GatedDeltaNet") and not hasattr(module, "chunk_gated_delta_rule"):
            beside = sys.modules[type(module).__module__]
            module.causal_conv1d_fn = None  # no kernel of its own: transformer-lens then uses the convolution itself
            module.chunk_gated_delta_rule = beside.torch_chunk_gated_delta_rule


def _bridge(files: ModelFiles, hf_model: Any, tokenizer: Any, device: torch.device) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(
        str(files.directory),
        hf_model=hf_model,
        tokenizer=tokenizer,
        device=device,
        dtype=hf_model.dtype,
        trust_remote_code=False,
    ).eval()


def _check(model: LanguageModel) -> None:
    """Refuse a model whose tokenizer is another's, or that computes NaN.

    Ids that were added to the tokenizer, such as Gemma 3's for images or a padding token, may have no row: they do no
    harm where they are not met, and `check_tokens` says where one is.
    """
    beyond = [i for i in range(model.vocab_size, len(model.tokenizer)) if i not in model.tokenizer.added_ids]
    if beyond:
        raise TargetError(
            f"The tokenizer of {model.name} has {len(model.tokenizer):,} tokens but the model {model.vocab_size:,}. "
            "They do not belong together."
        )
    ids = model.encode("The model is asked for a few words.")[: model.n_ctx]
    logits = model.forward(torch.tensor([ids], dtype=torch.int64)).logits
    if not bool(torch.isfinite(logits).all()):
        raise TargetError(
            f"{model.name} gives logits that are not finite. Its weights are damaged, or --dtype does not suit it."
        )


def _why(files: ModelFiles, first: str) -> str:
    if "same dtype" in first:
        return f"{files.name} does not run in half precision ({first}). Use --dtype float32."
    return (
        f"{files.directory} cannot be loaded as a language model: {first}. "
        "Check that it is a complete model of an architecture that transformer-lens knows."
    )


N_TOKENS = 256
KEPT_EVERY = 4
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Root mean square of the logits' difference over their spread. The registry's architectures agree to 5e-7 in float32
and in every bit in bfloat16: both sides make the same sums, nearly always in the same order. The room is for those that
do not. All roundings of bfloat16 together move the logits of Gemma 3 270M by 0.19, those of float32, 65,536 times
smaller, by some 3e-6. What was wrong so far (Cohere, a GPT-2 without attention scaling) was off by 0.4 and more."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """The tokens on which both are asked, and under what names the answer is kept."""

    tokens: Tensor
    """[1, t] int64."""
    files: ModelFiles
    dtype: torch.dtype
    state: FilesState
    """The files, as they were before anything was read from them."""

    @classmethod
    def of(cls, files: ModelFiles, hf_model: Any, state: FilesState) -> Question:
        """Of a model whose weights are loaded and that transformer-lens has not seen yet."""
        rows = int(hf_model.get_input_embeddings().weight.shape[0])
        length = max(2, min(N_TOKENS, files.n_ctx or N_TOKENS))
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(0, rows, (1, length), generator=generator)
        return cls(tokens=tokens, files=files, dtype=hf_model.dtype, state=state)

    def was_answered(self) -> bool:
        """Whether the two were found to be the same before."""
        if _says_same(self._of_state):
            return True
        if not _says_same(self._of_weights):
            return False
        write_if_possible(self._of_state, json.dumps({"same": True}))
        return True

    @torch.inference_mode()
    def logits_of(self, hf_model: Any) -> Tensor:
        """[1, t/4, v] float32 on the CPU, as the model's own implementation computes them at every fourth token."""
        logits: Tensor = hf_model(self.tokens.to(hf_model.device), use_cache=False).logits
        return self._looked_at(logits)

    def require_same(self, expected: Tensor, found: Tensor) -> None:
        """Keep the answer, or refuse the model.

        Raises:
            TargetError: they differ by more than the sums' order explains; with the size of it.
        """
        found = self._looked_at(found)
        spread = float((expected - expected.mean(dim=-1, keepdim=True)).square().mean().sqrt())
        off = float((found - expected).square().mean().sqrt()) / max(spread, 1e-12)
        tolerance = TOLERANCE.get(self.dtype, TOLERANCE[torch.bfloat16])
        if not off <= tolerance:
            raise TargetError(
                f"transformer-lens does not compute {self.files.name} as its own implementation does: on "
                f"{self.tokens.shape[1]} tokens the logits differ by {off:.2g} of their spread, and rounding explains "
                f"{tolerance:g} at most. "
                "Its activations would be of another model; choose one of another architecture."
            )
        for path in (self._of_weights, self._of_state):
            write_if_possible(path, json.dumps({"same": True, "off": off}))

    def _looked_at(self, logits: Tensor) -> Tensor:
        """Some of [1, t, v], the last token among them: with Gemma's vocabulary those of all are 0.3 GB, twice."""
        return logits[:, (logits.shape[1] - 1) % KEPT_EVERY :: KEPT_EVERY].float().cpu()

    @property
    def _of_state(self) -> Path:
        """By the files as the disk describes them, so that not every byte is read again at every load."""
        return self._path(repr(self.state))

    @property
    def _of_weights(self) -> Path:
        """By what is in the files, wherever they are."""
        return self._path(self.files.digest())

    def _path(self, which: str) -> Path:
        versions = [f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "transformer-lens")]
        about = "\n".join([which, str(self.dtype), *versions, str(self.tokens.shape[1])])
        return user_folder("cache") / "bridge-checks" / f"{hashlib.sha256(about.encode()).hexdigest()}.json"


def _says_same(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return read_json(path)["same"] is True
    return False
