"""Is the probe for a norm the sum of latents weighted by their mean activation?  Paper, App. C.2, Fig. 14."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from inspector.experiment import Experiment, FitParams, Interval, Outcome, ResultObject, bounded
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Array, Figures, Measuring, Passes, Protocol, Statistics, Work, Workload

if TYPE_CHECKING:
    from inspector.statistics.probed import Probed, ProbedSae

SUFFIXES = {"mean_active": "", "power_ratio": "_power_ratio", "ols": "_ols"}
"""Of the scores of each prediction."""
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


def measure(measuring: Measuring, params: Params) -> Work[Probed]:
    """See `measure_probes`."""
    from inspector.statistics.probed import measure_probes

    return measure_probes(measuring, l0=params.l0, tokens=params.tokens)


def passes(work: Workload, params: Params) -> Passes:
    """Of `measure`: the covariance of every output, and four powers of every latent."""
    chosen, saes = work.sampled(params.tokens), work.nearest(params.l0)
    yield work.walk(
        "probes",
        chosen.train_contexts,
        model=work.again(chosen.train_contexts),
        sae=work.coded(chosen.n_train, saes),
        sums=work.squares(chosen.n_train, len(saes)) + 25.0 * len(saes) * work.sizes.d_in**3,
        numbers=4.0 * chosen.n_train * sum(ref.d_sae for ref in saes),
    )


def compute(statistics: Statistics, params: Params) -> Outcome:
    """How close each prediction comes, with latents resampled for the intervals."""
    found = cast("Probed", statistics.own["probe-vs-latents"])
    controls = {}

    def measured(one: ProbedSae) -> tuple[Row, shared.Intervals]:
        values: shared.Values = {}
        for name, suffix in SUFFIXES.items():
            fit = agreement(one.dot, getattr(one, name), one.frequency)
            values |= {f"{key}{suffix}": value for key, value in fit.items()}
        once = agreement(one.dot, one.mean_active, [1.0] * one.n_active)
        values |= {f"{key}_unweighted": value for key, value in once.items()}
        controls[one.sae] = agreement(one.dot, tuple(reversed(one.mean_active)), one.frequency)["correlation"]
        row = Row(n_train=found.n_tokens, n_test=0, active_latents=one.n_active, r2_probe=one.r2_probe, **values)
        return row, _intervals(one, params.resamples, found.seed)

    rows, intervals = shared.per_sae(statistics, found.saes, measured)
    far = [slope for slope in shared.known(getattr(row, "slope", None) for row in rows) if not 0.5 <= slope <= 2.0]
    return Outcome(
        rows=rows,
        result=_curve(max(found.saes, key=lambda each: each.d_sae, default=None), found, params),
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


def _curve(shown: ProbedSae | None, found: Probed, params: Params) -> Result:
    window = params.window or found.smoothed_over
    n = 0 if shown is None else min(params.latents, shown.n_active)
    first = {name: [] if shown is None else list(getattr(shown, name)[:n]) for name in ("dot", *SUFFIXES)}
    return Result(
        sae=None if shown is None else shown.sae,
        n_tokens=found.n_tokens,
        window=window,
        rank=list(range(1, n + 1)),
        dot_smoothed=smoothed(first["dot"], window),
        left_out=0 if shown is None else shown.d_sae - shown.n_active,
        dot=first["dot"],
        mean_active=first["mean_active"],
        power_ratio=first["power_ratio"],
        ols=first["ols"],
    )


def agreement(
    dot: Sequence[float] | Array, predicted: Sequence[float] | Array, weight: Sequence[float] | Array
) -> shared.Values:
    """Weighted slope through a line, correlation, and R-squared of the prediction as it is; None where undefined."""
    import numpy as np

    y, p, w = (np.asarray(values, dtype=np.float64) for values in (dot, predicted, weight))
    keep = np.isfinite(p) & np.isfinite(y)  # a latent that is always equally active has no covariance to divide
    y, p, w = y[keep], p[keep], w[keep]
    undefined: shared.Values = {"slope": None, "correlation": None, "r2": None}
    if len(y) < 2 or w.sum() == 0:
        return undefined
    w = w / w.sum()
    cy, cp = y - w @ y, p - w @ p
    var_y, var_p, cov = w @ cy**2, w @ cp**2, w @ (cy * cp)
    if var_y == 0 or var_p == 0:
        return undefined
    return {
        "slope": float(cov / var_p),
        "correlation": float(cov / np.sqrt(var_y * var_p)),
        "r2": float(1.0 - (w @ (y - p) ** 2) / var_y),
    }


def _intervals(one: ProbedSae, resamples: int, seed: int) -> dict[str, Interval]:
    """Latents drawn with replacement: the claim is about latents, and the probe is held fixed."""
    import numpy as np

    from inspector.statistics.measured import interval

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


def draw(result: ResultObject) -> Figures:
    """The curve of the widest SAE, and how close the predictions come in a table."""
    found, rows = result["result"], shared.rows_with(result, "r2_probe")
    scores = {
        "slope": "slope",
        "slope_unweighted": "slope, unweighted",
        "correlation": "correlation",
        "r2": "R² mean when active",
        "r2_power_ratio": "R² E w²/E w",
        "r2_ols": "R² Cov/Var",
    }
    x = [float(rank) for rank in found["rank"]]
    return (
        shared.sae_table("Probe weights and mean activations", result, scores, rows=rows),
        shared.curve(
            f"Probe against latents, {found['sae']}",
            "latent, by mean when active",
            "a* · W_dec[i]",
            (
                shared.line("dot product", x, found["dot"], style="points"),
                shared.line(f"mean of {found['window']}", x, found["dot_smoothed"]),
                *(shared.line(title, x, found[name]) for name, title in TITLES.items()),
            ),
            f"{found['left_out']:,} latents were never active on these tokens and are not drawn.",
        ),
    )


def _definition(protocol: Protocol, params: Params) -> str:
    how = "with an intercept" if protocol.intercept else "without an intercept"
    return (
        f"s = x_hat - b_dec; a* is the least-squares weight of ‖s‖² on s, {how}, over training tokens; per latent, "
        "a* · W_dec[i] against its mean activation where active, E w²/E w, and Cov(w, w²)/Var(w). Slope, correlation "
        "and R-squared are over latents, weighted by how often they are active, and `_unweighted` with each latent "
        "counted once. " + protocol.bootstrap(params.resamples, "latents", fixed="the probe")
    )


EXPERIMENT = Experiment(
    id="probe-vs-latents",
    title="Probe against latents",
    question="Is the probe for the squared norm of Sae(x) the sum of its latents weighted by their mean activation?",
    reference="App. C.2, Eqs. 21-22, Fig. 14",
    definition=_definition,
    contradicted_by="A slope across latents far from 1 (C19).",
    params=Params,
    measure=measure,
    passes=passes,
    compute=compute,
    draw=draw,
)
