"""`dm-inspect suites`: which SAEs a TARGET could mean, read from names and sizes; no weight is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from inspector.cli.lazy import Command
from inspector.cli.narration import say
from inspector.cli.output import print_json_list
from inspector.cli.target_options import target_options
from inspector.errors import TargetError
from inspector.spec import hook_name_of, width_label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspector.spec import SaeRef, TargetSpec


@click.command(
    cls=Command,
    epilog="\b\nExamples:\n  dm-inspect suites\n  dm-inspect suites --suite ~/saes --layer 3 --l0 32 --json",
)
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"saes": [...]}.')
@target_options
def suites(as_json: bool, target: TargetSpec) -> None:
    """List the SAEs of a model's hook.

    Without --layer, --layers or --hook those of every hook; with --l0 only the SAE that would be picked per width.
    """
    refs = find(target)
    if as_json:
        print_json_list("saes", map(_row, refs))
        return
    print(table(refs), end="")
    from inspector.sources.suites import l0_notes

    for note in l0_notes(refs, target.l0):
        say(f"note: {note}")


def find(target: TargetSpec) -> list[SaeRef]:
    """The SAEs that the target's options leave, hook by hook.

    Raises:
        TargetError: if there are none, with what there is.
    """
    from inspector.sources.suites import known_saes, select

    refs = known_saes(target)
    if target.saes:
        return select(refs, target)
    if target.hook is not None:
        hooks = [target.hook]
    elif target.layers is not None:
        hooks = [hook_name_of(target.site, layer) for layer in target.layers]
    else:
        hooks = list(dict.fromkeys(ref.hook_name for ref in refs))
    found: list[SaeRef] = []
    failure: TargetError | None = None
    for hook in hooks:
        try:
            found += select(refs, replace(target, hook=hook, layers=None))
        except TargetError as error:  # a hook may lack a width that another one has
            failure = failure or error
    if failure is not None and (not found or len(hooks) == 1):
        raise failure
    return found


def table(refs: Sequence[SaeRef]) -> str:
    """One line per SAE, and what they weigh together."""
    from inspector.drawing.figures import Column, Table
    from inspector.drawing.text import render_table

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
            width_label(ref.d_sae),
            ref.d_sae,
            "?" if ref.nominal_l0 is None else ref.nominal_l0,
            ref.n_bytes / 1e6,
            "yes" if ref.on_disk else "no",
        )
        for ref in refs
    )
    note = f"{len(refs)} SAEs, {sum(ref.n_bytes for ref in refs) / 1e6:,.1f} MB"
    return render_table(Table(title="", columns=columns, rows=rows, note=note))


def _row(ref: SaeRef) -> dict[str, object]:
    return {
        "sae": ref.sae_id,
        "release": ref.release,
        "layer": ref.layer,
        "hook_name": ref.hook_name,
        "d_sae": ref.d_sae,
        "nominal_l0": ref.nominal_l0,
        "bytes": ref.n_bytes,
        "on_disk": ref.on_disk,
    }
