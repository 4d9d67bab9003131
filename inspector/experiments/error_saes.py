"""Is the nonlinear part of the error harder to learn an SAE on?  Paper, Sec. 5.2, Fig. 7."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from inspector.experiment import Experiment, FitParams, Interval, Outcome, ResultObject, bounded, chosen
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Figures, Measuring, Passes, Protocol, Statistics, Work, Workload

if TYPE_CHECKING:
    from inspector.statistics.error_saes import Trained

LINEAR, NONLINEAR = "linear_error", "nonlinear_error"
PAPER = {LINEAR: 0.54, NONLINEAR: 0.59}
MEANING = {
    LINEAR: "what an affine map predicts of the error",
    NONLINEAR: "the rest of the error",
    "x": "the activation itself",
    "sae_error": "the whole error",
    "gaussian_linear": "normal noise with mean and covariance of linear_error",
    "gaussian_nonlinear": "normal noise with mean and covariance of nonlinear_error",
}
READING = (
    "Each FVU is of the SAE's own part, so a part of small variance is not an easy one. Normal noise of the same "
    "covariance has no features to be found: what an SAE explains of a part beyond what it explains of its noise is "
    "structure, and the rest is how the variance is spread over directions."
)


@dataclass(frozen=True, kw_only=True)
class Params(FitParams):
    """Whose error, and how the SAEs on it are trained; 0 and an empty name mean: as the preset says."""

    preset: str = chosen("demo", ("demo", "paper", "authors"))
    """'paper': Gemma 2 9B, layer 20, 16k, L0 60, 100M tokens. 'authors': the published script's site, Gemma 2 2B, layer
    12, L0 82 (D-13). 'demo': a minute or two on one core."""
    sae: str = ""
    """Whose error; empty: of the width nearest to the preset's, the nearest L0."""
    k: int = bounded(0, 0, 10_000)
    """Active latents per token."""
    expansion: int = bounded(0, 0, 1_024)
    """Latents per dimension of x."""
    sae_tokens: int = bounded(0, 0, 10_000_000_000)
    """Seen by each SAE."""
    learning_rate: float = bounded(0.0, 0, 1)
    """Adam's."""
    seeds: int = bounded(0, 0, 100)
    """First weights; the same ones for every part."""
    controls: bool = True
    """SAEs on x, on the whole error and on noise, with the first seed."""
    folder: str = ""
    """Where the trained SAEs are kept; empty: in the cache."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Over all SAEs that were trained."""

    preset: str
    sae: str
    """The base SAE."""
    at_home: bool
    """Whether this target is the preset's."""
    k: int
    d_sae: int
    tokens: int
    """Seen by each SAE."""
    n_steps: int
    batch_tokens: int
    learning_rate: float
    n_contexts: int
    """Learned from; none holds a held-out token."""
    epochs: float
    seeds: int
    n_test: int
    parts: dict[str, dict[str, Any]]
    """By part: fvu (mean over seeds), fvu_by_seed, l0, dead (means), share: its variance over that of x."""
    difference: dict[str, Any]
    """nonlinear_error minus linear_error: fvu (mean), by_seed."""
    structure: dict[str, float | None]
    """By part with a noise control: FVU of the noise minus FVU of the part, with the first seed."""
    curves: dict[str, list[list[float]]]
    """By part: [tokens seen, FVU on a few held-out contexts], mean over seeds."""
    folder: str
    """Where the SAEs are: sae-lens folders, and error_saes.json."""
    paper: dict[str, float] = field(default_factory=lambda: dict(PAPER))
    reading: str = READING


def measure(measuring: Measuring, params: Params) -> Work[Trained]:
    """See `measure_error_saes`."""
    from inspector.statistics.error_saes import measure_error_saes
    from inspector.training.error_recipe import recipe_of

    recipe = recipe_of(
        params.preset,
        k=params.k,
        expansion=params.expansion,
        tokens=params.sae_tokens,
        learning_rate=params.learning_rate,
        seeds=params.seeds,
        control_seeds=None if params.controls else 0,
    )
    return measure_error_saes(measuring, recipe, sae_id=params.sae, folder=params.folder)


