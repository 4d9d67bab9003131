"""Do the components that feed a layer predict its SAE's error?  Paper, Sec. 6.2, Eq. 16, Fig. 9b."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from inspector.experiment import Experiment, FitParams, Outcome, ResultObject, bounded, chosen, words_of
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Figures, Measuring, Passes, Protocol, Statistics, Work, Workload

if TYPE_CHECKING:
    from inspector.statistics.components import Components

KINDS = {
    "sae": "reconstruction",
    "activation": "activation",
    "sae_error": "SAE error",
    "linear_error": "linear error",
    "nonlinear_error": "nonlinear error",
}
TARGETS = ("nonlinear_error", "sae_error", "linear_error", "activation", "sae")
"""In the order they are drawn: the three panels of Fig. 9b, then what the published code can predict too."""
NAMED = {"activation": "x", "sae": "Sae(x)"}
"""Targets that are drawn by other names."""
TITLES = {"own": "Sae(x)", "previous": "previous residual", "mlp": "MLP", "attn": "attention", "joint": "joint"}
READING = (
    "nonlinear_error is minus the part of Sae(x) that is not affine in x (S-09), so what Sae(x) itself explains of it "
    "is a property of the SAE's map and no discovery about the model; on x and Sae(x) together R-squared would be 1 "
    "(S-12)."
)


@dataclass(frozen=True, kw_only=True)
class Params(FitParams):
    """Which SAE, how many tokens, which layer's components."""

    sae: str = ""
    """The SAE whose error is predicted; empty: the one most like its companions in width and L0."""
    tokens: int = bounded(0, 0, 1_000_000_000)
    """About so many, in whole contexts; 0: 12,000, or 50 per dimension of the largest regressor if that is more."""
    regressors: str = chosen("sae", list(KINDS), several=True)
    """What of each component is regressed on, one after the other, with commas between: 'sae' (its reconstruction, as
    the paper), 'activation', 'sae_error', 'linear_error', 'nonlinear_error' (of the component's own SAE)."""
    targets: str = chosen("sae_error,linear_error,nonlinear_error", list(KINDS), several=True)
    """What is predicted, with commas between: the SAE's error and its parts, as the paper, 'activation' (x) or 'sae'
    (its reconstruction)."""
    components: str = chosen("same", ("same", "previous"))
    """Layer of MLP and attention: 'same' as Eq. 16 and the code, or 'previous' as the text (E-12, D-22)."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """R-squared on held-out tokens. Empty where the suite has no companion."""

    sae: str | None
    """Whose error it is."""
    layer: int | None
    component_layer: int | None
    companions: dict[str, dict[str, Any]]
    """By component: sae, hook_name, d_sae, nominal_l0."""
    n_train: int
    n_test: int
    r2_mean_dims: dict[str, dict[str, float | None]]
    """By regressor, then by target; comparable with the paper."""
    r2_pooled: dict[str, dict[str, float | None]]
    increment_r2_mean_dims: dict[str, float | None]
    """By target: all previous components together, beyond the previous residual alone."""
    reading: str = READING
    paper_own_of_nonlinear: float = 0.50
    paper_previous_of_nonlinear: tuple[float, float] = (0.04, 0.14)
    paper_previous_of_error: tuple[float, float] = (0.06, 0.10)


def measure(measuring: Measuring, params: Params) -> Work[Components | None]:
    """See `measure_components`."""
    from inspector.statistics.components import measure_components

    return measure_components(
        measuring,
        tokens=params.tokens,
        component_layer=params.components,
        sae_id=params.sae,
        kinds=words_of(params.regressors),
        targets=words_of(params.targets),
    )


def named(regressor: str) -> str:
    """As drawn: 'mlp linear_error' is 'MLP, linear_error'."""
    component, _, kind = regressor.partition(" ")
    if component == "own" and kind:
        return "x"
    return f"{TITLES[component]}, {kind}" if kind else TITLES[component]


def passes(work: Workload, params: Params) -> Passes:
    """Of `measure`, with companions as wide as the hook: its own SAE, those of MLP, attention and the layer before, and
    all of them joined.
    """
    joined = 3 * work.sizes.d_in
    chosen = work.sampled(params.tokens or max(12_000, 50 * joined))
    kinds = words_of(params.regressors)
    twice = any(kind.endswith("error") and kind != "sae_error" for kind in kinds)
    contexts = chosen.contexts + twice * chosen.train_contexts
    yield work.walk(
        "components",
        contexts,
        model=work.forward(contexts),
        sae=4 * work.coded(contexts * work.sizes.length, work.saes[:1]),
        sums=len(kinds) * (work.squares(chosen.n_train, 4 + 9 + 3 * 6) + 25.0 * (4 + 27) * work.sizes.d_in**3),
    )


def compute(statistics: Statistics, params: Params) -> Outcome:
    """Collect the regressions of one SAE's error and its parts."""
    found = cast("Components | None", statistics.own["cross-component"])
    if found is None:
        empty = Result(sae=None, layer=None, component_layer=None, companions={}, n_train=0, n_test=0,
                       r2_mean_dims={}, r2_pooled={}, increment_r2_mean_dims={})  # fmt: skip
        return Outcome(rows=(), result=empty, intervals={}, controls={"companions": {"missing": list(TITLES)[1:4]}},
                       warnings=("The hook has no layer, so no component is known to feed it.",))  # fmt: skip
    increments, beyond = shared.apart(found.increments)
    scores: dict[str, dict[str, shared.Values]] = {"r2_mean_dims": {}, "r2_pooled": {}}
    intervals: shared.Intervals = {}
    for name, targets in found.predictions.items():
        scores["r2_mean_dims"][name], own = shared.apart({key: each.r2_mean_dims for key, each in targets.items()})
        scores["r2_pooled"][name], _ = shared.apart({key: each.r2_pooled for key, each in targets.items()})
        intervals |= {f"{name} {target}": ends for target, ends in own.items()}
    missing = [name for name in ("previous", "mlp", "attn") if name not in {each[0] for each in found.companions}]
    return Outcome(
        rows=(),
        result=Result(
            sae=found.sae,
            layer=found.layer,
            component_layer=found.component_layer,
            companions={
                name: {"sae": sae, "hook_name": hook, "d_sae": d_sae, "nominal_l0": l0}
                for name, sae, hook, d_sae, l0 in found.companions
            },
            n_train=found.n_train,
            n_test=found.n_test,
            r2_mean_dims=scores["r2_mean_dims"],
            r2_pooled=scores["r2_pooled"],
            increment_r2_mean_dims=increments,
        ),
        intervals={found.sae: intervals | {f"increment {target}": ends for target, ends in beyond.items()}},
        controls={
            "one_split": {
                "definition": "The map that divides the error and the regressions of its parts are fitted on the same "
                "training tokens and scored on the same held-out ones; whole contexts are held out unless the split "
                "says otherwise.",
                "n_train": found.n_train,
                "n_test": found.n_test,
            },
            "companions": {
                "definition": "Components for which the suite has no SAE on disk.",
                "missing": missing,
            },
        },
        warnings=(f"The suite has no SAE on disk for: {', '.join(missing)}.",) if missing else (),
    )


