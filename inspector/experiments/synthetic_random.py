"""Are random features a fair test of the decomposition?  Paper, App. D."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inspector.experiment import Experiment, FitParams, Interval, Outcome, ResultObject, bounded, chosen
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Figures, Passes, Protocol, Work, Workload

ABLATED = tuple(i / 10 for i in range(11))
MOST_BYTES = 4_000_000_000
"""Of the simulation's arrays."""
EXPLAINED_WITHIN = 0.02
"""What finite samples and features leave between the curve and alpha (1 - alpha)."""


@dataclass(frozen=True, kw_only=True)
class Params(FitParams):
    """Size of the simulation; the paper's is features=100000, dims=4000, active=100, which takes hours on a CPU."""

    features: int = bounded(8000, 2, 1_000_000)
    """Random Gaussian directions, many more than dims."""
    dims: int = bounded(100, 2, 10_000)
    """Dimensions of the activations."""
    samples: int = bounded(12_000, 100, 1_000_000)
    """Two thirds are fitted, the rest scored."""
    active: float = bounded(60.0, 0, 10_000)
    """Expected number of features per token."""
    exponent: float = bounded(0.5, 0, 10)
    """Power law: feature i is active in proportion to i^-exponent. The paper does not state its own."""
    magnitudes: str = chosen("equal", ("equal", "exponential"))
    """'equal', or 'exponential': of an active feature."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """By share of features ablated, rarest first."""

    ablated: list[float]
    alpha: list[float]
    """Share of the variance that the ablated features have."""
    fvu: list[float]
    """Of what is left."""
    fvu_nonlinear: list[float]
    """Of that plus the linear prediction of the rest, held-out samples."""
    expected: list[float]
    """alpha (1 - alpha), S-17."""
    largest_gap: float
    """Between fvu_nonlinear and alpha (1 - alpha)."""
    parabola: bool
    """Whether that gap is within what finite numbers of samples and features leave."""
    n_train: int
    n_test: int


def simulate(seed: int, params: Params) -> Work[Outcome]:
    """Draw sparse sums of random directions, take features away, and predict what is missing from the whole.

    Intervals: 95% bootstrap over held-out samples of fvu_nonlinear.

    Raises:
        UsageError: the simulation is too large.
    """
    import numpy as np

    from inspector.errors import UsageError
    from inspector.events import PassProgress

    n_bytes = 8 * params.dims * (params.features + len(ABLATED) * params.samples)
    if n_bytes > MOST_BYTES:
        raise UsageError(
            f"{params.features:,} features and {params.samples:,} samples of {params.dims:,} dimensions take "
            f"{n_bytes / 1e9:.1f} GB. Write fewer, so that it is at most {MOST_BYTES / 1e9:g} GB."
        )
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((params.features, params.dims)) / np.sqrt(params.dims)
    frequency = np.arange(1, params.features + 1) ** -params.exponent
    frequency = np.minimum(frequency * params.active / frequency.sum(), 1.0)
    # Rarest last: taking away from the end is what an SAE of too few latents lacks.
    cuts = [round((1.0 - share) * params.features) for share in ABLATED]
    kept = np.zeros((len(cuts), params.samples, params.dims))
    for token in range(params.samples):
        active = np.nonzero(rng.random(params.features) < frequency)[0]
        weights = rng.exponential(size=len(active)) if params.magnitudes == "exponential" else np.ones(len(active))
        vectors = weights[:, None] * directions[active]
        running = np.concatenate([np.zeros((1, params.dims)), np.cumsum(vectors, axis=0)])
        kept[:, token] = running[np.searchsorted(active, cuts)]
        if token % 2000 == 1999:
            yield PassProgress(name="simulation", contexts_done=token + 1, contexts_total=params.samples,
                               tokens_per_second=0.0, seconds_left=0.0)  # fmt: skip
    n_train = 2 * params.samples // 3
    x = kept[0]
    variance_all = frequency * (1 - frequency) if params.magnitudes == "equal" else 2 * frequency - frequency**2
    variance_all = variance_all * (directions**2).sum(axis=1)
    fitted, tested = x[:n_train], x[n_train:]
    centre = fitted.mean(axis=0)
    scatter = (fitted - centre).T @ (fitted - centre)
    total = ((tested - tested.mean(axis=0)) ** 2).sum(axis=1)
    counts = rng.multinomial(len(tested), np.full(len(tested), 1 / len(tested)), size=params.resamples)
    curves: dict[str, list[float]] = {"alpha": [], "fvu": [], "fvu_nonlinear": []}
    intervals: list[Interval] = []
    for cut, x_hat in zip(cuts, kept, strict=True):
        error = x - x_hat
        mean = error[:n_train].mean(axis=0)
        weight = np.linalg.solve(scatter, (fitted - centre).T @ (error[:n_train] - mean))
        rest = ((error[n_train:] - mean - (tested - centre) @ weight) ** 2).sum(axis=1)
        curves["alpha"].append(float(variance_all[cut:].sum() / variance_all.sum()))
        curves["fvu"].append(float((error[n_train:] ** 2).sum() / total.sum()))
        curves["fvu_nonlinear"].append(float(rest.sum() / total.sum()))
        drawn = np.sort((counts @ rest) / (counts @ total))
        low, high = np.percentile(drawn, [2.5, 97.5]).tolist() if len(drawn) else (0.0, 0.0)
        intervals.append((low, high) if len(drawn) else None)
    return _outcome(curves, intervals, params, n_train)


def passes(work: Workload, params: Params) -> Passes:
    """Of `simulate`: which features of every sample are active, their sums, and eleven regressions."""
    samples, dims = params.samples, params.dims
    cuts = len(ABLATED)
    yield work.walk(
        "simulation",
        samples,
        sums=2.0 * cuts * (samples * dims**2 + dims**3 + params.resamples * samples / 3),
        numbers=samples * (4 * params.features + 10 * params.active * dims + cuts * dims),
    )


def _outcome(curves: Mapping[str, list[float]], ends: Sequence[Interval], params: Params, n_train: int) -> Outcome:
    """The curve beside the parabola."""
    left, expected = curves["fvu_nonlinear"], [alpha * (1 - alpha) for alpha in curves["alpha"]]
    gap = max(abs(value - law) for value, law in zip(left, expected, strict=True))
    warnings = []
    if params.features < 20 * params.dims:
        warnings.append(
            f"{params.features:,} features in {params.dims:,} dimensions are not near-isotropic; "
            "alpha (1 - alpha) needs many more features than dimensions."
        )
    return Outcome(
        rows=(),
        result=Result(
            ablated=list(ABLATED),
            alpha=curves["alpha"],
            fvu=curves["fvu"],
            fvu_nonlinear=left,
            expected=expected,
            largest_gap=gap,
            parabola=gap < EXPLAINED_WITHIN,
            n_train=n_train,
            n_test=params.samples - n_train,
        ),
        intervals={"simulation": {f"ablated {share:.0%}": own for share, own in zip(ABLATED, ends, strict=True)}},
        controls={
            "parabola": {
                "definition": "With near-isotropic features, ablating a share alpha of the variance leaves "
                "alpha (1 - alpha) after the best linear prediction (S-17): the failure is arithmetic, not evidence.",
                "expected": expected,
            },
            "ends": {
                "definition": "Nothing ablated and everything ablated: both must leave 0.",
                "fvu_nonlinear": [left[0], left[-1]],
            },
        },
        warnings=tuple(warnings),
    )


def draw(result: ResultObject) -> Figures:
    """The curve with the parabola, and its numbers."""
    from inspector.drawing.figures import Column

    found = result["result"]
    intervals = list(result["intervals"]["simulation"].values())
    law = "alpha (1 - alpha)"
    curve = shared.curve(
        "Random features",
        "share of variance ablated",
        "FVU",
        (
            shared.line("reconstruction + linear", found["alpha"], found["fvu_nonlinear"], intervals),
            shared.line(law, found["alpha"], found["expected"], style="points"),
        ),
        "The paper calls this curve a parabola and random vectors a bad test case; it is exactly this one.",
    )
    columns = [found[name] for name in ("ablated", "alpha", "fvu", "fvu_nonlinear", "expected")]
    table = shared.table(
        "Random features ablated",
        (
            Column(title="ablated", unit="%", digits=0),
            "variance share",
            "FVU",
            ("FVU + linear", "95% low", "high"),
            law,
        ),
        [
            (100 * share, alpha, fvu, (left, ends), expected)
            for share, alpha, fvu, left, expected, ends in zip(*columns, intervals, strict=True)
        ],
        result["definition"],
        digits=4,
    )
    return table, curve


def _definition(protocol: Protocol, params: Params) -> str:
    return (
        "x is a sparse sum of random Gaussian directions whose frequencies follow a power law; x_hat lacks a growing "
        "part of them, rarest first; FVU of x_hat plus the affine prediction of x - x_hat from x, with an intercept, "
        "held-out samples, against alpha (1 - alpha), alpha being the ablated share of the variance. "
        + protocol.bootstrap(params.resamples, "held-out samples", fixed="the maps")
    )


EXPERIMENT = Experiment(
    id="synthetic-random",
    title="Random features",
    question="Does the decomposition work on sparse sums of random directions?",
    reference="App. D",
    definition=_definition,
    contradicted_by="A curve other than alpha (1 - alpha) (C17).",
    params=Params,
    simulate=simulate,
    passes=passes,
    draw=draw,
)
