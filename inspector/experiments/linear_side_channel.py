"""How many linear directions beside an SAE recover its linear error?  Not in the paper; its Sec. 7 asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from inspector.experiment import Experiment, FitParams, Outcome, ResultObject, bounded
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Figures, Measuring, Passes, Protocol, Statistics, Work, Workload

if TYPE_CHECKING:
    from inspector.statistics.side_channel import Channels, ChannelSae

READING = (
    "A side channel of full rank ends at the nonlinear FVU by construction, for any SAE (S-10): what is measured is "
    "how soon. Its directions are dense: they say nothing about features."
)


@dataclass(frozen=True, kw_only=True)
class Params(FitParams):
    """Which SAEs, which rank, what counts as dense."""

    l0: float = bounded(0.0, 0, 1_000_000)
    """Per width, the SAE of the nearest nominal L0; 0 takes all."""
    tokens: int = bounded(0, 0, 1_000_000_000)
    """About so many, in whole contexts; 0 takes all."""
    rank: int = bounded(16, 0, 1_000_000)
    """Rank whose FVU stands in the table."""
    dense: float = bounded(0.1, 1e-6, 1)
    """A latent that is active on a larger share of the tokens is dense."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is measured per SAE. Fractions of the variance of x, unitless; None where undefined."""

    fvu: float | None
    fvu_mean_error: float | None
    """With a channel of rank 0, the mean error alone."""
    fvu_side_channel: float | None
    """With a channel of the rank asked for."""
    fvu_nonlinear: float | None
    """With a channel of full rank."""
    rank_half: float | None
    """Smallest rank that recovers half of what the full one does beyond the mean error."""
    rank_most: float | None
    """As above, 90%."""
    n_dense: int
    """Dense latents, training tokens."""
    dense_of_l0: float | None
    """Their share of all active latents of a token."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Over all ranks."""

    rank: int
    """Of fvu_side_channel."""
    ranks: tuple[int, ...]
    fvu_by_rank: dict[str, list[float | None]]
    """By sae, in the order of the ranks."""
    fvu_by_rank_interval: dict[str, list[tuple[float, float] | None]]
    spectrum: dict[str, list[float]]
    """By sae: share of the variance of linear_error along each of its principal directions, training tokens."""
    dense_limit: float
    dense_latents: dict[str, list[tuple[int, float]]]
    """By sae: index and share of the tokens on which it is active, most frequent first, at most 50."""
    n_train: int
    n_test: int
    reading: str = READING


MOST_LISTED = 50


def measure(measuring: Measuring, params: Params) -> Work[Channels]:
    """See `measure_channels`."""
    from inspector.statistics.side_channel import measure_channels

    return measure_channels(measuring, l0=params.l0, tokens=params.tokens, rank=params.rank, dense=params.dense)


def passes(work: Workload, params: Params) -> Passes:
    """Of `measure`: covariances of both parts of every error, then the held-out parts along their directions."""
    chosen, saes = work.sampled(params.tokens), work.nearest(params.l0)
    n = len(saes)
    yield work.walk(
        "side channel",
        chosen.contexts,
        model=work.again(chosen.contexts),
        sae=work.coded(chosen.n_tokens, saes) + work.squares(chosen.n_tokens, n),
        sums=work.squares(chosen.n_train, n) + work.squares(chosen.n_test, 2 * n) + 25.0 * n * work.sizes.d_in**3,
        numbers=chosen.n_train * float(sum(ref.d_sae for ref in saes)) + work.vectors(chosen.n_tokens, 8 * n),
    )


def compute(statistics: Statistics, params: Params) -> Outcome:
    """Collect every rank's FVU, with random directions of the same rank as the control."""
    found = cast("Channels", statistics.own["linear-side-channel"])
    at = found.ranks.index(min(params.rank, statistics.d))
    random = {}

    def measured(one: ChannelSae) -> tuple[Row, shared.Intervals]:
        values, intervals = shared.apart(
            {
                "fvu": one.fvu,
                "fvu_side_channel": one.by_rank[at],
                "fvu_nonlinear": one.by_rank[-1],
                "rank_half": one.rank_half,
                "rank_most": one.rank_most,
            }
        )
        nothing, everything = one.by_rank[0].value, one.by_rank[-1].value
        if nothing is not None and everything is not None:
            random[one.sae] = nothing - (nothing - everything) * found.ranks[at] / statistics.d
        row = Row(fvu_mean_error=nothing, n_dense=len(one.dense), dense_of_l0=one.dense_of_l0, **values)
        return row, intervals

    rows, intervals = shared.per_sae(statistics, found.saes, measured)
    return Outcome(
        rows=rows,
        result=Result(
            rank=found.ranks[at],
            ranks=found.ranks,
            fvu_by_rank={one.sae: [each.value for each in one.by_rank] for one in found.saes},
            fvu_by_rank_interval={one.sae: [each.interval for each in one.by_rank] for one in found.saes},
            spectrum={one.sae: list(one.spectrum) for one in found.saes},
            dense_limit=params.dense,
            dense_latents={one.sae: list(one.dense[:MOST_LISTED]) for one in found.saes},
            n_train=found.n_train,
            n_test=found.n_test,
        ),
        intervals=intervals,
        controls={
            "random_directions": {
                "definition": f"FVU with a channel of {found.ranks[at]} random orthogonal directions, in expectation: "
                "every direction recovers the same.",
                "fvu": random,
            }
        },
        warnings=_dense_warning([one for one in found.saes if one.dense], params.dense),
    )


