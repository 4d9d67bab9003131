"""Does the size of the nonlinear error help to predict a larger SAE's error?  Paper, App. E, Eq. 23, Fig. 16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.experiment import Experiment, Outcome, ResultObject
from inspector.experiments._tokens import TokenParams, found_in, measure, names_of, pairs_of, table, triangle

if TYPE_CHECKING:
    from inspector.drawing.figures import Figure
    from inspector.statistics.measured import Statistics
    from inspector.statistics.profiles import Protocol
    from inspector.statistics.token_norms import Products
    from inspector.statistics.token_scores import Array, Estimate


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A smaller SAE and a larger one. Percent by which the FVU of the prediction falls; None where it is undefined."""

    small: str
    large: str
    d_small: int
    d_large: int
    r2: float | None
    """From the smaller one's error alone, held-out tokens."""
    r2_with_nonlinear: float | None
    decrease_percent: float | None
    """By adding the size of its nonlinear error. May be negative on held-out tokens (S-27)."""
    decrease_percent_linear: float | None
    """Control: by adding the size of its linear error instead."""
    decrease_percent_x_norm: float | None
    """Control: by adding ‖x‖ instead, or ‖x‖² where norms are squared."""
    decrease_percent_train: float | None
    """By adding the nonlinear error's size, on the training tokens: never negative (S-27)."""
    decrease_percent_other: float | None
    """As `decrease_percent`, of the norms that are not the headline's."""
    decrease_percent_other_linear: float | None
    decrease_percent_no_intercept: float | None
    """As `decrease_percent`, both predictions through the origin."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """All pairs of the series."""

    headline: str
    """'squared' norms, as the caption of Fig. 16, or 'unsquared', as the public code (D-23)."""
    series: list[str]
    labels: list[str]
    n_test: int
    pairs: tuple[Pair, ...]
    paper_most_percent: float = 5.0


def compute(statistics: Statistics, params: TokenParams) -> Outcome:
    """The gain of a second predictor, and of two others in its place."""
    found = found_in(statistics, "scaling-with-nonlinear")
    squared = found.protocol.scaling_with == "squared"
    tables = (found.squared, found.plain) if squared else (found.plain, found.squared)
    pairs, intervals, as_helpful = [], {}, []
    sizes = {each.sae: each.d_sae for each in found.saes}
    for small, large in pairs_of(found):
        values, gap = _values(tables, small, large, found.counts)
        key = f"{small} -> {large}"
        pairs.append(
            Pair(
                small=small,
                large=large,
                d_small=sizes[small],
                d_large=sizes[large],
                **{name: value.value for name, value in values.items()},
            )
        )
        intervals[key] = {name: value.interval for name, value in values.items()}
        intervals[key]["beyond_linear"] = gap.interval
        if gap.value is not None and (gap.interval or (gap.value, 0.0))[0] <= 0.0:
            as_helpful.append(key)
    negative = [pair for pair in pairs if pair.decrease_percent is not None and pair.decrease_percent < 0.0]
    warnings = [] if pairs else ["A pair needs SAEs of two widths; choose more with --widths."]
    if as_helpful:
        warnings.append(
            f"In {len(as_helpful)} of {len(pairs)} pairs the nonlinear error's size does not surely help more than the "
            "linear error's (C18)."
        )
    return Outcome(
        rows=(),
        result=Result(
            headline="squared" if squared else "unsquared",
            series=list(found.series),
            labels=names_of(found),
            n_test=found.n_test,
            pairs=tuple(pairs),
        ),
        intervals=intervals,
        controls={
            "other_second_predictors": {
                "definition": "The same with the linear error's size, or x's, in the nonlinear error's place: a claim "
                "about nonlinear error needs it to help more.",
                "decrease_percent_linear": {
                    f"{pair.small} -> {pair.large}": pair.decrease_percent_linear for pair in pairs
                },
                "decrease_percent_x_norm": {
                    f"{pair.small} -> {pair.large}": pair.decrease_percent_x_norm for pair in pairs
                },
                "pairs_where_it_does_not_surely_help_more": len(as_helpful),
            },
            "training_tokens": {
                "definition": "decrease_percent on the training tokens: never below 0, because a predictor more never "
                "raises what is left there (S-05, S-27). A second predictor that says nothing gains 100/n_train there.",
                "decrease_percent": {f"{pair.small} -> {pair.large}": pair.decrease_percent_train for pair in pairs},
                "negative_on_held_out": len(negative),
            },
            "intercept": {
                "definition": "decrease_percent with both predictions through the origin.",
                "decrease_percent": {
                    f"{pair.small} -> {pair.large}": pair.decrease_percent_no_intercept for pair in pairs
                },
            },
        },
        warnings=tuple(warnings),
    )


def _values(
    tables: tuple[Products, Products], small: str, large: str, counts: Array
) -> tuple[dict[str, Estimate], Estimate]:
    """All numbers of a pair by field, and how much more the nonlinear error's size helps than the linear error's."""
    from inspector.statistics import token_scores as scores
    from inspector.statistics.token_norms import column

    target, first = column("error", large), column("error", small)
    second = {"": column("nonlinear", small), "_linear": column("linear", small), "_x_norm": "x"}

    def decrease(products: Products, further: str, *, intercept: bool = True) -> tuple[Array, float | None]:
        old = scores.regress(products, target, [first], counts, intercept=intercept)
        new = scores.regress(products, target, [first, further], counts, intercept=intercept)
        trained = 100.0 * (1.0 - new.train_rest / old.train_rest) if old.train_rest > 0.0 else None
        return 100.0 * (1.0 - new.rest / scores.positive(old.rest)), trained

    found: dict[str, Array] = {
        "r2": scores.regress(tables[0], target, [first], counts).r2,
        "r2_with_nonlinear": scores.regress(tables[0], target, [first, second[""]], counts).r2,
    }
    for name, further in second.items():
        found[f"decrease_percent{name}"], trained = decrease(tables[0], further)
        if not name:
            train = trained
    found["decrease_percent_other"], _ = decrease(tables[1], second[""])
    found["decrease_percent_other_linear"], _ = decrease(tables[1], second["_linear"])
    found["decrease_percent_no_intercept"], _ = decrease(tables[0], second[""], intercept=False)
    values = scores.each(found)
    values["decrease_percent_train"] = scores.Estimate(value=train, interval=None)
    return values, scores.estimate(found["decrease_percent"] - found["decrease_percent_linear"])


def draw(result: ResultObject) -> Sequence[Figure]:
    """Fig. 16's triangle, the same for the linear error's size, and all numbers in tables."""
    found = result["result"]
    names = dict(zip(found["series"], found["labels"], strict=True))
    rows, further = [], []
    for pair in found["pairs"]:
        ends = result["intervals"].get(f"{pair['small']} -> {pair['large']}", {}).get("decrease_percent") or (
            None,
            None,
        )
        both = names[pair["small"]], names[pair["large"]]
        scored = (pair["r2"], pair["r2_with_nonlinear"], pair["decrease_percent"])
        rows.append((*both, *scored, *ends, pair["decrease_percent_linear"], pair["decrease_percent_x_norm"]))
        keys = ("decrease_percent_train", "decrease_percent_other", "decrease_percent_other_linear",
                "decrease_percent_no_intercept")  # fmt: skip
        further.append((*both, *(pair[key] for key in keys)))
    other = "unsquared" if found["headline"] == "squared" else "squared"
    kind = f"{found['headline']} norms"
    columns = (
        "R² before",
        "after",
        "nonlinear %",
        "95% low",
        "high",
        "linear %",
        "‖x‖² %" if found["headline"] == "squared" else "‖x‖ %",
    )
    otherwise = "training tokens %", f"{other} %", f"{other}, linear %", "no intercept %"
    return (
        *(
            triangle(f"{title} error's size, {kind}", found, key, diagonal=0.0, value="FVU decrease", unit="%")
            for title, key in (
                ("Gain from the nonlinear", "decrease_percent"),
                ("Control: gain from the linear", "decrease_percent_linear"),
            )
        ),
        table("FVU decrease in percent, held-out tokens", columns, rows, result["definition"]),
        table("The same otherwise", otherwise, further),
    )


def definition(protocol: Protocol, params: TokenParams) -> str:
    """What a run with this protocol measures."""
    from inspector.statistics.profiles import bootstrap

    square = "²" if protocol.scaling_with == "squared" else ""
    other = "norms that are not squared" if square else "squared norms"
    return (
        "100 (1 - rest_2 / rest_1): rest_1 is the held-out sum of squared residuals of the larger SAE's "
        f"‖sae_error‖{square} from the smaller one's and a constant, rest_2 that from its ‖nonlinear_error‖{square} "
        f"too, fitted on the training tokens; also with {other} (D-23). The error is split by {protocol.a_map}. "
        + bootstrap(params.resamples, protocol.held_out_contexts, fixed="the fits")
    )


EXPERIMENT = Experiment(
    id="scaling-with-nonlinear",
    title="Scaling with nonlinear error",
    question="Does the size of a small SAE's nonlinear error help to predict the size of a larger one's error?",
    reference="App. E, Eq. 23, Fig. 16",
    definition=definition,
    contradicted_by="The linear error's size, or that of x, in its place helps as much (C18).",
    params=TokenParams,
    measure=measure,
    compute=compute,
    draw=draw,
)
