"""What is on the device when most is: sums of bytes of a target's sizes and of a way to evaluate it.

The formulas follow the code that allocates, named beside each; `tests/sources/test_memory_measured.py` holds them
against measured peaks. No torch: nothing here allocates or asks a device.
"""

from __future__ import annotations

from dataclasses import dataclass

from inspector.formats import layout_of
from inspector.spec import RunSpec, SaeRef

CONTEXTS_AT_ONCE = RunSpec.batch_size
CHUNK_TOKENS = (256, 64, 16)
"""Through an SAE at once, at most: as usual, and what is tried where that does not fit."""
CHUNK_BYTES = 1 << 30
"""Dense temporaries of one chunk: encode makes up to four of tokens x d_sae x 4 bytes. A million latents: 64 tokens."""
GATE_TOKENS = 4000
"""Non-special tokens that the load gate looks at, if the text has so many."""
GATE_HOOKS = 7
"""As `gate.py`: four parts of the residual identity, the hook, and two beside it."""
KEPT_TEXTS = 512 << 20
EVALUATED = 256 << 20
"""Bounds of what a session keeps: `documents.KEPT_BYTES`, `fitting.EVALUATION_BYTES`."""
KEPT_FOR_SECOND = 256 << 20
"""`passes.CACHE_BYTES`."""
LOGIT_ROWS, KEPT_LOGITS = 256, 256 << 20
"""`forward.ROWS`, `forward.KEPT_BYTES`."""
PART_TOKENS = 256
"""`fitting.PART_TOKENS`."""
ALIGNED = 64
"""Latents of a slice are a multiple: products of such shapes round as those of the whole matrix do."""
CODES_BYTES = 256 << 20
"""Of active latents of all tokens that go through a sliced SAE together; where it is not enough, fewer tokens do."""
CODE_BYTES = 56
"""Of an active latent at once: token, latent and activation, the same sorted, and the order."""
USUAL_L0 = 100.0
"""Active latents per token where nothing says how many."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Everything that decides how much memory is needed. Unknown sizes of the model are 0."""

    n_parameters: int
    """Numbers in the model's files."""
    dtype_bytes: int
    """Per number of the model as it computes: 4 or 2."""
    d_model: int
    n_heads: int
    d_ff: int
    vocab_size: int
    saes: tuple[SaeRef, ...]
    """With their sizes."""
    d_in: int
    """Width of the hook's value."""
    n_contexts: int
    length: int
    """Tokens per context."""
    by_token: bool = False
    """Whether single tokens are held out: then activations are kept between the passes."""
    session: bool = False
    """Whether texts are kept to be looked at."""
    on_host: bool = False
    """Whether the device is the CPU: then what is summed up there counts too."""
    host_free: int = 0
    """Bytes of the host's memory, beside a GPU."""
    whole: frozenset[str] = frozenset()
    """SAEs that make nothing of a slice: matching pursuit picks among all latents."""
    at_once: frozenset[str] = frozenset()
    """SAEs whose files can only be read from beginning to end: slices of them come from the host's memory."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to evaluate a target."""

    contexts: int = CONTEXTS_AT_ONCE
    chunk: int = CHUNK_TOKENS[0]
    sliced: frozenset[str] = frozenset()
    slice_bytes: int = 0


def sae_bytes(ref: SaeRef) -> int:
    """An SAE's weights in float32, biases and thresholds included."""
    return 4 * (2 * ref.d_in * ref.d_sae + 3 * ref.d_sae + ref.d_in)


