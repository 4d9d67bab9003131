"""What was scored, in the form every result has, so that lists, screens, exports and reports take it like any other.

Accuracies are per decile and of the negatives, with intervals that draw whole latents. The paper pools the 120 answers
of a latent as if they were independent; they share an explanation, so a good or bad one moves them all. Drawing latents
makes the interval one about other latents of the same SAE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inspector.disk.folders import RESULTS
from inspector.engine.resampling import Estimate, percentile_estimate, resampling_counts
from inspector.errors import InspectorError
from inspector.experiment import ResultObject
from inspector.experiments._interpretability import COMPARISON_ID, ID, definition_of
from inspector.interp import prompts
from inspector.interp.examples import DEAD, DENSE, FEW, Gathered, Settings
from inspector.interp.scoring import GROUPS, NEGATIVES, Counts, Judged
from inspector.spec import RunSpec
from inspector.store.fingerprint import identity, provenance
from inspector.store.results import list_results, load

if TYPE_CHECKING:
    from inspector.interp.windows import Windows
    from inspector.sources.target import Loaded
    from inspector.spec import SaeRef

BALANCED = "balanced"


@dataclass(frozen=True, kw_only=True, eq=False)
class Accuracies:
    """Of one SAE, by name: those of GROUPS, which are right answers over answers that could be read, and BALANCED, the
    mean of the accuracies on all active and on all silent windows.
    """

    draws: dict[str, Tensor]
    """[1 + n_resamples] of each; row 0 is the data. Not a number where nothing could be read."""

    def estimates(self) -> dict[str, Estimate]:
        """Each with its interval."""
        return {name: percentile_estimate(values) for name, values in self.draws.items()}

    def less(self, other: Accuracies) -> dict[str, Estimate]:
        """One less the other. For that both must have been made with different seeds: their latents are independent."""
        found = {}
        for name, draws in self.draws.items():
            n = min(len(draws), len(other.draws[name]))
            found[name] = percentile_estimate(draws[:n] - other.draws[name][:n])
        return found


def accuracies(counts: Sequence[Counts], *, seed: int, n_resamples: int) -> Accuracies:
    """Pool the answers about several latents."""
    if not counts:
        nothing = torch.full((1,), torch.nan, dtype=torch.float64)
        return Accuracies(draws=dict.fromkeys((*GROUPS, BALANCED), nothing))
    right = torch.from_numpy(np.stack([each.right for each in counts])).double()
    parsed = torch.from_numpy(np.stack([each.parsed for each in counts])).double()
    # Latents are drawn here, and few are looked at on purpose; the claim about them asks for thirty.
    weights = resampling_counts(len(counts), seed=seed, n_resamples=n_resamples, fewest=2)
    right, parsed = weights @ right, weights @ parsed  # [draws, groups]
    draws = {name: right[:, i] / parsed[:, i] for i, name in enumerate(GROUPS)}
    active = right[:, NEGATIVES + 1 :].sum(dim=1) / parsed[:, NEGATIVES + 1 :].sum(dim=1)
    draws[BALANCED] = (active + draws[GROUPS[NEGATIVES]]) / 2
    return Accuracies(draws=draws)


FEW_LATENTS = 30
"""Below, an interval over latents says little."""
MANY_UNPARSABLE = 0.05


def named(estimates: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """By their keys in a result: balanced_accuracy, accuracy_not, accuracy_q1, ..."""
    return {
        "balanced_accuracy": estimates[BALANCED],
        **{f"accuracy_{name.lower()}": estimates[name] for name in GROUPS},
    }


def result_of(
    loaded: Loaded,
    gathered: Sequence[Gathered],
    scored: Sequence[Sequence[Judged]],
    windows: Windows,
    settings: Settings,
    *,
    judge: str,
    judge_url: str,
    more: Mapping[str, Any] | None = None,
) -> ResultObject:
    """The result of one scoring; a comparison if the SAEs read parts of an error.

    Args:
        loaded: the target.
        gathered: of each SAE.
        scored: its latents.
        windows: that were shown.
        settings: of the scoring.
        judge: its name.
        judge_url: where it was asked, for the record only.
        more: joins the fingerprint, e.g. the hash of an error map.
    """
    compares = any(one.reader.part != "x" for one in gathered)
    rows, intervals = [], {}
    for i, (one, own) in enumerate(zip(gathered, scored, strict=True)):
        found = accuracies(_counts(own), seed=settings.seed + i, n_resamples=settings.resamples)
        estimates = named(found.estimates())
        rows.append(_row(one, own) | {name: each.value for name, each in estimates.items()})
        intervals[one.reader.name] = {name: _ends(each) for name, each in estimates.items()}
    result: dict[str, Any] = {
        "scorer": settings.scorer,
        "judge": judge,
        "prompts_version": prompts.VERSION,
        "window": windows.length,
        "groups": list(GROUPS),
        "latents": [_latent(one.reader.name, each) for one, own in zip(gathered, scored, strict=True) for each in own],
    }
    if compares:
        result |= _compared(gathered, scored, settings)
    return ResultObject(
        experiment=COMPARISON_ID if compares else ID,
        profile="careful",
        definition=definition_of(settings.scorer),
        provenance=provenance(
            _made_from(loaded, gathered, settings, judge) | dict(more or {}),
            {
                "judge_url": judge_url,
                "n_windows": len(windows),
                "n_broken_windows": windows.n_broken,
                "gate": None if loaded.gate is None else loaded.gate.summary(),
            },
        ),
        saes=rows,
        result=result,
        intervals=intervals,
        controls=_controls(gathered, scored, settings),
        warnings=_warnings(loaded, rows, windows),
    )


def _counts(scored: Sequence[Judged]) -> list[Counts]:
    return [each.counts for each in scored if each.counts is not None]


def _row(one: Gathered, scored: Sequence[Judged]) -> dict[str, Any]:
    """What is said of one SAE, but for its accuracies."""
    ref = one.reader.sae.ref
    counts = _counts(scored)
    asked = sum(int(each.asked.sum()) for each in counts)
    parsed = sum(int(each.parsed.sum()) for each in counts)
    return {
        "sae": one.reader.name,
        "layer": ref.layer,
        "hook_name": ref.hook_name,
        "d_sae": ref.d_sae,
        "nominal_l0": ref.nominal_l0,
        "l0": one.l0,
        "n_train": 0,
        "n_test": one.n_tokens,
        "release": ref.release,
        "reads": one.reader.part,
        "n_drawn": len(one.drawn),
        "n_scored": len(counts),
        "n_dead": len(one.skipped[DEAD]),
        "n_too_few_examples": len(one.skipped[FEW]),
        "n_too_few_negatives": len(one.skipped[DENSE]),
        "n_unexplained": sum(each.explanation is None for each in scored),
        "n_questions": sum(each.n_questions for each in counts),
        "n_unparsable": sum(each.n_unparsable for each in counts),
        "unparsable_share": (asked - parsed) / asked if asked else None,
    }


def _ends(estimate: Estimate) -> list[float] | None:
    return None if estimate.interval is None else list(estimate.interval)


def _latent(sae: str, scored: Judged) -> dict[str, Any]:
    """What is said of one latent."""
    counts = scored.counts
    said = {
        "sae": sae,
        "latent": scored.latent.index,
        "density": scored.latent.density,
        "explanation": scored.explanation,
        "balanced_accuracy": None if counts is None else counts.balanced_accuracy,
    }
    if counts is not None:
        said |= {
            "parsed": counts.parsed.tolist(),
            "right": counts.right.tolist(),
            "n_unparsable": counts.n_unparsable,
        }
    return said


def _compared(gathered: Sequence[Gathered], scored: Sequence[Sequence[Judged]], settings: Settings) -> dict[str, Any]:
    """Fig. 7: both parts, the latents of all seeds together, and linear less nonlinear."""
    parts: dict[str, list[Counts]] = {"linear_error": [], "nonlinear_error": []}
    for one, own in zip(gathered, scored, strict=True):
        if one.reader.part in parts:
            parts[one.reader.part] += _counts(own)
    # Seeds that no SAE above has: the latents of both parts are drawn independently.
    found = {
        part: accuracies(counts, seed=settings.seed + 1_000_003 * (i + 1), n_resamples=settings.resamples)
        for i, (part, counts) in enumerate(parts.items())
    }
    difference = found["linear_error"].less(found["nonlinear_error"])
    return {
        "parts": {
            part: {
                "n_latents": len(parts[part]),
                **{name: _said(estimate) for name, estimate in each.estimates().items()},
            }
            for part, each in found.items()
        },
        "difference": {name: _said(estimate) for name, estimate in difference.items()},
        "paper_difference": 0.05,
    }


def _said(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "interval": _ends(estimate)}


def _controls(gathered: Sequence[Gathered], scored: Sequence[Sequence[Judged]], settings: Settings) -> dict[str, Any]:
    controls: dict[str, Any] = {
        "chance": {
            "definition": "Balanced accuracy of a judge who always says the same, or throws a coin.",
            "balanced_accuracy": 0.5,
        }
    }
    if settings.control:
        found = {}
        for i, (one, own) in enumerate(zip(gathered, scored, strict=True)):
            counts = [each.control for each in own if each.control is not None]
            estimate = accuracies(counts, seed=settings.seed + i, n_resamples=settings.resamples).estimates()[BALANCED]
            found[one.reader.name] = [estimate.value, *(estimate.interval or ())]
        controls["other_explanations"] = {
            "definition": "Balanced accuracy when each latent is judged by the explanation of another latent of its "
            "SAE, and its 95% interval. What it has above 0.5 the explanations do not explain.",
            "balanced_accuracy": found,
        }
    return controls


def _made_from(loaded: Loaded, gathered: Sequence[Gathered], settings: Settings, judge: str) -> dict[str, Any]:
    """What the numbers follow from."""
    target = replace(loaded.target, split="context")
    made_from = identity(loaded, RunSpec(target=target, experiments=(ID,)), split="context", intercept=True)
    made_from["saes"] = {one.reader.name: one.reader.sae.weights_hash for one in gathered}
    return made_from | {"params": asdict(settings), "judge": judge, "prompts_version": prompts.VERSION}


def _warnings(loaded: Loaded, rows: Sequence[Mapping[str, Any]], windows: Windows) -> list[str]:
    found = [*loaded.warnings]
    for row in rows:
        skipped = row["n_dead"] + row["n_too_few_examples"] + row["n_too_few_negatives"]
        if skipped:
            found.append(
                f"{skipped} of {row['n_drawn']} latents of {row['sae']} were not judged: {row['n_dead']} dead, "
                f"{row['n_too_few_examples']} with too few examples, {row['n_too_few_negatives']} with too few "
                "negatives. The accuracy is of the others."
            )
        if row["n_unexplained"]:
            found.append(f"{row['n_unexplained']} latents of {row['sae']} got no explanation that could be read.")
        if row["unparsable_share"] is not None and row["unparsable_share"] > MANY_UNPARSABLE:
            found.append(
                f"{row['unparsable_share']:.0%} of the answers about {row['sae']} could not be read; the accuracy is "
                "of the others. A judge that thinks before it answers needs room: --thinking 2000."
            )
        if row["n_scored"] < FEW_LATENTS:
            found.append(f"Only {row['n_scored']} latents of {row['sae']} were scored: intervals are rough.")
    if windows.n_broken:
        found.append(f"{windows.n_broken} windows were left out because a special token stands in them.")
    return list(dict.fromkeys(found))


Said = tuple[str, float | None]
"""Explanation, and balanced accuracy if it was scored."""


class KnownLatents:
    """Looks latents up in the stored results of one model; reads each file once.

    Args:
        model: name of the model, as results have it.
        hook_name: of its SAEs.
        folder: of the results; None: the user's.
    """

    def __init__(self, model: str, hook_name: str, folder: Path | None = None) -> None:
        self._model, self._hook_name, self._folder = model, hook_name, folder or RESULTS.path()
        self._read: dict[tuple[str, str], dict[tuple[str, str, int], Said]] = {}
        """By id and time of a result: what it says by sae, release and latent."""

    def find(self, ref: SaeRef, index: int) -> Said | None:
        """Of the newest scoring that explains this latent of this SAE; damaged results are passed over."""
        for record in list_results(self._folder).records:  # newest first
            if record.experiment != ID or (record.model, record.hook_name) != (self._model, self._hook_name):
                continue
            key = record.id, record.created
            if key not in self._read:
                self._read[key] = self._said(record.id)
            found = self._read[key].get((ref.sae_id, ref.release, index))
            if found is not None:
                return found
        return None

    def _said(self, result_id: str) -> dict[tuple[str, str, int], Said]:
        try:
            result = load(result_id, folder=self._folder).result
            releases = {row["sae"]: row["release"] for row in result["saes"]}
            return {
                (each["sae"], releases[each["sae"]], each["latent"]): (each["explanation"], each["balanced_accuracy"])
                for each in result["result"]["latents"]
                if each["explanation"] is not None
            }
        except (InspectorError, KeyError, TypeError):  # damaged, or of another version: it says nothing
            return {}
