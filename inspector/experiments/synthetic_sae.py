"""Would the decomposition find noise that was planted?  Paper, App. C.3 and B.2, Fig. 15, Table 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from inspector.experiment import Experiment, FitParams, Outcome, ResultObject, bounded, chosen
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Figures, Measuring, Passes, Protocol, Statistics, Work, Workload

if TYPE_CHECKING:
    from inspector.statistics.synthetic import Planted, Point

ENCODE = ("clean", "noisy")
NOISES = ("dense", "introduced")
EXTRA = ((1.0, 0.6), (0.6, 1.0))
"""Levels of both noises in units, beside the grid, at which latents are ablated too."""
PAPER_TABLE = {
    "dense noise, estimated dense": 0.9842,
    "dense noise, estimated introduced": 0.1417,
    "introduced noise, estimated dense": 0.0988,
    "introduced noise, estimated introduced": 0.9036,
}
CEILING = 0.959
"""Correlation of 0..4 with their squares: what a perfect estimate of a variance scores against sigma."""


@dataclass(frozen=True, kw_only=True)
class Params(FitParams):
    """Which SAE, how many tokens, what noise."""

    sae: str = ""
    """Whose reconstructions are the data; empty: of the narrowest width, the one nearest `l0`."""
    l0: float = bounded(68.0, 0, 1_000_000)
    """Nominal, as the paper's SAE."""
    tokens: int = bounded(0, 0, 1_000_000_000)
    """About so many, in whole contexts; 0: 12,000, or 50 per dimension of x if that is more."""
    encode: str = chosen("clean", ENCODE)
    """'clean': encode x' as the paper does; 'noisy': encode x' with its dense noise."""
    unit: float = bounded(0.0, 0, 1_000_000)
    """Standard deviation of a unit of noise; 0: noise of one unit has 5% of the variance of x'. paper-code: 1."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Estimates at nothing ablated over the grid of both noise levels, and two runs of ablations."""

    sae: str
    encode: str
    unit: float
    n_train: int
    n_test: int
    levels: list[float]
    """Standard deviations of both noises, in units (E-27: the paper's labels call them variances)."""
    dense: list[list[float | None]]
    """Estimated dense share, FVU minus nonlinear FVU; [i][j]: dense noise levels[i], introduced noise levels[j]."""
    introduced: list[list[float | None]]
    """Estimated introduced share, nonlinear FVU."""
    dense_variance: list[list[float | None]]
    """The estimate times the variance of x, beside d sigma², which is the truth."""
    introduced_variance: list[list[float | None]]
    true_variance: list[float]
    """d sigma² of each level."""
    correlations: dict[str, float | None]
    """Pearson over the 25 points, of sigma with each estimate: the paper's Table 1."""
    correlations_squared: dict[str, float | None]
    """Of sigma², in which a perfect estimate scores 1."""
    correlations_variance: dict[str, float | None]
    """Of sigma² with the estimates in units of variance."""
    panels: list[dict[str, object]]
    """Per extra combination: dense, introduced, ablated [percent], fvu, fvu_nonlinear."""
    paper: dict[str, float] = field(default_factory=lambda: dict(PAPER_TABLE))
    ceiling: float = CEILING


def measure(measuring: Measuring, params: Params) -> Work[Planted]:
    """See `measure_planted`."""
    from inspector.statistics.synthetic import measure_planted

    return measure_planted(
        measuring, sae_id=params.sae, l0=params.l0, tokens=params.tokens, encode=params.encode, unit=params.unit
    )


