"""What will be on the device, before anything is loaded; and what to do where it does not fit.

The sizes of everything are known from names and headers: a plan costs milliseconds, running out of memory costs the
half hour before it. Over budget, in this order: fewer contexts at once, narrower chunks through the SAEs, SAEs of which
a slice is there at a time (`sliced.SlicedSae`), and a refusal that names what would fit.

Sums of bytes, no torch: nothing here allocates or asks a device. The formulas follow the code that allocates, named
beside each; `tests/sources/test_memory_measured.py` holds them against measured peaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from inspector.errors import ResourceError
from inspector.formats import layout_of
from inspector.options import width_label
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
PART_TOKENS = 256
"""`fitting.PART_TOKENS`."""
SLICES = tuple(1 << power for power in range(30, 15, -1))
"""Bytes of an encoder's slice, largest first: a gigabyte is copied while the one before computes."""
USUAL_SLICE = 1 << 28
"""Below, more SAEs are sliced first."""
ALIGNED = 64
"""Latents of a slice are a multiple: products of such shapes round as those of the whole matrix do."""
CODES_BYTES = 256 << 20
"""Of active latents of all tokens that go through a sliced SAE together; where it is not enough, fewer tokens do."""
CODE_BYTES = 56
"""Of an active latent at once: token, latent and activation, the same sorted, and the order."""
USUAL_L0 = 100.0
"""Active latents per token where nothing says how many."""
HOST_RATE, DISK_RATE = 20e9, 2e9
"""Bytes per second that slices are expected to come with: pinned memory over PCIe 4.0, and a solid-state disk."""
HOST_RESERVE = 4 << 30
"""Bytes of the host's memory that sliced SAEs leave free; what finds no room is read from disk."""
GB = 1e9


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
class MemoryPlan:
    """What will be on the device at most, and how that was reached."""

    device: str
    rows: tuple[tuple[str, int], ...]
    """(what, bytes): what stays, then the largest of what comes and goes. They add up to `needed`."""
    needed: int
    """Bytes at the peak."""
    budget: int
    """Bytes that may be used."""
    contexts_at_once: int
    """Largest batch of contexts that fits. Changes no number."""
    chunk_tokens: int | None
    """Tokens through an SAE at once, if fewer than usual; None: as usual."""
    sliced_from_host: frozenset[str]
    """SAEs of which a slice is on the device at a time, the rest in the host's memory."""
    sliced_from_disk: frozenset[str]
    """The same, the rest in their files."""
    n_saes: int
    """All of them."""
    slice_bytes: int
    """Of an encoder at once; 0: none is sliced."""
    page_tokens: int
    """Of a text, which go through all SAEs together."""
    page_from_host: int
    page_from_disk: int
    """Bytes that are moved for a page's tokens."""

    @property
    def sliced(self) -> frozenset[str]:
        """All SAEs that are not there whole."""
        return self.sliced_from_host | self.sliced_from_disk

    @property
    def page_seconds(self) -> float:
        """That moving a page's bytes takes, at the rates that are expected."""
        return self.page_from_host / HOST_RATE + self.page_from_disk / DISK_RATE

    def place_of(self, sae_id: str) -> str:
        """Where an SAE's weights are: 'device', or, but for a slice, 'host' or 'disk'."""
        return "host" if sae_id in self.sliced_from_host else "disk" if sae_id in self.sliced_from_disk else "device"

    @property
    def slices(self) -> str:
        """Which SAEs come in slices, and what it costs, in words; empty: none does."""
        if not self.sliced:
            return ""
        ways = (
            (len(self.sliced_from_host), self.page_from_host, "the host's memory", HOST_RATE),
            (len(self.sliced_from_disk), self.page_from_disk, "disk", DISK_RATE),
        )
        where = " and ".join(
            f"{n} from {source} ({_gb(n_bytes)} a page at {rate / GB:g} GB/s)" for n, n_bytes, source, rate in ways if n
        )
        return (
            f"{len(self.sliced)} of {self.n_saes} SAEs in slices of {_gb(self.slice_bytes)}: {where}; a page of "
            f"{self.page_tokens:,} tokens takes about {_seconds(self.page_seconds)}"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about a plan that is not the usual one."""
        found = []
        if self.sliced:
            found.append(
                f"{self.slices}. They find no room in {_gb(self.budget)}; numbers differ by float32's last digits at "
                "most."
            )
        if self.chunk_tokens is not None:
            found.append(
                f"SAEs take {self.chunk_tokens} tokens at once, to stay within {_gb(self.budget)}; "
                "the last digits of float32 may differ from the usual chunks'."
            )
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class _Way:
    """One way to do it."""

    contexts: int = CONTEXTS_AT_ONCE
    chunk: int = CHUNK_TOKENS[0]
    sliced: frozenset[str] = frozenset()
    slice_bytes: int = 0


def sae_bytes(ref: SaeRef) -> int:
    """An SAE's weights in float32, biases and thresholds included."""
    return 4 * (2 * ref.d_in * ref.d_sae + 3 * ref.d_sae + ref.d_in)


def plan_memory(
    sizes: Sizes, budget: int, *, device: str, asked: int | None = None, may_halve: bool = False
) -> MemoryPlan:
    """The first way that fits into the budget.

    Args:
        sizes: of everything.
        budget: bytes of the device that may be used.
        device: its name, for people.
        asked: what --max-memory said, if it was given.
        may_halve: whether the model could take half of its memory in bfloat16.

    Raises:
        ResourceError: nothing fits; the message names flags and values that would.
    """
    for way in _ways(sizes, budget):
        rows = _rows(sizes, way)
        needed = sum(n_bytes for _, n_bytes in rows)
        if needed <= budget:
            return MemoryPlan(
                device=device,
                rows=rows,
                needed=needed,
                budget=budget,
                contexts_at_once=_most_contexts(sizes, way, budget),
                chunk_tokens=way.chunk if way.chunk != CHUNK_TOKENS[0] else None,
                **_told(sizes, way),
            )
    raise _refused(sizes, budget, device, asked, may_halve)


def _ways(sizes: Sizes, budget: int) -> Iterator[_Way]:
    """From the quickest to the smallest."""
    batches = [_Way(contexts=contexts) for contexts in (8, 4, 2, 1)] if not sizes.session else [_Way(contexts=1)]
    yield from batches
    yield from (replace(batches[-1], chunk=chunk) for chunk in CHUNK_TOKENS[1:])
    for way in (*batches, *(replace(batches[-1], chunk=chunk) for chunk in CHUNK_TOKENS[1:])):
        yield _sliced(sizes, way, budget)


def _sliced(sizes: Sizes, way: _Way, budget: int) -> _Way:
    """The widest SAEs in slices, as few as make the rest fit, and slices as large as fit; all of them in the smallest
    slices if nothing does.
    """
    order = sorted((ref for ref in sizes.saes if _may_slice(sizes, ref)), key=lambda ref: (-sae_bytes(ref), ref.sae_id))

    def sliced(n: int, slice_bytes: int) -> _Way:
        widest = 4 * max((ref.d_in * ref.d_sae for ref in order[:n]), default=0)
        names = frozenset(ref.sae_id for ref in order[:n])
        return replace(way, sliced=names, slice_bytes=min(slice_bytes, widest))

    def fits(n: int, slice_bytes: int) -> bool:
        return _needed(sizes, sliced(n, slice_bytes)) <= budget

    for least in (USUAL_SLICE, SLICES[-1]):
        if fits(len(order), least):
            fewest = next(n for n in range(len(order) + 1) if fits(n, least))
            return sliced(fewest, next(each for each in SLICES if fits(fewest, each)))
    return sliced(len(order), SLICES[-1])


def _may_slice(sizes: Sizes, ref: SaeRef) -> bool:
    if ref.sae_id in sizes.at_once:
        all_at_once = sum(_stored(each) for each in sizes.saes if each.sae_id in sizes.at_once)
        return not sizes.on_host and all_at_once <= sizes.host_free - HOST_RESERVE
    return ref.sae_id not in sizes.whole


def _told(sizes: Sizes, way: _Way) -> dict[str, Any]:
    """The fields of the plan about slices."""
    refs = {ref.sae_id: ref for ref in sizes.saes if ref.sae_id in way.sliced}
    left = 0 if sizes.on_host else sizes.host_free - HOST_RESERVE
    from_host = set()
    # Those that can come from nowhere else, then the largest: what is left over for the disk is little.
    for ref in sorted(refs.values(), key=lambda ref: (ref.sae_id not in sizes.at_once, -_stored(ref), ref.sae_id)):
        if _stored(ref) <= left:
            from_host.add(ref.sae_id)
            left -= _stored(ref)
    from_disk = refs.keys() - from_host

    def moved(saes: Iterable[str]) -> int:
        return sum(_page_bytes(refs[sae_id], sizes.length) for sae_id in saes)

    return {
        "sliced_from_host": frozenset(from_host),
        "sliced_from_disk": frozenset(from_disk),
        "n_saes": len(sizes.saes),
        "slice_bytes": way.slice_bytes,
        "page_tokens": sizes.length,
        "page_from_host": moved(from_host),
        "page_from_disk": moved(from_disk),
    }


def _stored(ref: SaeRef) -> int:
    """Bytes of its weights as they are stored, which is how they are kept on the host and moved."""
    return min(ref.n_bytes, sae_bytes(ref)) or sae_bytes(ref)


def _page_bytes(ref: SaeRef, tokens: int) -> int:
    """Its encoder, and the rows of the decoder that some token has active."""
    half = _stored(ref) // 2
    return half + int(half * min(1.0, tokens * (ref.nominal_l0 or USUAL_L0) / ref.d_sae))


def latents_per_slice(d_in: int, n_bytes: int) -> int:
    """Latents whose encoder in float32 has so many bytes."""
    n = max(1, n_bytes // (4 * d_in))
    return n if n < ALIGNED else n // ALIGNED * ALIGNED


def _most_contexts(sizes: Sizes, way: _Way, budget: int) -> int:
    """The largest batch that fits, by powers of two from the way's own."""
    most = way.contexts
    while most < 1024 and not sizes.session and _needed(sizes, replace(way, contexts=2 * most)) <= budget:
        most *= 2
    return most


def _needed(sizes: Sizes, way: _Way) -> int:
    return sum(n_bytes for _, n_bytes in _rows(sizes, way))


# ---- the sums -------------------------------------------------------------------------------------------------------


def _rows(sizes: Sizes, way: _Way) -> tuple[tuple[str, int], ...]:
    """What is there when most is: weights, what is kept beside them, and the largest of what comes and goes."""
    weights = _weights(sizes, way)
    while_loading = _largest(weights, _goes_while_loading(sizes, way))
    at_work = _largest(weights | _kept(sizes, way), _goes_at_work(sizes, way))
    fullest = max((while_loading, at_work), key=lambda rows: sum(rows.values()))
    return tuple((name, n_bytes) for name, n_bytes in fullest.items() if n_bytes)


def _largest(stays: dict[str, int], goes: dict[str, int]) -> dict[str, int]:
    name = max(goes, key=lambda name: goes[name])
    return stays | {name: goes[name]}


def _weights(sizes: Sizes, way: _Way) -> dict[str, int]:
    resident = [ref for ref in sizes.saes if ref.sae_id not in way.sliced]
    sliced = [ref for ref in sizes.saes if ref.sae_id in way.sliced]
    count = f"{len(resident)} of {len(sizes.saes)}" if sliced else str(len(sizes.saes))
    return {
        "model weights": sizes.n_parameters * sizes.dtype_bytes,
        f"SAE weights ({count})": sum(map(sae_bytes, resident)),
        # `slices.Slices`: one that is computed with and the next; and biases and thresholds, which stay.
        "slices of SAEs": 2 * way.slice_bytes + sum(12 * ref.d_sae for ref in sliced),
    }


def _kept(sizes: Sizes, way: _Way) -> dict[str, int]:
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


def _goes_while_loading(sizes: Sizes, way: _Way) -> dict[str, int]:
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


def _goes_at_work(sizes: Sizes, way: _Way) -> dict[str, int]:
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


def _scratch_of_all(sizes: Sizes, way: _Way) -> int:
    """They take their chunks one after the other."""
    return max((_scratch(ref, way, sizes.length) for ref in sizes.saes), default=0)


def chunk_tokens(d_sae: int, most: int = CHUNK_TOKENS[0]) -> int:
    """Tokens per chunk: as many as usual, fewer only where the temporaries would pass CHUNK_BYTES.

    A function of the width alone, so that numbers do not depend on what else is computed.
    """
    return max(1, min(most, CHUNK_BYTES // (16 * max(1, d_sae))))


def _scratch(ref: SaeRef, way: _Way, length: int) -> int:
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
    # Soft-capped in steps: two of them at once. A session takes all of a text's in float32, and a joined copy.
    logits = t * sizes.vocab_size * max(2 * float_bytes, 8 * sizes.session)
    return max(attention + wide, logits + 2 * t * float_bytes * sizes.d_model)


# ---- the refusal ----------------------------------------------------------------------------------------------------


def _smallest(sizes: Sizes) -> int:
    """Bytes of the way that needs least."""
    return min(_needed(sizes, way) for way in _ways(sizes, 0))


def _refused(sizes: Sizes, budget: int, device: str, asked: int | None, may_halve: bool) -> ResourceError:
    needed = _smallest(sizes)
    model = sizes.n_parameters * sizes.dtype_bytes
    limit = f"--max-memory allows {_gb(budget)}" if asked is not None else f"{device} has {_gb(budget)} free"
    fits = [*_that_fit(sizes, budget, may_halve)]
    if asked is not None:
        fits.append(f"--max-memory {_flag_value(needed)}")
    advice = f"What would fit: {' or '.join(fits)}." if fits else "Use a smaller model, or another --device."
    return ResourceError(
        f"At least {_gb(needed)} are needed ({_gb(model)} for the model, {_gb(sum(map(sae_bytes, sizes.saes)))} for "
        f"{len(sizes.saes)} SAEs), but {limit}. {advice}"
    )


def _that_fit(sizes: Sizes, budget: int, may_halve: bool) -> Iterator[str]:
    """Flags with values, each of which alone is enough."""

    def fits(other: Sizes) -> bool:
        return _smallest(other) <= budget

    half = replace(sizes, dtype_bytes=2)
    if may_halve and fits(half):
        yield "--dtype bfloat16"
    if widths := _widths_that_fit(sizes, budget):
        yield f"--widths {widths}"
    elif may_halve and (widths := _widths_that_fit(half, budget)):
        yield f"--dtype bfloat16 --widths {widths}"
    for length in (512, 256, 128):
        if length < sizes.length and fits(replace(sizes, length=length)):
            yield f"--context-length {length}"
            break
    for n in (100, 30, 10):
        if n < sizes.n_contexts and fits(replace(sizes, n_contexts=n)):
            yield f"--contexts {n}"
            break


def _widths_that_fit(sizes: Sizes, budget: int) -> str:
    """The narrowest widths, as many as fit; empty if none does or all are needed."""
    widths = sorted({ref.d_sae for ref in sizes.saes})
    for n in range(len(widths) - 1, 0, -1):
        kept = tuple(ref for ref in sizes.saes if ref.d_sae in widths[:n])
        if _smallest(replace(sizes, saes=kept)) <= budget:
            return ",".join(_spelled(width) for width in widths[:n])
    return ""


def _spelled(width: int) -> str:
    """As --widths reads it back: a label for powers of two, the number itself for others."""
    return width_label(width) if width >= 256 and width & (width - 1) == 0 else str(width)


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / GB:.1f} GB" if n_bytes >= GB / 10 else f"{n_bytes / 1e6:.0f} MB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1g} s"


def _flag_value(n_bytes: int) -> str:
    """Rounded up, as --max-memory reads it."""
    return f"{-(-n_bytes // 10**9)}G" if n_bytes >= 10 * GB else f"{-(-n_bytes // 10**6)}M"
