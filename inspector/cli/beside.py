"""`dm-inspect beside`: two SAEs of one hook, or of two layers, on the same tokens, token by token."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.cli.lazy import Command
from inspector.cli.narration import batch_size_option, follow, quiet_option
from inspector.cli.opening import opened, prompt_file_option, prompts_of
from inspector.cli.output import print_json_list, print_text
from inspector.cli.target_options import target_options
from inspector.cli.tokens import NUMBERING, rows_of
from inspector.drawing.figures import Column, Table
from inspector.drawing.safe_text import visible
from inspector.drawing.terminal_figures import render_table
from inspector.drawing.tokens import MEASURES, Measure, TokenScalars, difference
from inspector.errors import TargetError, UsageError

if TYPE_CHECKING:
    from inspector.events import Event
    from inspector.spec import TargetSpec

COMPARED = {measure.id: measure for measure in MEASURES if measure.per_sae}
SHARED = ("context", "position", "token_id", "token", "split", "loss")
"""Columns that do not depend on the SAE."""
LINES = 40
"""Rows printed as text, where --top says nothing else."""


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  dm-inspect beside --sae layer_3/resid/width_512/l0_16 --sae layer_3/resid/width_8k/l0_16
  dm-inspect beside --l0 16 --widths 512,8k --by share --json
  dm-inspect beside --l0 16 --widths 1k --other-layer 4 --prompt-file notes.txt
""",
)
@click.option("--by", type=click.Choice(list(COMPARED)), default="nonlinear", show_default=True, help="What differs.")
@click.option("--other-layer", type=click.IntRange(min=0), metavar="N", help="The second SAE is the one of this layer.")
@click.option("--prompt", metavar="TEXT", help="Score this text instead of the target's.")
@prompt_file_option
@click.option("--top", type=click.IntRange(min=1), metavar="N", help=f"Rows.  [default: {LINES} as text, else all]")
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"beside": [...]}, a row per token.')
@batch_size_option
@quiet_option
@target_options
def beside(
    by: str,
    other_layer: int | None,
    prompt: str | None,
    prompt_files: tuple[Path, ...],
    top: int | None,
    as_json: bool,
    batch_size: int,
    quiet: bool,
    target: TargetSpec,
) -> None:
    """Compare two SAEs token by token.

    TARGET names two SAEs of a hook, with --sae twice, or with --widths and --l0; or one, and --other-layer the layer of
    the second. Every token has both SAEs' norms and by how much the measure differs: of shares in points, of norms and
    FVU in parts of the larger one; positive where the second has more. The largest difference comes first.
    """
    prompts = prompts_of(prompt, prompt_files)
    names, rows = follow(_pairs(target, other_layer, prompts, batch_size), quiet=quiet)
    measure = COMPARED[by]
    made = sorted((beside_row(measure, *pair) for pair in rows), key=_largest_first)
    shown = made[: top if top is not None else None if as_json else LINES]
    if as_json:
        print_json_list("beside", shown, saes=names, notes=[f"difference is of {measure.title}", NUMBERING])
    else:
        _print(measure, names, shown, len(made))


Row = Mapping[str, Any]


def _pairs(
    target: TargetSpec, other_layer: int | None, prompts: Sequence[str], batch_size: int
) -> Generator[Event, None, tuple[list[str], Iterator[tuple[Row, Row]]]]:
    """Names of the two SAEs, and every token's rows of both."""
    first = yield from _rows(target, prompts, batch_size)
    if other_layer is not None:
        second = yield from _rows(replace(target, layers=(other_layer,), layers_from=None), prompts, batch_size)
        if len(first) != 1 or len(second) != 1:
            raise UsageError(
                f"{len(first)} and {len(second)} SAEs are loaded, but --other-layer compares one with one. "
                "Choose them with --widths and --l0."
            )
        names = [next(iter(first)), next(iter(second))]
        rows = [next(iter(first.values())), next(iter(second.values()))]
    else:
        if len(first) != 2:
            raise UsageError(
                f"{len(first)} SAEs are loaded, but two are compared. "
                "Name them with --sae twice, or with --widths and --l0."
            )
        names, rows = list(first), list(first.values())
    if [(row["context"], row["position"], row["token_id"]) for row in rows[0]] != [
        (row["context"], row["position"], row["token_id"]) for row in rows[1]
    ]:
        raise TargetError("The two do not have the same tokens. Give both the same --text and --context-length.")
    return names, zip(*rows, strict=True)


def _rows(target: TargetSpec, prompts: Sequence[str], batch_size: int) -> Generator[Event, None, dict[str, list[Row]]]:
    """The table's rows of each SAE, in the order of its tokens."""
    loaded = yield from opened(target)
    from inspector import runner

    table = yield from runner.token_table(loaded, prompts=prompts, batch_size=batch_size)
    found: dict[str, list[Row]] = {sae.ref.sae_id: [] for sae in loaded.saes}
    for row in rows_of(table):
        found[row["sae"]].append(row)
    return found


def beside_row(measure: Measure, first: Row, second: Row) -> dict[str, Any]:
    """One token with both SAEs' numbers.

    Args:
        measure: whose difference it has.
        first: the token's row of an SAE in the table of `dm-inspect tokens`.
        second: of the other.
    """
    row: dict[str, Any] = {name: first[name] for name in SHARED}
    values = []
    for letter, of in (("a", first), ("b", second)):
        scalars = TokenScalars(
            loss=float("nan") if of["loss"] is None else of["loss"],
            x_norm=of["x_norm"],
            l0=of["l0"],
            sae_error_norm=of["sae_error_norm"],
            linear_error_norm=of["linear_error_norm"],
            nonlinear_error_norm=of["nonlinear_error_norm"],
        )
        row[f"{letter}_l0"] = of["l0"]
        for each in COMPARED.values():
            row[f"{letter}_{each.id}"] = _known(each.value(scalars))
        values.append(measure.value(scalars))
    return row | {"difference": _known(difference(measure, values[0], values[1]))}


def _known(value: float) -> float | None:
    return value if value == value else None


def _largest_first(row: Mapping[str, Any]) -> tuple[bool, float, int, int]:
    """What counts first, then by the difference."""
    by = row["difference"]
    return row["split"] == "excluded" or by is None, -abs(by or 0.0), row["context"], row["position"]


def _print(measure: Measure, names: Iterable[str], shown: list[dict[str, Any]], n: int) -> None:
    unit = "%" if measure.percent else ""
    columns = (
        Column(title="context"), Column(title="position"), Column(title="token"), Column(title="split"),
        Column(title="first", unit=unit, digits=2), Column(title="second", unit=unit, digits=2),
        Column(title="difference", unit="points" if measure.upper_limit is not None else "%", digits=1),
    )  # fmt: skip
    factor = 100.0 if measure.percent else 1.0

    def times(value: float | None, by: float) -> float | None:
        return None if value is None else by * value

    def cells(row: dict[str, Any]) -> tuple[Any, ...]:
        values = (times(row[f"{letter}_{measure.id}"], factor) for letter in "ab")
        place = (row["context"], row["position"], f"'{row['token']}'", row["split"])
        return (*place, *values, times(row["difference"], 100.0))

    title = visible(f"{measure.title} · first {' · second '.join(names)}")
    print_text(render_table(Table(title=title, columns=columns, rows=tuple(map(cells, shown)))), end="")
    print_text(f"\n{len(shown):,} of {n:,} tokens, context and position from 0. --top and --json give more of them.")
