"""TARGET: the options that say which model, hook, SAEs and text; the same on every command.

Parsing only turns text into a `TargetSpec` and refuses what contradicts itself. Whether the layer or the file exists is
for `inspector.sources` to say.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from inspector.cli.lazy import TargetOption
from inspector.spec import TargetSpec, width_label

Result = TypeVar("Result")
Device = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
FLOAT16 = (
    "float16 ends at 65,504, which activations of Gemma pass, and its steps of a thousandth hide what SAEs leave over. "
    "Use bfloat16, which is as small, or float32."
)
_POWER = {None: 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SUFFIX = {"": 1, "k": 1000, "m": 1_000_000}
_BINARY = {"k": 1024, "m": 1024 * 1024}


def parse_width(text: str) -> int:
    """The number of latents a label denotes: 256, 16k = 16384, 65k = 65536, 1m = 1048576; 24000 is itself.

    Raises:
        ValueError: if it is no positive number with at most a `k` or `m` behind it.
    """
    match = re.fullmatch(r"(\d+)([km]?)", text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise ValueError(text)
    number, suffix = int(match[1]), match[2]
    if not suffix:
        return number
    label = f"{number}{suffix}"
    powers = [2**k for k in range(8, 31) if width_label(2**k) == label]
    binary = number * _BINARY[suffix]
    return powers[0] if powers else binary if width_label(binary) == label else number * _SUFFIX[suffix]


class Widths(click.ParamType[tuple[int, ...]]):
    """A comma-separated list of widths: 16k,65k,1m."""

    name = "WIDTHS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Numbers of latents, without repetitions, in the order given."""
        if isinstance(value, tuple):
            return value
        try:
            widths = dict.fromkeys(parse_width(part) for part in str(value).split(","))
        except ValueError as error:
            self.fail(
                f"{str(error)!r} is not a width. Write numbers or labels with commas, such as 256,1k,16k.", param, ctx
            )
        return tuple(widths)


class Span(click.ParamType[tuple[int, int | None]]):
    """A half-open range A:B as in Python; either end may be left out."""

    name = "A:B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int | None]:
        """The two ends; the second is None for an open end."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d*):(\d*)", str(value))
        if match is None:
            self.fail(f"{value!r} is not a range. Write 10:14, whose end is not included, or 10: for all from 10 on.")
        start, stop = int(match[1] or 0), int(match[2]) if match[2] else None
        if stop is not None and stop <= start:
            self.fail(f"{value!r} is empty. The end is not included, so it must be larger than the start.", param, ctx)
        return start, stop


class Size(click.ParamType[int]):
    """An amount of memory: 20G, 800M, 1.5GiB, or bytes."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)?", str(value).strip().lower())
        n_bytes = 0 if match is None else int(float(match[1]) * (1024 if match[3] else 1000) ** _POWER[match[2]])
        if not n_bytes:
            self.fail(f"{value!r} is not an amount of memory. Write 20G, 800M, or 16GiB.", param, ctx)
        return n_bytes


