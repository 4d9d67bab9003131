"""`dm-inspect train`: a suite of TopK SAEs on any model, made the way the demo's was."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.cli.lazy import Command
from inspector.cli.narration import follow, quiet_option, say
from inspector.cli.output import output_folder, print_json_list
from inspector.cli.target_options import Widths, some_target_options
from inspector.errors import DataError, TargetError, UsageError
from inspector.events import Event, Loading
from inspector.spec import hook_name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspector.sources.model import LanguageModel
    from inspector.sources.suite_files import Quality, SaePlan
    from inspector.spec import TargetSpec

HELD_OUT_SHARE = 0.05
"""Of the contexts; the quality that is written beside each SAE comes from these."""
MOST_HELD_OUT = 256
"""Contexts; more would cost time and change no digit that matters."""
FEWEST_CONTEXTS = 8
MOST_CONTEXTS_AT_ONCE = 256
"""Contexts whose activations are shuffled together."""


class L0s(Widths):
    """A comma-separated list of whole numbers: 8,16,32."""

    name = "L0S"


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  dm-inspect train --model ~/llama --layer 3 --text corpus.txt --widths 512,2k --l0 16 --out ~/saes
  dm-inspect --model ~/llama --layer 3 --text notes.txt --suite ~/saes
""",
)
@click.option(
    "--widths", type=Widths(), default="256,1k", show_default=True, metavar="LIST", help="Numbers of latents."
)
@click.option(
    "--l0",
    "l0s",
    type=L0s(),
    default="16,32",
    show_default=True,
    metavar="LIST",
    help="Active latents, for each width.",
)
@click.option(
    "--tokens",
    type=click.IntRange(min=1),
    default=2_000_000,
    show_default=True,
    metavar="N",
    help="Tokens each SAE learns from.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Where the suite is written."
)
@click.option("--json", "as_json", is_flag=True, help='The qualities as one JSON object, {"saes": [...]}.')
@quiet_option
@some_target_options(
    "model",
    "layer",
    "layers",
    "site",
    "hook",
    "text",
    "context_length",
    "seed",
    "device",
    "dtype",
    "offline",
    "cache_dir",
)
def train(
    widths: tuple[int, ...],
    l0s: tuple[int, ...],
    tokens: int,
    out: Path,
    as_json: bool,
    quiet: bool,
    target: TargetSpec,
) -> None:
    """Train a suite of SAEs on a model.

    TopK SAEs of every width and L0 learn in lockstep from one pass over the text and are written in sae-lens layout,
    each with its measured quality. Ctrl-C saves; the same command goes on where it stopped.
    """
    output_folder(out)
    with interruptible() as should_stop:
        qualities = follow(_train(target, widths, l0s, tokens, out), quiet=quiet, should_stop=should_stop)
    if as_json:
        print_json_list("saes", map(asdict, qualities))
    else:
        print(quality_table(qualities), end="")
    say(f"wrote {len(qualities)} SAEs below {out}; show them with --suite {out}")


def _train(
    target: TargetSpec, widths: Sequence[int], l0s: Sequence[int], tokens: int, out: Path
) -> Generator[Event, None, tuple[Quality, ...]]:
    from inspector.sources.model_files import find_model
    from inspector.sources.quiet import quiet_libraries

    files = find_model(target.model, target.cache_dir)
    hooks = hook_names(target, files.n_layers)
    check_text_of(target)
    quiet_libraries(offline=target.offline)
    started = time.perf_counter()
    yield Loading(what="model", detail=target.model)
    from inspector.sources.contexts import load_contexts
    from inspector.sources.limits import default_context_length
    from inspector.sources.model import load_model
    from inspector.sources.trainer import TrainSettings, train_suite

    plans = plans_of(hooks, widths, l0s, out)
    model = load_model(target)
    for hook in hooks:
        model.check_hook(hook)
    yield Loading(what="model", detail=target.model, seconds=time.perf_counter() - started)

    length = target.context_length or default_context_length(model.n_ctx)
    wanted = math.ceil(tokens / max(1, length - 1) / (1 - HELD_OUT_SHARE)) + FEWEST_CONTEXTS
    contexts = load_contexts(replace(target, contexts=wanted, context_length=length), model)
    ids = contexts.token_ids.numpy()
    if len(ids) < FEWEST_CONTEXTS:
        raise DataError(
            f"The text has {len(ids)} contexts of {length:,} tokens, and training needs {FEWEST_CONTEXTS} or more. "
            "Give a longer --text or a smaller --context-length."
        )
    yield Loading(what="text", detail=f"{len(ids):,} contexts of {length:,} tokens", seconds=0.0)
    n_held_out = min(MOST_HELD_OUT, max(1, round(HELD_OUT_SHARE * len(ids))))
    settings = TrainSettings(
        tokens=tokens,
        seed=target.seed,
        # Tokens are rounded up to whole blocks, so a block is no larger than the whole.
        block_contexts=min(MOST_CONTEXTS_AT_ONCE, math.ceil(tokens / max(1, length - 1))),
        special_ids=tuple(sorted(model.special_ids)),
        disk_dtype="float32",
    )
    metadata = {
        "model_name": target.model,
        "context_size": length,
        "prepend_bos": model.bos_id is not None,
        "dataset": target.text or "demo",
    }
    return (
        yield from train_suite(
            source_of(model, hooks), ids[:-n_held_out], ids[-n_held_out:], plans, settings, out, metadata
        )
    )


