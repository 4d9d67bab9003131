"""What is said about one claim of the paper, and what the functions that say it share."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from inspector.drawing.figures import with_interval

Answer = Literal["consistent with the paper", "contradicts it", "cannot tell"]
CONSISTENT: Answer = "consistent with the paper"
CONTRADICTS: Answer = "contradicts it"
CANNOT_TELL: Answer = "cannot tell"
Result = Mapping[str, Any]
"""An object as `--json` prints it; user data, hence Any."""
Results = Mapping[str, Result]
"""By experiment."""
Interval = tuple[float, float] | None
Number = tuple[float, Interval]
"""A score and its 95% interval; None: there is none."""
SIGNS: tuple[Literal["", "+"], ...] = ("", "+")
"""As a number may be written."""
Z = 1.959964
"""97.5% of the normal distribution."""

FEWEST_SAES = 3
"""SAEs, or pairs of them, that a claim about SAEs is judged by: fewer say what those are, not what SAEs are."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one function found in its results."""

    answer: Answer
    number: str
    """This run's number in words a table can hold."""
    why: str
    of: tuple[float | None, Interval] = (None, None)
    """The one number it rests on, if there is one, and its 95% interval: over many SAEs that of the middle one."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One line of the paper's claims, and who judges it."""

    id: str
    claim: str
    paper: str
    """The paper's own number."""
    needs: tuple[str, ...]
    """Experiments whose results it is judged by."""
    judge: Callable[[Results], Finding]
    """Gets the results by experiment; all that it needs are there, of one target."""
    also: tuple[str, ...] = ()
    """Experiments that are looked at where they are there."""


