"""`dm-inspect suites`: which SAEs a TARGET could mean, read from names and sizes; no weight is loaded."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from inspector.cli.lazy import Command
from inspector.cli.narration import say
from inspector.cli.output import print_json_list, print_text
from inspector.cli.target_options import target_options
from inspector.errors import TargetError
from inspector.options import width_label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspector.sources.published import RefusedSae
    from inspector.spec import SaeRef, TargetSpec


MOST_LINES = 16
"""SAEs that get a line each below the grid."""


@click.command(
    cls=Command,
    epilog="\b\nExamples:\n  dm-inspect suites\n  dm-inspect suites --suite ~/saes --layer 3 --l0 32 --json",
)
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"saes": [...], "refused": [...]}.')
@target_options
def suites(as_json: bool, target: TargetSpec) -> None:
    """List the SAEs of a model's hook.

    Without --layer, --layers or --hook those of every hook; with --l0 only the SAE that would be picked per width.
    """
    from inspector.sources.suites import refused_saes

    refused = refused_saes(target) if not target.saes else []
    try:
        refs = find(target)
    except TargetError:
        if not refused or target.widths is not None:
            raise
        refs = []  # nothing can be measured, and the list says why
    if as_json:
        print_json_list("saes", map(_row, refs), refused=map(asdict, refused))
        return
    if not refs:
        print_text(refusals(refused), end="")
        return
    print_text(grid(refs), end="")
    if len(refs) <= MOST_LINES:
        print_text(f"\n{table(refs)}", end="")
    else:
        print_text(f"Ids are like {refs[0].sae_id}; --json has all of them.")
    if refused:
        print_text(f"\n{refusals(refused)}", end="")
    from inspector.sources.suites import l0_notes

    for note in l0_notes(refs, target.l0):
        say(f"note: {note}")


def find(target: TargetSpec) -> list[SaeRef]:
    """The SAEs that the target's options leave, hook by hook.

    Raises:
        TargetError: if there are none, with what there is.
    """
    from inspector.sources.suites import known_saes, layer_by_layer, resolve_hook, select

    refs = known_saes(target)
    if target.saes:
        return select(refs, target)
    if target.hook is not None:
        hooks = [target.hook]
    elif target.layers is not None or target.layers_from is not None:
        hooks = [resolve_hook(refs, each)[0] for each in layer_by_layer(target)]
    else:
        hooks = list(dict.fromkeys(ref.hook_name for ref in refs))
    found: list[SaeRef] = []
    failure: TargetError | None = None
    for hook in hooks:
        try:
            found += select(refs, replace(target, hook=hook, layers=None, layers_from=None))
        except TargetError as error:  # a hook may lack a width that another one has
            failure = failure or error
    if failure is not None and (not found or len(hooks) == 1):
        raise failure
    return found


def grid(refs: Sequence[SaeRef]) -> str:
    """One line per hook and width: the L0s there are, those on disk marked, and what one weighs."""
    from inspector.drawing.figures import Column, Table
    from inspector.drawing.terminal_figures import render_table

    columns = (
        Column(title="hook"),
        Column(title="width"),
        Column(title="each", unit="MB", digits=1),
        Column(title="nominal L0, * on disk"),
    )
    rows: dict[tuple[str, int], list[SaeRef]] = {}
    for ref in refs:
        rows.setdefault((ref.hook_name, ref.d_sae), []).append(ref)
    lines = tuple(
        (hook_name, _width(d_sae), max(ref.n_bytes for ref in same) / 1e6 or "?", "  ".join(map(_l0, same)))
        for (hook_name, d_sae), same in rows.items()
    )
    n_here, total = sum(ref.on_disk for ref in refs), sum(ref.n_bytes for ref in refs) / 1e9
    note = f"{len(refs):,} SAEs of {len(rows):,} widths and hooks, {total:,.1f} GB; {n_here:,} on disk"
    return render_table(Table(title="", columns=columns, rows=lines, note=note))


def _l0(ref: SaeRef) -> str:
    known = "?" if ref.nominal_l0 is None else f"{ref.nominal_l0:g}"
    return f"{known}*" if ref.on_disk else known


def _width(d_sae: int) -> str:
    return width_label(d_sae) if d_sae else "?"


def table(refs: Sequence[SaeRef]) -> str:
    """One line per SAE, and what they weigh together."""
    from inspector.drawing.figures import Column, Table
    from inspector.drawing.terminal_figures import render_table

    columns = (
        Column(title="SAE"),
        Column(title="hook"),
        Column(title="width"),
        Column(title="latents"),
        Column(title="nominal L0", digits=0),
        Column(title="size", unit="MB", digits=1),
        Column(title="on disk"),
    )
    rows = tuple(
        (
            ref.sae_id,
            ref.hook_name,
            _width(ref.d_sae),
            ref.d_sae or "?",
            "?" if ref.nominal_l0 is None else ref.nominal_l0,
            ref.n_bytes / 1e6,
            "yes" if ref.on_disk else "no",
        )
        for ref in refs
    )
    note = f"{len(refs)} SAEs, {sum(ref.n_bytes for ref in refs) / 1e6:,.1f} MB"
    return render_table(Table(title="", columns=columns, rows=rows, note=note))


def refusals(refused: Sequence[RefusedSae]) -> str:
    """One line per reason: how many SAEs are there and cannot be measured, and what one of them is called."""
    by_reason: dict[str, list[RefusedSae]] = {}
    for each in refused:
        by_reason.setdefault(each.reason, []).append(each)
    lines = [f"{len(same):,} like {same[0].sae_id}: {reason}" for reason, same in by_reason.items()]
    from inspector.drawing.safe_text import visible

    shown = [visible(f"  {line}") for line in lines[:MOST_LINES]]
    more = [f"  and {len(lines) - MOST_LINES:,} more"] if len(lines) > MOST_LINES else []
    return "\n".join(["Not measured here:", *shown, *more, ""])


def _row(ref: SaeRef) -> dict[str, object]:
    return {
        "sae": ref.sae_id,
        "release": ref.release,
        "layer": ref.layer,
        "hook_name": ref.hook_name,
        "d_sae": ref.d_sae or None,
        "nominal_l0": ref.nominal_l0,
        "bytes": ref.n_bytes,
        "on_disk": ref.on_disk,
    }
