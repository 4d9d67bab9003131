"""`dm-inspect experiments`: what can be measured, and what each one asks. Loads neither torch nor a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from inspector.cli.lazy import Command
from inspector.cli.output import print_json_list

if TYPE_CHECKING:
    from inspector.experiment import Experiment


@click.command(cls=Command, epilog="\b\nExample:\n  dm-inspect experiments --json")
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"experiments": [...]}.')
def experiments(as_json: bool) -> None:
    """List the experiments and what each one asks."""
    from inspector.experiments import discover

    found = discover().values()
    if as_json:
        print_json_list("experiments", map(_row, found))
        return
    for experiment in found:
        print(experiment.id)
        print(f"  {experiment.question}")
        print(f"  Paper: {experiment.reference}.")
        print(f"  Needs: {', '.join(_needs(experiment))}.")
        print(f"  Contradicted by: {experiment.contradicted_by}")


def _row(experiment: Experiment) -> dict[str, object]:
    return {
        "id": experiment.id,
        "title": experiment.title,
        "question": experiment.question,
        "reference": experiment.reference,
        "needs": _needs(experiment),
    }


def _needs(experiment: Experiment) -> list[str]:
    """What is collected for it; a measurement that no other experiment shares is one of these."""
    own = [] if experiment.measure is None else ["a measurement of its own"]
    return [*experiment.needs, *own]
