"""The memory plan: known sizes against arithmetic by hand, each way to save memory, and a refusal that helps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inspector.errors import ExitCode, ResourceError
from inspector.options import SIZE, parse_width
from inspector.sources.memory_plan import MemoryPlan, plan_memory
from inspector.sources.memory_sums import Sizes, sae_bytes
from inspector.spec import SaeRef

WIDTHS = tuple(2**k for k in range(14, 21))


def ref(d_sae: int, d_in: int = 3584) -> SaeRef:
    return SaeRef(
        sae_id=f"width_{d_sae}",
        release="r",
        layer=20,
        hook_name="blocks.20.hook_resid_post",
        d_in=d_in,
        d_sae=d_sae,
        format="gemma-scope",
    )


GEMMA_9B = Sizes(
    n_parameters=9_241_705_984,
    dtype_bytes=2,
    d_model=3584,
    n_heads=16,
    d_ff=14336,
    vocab_size=256_000,
    saes=tuple(ref(width) for width in WIDTHS),
    d_in=3584,
    n_contexts=300,
    length=1024,
)
"""Layer 20 with the seven SAEs of L0 near 60."""


def plan(sizes: Sizes, gigabytes: float, **more: object) -> MemoryPlan:
    return plan_memory(sizes, int(gigabytes * 1e9), device="cuda:0", **more)  # type: ignore[arg-type]


def test_the_nine_billion_model_with_its_seven_saes() -> None:
    """18.5 GB of bfloat16 and 60 GB of SAEs (2 x 3584 x 2,080,768 numbers of 4 bytes, and biases)."""
    made = plan(GEMMA_9B, 140)
    rows = dict(made.rows)
    assert rows["model weights"] == 2 * 9_241_705_984
    n_latents = sum(WIDTHS)
    assert rows["SAE weights (7)"] == 4 * (2 * 3584 * n_latents + 3 * n_latents + 7 * 3584)
    assert rows["moments and maps"] == 8 * 3584**2 * (2 + 3 * 7)
    assert sum(rows.values()) == made.needed
    assert 80e9 < made.needed < 88e9
    assert (made.sliced, made.slice_bytes, made.chunk_tokens, made.notes) == (frozenset(), 0, None, ())
    assert made.contexts_at_once >= 8


def test_less_room_means_fewer_contexts_at_once_first() -> None:
    full = plan(GEMMA_9B, 140)
    small = plan_memory(GEMMA_9B, full.needed - 1, device="cuda:0")
    assert small.contexts_at_once < 8
    assert (small.sliced, small.notes) == (frozenset(), ())
    assert small.needed < full.needed


def test_then_the_widest_saes_are_sliced_and_as_few_as_possible() -> None:
    one = plan(GEMMA_9B, 70)
    assert one.sliced == {"width_1048576"}
    rows = dict(one.rows)
    assert rows["slices of SAEs"] == 2 * one.slice_bytes + 12 * 2**20
    assert rows["SAE weights (6 of 7)"] == sum(sae_bytes(ref(width)) for width in WIDTHS[:6])
    assert one.needed <= 70e9
    tight = plan(GEMMA_9B, 45)
    assert len(tight.sliced) > 1
    assert min(tight.slice_bytes, one.slice_bytes) >= 1 << 28


@pytest.mark.parametrize("session", [False, True])
@pytest.mark.parametrize("gigabytes", [24, 48, 80, 141])
def test_the_nine_billion_model_is_refused_on_no_card_from_24_gigabytes_on(gigabytes: int, session: bool) -> None:
    made = plan(replace(GEMMA_9B, session=session, host_free=64 * 10**9), gigabytes)
    assert made.needed <= gigabytes * 1e9
    assert bool(made.sliced) == (gigabytes < 100)


def test_slices_come_from_the_host_where_it_has_room_and_else_from_disk() -> None:
    """A page of 1,024 tokens: 7.5 GB of encoder, and the rows of 100 active latents per token or all of them."""
    largest = sae_bytes(ref(2**20))
    for host_free, host in ((0, set()), (4 * 2**30 + largest, {"width_1048576"}), (10**12, None)):
        made = plan(replace(GEMMA_9B, host_free=host_free), 30)
        assert made.sliced_from_host == (made.sliced if host is None else host)
        assert made.sliced_from_disk == made.sliced - made.sliced_from_host
        (note,) = made.notes
        assert ("from disk" in note) == bool(made.sliced_from_disk)
        assert ("from the host's memory" in note) == bool(made.sliced_from_host)
        assert made.page_seconds == made.page_from_host / 20e9 + made.page_from_disk / 2e9
    only = plan(replace(GEMMA_9B, saes=(ref(2**20),), host_free=0), 30)
    rows = 1024 * 100 / 2**20
    assert only.page_from_disk == pytest.approx(largest / 2 * (1 + rows), rel=1e-6)
    on_host = plan(replace(GEMMA_9B, on_host=True, host_free=10**12), 30)
    assert not on_host.sliced_from_host, "beside the CPU there is no other memory"


def test_what_cannot_be_sliced_is_not() -> None:
    widest = "width_1048576"
    with pytest.raises(ResourceError, match="At least"):
        plan(replace(GEMMA_9B, whole=frozenset({widest})), 45)
    assert plan(replace(GEMMA_9B, whole=frozenset({widest})), 60).sliced.isdisjoint({widest})
    packed = replace(GEMMA_9B, at_once=frozenset({widest}))
    with pytest.raises(ResourceError, match="At least"):
        plan(packed, 45)  # no room on the host, and its file can only be read from beginning to end
    assert plan(replace(packed, host_free=40 * 10**9), 45).sliced_from_host >= {widest}


def test_a_plan_never_promises_more_than_its_budget() -> None:
    for gigabytes in range(50, 140, 3):
        for sizes in (GEMMA_9B, replace(GEMMA_9B, session=True), replace(GEMMA_9B, on_host=True, by_token=True)):
            try:
                made = plan(sizes, gigabytes)
            except ResourceError:
                continue
            assert made.needed == sum(n_bytes for _, n_bytes in made.rows) <= gigabytes * 1e9


@pytest.mark.parametrize("gigabytes", [22.0, 30.0, 40.0])
def test_a_refusal_names_flags_that_fit(gigabytes: float) -> None:
    sizes = replace(GEMMA_9B, dtype_bytes=4)
    with pytest.raises(ResourceError, match="What would fit") as caught:
        plan(sizes, gigabytes, asked=int(gigabytes * 1e9), may_halve=True)
    assert caught.value.exit_code == ExitCode.RESOURCE
    message = str(caught.value)
    assert f"but --max-memory allows {gigabytes:.1f} GB" in message
    offered = message.split("What would fit: ")[1].removesuffix(".").split(" or ")
    assert all(way.startswith("--") for way in offered) and offered[-1].startswith("--max-memory ")
    for way in offered:
        words = way.split()
        given = dict(zip(words[::2], words[1::2], strict=True))
        changed = sizes
        budget = gigabytes * 1e9
        for option, value in given.items():
            match option:
                case "--dtype":
                    changed = replace(changed, dtype_bytes={"bfloat16": 2}[value])
                case "--widths":
                    kept = [parse_width(label) for label in value.split(",")]
                    changed = replace(changed, saes=tuple(sae for sae in changed.saes if sae.d_sae in kept))
                    assert changed.saes
                case "--max-memory":
                    budget = SIZE.read(value)
                case "--context-length":
                    changed = replace(changed, length=int(value))
                case "--contexts":
                    changed = replace(changed, n_contexts=int(value))
        assert plan_memory(changed, int(budget), device="cuda:0").needed <= budget, way


def test_nothing_that_fits_is_said_too() -> None:
    with pytest.raises(ResourceError, match=r"cuda:0 has 1\.0 GB free\. Use a smaller model, or another --device\.$"):
        plan(GEMMA_9B, 1)


def test_the_last_resort_is_narrower_chunks_and_is_said() -> None:
    """On a small machine the dense latents of a million-wide SAE count."""
    sizes = replace(
        GEMMA_9B,
        n_parameters=10**6,
        saes=(ref(2**20, 64),),
        d_in=64,
        d_model=64,
        n_heads=2,
        d_ff=64,
        vocab_size=300,
        length=64,
    )
    usual = plan(sizes, 100)
    assert usual.chunk_tokens is None
    small = plan_memory(sizes, usual.needed * 2 // 3, device="cpu")
    assert small.chunk_tokens in (16, 64)
    assert "the last digits of float32 may differ" in small.notes[0]


def test_a_session_counts_the_texts_it_keeps() -> None:
    rows = dict(plan(replace(GEMMA_9B, session=True), 140).rows)
    assert rows["texts looked at"] == (512 << 20) + 16 * 4 * 1024 * 3584
    assert "activations kept" not in rows
    assert "activations kept" in dict(plan(replace(GEMMA_9B, by_token=True), 140).rows)
