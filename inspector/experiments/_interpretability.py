"""How the results of `dm-inspect interp` are read and drawn.  Paper, Sec. 5.2, Fig. 7.

They need a judge and come from a command of their own, so they are not among the experiments that `run` lists; but they
are kept, shown, exported and held against the paper's claims like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inspector.experiment import Experiment, FitParams, ResultObject
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Figures

if TYPE_CHECKING:
    from inspector.drawing.figures import BarSeries, Figure

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


def draw(result: ResultObject) -> Figures:
    """Coverage and scores, accuracy by decile with intervals, and what was said of the latents."""
    return _coverage(result), _bars(result), _curve(result), _latents(result)


def draw_comparison(result: ResultObject) -> Figures:
    """Fig. 7: both SAEs by decile, their difference, and the same again per SAE."""
    return _difference(result), _compared(result), _coverage(result), _curve(result), _latents(result)


def _key(group: str) -> str:
    return f"accuracy_{group.lower()}"


def _coverage(result: ResultObject) -> Figure:
    from inspector.drawing.figures import Column

    counted = {
        "n_scored": "scored",
        "n_dead": "dead",
        "n_too_few_examples": "too few examples",
        "n_too_few_negatives": "too few negatives",
        "n_unexplained": "unexplained",
    }
    rows = []
    for row in result["saes"]:
        score = row["balanced_accuracy"], result["intervals"][row["sae"]]["balanced_accuracy"]
        unparsable = None if row["unparsable_share"] is None else 100 * row["unparsable_share"]
        rows.append((row["sae"], score, row[_key(NEGATIVES)], unparsable, *(row[key] for key in counted)))
    return shared.table(
        f"{result['result']['scorer'].capitalize()} scores",
        (
            "SAE",
            ("balanced accuracy", "low", "high"),
            "on negatives",
            Column(title="unparsable", unit="%", digits=1),
            *counted.values(),
        ),
        rows,
        result["definition"],
    )


def _bars(result: ResultObject) -> Figure:
    groups = result["result"]["groups"]
    return _by_decile(result, "", [shared.bar(row["sae"], *_accuracy(result, row, groups)) for row in result["saes"]])


def _by_decile(result: ResultObject, more: str, bars: Iterable[BarSeries]) -> Figure:
    title = f"{result['result']['scorer'].capitalize()} accuracy by decile of activation{more}"
    return shared.grouped_bars(title, "accuracy", result["result"]["groups"], bars)


def _accuracy(
    result: ResultObject, row: Mapping[str, Any], groups: Sequence[str]
) -> tuple[list[float | None], list[shared.Ends]]:
    """Accuracy of an SAE in each of the groups, and its intervals."""
    intervals = result["intervals"][row["sae"]]
    return [row[_key(group)] for group in groups], [intervals[_key(group)] for group in groups]


def _curve(result: ResultObject) -> Figure:
    deciles = [group for group in result["result"]["groups"] if group != NEGATIVES]
    x = [float(i) for i in range(1, len(deciles) + 1)]
    lines = (shared.line(row["sae"], x, *_accuracy(result, row, deciles)) for row in result["saes"])
    return shared.curve("Accuracy on active windows", "decile of activation", "accuracy", lines)


def _latents(result: ResultObject) -> Figure:
    from inspector.drawing.figures import Column

    found = result["result"]["latents"]
    ordered = sorted(found, key=lambda each: -1.0 if each["balanced_accuracy"] is None else -each["balanced_accuracy"])
    ordered.sort(key=lambda each: each["balanced_accuracy"] is None)
    more = len(ordered) - MOST_LATENTS
    return shared.table(
        "Latents, the best explained first",
        ("SAE", "latent", "score", Column(title="density", unit="%"), "explanation"),
        [
            (
                each["sae"],
                each["latent"],
                each["balanced_accuracy"],
                100 * each["density"],
                each["explanation"] or "none that could be read",
            )
            for each in ordered[:MOST_LATENTS]
        ],
        f"{more} more are in the JSON." if more > 0 else "",
    )


def _compared(result: ResultObject) -> Figure:
    bars = []
    for part, found in result["result"]["parts"].items():
        scores = [found[group] for group in result["result"]["groups"]]
        values, ends = ([each[key] for each in scores] for key in ("value", "interval"))
        bars.append(shared.bar(f"SAE on {part}", values, ends))
    return _by_decile(result, ", as Fig. 7", bars)


def _difference(result: ResultObject) -> Figure:
    parts: Mapping[str, Any] = result["result"]["parts"]
    latents = ", ".join(f"{found['n_latents']} latents of {part}" for part, found in parts.items())
    return shared.table(
        "Accuracy of the two SAEs and their difference",
        ("windows", *(f"SAE on {part}" for part in parts), ("linear - nonlinear", "low", "high")),
        [
            (name, *(each[name]["value"] for each in parts.values()), (found["value"], found["interval"]))
            for name, found in result["result"]["difference"].items()
        ],
        f"{latents}, of all seeds together; both drawn independently for the intervals.",
    )


INTERPRETABILITY = Experiment(
    id=ID,
    title="Interpretability of latents",
    question="Can a language model tell from an explanation where a latent is active?",
    reference="Sec. 5.2",
    definition=PROTOCOL.format(negatives="50 windows in which it is not"),
    contradicted_by="A balanced accuracy no higher than with the explanations of other latents.",
    params=FitParams,
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
    draw=draw_comparison,
)
EXPERIMENTS = {experiment.id: experiment for experiment in (INTERPRETABILITY, COMPARISON)}
