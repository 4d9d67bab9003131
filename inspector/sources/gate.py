"""The load gate: before any number is shown, is this the right model, at the right hook, with SAEs that fit?

A wrong tensor gives plausible numbers. A few checks on the target's own tokens find the mistakes that were made in
practice: the hook is not where it is thought to be, the SAE is of another model, too many latents fire or too few, the
reconstruction explains nothing. What cannot be checked is said, and does not fail.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inspector.events import Event, Loading
from inspector.sources.activations import Rows
from inspector.sources.memory_sums import GATE_TOKENS
from inspector.sources.model_files import hub_id

if TYPE_CHECKING:
    from inspector.engine.plan import Plan
    from inspector.sources.contexts import Contexts
    from inspector.sources.model import LanguageModel
    from inspector.sources.sae import LoadedSae

FEWEST = 1000
"""With fewer tokens a mean says too little to refuse anybody."""
BETTER_ELSEWHERE = 0.9
"""Share of its own FVU below which another layer's is a sign that the SAE belongs there."""
N_NEIGHBOUR = 1024
"""Tokens for that."""
L0_TOLERANCE = 0.25
"""Share by which the measured L0 may differ from the nominal one."""
L0_SLACK = 0.1
"""Share of the nominal L0 by which two layers may differ and still be as near to it: sampling of a thousand tokens."""
RESIDUAL_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 2e-2}
"""Relative, of the sum of a block's parts against its output: rounding of the sum in the model's dtype, with room."""


@dataclass(frozen=True, kw_only=True)
class GateCheck:
    """One question and its answer."""

    name: str
    """'residual identity', 'hook', 'same model', 'L0', 'FVU' or 'layer'."""
    sae: str | None = None
    """None: about the model."""
    passed: bool | None = None
    """None: could not be checked."""
    measured: float | str | None = None
    expected: str
    why: str = ""
    """What it means if it failed, or why it could not be checked."""


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """All checks of one target."""

    checks: tuple[GateCheck, ...]
    n_tokens: int
    """Tokens that were looked at."""
    accepted: bool
    """Whether a failure was to be accepted."""
    median_norm: float | None = None
    """Median |x| of those tokens at the hook, which a few outliers do not move."""

    @property
    def failures(self) -> tuple[GateCheck, ...]:
        """Checks that failed."""
        return tuple(check for check in self.checks if check.passed is False)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def summary(self) -> dict[str, Any]:
        """Plain data for a result: the verdict, and every check that failed."""
        return {
            "passed": self.passed,
            "accepted": self.accepted and not self.passed,
            "n_tokens": self.n_tokens,
            "failures": [asdict(check) for check in self.failures],
            "not_checked": sorted({check.name for check in self.checks if check.passed is None}),
        }

    def sentences(self) -> str:
        """What failed, the first few with their numbers."""
        told = [_sentence(check) for check in self.failures[:3]]
        more = len(self.failures) - len(told)
        return "; ".join(told) + (f"; and {more} more" if more else "")


@torch.inference_mode()
def check_gate(
    model: LanguageModel,
    contexts: Contexts,
    plan: Plan,
    hook_name: str,
    layer: int | None,
    saes: Sequence[LoadedSae],
    *,
    accepted: bool = False,
) -> Generator[Event, None, GateReport]:
    """Ask all questions; raises nothing, whatever the answers.

    Args:
        model: as loaded.
        contexts: the target's.
        plan: of the target; its included tokens are looked at, or all but special ones where those are too few.
        hook_name: that the SAEs read.
        layer: of the hook, if it has one.
        saes: as loaded.
        accepted: noted in the report.
    """
    yield Loading(what="load gate")
    rows, mask = _tokens(model, contexts, plan)
    counted = Rows(mask.flatten(), model.device)
    names = [name for name in _parts(layer) if name in model.hook_names]
    has_identity = layer is not None and len(names) == len(_parts(layer))
    beside = _beside(hook_name, layer, model)
    compared = _compared(hook_name, layer, model)
    wanted = [*(names if has_identity else ()), *compared, hook_name, *beside]
    taken = {name: counted.of(value.flatten(0, 1)) for name, value in model.values(rows, wanted).items()}
    unchecked = f"the model has no such hooks around {hook_name}"
    checks = [
        _residual_identity(taken, layer, model.dtype)
        if has_identity
        else GateCheck(name="residual identity", expected="pre + attention + MLP = post", why=unchecked)
    ]
    rivals: dict[str, Tensor] = {}
    for name in compared:
        check = _same_values(taken, hook_name, name, model.dtype)
        checks += [check] if check.passed or not name.endswith(_NORMED) else []
        rivals |= {} if check.passed else {name: taken[name]}
    x = taken[hook_name]
    some = torch.linspace(0, len(x) - 1, min(len(x), N_NEIGHBOUR)).round().long().unique()  # of all contexts
    some = some.to(x.device, non_blocking=True)
    others = {name: taken[name][some] for name in beside}
    for i, sae in enumerate(saes):
        checks += [_same_model(model, sae), *_measured(sae, x), *_hook(sae, x, rivals), *_layer(sae, x[some], others)]
        yield Loading(what="load gate", detail=sae.ref.sae_id, done=i + 1, total=len(saes))
    report = GateReport(checks=tuple(checks), n_tokens=int(mask.sum()), accepted=accepted, median_norm=_median_norm(x))
    yield Loading(what="load gate", detail=f"{report.n_tokens:,} tokens", seconds=0.0)
    return report


