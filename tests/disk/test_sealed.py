"""Every byte of a sealed line counts."""

from __future__ import annotations

import math
import random

import pytest

from inspector.disk.sealed import seal, unseal

CONTENT = {
    "name": "a “name”\x1b[2J",
    "numbers": [1, -2.5, 1e-300, 0.1 + 0.2, None, True, 10**20],
    "nested": {"b": {}, "a": [[]], "": "x"},
}


def test_what_is_sealed_comes_back_in_its_order() -> None:
    raw = seal(CONTENT)
    assert raw.isascii() and raw.endswith(b"}\n") and raw.count(b"\n") == 1
    assert unseal(raw) == CONTENT and list(unseal(raw)) == list(CONTENT)
    assert unseal(seal({"bad": math.nan, "pair": (1, 2)})) == {"bad": None, "pair": [1, 2]}


def test_every_flipped_bit_and_every_other_byte_is_found() -> None:
    """All single-bit flips of the line, and at every place a random other byte, whitespace among them."""
    raw = seal(CONTENT)
    chance = random.Random(0)
    others = [(i, 1 << bit) for i in range(len(raw)) for bit in range(8)]
    others += [(i, chance.randrange(1, 256)) for i in range(len(raw))]
    others += [(i, raw[i] ^ space) for i in range(len(raw)) for space in b" \t\n\r" if raw[i] != space]
    for place, change in others:
        damaged = bytearray(raw)
        damaged[place] ^= change
        with pytest.raises(ValueError):
            unseal(bytes(damaged))


@pytest.mark.parametrize("raw", [b"", b"\n", b"[]", b"3", b"null", b"{}", b'{"sha256": 1}', b"[" * 100_000])
def test_what_was_never_sealed_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):
        unseal(raw)


def test_a_cut_or_longer_line_is_refused() -> None:
    raw = seal(CONTENT)
    for wrong in (raw[:-1], raw[: len(raw) // 2], raw + b"\n", raw + raw, b" " + raw):
        with pytest.raises(ValueError):
            unseal(wrong)
