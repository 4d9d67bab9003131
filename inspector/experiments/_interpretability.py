"""How the results of `dm-inspect interp` are read and drawn.  Paper, Sec. 5.2, Fig. 7.

They need a judge and come from a command of their own, so they are not among the experiments that `run` lists; but they
are kept, shown, exported and held against the paper's claims like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inspector.errors import UsageError
from inspector.experiment import Experiment, FitParams, Outcome, ResultObject

if TYPE_CHECKING:
    from inspector.drawing.figures import Cell, Figure
    from inspector.statistics.measured import Statistics

ID, COMPARISON_ID = "interp", "interp-error-saes"
MOST_LATENTS = 40
"""Rows of the table of latents; all are in the JSON."""
NEGATIVES = "Not"
PROTOCOL = (
    "Accuracy of a language model that is given a latent's explanation and decides about excerpts of text: Q1 to Q10, "
    "7 windows from each tenth of the windows in which the latent is active, by largest activation, Q10 the strongest; "
    "Not, {negatives}. The explanation was made from other contexts. balanced_accuracy is the mean over active windows "
    "and over Not. Answers that cannot be read are counted and not guessed. Interval: 95% bootstrap over latents."
)
_NEGATIVES = {
    "detection": "50 windows of the same length in which it never is",
    "fuzzing": "50 windows with marks on tokens at which it is not active",
}


def definition_of(scorer: str) -> str:
    """What exactly is measured."""
    return PROTOCOL.format(negatives=_NEGATIVES[scorer])


def compute(_statistics: Statistics, _params: FitParams) -> Outcome:
    """Nothing is computed from statistics alone.

    Raises:
        UsageError: always.
    """
    raise UsageError("Latents are judged by `dm-inspect interp`, not by `dm-inspect run`. See `dm-inspect interp -h`.")


def draw(result: ResultObject) -> Sequence[Figure]:
    """Coverage and scores, accuracy by decile with intervals, and what was said of the latents."""
    return _coverage(result), _bars(result), _curve(result), _latents(result)


def draw_comparison(result: ResultObject) -> Sequence[Figure]:
    """Fig. 7: both SAEs by decile, their difference, and the same again per SAE."""
    return _difference(result), _compared(result), _coverage(result), _curve(result), _latents(result)


def _key(group: str) -> str:
    return f"accuracy_{group.lower()}"


def _coverage(result: ResultObject) -> Figure:
    from inspector.drawing.figures import Column, Table

    counted = (
        ("n_scored", "scored"),
        ("n_dead", "dead"),
        ("n_too_few_examples", "too few examples"),
        ("n_too_few_negatives", "too few negatives"),
        ("n_unexplained", "unexplained"),
    )
    rows: list[tuple[Cell, ...]] = []
    for row in result["saes"]:
        low, high = result["intervals"][row["sae"]]["balanced_accuracy"] or (None, None)
        unparsable = None if row["unparsable_share"] is None else 100 * row["unparsable_share"]
        scores = (row["balanced_accuracy"], low, high, row[_key(NEGATIVES)], unparsable)
        rows.append((row["sae"], *scores, *(row[key] for key, _ in counted)))
    titles = ("SAE", "balanced accuracy", "low", "high", "on negatives")
    return Table(
        title=f"{result['result']['scorer'].capitalize()} scores",
        columns=(
            *(Column(title=title) for title in titles),
            Column(title="unparsable", unit="%", digits=1),
            *(Column(title=title) for _, title in counted),
        ),
        rows=tuple(rows),
        note=result["definition"],
    )


def _bars(result: ResultObject) -> Figure:
    from inspector.drawing.figures import Axis, BarSeries, GroupedBars

    groups = result["result"]["groups"]
    bars = []
    for row in result["saes"]:
        ends = [result["intervals"][row["sae"]][_key(group)] for group in groups]
        bars.append(
            BarSeries(
                name=row["sae"],
                values=tuple(row[_key(group)] for group in groups),
                low=tuple(None if each is None else each[0] for each in ends),
                high=tuple(None if each is None else each[1] for each in ends),
            )
        )
    title = f"{result['result']['scorer'].capitalize()} accuracy by decile of activation"
    return GroupedBars(title=title, value=Axis(label="accuracy"), groups=tuple(groups), bars=tuple(bars))


def _curve(result: ResultObject) -> Figure:
    from inspector.drawing.figures import Axis, Curve, Series

    deciles = [group for group in result["result"]["groups"] if group != NEGATIVES]
    series = []
    for row in result["saes"]:
        ends = [result["intervals"][row["sae"]][_key(group)] for group in deciles]
        series.append(
            Series(
                name=row["sae"],
                x=tuple(float(i) for i in range(1, len(deciles) + 1)),
                y=tuple(row[_key(group)] for group in deciles),
                low=tuple(None if each is None else each[0] for each in ends),
                high=tuple(None if each is None else each[1] for each in ends),
            )
        )
    return Curve(
        title="Accuracy on active windows",
        x=Axis(label="decile of activation"),
        y=Axis(label="accuracy"),
        series=tuple(series),
    )


def _latents(result: ResultObject) -> Figure:
    from inspector.drawing.figures import Column, Table

    found = result["result"]["latents"]
    ordered = sorted(found, key=lambda each: -1.0 if each["balanced_accuracy"] is None else -each["balanced_accuracy"])
    ordered.sort(key=lambda each: each["balanced_accuracy"] is None)
    more = len(ordered) - MOST_LATENTS
    return Table(
        title="Latents, the best explained first",
        columns=(
            Column(title="SAE"),
            Column(title="latent"),
            Column(title="score"),
            Column(title="density", unit="%"),
            Column(title="explanation"),
        ),
        rows=tuple(
            (
                each["sae"],
                each["latent"],
                each["balanced_accuracy"],
                100 * each["density"],
                each["explanation"] or "none that could be read",
            )
            for each in ordered[:MOST_LATENTS]
        ),
        note=f"{more} more are in the JSON." if more > 0 else "",
    )


def _compared(result: ResultObject) -> Figure:
    from inspector.drawing.figures import Axis, BarSeries, GroupedBars

    groups = result["result"]["groups"]
    bars = []
    for part, found in result["result"]["parts"].items():
        ends = [found[group]["interval"] for group in groups]
        bars.append(
            BarSeries(
                name=f"SAE on {part}",
                values=tuple(found[group]["value"] for group in groups),
                low=tuple(None if each is None else each[0] for each in ends),
                high=tuple(None if each is None else each[1] for each in ends),
            )
        )
    return GroupedBars(
        title=f"{result['result']['scorer'].capitalize()} accuracy by decile of activation, as Fig. 7",
        value=Axis(label="accuracy"),
        groups=tuple(groups),
        bars=tuple(bars),
    )


def _difference(result: ResultObject) -> Figure:
    from inspector.drawing.figures import Column, Table

    parts: Mapping[str, Any] = result["result"]["parts"]
    rows: list[tuple[Cell, ...]] = []
    for name, found in result["result"]["difference"].items():
        low, high = found["interval"] or (None, None)
        rows.append((name, *(each[name]["value"] for each in parts.values()), found["value"], low, high))
    columns = ("windows", *(f"SAE on {part}" for part in parts), "linear - nonlinear", "low", "high")
    latents = ", ".join(f"{found['n_latents']} latents of {part}" for part, found in parts.items())
    return Table(
        title="Accuracy of the two SAEs and their difference",
        columns=tuple(Column(title=title) for title in columns),
        rows=tuple(rows),
        note=f"{latents}, of all seeds together; both drawn independently for the intervals.",
    )


INTERPRETABILITY = Experiment(
    id=ID,
    title="Interpretability of latents",
    question="Can a language model tell from an explanation where a latent is active?",
    reference="Sec. 5.2",
    definition=PROTOCOL.format(negatives="50 windows in which it is not"),
    contradicted_by="A balanced accuracy no higher than with the explanations of other latents.",
    params=FitParams,
    compute=compute,
    draw=draw,
)
COMPARISON = Experiment(
    id=COMPARISON_ID,
    title="Interpretability of SAEs on the error's parts",
    question="Are latents of an SAE on the nonlinear error harder to explain than of one on the linear error?",
    reference="Sec. 5.2, Fig. 7",
    definition=PROTOCOL.format(negatives="50 windows in which it is not"),
    contradicted_by="The interval over latents of the difference in balanced accuracy covers 0 (C9).",
    params=FitParams,
    compute=compute,
    draw=draw_comparison,
)
EXPERIMENTS = {experiment.id: experiment for experiment in (INTERPRETABILITY, COMPARISON)}
