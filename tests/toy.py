"""Tiny random models and SAEs in the real file layouts, for tests and for trying things without waiting.

They are written to a folder and loaded through the same doors as everything else, so a test that uses them tests those
doors too. Their text is noise; their arithmetic is the real thing: Gemma 2 with norms after the sublayers, soft caps
and alternating sliding windows, Llama with grouped-query attention, a byte-level tokenizer that can spell any string.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors.torch import save_file

from inspector.options import width_label
from inspector.spec import Site, hook_name_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from inspector.sources.model import LanguageModel
    from inspector.spec import TargetSpec

ToyKind = Literal["gemma2", "llama"]
PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2
HEADS, HEAD_DIM = 4, 6
"""Chosen so that hook_z (24 wide) and d_model (16) differ: a mix-up is then a shape error and not a wrong number."""
_MERGES_FROM = "the model reads a token, and the error of the token is split into a linear and a nonlinear part. " * 4


def write_toy_model(
    directory: Path,
    kind: ToyKind = "gemma2",
    *,
    seed: int = 0,
    n_layers: int = 3,
    d_model: int = 16,
    context: int = 64,
    vocab_size: int = 300,
) -> Path:
    """Write a random model with its tokenizer in the Hugging Face layout.

    Args:
        directory: is created; gets config.json, model.safetensors, tokenizer.json and tokenizer_config.json.
        kind: the architecture. Gemma 2 alternates full and sliding attention, with a window of half the context.
        context: the longest text in tokens.
        vocab_size: at least 259, for three special tokens and 256 bytes.

    Returns:
        The directory.
    """
    torch.manual_seed(seed)
    model = _new_model(kind, n_layers=n_layers, d_model=d_model, context=context, vocab_size=vocab_size)
    model.save_pretrained(directory)
    save_tokenizer(toy_tokenizer(vocab_size), directory, context)
    return directory


def toy_tokenizer(vocab_size: int = 300) -> Tokenizer:
    """A byte-level BPE of exactly `vocab_size` tokens that puts `<bos>` in front of every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_MERGES_FROM], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, BOS_ID)]
    )
    return tokenizer


