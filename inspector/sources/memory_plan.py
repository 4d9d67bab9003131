"""What will be on the device, before anything is loaded; and what to do where it does not fit.

The sizes of everything are known from names and headers: a plan costs milliseconds, running out of memory costs the
half hour before it. Over budget, in this order: fewer contexts at once, narrower chunks through the SAEs, SAEs of which
a slice is there at a time (`sliced.SlicedSae`), and a refusal that names what would fit.

What each way needs, `memory_sums` adds up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from inspector.errors import ResourceError
from inspector.options import width_label
from inspector.sources.memory_sums import (
    CHUNK_TOKENS,
    USUAL_L0,
    Sizes,
    Way,
    needed_bytes,
    rows_of,
    sae_bytes,
)  # fmt: skip
from inspector.spec import SaeRef

SLICES = tuple(1 << power for power in range(30, 15, -1))
"""Bytes of an encoder's slice, largest first: a gigabyte is copied while the one before computes."""
USUAL_SLICE = 1 << 28
"""Below, more SAEs are sliced first."""
HOST_RATE, DISK_RATE = 20e9, 2e9
"""Bytes per second that slices are expected to come with: pinned memory over PCIe 4.0, and a solid-state disk."""
HOST_RESERVE = 4 << 30
"""Bytes of the host's memory that sliced SAEs leave free; what finds no room is read from disk."""
GB = 1e9


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
        rows = rows_of(sizes, way)
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


def _ways(sizes: Sizes, budget: int) -> Iterator[Way]:
    """From the quickest to the smallest."""
    batches = [Way(contexts=contexts) for contexts in (8, 4, 2, 1)] if not sizes.session else [Way(contexts=1)]
    yield from batches
    yield from (replace(batches[-1], chunk=chunk) for chunk in CHUNK_TOKENS[1:])
    for way in (*batches, *(replace(batches[-1], chunk=chunk) for chunk in CHUNK_TOKENS[1:])):
        yield _sliced(sizes, way, budget)


def _sliced(sizes: Sizes, way: Way, budget: int) -> Way:
    """The widest SAEs in slices, as few as make the rest fit, and slices as large as fit; all of them in the smallest
    slices if nothing does.
    """
    order = sorted((ref for ref in sizes.saes if _may_slice(sizes, ref)), key=lambda ref: (-sae_bytes(ref), ref.sae_id))

    def sliced(n: int, slice_bytes: int) -> Way:
        widest = 4 * max((ref.d_in * ref.d_sae for ref in order[:n]), default=0)
        names = frozenset(ref.sae_id for ref in order[:n])
        return replace(way, sliced=names, slice_bytes=min(slice_bytes, widest))

    def fits(n: int, slice_bytes: int) -> bool:
        return needed_bytes(sizes, sliced(n, slice_bytes)) <= budget

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


def _told(sizes: Sizes, way: Way) -> dict[str, Any]:
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
        return sum(moved_bytes(refs[sae_id], sizes.length) for sae_id in saes)

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


def moved_bytes(ref: SaeRef, tokens: int) -> int:
    """Of an SAE in slices, for tokens that go through together: its encoder, and the decoder rows they have active."""
    half = _stored(ref) // 2
    return half + int(half * min(1.0, tokens * (ref.nominal_l0 or USUAL_L0) / ref.d_sae))


def _most_contexts(sizes: Sizes, way: Way, budget: int) -> int:
    """The largest batch that fits, by powers of two from the way's own."""
    most = way.contexts
    while most < 1024 and not sizes.session and needed_bytes(sizes, replace(way, contexts=2 * most)) <= budget:
        most *= 2
    return most


# ---- the refusal ----------------------------------------------------------------------------------------------------


def _smallest(sizes: Sizes) -> int:
    """Bytes of the way that needs least."""
    return min(needed_bytes(sizes, way) for way in _ways(sizes, 0))


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
