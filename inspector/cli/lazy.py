"""Commands that are imported when they run, and help that is printed without importing them.

`dm-inspect --help` must cost no more than click itself, so the group knows of each command only its name
and one sentence.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING

import click

from inspector.errors import nearest

if TYPE_CHECKING:
    from click.types import OptionHelpExtra


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


MAY_BE_EMPTY = ("prompt",)
"""Parameters for which an empty value means something."""


def refuse_empty_values(command: click.Command, ctx: click.Context, args: list[str]) -> None:
    """An empty value is a shell's variable that was not set, and would silently mean the default or the current folder.

    Raises:
        click.UsageError: an option has one.
    """
    if "" not in args and not any(arg.endswith("=") for arg in args):
        return
    values, _, _ = command.make_parser(ctx).parse_args(args=list(args))
    for param in command.params:
        given = values.get(param.name)
        if param.name not in MAY_BE_EMPTY and "" in (given if isinstance(given, list) else [given]):
            raise click.UsageError(
                f"{param.opts[0]} is empty, as a variable is that was not set. Give it a value, or leave it out.", ctx
            )


class Command(click.Command):
    """A command whose help separates its own options from TARGET's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, without empty values."""
        refuse_empty_values(self, ctx, args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write both lists of options."""
        write_options(self.get_params(ctx), ctx, formatter)


class LazyGroup(click.Group):
    """A group that imports a command when it is used."""

    lazy: dict[str, str]
    """One short sentence by the command's name, in the order of the help."""

    def __init__(self, *args: object, lazy: dict[str, str], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # click's constructor, passed through untouched
        self.lazy = lazy

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, without empty values."""
        refuse_empty_values(self, ctx, args)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the help."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None if there is none of that name."""
        if cmd_name not in self.lazy:
            return None
        command = getattr(import_module(f"inspector.cli.{cmd_name}"), cmd_name)
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
        with formatter.section("Commands"):
            formatter.write_dl(list(self.lazy.items()))
        write_options(self.get_params(ctx), ctx, formatter)
