"""`dm-inspect places`: what the app's switcher goes to, each with the command that goes there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import click

from inspector.cli.lazy import Command
from inspector.cli.narration import say
from inspector.cli.output import print_json_list, print_rows
from inspector.cli.target_options import target_options
from inspector.drawing.lines import cut
from inspector.drawing.safe_text import visible
from inspector.errors import InspectorError
from inspector.spec import TargetSpec, another_model, command_words, target_words, without_saes

LONGEST = 56
"""Columns of what is said about one in a table."""
KINDS = ("session", "hook", "suite", "model", "experiment")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Something to go to; its fields are the keys of the JSON."""

    kind: str
    """One of KINDS."""
    name: str
    about: str
    command: str
    """For a shell."""


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  dm-inspect places
  dm-inspect places --find 'gemma layer_20'
  dm-inspect places --kind session --kind model --json
""",
)
@click.option("--find", "words", metavar="TEXT", default="", help="Only what has all these words in it.")
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="Only these; repeat for more.")
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"places": [...]}.')
@target_options
def places(words: str, kinds: tuple[str, ...], as_json: bool, target: TargetSpec) -> None:
    """List what the app can switch to, with the command for each.

    The running sessions with the memory they hold, the hooks and suites of TARGET's model, all models that have a short
    name, and the experiments. In the app the key S lists the same.
    """
    asked = words.casefold().split()
    found = [
        each
        for each in every_place(target)
        if (not kinds or each.kind in kinds)
        and all(word in f"{each.kind} {each.name} {each.about}".casefold() for word in asked)
    ]
    if as_json:
        print_json_list("places", map(asdict, found))
    elif not found:
        say(f"Nothing has {words!r} in it. Without --find and --kind everything is listed.")
    else:
        print_rows(
            ("kind", "name", "about", "command"),
            ((each.kind, each.name, cut(visible(each.about), LONGEST), each.command) for each in found),
        )


def every_place(target: TargetSpec) -> list[Place]:
    """All of them, kind by kind; what cannot be read is not there."""
    found: list[Place] = []
    for read in (_sessions, _hooks, _suites, _models, _experiments):
        with contextlib.suppress(InspectorError, OSError):
            found += read(target)
    return found


def _sessions(_target: TargetSpec) -> Iterator[Place]:
    from inspector.cli.sessions import memory_text
    from inspector.session import discovery

    for record in discovery.list_sessions():
        memory = memory_text(record)
        yield Place(
            kind="session",
            name=f"{record.model} · {record.hook}",
            about=f"{record.state}{', holds ' if memory else ''}{memory}",
            command=f"dm-inspect sessions attach {record.id}",
        )


def _hooks(target: TargetSpec) -> Iterator[Place]:
    from inspector.sources.suites import every_sae

    by_hook: dict[str, int] = {}
    for ref in every_sae(target):
        by_hook[ref.hook_name] = by_hook.get(ref.hook_name, 0) + 1
    for hook, n in by_hook.items():
        there = replace(without_saes(target), hook=hook)
        yield Place(
            kind="hook", name=hook, about=f"{target.model}, {n} SAE{'s' if n > 1 else ''}", command=_command(there)
        )


def _suites(target: TargetSpec) -> Iterator[Place]:
    from inspector.sources.suites import model_id, releases

    about = f"published SAEs of {model_id(target)}"
    for release in releases(target):
        there = replace(without_saes(target), suite=release)
        yield Place(kind="suite", name=release, about=about, command=_command(there))


def _models(target: TargetSpec) -> Iterator[Place]:
    from inspector.sources.built_in import BUILT_IN, about
    from inspector.sources.suites import model_names

    for name in model_names():
        # Always named: without a target the app opens the model that is installed.
        words = target_words(another_model(target, name))
        words = words if "--model" in words else ["--model", name, *words]
        told = about(name) if name in BUILT_IN else "with published SAEs"
        yield Place(kind="model", name=name, about=told, command=command_words(words))


def _experiments(target: TargetSpec) -> Iterator[Place]:
    from inspector.cli.experiments import listed

    for row in listed():
        words = ["run", row["id"], *target_words(target)]
        yield Place(kind="experiment", name=row["id"], about=row["question"], command=command_words(words))


def _command(target: TargetSpec) -> str:
    return command_words(target_words(target))
