"""Which tokens does the SAE fail on?  Beyond the paper, whose Fig. 5 shows a hundred of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from inspector.experiment import Experiment, FitParams, Outcome, ResultObject, bounded, chosen
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Array, Figures, Measuring, Passes, Protocol, Statistics, Work, Workload

if TYPE_CHECKING:
    from inspector.statistics.worst_tokens import TokensFound

VALUES = ("nonlinear", "linear", "total", "share", "fvu", "loss", "damage")
"""As `statistics.worst_tokens.VALUES`, which brings torch."""
ALL = "all"
"""In the place of a class: all ordinary tokens."""
OUTLIER = "outlier"
SHOWN = 30
"""Lines of the figures' tables; `dm-inspect worst` and the screen show every one."""


@dataclass(frozen=True, kw_only=True)
class Params(FitParams):
    """Which tokens are looked at, and which of them are kept."""

    sae: str = ""
    """Whose places and token means are kept; empty: the middle one of the target, as the Stream begins with."""
    by: str = chosen("nonlinear", VALUES)
    """The number by which the worst places are chosen."""
    places: int = bounded(10_000, 1, 100_000)
    """Places kept, and rows of the table of token ids at most."""
    least: int = bounded(5, 1, 1_000_000)
    """A token id seen less often stands behind all others: the mean of one place is that place."""
    held_out: bool = False
    """Leave out the tokens that the map was fitted on, at which the nonlinear error is a little smaller."""
    damage: bool = True
    """Run every context once more, with the SAE in the place of x."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Per SAE, over all ordinary tokens that count. Norms in the units of x."""

    n_tokens: int
    mean_nonlinear: float | None
    mean_linear: float | None
    mean_total: float | None
    mean_share: float | None
    """‖nonlinear_error‖² / (‖linear_error‖² + ‖nonlinear_error‖²) of a token."""
    mean_fvu: float | None
    """‖nonlinear_error‖² / ‖x‖² of a token; not centred, so this is not fvu_nonlinear."""
    worst_class: str | None
    """The class with the largest mean of `by`, of those in ten documents or in all; None: not measured."""
    worst_ratio: float | None
    """Its mean over the mean of all ordinary tokens."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Columns of equal length. Behind a number of VALUES: `_sd` its standard deviation over tokens, `_low` and `_high`
    the 95% interval of its mean, `_half` half the width of one.
    """

    sae: str
    """Of `places`, `tokens`, `positions` and `outliers`."""
    by: str
    n_tokens: int
    """Ordinary ones that count."""
    n_ids: int
    """Different ones among them."""
    n_contexts: int
    n_documents: int
    """Or blocks of them, where there are more than 512: what intervals resample."""
    n_outliers: int
    median_norm: float | None
    first_position: int
    last_position: int
    """Positions outside count nowhere, nor does the last of a context."""
    damage_measured: bool
    classes: dict[str, list[Any]]
    """A row per SAE and class, ALL among them: sae, class, n, part (of the SAE's squared nonlinear error), VALUES."""
    positions: dict[str, list[Any]]
    """A row per range of positions, each twice as long as the one before: first, last, n, VALUES."""
    tokens: dict[str, list[Any]]
    """A row per token id: token_id, token, class (the most frequent), n, n_blocks (blocks of documents it is in), part,
    context and position of its worst place, VALUES with `_sd` and `_half`."""
    places: dict[str, list[Any]]
    """The worst ones, worst first: context, position, token_id, token, class, train, x_norm, VALUES."""
    outliers: dict[str, list[Any]]
    """The same of outliers, the longest x first; they are in no other table."""


def measure(measuring: Measuring, params: Params) -> Work[TokensFound]:
    """See `measure_worst`."""
    from inspector.statistics.worst_tokens import measure_worst

    return measure_worst(
        measuring,
        sae=params.sae,
        by=params.by,
        places=params.places,
        held_out=params.held_out,
        damage=params.damage,
    )


def passes(work: Workload, params: Params) -> Passes:
    """Of `measure`: every SAE at every token that is looked at, and a second run of each context for the damage."""
    contexts = work.test_contexts if params.held_out else work.sizes.n_contexts
    tokens = work.n_test if params.held_out else work.n_tokens
    runs = contexts * (1 + params.damage)
    yield work.walk(
        "worst tokens",
        contexts,
        model=work.forward(runs, whole=True),
        sae=work.coded(tokens, work.saes) + work.squares(tokens, len(work.saes)),
        numbers=work.logits(runs),
    )


