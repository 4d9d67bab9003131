"""How well reconstructions of other components predict the parts of an SAE's error, by affine regression.

One split serves the map that makes the parts and the regressions of the parts, so that no test token has trained
either; in the public code the two splits are independent.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.engine.decomposition import decompose, sae_error
from inspector.engine.moments import Moments, to_float64
from inspector.engine.regression import Factorisation, LinearMap
from inspector.engine.resampling import Estimate, counts_together, percentile_estimate
from inspector.engine.scores import nan_if_zero
from inspector.events import Event
from inspector.sources.companions import Companion, load_companions
from inspector.statistics.grouping import drawn_together
from inspector.statistics.passes import Progress, contexts_with
from inspector.statistics.sampling import sample_plan, tokens_wanted

if TYPE_CHECKING:
    from inspector.engine.plan import Plan
    from inspector.sources.sae import LoadedSae
    from inspector.statistics.pipeline import Measuring

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
    assert loaded is not None, "components need a target"
    if loaded.layer is None:
        return None
    layer = loaded.layer
    of_components = layer if component_layer == "same" else layer - 1
    middle = loaded.saes[len(loaded.saes) // 2]
    found = load_companions(loaded, layer, of_components, middle.ref)
    sae = _target(loaded.saes, sae_id, found)
    if sae is not middle and found:
        found = load_companions(loaded, layer, of_components, sae.ref)
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
    split = source.needs_maps
    progress = Progress("components", (1 + split) * len(training) + len(testing), plan.train.shape[1])
    if split:
        for index in source.fit_maps(training, plan, intercept=measuring.intercept):
            yield progress.advance_by(len(index))
    moments = {name: Moments(width) for name, width in regressors.items()}
    for index, (regressor, values) in source.batches(training, plan, train=True):
        for name, sums in moments.items():
            sums.update(regressor[name], values)
        yield progress.advance_by(len(index))
    maps: dict[str, dict[str, LinearMap]] = {}
    with torch.inference_mode():
        for name, sums in moments.items():
            factorisation = Factorisation(sums)
            maps[name] = {target: factorisation.fit(target, intercept=measuring.intercept) for target in targets}
    means = {target: next(iter(moments.values())).target(target).mean_y for target in targets}
    scores = _Scores(maps, means)
    for index, (regressor, values) in source.batches(testing, plan, train=False):
        scores.update(regressor, values)
        yield progress.advance_by(len(index))
    groups = drawn_together(plan.test, plan.documents, testing)
    counts = counts_together(groups, seed=measuring.seed, n_resamples=measuring.n_resamples)
    predictions, dims = scores.finish(counts)
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


def _target(saes: Sequence[LoadedSae], sae_id: str, found: Sequence[Companion]) -> LoadedSae:
    from inspector.errors import TargetError, nearest

    if sae_id:
        by_id = {sae.ref.sae_id: sae for sae in saes}
        if sae_id not in by_id:
            raise TargetError(f"'sae={sae_id}' is not among the target's SAEs.{nearest(sae_id, by_id)}")
        return by_id[sae_id]
    if not found:
        return saes[len(saes) // 2]
    like = found[0].sae.ref
    return min(
        saes,
        key=lambda sae: (abs(sae.ref.d_sae - like.d_sae), abs((sae.ref.nominal_l0 or 0.0) - (like.nominal_l0 or 0.0))),
    )


class _Source:
    """Regressors and targets of the plan's tokens, one context at a time."""

    def __init__(
        self,
        measuring: Measuring,
        sae: LoadedSae,
        companions: Sequence[Companion],
        kinds: Sequence[str],
        targets: Sequence[str],
    ) -> None:
        self._measuring, self._sae, self._companions = measuring, sae, companions
        self._kinds, self._targets = kinds, targets
        self._map = measuring.maps[sae.ref.sae_id].error_map
        self._maps: dict[str, LinearMap] = {}
        self.needs_maps = any(kind in ("linear_error", "nonlinear_error") for kind in kinds)
        """Whether errors of companions are split, which `fit_maps` prepares."""

    def fit_maps(self, indices: Sequence[int], plan: Plan, *, intercept: bool) -> Iterator[list[int]]:
        """Fit every companion's own error map on the training tokens of these contexts; yields those that are done."""
        moments = {each.component: Moments(each.sae.ref.d_in) for each in self._companions}
        for index in indices:
            with torch.inference_mode():
                values, rows = self._values(index, plan.train)
                for each in self._companions:
                    x = values[each.hook_name][0][rows]
                    error = sae_error(x, each.sae.reconstruct(x).x_hat.to(x))
                    moments[each.component].update(x, {"error": error})
            yield [index]
        with torch.inference_mode():
            self._maps = {name: Factorisation(sums).fit("error", intercept=intercept) for name, sums in moments.items()}

    def _values(self, index: int, mask: Tensor) -> tuple[Mapping[str, Tensor], Tensor]:
        """Activations of all hooks in one context, [1, t, p], and the rows [t] that the mask has."""
        loaded = self._measuring.loaded
        assert loaded is not None
        names = [loaded.hook_name, *(companion.hook_name for companion in self._companions)]
        rows = mask[index].to(loaded.model.device)
        return loaded.model.score(loaded.contexts.token_ids[index : index + 1], names).activations, rows

    def _of(self, companion: Companion, x: Tensor) -> dict[str, Tensor]:
        """By kind: what of a component is regressed on, [n, p]."""
        x_hat = companion.sae.reconstruct(x).x_hat.to(x)
        found = {"sae": x_hat, "activation": x, "sae_error": sae_error(x, x_hat)}
        if self.needs_maps:
            parts = decompose(x, x_hat, self._maps[companion.component])
            found |= {"linear_error": parts.linear_error, "nonlinear_error": parts.nonlinear_error}
        return found

    def batches(
        self, indices: Sequence[int], plan: Plan, *, train: bool
    ) -> Iterator[tuple[list[int], tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]]:
        """([index], (regressor name to [n, p], target name to [n, d]))."""
        loaded = self._measuring.loaded
        assert loaded is not None
        mask = plan.train if train else plan.test
        for index in indices:
            with torch.inference_mode():
                values, rows = self._values(index, mask)
                x = values[loaded.hook_name][0][rows]
                x_hat = self._sae.reconstruct(x).x_hat
                of = [(each.component, self._of(each, values[each.hook_name][0][rows])) for each in self._companions]
                regressors: dict[str, Tensor] = {}
                for kind in self._kinds:
                    regressors |= {_named(name, kind): found[kind] for name, found in of}
                    if kind in OF_ITSELF:
                        regressors[_named("own", kind)] = x_hat if kind == "sae" else x
                    if len(of) > 1:
                        regressors[_named("joint", kind)] = torch.cat([found[kind] for _, found in of], dim=1)
                parts = decompose(x, x_hat, self._map)
                known = {"activation": x, "sae": x_hat.to(x)} | {name: getattr(parts, name) for name in TARGETS}
                targets = {name: known[name] for name in self._targets}
            yield [index], (regressors, targets)


