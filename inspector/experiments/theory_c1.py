"""For which weights is a squared norm linear in the vector?  Paper, App. C.1."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from inspector.experiment import Experiment, FitParams, Outcome, ResultObject

if TYPE_CHECKING:
    from inspector.drawing.figures import Figure
    from inspector.engine.theory import Array
    from inspector.events import Event
    from inspector.statistics.measured import Statistics
    from inspector.statistics.measuring import Measuring

LAWS = (
    "bernoulli 0.1", "poisson 0.2", "poisson 1", "poisson 5",
    "sparse 0.02 constant", "sparse 0.02 uniform", "sparse 0.02 half-normal", "sparse 0.02 exponential",
)  # fmt: skip
PRINTED_CORRELATION = 0.73
"""What the paper prints for Poisson weights of rate 1, as 6/sqrt(66); the closed form is 3/sqrt(11) = 0.9045 (E-14)."""
CURVE_RATES = tuple(10 ** (-2 + i * 4 / 40) for i in range(41))


@dataclass(frozen=True, kw_only=True)
class Params(FitParams):
    """Size of the simulation."""

    draws: int = 40_000
    """Vectors per repeat."""
    summands: int = 8
    """Orthogonal features."""
    repeats: int = 8
    """Independent simulations; their spread is the interval."""


@dataclass(frozen=True, kw_only=True)
class Law:
    """One law of the weights: closed form beside simulation."""

    law: str
    slope: float
    """Cov(w, w^2) / Var(w)."""
    slope_simulated: float
    """Mean over features and repeats."""
    slope_interval: tuple[float, float]
    """95%: twice the spread of repeats around their mean."""
    paper_slope: float
    """E w^2 / E w, which only makes the means agree (E-15)."""
    r2: float
    r2_simulated: float
    r2_interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """What the simulation gave."""

    laws: tuple[Law, ...]
    through_origin: float
    """Slope without an intercept, Poisson weights of rate 1."""
    wrong_slope_r2: float
    """R-squared of Poisson weights of rate 1 predicted with the paper's slope and the best constant."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Closed forms, simulation, and the paper's slip."""

    laws: list[dict[str, object]]
    correlation_poisson_1: float
    """3 / sqrt(11)."""
    correlation_poisson_1_simulated: float
    paper_correlation_poisson_1: float
    """As printed (E-14)."""
    through_origin: float
    """(rate^2 m + rate m + 2 rate + 1) / (rate m + 1) at rate 1."""
    through_origin_simulated: float
    wrong_slope_r2: float
    """With the paper's slope E w^2 / E w instead of least squares."""
    rates: list[float]
    correlation_by_rate: list[float]
    """(2 rate + 1) / sqrt(4 rate^2 + 6 rate + 1)."""


def measure(measuring: Measuring, params: Params) -> Generator[Event, None, Simulated]:
    """Draw weights of every law and regress their sum of squares on them."""
    import numpy as np

    from inspector.engine.theory import draw_weights, predicted
    from inspector.events import PassProgress

    rng = np.random.default_rng(measuring.seed)
    laws = []
    for done, law in enumerate(LAWS, start=1):
        slopes, scores = [], []
        for _ in range(max(params.repeats, 2)):
            w = draw_weights(law, params.draws, params.summands, rng)
            weights, r2 = _regressed(w, intercept=True)
            slopes.append(float(weights.mean()))
            scores.append(r2)
        closed = predicted(law)
        laws.append(
            Law(
                law=law,
                slope=closed.slope,
                slope_simulated=float(np.mean(slopes)),
                slope_interval=_spread(slopes),
                paper_slope=closed.paper_slope,
                r2=closed.r2,
                r2_simulated=float(np.mean(scores)),
                r2_interval=_spread(scores),
            )
        )
        yield PassProgress(
            name="simulation", contexts_done=done, contexts_total=len(LAWS), tokens_per_second=0.0, seconds_left=0.0
        )
    w = draw_weights("poisson 1", params.draws, params.summands, rng)
    origin, _ = _regressed(w, intercept=False)
    y = (w**2).sum(axis=1)
    guess = 2.0 * w.sum(axis=1)
    rest = y - guess
    return Simulated(
        laws=tuple(laws),
        through_origin=float(origin.mean()),
        wrong_slope_r2=float(1.0 - rest.var() / y.var()),
    )


def _regressed(w: Array, *, intercept: bool) -> tuple[Array, float]:
    """Weights [m] and R-squared of |x|^2 = sum w^2 on w [n, m]."""
    import numpy as np

    values = w
    y = (values**2).sum(axis=1)
    x = values - values.mean(axis=0) if intercept else values
    target = y - y.mean() if intercept else y
    weights = np.linalg.solve(x.T @ x, x.T @ target)
    rest = target - x @ weights
    return weights, float(1.0 - rest @ rest / ((y - y.mean()) ** 2).sum())