def compute(statistics: Statistics, params: Params) -> Outcome:
    """Means, spreads and intervals of every group of tokens."""
    found = cast("TokensFound", statistics.own["worst-tokens"])
    by_sae = {sae: _grouped(found, table, params, sae == found.sae) for sae, table in found.classes.items()}
    classes: dict[str, list[Any]] = {}
    rows, intervals = [], {}
    for sae in statistics.saes:
        columns, draws = by_sae[sae.ref.sae_id]
        _extend(classes, {"sae": [sae.ref.sae_id] * len(columns["n"]), **columns})
        row, ends = _row(columns, draws, params, found)
        rows.append(row)
        intervals[sae.ref.sae_id] = ends
    places = _places(found, found.places, params)
    return Outcome(
        rows=tuple(rows),
        result=Result(
            sae=found.sae,
            by=found.by,
            n_tokens=int(found.fitted[:, 0].sum()),
            n_ids=int((found.tokens[:, :, 0].sum(axis=0) > 0).sum()),
            n_contexts=found.n_contexts,
            n_documents=found.counts.shape[1],
            n_outliers=found.n_outliers,
            median_norm=found.median_norm,
            first_position=found.positions_counted[0],
            last_position=found.positions_counted[1] - 1,
            damage_measured=params.damage,
            classes=classes,
            positions=_positions(found, params),
            tokens=_tokens(found, params),
            places=places,
            outliers=_places(found, found.outliers, params),
        ),
        intervals=intervals,
        controls=_controls(found, params),
        warnings=_warnings(found, places),
    )


def _extend(into: dict[str, list[Any]], more: Mapping[str, list[Any]]) -> None:
    for name, values in more.items():
        into.setdefault(name, []).extend(values)


def _measured(params: Params, *, own: bool) -> Sequence[str]:
    """The values there are; damage is of one SAE, if that."""
    return VALUES if params.damage and own else VALUES[:-1]


def _numbers(values: Array) -> list[float | None]:
    """As stored: seven digits, which is what float32 activations support; None: undefined."""
    return [float(f"{value:.7g}") if value == value else None for value in values.tolist()]


def _grouped(
    found: TokensFound, table: Array, params: Params, own: bool
) -> tuple[dict[str, list[Any]], dict[str, Array]]:
    """Columns by class from sums [g, classes, columns], ALL first, and means [draws, 1 + classes] by value."""
    import numpy as np

    from inspector.statistics.token_kinds import CLASSES

    ordinary = [place for place, name in enumerate(CLASSES) if name != OUTLIER]
    with_all = np.concatenate([table[:, ordinary].sum(axis=1, keepdims=True), table], axis=1)
    there = with_all[:, :, 0].sum(axis=0) > 0
    columns, draws = _with_intervals(found.counts, with_all, _measured(params, own=own))
    squares = with_all[..., 2 + len(VALUES)].sum(axis=0)
    columns["part"] = _numbers(squares / max(float(squares[0]), 1e-300))
    columns["documents"] = (with_all[:, :, 0] > 0).sum(axis=0).tolist()
    if params.damage and not own:
        columns |= {f"damage{end}": [None] * len(there) for end in ("", "_sd", "_low", "_high")}
    names = [ALL, *CLASSES]
    kept = {name: [value for value, keep in zip(values, there, strict=True) if keep] for name, values in
            {"class": names, **columns}.items()}  # fmt: skip
    return kept, {name: values[:, there] for name, values in draws.items()}


def _with_intervals(
    counts: Array, table: Array, values: Sequence[str]
) -> tuple[dict[str, list[Any]], dict[str, Array]]:
    """Columns of groups from sums [g, groups, columns], and the means [draws, groups] behind their intervals."""
    import numpy as np

    from inspector.statistics.worst_tokens import moments_of

    drawn = np.tensordot(counts, table, axes=1)
    columns: dict[str, list[Any]] = {"n": drawn[0, :, 0].astype(int).tolist()}
    draws = {}
    for place, name in enumerate(values):
        mean, spread = moments_of(drawn[0], place)
        draws[name] = moments_of(drawn, place)[0]
        ends = [shared.of_draws({name: column})[1][name] for column in draws[name].T.tolist()]
        columns[name], columns[f"{name}_sd"] = _numbers(mean), _numbers(spread)
        for i, end in enumerate(("low", "high")):
            columns[f"{name}_{end}"] = [None if each is None else float(f"{each[i]:.7g}") for each in ends]
    return columns, draws


