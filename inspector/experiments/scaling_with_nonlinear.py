"""Does the size of the nonlinear error help to predict a larger SAE's error?  Paper, App. E, Eq. 23, Fig. 16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.experiment import Experiment, Outcome, ResultObject
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Figures, Protocol, Statistics, TokenParams, measure, passes

if TYPE_CHECKING:
    from inspector.engine.resampling import Estimate
    from inspector.statistics.token_norms import Array, Products


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
    found = shared.found_in(statistics, "scaling-with-nonlinear")
    headline = found.protocol.scaling_with
    tables = (found.squared, found.plain) if headline == "squared" else (found.plain, found.squared)
    widths = {each.sae: each.d_sae for each in found.saes}
    pairs, intervals, as_helpful = [], {}, []
    for small, large in shared.pairs_of(found):
        values, own, gap = _values(tables, small, large, found.counts)
        pairs.append(Pair(small=small, large=large, d_small=widths[small], d_large=widths[large], **values))
        key = shared.pair_key(small, large)
        intervals[key] = own | {"beyond_linear": gap.interval}
        if gap.value is not None and (gap.interval or (gap.value, 0.0))[0] <= 0.0:
            as_helpful.append(key)
    negative = [pair for pair in pairs if pair.decrease_percent is not None and pair.decrease_percent < 0.0]
    warnings = [] if pairs else [shared.NO_PAIR]
    if as_helpful:
        warnings.append(
            f"In {len(as_helpful)} of {len(pairs)} pairs the nonlinear error's size does not surely help more than the "
            "linear error's (C18)."
        )

    def of_pairs(name: str) -> shared.Values:
        return {shared.pair_key(pair.small, pair.large): getattr(pair, name) for pair in pairs}

    return Outcome(
        rows=(),
        result=Result(
            headline=headline,
            series=list(found.series),
            labels=shared.names_of(found),
            n_test=found.n_test,
            pairs=tuple(pairs),
        ),
        intervals=intervals,
        controls={
            "other_second_predictors": {
                "definition": "The same with the linear error's size, or x's, in the nonlinear error's place: a claim "
                "about nonlinear error needs it to help more.",
                "decrease_percent_linear": of_pairs("decrease_percent_linear"),
                "decrease_percent_x_norm": of_pairs("decrease_percent_x_norm"),
                "pairs_where_it_does_not_surely_help_more": len(as_helpful),
            },
            "training_tokens": {
                "definition": "decrease_percent on the training tokens: never below 0, because a predictor more never "
                "raises what is left there (S-05, S-27). A second predictor that says nothing gains 100/n_train there.",
                "decrease_percent": of_pairs("decrease_percent_train"),
                "negative_on_held_out": len(negative),
            },
            "intercept": {
                "definition": "decrease_percent with both predictions through the origin.",
                "decrease_percent": of_pairs("decrease_percent_no_intercept"),
            },
        },
        warnings=tuple(warnings),
    )


def _values(
    tables: tuple[Products, Products], small: str, large: str, counts: Array
) -> tuple[shared.Values, shared.Intervals, Estimate]:
    """All numbers of a pair by field, and how much more the nonlinear error's size helps than the linear error's."""
    from inspector.statistics import token_norms as scores
    from inspector.statistics.token_norms import Column

    target, first = Column("error", large), Column("error", small)
    second = {"": Column("nonlinear", small), "_linear": Column("linear", small), "_x_norm": Column("x")}

    def decrease(products: Products, further: Column, *, intercept: bool = True) -> tuple[Array, float | None]:
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
    values, intervals = shared.apart(scores.each(found))
    gap = scores.estimate(found["decrease_percent"] - found["decrease_percent_linear"])
    return values | {"decrease_percent_train": train}, intervals | {"decrease_percent_train": None}, gap


def draw(result: ResultObject) -> Figures:
    """Fig. 16's triangle, the same for the linear error's size, and all numbers in tables."""
    found = result["result"]
    squared = found["headline"] == "squared"
    other = "unsquared" if squared else "squared"
    columns = {
        "r2": "R² before",
        "r2_with_nonlinear": "after",
        "decrease_percent": "nonlinear %",
        "decrease_percent_linear": "linear %",
        "decrease_percent_x_norm": "‖x‖² %" if squared else "‖x‖ %",
    }
    otherwise = {
        "decrease_percent_train": "training tokens %",
        "decrease_percent_other": f"{other} %",
        "decrease_percent_other_linear": f"{other}, linear %",
        "decrease_percent_no_intercept": "no intercept %",
    }
    title, size = "FVU decrease in percent, held-out tokens", f"error's size, {found['headline']} norms"
    return (
        *(
            shared.triangle(f"{what} {size}", found, key, diagonal=0.0, value="FVU decrease", unit="%")
            for what, key in (
                ("Gain from the nonlinear", "decrease_percent"),
                ("Control: gain from the linear", "decrease_percent_linear"),
            )
        ),
        shared.pair_table(title, result, columns, result["definition"], headline="decrease_percent"),
        shared.pair_table("The same otherwise", result, otherwise),
    )


def _definition(protocol: Protocol, params: TokenParams) -> str:
    square = "²" if protocol.scaling_with == "squared" else ""
    other = "norms that are not squared" if square else "squared norms"
    return (
        "100 (1 - rest_2 / rest_1): rest_1 is the held-out sum of squared residuals of the larger SAE's "
        f"‖sae_error‖{square} from the smaller one's and a constant, rest_2 that from its ‖nonlinear_error‖{square} "
        f"too, fitted on the training tokens; also with {other} (D-23). The error is split by {protocol.a_map}. "
        + protocol.bootstrap(params.resamples, fixed="the fits")
    )


EXPERIMENT = Experiment(
    id="scaling-with-nonlinear",
    title="Scaling with nonlinear error",
    question="Does the size of a small SAE's nonlinear error help to predict the size of a larger one's error?",
    reference="App. E, Eq. 23, Fig. 16",
    definition=_definition,
    contradicted_by="The linear error's size, or that of x, in its place helps as much (C18).",
    params=TokenParams,
    measure=measure,
    passes=passes,
    compute=compute,
    draw=draw,
)
