"""How do the errors of SAEs of all widths run along a text?  Paper, Sec. 4.4, Fig. 5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.experiment import Experiment, Outcome, ResultObject
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Figures, Protocol, Statistics, TokenParams, measure, passes

if TYPE_CHECKING:
    from inspector.statistics.token_norms import SaeTokens


@dataclass(frozen=True, kw_only=True)
class Row:
    """Per SAE of the series. Norms in the units of x."""

    mean_norm_shown: float | None
    """Of sae_error over the tokens shown."""
    mean_norm: float | None
    """Over all held-out tokens."""
    correlation_shown: float | None
    """Of its norms with those of the narrowest SAE, over the tokens shown; None for constant norms."""
    correlation: float | None
    """Over all held-out tokens: whether the excerpt is typical."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The tokens shown. Empty where no context has so many."""

    series: list[str]
    labels: list[str]
    context: int | None
    positions: list[int]
    tokens: list[str]
    train: list[bool]
    """Whether the maps were fitted on the token too."""
    x_norm: list[float]
    sae_error: dict[str, list[float]]
    """Norms by SAE."""
    mean_nonlinear_error: list[float]
    """Mean over the SAEs of the norm of nonlinear_error: in the paper's caption, left out by its code (D-10)."""


def compute(statistics: Statistics, params: TokenParams) -> Outcome:
    """The excerpt, and what all held-out tokens say about the same."""
    from inspector.statistics import token_norms as scores
    from inspector.statistics.token_norms import Column

    found = shared.found_in(statistics, "per-token-trace")
    by_id, norms = found.by_id(), {} if found.trace is None else found.trace.sae_error
    narrowest = found.series[0]

    def measured(sae: SaeTokens) -> tuple[Row, shared.Intervals]:
        own = Column("error", sae.sae)
        values, intervals = shared.apart(
            scores.each(
                {
                    "mean_norm": scores.mean(found.plain, own, found.counts),
                    "correlation": scores.correlation(found.plain, Column("error", narrowest), own, found.counts),
                }
            )
        )
        here = norms.get(sae.sae, ())
        row = Row(
            mean_norm_shown=shared.mean(here) if here else None,
            correlation_shown=scores.correlation_of(norms.get(narrowest, ()), here),
            **values,
        )
        return row, intervals

    rows, intervals = shared.per_sae(statistics, [by_id[sae_id] for sae_id in found.series], measured)
    first = norms.get(narrowest, ())
    moved = (*first[len(first) // 2 :], *first[: len(first) // 2])
    nonlinear = () if found.trace is None else zip(*found.trace.nonlinear_error.values(), strict=True)
    return Outcome(
        rows=rows,
        result=Result(
            series=list(found.series),
            labels=shared.names_of(found),
            **shared.excerpt(found.trace),
            x_norm=[] if found.trace is None else list(found.trace.x),
            sae_error={name: list(values) for name, values in norms.items()},
            mean_nonlinear_error=[shared.mean(values) for values in nonlinear],
        ),
        intervals=intervals,
        controls={
            "all_tokens": {
                "definition": "The same correlation over all held-out tokens: an excerpt proves nothing. Shifted: over "
                "the tokens shown, with the narrowest SAE's norms moved on by half the excerpt, which is what no "
                "relation looks like.",
                "shifted": {sae: scores.correlation_of(moved, norms[sae]) for sae in found.series if norms},
            }
        },
        warnings=shared.no_stretch(found, params),
    )


def draw(result: ResultObject) -> Figures:
    """Both panels of Fig. 5, with the mean nonlinear error, and the averages in a table."""
    found = result["result"]
    named = zip(found["series"], found["labels"], strict=True)
    lines = {label: found["sae_error"][sae_id] for sae_id, label in named} if found["tokens"] else {}
    lines["mean nonlinear"] = found["mean_nonlinear_error"]
    scores = {
        "mean_norm_shown": "mean here",
        "mean_norm": "mean, all",
        "correlation_shown": "corr. here",
        "correlation": "corr., all",
    }
    rows = shared.rows_with(result, "mean_norm_shown")
    return (
        *shared.trace_figures("Error norm along a text", found, lines, zoom=True),
        shared.sae_table("Along the excerpt and over all tokens", result, scores, rows=rows),
    )


def _definition(protocol: Protocol, params: TokenParams) -> str:
    among = "held-out ones, where whole contexts are held out"
    if protocol.split == "token":
        among = "training tokens among them"
    return (
        f"‖sae_error‖ at {params.length:,} consecutive tokens for one SAE per width, from number {params.start:,} of "
        f"all included tokens on ({among}), and the mean over the SAEs of ‖nonlinear_error‖, the error split by "
        f"{protocol.a_map}. Beside it, over all held-out tokens, the mean norm and its correlation with the narrowest "
        "SAE's. " + protocol.bootstrap(params.resamples)
    )


EXPERIMENT = Experiment(
    id="per-token-trace",
    title="Per-token trace",
    question="How do the errors of SAEs of all widths run along a text?",
    reference="Sec. 4.4, Fig. 5",
    definition=_definition,
    contradicted_by="Correlations over all held-out tokens far below those of the excerpt (C6).",
    params=TokenParams,
    measure=measure,
    passes=passes,
    compute=compute,
    draw=draw,
)