def _spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean of the repeats, give or take two standard errors."""
    n = len(values)
    mean = sum(values) / n
    error = (sum((value - mean) ** 2 for value in values) / (n - 1) / n) ** 0.5
    return mean - 2 * error, mean + 2 * error


def compute(statistics: Statistics, params: Params) -> Outcome:
    """Closed forms beside what was simulated."""
    from dataclasses import asdict

    from inspector.engine.theory import poisson, poisson_through_origin

    found = cast("Simulated", statistics.own["theory-c1"])
    simulated = {each.law: each for each in found.laws}["poisson 1"].r2_simulated
    return Outcome(
        rows=(),
        result=Result(
            laws=[asdict(each) | {"slope_interval": list(each.slope_interval), "r2_interval": list(each.r2_interval)}
                  for each in found.laws],
            correlation_poisson_1=poisson(1.0).r2 ** 0.5,
            correlation_poisson_1_simulated=max(simulated, 0.0) ** 0.5,
            paper_correlation_poisson_1=PRINTED_CORRELATION,
            through_origin=poisson_through_origin(1.0, params.summands),
            through_origin_simulated=found.through_origin,
            wrong_slope_r2=found.wrong_slope_r2,
            rates=list(CURVE_RATES),
            correlation_by_rate=[poisson(rate).r2 ** 0.5 for rate in CURVE_RATES],
        ),
        intervals={each.law: {"r2": each.r2_interval, "slope": each.slope_interval} for each in found.laws},
        controls={
            "two_valued": {
                "definition": "Bernoulli weights: R-squared must be 1 exactly, whatever depends on what (S-19).",
                "r2": {each.law: each.r2_simulated for each in found.laws if each.law.startswith("bernoulli")},
            },
            "paper_slope": {
                "definition": "R-squared for Poisson weights of rate 1 with the paper's slope E w^2 / E w = 2 and the "
                "best constant, instead of the least-squares slope 3 (E-15).",
                "r2": found.wrong_slope_r2,
            },
        },
    )  # fmt: skip


def draw(result: ResultObject) -> Sequence[Figure]:
    """A table of the laws, and the correlation of Poisson weights against their rate."""
    from inspector.drawing.figures import Axis, Column, Curve, Series, Table

    found = result["result"]
    table = Table(
        title="Squared norm of a sum of orthogonal features, predicted from it",
        columns=(
            Column(title="weights"),
            *(Column(title=title, digits=4) for title in (
                "slope", "simulated", "paper's slope", "R²", "simulated R²", "95% low", "high"
            )),
        ),
        rows=tuple(
            (each["law"], each["slope"], each["slope_simulated"], each["paper_slope"], each["r2"],
             each["r2_simulated"], *each["r2_interval"])
            for each in found["laws"]
        ),
        note=(
            f"Poisson weights of rate 1: correlation {found['correlation_poisson_1']:.4f} = 3/sqrt(11), simulated "
            f"{found['correlation_poisson_1_simulated']:.4f}; the paper prints "
            f"{found['paper_correlation_poisson_1']} (E-14).\n{result['definition']}"
        ),
    )  # fmt: skip
    rates = tuple(found["rates"])
    curve = Curve(
        title="Poisson weights",
        x=Axis(label="rate", log=True),
        y=Axis(label="correlation of |x|² and its best probe"),
        series=(
            Series(name="closed form", x=rates, y=tuple(found["correlation_by_rate"])),
            Series(name="printed in the paper", x=(1.0,), y=(found["paper_correlation_poisson_1"],), style="points"),
            Series(name="simulated", x=(1.0,), y=(found["correlation_poisson_1_simulated"],), style="points"),
        ),
    )
    return table, curve


EXPERIMENT = Experiment(
    id="theory-c1",
    title="Theory of the norm probe",
    question="For which laws of the weights is the squared norm of a sum of orthogonal features linear in the sum?",
    reference="App. C.1",
    definition=(
        "x = sum w_i y_i with orthonormal y_i and independent w_i >= 0; |x|^2 is regressed on x with an intercept. "
        "Closed form: slope Cov(w, w^2) / Var(w), R-squared = Cov(w, w^2)^2 / (Var(w) Var(w^2)). Simulated beside it. "
        "Interval: two standard errors over repeats."
    ),
    contradicted_by=(
        "Simulation outside the closed form's interval, or a perfect probe where weights take more than two values."
    ),
    params=Params,
    needs=(),
    needs_target=False,
    measure=measure,
    compute=compute,
    draw=draw,
)
