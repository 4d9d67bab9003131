"""What does each part of the error do to the model's predictions?  Paper, Sec. 5.3, Fig. 8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from inspector.experiment import Experiment, FitParams, Interval, Outcome, ResultObject, bounded
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Array, Figures, Measuring, Passes, Protocol, Statistics, Work, Workload

if TYPE_CHECKING:
    from torch import Tensor

    from inspector.drawing.figures import BarSeries
    from inspector.statistics.spliced import Spliced, SplicedSae

PARTS = ("linear", "nonlinear")
READING = (
    "x_hat + nonlinear_error is an affine function of x, (I - W) x - b (S-11): no nonlinearity of the SAE is left in "
    "it. The two parts' variance recovered sums to 100% on training tokens (S-08) while their norms sum to 100% or "
    "more, so the two marks differ by construction and the bars need not sum to 100%."
)


@dataclass(frozen=True, kw_only=True)
class Params(FitParams):
    """How many contexts are spliced into, and where."""

    contexts: int = bounded(12, 0, 1_000_000)
    """Held-out contexts; each is run six times per SAE. 0 takes all, as the paper does."""
    l0: float = bounded(60.0, 0, 1_000_000)
    """Per width the SAE whose nominal L0 is nearest, and every one of the narrowest width, as Fig. 8; 0 takes all."""
    hook: str = ""
    """Splice here instead of where the SAEs read; an unknown name is refused."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is measured per SAE. Losses in nats per token; percentages of the loss that x_hat costs."""

    n_test: int
    """Tokens that were replaced and scored."""
    ce_sae: float | None
    """Cross-entropy with x_hat in the place of x."""
    ce_linear: float | None
    ce_nonlinear: float | None
    ce_both: float | None
    """With both parts added back: the unspliced loss up to rounding (S-24)."""
    kl_sae: float | None
    """KL divergence from the unspliced distribution."""
    kl_linear: float | None
    kl_nonlinear: float | None
    recovered_linear: float | None
    """100 (ce_sae - ce_linear) / (ce_sae - ce_original), percent."""
    recovered_nonlinear: float | None
    kl_recovered_linear: float | None
    """100 (kl_sae - kl_linear) / kl_sae, percent."""
    kl_recovered_nonlinear: float | None
    variance_recovered_linear: float | None
    """100 (1 - fvu(x, x_hat + linear_error) / fvu(x, x_hat)), percent."""
    variance_recovered_nonlinear: float | None
    norm_ratio_linear: float | None
    """Mean norm of linear_error over the mean norm of sae_error, percent (E-10)."""
    norm_ratio_nonlinear: float | None
    within_marks_linear: bool | None
    """Whether the interval of recovered_linear reaches between the two predictions."""
    within_marks_nonlinear: bool | None


@dataclass(frozen=True, kw_only=True)
class Result:
    """Over all SAEs."""

    ce_original: float
    """Nats per token, unspliced."""
    n_contexts: int
    n_tokens: int
    dtype: str
    """Of the model, when splicing as when fitting (D-16)."""
    reading: str = READING


def measure(measuring: Measuring, params: Params) -> Work[Spliced]:
    """See `measure_splices`."""
    from inspector.statistics.spliced import measure_splices

    return measure_splices(measuring, contexts=params.contexts, l0=params.l0, hook=params.hook)


def passes(work: Workload, params: Params) -> Passes:
    """Of `measure`: two unhooked runs of each context, and six per SAE, each with the losses and their divergence."""
    contexts = min(params.contexts or work.test_contexts, work.test_contexts)
    narrowest = min(ref.d_sae for ref in work.saes)
    picks = {ref.sae_id: ref for ref in (*work.nearest(params.l0), *work.saes) if ref.d_sae == narrowest}
    picks |= {ref.sae_id: ref for ref in work.nearest(params.l0)}
    runs = contexts * (2 + 6 * len(picks))
    yield work.walk(
        "splices",
        contexts,
        model=work.forward(runs, whole=True),
        sae=work.coded(contexts * work.sizes.length, picks.values()),
        numbers=4 * work.logits(runs),
    )


