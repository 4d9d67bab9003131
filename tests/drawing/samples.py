"""One figure of every kind, with an undefined number and a hostile name wherever the kind can hold one."""

from __future__ import annotations

import math

from inspector.drawing.figures import (
    Axis,
    Band,
    Bands,
    Bars,
    BarSeries,
    Column,
    Curve,
    Dot,
    DotGrid,
    Figure,
    GroupedBars,
    Heatmap,
    Mark,
    Series,
    Table,
    TokenStrip,
    TokenTrace,
    TraceSeries,
    Violin,
)

HOSTILE = "\x1b[2J</svg><script>alert(1)</script>\u202e$x_1$"
WIDTH = Axis(label="SAE width", unit="latents", log=True)
L0 = Axis(label="L0", log=True)
WIDTHS = (16384.0, 65536.0, 131072.0, 1048576.0)
TOKENS = ("import", " numpy", " as", " np", "\n", "def", " f", "(", "x", ")", ":", "\n", "   ", " return", " x")


def _fvu(width: float) -> float:
    return 0.18 + 0.12 * (width / WIDTHS[0]) ** -0.5


def _bands() -> Bands:
    at = tuple(WIDTHS[0] * (640.0 ** (i / 39)) for i in range(40))
    return Bands(
        title="Breakdown of the dark matter",
        x=WIDTH,
        y=Axis(label="FVU"),
        at=at,
        bands=(
            Band(name="nonlinear error", values=tuple(0.08 for _ in at)),
            Band(name="encoder error", values=tuple(0.02 for _ in at)),
            Band(name="linear error", values=tuple(0.08 for _ in at)),
            Band(name="absent features", values=tuple(_fvu(width) - 0.18 for width in at)),
        ),
        extrapolated=tuple(width > WIDTHS[-1] for width in at),
        points=(
            Series(name="FVU", x=WIDTHS, y=tuple(map(_fvu, WIDTHS)), style="points"),
            Series(name="nonlinear FVU", x=WIDTHS, y=(0.101, 0.098, 0.1, None), style="points"),
        ),
    )


SAMPLES: dict[str, Figure] = {
    "table": Table(
        title="FVU by width",
        columns=(Column(title="SAE"), Column(title="latents"), Column(title="FVU", digits=4)),
        rows=(("layer_3/width_256/l0_16", 256, 0.25), (HOSTILE, 4096, None)),
        note="A note.",
    ),
    "curve": Curve(
        title="Norm prediction",
        x=L0,
        y=Axis(label="norm R²"),
        series=(
            Series(
                name="16k",
                x=(10.0, 20.0, 60.0, 120.0),
                y=(0.72, 0.75, 0.81, 0.86),
                low=(0.7, 0.73, 0.79, 0.84),
                high=(0.74, 0.77, 0.83, 0.88),
            ),
            Series(name="131k", x=(10.0, 25.0, 80.0), y=(0.6, None, 0.7)),
            Series(name=HOSTILE, x=(12.0, 100.0), y=(0.65, 0.62), style="dotted"),
        ),
    ),
    "bands": _bands(),
    "bars": Bars(
        title="Components",
        value=Axis(label="R²"),
        labels=("residual", "MLP", HOSTILE, "attention"),
        values=(0.62, 0.1, -0.05, None),
        low=(0.58, 0.05, -0.1, None),
        high=(0.66, 0.15, 0.0, None),
    ),
    "grouped": GroupedBars(
        title="Cross-entropy recovered",
        value=Axis(label="CE recovered", unit="%"),
        groups=("16k", "131k"),
        bars=(
            BarSeries(
                name="linear",
                values=(61.0, 44.0),
                low=(58.0, 40.0),
                high=(64.0, 48.0),
                marks=(
                    Mark(name="share of variance", values=(52.0, 40.0)),
                    Mark(name="share of norm", values=(57.0, None)),
                ),
            ),
            BarSeries(
                name="nonlinear", values=(32.0, None), marks=(Mark(name="share of variance", values=(48.0, 60.0)),)
            ),
        ),
    ),
    "heatmap": Heatmap(
        title="Per-token predictability",
        x=Axis(label="width predicted"),
        y=Axis(label="width known"),
        value=Axis(label="R²"),
        x_ticks=("16k", "32k", "65k", "131k"),
        y_ticks=("16k", "32k", "65k", "131k"),
        values=((1.0, 0.93, 0.87, 0.81), (None, 1.0, 0.92, 0.85), (None, None, 1.0, None), (None, None, None, 1.0)),
        triangle=True,
    ),
    "violin": Violin(
        title="Norm test",
        value=Axis(label="R²"),
        labels=("x", "Sae", "linear error", "nonlinear error", "none"),
        samples=(
            tuple(0.99 + 0.004 * math.sin(i) for i in range(28)),
            tuple(0.93 + 0.03 * math.sin(i) for i in range(28)),
            tuple(0.85 + 0.06 * math.sin(2 * i) for i in range(28)),
            tuple(0.66 + 0.04 * math.sin(3 * i) for i in range(28)),
            (),
        ),
    ),
    "strip": TokenStrip(
        title="Nonlinear error",
        value=Axis(label="norm"),
        tokens=(*TOKENS, HOSTILE),
        values=(*(float(i % 7) for i in range(len(TOKENS))), None),
    ),
    "grid": DotGrid(
        title="Nonlinear FVU",
        x=WIDTH,
        y=L0,
        value=Axis(label="nonlinear FVU"),
        dots=tuple(
            Dot(x=width, y=l0, value=None if (width, l0) == (WIDTHS[3], 20.0) else 0.2 / l0**0.3, label=HOSTILE)
            for width in WIDTHS
            for l0 in (10.0, 20.0, 60.0, 120.0)
        ),
    ),
    "trace": TokenTrace(
        title="Error norm along a text",
        value=Axis(label="‖e‖"),
        tokens=(*TOKENS, HOSTILE),
        series=(
            TraceSeries(name="16k", values=tuple(60.0 + 12 * math.sin(1.7 * i) for i in range(len(TOKENS) + 1))),
            TraceSeries(
                name="131k", values=(None, *(50.0 + 10 * math.sin(1.7 * i) for i in range(len(TOKENS)))),
            ),
        ),
        first_position=416,
    ),
}  # fmt: skip

VALUE = Axis(label="v")
EMPTY: dict[str, Figure] = {
    "table": Table(title="t", columns=(Column(title="a"),), rows=()),
    "curve": Curve(title="t", x=L0, y=VALUE, series=()),
    "bands": Bands(title="t", x=L0, y=VALUE, at=(), bands=(Band(name="b", values=()),)),
    "bars": Bars(title="t", value=VALUE, labels=(), values=()),
    "grouped": GroupedBars(title="t", value=VALUE, groups=(), bars=()),
    "heatmap": Heatmap(title="t", x=VALUE, y=VALUE, value=VALUE, x_ticks=(), y_ticks=(), values=()),
    "violin": Violin(title="t", value=VALUE, labels=(), samples=()),
    "strip": TokenStrip(title="t", value=VALUE, tokens=(), values=()),
    "grid": DotGrid(title="t", x=L0, y=L0, value=VALUE, dots=()),
    "trace": TokenTrace(title="t", value=VALUE, tokens=(), series=(TraceSeries(name="s", values=()),)),
}
"""Figures of no data at all."""