def passes(work: Workload, params: Params) -> Passes:
    """Of `measure`: an SAE's outputs, and 37 combinations of noises in them, each encoded, fitted and scored."""
    narrowest = min(ref.d_sae for ref in work.saes)
    sae = [ref for ref in work.nearest(params.l0) if ref.sae_id == params.sae or ref.d_sae == narrowest][:1]
    chosen = work.sampled(params.tokens or max(12_000, 50 * work.sizes.d_in))
    first = work.again(chosen.contexts)
    yield work.walk("synthetic data", chosen.contexts, model=first, sae=work.coded(chosen.n_tokens, sae))
    for dense in (0, 0.6, 1, 2, 3, 4):
        n = 5 * (dense != 0.6) + 6 * (dense in (0.6, 1))
        yield work.walk(
            f"planted noise {dense:g}",
            chosen.contexts,
            model=first,
            sae=n * work.coded(chosen.n_tokens, sae) + work.squares(chosen.n_test, n),
            sums=work.squares(chosen.n_train, n + 1) + 25.0 * work.sizes.d_in**3,
            numbers=work.vectors(chosen.n_tokens, 12 * n),
        )


def compute(statistics: Statistics, params: Params) -> Outcome:
    """Both estimates over the grid, their correlations with what was planted, and the ablations."""
    found = cast("Planted", statistics.own["synthetic-sae"])
    grid = [point for point in found.points if point.ablated == 0 and (point.dense, point.introduced) not in EXTRA]
    levels = sorted({point.dense for point in grid})
    by_place = {(point.dense, point.introduced): point for point in grid}
    draws = [correlations(grid, i, "sigma") for i in range(len(grid[0].fvu))]
    plain, intervals = shared.of_draws({name: [draw[name] for draw in draws] for name in PAPER_TABLE})

    def at(kind: str, scale: bool = False) -> list[list[float | None]]:
        return [
            [_estimate(by_place[a, b], 0, kind, by_place[a, b].variance if scale else 1.0) for b in levels]
            for a in levels
        ]

    panels: list[dict[str, object]] = []
    for a, b in EXTRA:
        line = sorted((p for p in found.points if (p.dense, p.introduced) == (a, b)), key=lambda point: point.ablated)
        panels.append(
            {
                "dense": a,
                "introduced": b,
                "ablated": [point.ablated for point in line],
                "fvu": [point.fvu[0] for point in line],
                "fvu_nonlinear": [point.fvu_nonlinear[0] for point in line],
            }
        )
    return Outcome(
        rows=(),
        result=Result(
            sae=found.sae,
            encode=found.encode,
            unit=found.unit,
            n_train=found.n_train,
            n_test=found.n_test,
            levels=levels,
            dense=at("dense"),
            introduced=at("introduced"),
            dense_variance=at("dense", scale=True),
            introduced_variance=at("introduced", scale=True),
            true_variance=[found.d * (level * found.unit) ** 2 for level in levels],
            correlations=plain,
            correlations_squared=correlations(grid, 0, "square"),
            correlations_variance=correlations(grid, 0, "variance"),
            panels=panels,
        ),
        intervals={found.sae: intervals},
        controls={
            "no_noise": {
                "definition": "Estimates with nothing planted and nothing ablated: what the SAE does not reconstruct "
                "of its own reconstruction (S-26: 0 if it reconstructs it exactly).",
                **{name: _estimate(by_place[0.0, 0.0], 0, name, 1.0) for name in NOISES},
            },
            "ceiling": {
                "definition": "Correlation of sigma with sigma² over the grid: a perfect estimate of a variance "
                "scores this against sigma, not 1.",
                "correlation": _pearson(levels, [level**2 for level in levels]),
            },
        },
    )


def correlations(grid: Sequence[Point], draw: int, kind: str) -> shared.Values:
    """Table 1 for one bootstrap draw: 'sigma', its 'square', or the square with estimates as 'variance'."""
    table: shared.Values = {}
    for planted in NOISES:
        sizes = [getattr(point, planted) for point in grid]
        truth = sizes if kind == "sigma" else [size**2 for size in sizes]
        for estimated in NOISES:
            scales = [point.variance if kind == "variance" else 1.0 for point in grid]
            values = [_estimate(point, draw, estimated, scale) for point, scale in zip(grid, scales, strict=True)]
            estimates = shared.known(values)
            complete = len(estimates) == len(values)
            table[f"{planted} noise, estimated {estimated}"] = _pearson(truth, estimates) if complete else None
    return table


