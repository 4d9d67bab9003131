"""How well reconstructions of other components predict the parts of an SAE's error, by affine regression.

One split serves the map that makes the parts and the regressions of the parts, so that no test token has trained
either; in the public code the two splits are independent.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from inspector.engine.decomposition import decompose, sae_error
from inspector.engine.moments import Moments, on_host, to_float64
from inspector.engine.regression import Factorisation, LinearMap
from inspector.engine.resampling import Estimate, counts_together, percentile_estimate
from inspector.engine.scores import nan_if_zero
from inspector.events import Event
from inspector.sources.activations import Rows
from inspector.sources.sae import LoadedSae
from inspector.sources.sae_loading import ComponentSae, load_component_saes
from inspector.sources.suites import suite_of
from inspector.statistics.grouping import drawn_together, named, sample_plan, tokens_wanted
from inspector.statistics.passes import Progress, contexts_with, walk
from inspector.statistics.pipeline import Measuring
from inspector.statistics.sums import Accumulator, ByName, Sums, shaped

A = TypeVar("A", bound=Accumulator)
TARGETS = ("sae_error", "linear_error", "nonlinear_error")
KINDS = ("sae", "activation", "sae_error", "linear_error", "nonlinear_error")
"""What of a component may be regressed on: its SAE's reconstruction, its activation, or that SAE's error or its parts,
split by the component's own map."""
OF_ITSELF = KINDS[:2]
"""Kinds of the hook itself: its own error predicts its own error and says nothing."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One target from one regressor, held-out tokens."""

    r2_mean_dims: Estimate
    r2_pooled: Estimate


@dataclass(frozen=True, kw_only=True)
class Components:
    """What was found for one SAE."""

    sae: str
    layer: int | None
    component_layer: int | None
    companions: tuple[tuple[str, str, str, int, float | None], ...]
    """(component, sae_id, hook_name, d_sae, nominal L0)."""
    predictions: dict[str, dict[str, Prediction]]
    """By regressor ('own', 'previous', 'mlp', 'attn', 'joint': all that are not its own; behind it the kind unless that
    is 'sae', as in 'mlp linear_error'), then by target."""
    increments: dict[str, Estimate]
    """By target: r2_mean_dims of 'joint' minus that of 'previous'."""
    n_train: int
    n_test: int


