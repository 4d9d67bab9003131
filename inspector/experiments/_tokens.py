"""What the experiments on single tokens share: one measurement, so that all of them together cost one more pass."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from inspector.experiment import FitParams

if TYPE_CHECKING:
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