def passes(work: Workload, params: Params) -> Passes:
    """Of `measure`: the model over the tokens once, and three dense products forth and back per SAE in training."""
    from inspector.training.error_recipe import recipe_of

    recipe = recipe_of(
        params.preset, k=params.k, expansion=params.expansion, tokens=params.sae_tokens, seeds=params.seeds
    )
    n = 2 * recipe.seeds + 4 * min(recipe.control_seeds * params.controls, recipe.seeds)
    d, contexts = work.sizes.d_in, -(-recipe.tokens // max(1, work.sizes.length))
    dense = 2.0 * recipe.expansion * d * d
    yield work.walk(
        "training",
        contexts,
        model=work.forward(contexts),
        sae=work.coded(recipe.tokens, work.saes[:1]) + 6.0 * n * recipe.tokens * dense,
        numbers=float(n * recipe.tokens * recipe.expansion * d),
    )
    yield work.walk(
        "scores of the SAEs on errors",
        work.test_contexts,
        model=work.again(work.test_contexts),
        sae=n * work.n_test * 2.0 * dense,
    )


def compute(statistics: Statistics, params: Params) -> Outcome:
    """FVU of every part with intervals over seeds and over contexts, the difference, and the controls."""
    from inspector.statistics.measured import interval

    found, mean = cast("Trained", statistics.own["error-saes"]), shared.mean
    by_part: dict[str, list[Any]] = {}
    for each in found.saes:
        by_part.setdefault(each.part, []).append(each)
    parts: dict[str, dict[str, Any]] = {}
    intervals: dict[str, Interval] = {}
    curves: dict[str, list[list[float]]] = {}
    for part, saes in by_part.items():
        values = [each.fvu[0] for each in saes]
        parts[part] = {
            "fvu": shared.defined(mean(values)),
            "fvu_by_seed": [shared.defined(value) for value in values],
            "l0": mean([each.l0 for each in saes]),
            "dead": mean([float(each.dead) for each in saes]),
            "share": found.shares[part],
            "means": MEANING[part],
        }
        intervals[part] = over_seeds(values)
        intervals[f"{part} over contexts"] = interval(_means([each.fvu for each in saes]))
        curves[part] = [
            [float(points[0][0]), mean([value for _, value in points])]
            for points in zip(*(each.curve for each in saes), strict=True)
        ]
    differences = [b.fvu[0] - a.fvu[0] for a, b in zip(by_part[LINEAR], by_part[NONLINEAR], strict=True)]
    intervals["difference"] = over_seeds(differences)
    draws = zip(_means([b.fvu for b in by_part[NONLINEAR]]), _means([a.fvu for a in by_part[LINEAR]]), strict=True)
    intervals["difference over contexts"] = interval([b - a for b, a in draws])
    structure: shared.Values = {}
    for part, noise in ((LINEAR, "gaussian_linear"), (NONLINEAR, "gaussian_nonlinear")):
        if noise in by_part:
            own = [b - a for b, a in zip(by_part[noise][0].fvu, by_part[part][0].fvu, strict=True)]
            structure[part] = shared.defined(own[0])
            intervals[f"{part} below noise, over contexts"] = interval(own)
    return Outcome(
        rows=(),
        result=Result(
            **shared.copied(found.recipe, "preset", "k", "seeds"),
            **shared.copied(found, "sae", "at_home", "d_sae", "tokens", "n_steps", "batch_tokens", "learning_rate"),
            **shared.copied(found, "n_contexts", "epochs", "n_test", "folder"),
            parts=parts,
            difference={
                "fvu": shared.defined(mean(differences)),
                "by_seed": [shared.defined(value) for value in differences],
            },
            structure=structure,
            curves=curves,
        ),
        intervals={found.sae: intervals},
        controls={
            part: {"definition": f"An SAE trained alike on {MEANING[part]}.", "fvu": parts[part]["fvu"]}
            for part in parts
            if part not in PAPER
        },
        warnings=tuple(_warnings(found, parts)),
    )


def over_seeds(values: Sequence[float]) -> Interval:
    """95% interval of the mean over seeds, by Student's t; None with fewer than two."""
    if len(values) < 2 or any(value != value for value in values):
        return None
    from scipy.stats import t

    mean = shared.mean(values)
    deviation = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    half = float(t.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
    return mean - half, mean + half


def _warnings(found: Trained, parts: dict[str, dict[str, Any]]) -> list[str]:
    said = []
    recipe = found.recipe
    if recipe.seeds < 3:
        said.append(f"With {recipe.seeds} seed(s) the spread over seeds is not known. Use -p seeds=3 or more.")
    if not found.at_home and recipe.preset != "demo":
        said.append(
            f"The preset '{recipe.preset}' belongs to {recipe.model}, layer {recipe.layer}; this is another target."
        )
    if found.epochs > 1:
        said.append(f"The text was read {found.epochs:.1f} times over; the SAEs may have learned it by heart.")
    for part, own in parts.items():
        if own["dead"] > 0.1 * found.d_sae:
            said.append(
                f"{own['dead']:,.0f} of {found.d_sae:,} latents of the SAE on {part} fire on no held-out token."
            )
    return said


def _means(draws: Sequence[Sequence[float]]) -> list[float]:
    return [shared.mean(values) for values in zip(*draws, strict=True)]


def draw(result: ResultObject) -> Figures:
    """The FVUs as a table and as bars with the paper's beside them, and how they fell."""
    from inspector.drawing.figures import Column, Mark

    found = result["result"]
    parts, intervals = found["parts"], result["intervals"][found["sae"]]
    fvus, ends = [own["fvu"] for own in parts.values()], [intervals[part] for part in parts]
    said = f"{_difference(found, intervals)}.{_below_noise(found['structure'])} {found['reading']}"
    table = shared.table(
        f"SAEs of {found['d_sae']:,} latents, L0 {found['k']}, on the parts of {found['sae']}",
        (
            "trained on",
            ("FVU", "95% low, seeds", "high"),
            ("low, contexts", "high"),
            Column(title="dead", digits=0),
            Column(title="variance / x", digits=3),
        ),
        [
            (part, (own["fvu"], over), (None, intervals[f"{part} over contexts"]), own["dead"], own["share"])
            for (part, own), over in zip(parts.items(), ends, strict=True)
        ],
        f"{said}\n{result['definition']}",
        digits=4,
    )
    bars = replace(
        shared.bar("mean over seeds", fvus, ends),
        marks=(Mark(name="the paper", values=tuple(found["paper"].get(part) for part in parts)),),
    )
    lines = (shared.line(part, [x for x, _ in own], [y for _, y in own]) for part, own in found["curves"].items())
    note = f"Intervals over {found['seeds']} seeds; controls have one. "
    note += "The paper's SAEs: 57,344 latents, L0 32, 100M tokens."
    title = "FVU on held-out text while they learned"
    return (
        table,
        shared.grouped_bars("FVU of each SAE on its own part", "FVU", parts, [bars], note),
        shared.curve(title, "tokens seen", "FVU", lines, "On a few contexts; the table has all."),
    )


def _difference(found: Mapping[str, Any], intervals: Mapping[str, Any]) -> str:
    from inspector.drawing.figures import with_interval

    gap = found["difference"]["fvu"]
    said = "" if gap is None else with_interval(gap, intervals["difference"], "+").replace(" [", ", over seeds [")
    return said and f"Nonlinear minus linear: {said}"


def _below_noise(structure: dict[str, float | None]) -> str:
    known = {part: value for part, value in structure.items() if value is not None}
    parts = ", ".join(f"{part} by {value:.4f}" for part, value in known.items())
    return f" Below normal noise of its covariance: {parts}." if parts else ""


def _definition(protocol: Protocol, params: Params) -> str:
    controls = ""
    if params.controls:
        controls = ", and as controls on x, on sae_error and on normal noise of either part's covariance"
    ends = "Interval: 95%, Student's t over seeds"
    if params.resamples:
        ends += f"; beside it a bootstrap of {params.resamples:,} draws over {protocol.held_out_contexts}"
    return (
        f"TopK SAEs trained on linear_error and on nonlinear_error of one SAE, its error split by {protocol.a_map}"
        f"{controls}: same tokens in the same order, same first weights, "
        "same number of steps. FVU: sum ‖part - reconstruction‖² / sum ‖part - mean‖² over held-out tokens. "
        f"{ends}."
    )


EXPERIMENT = Experiment(
    id="error-saes",
    title="SAEs on the error",
    question="Is an SAE on the nonlinear part of the error worse than one on the linear part?",
    reference="Sec. 5.2, Fig. 7",
    definition=_definition,
    contradicted_by="A difference between the two within the spread of seeds (C8).",
    params=Params,
    needs=("error map",),
    measure=measure,
    passes=passes,
    writes=True,
    compute=compute,
    draw=draw,
)
