"""What the experiments on single tokens share: one measurement, so that all of them together cost one more pass."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from inspector.experiment import FitParams

if TYPE_CHECKING:
    from inspector.drawing.figures import Heatmap
    from inspector.events import Event
    from inspector.statistics.measured import Statistics
    from inspector.statistics.measuring import Measuring
    from inspector.statistics.own.token_norms import TokenNorms


@dataclass(frozen=True, kw_only=True)
class TokenParams(FitParams):
    """Which SAEs are compared with each other, and which tokens are shown one by one."""

    l0: float = 60.0
    """Per width, the SAE whose nominal L0 is nearest is compared with those of other widths; 0 compares all."""
    start: int = 10_092
    """The first token shown, by number among all included ones; the paper's. Counted round where there are fewer."""
    length: int = 100
    """Tokens shown; 0: none."""


def measure(measuring: Measuring, params: TokenParams) -> Generator[Event, None, TokenNorms]:
    """See `measure_tokens`."""
    from inspector.statistics.own.token_pass import measure_tokens

    return (yield from measure_tokens(measuring, l0=params.l0, start=params.start, length=params.length))


def found_in(statistics: Statistics, experiment_id: str) -> TokenNorms:
    """What was measured."""
    return cast("TokenNorms", statistics.own[experiment_id])


def pairs_of(found: TokenNorms) -> list[tuple[str, str]]:
    """Every SAE of the series with every later one; of equal widths too, where the series has all SAEs."""
    series = found.series
    return [(small, large) for i, small in enumerate(series) for large in series[i + 1 :]]


def names_of(found: TokenNorms) -> list[str]:
    """Short names of the series: widths, with the L0 where one width comes more than once."""
    from inspector.spec import width_label

    saes = [found.by_id()[sae_id] for sae_id in found.series]
    widths = [width_label(sae.d_sae) for sae in saes]
    if len(set(widths)) == len(widths):
        return widths
    return [
        f"{width}/{'?' if sae.nominal_l0 is None else f'{sae.nominal_l0:g}'}"
        for width, sae in zip(widths, saes, strict=True)
    ]


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
