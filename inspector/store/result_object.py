"""What was measured, as the object that `--json` prints and the store keeps.

To it belongs what it tells of the tokens that outweigh all others: its numbers with them, and how few tokens decide.
See `engine.plan` for which tokens are meant and `statistics.held_out` for how squared errors are spread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from inspector.engine.resampling import FEWEST
from inspector.experiment import ALL_TOKENS, Experiment, Outcome, ResultObject
from inspector.statistics.grouping import MOST_GROUPS
from inspector.statistics.held_out import MOST_CARRIED, SHARE, HeavyToken
from inspector.statistics.measured import Statistics
from inspector.statistics.substitutes import DEFINITIONS

if TYPE_CHECKING:
    from inspector.engine.plan import Plan
    from inspector.sources.target import Loaded
    from inspector.spec import RunSpec
    from inspector.statistics.measured import OutliersFound, SaeStatistics


def result_object(
    experiment: Experiment,
    outcome: Outcome,
    statistics: Statistics | None,
    spec: RunSpec,
    about: dict[str, Any],
    warnings: list[str],
    *,
    definition: str,
) -> ResultObject:
    """What was measured, in the form of the contract; `definition` is what the run did, without its null.

    Statistics are None for a simulation, whose outcome has no rows.
    """
    saes = []
    for sae, row in zip(statistics.saes, outcome.rows, strict=True) if statistics and outcome.rows else ():
        if row is None or statistics is None:
            continue
        common = {
            "sae": sae.ref.sae_id,
            "layer": sae.ref.layer,
            "hook_name": sae.ref.hook_name,
            "d_sae": sae.ref.d_sae,
            "nominal_l0": sae.ref.nominal_l0,
            "l0": sae.l0,
            "n_train": statistics.n_train,
            "n_test": statistics.n_test,
        }
        saes.append(common | _plain(row))
    if spec.null is not None and experiment.own_work is None:
        definition += f" {DEFINITIONS[spec.null]}"
    elif spec.null is not None:
        definition += f" It measures for itself, so --null {spec.null} does not reach it."
    return ResultObject(
        experiment=experiment.id,
        profile=spec.profile,
        definition=definition,
        provenance=about,
        saes=saes,
        result=_plain(outcome.result),
        intervals={
            sae_id: {name: None if ends is None else list(ends) for name, ends in own.items()}
            for sae_id, own in outcome.intervals.items()
        },
        controls=dict(outcome.controls),
        warnings=warnings,
    )


def _plain(value: Any) -> dict[str, Any]:
    """A dataclass as JSON data: tuples become lists."""
    found: dict[str, Any] = asdict(value)
    return {name: list(item) if isinstance(item, tuple) else item for name, item in found.items()}


def warnings_of(loaded: Loaded, plan: Plan, statistics: Statistics, outcome: Outcome) -> list[str]:
    """What a reader of the result should know, each once."""
    found = [*loaded.warnings, *plan.notes]
    n_drawn, what = statistics.n_test_contexts, "contexts"
    if plan.documents is not None:
        n_drawn, what = len(set(plan.documents[plan.test.any(dim=1).cpu()].tolist())), "documents"
    if n_drawn < FEWEST:
        found.append(
            f"Only {n_drawn} {what} are held out, and an interval needs {FEWEST}: none is given. "
            "Raise --contexts or lower --train-tokens."
        )
    if n_drawn > MOST_GROUPS:
        found.append(
            f"{n_drawn:,} {what} are held out: intervals resample {MOST_GROUPS} blocks of "
            "neighbouring ones, so that memory does not grow with the text."
        )
    if statistics.effective_rank < statistics.d:
        found.append(f"x has {statistics.d} dimensions but only {statistics.effective_rank} independent ones.")
    found += outlier_warnings(loaded, statistics)
    return list(dict.fromkeys([*found, *outcome.warnings]))


SCORES = ("fvu", "fvu_nonlinear", "r2_norm", "r2_pooled", "r2_mean_dims")
LEFT_OUT = "Tokens with more than {factor:g} times the median norm are left out"


def with_all_tokens(found: ResultObject, statistics: Statistics, outcome: Outcome | None) -> None:
    """Add to a result what is known of its outliers, and every number with them.

    Args:
        found: the result; changed in place.
        statistics: that it was computed from.
        outcome: computed from `statistics.all_tokens`; None for an experiment that measures for itself: then only the
            scores of the shared passes are given with outliers, over all held-out tokens of the run.
    """
    by_id = {sae.ref.sae_id: sae for sae in statistics.saes}
    everything = statistics.all_tokens
    others = {} if everything is None else {sae.ref.sae_id: sae for sae in everything.saes}
    for row in found["saes"]:
        sae = by_id.get(row["sae"])
        if sae is None:
            continue
        row.update(_spread(sae, ""))
        if (other := others.get(row["sae"])) is None:
            continue
        row.update(_spread(other, ALL_TOKENS))
        intervals = found["intervals"].setdefault(row["sae"], {})
        for name in [name for name in SCORES if name in row]:
            if statistics.outliers is not None and statistics.outliers.n:
                row[name + ALL_TOKENS] = getattr(other.scores, name)
                ends = other.intervals.get(name)
                intervals[name + ALL_TOKENS] = None if ends is None else list(ends)
            else:  # one that measures for itself may look at a part of the text
                row[name + ALL_TOKENS] = row[name]
                intervals[name + ALL_TOKENS] = intervals.get(name)
    if outcome is not None and statistics.outliers is not None and statistics.outliers.n:
        numbers = asdict(outcome.result)  # type: ignore[call-overload]  # a dataclass; see Outcome
        found["result"] |= {name + ALL_TOKENS: value for name, value in numbers.items() if isinstance(value, float)}
        for name, control in outcome.controls.items():
            for key, value in control.items() if isinstance(control, dict) else ():
                if key != "definition":
                    found["controls"][name][key + ALL_TOKENS] = value
    # Of an experiment without an SAE's numbers, such as theory-c1, there are no tokens to leave out.
    if statistics.outliers is not None and statistics.outliers.left_out and found["saes"]:
        counted = any(key.endswith(ALL_TOKENS) for row in found["saes"] for key in row)
        found["definition"] += f" {LEFT_OUT.format(factor=statistics.outliers.factor)}"
        found["definition"] += f"; ...{ALL_TOKENS} counts them too." if counted else "."
        if outcome is None and any(name + ALL_TOKENS in row for row in found["saes"] for name in SCORES):
            found["definition"] += (
                " Those are of all held-out tokens of the run, as norm-prediction and error-vector give."
            )


def _spread(sae: SaeStatistics, suffix: str) -> dict[str, float | None]:
    if sae.weights is None:
        return {}
    return {f"n_eff{suffix}": sae.weights.n_eff, f"top_share{suffix}": sae.weights.top_share}


def outlier_warnings(loaded: Loaded, statistics: Statistics) -> list[str]:
    """What was left out, or what few tokens decide a number."""
    return [*_left_out(loaded, statistics), *_few(loaded, statistics)]


def _left_out(loaded: Loaded, statistics: Statistics) -> Iterator[str]:
    found = statistics.outliers
    if found is None or not found.n:
        return
    apart = found.left_out
    n_train, n_test = statistics.n_train + apart * found.n_train, statistics.n_test + apart * found.n_test
    what = (
        f"{found.n_train:,} of {n_train:,} training and {found.n_test:,} of {n_test:,} held-out tokens have more than "
        f"{found.factor:g} times the median norm of {found.median_norm:,.4g}"
    )
    heaviest = _named(loaded, (statistics.all_tokens or statistics).saes, found)
    if found.left_out:
        yield f"{what}. They are left out of fit and scores; numbers that end in _all_tokens count them{heaviest}."
    else:
        yield f"{what}. They are counted, as the paper does; the profile careful leaves them out{heaviest}."


def _named(loaded: Loaded, saes: Sequence[SaeStatistics], found: OutliersFound) -> str:
    """Of the tokens of the largest errors, those that are outliers."""
    tokens: dict[tuple[int, int], HeavyToken] = {}
    for sae in saes:
        for token in () if sae.weights is None else sae.weights.heaviest:
            if token.x_norm > found.factor * found.median_norm:
                tokens.setdefault((token.context, token.position), token)
    return "".join(f"{', ' if i else ': '}{_token(loaded, token)}" for i, token in enumerate([*tokens.values()][:5]))


def _few(loaded: Loaded, statistics: Statistics) -> Iterator[str]:
    for sae in statistics.saes:
        weights = sae.weights
        if weights is None or not weights.few:
            continue
        tokens = ", ".join(f"{_token(loaded, token)} with {token.share:.0%}" for token in weights.heaviest)
        yield (
            f"{sae.ref.sae_id}: few tokens decide these numbers. Its squared error averages {weights.n_eff:,.0f} "
            f"effective tokens of {statistics.n_test:,}, and {weights.top_share:.0%} of it lies in {SHARE:.1%} of them "
            f"(more than {MOST_CARRIED:.0%} is much): {tokens}."
        )


def _token(loaded: Loaded, token: HeavyToken) -> str:
    r"""`'\n' (context 12, position 31, 9.8 x the median norm)`, safe to print."""
    (text,) = loaded.model.token_texts([int(loaded.contexts.token_ids[token.context, token.position])])
    times = "" if loaded.outliers is None else f", {loaded.outliers.times(token.x_norm):.1f} x the median norm"
    # As Python spells it: every character that a terminal would obey, and every one that shows nothing, is escaped.
    return f"{text!r} (context {token.context}, position {token.position}{times})"
