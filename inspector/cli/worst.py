"""`dm-inspect worst`: the tokens that an SAE fails on, as rows to sort, group and take away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.cli.lazy import Command
from inspector.cli.narration import batch_size_option, quiet_option, say
from inspector.cli.output import check_file_place, print_json_list, print_text, whole_file
from inspector.cli.target_options import target_options
from inspector.errors import UsageError
from inspector.reports.worst_tokens import GROUPS, ID, VALUES
from inspector.spec import RunSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspector.reports.worst_tokens import Listing
    from inspector.spec import TargetSpec

LINES = 40
"""Rows printed as text, where --top says nothing else."""
SUFFIXES = (".csv", ".parquet")


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  dm-inspect worst --group class
  dm-inspect worst --sae layer_3/resid/width_4k/l0_16 --by damage --top 100
  dm-inspect worst --group token --find import --json
  dm-inspect worst --out worst.parquet
  dm-inspect worst --result worst-tokens-39162c75fa --group position
""",
)
@click.option("--by", type=click.Choice(list(VALUES)), help="What rows are sorted by.  [default: nonlinear]")
@click.option(
    "--group",
    type=click.Choice(GROUPS),
    default="place",
    show_default=True,
    help="A row per place, per token id, per class of token, per range of positions; or the outliers.",
)
@click.option("--find", "words", metavar="TEXT", default="", help="Only rows whose token or class has this in it.")
@click.option(
    "--top", type=click.IntRange(min=1), metavar="N", help=f"Rows.  [default: {LINES} as text, else all that are kept]"
)
@click.option("--least", type=click.IntRange(min=1), metavar="N", help="Ids seen less often come last.  [default: 5]")
@click.option("--held-out", is_flag=True, help="Leave out the tokens that the map was fitted on.")
@click.option("--no-damage", is_flag=True, help="Do not run the contexts again with the SAE in the place of x.")
@click.option("--result", "result_id", metavar="ID", help="Of this stored result, without measuring.")
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"worst": [...]}, a row each.')
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the rows as .csv or .parquet.")
@batch_size_option
@quiet_option
@target_options
def worst(
    by: str | None,
    group: str,
    words: str,
    top: int | None,
    least: int | None,
    held_out: bool,
    no_damage: bool,
    result_id: str | None,
    as_json: bool,
    out: Path | None,
    batch_size: int,
    quiet: bool,
    target: TargetSpec,
) -> None:
    """List the tokens that an SAE fails on.

    Every token of every context that counts is looked at: norms of its error and of both parts, the loss, and what the
    SAE in the place of x adds to it. Kept are the worst places and the means of every token id, class and range of
    positions. Of several SAEs the middle one is shown; --sae names another.
    """
    if as_json and out is not None:
        raise UsageError("--json and --out were both given. Leave one out.")
    if out is not None:
        if out.suffix not in SUFFIXES:
            raise UsageError(f"--out {out} ends in neither .csv nor .parquet. Rename it, or use --json.")
        check_file_place(out)
    if result_id is not None:
        from inspector.store.results import load

        stored = load(result_id)
        if stored.record.experiment != ID:
            raise UsageError(f"{stored.record.id} is a result of {stored.record.experiment}. Name one of {ID}.")
        result: Any = stored.result
    else:
        params = {"by": by, "least": str(least) if least else None, "held_out": "on" if held_out else None,
                  "damage": "off" if no_damage else None}  # fmt: skip
        spec = RunSpec(
            target=target,
            experiments=(ID,),
            params={name: value for name, value in params.items() if value is not None},
            batch_size=batch_size,
        )
        from inspector.cli.run import followed

        (result,) = followed(spec, quiet=quiet)
    from inspector.reports.worst_tokens import first_column, listing

    shown = listing(result, group)
    column = by if by is not None else first_column(group, shown.by)
    if column not in shown.columns:
        raise UsageError(f"The result has no {column}: it was measured without. Sort by another column, or measure it.")
    rows = shown.order(column, descending=column != "first", words=words)
    if by is None and group == "token":  # as the result has them: those seen often enough first
        chosen = set(rows)
        rows = [number for number in range(len(shown)) if number in chosen]
    rows = rows[: top if top is not None else None if as_json or out is not None else LINES]
    if as_json:
        print_json_list("worst", map(shown.row, rows))
    elif out is not None:
        _write(out, shown, rows)
        say(f"wrote {len(rows):,} rows to {out}")
    else:
        _print(result, shown, rows)


def _write(path: Path, shown: Listing, rows: Sequence[int]) -> None:
    """The whole table or nothing."""
    columns = {name: [values[number] for number in rows] for name, values in shown.columns.items()}
    with whole_file(path) as temporary:
        if path.suffix == ".parquet":
            import pyarrow as pa
            from pyarrow import parquet

            parquet.write_table(pa.table(columns), temporary, compression="zstd")
            return
        from inspector.store.exports import csv_text

        temporary.write_text(csv_text(columns, zip(*columns.values(), strict=True)), encoding="utf-8")


def _print(result: Any, shown: Listing, rows: Sequence[int]) -> None:
    from inspector.drawing.figures import Table
    from inspector.drawing.safe_text import visible
    from inspector.drawing.terminal_figures import render_table
    from inspector.reports.worst_tokens import column, said, shown_value

    cells = []
    for number in rows:
        row = shown.row(number)
        cells.append(tuple(shown_value(name, row[name]) for name in shown.shown))
    title = f"SAE {visible(result['result']['sae'])} · {said(result, shown)}"
    table = Table(title=title, columns=tuple(map(column, shown.shown)), rows=tuple(cells))
    print_text(render_table(table), end="")
    if len(rows) < len(shown):
        print_text(f"\n{len(rows):,} of {len(shown):,} rows. --top, --json and --out FILE.parquet give more of them.")
