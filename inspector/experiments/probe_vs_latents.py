"""Is the probe for a norm the sum of latents weighted by their mean activation?  Paper, App. C.2, Fig. 14."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from inspector.experiment import Experiment, FitParams, Interval, Outcome, ResultObject, bounded

if TYPE_CHECKING:
    from inspector.drawing.figures import Figure
    from inspector.engine.theory import Array
    from inspector.events import Event
    from inspector.statistics.measured import Statistics
    from inspector.statistics.pipeline import Measuring
    from inspector.statistics.probed import Probed, ProbedSae
    from inspector.statistics.profiles import Protocol

PREDICTIONS = ("mean_active", "power_ratio", "ols")
TITLES = {"mean_active": "mean when active", "power_ratio": "E w²/E w", "ols": "Cov(w, w²)/Var(w)"}


@dataclass(frozen=True, kw_only=True)
class Params(FitParams):
    """Which SAEs, how many tokens, and what is drawn."""

    l0: float = bounded(60.0, 0, 1_000_000)
    """Per width, the SAE whose nominal L0 is nearest; 0 takes all."""
    tokens: int = bounded(40_000, 0, 1_000_000_000)
    """About so many of the run's tokens, in whole contexts; of them the training ones are used. 0 takes all."""
    latents: int = bounded(10_000, 1, 1_000_000)
    """Latents in the curve, strongest mean when active first, as the paper's code."""
    window: int = bounded(0, 0, 10_000)
    """Of the running mean in the curve; 0: by profile, 10 as the paper's caption or 100 as its code (D-20)."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Per SAE, over latents weighted by how often they are active: the dot product against each prediction."""

    n_train: int
    """Tokens the probe was fitted on and the latents were added up over."""
    n_test: int
    """0: the claim is about the latents of those tokens."""
    active_latents: int
    slope: float | None
    """Of the dot product on the mean activation when active; 1 is "equal"."""
    correlation: float | None
    r2: float | None
    """1 - sum f (dot - mean)² / sum f (dot - average dot)²: of the prediction as it is, no slope fitted."""
    slope_power_ratio: float | None
    """On E w² / E w."""
    correlation_power_ratio: float | None
    r2_power_ratio: float | None
    slope_ols: float | None
    """On Cov(w, w²) / Var(w)."""
    correlation_ols: float | None
    r2_ols: float | None
    slope_unweighted: float | None
    """As `slope`, every latent counted once, as the eye reads Fig. 14."""
    correlation_unweighted: float | None
    r2_unweighted: float | None
    r2_probe: float | None
    """Of ‖s‖² on s, training tokens: how good the probe itself is."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The curve of one SAE: the widest."""

    sae: str | None
    n_tokens: int
    window: int
    rank: list[int]
    """1 is the latent with the largest mean activation where it is active, as the public code orders Fig. 14 (D-20)."""
    dot: list[float]
    dot_smoothed: list[float]
    mean_active: list[float]
    power_ratio: list[float]
    ols: list[float]
    left_out: int
    """Latents that were never active, which have none of these."""


def measure(measuring: Measuring, params: Params) -> Generator[Event, None, Probed]:
    """See `measure_probes`."""
    from inspector.statistics.probed import measure_probes

    return (yield from measure_probes(measuring, l0=params.l0, tokens=params.tokens))


def compute(statistics: Statistics, params: Params) -> Outcome:
    """How close each prediction comes, with latents resampled for the intervals."""
    found = cast("Probed", statistics.own["probe-vs-latents"])
    by_id = {each.sae: each for each in found.saes}
    rows: list[Row | None] = []
    intervals: dict[str, dict[str, Interval]] = {}
    controls = {}
    for sae in statistics.saes:
        one = by_id.get(sae.ref.sae_id)
        if one is None:
            rows.append(None)
            continue
        fits = {name: agreement(one.dot, getattr(one, name), one.frequency) for name in PREDICTIONS}
        names = {"mean_active": "", "power_ratio": "_power_ratio", "ols": "_ols"}
        values = {f"{key}{names[name]}": value for name, fit in fits.items() for key, value in fit.items()}
        once = agreement(one.dot, one.mean_active, [1.0] * one.n_active)
        values |= {f"{key}_unweighted": value for key, value in once.items()}
        rows.append(Row(n_train=found.n_tokens, n_test=0, active_latents=one.n_active, r2_probe=one.r2_probe, **values))
        intervals[one.sae] = _intervals(one, params.resamples, found.seed)
        controls[one.sae] = agreement(one.dot, tuple(reversed(one.mean_active)), one.frequency)["correlation"]
    shown = max(found.saes, key=lambda each: each.d_sae, default=None)
    window = params.window or found.smoothed_over
    n = 0 if shown is None else min(params.latents, shown.n_active)
    result = Result(
        sae=None if shown is None else shown.sae,
        n_tokens=found.n_tokens,
        window=window,
        rank=list(range(1, n + 1)),
        dot=[] if shown is None else list(shown.dot[:n]),
        dot_smoothed=[] if shown is None else smoothed(shown.dot[:n], window),
        mean_active=[] if shown is None else list(shown.mean_active[:n]),
        power_ratio=[] if shown is None else list(shown.power_ratio[:n]),
        ols=[] if shown is None else list(shown.ols[:n]),
        left_out=0 if shown is None else shown.d_sae - shown.n_active,
    )
    far = [row.slope for row in rows if row is not None and row.slope is not None and not 0.5 <= row.slope <= 2.0]
    return Outcome(
        rows=tuple(rows),
        result=result,
        intervals=intervals,
        controls={
            "reversed_latents": {
                "definition": "The same correlation with the mean activations handed to the latents in reverse order: "
                "what no relation looks like.",
                "correlation": controls,
            },
            "independent_latents": {
                "definition": "r2_ols: agreement with the least-squares weight that independent, orthogonal latents "
                "would have (S-18); the paper's E w² / E w makes only the means agree (E-15).",
            },
        },
        warnings=tuple(f"The slope on mean activation is {slope:.2f}, far from 1 (C19)." for slope in far),
    )


