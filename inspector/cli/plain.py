"""The app where there is no terminal: its numbers and its first tokens as plain text, then the end."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from inspector.cli.narration import follow
from inspector.cli.opening import opened
from inspector.cli.output import print_text
from inspector.cli.tokens import first_context, print_first
from inspector.drawing.figures import Cell, Column, Table, with_interval
from inspector.drawing.safe_text import visible
from inspector.drawing.terminal_figures import render_table
from inspector.options import width_label
from inspector.spec import RunSpec

if TYPE_CHECKING:
    import pyarrow as pa

    from inspector.events import Event
    from inspector.sources.target import Loaded
    from inspector.spec import TargetSpec

EXPERIMENTS = ("norm-prediction", "error-vector", "fvu-nonlinear")
SCORES = ("r2_norm", "r2_pooled", "fvu", "fvu_nonlinear")
NOTE = """\
r2_norm: share of the variation of ‖error‖² that is affine in x.  r2_pooled: the same for the error vector.
fvu: variance of x that the SAE leaves.  fvu_nonlinear: what is left after the affine prediction of its error, too.
Held-out tokens; [95% bootstrap over contexts]. `dm-inspect run --help` measures with other settings."""


def print_overview(target: TargetSpec) -> None:
    """The three numbers of every SAE of the hook, then the first context's tokens with their norms."""
    from inspector.sources.suites import layer_by_layer

    for each in layer_by_layer(target):
        loaded, results, table = follow(_measured(each), quiet=False)
        print_text(overview(results))
        print_first(loaded, table, n_own=0)


def _measured(target: TargetSpec) -> Generator[Event, None, tuple[Loaded, list[dict[str, Any]], pa.Table]]:
    loaded = yield from opened(target)
    from inspector import runner

    results = yield from runner.run(RunSpec(target=target, experiments=EXPERIMENTS), loaded)
    table = yield from first_context(loaded)
    return loaded, results, table


def overview(results: list[dict[str, Any]]) -> str:
    """One line per SAE: every score with its interval.

    Args:
        results: of EXPERIMENTS on one target, in any order.
    """
    made, first = results[0]["provenance"], results[0]["saes"][0]
    where = visible(f"{made['model']} · {first['hook_name']}")
    title = f"{where} · affine map from {first['n_train']:,} tokens, scored on {first['n_test']:,} held out"
    columns = [Column(title="SAE"), Column(title="width"), Column(title="L0", digits=1)]
    columns += [Column(title=score) for score in SCORES]
    rows = tuple(_row(results, entry["sae"]) for entry in results[0]["saes"])
    return render_table(Table(title=title, columns=tuple(columns), rows=rows, note=NOTE))


def _row(results: list[dict[str, Any]], sae: str) -> tuple[Cell, ...]:
    entry: dict[str, Any] = {}
    intervals: dict[str, list[float] | None] = {}
    for result in results:
        entry |= next(found for found in result["saes"] if found["sae"] == sae)
        intervals |= result["intervals"].get(sae, {})
    scores = tuple(_with_interval(entry.get(key), intervals.get(key)) for key in SCORES)
    return (sae, width_label(entry["d_sae"]), entry["l0"], *scores)


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.3f}" if interval is None else with_interval(value, interval)
