"""Small scored texts with numbers that can be checked by hand."""

from __future__ import annotations

from array import array
from math import nan

from inspector.drawing.tokens import SaeColumns, TokenDocument
from inspector.spec import SaeRef
from inspector.tui.documents import ScoredText
from inspector.tui.selection import SaeChoice


def floats(*values: float) -> array[float]:
    return array("f", values)


def columns(scale: float, n: int, has_map: bool = True) -> SaeColumns:
    """Token p has sae_error norm 5 (p + 1) scale: linear 3, nonlinear 4 of each five."""
    sizes = [scale * (p + 1) for p in range(n)]
    return SaeColumns(
        l0=floats(*[16.0] * n),
        sae_error_norm=floats(*[5 * s for s in sizes]),
        linear_error_norm=floats(*[3 * s if has_map else nan for s in sizes]),
        nonlinear_error_norm=floats(*[4 * s if has_map else nan for s in sizes]),
    )


def scored_text(n: int = 6, split: str | None = None, has_map: bool = True, context: int = 0) -> ScoredText:
    """Tokens ' t0', ' t1', ...; the first is excluded. Two SAEs, the second's errors half as large."""
    split = split if split is not None else "x" + "h" * (n - 1)
    return ScoredText(
        TokenDocument(
            source="context",
            context=context,
            epoch=1 if has_map else 0,
            name="a.py tokens 0-5",
            token_ids=list(range(100, 100 + n)),
            tokens=[f" t{p}" for p in range(n)],
            split=list(split),
            loss=floats(*[0.5 * p for p in range(n - 1)], nan),
            x_norm=floats(*[10.0] * n),
            saes=(columns(1.0, n, has_map), columns(0.5, n, has_map)),
        )
    )


def two_widths() -> SaeChoice:
    """256 and 1k, both enabled, the wider active."""
    return SaeChoice.of(
        [
            SaeRef(
                release="r",
                d_in=128,
                sae_id="w256",
                d_sae=256,
                nominal_l0=16.0,
                layer=3,
                hook_name="blocks.3.hook_resid_post",
            ),
            SaeRef(
                release="r",
                d_in=128,
                sae_id="w1k",
                d_sae=1024,
                nominal_l0=16.0,
                layer=3,
                hook_name="blocks.3.hook_resid_post",
            ),
        ]
    )