class _Scores:
    """Per-context sums of squares of every regression's residuals and of the targets."""

    def __init__(self, maps: Mapping[str, Mapping[str, LinearMap]], means: Mapping[str, Tensor]) -> None:
        self._maps, self._means = maps, means
        self._n: list[float] = []
        self._sums: dict[str, list[Tensor]] = {target: [] for target in means}
        self._squares: dict[str, list[Tensor]] = {target: [] for target in means}
        self._rest: dict[tuple[str, str], list[Tensor]] = {(name, t): [] for name in maps for t in means}

    @torch.inference_mode()
    def update(self, regressors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
        """Add one context."""
        self._n.append(float(len(next(iter(targets.values())))))
        for target, y in targets.items():
            wide = to_float64(y)
            centred = wide - self._means[target].to(wide.device)
            self._sums[target].append(centred.sum(dim=0).cpu())
            self._squares[target].append(centred.square().sum(dim=0).cpu())
            for name, own in self._maps.items():
                rest = wide - own[target].predict(to_float64(regressors[name]))
                self._rest[name, target].append(rest.square().sum(dim=0).cpu())

    @torch.inference_mode()
    def finish(self, counts: Tensor) -> tuple[dict[str, dict[str, Prediction]], dict[str, dict[str, Tensor]]]:
        """Predictions, and the draws of r2_mean_dims, by regressor and target."""
        n = (counts @ torch.tensor(self._n, dtype=torch.float64))[:, None]
        predictions: dict[str, dict[str, Prediction]] = {name: {} for name in self._maps}
        dims: dict[str, dict[str, Tensor]] = {name: {} for name in self._maps}
        for target in self._means:
            total = (
                counts @ torch.stack(self._squares[target]) - (counts @ torch.stack(self._sums[target])).square() / n
            )
            total = torch.where(total > 1e-13 * (counts @ torch.stack(self._squares[target])), total, 0.0)
            for name in self._maps:
                rest = counts @ torch.stack(self._rest[name, target])
                mean_dims = (1.0 - rest / nan_if_zero(total)).nanmean(dim=1)
                pooled = 1.0 - rest.sum(dim=1) / nan_if_zero(total.sum(dim=1))
                dims[name][target] = mean_dims
                predictions[name][target] = Prediction(
                    r2_mean_dims=percentile_estimate(mean_dims), r2_pooled=percentile_estimate(pooled)
                )
        return predictions, dims