def _row(
    columns: Mapping[str, list[Any]], draws: Mapping[str, Array], params: Params, found: TokensFound
) -> tuple[Row, shared.Intervals]:
    """An SAE, over all its ordinary tokens."""
    import numpy as np

    intervals: shared.Intervals = {}
    for name in VALUES[:5]:
        low, high = columns[f"{name}_low"][0], columns[f"{name}_high"][0]
        intervals[f"mean_{name}"] = None if low is None else (low, high)
    worst, ratio = None, None
    if params.by in draws:
        wanted = min(10, found.counts.shape[1])
        able = [
            place
            for place, name in enumerate(columns["class"])
            if name not in (ALL, OUTLIER) and columns["documents"][place] >= wanted
        ]
        if able:
            worst = max(able, key=lambda place: columns[params.by][place] or 0.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                ratios = draws[params.by][:, worst] / draws[params.by][:, 0]
            values, ends = shared.of_draws({"worst_ratio": ratios.tolist()})
            ratio, intervals["worst_ratio"] = values["worst_ratio"], ends["worst_ratio"]
    means = {f"mean_{name}": columns[name][0] for name in VALUES[:5]}
    worst_class = None if worst is None else columns["class"][worst]
    return Row(n_tokens=columns["n"][0], **means, worst_class=worst_class, worst_ratio=ratio), intervals


def _positions(found: TokensFound, params: Params) -> dict[str, list[Any]]:
    """By ranges of positions."""
    columns, _ = _with_intervals(found.counts, found.positions, _measured(params, own=True))
    first, end = found.positions_counted
    ranges = [(max(1 << bits >> 1, first), min((1 << bits) - 1, end - 1)) for bits in range(found.positions.shape[1])]
    columns = {"first": [each[0] for each in ranges], "last": [each[1] for each in ranges], **columns}
    there = [n > 0 for n in columns["n"]]
    return {
        name: [value for value, keep in zip(values, there, strict=True) if keep] for name, values in columns.items()
    }


def _tokens(found: TokensFound, params: Params) -> dict[str, list[Any]]:
    """By token id, those seen often enough first, each part by its mean."""
    import numpy as np

    from inspector.statistics.token_kinds import CLASSES
    from inspector.statistics.worst_tokens import halves_of, moments_of

    sums = found.tokens.sum(axis=0)
    n = sums[:, 0]
    table = np.concatenate([sums, found.squares], axis=1)
    ranked = moments_of(table, VALUES.index(params.by))[0]
    there = np.flatnonzero(n)
    order = sorted(there.tolist(), key=lambda place: (n[place] < params.least, -ranked[place]))[: params.places]
    squares = table[:, 2 + len(VALUES)]
    blocks = (found.tokens[:, order, 0] > 0).sum(axis=0)
    columns: dict[str, list[Any]] = {
        "token_id": [found.ids[place] for place in order],
        "token": [found.texts[place] for place in order],
        "class": [CLASSES[int(found.token_classes[place].argmax())] for place in order],
        "n": n[order].astype(int).tolist(),
        "n_blocks": blocks.tolist(),
        "part": _numbers(squares[order] / max(float(squares.sum()), 1e-300)),
        "context": found.worst[order, 1].astype(int).tolist(),
        "position": found.worst[order, 2].astype(int).tolist(),
    }
    for place, name in enumerate(_measured(params, own=True)):
        mean, spread = moments_of(table[order], place)
        columns[name], columns[f"{name}_sd"] = _numbers(mean), _numbers(spread)
        columns[f"{name}_half"] = halves_of(found.tokens[:, order], place, blocks.tolist())
    return columns


def _places(found: TokensFound, rows: Array, params: Params) -> dict[str, list[Any]]:
    """Places as columns."""
    from inspector.statistics.token_kinds import CLASSES
    from inspector.statistics.worst_tokens import PLACE

    texts = dict(zip(found.ids, found.texts, strict=True))
    known = {name: rows[:, place] for place, name in enumerate(PLACE)}
    whole = {name: known[name].astype(int).tolist() for name in ("context", "position", "token_id")}
    return {
        **whole,
        "token": [texts[token] for token in whole["token_id"]],
        "class": [CLASSES[int(kind)] for kind in known["class"]],
        "train": known["train"].astype(bool).tolist(),
        **{name: _numbers(known[name]) for name in ("x_norm", *_measured(params, own=True))},
    }


def _controls(found: TokensFound, params: Params) -> dict[str, Any]:
    """What fitting on a token hides, and that a splice reaches back to no earlier place."""
    from inspector.statistics.worst_tokens import moments_of

    sides: dict[str, Any] = {}
    for side, sums in zip(("fitted", "others"), found.fitted, strict=True):
        means = {name: moments_of(sums[None], VALUES.index(name))[0] for name in ("nonlinear", "linear")}
        sides |= {f"n_{side}": int(sums[0])} | {f"{name}_{side}": _numbers(mean)[0] for name, mean in means.items()}
    told: dict[str, Any] = {
        "fitted_tokens": {
            "definition": "Mean norms at the tokens that the map was fitted on and at the others, of "
            f"{found.sae}: what it fits of their noise is missing from their nonlinear error.",
            **sides,
        }
    }
    if params.damage:
        told["before_the_splice"] = {
            "definition": "Largest change of any loss before the first replaced position, in nats (S-25).",
            "gap": found.before_gap,
        }
    return told


def _warnings(found: TokensFound, places: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    few = len(set(places["token_id"][:100]))
    if found.n_outliers or not places["token_id"] or few > 3:
        return ()
    return (f"The hundred worst places are of {few} token ids. See which they are before reading the others.",)


# ---- figures ---------------------------------------------------------------------------------------------------------

TITLES = {
    "nonlinear": "‖nonlinear‖", "linear": "‖linear‖", "total": "‖error‖", "share": "share", "fvu": "fvu",
    "loss": "loss", "damage": "damage",
}  # fmt: skip


def rows_of(columns: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """A table of columns, row by row."""
    return (dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True))


def draw(result: ResultObject) -> Figures:
    """Classes, token ids and places of one SAE, and the mean against position."""
    from inspector.drawing.figures import Axis

    found = result["result"]
    by, sae = found["by"], found["sae"]
    classes = [row for row in rows_of(found["classes"]) if row["sae"] == sae]
    shown = [name for name in VALUES if name in found["places"]]
    counted = f"Positions {found['first_position']} to {found['last_position']}; {found['n_outliers']} outliers apart."

    def table(title: str, rows: Sequence[Mapping[str, Any]], first: Mapping[str, str], note: str) -> Any:
        heads = [*first.values(), *(TITLES[name] for name in shown)]
        return shared.table(title, heads, [[row[key] for key in (*first, *shown)] for row in rows], note)

    def ends(rows: Sequence[Mapping[str, Any]], name: str) -> list[shared.Ends]:
        pairs = ((row[f"{name}_low"], row[f"{name}_high"]) for row in rows)
        return [None if low is None else (low, high) for low, high in pairs]

    named = {"token": "token", "class": "class"}
    positions = list(rows_of(found["positions"]))
    at = [float(row["first"] + row["last"]) / 2 for row in positions]
    return (
        shared.grouped_bars(
            f"Mean {TITLES[by]} by class of token, SAE {sae}",
            Axis(label=TITLES[by], unit="nats" if by in ("loss", "damage") else ""),
            (f"{row['class']} ({row['n']:,})" for row in classes),
            [shared.bar(by, [row[by] for row in classes], ends(classes, by))],
            counted,
        ),
        table(f"Classes of tokens, SAE {sae}", classes, {"class": "class", "n": "tokens", "part": "part"}, counted),
        table(
            "Token ids with the largest means",
            [_quoted(row) for row in rows_of({name: each[:SHOWN] for name, each in found["tokens"].items()})],
            {**named, "n": "seen"},
            "",
        ),
        table(
            "Worst places",
            [_quoted(row) for row in rows_of({name: each[:SHOWN] for name, each in found["places"].items()})],
            {**named, "context": "context", "position": "position"},
            result["definition"],
        ),
        shared.curve(
            "Against position",
            Axis(label="position", log=True),
            TITLES[by],
            [shared.line(by, at, [row[by] for row in positions], ends(positions, by))],
        ),
        shared.sae_table(
            "All SAEs",
            result,
            {"mean_nonlinear": "nonlinear", "mean_linear": "linear", "mean_share": "share", "worst_ratio": "worst/all"},
        ),
    )


def _quoted(row: Mapping[str, Any]) -> dict[str, Any]:
    """With marks around the token, for a leading space could not be seen; contexts from 1, as on the screen."""
    return {**row, "token": f"'{row['token']}'", "context": row["context"] + 1}


def _definition(protocol: Protocol, params: Params) -> str:
    which = "Every token held out" if params.held_out else "Every token that counts, fitted or held out"
    also = (
        " Damage: what the SAE in the place of x, at this and all earlier places that count, adds to the loss there."
        if params.damage
        else ""
    )
    return (
        f"{which}, at the positions told: norms of sae_error and its two parts, split by {protocol.a_map}; share = "
        "‖nonlinear‖² / (‖linear‖² + ‖nonlinear‖²); fvu = ‖nonlinear‖² / ‖x‖²; the loss for the next token."
        + also
        + " "
        "Means and standard deviations over the tokens of a group; outliers are in a class of their own and in nothing "
        "else. "
        + protocol.bootstrap(params.resamples, "the documents", fixed="the maps")
        + " That is of classes and positions; of token ids it is Student's, over 16 blocks of documents, where an id "
        "is in 8 of them."
    )


EXPERIMENT = Experiment(
    id="worst-tokens",
    title="Worst tokens",
    question="Which tokens does the SAE fail on?",
    reference="beyond the paper, whose Fig. 5 shows a hundred tokens",
    definition=_definition,
    contradicted_by="Nothing of the paper: it says how large the nonlinear error is, not at which tokens.",
    params=Params,
    measure=measure,
    passes=passes,
    compute=compute,
    draw=draw,
)
