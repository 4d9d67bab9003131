"""`dm-inspect tokens`: the per-token table behind the stream, for the text, a prompt, or what the model writes."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.cli.lazy import Command
from inspector.cli.narration import follow, quiet_option, say
from inspector.cli.opening import one_context, opened
from inspector.cli.output import check_file_place, print_json_list, print_text, whole_file
from inspector.cli.target_options import target_options
from inspector.cli.token_vectors import Kinds, vector_file, vectors_place
from inspector.errors import UsageError
from inspector.spec import RunSpec

if TYPE_CHECKING:
    import pyarrow as pa

    from inspector.events import Event
    from inspector.sources.target import Loaded
    from inspector.spec import TargetSpec
    from inspector.store.checkpoints import Checkpoints

ROWS_AT_ONCE = 4096
"""Rows that are Python objects at one time while JSON is written."""


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  dm-inspect tokens
  dm-inspect tokens --prompt 'def main():' --l0 16
  dm-inspect tokens --out tokens.parquet
  dm-inspect tokens --vectors error,linear,nonlinear --out tokens.safetensors
""",
)
@click.option("--prompt", metavar="TEXT", help="Score this text instead of the target's.")
@click.option(
    "--generate", type=click.IntRange(min=1), metavar="N", help="Let the model write N tokens, after --prompt."
)
@click.option(
    "--temperature", type=click.FloatRange(min=0), default=0.8, show_default=True, help="Of --generate; 0: likeliest."
)
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"tokens": [...]}, a row per token and SAE.')
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the table as .parquet.")
@click.option(
    "--vectors",
    "kinds",
    type=Kinds(),
    metavar="LIST",
    help="Also x, error, linear, nonlinear as vectors, to --out FILE.safetensors or beside its .parquet.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=RunSpec.batch_size,
    show_default=True,
    metavar="N",
    help="Contexts at once: speed and memory, no number.",
)
@quiet_option
@target_options
def tokens(
    prompt: str | None,
    generate: int | None,
    temperature: float,
    as_json: bool,
    out: Path | None,
    kinds: tuple[str, ...] | None,
    batch_size: int,
    quiet: bool,
    target: TargetSpec,
) -> None:
    """Print the per-token table behind the stream.

    A row per token and SAE: context, position, token, split, loss, the norms of x, of the SAE error, and of its linear
    and nonlinear parts. Without --json or --out the first context is shown as text, with one SAE.
    """
    if as_json and out is not None:
        raise UsageError("--json and --out were both given. Leave one out.")
    place = vectors_place(out, kinds)
    for path in (out, place):
        if path is not None:
            check_file_place(path)
    as_text = not as_json and out is None
    with contextlib.ExitStack() as stack:
        wanted = Wanted(
            prompt=prompt,
            generate=generate,
            temperature=temperature,
            batch_size=batch_size,
            vectors=place,
            kinds=kinds,
            only_vectors=place is not None and place == out,
            only_first=as_text and prompt is None,
        )
        loaded, table, checkpoints = follow(_table(target, wanted, stack), quiet=quiet)
        if as_json:
            print_json_list("tokens", rows_of(table))
        elif wanted.only_vectors:
            say(f"wrote vectors to {out}")
        elif out is not None:
            write_parquet(table, out)
            say(f"wrote {table.num_rows:,} rows to {out}{f' and their vectors to {place}' if place else ''}")
        else:
            print_first(loaded, table, scored="prompt" if prompt is not None or generate is not None else "context")
        if checkpoints is not None:  # only now: until the table is where it belongs they are all there is
            checkpoints.discard()


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What of which tokens."""

    prompt: str | None
    generate: int | None
    temperature: float
    batch_size: int
    vectors: Path | None
    """Where vectors go."""
    kinds: tuple[str, ...] | None
    only_vectors: bool
    """The table is not wanted."""
    only_first: bool
    """Of the text, the first context is enough."""


def _table(
    target: TargetSpec, wanted: Wanted, stack: contextlib.ExitStack
) -> Generator[Event, None, tuple[Loaded, pa.Table, Checkpoints | None]]:
    """The table, and the checkpoints it was made with, which `stack` closes; the vectors are where they belong."""
    loaded = yield from opened(target)
    from inspector import runner

    if wanted.only_first and wanted.generate is None:
        return loaded, (yield from first_context(loaded, wanted.batch_size)), None
    from inspector.sources.hashing import hashed

    yield from hashed(loaded)
    checkpoints = stack.enter_context(runner.table_checkpoints(loaded, wanted.batch_size))
    n_tokens = loaded.contexts.token_ids.numel()
    own = wanted.prompt is not None or wanted.generate is not None
    if own:
        n_tokens = min(loaded.model.n_ctx, len(loaded.model.encode(wanted.prompt or "")) + (wanted.generate or 0))
    with vector_file(wanted.vectors, wanted.kinds, loaded, n_tokens, own_text=own) as vectors:
        table = yield from runner.token_table(
            loaded,
            prompt=wanted.prompt,
            generate=wanted.generate,
            temperature=wanted.temperature,
            batch_size=wanted.batch_size,
            checkpoints=checkpoints,
            vectors=vectors,
            keep_rows=not wanted.only_vectors,
        )
    return loaded, table, checkpoints


def first_context(loaded: Loaded, batch_size: int = RunSpec.batch_size) -> Generator[Event, None, pa.Table]:
    """The table's rows of the first context; the maps are fitted on all of them."""
    from inspector import runner
    from inspector.statistics.token_rows import fitted_maps, rows_of_contexts

    runner.require_enough(loaded, loaded.plan)
    maps = yield from fitted_maps(loaded, batch_size)
    return (yield from rows_of_contexts(one_context(loaded), maps, batch_size))


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows as dictionaries, a part at a time."""
    for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
        yield from batch.to_pylist()


def write_parquet(table: pa.Table, path: Path) -> None:
    """The whole table or nothing."""
    from pyarrow import parquet

    with whole_file(path) as temporary:
        parquet.write_table(table, temporary, compression="zstd")


def print_first(loaded: Loaded, table: pa.Table, *, scored: str) -> None:
    """One document and one SAE as text, and how to get at the rest."""
    from inspector.cli.token_text import token_table_text

    ids = [sae.ref.sae_id for sae in loaded.saes]
    shown = ids[len(ids) // 2]
    title = loaded.contexts.names[0] if scored == "context" else "prompt and generation"
    print_text(token_table_text(list(rows_of(table)), shown, title), end="")
    more = f"{len(ids)} SAEs; --sae ID shows another one" if len(ids) > 1 else "one SAE"
    whole = f"the first of {len(loaded.contexts.names):,} contexts, {more}" if scored == "context" else more
    print_text(f"\n{whole}. --json and --out FILE.parquet give every row.")
