"""What the experiments on single tokens share: one measurement, so that all of them together cost one more pass."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from inspector.experiment import FitParams, bounded

if TYPE_CHECKING:
    from inspector.drawing.figures import Cell, Heatmap, Table, TokenTrace
    from inspector.events import Event
    from inspector.statistics.measured import Statistics
    from inspector.statistics.pipeline import Measuring
    from inspector.statistics.token_norms import TokenNorms

ZOOM = 0.85, 0.95
"""The part of the excerpt that is magnified, as the right panel of Fig. 5: tokens 85 to 95 of 100."""
NO_STRETCH = (
    "No held-out context has {length} included tokens, so none is shown. Take longer contexts or fewer tokens: "
    "-p length=20."
)


@dataclass(frozen=True, kw_only=True)
class TokenParams(FitParams):
    """Which SAEs are compared with each other, and which tokens are shown one by one."""

    l0: float = bounded(60.0, 0, 1_000_000)
    """Per width, the SAE whose nominal L0 is nearest is compared with those of other widths; 0 compares all."""
    start: int = bounded(10_092, 0, 1_000_000_000)
    """The first token shown, by number among all included ones; the paper's. Counted round where there are fewer."""
    length: int = bounded(100, 0, 100_000)
    """Tokens shown; 0: none."""


def measure(measuring: Measuring, params: TokenParams) -> Generator[Event, None, TokenNorms]:
    """See `measure_tokens`."""
    from inspector.statistics.token_pass import measure_tokens

    return (yield from measure_tokens(measuring, l0=params.l0, start=params.start, length=params.length))


def found_in(statistics: Statistics, experiment_id: str) -> TokenNorms:
    """What was measured."""
    return cast("TokenNorms", statistics.own[experiment_id])


def pairs_of(found: TokenNorms) -> list[tuple[str, str]]:
    """Every SAE of the series with every later one; of equal widths too, where the series has all SAEs."""
    series = found.series
    return [(small, large) for i, small in enumerate(series) for large in series[i + 1 :]]


def names_of(found: TokenNorms) -> list[str]:
    """Short names of the series."""
    saes = [found.by_id()[sae_id] for sae_id in found.series]
    return saes_named([{"d_sae": sae.d_sae, "nominal_l0": sae.nominal_l0} for sae in saes])


def saes_named(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Widths, with the L0 behind them where one width comes more than once."""
    from inspector.options import width_label

    widths = [width_label(row["d_sae"]) for row in rows]
    if len(set(widths)) == len(widths):
        return widths
    l0s = ["?" if row["nominal_l0"] is None else f"{row['nominal_l0']:g}" for row in rows]
    return [f"{width}/{l0}" for width, l0 in zip(widths, l0s, strict=True)]


def triangle(title: str, found: Mapping[str, Any], key: str, *, diagonal: float, value: str, unit: str = "") -> Heatmap:
    """A score of every pair of a result's series, the smaller SAE in rows; the diagonal is known without measuring."""
    from inspector.drawing.figures import Axis, Heatmap

    series, labels = found["series"], tuple(found["labels"])
    scores = {(pair["small"], pair["large"]): pair[key] for pair in found["pairs"]}
    cells = tuple(
        tuple(diagonal if small == large else scores.get((small, large)) for large in series) for small in series
    )
    return Heatmap(
        title=title,
        x=Axis(label="SAE_2"),
        y=Axis(label="SAE_1"),
        value=Axis(label=value, unit=unit),
        x_ticks=labels,
        y_ticks=labels,
        values=cells,
        triangle=True,
    )


def table(title: str, columns: Sequence[str], rows: Sequence[tuple[Cell, ...]], note: str = "") -> Table:
    """A line per pair of widths: from, to, and numbers."""
    from inspector.drawing.figures import Column, Table

    titles = ("from", "to", *columns)
    return Table(title=title, columns=tuple(Column(title=each) for each in titles), rows=tuple(rows), note=note)


def trace_figures(
    title: str, found: Mapping[str, Any], lines: Mapping[str, Sequence[float]], *, zoom: bool = False
) -> tuple[TokenTrace, ...]:
    """Norms along the tokens of a result, all of them and, with `zoom`, a few magnified; nothing if none are shown."""
    from inspector.drawing.figures import Axis, TokenTrace, TraceSeries

    n = len(found["tokens"])
    if not n:
        return ()
    parts = [(title, slice(0, n))]
    if zoom and n >= 20:
        parts.append((f"{title}, magnified", slice(round(ZOOM[0] * n), round(ZOOM[1] * n) + 1)))
    trained = sum(found["train"])
    where = f"Context {found['context']}, positions {found['positions'][0]} to {found['positions'][-1]}; "
    where += "held out." if not trained else f"the maps were fitted on {trained} of these {n} tokens."
    return tuple(
        TokenTrace(
            title=name,
            value=Axis(label="L2 norm"),
            tokens=tuple(found["tokens"][part]),
            series=tuple(TraceSeries(name=label, values=tuple(values[part])) for label, values in lines.items()),
            first_position=found["positions"][part.start],
            note=where,
        )
        for name, part in parts
    )