def latents_per_slice(d_in: int, n_bytes: int) -> int:
    """Latents whose encoder in float32 has so many bytes."""
    n = max(1, n_bytes // (4 * d_in))
    return n if n < ALIGNED else n // ALIGNED * ALIGNED


def needed_bytes(sizes: Sizes, way: Way) -> int:
    """At the peak."""
    return sum(n_bytes for _, n_bytes in rows_of(sizes, way))


def rows_of(sizes: Sizes, way: Way) -> tuple[tuple[str, int], ...]:
    """What is there when most is: weights, what is kept beside them, and the largest of what comes and goes."""
    weights = _weights(sizes, way)
    while_loading = _largest(weights, _goes_while_loading(sizes, way))
    at_work = _largest(weights | _kept(sizes, way), _goes_at_work(sizes, way))
    fullest = max((while_loading, at_work), key=lambda rows: sum(rows.values()))
    return tuple((name, n_bytes) for name, n_bytes in fullest.items() if n_bytes)


def _largest(stays: dict[str, int], goes: dict[str, int]) -> dict[str, int]:
    name = max(goes, key=lambda name: goes[name])
    return stays | {name: goes[name]}


def _weights(sizes: Sizes, way: Way) -> dict[str, int]:
    resident = [ref for ref in sizes.saes if ref.sae_id not in way.sliced]
    sliced = [ref for ref in sizes.saes if ref.sae_id in way.sliced]
    count = f"{len(resident)} of {len(sizes.saes)}" if sliced else str(len(sizes.saes))
    return {
        "model weights": sizes.n_parameters * sizes.dtype_bytes,
        f"SAE weights ({count})": sum(map(sae_bytes, resident)),
        # `slices.Slices`: one that is computed with and the next; and biases and thresholds, which stay.
        "slices of SAEs": 2 * way.slice_bytes + sum(12 * ref.d_sae for ref in sliced),
    }


def _kept(sizes: Sizes, way: Way) -> dict[str, int]:
    """What stays once work has begun."""
    d, n_saes = sizes.d_in, len(sizes.saes)
    square = 8 * d * d
    stays = {
        # X'X, X'Y of every SAE, and their maps. A headless run may want each error's whole covariance; a session makes
        # new maps while the old ones are in use.
        "moments and maps": square * (2 + 3 * n_saes),
    }
    tokens = sizes.n_contexts * sizes.length
    if sizes.session:
        per_text = 4 * sizes.length * d
        evaluated = min(16, sizes.n_contexts) * per_text
        made = n_saes * evaluated
        remembered = n_saes if per_text * n_saes <= 32 << 20 else len(way.sliced)
        kept = sizes.n_contexts * per_text * (1 + remembered)
        stays["texts looked at"] = min(KEPT_TEXTS, kept) + evaluated + (made if made <= EVALUATED else 0)
    elif sizes.by_token:
        stays["activations kept"] = min(KEPT_FOR_SECOND, 4 * tokens * d)
    if sizes.on_host:
        stays["sums per context"] = 8 * min(sizes.n_contexts, 512) * d * (2 + 4 * n_saes)
    return stays


def _goes_while_loading(sizes: Sizes, way: Way) -> dict[str, int]:
    d, length = sizes.d_in, sizes.length
    gate = length * -(-GATE_TOKENS // max(1, length * 7 // 8))
    gate = min(gate, sizes.n_contexts * length)
    # gate.py: rows of every hook and the same joined; then the parts of the identity in float64.
    hooks = 4 * GATE_HOOKS * gate * sizes.d_model
    measured = 8 * gate * d + max(32 * gate * d, _scratch_of_all(sizes, way))
    return {
        "load gate": max(2 * hooks, hooks + 48 * gate * sizes.d_model, hooks + measured),
        "reading an SAE": max((_loading(ref) for ref in sizes.saes if ref.sae_id not in way.sliced), default=0)
        if sizes.on_host
        else 0,
    }


def _goes_at_work(sizes: Sizes, way: Way) -> dict[str, int]:
    d, length = sizes.d_in, sizes.length
    square = 8 * d * d
    scratch = _scratch_of_all(sizes, way)
    n = way.contexts * length
    part = PART_TOKENS if sizes.session and not way.sliced else n
    # A session whose SAEs come in slices keeps what all of them make of a whole context.
    made = 4 * n * d * len(sizes.saes) if sizes.session and way.sliced else 0
    return {
        "forward pass and logits": _forward(sizes),
        # Float32 and float64 copies of x, x_hat and the errors of one SAE: 64 bytes per number in second_pass.py, the
        # larger of the two; or the chunk's dense latents while x_hat is made.
        "batch and SAE scratch": 4 * n * d * sizes.session
        + made
        + max(64 * part * d, 24 * part * d + scratch)
        + 4 * square,
        # eigh: the standardised scatter, its vectors, LAPACK's two squares of work, and the root.
        "factorisation": 6 * square,
    }


def _scratch_of_all(sizes: Sizes, way: Way) -> int:
    """They take their chunks one after the other."""
    return max((scratch_of(ref, way, sizes.length) for ref in sizes.saes), default=0)


def chunk_tokens(d_sae: int, most: int = CHUNK_TOKENS[0]) -> int:
    """Tokens per chunk: as many as usual, fewer only where the temporaries would pass CHUNK_BYTES.

    A function of the width alone, so that numbers do not depend on what else is computed.
    """
    return max(1, min(most, CHUNK_BYTES // (16 * max(1, d_sae))))


def scratch_of(ref: SaeRef, way: Way, length: int) -> int:
    """Bytes that `reconstruct` needs beside weights, x and x_hat, at most."""
    width, codes = ref.d_sae, 0
    if ref.sae_id in way.sliced:
        width = min(width, latents_per_slice(ref.d_in, way.slice_bytes))
        codes = min(CODES_BYTES, int(CODE_BYTES * way.contexts * length * (ref.nominal_l0 or USUAL_L0)))
    return codes + chunk_tokens(ref.d_sae, way.chunk) * (16 * width + 12 * ref.d_in)


def _loading(ref: SaeRef) -> int:
    """Beside the weights themselves, while they are read and converted."""
    return sae_bytes(ref) * layout_of(ref.format).loading_halves // 2


def _forward(sizes: Sizes) -> int:
    """One context through the model; the largest layer at a time."""
    t, float_bytes = sizes.length, sizes.dtype_bytes
    # Scores, softmax in float32 and its copy, of eager attention; projections and the MLP's three wide values.
    attention = 3 * 4 * sizes.n_heads * t * t
    wide = t * float_bytes * (4 * sizes.d_ff + 8 * sizes.d_model)
    # Of a part of the positions: soft-capped in steps, two of them at once, then in float32 with their exponentials.
    # Where they are looked at several times and are not many, those of all.
    rows, all_logits = min(t, LOGIT_ROWS), 4 * t * sizes.vocab_size
    logits = rows * sizes.vocab_size * (8 + float_bytes) + (all_logits if all_logits <= KEPT_LOGITS else 0)
    return max(attention + wide, logits + 2 * t * float_bytes * sizes.d_model)