def claim(
    claim_id: str, said: str, paper: str, *needs: str, also: tuple[str, ...] = ()
) -> Callable[[Callable[[Results], Finding]], Claim]:
    """Above a function that judges: the claim it judges. See `Claim` for the fields."""
    return lambda judge: Claim(id=claim_id, claim=said, paper=paper, needs=needs, judge=judge, also=also)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One line of the table."""

    id: str
    claim: str
    paper: str
    number: str
    value: float | None
    interval: Interval
    verdict: Answer
    why: str
    results: tuple[str, ...]
    """Ids of the results it rests on."""
    all_tokens: str = ""
    """The verdict and its number when tokens that outweigh all others count too, if it is another one."""

    @property
    def said_of(self) -> str:
        """'; of 0.53 [0.52, 0.54]': which number the interval is of. Empty if there is none, or the number says it."""
        if self.interval is None or self.value is None:
            return ""
        said = [with_interval(self.value, self.interval, sign) for sign in SIGNS]
        return "" if any(each in self.number for each in said) else f"; of {said[0]}"

    @property
    def said_of_all_tokens(self) -> str:
        """A sentence on the verdict with all tokens, if it is another one."""
        return f"Another verdict when all tokens count: {self.all_tokens}." if self.all_tokens else ""


def counted(verdicts: Sequence[Verdict]) -> str:
    """'6 consistent with the paper, 1 contradicts it, 12 cannot tell'."""
    several = {CONTRADICTS: "contradict it"}
    counts = [(each, sum(one.verdict == each for one in verdicts)) for each in (CONSISTENT, CONTRADICTS, CANNOT_TELL)]
    return ", ".join(f"{count} {each if count == 1 else several.get(each, each)}" for each, count in counts)


def cannot(why: str, number: str = "") -> Finding:
    """Nothing can be said."""
    return Finding(answer=CANNOT_TELL, number=number, why=why)


def decided(consistent: bool, contradicts: bool, n: int = FEWEST_SAES) -> Answer:
    """The answer of two tests; neither, or fewer than `FEWEST_SAES` SAEs or pairs (n) behind them: cannot tell."""
    if n < FEWEST_SAES:
        return CANNOT_TELL
    return CONTRADICTS if contradicts else CONSISTENT if consistent else CANNOT_TELL


def too_few(n: int, what: str = "SAEs") -> str:
    """A sentence for the reason if there are fewer than `FEWEST_SAES`, else nothing."""
    return f" {FEWEST_SAES} {what} are needed to judge by." if n < FEWEST_SAES else ""


def known(values: Iterable[float | None]) -> list[float]:
    """The defined ones."""
    return [value for value in values if value is not None and math.isfinite(value)]


def interval_of(result: Result, sae: str, key: str) -> Interval:
    """The 95% interval of a score of an SAE."""
    ends = result["intervals"].get(sae, {}).get(key)
    return None if ends is None else (float(ends[0]), float(ends[1]))


def ends_of(result: Result, sae: str, key: str) -> tuple[float, float]:
    """The 95% interval of a score, for a test; the whole line where there is none, which decides nothing."""
    return interval_of(result, sae, key) or (-math.inf, math.inf)


def lies_in(ends: tuple[float, float], low: float, high: float) -> bool:
    """Whether the whole interval lies between the two."""
    return low <= ends[0] and ends[1] <= high


def lies_out(ends: tuple[float, float], low: float, high: float) -> bool:
    """Whether the whole interval lies below the one or above the other."""
    return ends[1] < low or ends[0] > high


def scored(result: Result, key: str) -> list[Number]:
    """A score of every SAE that has it, with its interval."""
    rows = (row for row in result["saes"] if row.get(key) is not None)
    return [(row[key], interval_of(result, row["sae"], key)) for row in rows]


def pair_name(pair: Mapping[str, Any]) -> str:
    """Where the intervals of a pair of SAEs stand."""
    return f"{pair.get('small')} -> {pair.get('large')}"


def of_pairs(result: Result, pairs: Iterable[Mapping[str, Any]], key: str) -> list[Number]:
    """A score of pairs of SAEs with its interval."""
    return [(pair[key], interval_of(result, pair_name(pair), key)) for pair in pairs]


def surely(intervals: Iterable[Interval], low: float, high: float) -> tuple[int, int]:
    """How many intervals lie between the two as a whole, and how many outside; those that there are not do neither."""
    known_ones = [ends for ends in intervals if ends is not None]
    return sum(lies_in(ends, low, high) for ends in known_ones), sum(lies_out(ends, low, high) for ends in known_ones)


def middle(numbers: Sequence[Number]) -> Number:
    """The median of numbers and its interval, as one of them has it."""
    return sorted(numbers, key=lambda number: number[0])[(len(numbers) - 1) // 2]


def spread(values: Sequence[float]) -> str:
    """'0.71 to 0.86, median 0.80'."""
    low, high = min(values), max(values)
    return f"{low:.3g} to {high:.3g}, median {statistics.median(values):.3g}" if len(values) > 1 else f"{low:.3g}"


@dataclass(frozen=True, kw_only=True)
class Trend:
    """Whether a score rises or falls with something, other things equal: Kendall's tau within groups."""

    tau: float
    """-1: falls in every pair; 1: rises in every pair."""
    z: float
    """In standard deviations of tau if there were no trend."""
    n_pairs: int


def trend(rows: Sequence[Mapping[str, Any]], score: str, along: str, fixed: str) -> Trend | None:
    """Kendall's trend of a score along one key within groups of equal `fixed`; None without three pairs.

    Args:
        rows: of a result's `saes`.
        score: what may rise or fall.
        along: e.g. d_sae.
        fixed: e.g. nominal_l0; rows without it are left out.
    """
    groups: dict[Any, list[tuple[float, float]]] = {}
    for row in rows:
        if row.get(score) is not None and row.get(along) is not None and row.get(fixed) is not None:
            groups.setdefault(row[fixed], []).append((row[along], row[score]))
    agreed, pairs, variance = 0, 0, 0.0
    for points in groups.values():
        n = len(points)
        for i in range(n):
            for j in range(i):
                dx, dy = points[i][0] - points[j][0], points[i][1] - points[j][1]
                if dx != 0:
                    pairs += 1
                    agreed += (dx * dy > 0) - (dx * dy < 0)
        variance += n * (n - 1) * (2 * n + 5) / 18
    if pairs < 3:
        return None
    return Trend(tau=agreed / pairs, z=agreed / math.sqrt(variance), n_pairs=pairs)
