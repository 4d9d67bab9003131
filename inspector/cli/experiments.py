"""`dm-inspect experiments`: what can be measured, and what each one asks. Loads neither torch nor a model."""

from __future__ import annotations

import click

from inspector.cli.lazy import Command


@click.command(cls=Command, epilog="\b\nExample:\n  dm-inspect experiments --json")
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"experiments": [...]}.')
def experiments(as_json: bool) -> None:
    """List the experiments and what each one asks."""
    from inspector.cli.experiment_list import listed

    rows = listed()
    if as_json:
        from inspector.cli.output import print_json_list

        print_json_list("experiments", ({k: v for k, v in row.items() if k != "contradicted_by"} for row in rows))
        return
    from inspector.cli.output import print_text

    for row in rows:
        print_text(row["id"])
        print_text(f"  {row['question']}")
        print_text(f"  Paper: {row['reference']}.")
        print_text(f"  Needs: {', '.join(row['needs'])}.")
        print_text(f"  Contradicted by: {row['contradicted_by']}")