class ModelDtype(click.Choice[str]):
    """auto, float32 or bfloat16; float16 gets the reason why not."""

    def __init__(self) -> None:
        super().__init__(["auto", "float32", "bfloat16"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name itself."""
        if str(value).lower() in ("float16", "fp16", "half"):
            self.fail(FLOAT16, param, ctx)
        return super().convert(value, param, ctx)


class FieldName(click.ParamType[str]):
    """The name of a field of records; an empty one is a variable that was not set."""

    name = "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name itself."""
        if not str(value).strip():
            self.fail("the name is empty. Name a field of the records, or leave the option out.", param, ctx)
        return str(value)


class Factor(click.ParamType[float]):
    """How many times the median norm makes an outlier, or `off`."""

    name = "K"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:  # type: ignore[override]
        """The factor; None for off."""
        if str(value).strip().lower() == "off":
            return None
        try:
            factor = float(value)
        except ValueError:
            factor = 0.0
        if not 1 < factor < float("inf"):
            self.fail(f"{value!r} is no factor. Write a number above 1, such as 4, or off.", param, ctx)
        return factor


class DeviceName(click.ParamType[str]):
    """auto, cpu, mps, cuda or cuda:N."""

    name = "DEVICE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name itself, if it is one."""
        if Device.fullmatch(str(value)) is None:
            self.fail(f"{value!r} is not a device. Write auto, cpu, mps, cuda or cuda:1.", param, ctx)
        return str(value)


def _option(*names: str, **settings: Any) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    return cast(
        "Callable[[Callable[..., Result]], Callable[..., Result]]", click.option(*names, cls=TargetOption, **settings)
    )


_DEFAULTS = TargetSpec()
_OPTIONS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "model": _option(
        "--model",
        default=_DEFAULTS.model,
        metavar="NAME|DIR",
        help="demo (default), gemma-2-9b and the like, a Hugging Face id, or a directory.",
    ),
    "layer": _option(
        "--layer", type=click.IntRange(min=0), metavar="N", help="Layer, from 0. Default: the suite's, or the middle."
    ),
    "layers": _option(
        "--layers",
        type=Span(),
        metavar="A:B",
        help="Layers A to B, B not included, one after the other; without B all that have SAEs.",
    ),
    "site": _option("--site", type=click.Choice(["resid", "mlp", "attn"]), help="Where in the layer. Default: resid."),
    "hook": _option("--hook", metavar="NAME", help="A full hook name instead of layer and site."),
    "suite": _option(
        "--suite", metavar="RELEASE|DIR", help="A published release, or a directory of SAEs. Default: the model's own."
    ),
    "saes": _option("--sae", "saes", multiple=True, metavar="ID|DIR", help="Exactly this SAE; repeat for more."),
    "widths": _option("--widths", type=Widths(), metavar="LIST", help="Numbers of latents: 256,1k,16k. Default: all."),
    "l0": _option(
        "--l0", type=click.FloatRange(min=0), metavar="X", help="Per width, the SAE of the nearest nominal L0."
    ),
    "text": _option(
        "--text",
        metavar="demo|FILE|hf:NAME",
        help=".txt .md .py .json .jsonl .jsonl.zst .parquet, a data set of the hub. Default: the Pile; demo: its own.",
    ),
    "text_field": _option(
        "--text-field",
        type=FieldName(),
        metavar="NAME",
        help="Which field of records is read. Default: text, content or the like; it is told.",
    ),
    "contexts": _option(
        "--contexts",
        type=click.IntRange(min=1),
        default=_DEFAULTS.contexts,
        show_default=True,
        metavar="N",
        help="How many contexts.",
    ),
    "context_length": _option(
        "--context-length",
        type=click.IntRange(min=2),
        metavar="N",
        help="Tokens each, BOS included. Default: 1024 or the model's limit.",
    ),
    "positions": _option(
        "--positions",
        type=Span(),
        metavar="A:B",
        help="Which are fitted and scored. Default: 200:, less if contexts are short.",
    ),
    "train_tokens": _option(
        "--train-tokens",
        type=click.IntRange(min=1),
        metavar="N",
        help="Tokens that fit the linear map. Default: 150000, or 60.7% of what there is.",
    ),
    "split": _option(
        "--split",
        type=click.Choice(["context", "token"]),
        default=_DEFAULTS.split,
        show_default=True,
        help="What is held out.",
    ),
    "seed": _option(
        "--seed",
        type=click.IntRange(min=0),
        default=_DEFAULTS.seed,
        show_default=True,
        metavar="N",
        help="Of the split and of resampling.",
    ),
    "device": _option(
        "--device",
        type=DeviceName(),
        default=_DEFAULTS.device,
        show_default=True,
        help="auto, cpu, mps, cuda or cuda:N.",
    ),
    "dtype": _option(
        "--dtype",
        type=ModelDtype(),
        default=_DEFAULTS.dtype,
        show_default=True,
        help="Of the model; SAEs are float32.",
    ),
    "offline": _option("--offline", is_flag=True, help="Use no network; take only what is on disk."),
    "cache_dir": _option(
        "--cache-dir", metavar="DIR", help="Where downloads are kept. Default: the Hugging Face cache."
    ),
    "accept_gate": _option("--accept-gate", is_flag=True, help="Go on although the load gate failed; it is recorded."),
    "max_memory": _option(
        "--max-memory",
        type=Size(),
        metavar="SIZE",
        help="Of the device, at most: 20G, 800M. Default: what is free.",
    ),
    "include_special": _option(
        "--include-special",
        is_flag=True,
        help="Fit and score special tokens and all positions too: what do they change?",
    ),
    "outliers": _option(
        "--outliers",
        type=Factor(),
        default="4",
        show_default=True,
        metavar="K|off",
        help="Tokens with more than K times the median norm are counted apart.",
    ),
    "llama_gate": _option(
        "--llama-gate",
        type=click.Choice(["published", "topk"]),
        default=_DEFAULTS.llama_gate,
        show_default=True,
        help="Llama Scope: its thresholds, or the 50 largest latents.",
    ),
}
"""By the name under which the value arrives."""

_SEVERAL: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "model": _option(
        "--model",
        multiple=True,
        metavar="NAME|DIR",
        help="demo (default), gemma-2-9b and the like, a Hugging Face id, or a directory; repeat for more.",
    ),
    "suite": _option(
        "--suite",
        multiple=True,
        metavar="RELEASE|DIR",
        help="A published release, or a directory of SAEs. Default: the model's own. One per model.",
    ),
}
"""Options of `several_target_options` that differ."""


