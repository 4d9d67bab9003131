"""TARGET on a command line: click options made from the fields of `TargetSpec`, the same on every command.

Parsing only turns text into a `TargetSpec` and refuses what contradicts itself. Whether the layer or the file exists is
for `inspector.sources` to say.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from inspector.cli.lazy import TargetOption
from inspector.options import EACH, NUMBER, SWITCH, TEXT, WHOLE, Notation
from inspector.spec import DEFAULT_TARGET, OPTIONS, TargetSpec, layers_asked

Result = TypeVar("Result")
WITHOUT_DEFAULT = ("site",)
"""Fields whose option must be seen to be absent: `--hook` contradicts it."""
OF_EACH_MODEL = {"model": "Repeat for more.", "suite": "One per model."}
"""Fields whose options may be repeated where several models are compared, and what the help adds."""


class Written(click.ParamType[Any]):
    """A value that a notation reads."""

    def __init__(self, notation: Notation) -> None:
        self.notation = notation
        self.name = notation.metavar or "TEXT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value itself; a default is one already."""
        if not isinstance(value, str):
            return value
        try:
            return self.notation.read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _option(name: str, *, repeated: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The click option of one field."""
    asked = OPTIONS[name]
    settings: dict[str, Any] = {"help": asked.help, "metavar": asked.metavar or asked.notation.metavar}
    if asked.notation is SWITCH:
        settings["is_flag"] = True
    elif repeated or asked.notation is EACH:
        settings["multiple"] = True
    elif name not in WITHOUT_DEFAULT:
        default = getattr(DEFAULT_TARGET, name)
        settings["default"] = asked.notation.write(default) if asked.shows_default else default
        settings["show_default"] = asked.shows_default
    if asked.choices:
        settings["type"] = click.Choice(asked.choices)
    elif asked.notation is WHOLE:
        settings["type"] = click.IntRange(min=asked.least)
    elif asked.notation is NUMBER:
        settings["type"] = click.FloatRange(min=asked.least)
    elif asked.notation not in (TEXT, EACH, SWITCH):
        settings["type"] = Written(asked.notation)
    if repeated:
        settings["help"] += f" {OF_EACH_MODEL[name]}"
    return click.option(asked.flag, name, cls=TargetOption, **settings)


def target_options(function: Callable[..., Result]) -> Callable[..., Result]:
    """Give a command the options of TARGET; its function receives them as one `target: TargetSpec`."""
    return some_target_options(*OPTIONS)(function)


def some_target_options(*names: str) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """As `target_options`, with the options of some fields only; the rest of the `TargetSpec` keeps its defaults."""
    return _decorator(names, (), lambda values: {"target": target_of(values)})


def several_target_options(function: Callable[..., Result]) -> Callable[..., Result]:
    """As `target_options`, but --model may be repeated, and --suite with it; the function receives `targets`."""
    return _decorator(tuple(OPTIONS), tuple(OF_EACH_MODEL), lambda values: {"targets": targets_of(values)})(function)


def _decorator(
    names: tuple[str, ...], repeated: tuple[str, ...], made: Callable[[dict[str, Any]], dict[str, Any]]
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Adds the options of `names`; the function receives what `made` makes of their values."""

    def decorate(function: Callable[..., Result]) -> Callable[..., Result]:
        @functools.wraps(function)
        def with_target(*args: Any, **values: Any) -> Result:
            asked = {name: values.pop(name) for name in names}
            return function(*args, **made(asked), **values)

        decorated: Callable[..., Result] = with_target
        for name in reversed(names):
            decorated = _option(name, repeated=name in repeated)(decorated)
        return decorated

    return decorate


def targets_of(values: dict[str, Any]) -> tuple[TargetSpec, ...]:
    """As `target_of`, for every model of `several_target_options`.

    Raises:
        click.UsageError: if there are some suites, but not one per model.
    """
    models, suites = values.pop("model") or (DEFAULT_TARGET.model,), values.pop("suite")
    if len(suites) not in (0, len(models)):
        raise click.UsageError(
            f"--suite was given {len(suites)} times and --model {len(models)} times. Give one suite per model, in the "
            "same order, or none."
        )
    pairs = zip(models, suites or [None] * len(models), strict=True)
    return tuple(target_of({**values, "model": model, "suite": suite}) for model, suite in pairs)


def target_of(values: dict[str, Any]) -> TargetSpec:
    """The target that a command's options mean, by field; what is not among them keeps its default.

    Raises:
        click.UsageError: if the hook or the layers are named twice in different ways.
    """
    asked = dict(values)
    layer, span, site = (asked.pop(name, None) for name in ("layers", "layers_from", "site"))
    if layer is not None and span is not None:
        raise click.UsageError("--layer and --layers were both given. Leave one out.")
    if asked.get("hook") is not None and (layer is not None or span is not None or site is not None):
        raise click.UsageError("--hook names the layer and site by itself. Leave out --layer, --layers and --site.")
    for name, value in (("layers", layer), ("layers_from", span)):
        asked |= {} if value is None else layers_asked(name, value)
    return TargetSpec(**asked, **({} if site is None else {"site": site}))