def agreement(
    dot: Sequence[float] | Array, predicted: Sequence[float] | Array, weight: Sequence[float] | Array
) -> dict[str, float | None]:
    """Weighted slope through a line, correlation, and R-squared of the prediction as it is; None where undefined."""
    import numpy as np

    y, p, w = (np.asarray(values, dtype=np.float64) for values in (dot, predicted, weight))
    keep = np.isfinite(p) & np.isfinite(y)  # a latent that is always equally active has no covariance to divide
    y, p, w = y[keep], p[keep], w[keep]
    if len(y) < 2 or w.sum() == 0:
        return {"slope": None, "correlation": None, "r2": None}
    w = w / w.sum()
    cy, cp = y - w @ y, p - w @ p
    var_y, var_p, cov = w @ cy**2, w @ cp**2, w @ (cy * cp)
    if var_y == 0 or var_p == 0:
        return {"slope": None, "correlation": None, "r2": None}
    return {
        "slope": float(cov / var_p),
        "correlation": float(cov / np.sqrt(var_y * var_p)),
        "r2": float(1.0 - (w @ (y - p) ** 2) / var_y),
    }


def _intervals(one: ProbedSae, resamples: int, seed: int) -> dict[str, Interval]:
    """Latents drawn with replacement: the claim is about latents, and the probe is held fixed."""
    import numpy as np

    from inspector.statistics.intervals import interval

    rng = np.random.default_rng(seed)
    dot, mean, frequency = (np.asarray(getattr(one, name)) for name in ("dot", "mean_active", "frequency"))
    keys = ("slope", "correlation", "r2")
    draws: dict[str, list[float | None]] = {f"{key}{kind}": [None] for kind in ("", "_unweighted") for key in keys}
    for _ in range(resamples):
        drawn = rng.integers(0, one.n_active, one.n_active)
        times = np.bincount(drawn, minlength=one.n_active).astype(np.float64)
        for kind, weight in (("", times * frequency), ("_unweighted", times)):
            for key, value in agreement(dot, mean, weight).items():
                draws[f"{key}{kind}"].append(value)
    return {key: interval(values) for key, values in draws.items()}


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Running mean over `window` neighbours, fewer at the ends."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    left, right = window // 2, max(window - window // 2, 1)
    ends = [(max(i - left, 0), min(i + right, len(values))) for i in range(len(values))]
    return [(sums[stop] - sums[start]) / (stop - start) for start, stop in ends]


def draw(result: ResultObject) -> Sequence[Figure]:
    """The curve of the widest SAE, and how close the predictions come in a table."""
    from inspector.drawing.figures import Axis, Curve, Score, Series, sae_table

    rows = [row for row in result["saes"] if "r2_probe" in row]
    scores = (
        Score(key="slope", title="slope"),
        Score(key="slope_unweighted", title="slope, unweighted"),
        Score(key="correlation", title="correlation"),
        Score(key="r2", title="R² mean when active"),
        Score(key="r2_power_ratio", title="R² E w²/E w"),
        Score(key="r2_ols", title="R² Cov/Var"),
    )
    table = sae_table("Probe weights and mean activations", rows, result["intervals"], scores, result["definition"])
    found = result["result"]
    x = tuple(float(rank) for rank in found["rank"])
    series = [
        Series(name="dot product", x=x, y=tuple(found["dot"]), style="points"),
        Series(name=f"mean of {found['window']}", x=x, y=tuple(found["dot_smoothed"])),
        *(Series(name=TITLES[name], x=x, y=tuple(found[name])) for name in PREDICTIONS),
    ]
    curve = Curve(
        title=f"Probe against latents, {found['sae']}",
        x=Axis(label="latent, by mean when active"),
        y=Axis(label="a* · W_dec[i]"),
        series=tuple(series),
        note=f"{found['left_out']:,} latents were never active on these tokens and are not drawn.",
    )
    return table, curve


def definition(protocol: Protocol, params: Params) -> str:
    """What a run with this protocol measures."""
    from inspector.statistics.profiles import bootstrap

    how = "with an intercept" if protocol.intercept else "without an intercept"
    return (
        f"s = x_hat - b_dec; a* is the least-squares weight of ‖s‖² on s, {how}, over training tokens; per latent, "
        "a* · W_dec[i] against its mean activation where active, E w²/E w, and Cov(w, w²)/Var(w). Slope, correlation "
        "and R-squared are over latents, weighted by how often they are active, and `_unweighted` with each latent "
        "counted once. " + bootstrap(params.resamples, "latents", fixed="the probe")
    )


EXPERIMENT = Experiment(
    id="probe-vs-latents",
    title="Probe against latents",
    question="Is the probe for the squared norm of Sae(x) the sum of its latents weighted by their mean activation?",
    reference="App. C.2, Eqs. 21-22, Fig. 14",
    definition=definition,
    contradicted_by="A slope across latents far from 1 (C19).",
    params=Params,
    measure=measure,
    compute=compute,
    draw=draw,
)
