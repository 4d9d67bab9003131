"""`dm-inspect train`: a suite of SAEs on any model and hook."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inspector import threads
from inspector.cli.lazy import Command
from inspector.cli.narration import follow, quiet_option, say
from inspector.cli.opening import interruptible
from inspector.cli.output import output_folder, print_json_list, print_text
from inspector.cli.target_options import Written, some_target_options
from inspector.disk.locks import alone
from inspector.errors import DataError, TargetError, UsageError
from inspector.events import Event, Loading, Warned
from inspector.options import WIDTHS
from inspector.spec import hook_name_of

if TYPE_CHECKING:
    from inspector.spec import TargetSpec
    from inspector.training.learners import Architecture
    from inspector.training.suite_files import Quality, SaePlan

HELD_OUT_SHARE = 0.05
"""Of the contexts; the quality that is written beside each SAE comes from these."""
MOST_HELD_OUT = 256
"""Contexts; more would cost time and change no digit that matters."""
FEWEST_CONTEXTS = 8
MOST_CONTEXTS_AT_ONCE = 256
"""Contexts whose activations are shuffled together."""
FIRST_TOKENS = 16_384
"""Of the first block: a model of 135 million weights makes them in seven seconds on two cores, and learning begins."""


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  dm-inspect train --model ~/llama --layer 3 --text corpus.txt --widths 512,2k --l0 16 --out ~/saes
  dm-inspect train --model demo --layer 3 --architecture jumprelu --tokens 500000 --out jumprelu
  dm-inspect --model ~/llama --layer 3 --text notes.txt --suite ~/saes
""",
)
@click.option(
    "--widths", type=Written(WIDTHS), default="256,1k", show_default=True, metavar="LIST", help="Numbers of latents."
)
@click.option(
    "--l0",
    "l0s",
    type=Written(WIDTHS),
    default="16,32",
    show_default=True,
    metavar="LIST",
    help="Active latents, for each width.",
)
@click.option(
    "--architecture",
    type=click.Choice(["topk", "batchtopk", "jumprelu"]),
    default="topk",
    show_default=True,
    help="How latents are chosen.",
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
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True, max=1),
    metavar="X",
    help="Adam's.  [default: 2e-3, divided by sqrt(d_in / 128)]",
)
@click.option(
    "--checkpoint-minutes",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    metavar="M",
    help="How much work a kill may cost.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Where the suite is written."
)
@click.option("--json", "as_json", is_flag=True, help='The qualities as one JSON object, {"saes": [...]}.')
@click.option("--ray", hidden=True, help="Refused, with the reason.")
@quiet_option
@some_target_options(
    "model",
    "layers",
    "layers_from",
    "site",
    "hook",
    "text",
    "text_field",
    "context_length",
    "seed",
    "device",
    "dtype",
    "offline",
    "cache_dir",
    "outliers",
)
def train(
    widths: tuple[int, ...],
    l0s: tuple[int, ...],
    architecture: Architecture,
    tokens: int,
    learning_rate: float | None,
    checkpoint_minutes: float,
    out: Path,
    as_json: bool,
    ray: str | None,
    quiet: bool,
    target: TargetSpec,
) -> None:
    """Train a suite of SAEs on a model.

    SAEs of every width and L0 learn in lockstep from one pass over the text and are written in sae-lens layout, each
    with its measured quality. Ctrl-C saves; the same command goes on where it stopped, also after a crash.
    """
    if ray is not None:
        raise UsageError(
            "--ray cannot share a training: its SAEs learn step by step, and each step needs the one before. "
            "Leave --ray away, and give each machine other --widths or --layer and its own --out."
        )
    output_folder(out)
    wanted = _Wanted(
        widths=widths,
        l0s=l0s,
        architecture=architecture,
        tokens=tokens,
        learning_rate=learning_rate,
        checkpoint_minutes=checkpoint_minutes,
        out=out,
    )
    with alone(out), interruptible() as should_stop:
        qualities = follow(_train(target, wanted), quiet=quiet, should_stop=should_stop)
    if as_json:
        print_json_list("saes", map(asdict, qualities))
    else:
        print_text(quality_table(qualities), end="")
    say(f"wrote {len(qualities)} SAEs below {out}; show them with --suite {out}")


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What the command line says beside TARGET."""

    widths: tuple[int, ...]
    l0s: tuple[int, ...]
    architecture: Architecture
    tokens: int
    learning_rate: float | None
    checkpoint_minutes: float
    out: Path


def _train(target: TargetSpec, wanted: _Wanted) -> Generator[Event, None, tuple[Quality, ...]]:
    from inspector.sources import quiet_libraries
    from inspector.sources.dequantising import provide
    from inspector.sources.model_files import find_model

    threads.limit()
    yield from provide(target.model)
    files = find_model(target.model, target.cache_dir)
    hooks = hook_names(target, files.n_layers)
    check_text_of(target)
    quiet_libraries(offline=target.offline)
    started = time.perf_counter()
    yield Loading(what="model", detail=target.model)
    from inspector.sources.contexts import default_context_length, load_contexts
    from inspector.sources.loading import load_model
    from inspector.training.blocks import source_of
    from inspector.training.learners import LearnerSettings
    from inspector.training.trainer import TrainSettings, train_suite

    tokens = wanted.tokens
    plans = plans_of(hooks, wanted.widths, wanted.l0s, wanted.architecture, wanted.out)
    model = load_model(target)
    d_in = max(model.check_hook(hook) for hook in hooks)
    yield Loading(what="model", detail=target.model, seconds=time.perf_counter() - started)

    length = target.context_length or default_context_length(model.n_ctx)
    n_contexts = math.ceil(tokens / max(1, length - 1) / (1 - HELD_OUT_SHARE)) + FEWEST_CONTEXTS
    contexts = load_contexts(replace(target, contexts=n_contexts, context_length=length), model)
    ids = contexts.token_ids.numpy()
    if len(ids) < FEWEST_CONTEXTS:
        raise DataError(
            f"The text has {len(ids)} contexts of {length:,} tokens, and training needs {FEWEST_CONTEXTS} or more. "
            "Give a longer --text or a smaller --context-length."
        )
    field = "" if contexts.field is None else f", from field {contexts.field!r}"
    yield Loading(what="text", detail=f"{len(ids):,} contexts of {length:,} tokens{field}", seconds=0.0)
    for note in contexts.notes:
        if not note.startswith(f"{n_contexts:,} contexts were asked for"):  # a short text is read again
            yield Warned(message=note)
    n_held_out = min(MOST_HELD_OUT, max(1, round(HELD_OUT_SHARE * len(ids))))
    # Tokens are rounded up to whole blocks, so a block is no larger than the whole.
    block, first = min(MOST_CONTEXTS_AT_ONCE, math.ceil(tokens / max(1, length - 1))), math.ceil(FIRST_TOKENS / length)
    settings = TrainSettings(
        tokens=tokens,
        seed=target.seed,
        block_contexts=block,
        first_contexts=first if first < block else None,
        special_ids=tuple(sorted(model.special_ids)),
        outliers=target.outliers,
        disk_dtype="float32",
        checkpoint_minutes=wanted.checkpoint_minutes,
        learner=LearnerSettings(learning_rate=wanted.learning_rate or default_rate(d_in)),
    )
    metadata = {
        "model_name": target.model,
        "model_sha256": model.weights_hash,
        "context_size": length,
        "prepend_bos": model.bos_id is not None,
        "dataset": target.text or "demo",
        **({} if target.outliers is None else {"outliers_left_out": target.outliers}),
    }
    return (
        yield from train_suite(
            source_of(model, hooks), ids[:-n_held_out], ids[-n_held_out:], plans, settings, wanted.out, metadata
        )
    )


def quality_table(qualities: Sequence[Quality]) -> str:
    """What each SAE does on text it did not learn from."""
    from inspector.drawing.figures import Column, Table
    from inspector.drawing.terminal_figures import render_table

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


DEMO_LEARNING_RATE, DEMO_WIDTH = 2e-3, 128
"""Weights of unit rows are of the size 1 / sqrt(d_in), and Adam's steps of the size of the rate: the same share of a
weight everywhere if the rate falls like 1 / sqrt(d_in). Of 2304 dimensions 4.7e-4."""


def default_rate(d_in: int) -> float:
    """The learning rate for activations of this width; see DEMO_LEARNING_RATE."""
    return DEMO_LEARNING_RATE * min(1.0, math.sqrt(DEMO_WIDTH / d_in))


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
    check_text(target.text or "demo", target.text_field)


def plans_of(
    hooks: Sequence[str], widths: Sequence[int], l0s: Sequence[int], architecture: Architecture, out: Path
) -> tuple[SaePlan, ...]:
    """Every SAE to be trained.

    Raises:
        UsageError: none is possible, two would share a folder, or one is there already.
    """
    from inspector.training import checkpoint
    from inspector.training.suite_files import WEIGHTS_FILE, plan_suite

    plans = plan_suite(list(hooks), list(widths), list(l0s), architecture)
    if not plans:
        raise UsageError(f"Every L0 of {', '.join(map(str, l0s))} is larger than every width. Lower --l0.")
    folders = [plan.sae_id for plan in plans]
    twice = next((folder for folder in folders if folders.count(folder) > 1), None)
    if twice is not None:
        raise UsageError(f"Two of the widths have the same short name, so both would be {twice}. Leave one out.")
    if not checkpoint.exists(out):
        checkpoint.forget(out)  # what is left of one whose run was killed while it removed it
    for folder in folders:
        # With a checkpoint, a run was killed while it wrote them; whether it is this run is found out when it is read.
        if (out / folder / WEIGHTS_FILE).exists() and not checkpoint.exists(out):
            raise UsageError(f"{out / folder} holds an SAE already. Choose another --out, or remove that folder.")
    return plans
