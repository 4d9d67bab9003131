"""How do the errors of SAEs of all widths run along a text?  Paper, Sec. 4.4, Fig. 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inspector.experiment import Experiment, Interval, Outcome, ResultObject
from inspector.experiments._tokens import NO_STRETCH, TokenParams, found_in, measure, names_of, trace_figures

if TYPE_CHECKING:
    from inspector.drawing.figures import Figure
    from inspector.statistics.measured import Statistics
    from inspector.statistics.profiles import Protocol
    from inspector.statistics.token_norms import Trace


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
    from inspector.statistics import token_scores as scores
    from inspector.statistics.token_norms import column

    found = found_in(statistics, "per-token-trace")
    shown = found.trace
    rows: list[Row | None] = []
    intervals: dict[str, dict[str, Interval]] = {}
    for sae in statistics.saes:
        sae_id = sae.ref.sae_id
        if sae_id not in found.series:
            rows.append(None)
            continue
        own, narrowest = column("error", sae_id), column("error", found.series[0])
        values = scores.each(
            {
                "mean_norm": scores.mean(found.plain, own, found.counts),
                "correlation": scores.correlation(found.plain, narrowest, own, found.counts),
            }
        )
        norms = () if shown is None else shown.sae_error[sae_id]
        first = () if shown is None else shown.sae_error[found.series[0]]
        rows.append(
            Row(
                mean_norm_shown=sum(norms) / len(norms) if norms else None,
                correlation_shown=scores.correlation_of(first, norms),
                **{name: value.value for name, value in values.items()},
            )
        )
        intervals[sae_id] = {name: value.interval for name, value in values.items()}
    return Outcome(
        rows=tuple(rows),
        result=Result(
            series=list(found.series),
            labels=names_of(found),
            context=None if shown is None else shown.context,
            positions=[] if shown is None else list(shown.positions),
            tokens=[] if shown is None else list(shown.tokens),
            train=[] if shown is None else list(shown.train),
            x_norm=[] if shown is None else list(shown.x),
            sae_error={} if shown is None else {name: list(values) for name, values in shown.sae_error.items()},
            mean_nonlinear_error=_mean_nonlinear(shown),
        ),
        intervals=intervals,
        controls={
            "all_tokens": {
                "definition": "The same correlation over all held-out tokens: an excerpt proves nothing. Shifted: over "
                "the tokens shown, with the narrowest SAE's norms moved on by half the excerpt, which is what no "
                "relation looks like.",
                "shifted": _shifted(shown, found.series, scores.correlation_of),
            }
        },
        warnings=() if shown is not None or not params.length else (NO_STRETCH.format(length=params.length),),
    )


def _mean_nonlinear(shown: Trace | None) -> list[float]:
    if shown is None:
        return []
    return [sum(values) / len(values) for values in zip(*shown.nonlinear_error.values(), strict=True)]


def _shifted(shown: Trace | None, series: Sequence[str], correlation_of: Any) -> Mapping[str, float | None]:
    if shown is None:
        return {}
    first = shown.sae_error[series[0]]
    moved = (*first[len(first) // 2 :], *first[: len(first) // 2])
    return {sae_id: correlation_of(moved, shown.sae_error[sae_id]) for sae_id in series}


def draw(result: ResultObject) -> Sequence[Figure]:
    """Both panels of Fig. 5, with the mean nonlinear error, and the averages in a table."""
    from inspector.drawing.figures import Score, sae_table

    found = result["result"]
    named = zip(found["series"], found["labels"], strict=True)
    lines = {label: found["sae_error"][sae_id] for sae_id, label in named} if found["tokens"] else {}
    lines["mean nonlinear"] = found["mean_nonlinear_error"]
    scores = (
        Score(key="mean_norm_shown", title="mean here"),
        Score(key="mean_norm", title="mean, all"),
        Score(key="correlation_shown", title="corr. here"),
        Score(key="correlation", title="corr., all"),
    )
    rows = [row for row in result["saes"] if "mean_norm_shown" in row]
    table = sae_table("Along the excerpt and over all tokens", rows, result["intervals"], scores, result["definition"])
    return *trace_figures("Error norm along a text", found, lines, zoom=True), table


def definition(protocol: Protocol, params: TokenParams) -> str:
    """What a run with this protocol measures."""
    from inspector.statistics.profiles import bootstrap

    among = "held-out ones, where whole contexts are held out"
    if protocol.split == "token":
        among = "training tokens among them"
    return (
        f"‖sae_error‖ at {params.length:,} consecutive tokens for one SAE per width, from number {params.start:,} of "
        f"all included tokens on ({among}), and the mean over the SAEs of ‖nonlinear_error‖, the error split by "
        f"{protocol.a_map}. Beside it, over all held-out tokens, the mean norm and its correlation with the narrowest "
        "SAE's. " + bootstrap(params.resamples, protocol.held_out_contexts)
    )


EXPERIMENT = Experiment(
    id="per-token-trace",
    title="Per-token trace",
    question="How do the errors of SAEs of all widths run along a text?",
    reference="Sec. 4.4, Fig. 5",
    definition=definition,
    contradicted_by="Correlations over all held-out tokens far below those of the excerpt (C6).",
    params=TokenParams,
    measure=measure,
    compute=compute,
    draw=draw,
)