def _dense_warning(flagged: Sequence[ChannelSae], limit: float) -> tuple[str, ...]:
    """One sentence for all SAEs with dense latents, naming the worst."""
    if not flagged:
        return ()
    worst = max(flagged, key=lambda one: one.dense_of_l0 or 0.0)
    return (
        f"{len(flagged)} SAEs have latents that are active on more than {limit:.0%} of the tokens; most of all "
        f"{worst.sae}, where {len(worst.dense)} such latents make up {worst.dense_of_l0 or 0.0:.0%} of its L0.",
    )


def draw(result: ResultObject) -> Figures:
    """FVU against rank for every SAE looked at, the spectrum, and the table."""
    from inspector.drawing.figures import Axis, Score, sae_table
    from inspector.options import width_label

    found, rows = result["result"], shared.rows_with(result, "rank_half")
    scores = (
        Score(key="fvu", title="FVU"),
        Score(key="fvu_side_channel", title=f"+ rank {found['rank']}"),
        Score(key="fvu_nonlinear", title="nonlinear FVU"),
        Score(key="rank_half", title="rank for half", digits=0, ends=False),
        Score(key="rank_most", title="for 90%", digits=0, ends=False),
        Score(key="n_dense", title="dense latents"),
        Score(key="dense_of_l0", title="of L0", digits=2),
    )
    names = {row["sae"]: f"{width_label(row['d_sae'])}, L0 {row['l0']:.0f}" for row in _one_per_width(rows)}
    # The axis is logarithmic; rank 0 stands in the result.
    ranks = [float(rank) for rank in found["ranks"][1:]]
    by_rank = (
        shared.line(name, ranks, found["fvu_by_rank"][sae][1:], found["fvu_by_rank_interval"][sae][1:])
        for sae, name in names.items()
    )
    spectra = (
        shared.line(name, map(float, range(1, 1 + len(shares))), [share if share > 0 else None for share in shares])
        for sae, name in names.items()
        if (shares := found["spectrum"][sae])
    )
    return (
        sae_table("SAE with a linear side channel", rows, result["intervals"], scores, result["definition"]),
        shared.curve("FVU with a side channel", Axis(label="rank", log=True), "FVU", by_rank, READING),
        shared.curve(
            "Spectrum of the linear error",
            Axis(label="principal direction", log=True),
            Axis(label="share of its variance", log=True),
            spectra,
        ),
    )


def _one_per_width(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The SAE of the middle L0 of each width, so that lines can be told apart."""
    found = []
    for width in sorted({row["d_sae"] for row in rows}):
        same = sorted((row for row in rows if row["d_sae"] == width), key=lambda row: float(row["l0"]))
        found.append(same[len(same) // 2])
    return found


def _definition(protocol: Protocol, params: Params) -> str:
    formula = "x_hat + mean error + P_k (linear_error - its mean)" if protocol.intercept else "x_hat + P_k linear_error"
    return (
        f"FVU of {formula}, linear_error being {protocol.a_map} of x and P_k the projection on the k leading principal "
        f"directions of linear_error on the training tokens: the best such map of rank k. Held-out tokens. "
        + protocol.bootstrap(params.resamples, fixed="map and directions")
    )


EXPERIMENT = Experiment(
    id="linear-side-channel",
    title="Linear side channel",
    question="How many linear directions beside an SAE recover what an affine map of x predicts of its error?",
    reference="beyond the paper, after Sec. 7",
    definition=_definition,
    contradicted_by=(
        "It tests no claim of the paper; a rank near d for half of the linear error would say that a small side "
        "channel is no remedy."
    ),
    params=Params,
    measure=measure,
    passes=passes,
    compute=compute,
    draw=draw,
)
