"""Lays out what is published on the hub, in the hub's own cache layout: a Gemma 2 and SAEs of Gemma Scope for it.

Random weights, exact formats. The SAEs are made healthy on the model's own activations: so many latents fire as their
names say, and the reconstruction explains some of the variance, as a load gate asks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

from tests import toy

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL_REPO, SAE_REPO = "google/gemma-2-2b", "google/gemma-scope-2b-pt-res"


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where everything lies."""

    cache: Path
    """To be given as --cache-dir."""
    model: Path
    """The model's snapshot."""
    saes: Path
    """The SAEs' snapshot."""


def snapshot_folder(cache: Path, repo: str) -> Path:
    """A repository's folder in the cache, whose main branch is at COMMIT."""
    root = cache / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / "main").write_text(COMMIT)
    folder = root / "snapshots" / COMMIT
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def publish(
    cache: Path,
    *,
    d_model: int,
    n_layers: int = 2,
    context: int = 128,
    d_ff: int | None = None,
    head_dim: int | None = None,
) -> Published:
    """A Gemma 2 of few layers under the name of the 2B, and no SAE yet; smaller inside if that is given."""
    model = snapshot_folder(cache, MODEL_REPO)
    torch.manual_seed(3)
    heads = 4
    config = Gemma2Config(
        vocab_size=300,
        hidden_size=d_model,
        intermediate_size=d_ff or 2 * d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=heads,
        num_key_value_heads=2,
        head_dim=head_dim or d_model // heads,
        query_pre_attn_scalar=head_dim or d_model // heads,
        max_position_embeddings=context,
        sliding_window=context // 2,
        pad_token_id=toy.PAD_ID,
        bos_token_id=toy.BOS_ID,
        eos_token_id=toy.EOS_ID,
        initializer_range=0.5 * d_model**-0.5,
        attn_implementation="eager",
    )
    Gemma2ForCausalLM(config).save_pretrained(model)
    toy.save_tokenizer(toy.toy_tokenizer(300), model, context)
    return Published(cache=cache, model=model, saes=snapshot_folder(cache, SAE_REPO))


def text_file(folder: Path) -> Path:
    """Words in seeded order, enough for some hundred contexts."""
    rng = np.random.default_rng(0)
    words = [*["model", "token", "error", "linear", "x_hat", "é"], " the", ";", "(", "—"]
    path = folder / "text.txt"
    path.write_text(" ".join(rng.choice(words, size=60_000)), encoding="utf-8")
    return path


def token_rows(published: Published, n: int, context: int) -> torch.Tensor:
    """[n, context] ids of the beginning of that text, BOS first."""
    tokenizer = Tokenizer.from_file(str(published.model / "tokenizer.json"))
    text = text_file(published.cache).read_text(encoding="utf-8")
    ids = tokenizer.encode(text[: 8 * n * context], add_special_tokens=False).ids
    body = torch.tensor(ids[: n * (context - 1)], dtype=torch.int64).view(n, context - 1)
    return torch.cat([torch.full((n, 1), toy.BOS_ID), body], dim=1)