def _median_norm(x: Tensor) -> float | None:
    """Median |x| of x [n, d]; None if there is none."""
    norms = x.float().norm(dim=1)
    norms = norms[norms.isfinite()]
    return float(norms.median()) if len(norms) else None


def _tokens(model: LanguageModel, contexts: Contexts, plan: Plan) -> tuple[Tensor, Tensor]:
    """Some contexts [c, t], evenly from the whole text, and which of their tokens count [c, t]."""
    ids = contexts.token_ids
    special = torch.isin(ids, torch.tensor(sorted(model.special_ids), dtype=torch.int64))
    included = plan.included.cpu()
    mask = included if int(included.sum()) >= FEWEST else ~special
    per_context = max(1.0, float(mask.sum()) / len(ids))
    n = min(len(ids), int(-(-GATE_TOKENS // per_context)))
    chosen = torch.linspace(0, len(ids) - 1, n).round().long().unique()
    return ids[chosen], mask[chosen]


def _parts(layer: int | None) -> list[str]:
    """Hooks of Eq. 16."""
    ends = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")
    return [f"blocks.{layer}.{end}" for end in ends]


_SAME = {"attn.hook_z": "attn.o.hook_in", "mlp.hook_out": "hook_mlp_out", "attn.hook_out": "hook_attn_out"}
"""Hooks of a block that hold the same on most models. The first two are the same by definition; what an MLP or the
attention gives is normalised before it is added in Gemma 2 and its like."""

_NORMED = ("hook_mlp_out", "hook_attn_out")


def _compared(hook_name: str, layer: int | None, model: LanguageModel) -> list[str]:
    """Hooks whose value says whether `hook_name` is the right one of its kind."""
    wanted = _SAME.get(hook_name.removeprefix(f"blocks.{layer}."))
    return [f"blocks.{layer}.{wanted}"] if wanted and f"blocks.{layer}.{wanted}" in model.hook_names else []


def _beside(hook_name: str, layer: int | None, model: LanguageModel) -> list[str]:
    """The same hook one layer before and after."""
    if layer is None:
        return []
    names = [hook_name.replace(f"blocks.{layer}.", f"blocks.{other}.") for other in (layer - 1, layer + 1)]
    return [name for name in names if name in model.hook_names]


def _residual_identity(taken: dict[str, Tensor], layer: int | None, dtype: torch.dtype) -> GateCheck:
    before, attention, mlp, after = (taken[name].double() for name in _parts(layer))
    return GateCheck(
        name="residual identity",
        expected=f"at most {RESIDUAL_TOLERANCE.get(dtype, 1e-3):g}",
        why="a block's parts do not add up to its output: the hooks are not where they are thought to be",
        **_equal(before + attention + mlp, after, dtype),
    )


def _same_values(taken: dict[str, Tensor], hook_name: str, other: str, dtype: torch.dtype) -> GateCheck:
    """Whether two hooks that are the same on most models are so on this one."""
    return GateCheck(
        name="hook",
        expected=f"{hook_name} equal to {other}",
        why="the heads' values are not what the output projection reads",
        **_equal(taken[hook_name].double(), taken[other].double(), dtype),
    )


def _equal(ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> dict[str, Any]:
    """How far apart two values of a model are that computes in this dtype, and whether rounding explains it."""
    rest = math.inf
    if ours.shape == theirs.shape:
        rest = float((ours - theirs).norm() / theirs.norm().clamp(min=1e-30))
    return {"measured": rest, "passed": rest <= RESIDUAL_TOLERANCE.get(dtype, 1e-3)}


def _hook(sae: LoadedSae, x: Tensor, rivals: dict[str, Tensor]) -> list[GateCheck]:
    """The raw output of an MLP before its post-norm is the mistake that was made most, and yet some SAEs are of it.

    What they reconstruct tells: the two differ in scale and direction, so that an SAE of one is none of the other.
    """
    if not rivals:
        return []
    (own, _), *theirs = _fvus_and_l0s(sae, [x, *rivals.values()])
    found = {name: fvu for name, (fvu, _) in zip(rivals, theirs, strict=True)}
    best = min(found, key=lambda name: found[name])
    return [
        GateCheck(
            name="hook",
            sae=sae.ref.sae_id,
            passed=own <= found[best],
            measured=own,
            expected=f"an FVU no larger than the {found[best]:.3g} at {best}",
            why=f"it reconstructs what is added to the residual stream, {best}, and not what comes before its norm",
        )
    ]


def _same_model(model: LanguageModel, sae: LoadedSae) -> GateCheck:
    ours, theirs = _known_name(model.published_name), _known_name(sae.ref.model or sae.model_name)
    missing = "the model's" if ours is None else "the SAE's" if theirs is None else ""
    return GateCheck(
        name="same model",
        sae=sae.ref.sae_id,
        passed=None if ours is None or theirs is None else ours.lower() == theirs.lower(),
        measured=ours,
        expected=theirs or "the SAE's model",
        why=f"{missing} published name is not known" if missing else "the SAE was trained on another model",
    )


def _known_name(name: str | None) -> str | None:
    """A Hugging Face id; None for a folder, or a name that is not published."""
    found = hub_id(name) if name else ""
    return found if re.fullmatch(r"[\w.\-]+/[\w.\-]+", found) else None


def _measured(sae: LoadedSae, x: Tensor) -> list[GateCheck]:
    """L0 and FVU on x [n, d]."""
    nominal, sae_id = sae.ref.nominal_l0, sae.ref.sae_id
    if len(x) < FEWEST:
        why = f"{len(x)} tokens are too few"
        return [
            GateCheck(name="L0", sae=sae_id, expected="near its nominal one", why=why),
            GateCheck(name="FVU", sae=sae_id, expected="below 1", why=why),
        ]
    ((fvu, l0),) = _fvus_and_l0s(sae, [x])
    worse = "the reconstruction is worse than the mean activation"
    checks = [GateCheck(name="FVU", sae=sae_id, passed=fvu < 1, measured=fvu, expected="below 1", why=worse)]
    if nominal is None:
        unknown = GateCheck(name="L0", sae=sae_id, measured=l0, expected="-", why="its nominal L0 is not known")
        return [*checks, unknown]
    return [
        *checks,
        GateCheck(
            name="L0",
            sae=sae_id,
            passed=abs(l0 - nominal) <= L0_TOLERANCE * nominal,
            measured=l0,
            expected=f"{nominal:g} within {L0_TOLERANCE:.0%}",
            why="other latents fire than in training",
        ),
    ]


def _layer(sae: LoadedSae, x: Tensor, others: dict[str, Tensor]) -> list[GateCheck]:
    """An SAE reconstructs its own layer best: neighbouring layers' streams are alike, but not that alike."""
    if len(x) < FEWEST or not others:
        return []
    (own, own_l0), *theirs = _fvus_and_l0s(sae, [x, *others.values()])
    found = dict(zip(others, theirs, strict=True))
    elsewhere = {name: fvu for name, (fvu, l0) in found.items() if _as_sparse(sae.ref.nominal_l0, own_l0, l0)}
    best = min(elsewhere, key=lambda name: elsewhere[name], default="")
    return [
        GateCheck(
            name="layer",
            sae=sae.ref.sae_id,
            passed=not best or elsewhere[best] >= BETTER_ELSEWHERE * own,
            measured=own,
            expected=f"an FVU no larger than the {elsewhere[best]:.3g} at {best}" if best else "its own",
            why="it reconstructs that layer better than its own",
        )
    ]


def _fvus_and_l0s(sae: LoadedSae, inputs: Sequence[Tensor]) -> list[tuple[float, float]]:
    """Of each [n, d]; all go through the SAE together, for one that comes in slices comes once then."""
    made, start, found = sae.reconstruct(torch.cat(list(inputs))), 0, []
    for x in inputs:
        rows, wide = slice(start, start + len(x)), x.double()
        unexplained = (wide - made.x_hat[rows].double()).square().sum()
        fvu = unexplained / (wide - wide.mean(dim=0)).square().sum().clamp(min=1e-30)
        found.append(torch.stack([fvu, made.l0[rows].double().mean()]))
        start = rows.stop
    return [(fvu, l0) for fvu, l0 in torch.stack(found).tolist()]


def _as_sparse(nominal: float | None, own: float, other: float) -> bool:
    """Whether another layer's L0 is one that the SAE was made for, as far as its own layer's is.

    Where the stream is larger, more latents of a fixed threshold fire, and twice as many explain more: a GPT-2's next
    layer with 40 latents, 0.256 instead of the 0.288 of its own with the nominal 24. That says nothing about where the
    SAE belongs; with TopK, whose L0 is the same everywhere, the own layer of a healthy SAE was always the better one.
    """
    if nominal is None:
        return other <= (1 + L0_TOLERANCE) * own
    return abs(other - nominal) <= abs(own - nominal) + L0_SLACK * nominal


def _sentence(check: GateCheck) -> str:
    measured = f"{check.measured:.3g}" if isinstance(check.measured, float) else str(check.measured)
    about = f" of {check.sae}" if check.sae else ""
    return f"{check.name}{about} is {measured}, expected {check.expected} ({check.why})"