def source_of(model: LanguageModel, hooks: Sequence[str]) -> Callable[[Any], dict[str, Any]]:
    """The model as the trainer wants it: token ids to activations by hook name."""
    return lambda ids: {hook: model.activations(ids, hook) for hook in hooks}


def hook_names(target: TargetSpec, n_layers: int | None) -> list[str]:
    """The hooks to train on: the one named, those of the layers named, or that of the middle layer.

    Raises:
        TargetError: a layer the model does not have, or no way to know its middle.
    """
    if target.hook is not None:
        return [target.hook]
    layers = target.layers
    if target.layers_from is not None and n_layers is not None:
        layers = tuple(range(target.layers_from, max(n_layers, target.layers_from + 1)))
    if layers is None:
        if n_layers is None:
            raise TargetError(f"The number of layers of {target.model!r} is not known. Name one with --layer N.")
        layers = (n_layers // 2,)
    for layer in layers:
        if n_layers is not None and layer >= n_layers:
            raise TargetError(f"Model {target.model!r} has no layer {layer}. Its layers are 0 to {n_layers - 1}.")
    return [hook_name_of(target.site, layer) for layer in layers]


def check_text_of(target: TargetSpec) -> None:
    """Refuse a text that cannot be read before anything heavy is imported.

    Raises:
        UsageError: no text was named, and the model brings none.
        DataError: the file cannot be used.
    """
    from inspector.sources.readers import check_text

    if target.text is None and target.model != "demo":
        raise UsageError("There is no text to learn from. Give --text FILE, or --text demo for installed Python's.")
    if target.text not in (None, "demo"):
        check_text(str(target.text))


def plans_of(hooks: Sequence[str], widths: Sequence[int], l0s: Sequence[int], out: Path) -> tuple[SaePlan, ...]:
    """Every SAE to be trained.

    Raises:
        UsageError: none is possible, two would share a folder, or one is there already.
    """
    from inspector.sources.suite_files import WEIGHTS_FILE, plan_suite

    plans = plan_suite(list(hooks), list(widths), list(l0s))
    if not plans:
        raise UsageError(f"Every L0 of {', '.join(map(str, l0s))} is larger than every width. Lower --l0.")
    folders = [plan.sae_id for plan in plans]
    twice = next((folder for folder in folders if folders.count(folder) > 1), None)
    if twice is not None:
        raise UsageError(f"Two of the widths have the same short name, so both would be {twice}. Leave one out.")
    for folder in folders:
        if (out / folder / WEIGHTS_FILE).exists():
            raise UsageError(f"{out / folder} holds an SAE already. Choose another --out, or remove that folder.")
    return plans


def quality_table(qualities: Sequence[Quality]) -> str:
    """What each SAE does on text it did not learn from."""
    from inspector.drawing.figures import Column, Table
    from inspector.drawing.text import render_table

    columns = (
        Column(title="SAE"),
        Column(title="latents"),
        Column(title="nominal L0"),
        Column(title="L0", digits=1),
        Column(title="FVU", digits=4),
        Column(title="dead latents"),
    )
    rows = tuple((q.sae_id, q.d_sae, q.nominal_l0, q.l0, q.fvu, q.dead_latents) for q in qualities)
    note = f"Measured on {qualities[0].n_tokens:,} held-out tokens; dead: active on none of them."
    return render_table(Table(title="", columns=columns, rows=rows, note=note))


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a wish that is asked for between two steps; the second one interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def wish(_number: int, _frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, wish)
    try:
        yield stop.is_set
    finally:
        signal.signal(signal.SIGINT, before)