def write_toy_sae(
    directory: Path,
    *,
    d_in: int,
    d_sae: int,
    k: int | None = None,
    threshold: float | None = None,
    hook_name: str,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a random SAE in the sae-lens layout: TopK if `k` is given, else JumpReLU.

    Decoder rows have one direction each, encoder columns the same directions; the decoder's scale is the one that
    reconstructs unit Gaussians best, so the SAE is poor but better than nothing.

    Args:
        directory: is created; gets cfg.json and sae_weights.safetensors.
        k: latents per token.
        threshold: of every JumpReLU latent; 1 if neither is given.
        config: further entries of cfg.json, to write what should be refused.
    """
    generator = torch.Generator().manual_seed(seed)
    w_dec = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator), dim=-1)
    w_enc = w_dec.T.contiguous()
    threshold = 1.0 if threshold is None else threshold
    x = torch.randn(512, d_in, generator=generator)
    z = torch.relu(x @ w_enc)
    keep = z >= z.topk(min(k, d_sae), dim=-1).values[:, -1:] if k is not None else z > threshold
    x_hat = (z * keep) @ w_dec
    w_dec = w_dec * ((x * x_hat).sum() / (x_hat * x_hat).sum().clamp(min=1e-6))
    weights = {
        "W_enc": w_enc,
        "W_dec": w_dec.contiguous(),
        "b_enc": torch.zeros(d_sae),
        "b_dec": 0.1 * torch.randn(d_in, generator=generator),
    }
    if k is None:
        weights["threshold"] = torch.full((d_sae,), threshold)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(weights, directory / "sae_weights.safetensors")
    cfg = {
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": k is not None,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if hook_name.endswith("hook_z") else "none",
        "metadata": {"sae_lens_version": "6.54.12", "model_name": "toy", "hook_name": hook_name},
        "architecture": "topk" if k is not None else "jumprelu",
        **({"k": k} if k is not None else {}),
        **config,
    }
    (directory / "cfg.json").write_text(json.dumps(cfg))
    return directory


def write_toy_suite(
    directory: Path,
    *,
    d_in: int = 16,
    layers: Sequence[int] = (1,),
    site: Site = "resid",
    widths: Sequence[int] = (32, 64),
    l0s: Sequence[int] = (2, 4),
    seed: int = 0,
) -> Path:
    """Write one TopK SAE per layer, width and L0 as `dm-inspect train` lays a suite out.

    `d_in` is the toy models' d_model by default; for site 'attn' give `HEADS * HEAD_DIM`.
    """
    for layer in layers:
        for width in widths:
            for l0 in l0s:
                write_toy_sae(
                    directory / f"layer_{layer}" / site / f"width_{width_label(width)}" / f"l0_{l0}",
                    d_in=d_in,
                    d_sae=width,
                    k=l0,
                    hook_name=hook_name_of(site, layer),
                    seed=seed,
                )
                seed += 1
    return directory


def fit_toy_suite(suite: Path, model: Path, text: str | None = None) -> Path:
    """Make every SAE below a folder a healthy one of that model on a text, as a load gate wants it; returns the folder.

    Its bias becomes the mean activation, and its decoder gets the scale that leaves the least error.
    """
    from safetensors.torch import load_file

    from inspector.sources.loading import load_model
    from inspector.sources.sae_loading import load_sae
    from inspector.sources.suites import list_suite
    from inspector.spec import TargetSpec

    loaded = load_model(TargetSpec(model=str(model), device="cpu"))
    ids = loaded.encode(text or Path(__file__).read_text(encoding="utf-8"))
    length = min(loaded.n_ctx, 64)
    n = min(30, len(ids) // length)
    tokens = torch.tensor(ids[: n * length], dtype=torch.int64).view(n, length)
    tokens[:, 0] = BOS_ID
    for ref in list_suite(suite):
        x = loaded.activations(tokens, ref.hook_name)[:, length // 8 :].flatten(0, 1)
        path = Path(ref.path or "") / "sae_weights.safetensors"
        weights = load_file(path)
        mean = x.mean(dim=0)
        weights["b_dec"] = mean
        if "threshold" in weights:  # reads x itself, and not x less its bias
            weights["b_enc"] = -mean @ weights["W_enc"]
        save_file(weights, path)
        parts = load_sae(ref, loaded.device, ref.d_in).reconstruct(x).x_hat - mean
        scale = ((x - mean) * parts).sum() / parts.square().sum().clamp(min=1e-6)
        weights["W_dec"] = scale * weights["W_dec"]
        save_file(weights, path)
    return suite


def remember_passes(model: LanguageModel) -> None:
    """Have each context go through the model once, for tests of what is done with its activations again and again."""
    seen: dict[tuple[bytes, str], torch.Tensor] = {}
    honest = model.values

    def values(tokens: torch.Tensor, hook_names: Sequence[str]) -> dict[str, torch.Tensor]:
        rows = [row.numpy().tobytes() for row in tokens]
        for i, row in enumerate(rows):
            if new := [name for name in hook_names if (row, name) not in seen]:
                seen.update({(row, name): value for name, value in honest(tokens[i : i + 1], new).items()})
        return {name: torch.cat([seen[row, name] for row in rows]) for name in hook_names}

    model.values = values  # type: ignore[method-assign]


@contextmanager
def models_loaded_once() -> Iterator[None]:
    """Have every target with the same model share it, and what it gave, for tests of what comes with it."""
    from inspector.sources import loading

    known: dict[tuple[str, str, str], LanguageModel] = {}
    honest = loading.load_model

    def load(target: TargetSpec) -> LanguageModel:
        key = str(target.model), target.dtype, target.device
        if key not in known:
            known[key] = honest(target)
            remember_passes(known[key])
        return known[key]

    loading.load_model = load
    try:
        yield
    finally:
        loading.load_model = honest


def _new_model(kind: ToyKind, *, n_layers: int, d_model: int, context: int, vocab_size: int) -> Any:
    """The untrained model, `transformers`' own class; weights from torch's global generator."""
    from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

    common: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": d_model,
        "intermediate_size": 2 * d_model,
        "num_hidden_layers": n_layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS // 2,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": context,
        "pad_token_id": PAD_ID,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        # Ten times the usual spread: at 0.02 a small model is nearly the identity, and a skipped block would go unseen.
        "initializer_range": 0.2,
        "attn_implementation": "eager",
    }
    if kind == "gemma2":
        return Gemma2ForCausalLM(
            Gemma2Config(query_pre_attn_scalar=HEAD_DIM, sliding_window=max(1, context // 2), **common)
        )
    return LlamaForCausalLM(LlamaConfig(**common))


def save_tokenizer(tokenizer: Tokenizer, directory: Path, context: int) -> None:
    """Write it in the Hugging Face layout."""
    from transformers import PreTrainedTokenizerFast

    fast: Any = PreTrainedTokenizerFast  # untyped in transformers
    fast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(directory)