def compute(statistics: Statistics, params: Params) -> Outcome:
    """Percent recovered of every arm with both predictions, resampled over contexts."""
    from inspector.engine.resampling import FEWEST, counts_together

    found = cast("Spliced", statistics.own["ce-splice"])
    n = found.n.numpy()
    counts = counts_together(found.groups, seed=found.seed, n_resamples=params.resamples).numpy()
    controls, warnings = {}, []
    if (drawn := len(set(found.groups))) < FEWEST:
        warnings.append(
            f"The {len(n)} contexts that were spliced into are of {drawn} documents, and an interval needs {FEWEST}: "
            "none is given. Raise -p contexts=, or give a --text of more documents."
        )

    def measured(own: SplicedSae) -> tuple[Row, shared.Intervals]:
        draws = _draws(found, own, counts)
        values, intervals = shared.of_draws(draws)
        controls[own.sae] = {name: values[name] for name in CONTROL_SCORES}
        cost = draws["ce_sae"][0] - draws["ce_original"][0]
        if cost <= 0:
            warnings.append(
                f"{own.sae}: x_hat does not raise the loss ({cost:+.4f} nats), so nothing can be recovered."
            )
        row = Row(
            n_test=int(n.sum()),
            **{name: values[name] for name in ROW_SCORES},
            within_marks_linear=_within(values, intervals, "linear"),
            within_marks_nonlinear=_within(values, intervals, "nonlinear"),
        )
        return row, {name: interval for name, interval in intervals.items() if name in ROW_SCORES}

    rows, intervals = shared.per_sae(statistics, found.saes.values(), measured)
    return Outcome(
        rows=rows,
        result=Result(
            ce_original=float(sum(found.original.tolist()) / n.sum()),
            n_contexts=len(n),
            n_tokens=int(n.sum()),
            dtype=found.dtype,
        ),
        intervals=intervals,
        controls={
            "same_size_perturbations": {
                "definition": "Increase of cross-entropy and KL in nats when x is moved by the length of sae_error at "
                "each token: in a random direction, and along the difference of two real activations; beside sae_error "
                "itself.",
                "saes": controls,
            },
            "exactness": {
                "definition": "Largest difference of any token's loss, in nats: unhooked against x spliced in (S-24), "
                "any arm before the first replaced position (S-25); and of x between this run and the cached one.",
                "x_spliced": found.loss_gap,
                "before_the_splice": found.before_gap,
                "x_cached": found.cache_gap,
            },
        },
        warnings=tuple(warnings),
    )


ROW_SCORES = (
    "ce_sae", "ce_linear", "ce_nonlinear", "ce_both", "kl_sae", "kl_linear", "kl_nonlinear", "recovered_linear",
    "recovered_nonlinear", "kl_recovered_linear", "kl_recovered_nonlinear", "variance_recovered_linear",
    "variance_recovered_nonlinear", "norm_ratio_linear", "norm_ratio_nonlinear",
)  # fmt: skip
CONTROL_SCORES = ("ce_increase_sae", "ce_increase_random", "ce_increase_difference", "kl_sae", "kl_random",
                  "kl_difference", "kl_both", "recovered_both")  # fmt: skip


def _draws(found: Spliced, own: SplicedSae, counts: Array) -> dict[str, list[float]]:
    """Every score, as measured and on each draw of contexts."""
    import numpy as np

    n = counts @ found.n.numpy()

    def per_token(sums: Tensor) -> Array:
        mean: Array = (counts @ sums.numpy()) / n
        return mean

    original = per_token(found.original)
    ce = {arm: per_token(sums) for arm, sums in own.loss.items()}
    kl = {arm: per_token(sums) for arm, sums in own.kl.items()}
    error, linear, nonlinear = (per_token(sums) for sums in (own.error_sq, own.linear_sq, own.nonlinear_sq))
    lengths = [per_token(sums) for sums in (own.error_norm, own.linear_norm, own.nonlinear_norm)]
    with np.errstate(divide="ignore", invalid="ignore"):
        values = {f"ce_{arm}": value for arm, value in ce.items()} | {f"kl_{arm}": value for arm, value in kl.items()}
        values |= {f"ce_increase_{arm}": value - original for arm, value in ce.items()}
        values |= {f"recovered_{arm}": 100 * (ce["sae"] - v) / (ce["sae"] - original) for arm, v in ce.items()}
        values |= {f"kl_recovered_{arm}": 100 * (kl["sae"] - v) / kl["sae"] for arm, v in kl.items()}
        # x_hat + linear_error leaves nonlinear_error, and the other way round.
        values["variance_recovered_linear"] = 100 * (1 - nonlinear / error)
        values["variance_recovered_nonlinear"] = 100 * (1 - linear / error)
        values["norm_ratio_linear"] = 100 * lengths[1] / lengths[0]
        values["norm_ratio_nonlinear"] = 100 * lengths[2] / lengths[0]
    values["ce_original"] = original
    return {name: value.tolist() for name, value in values.items()}


