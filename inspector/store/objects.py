"""What was measured, as the object that `--json` prints and the store keeps."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from inspector.engine.resampling import FEWEST
from inspector.experiment import Experiment, Outcome, ResultObject
from inspector.statistics.grouping import MOST_GROUPS
from inspector.statistics.measured import Statistics
from inspector.statistics.substitutes import DEFINITIONS
from inspector.store.weighing import outlier_warnings

if TYPE_CHECKING:
    from inspector.engine.plan import Plan
    from inspector.sources.target import Loaded
    from inspector.spec import RunSpec


def result_object(
    experiment: Experiment,
    outcome: Outcome,
    statistics: Statistics,
    spec: RunSpec,
    about: dict[str, Any],
    warnings: list[str],
    *,
    definition: str,
) -> ResultObject:
    """What was measured, in the form of the contract; `definition` is what the run did, without its null."""
    saes = []
    for sae, row in zip(statistics.saes, outcome.rows, strict=True) if outcome.rows else ():
        if row is None:
            continue
        common = {
            "sae": sae.ref.sae_id,
            "layer": sae.ref.layer,
            "hook_name": sae.ref.hook_name,
            "d_sae": sae.ref.d_sae,
            "nominal_l0": sae.ref.nominal_l0,
            "l0": sae.l0,
            "n_train": statistics.n_train,
            "n_test": statistics.n_test,
        }
        saes.append(common | _plain(row))
    if spec.null is not None and experiment.measure is None:
        definition += f" {DEFINITIONS[spec.null]}"
    elif spec.null is not None:
        definition += f" It measures for itself, so --null {spec.null} does not reach it."
    return ResultObject(
        experiment=experiment.id,
        profile=spec.profile,
        definition=definition,
        provenance=about,
        saes=saes,
        result=_plain(outcome.result),
        intervals={
            sae_id: {name: None if ends is None else list(ends) for name, ends in own.items()}
            for sae_id, own in outcome.intervals.items()
        },
        controls=dict(outcome.controls),
        warnings=warnings,
    )


def _plain(value: Any) -> dict[str, Any]:
    """A dataclass as JSON data: tuples become lists."""
    found: dict[str, Any] = asdict(value)
    return {name: list(item) if isinstance(item, tuple) else item for name, item in found.items()}


def warnings_of(loaded: Loaded, plan: Plan, statistics: Statistics, outcome: Outcome) -> list[str]:
    """What somebody who reads the result should know, each once."""
    found = [*loaded.warnings, *plan.notes]
    n_drawn, what = statistics.n_test_contexts, "contexts"
    if plan.documents is not None:
        n_drawn, what = len(set(plan.documents[plan.test.any(dim=1).cpu()].tolist())), "documents"
    if n_drawn < FEWEST:
        found.append(
            f"Only {n_drawn} {what} are held out, and an interval needs {FEWEST}: none is given. "
            "Raise --contexts or lower --train-tokens."
        )
    if n_drawn > MOST_GROUPS:
        found.append(
            f"{n_drawn:,} {what} are held out: intervals resample {MOST_GROUPS} blocks of "
            "neighbouring ones, so that memory does not grow with the text."
        )
    if statistics.effective_rank < statistics.d:
        found.append(f"x has {statistics.d} dimensions but only {statistics.effective_rank} independent ones.")
    found += outlier_warnings(loaded, statistics)
    return list(dict.fromkeys([*found, *outcome.warnings]))