def target_options(function: Callable[..., Result]) -> Callable[..., Result]:
    """Give a command the options of TARGET; its function receives them as one `target: TargetSpec`."""
    return some_target_options(*_OPTIONS)(function)


def some_target_options(*names: str) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """As `target_options`, with some of the options only; the rest of the `TargetSpec` keeps its defaults."""

    def decorate(function: Callable[..., Result]) -> Callable[..., Result]:
        @functools.wraps(function)
        def with_target(*args: Any, **values: Any) -> Result:
            parsed = {name: values.pop(name) for name in names}
            return function(*args, target=target_of(parsed), **values)

        decorated: Callable[..., Result] = with_target
        for name in reversed(names):
            decorated = _OPTIONS[name](decorated)
        return decorated

    return decorate


def several_target_options(function: Callable[..., Result]) -> Callable[..., Result]:
    """As `target_options`, but --model may be repeated, and --suite with it; the function receives `targets`."""

    @functools.wraps(function)
    def with_targets(*args: Any, **values: Any) -> Result:
        parsed = {name: values.pop(name) for name in _OPTIONS}
        return function(*args, targets=targets_of(parsed), **values)

    decorated: Callable[..., Result] = with_targets
    for name in reversed(_OPTIONS):
        option = _SEVERAL[name] if name in _SEVERAL else _OPTIONS[name]
        decorated = option(decorated)
    return decorated


def targets_of(values: dict[str, Any]) -> tuple[TargetSpec, ...]:
    """As `target_of`, for every model of `several_target_options`.

    Raises:
        click.UsageError: if there are some suites, but not one per model.
    """
    models, suites = values.pop("model") or (_DEFAULTS.model,), values.pop("suite")
    if len(suites) not in (0, len(models)):
        raise click.UsageError(
            f"--suite was given {len(suites)} times and --model {len(models)} times. Give one suite per model, in the "
            "same order, or none."
        )
    pairs = zip(models, suites or [None] * len(models), strict=True)
    return tuple(target_of({**values, "model": model, "suite": suite}) for model, suite in pairs)


def target_of(values: dict[str, Any]) -> TargetSpec:
    """The target that a command's parsed options mean; what is not among them keeps its default.

    Raises:
        click.UsageError: if the hook or the layers are named twice in different ways.
    """
    layer, span, site = (values.pop(name, None) for name in ("layer", "layers", "site"))
    if layer is not None and span is not None:
        raise click.UsageError("--layer and --layers were both given. Leave one out.")
    if values.get("hook") is not None and (layer is not None or span is not None or site is not None):
        raise click.UsageError("--hook names the layer and site by itself. Leave out --layer, --layers and --site.")
    layers: tuple[int, ...] | None = None if layer is None else (layer,)
    if span is not None:
        start, stop = span
        values |= {"layers_from": start} if stop is None else {}
        layers = None if stop is None else tuple(range(start, stop))
    return TargetSpec(layers=layers, site=site or _DEFAULTS.site, **values)