def _within(values: Mapping[str, float | None], intervals: Mapping[str, Interval], part: str) -> bool | None:
    """Whether the bar's interval overlaps the stretch between variance and norm mark."""
    marks = sorted(shared.known((values[f"variance_recovered_{part}"], values[f"norm_ratio_{part}"])))
    interval = intervals[f"recovered_{part}"]
    if interval is None or len(marks) < 2:
        return None
    return interval[0] <= marks[1] and interval[1] >= marks[0]


def draw(result: ResultObject) -> Figures:
    """Bars of percent recovered with both predictions as lines beside them, a table, and the controls."""
    from inspector.drawing.figures import Axis, Column

    rows, found, same = result["saes"], result["result"], result["controls"]["same_size_perturbations"]
    scores = {
        "ce_sae": "CE of x_hat",
        "recovered_linear": "linear recovers %",
        "recovered_nonlinear": "nonlinear recovers %",
        "kl_sae": "KL of x_hat",
    }
    recovered = Axis(label="recovered", unit="%")
    kinds = {"cross-entropy": "recovered", "KL": "kl_recovered"}
    moves = [f"{score} {arm}" for score in ("CE", "KL") for arm in ("sae_error", "random", "difference")]
    return (
        shared.sae_table(
            f"Cross-entropy, unspliced {found['ce_original']:.4f} nats",
            result,
            scores,
            note=f"{result['definition']}\n{found['reading']}",
        ),
        shared.grouped_bars(
            "Cross-entropy recovered",
            recovered,
            (row["sae"] for row in rows),
            (_bar(rows, result["intervals"], part) for part in PARTS),
            "Dashes: what variance and norm of the part would predict.",
        ),
        shared.curve(
            "Recovered, by cross-entropy and by KL divergence",
            "SAE, in the table's order",
            recovered,
            (
                shared.line(
                    f"{part}, {name}",
                    [float(i + 1) for i in range(len(rows))],
                    [row[f"{key}_{part}"] for row in rows],
                    style="points",
                )
                for part in PARTS
                for name, key in kinds.items()
            ),
        ),
        shared.table(
            "Moves of the same length",
            ("SAE", *(Column(title=move, unit="nats", digits=4) for move in moves)),
            [(sae, *(own[key] for key in CONTROL_SCORES[:6])) for sae, own in same["saes"].items()],
            same["definition"],
        ),
    )


def _bar(rows: Sequence[Mapping[str, Any]], intervals: Mapping[str, Any], part: str) -> BarSeries:
    """Bars of one part with both predictions as marks."""
    from inspector.drawing.figures import Mark

    key = f"recovered_{part}"
    marks = {name: f"{name.replace(' ', '_')}_{part}" for name in ("variance recovered", "norm ratio")}
    return replace(
        shared.bar(f"{part} error", [row[key] for row in rows], shared.ends_of(rows, intervals, key)),
        marks=tuple(Mark(name=name, values=tuple(row[mark] for row in rows)) for name, mark in marks.items()),
    )


def _definition(protocol: Protocol, params: Params) -> str:
    where = "In held-out contexts"
    if protocol.split == "token":
        where = "In contexts with held-out tokens (training tokens are among the replaced ones)"
    return (
        f"{where} the hook's value is replaced, at the scored positions, by x_hat, x_hat + linear_error or x_hat + "
        f"nonlinear_error, the error split by {protocol.a_map}; cross-entropy L is the mean over those positions, in "
        "nats. Recovered = 100 (L(x_hat) - L(arm)) / (L(x_hat) - L(x)), and the same of the KL divergence from the "
        "unspliced distribution. " + protocol.bootstrap(params.resamples, "the contexts", fixed="the maps")
    )


EXPERIMENT = Experiment(
    id="ce-splice",
    title="Spliced cross-entropy",
    question="How much of the loss that an SAE costs does each part of its error recover?",
    reference="Sec. 5.3, Fig. 8",
    definition=_definition,
    contradicted_by="Bars outside both marks, the variance recovered and the norm ratio (C10).",
    params=Params,
    needs=("error map",),
    measure=measure,
    passes=passes,
    compute=compute,
    draw=draw,
)