@torch.inference_mode()
def residual_stream(model: Path, token_ids: torch.Tensor, layer: int) -> np.ndarray:
    """[c, t, d] float64 after a block, from transformers alone."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager").eval()
    taken: list[torch.Tensor] = []

    def keep(_module: object, _inputs: object, output: object) -> None:
        value = output[0] if isinstance(output, tuple) else output
        assert isinstance(value, torch.Tensor)
        taken.append(value)

    handle = loaded.model.layers[layer].register_forward_hook(keep)
    for row in token_ids.split(1):
        loaded(row, use_cache=False)
    handle.remove()
    return torch.cat([value.reshape(1, token_ids.shape[1], -1) for value in taken]).double().numpy()


def publish_gemma_scope_sae(
    published: Published,
    *,
    layer: int,
    d_sae: int,
    l0: int,
    folder: str,
    n_contexts: int,
    context: int = 128,
    n_tokens: int | None = None,
) -> Path:
    """A healthy SAE in `params.npz`, as Gemma Scope has it: float32, thresholds per latent, no b_dec at the input."""
    x = residual_stream(published.model, token_rows(published, n_contexts, context), layer)[:, 16:]
    x = x.reshape(-1, x.shape[-1])
    rng = np.random.default_rng(int(hashlib.sha256(folder.encode()).hexdigest()[:8], 16))
    if n_tokens is not None:
        x = x[np.sort(rng.permutation(len(x))[:n_tokens])]  # in order: the two halves are of different contexts
    directions = rng.standard_normal((d_sae, x.shape[1])).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    mean = x.mean(axis=0).astype(np.float32)
    z = (x.astype(np.float32) - mean) @ directions.T
    # Quantiles of one half, scaled so that on the other half so many fire; not exactly at a value that occurs.
    half = len(z) // 2
    threshold = np.maximum(np.quantile(z[:half], 1 - l0 / d_sae, axis=0), 1e-6)
    low, high = 0.25, 4.0
    for _ in range(12):
        scale = (low * high) ** 0.5
        low, high = (scale, high) if (z[half:] > scale * threshold).sum(axis=1).mean() > l0 else (low, scale)
    threshold = (high * threshold).astype(np.float32)
    codes = np.where(z > threshold, z, 0.0)
    reconstructed = codes @ directions
    scale = np.float32((reconstructed * (x - mean)).sum() / (reconstructed**2).sum())
    path = published.saes / folder / "params.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        W_enc=np.ascontiguousarray(directions.T),
        W_dec=scale * directions,
        b_enc=(-mean @ directions.T).astype(np.float32),
        b_dec=mean,
        threshold=threshold,
    )
    return path


def gemma_scope(path: Path, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x [n, d] to x_hat [n, d] and l0 [n], by the published definition in float64."""
    with np.load(path, allow_pickle=False) as file:
        weights = {name: file[name].astype(np.float64) for name in file.files}
    x_hat, l0 = [], []
    for part in np.array_split(x, max(1, len(x) // 256)):
        z = part @ weights["W_enc"] + weights["b_enc"]
        codes = np.where(z > weights["threshold"], np.maximum(z, 0), 0)
        x_hat.append(codes @ weights["W_dec"] + weights["b_dec"])
        l0.append((codes > 0).sum(axis=1))
    return np.concatenate(x_hat), np.concatenate(l0)


def gemma_scope_error(path: Path, x: np.ndarray, l0: np.ndarray) -> np.ndarray:
    """x - x_hat [n, d] in float32, for so many tokens that float64 would take minutes: only latents that fire are
    decoded.

    A latent within float32's rounding of its threshold may fall on either side: where the program counted another l0
    [n], latents that near are put on its side, and if the counts still differ that is an error.
    """
    from scipy.sparse import csr_matrix

    with np.load(path, allow_pickle=False) as file:
        weights = {name: file[name] for name in file.files}
    errors, done = [], 0
    for part in np.array_split(x, max(1, len(x) // 512)):
        z = part @ weights["W_enc"] + weights["b_enc"]
        passes = z > weights["threshold"]
        wanted = l0[done : done + len(part)]
        done += len(part)
        for row in np.flatnonzero(passes.sum(axis=1) != wanted):
            margin = np.abs(z[row] - weights["threshold"])
            missing = int(wanted[row] - passes[row].sum())
            near = np.argsort(np.where(passes[row] == (missing < 0), margin, np.inf))[: abs(missing)]
            assert (margin[near] < 1e-3).all(), "a count differs where no latent is near its threshold"
            passes[row, near] = missing > 0
        codes = csr_matrix(np.where(passes, np.maximum(z, 0), 0))
        errors.append(part - (codes @ weights["W_dec"] + weights["b_dec"]))
    return np.concatenate(errors)