def draw(result: ResultObject) -> Figures:
    """A panel of bars per target, as Fig. 9b, and all numbers in a table."""
    found = result["result"]
    intervals, scores = result["intervals"].get(found["sae"], {}), found["r2_mean_dims"]
    predicted = next(iter(scores.values()), TARGETS[:3])
    targets = [target for target in TARGETS if target in predicted]
    titles = [NAMED.get(target, target) for target in targets]
    errors_alone = not NAMED.keys() & targets
    panels = shared.grouped_bars(
        f"{'Error of ' if errors_alone else ''}{found['sae']} predicted from components",
        "mean R² of dims",
        titles,
        (
            shared.bar(
                named(name), [own[target] for target in targets], [intervals.get(f"{name} {each}") for each in targets]
            )
            for name, own in scores.items()
        ),
        READING,
    )
    rows = [
        (named(name), *(each[name][target] for target in targets for each in (scores, found["r2_pooled"])))
        for name in scores
    ]
    if increments := found["increment_r2_mean_dims"]:
        beyond = (each for target in targets for each in (increments[target], None))
        rows.append(("joint beyond previous residual", *beyond))
    table = shared.table(
        f"{'Error' if errors_alone else 'What is'} predicted from components",
        ["from", *(each for title in titles for each in (f"{title} mean dims", "pooled"))],
        rows,
        result["definition"],
    )
    return table, panels


def _definition(protocol: Protocol, params: Params) -> str:
    kinds = ", or on the ".join(KINDS[kind] for kind in words_of(params.regressors))
    targets = words_of(params.targets)
    *names, last = (NAMED.get(target, target) for target in targets)
    said = f"{', '.join(names)} and {last}" if names else last
    itself = " What x or Sae(x) says of itself is 1 by construction." if NAMED.keys() & targets else ""
    return (
        f"r2_mean_dims (and r2_pooled) on held-out tokens of {said} of one SAE, by "
        f"regression ({protocol.a_map}) on the {kinds} of one component at a time: the hook itself (reconstruction "
        "and activation only), the residual stream one layer before, the MLP's output, the attention heads; and on the "
        f"last three jointly.{itself} " + protocol.bootstrap(params.resamples, fixed="the maps")
    )


EXPERIMENT = Experiment(
    id="cross-component",
    title="Cross-component prediction",
    question="How much of the SAE error do reconstructions of the components before it predict?",
    reference="Sec. 6.2, Eq. 16, Fig. 9b",
    definition=_definition,
    contradicted_by="The previous components predict nothing once whole contexts are held out (C12).",
    params=Params,
    needs=("error map",),
    passes=passes,
    measure=measure,
    compute=compute,
    draw=draw,
)