def measure_components(
    measuring: Measuring,
    *,
    tokens: int,
    component_layer: str,
    sae_id: str,
    kinds: Sequence[str] = ("sae",),
    targets: Sequence[str] = TARGETS,
) -> Generator[Event, None, Components | None]:
    """Regress the parts of one SAE's error on reconstructions of what feeds its hook.

    Args:
        measuring: the target.
        tokens: about so many; 0: see `tokens_wanted`.
        component_layer: 'same' or 'previous', the layer of MLP and attention (D-22).
        sae_id: of the target; empty: the one most like its companions in width and L0.
        kinds: of KINDS, what of each component is regressed on, one kind at a time.
        targets: of KINDS, what of the hook itself is predicted.

    Returns:
        None if the hook has no layer, so that nothing is before it.
    """
    loaded = measuring.loaded
    if loaded.layer is None:
        return None
    layer = loaded.layer
    of_components = layer if component_layer == "same" else layer - 1
    middle = loaded.saes[len(loaded.saes) // 2]
    known = suite_of(loaded.target, [sae.ref for sae in loaded.saes])
    found = load_component_saes(known, loaded.model, layer, of_components, middle.ref)
    sae = _target(loaded.saes, sae_id, found)
    if sae is not middle and found:
        found = load_component_saes(known, loaded.model, layer, of_components, sae.ref)
    widths: dict[str, int] = {companion.component: companion.sae.ref.d_in for companion in found}
    d = loaded.model.check_hook(loaded.hook_name)
    wanted = tokens_wanted(tokens, max(d, sum(widths.values())))
    plan = sample_plan(measuring.plan, wanted, measuring.seed)
    regressors: dict[str, int] = {}
    for kind in kinds:
        regressors |= {_named(name, kind): width for name, width in widths.items()}
        if kind in OF_ITSELF:
            regressors[_named("own", kind)] = d
        if len(widths) > 1:
            regressors[_named("joint", kind)] = sum(widths.values())
    source = _Source(measuring, sae, found, kinds, targets)
    training, testing = contexts_with(plan.train), contexts_with(plan.test)
    progress = Progress("components", (1 + source.needs_maps) * len(training) + len(testing), plan.train.shape[1])

    def passed(
        name: str, indices: Sequence[int], mask: Tensor, new: Callable[[], A], add: Callable[[A, _Context], None]
    ) -> Generator[Event, None, A]:
        """A walk over the activations of all hooks, one context at a time."""

        def batch(group: Sequence[int]) -> _Context:
            return source.context(group[0], mask)

        return walk(measuring.activations, indices, new, add, name=name, batch=batch, at_once=1, progress=progress)

    if source.needs_maps:
        own = yield from passed("components' errors", training, plan.train, source.no_errors, source.add_errors)
        source.fit_maps(own, intercept=measuring.intercept)

    def add(sums: ByName[Moments], context: _Context) -> None:
        regressor, values = source.numbers(context)
        for name, moments in sums.of.items():
            moments.update(regressor[name], values)

    def no_moments() -> ByName[Moments]:
        return ByName({name: Moments(width) for name, width in regressors.items()})

    moments = (yield from passed("components", training, plan.train, no_moments, add)).of
    maps: dict[str, dict[str, LinearMap]] = {}
    with torch.inference_mode():
        for name, sums in moments.items():
            factorisation = Factorisation(sums)
            maps[name] = {target: factorisation.fit(target, intercept=measuring.intercept) for target in targets}
    means = [next(iter(moments.values())).target(target).mean_y for target in targets]
    place = {context: number for number, context in enumerate(testing)}

    def score(sums: _Scores, context: _Context) -> None:
        sums.update(place[context.index], *source.numbers(context), maps, means)

    def no_scores() -> _Scores:
        size = (len(targets), len(testing), d)
        rest = {name: torch.zeros(size, dtype=torch.float64) for name in maps}
        return _Scores.zeros(targets=size[0], c=size[1], d=d, rest=rest)

    scores = yield from passed("components, held out", testing, plan.test, no_scores, score)
    groups = drawn_together(plan.test, plan.documents, testing)
    counts = counts_together(groups, seed=measuring.seed, n_resamples=measuring.n_resamples)
    predictions, dims = scores.concluded(counts, targets)
    return Components(
        sae=sae.ref.sae_id,
        layer=layer,
        component_layer=of_components,
        companions=tuple(
            (each.component, each.sae.ref.sae_id, each.hook_name, each.sae.ref.d_sae, each.sae.ref.nominal_l0)
            for each in found
        ),
        predictions=predictions,
        increments={
            target: percentile_estimate(dims["joint"][target] - dims["previous"][target])
            for target in targets
            if "joint" in dims and "previous" in dims
        },
        n_train=plan.n_train,
        n_test=plan.n_test,
    )


def _named(component: str, kind: str) -> str:
    """A regressor's name: Sae(x) is what the paper regresses on and has the component's own."""
    return component if kind == "sae" else f"{component} {kind}"


def _target(saes: Sequence[LoadedSae], sae_id: str, found: Sequence[ComponentSae]) -> LoadedSae:
    if sae_id:
        return named(saes, sae_id)
    if not found:
        return saes[len(saes) // 2]
    like = found[0].sae.ref
    return min(
        saes,
        key=lambda sae: (abs(sae.ref.d_sae - like.d_sae), abs((sae.ref.nominal_l0 or 0.0) - (like.nominal_l0 or 0.0))),
    )


@dataclass(frozen=True, kw_only=True)
class _Context:
    """Activations of some tokens of one context."""

    index: int
    x: Mapping[str, Tensor]
    """[n, p] by hook."""


class _Source:
    """Regressors and targets of the plan's tokens, one context at a time."""

    def __init__(
        self,
        measuring: Measuring,
        sae: LoadedSae,
        companions: Sequence[ComponentSae],
        kinds: Sequence[str],
        targets: Sequence[str],
    ) -> None:
        self._loaded, self._sae, self._companions = measuring.loaded, sae, companions
        self._kinds, self._targets = kinds, targets
        self._map = measuring.maps[sae.ref.sae_id].error_map
        self._maps: dict[str, LinearMap] = {}
        self.needs_maps = any(kind in ("linear_error", "nonlinear_error") for kind in kinds)
        """Whether errors of companions are split, which `fit_maps` prepares."""

    def context(self, index: int, mask: Tensor) -> _Context:
        """The tokens of a context that a [c, t] mask has."""
        loaded = self._loaded
        names = [loaded.hook_name, *(companion.hook_name for companion in self._companions)]
        rows = Rows(mask[index], loaded.model.device)
        values = loaded.model.values(loaded.contexts.token_ids[index : index + 1], names)
        return _Context(index=index, x={name: rows.of(values[name][0]) for name in names})

    def no_errors(self) -> ByName[Moments]:
        """For `add_errors`."""
        return ByName({each.component: Moments(each.sae.ref.d_in) for each in self._companions})

    def add_errors(self, sums: ByName[Moments], context: _Context) -> None:
        """Moments of every companion's activation and error."""
        for each in self._companions:
            x = context.x[each.hook_name]
            sums.of[each.component].update(x, {"error": sae_error(x, each.sae.reconstruct(x).x_hat.to(x))})

    @torch.inference_mode()
    def fit_maps(self, sums: ByName[Moments], *, intercept: bool) -> None:
        """Every companion's own error map."""
        self._maps = {name: Factorisation(each).fit("error", intercept=intercept) for name, each in sums.of.items()}

    def numbers(self, context: _Context) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Regressors [n, p] and targets [n, d] by name."""
        x = context.x[self._loaded.hook_name]
        x_hat = self._sae.reconstruct(x).x_hat
        of = [(each.component, self._of(each, context.x[each.hook_name])) for each in self._companions]
        found: dict[str, Tensor] = {}
        for kind in self._kinds:
            found |= {_named(name, kind): own[kind] for name, own in of}
            if kind in OF_ITSELF:
                found[_named("own", kind)] = x_hat if kind == "sae" else x
            if len(of) > 1:
                found[_named("joint", kind)] = torch.cat([own[kind] for _, own in of], dim=1)
        parts = decompose(x, x_hat, self._map)
        known = {"activation": x, "sae": x_hat.to(x)} | {name: getattr(parts, name) for name in TARGETS}
        return found, {name: known[name] for name in self._targets}

    def _of(self, companion: ComponentSae, x: Tensor) -> dict[str, Tensor]:
        """By kind: what of a component is regressed on, [n, p]."""
        x_hat = companion.sae.reconstruct(x).x_hat.to(x)
        found = {"sae": x_hat, "activation": x, "sae_error": sae_error(x, x_hat)}
        if self.needs_maps:
            parts = decompose(x, x_hat, self._maps[companion.component])
            found |= {"linear_error": parts.linear_error, "nonlinear_error": parts.nonlinear_error}
        return found


@dataclass(kw_only=True)
class _Scores(Sums):
    """Of each of c contexts; [targets, c, d]."""

    n: Tensor = shaped("c")
    """[c] tokens."""
    total: Tensor = shaped("targets", "c", "d")
    """Of the targets, around their training means."""
    squares: Tensor = shaped("targets", "c", "d")
    """Of the squares of those."""
    rest: dict[str, Tensor]
    """Of the squares of what each regressor leaves."""

    def update(
        self,
        place: int,
        regressors: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        maps: Mapping[str, Mapping[str, LinearMap]],
        means: Sequence[Tensor],
    ) -> None:
        """Add the context that has this place."""
        self.n[place] += len(next(iter(targets.values())))
        added: list[tuple[Tensor, Tensor]] = []
        for i, (target, y) in enumerate(targets.items()):
            wide = to_float64(y)
            centred = wide - means[i].to(wide.device)
            added.append((self.total[i, place], centred.sum(dim=0)))
            added.append((self.squares[i, place], centred.square().sum(dim=0)))
            for name, own in maps.items():
                rest = wide - own[target].predict(to_float64(regressors[name]))
                added.append((self.rest[name][i, place], rest.square().sum(dim=0)))
        for (into, _), value in zip(added, on_host([value for _, value in added]), strict=True):
            into += value

    @torch.inference_mode()
    def concluded(
        self, counts: Tensor, targets: Sequence[str]
    ) -> tuple[dict[str, dict[str, Prediction]], dict[str, dict[str, Tensor]]]:
        """Predictions, and the draws of r2_mean_dims, by regressor and target."""
        n = (counts @ self.n)[:, None]
        predictions: dict[str, dict[str, Prediction]] = {name: {} for name in self.rest}
        dims: dict[str, dict[str, Tensor]] = {name: {} for name in self.rest}
        for i, target in enumerate(targets):
            squares = counts @ self.squares[i]
            total = squares - (counts @ self.total[i]).square() / n
            total = torch.where(total > 1e-13 * squares, total, 0.0)
            for name, own in self.rest.items():
                rest = counts @ own[i]
                mean_dims = (1.0 - rest / nan_if_zero(total)).nanmean(dim=1)
                pooled = 1.0 - rest.sum(dim=1) / nan_if_zero(total.sum(dim=1))
                dims[name][target] = mean_dims
                predictions[name][target] = Prediction(
                    r2_mean_dims=percentile_estimate(mean_dims), r2_pooled=percentile_estimate(pooled)
                )
        return predictions, dims
