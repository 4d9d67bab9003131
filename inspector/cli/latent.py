"""`dm-inspect latent`: one latent's card, as the latent view shows it."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import click

from inspector.cli.anatomy import chosen_sae, every_sae_options, last_of
from inspector.cli.lazy import Command
from inspector.cli.narration import follow, quiet_option
from inspector.cli.opening import opened
from inspector.cli.output import print_json, print_text
from inspector.drawing.terminal_figures import render_table

if TYPE_CHECKING:
    from inspector.events import Event
    from inspector.session.protocol import LatentView
    from inspector.spec import TargetSpec


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  dm-inspect latent --sae layer_3/resid/width_4k/l0_16 --latent 1904
  dm-inspect latent --latent 7 --l0 16 --json
""",
)
@click.option("--latent", "index", type=click.IntRange(min=0), required=True, metavar="N", help="Its number.")
@click.option("--sae", "sae_id", metavar="ID", help="Of which SAE. Default: one of middle width.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with every number.")
@quiet_option
@every_sae_options
def latent(index: int, sae_id: str | None, as_json: bool, quiet: bool, target: TargetSpec) -> None:
    """Show one latent: where it is active and how strongly, what it writes, what is like it.

    Examples are the strongest and some drawn at random, all from the target's contexts.
    """
    view = follow(_view(target, sae_id, index), quiet=quiet)
    if as_json:
        print_json(as_builtins(view))
        return
    from inspector.session.card_tables import example_tables, latent_facts, latent_tables

    print_text(f"latent {view.index:,} of SAE {view.sae_id}")
    print_text("\n".join(latent_facts(view)) + "\n")
    for table in [*latent_tables(view), *example_tables(view)]:
        print_text(render_table(table))


def _view(target: TargetSpec, sae_id: str | None, index: int) -> Generator[Event, None, LatentView]:
    loaded = yield from opened(target)
    from inspector.session.latents import Latents
    from inspector.session.protocol import GetLatent

    asked = GetLatent(sae_id=chosen_sae(loaded, sae_id), index=index)
    return (yield from last_of(Latents(loaded).answer(asked), "where the latent is active"))


def as_builtins(view: LatentView) -> dict[str, Any]:
    """As JSON has it: without the question's number, and activations as numbers."""
    from msgspec import to_builtins

    from inspector.session.frames import unpack

    told: dict[str, Any] = to_builtins(view, builtin_types=(bytes,))
    card = told.pop("card")
    for example in [*told["examples"], *card["drawn"]]:
        example["activations"] = list(unpack(example["activations"]))
    return {**{key: value for key, value in told.items() if key not in ("type", "request")}, **card}