def _estimate(point: Point, draw: int, kind: str, scale: float) -> float | None:
    value = point.fvu_nonlinear[draw]
    if kind == "dense":
        value = point.fvu[draw] - value
    return None if value != value else value * scale


def _pearson(a: Sequence[float], b: Sequence[float]) -> float | None:
    n = len(a)
    mean_a, mean_b = sum(a) / n, sum(b) / n
    cov = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    size = (sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)) ** 0.5
    return cov / size if size else None


def draw(result: ResultObject) -> Figures:
    """Table 1, both maps of estimates, and both panels of ablations."""
    from inspector.drawing.figures import Axis, Heatmap

    found = result["result"]
    intervals = result["intervals"][found["sae"]]
    further = [found[name] for name in ("paper", "correlations_squared", "correlations_variance")]
    table = shared.table(
        "Correlation of planted noise with the estimates",
        ("planted, estimated", ("sigma", "95% low", "high"), "paper", "sigma²", "sigma², variance units"),
        [
            (name, (value, intervals[name]), *(each[name] for each in further))
            for name, value in found["correlations"].items()
        ],
        f"A perfect estimate of the variance scores {found['ceiling']} against sigma.\n{result['definition']}",
        digits=4,
    )
    ticks = tuple(f"{level:g}" for level in found["levels"])
    maps = (
        Heatmap(
            title=f"Estimated {name} noise",
            x=Axis(label="introduced noise, sigma in units"),
            y=Axis(label="dense noise, sigma in units"),
            value=Axis(label="share of variance"),
            x_ticks=ticks,
            y_ticks=ticks,
            values=tuple(tuple(row) for row in found[name]),
        )
        for name in NOISES
    )
    curves = (
        shared.curve(
            f"Dense noise {panel['dense']:g}, introduced {panel['introduced']:g}",
            Axis(label="latents ablated", unit="%"),
            "FVU",
            (
                shared.line(name, map(float, panel["ablated"]), panel[key])
                for name, key in (("reconstruction", "fvu"), ("+ linear", "fvu_nonlinear"))
            ),
            "The paper: the curve with the linear prediction is horizontal.",
        )
        for panel in found["panels"]
    )
    return table, *maps, *curves


def _definition(protocol: Protocol, params: Params) -> str:
    how = "with an intercept" if protocol.intercept else "without an intercept"
    tokens = "Held-out tokens, means per dimension."
    over = protocol.held_out_contexts
    if protocol.planted_as_published:
        tokens = "In sample: fitted and scored on the same tokens; variance around one mean of all dimensions (D-21)."
        over = "contexts"
    encoded = "x' with its dense noise is encoded" if params.encode == "noisy" else "x' without its noise is encoded"
    return (
        "x' = Sae(x); noise of sigma per dimension is added to x' (dense) and to Sae(x') (introduced); "
        f"{encoded}; the error of the latter is regressed on the former {how}. Dense is estimated as FVU - nonlinear "
        "FVU and introduced as nonlinear FVU, with no latent ablated; Table 1 is the Pearson correlation of sigma with "
        f"each over a 5 x 5 grid. {tokens} " + protocol.bootstrap(params.resamples, over, fixed="the maps")
    )


EXPERIMENT = Experiment(
    id="synthetic-sae",
    title="Planted noise",
    question="If the truth were SAE latents plus noise, would the decomposition recover how much noise there is?",
    reference="App. C.3, B.2, Fig. 15, Table 1",
    definition=_definition,
    contradicted_by="A map fitted on other tokens changes the off-diagonal correlations (C16).",
    params=Params,
    measure=measure,
    passes=passes,
    compute=compute,
    draw=draw,
)
