"""Commands that are imported when they run, and help that is printed without importing them.

`dm-inspect --help` must cost no more than click itself, so the group knows of each command only a module, a name
and one sentence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import click

from inspector.errors import nearest

if TYPE_CHECKING:
    from click.types import OptionHelpExtra


@dataclass(frozen=True, kw_only=True)
class LazyCommand:
    """Where a command is and what the list of commands says about it."""

    module: str
    attribute: str
    summary: str
    """One short sentence, the same as the command's own first line."""


class TargetOption(click.Option):
    """An option that belongs to TARGET; help lists these under a heading of their own."""

    def get_help_extra(self, ctx: click.Context) -> OptionHelpExtra:
        """As click does, without `[x>=0]`: a wrong value is told the range when it comes."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra


def write_options(params: Iterable[click.Parameter], ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write the command's own options, then those of TARGET."""
    own: list[tuple[str, str]] = []
    target: list[tuple[str, str]] = []
    for param in params:
        record = param.get_help_record(ctx)
        if record is not None:
            (target if isinstance(param, TargetOption) else own).append(record)
    for heading, rows in (("Options", own), ("Target", target)):
        if rows:
            with formatter.section(heading):
                formatter.write_dl(rows)


class Command(click.Command):
    """A command whose help separates its own options from TARGET's."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write both lists of options."""
        write_options(self.get_params(ctx), ctx, formatter)


class LazyGroup(click.Group):
    """A group that imports a command when it is used."""

    lazy: dict[str, LazyCommand]
    """By the command's name, in the order of the help."""

    def __init__(self, *args: object, lazy: dict[str, LazyCommand], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # click's constructor, passed through untouched
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the help."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None if there is none of that name."""
        entry = self.lazy.get(cmd_name)
        if entry is None:
            return None
        command = getattr(import_module(entry.module), entry.attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but an unknown command is answered with the nearest ones."""
        if args and args[0] not in self.lazy and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"There is no command {args[0]!r}.{nearest(args[0], self.lazy, n=len(self.lazy))}")
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands first, then the options: a newcomer needs them in this order."""
        rows = [(name, entry.summary) for name, entry in self.lazy.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
        write_options(self.get_params(ctx), ctx, formatter)
