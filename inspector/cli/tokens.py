"""`dm-inspect tokens`: the per-token table behind the stream, for the text, a prompt, or what the model writes."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.cli.lazy import Command
from inspector.cli.narration import batch_size_option, follow, quiet_option, ray_option, say
from inspector.cli.opening import one_context, opened, prompt_file_option, prompts_of
from inspector.cli.output import check_file_place, print_json_list, print_text, whole_file
from inspector.cli.target_options import target_options
from inspector.cluster import SHARDS, check_address
from inspector.drawing.figures import Column, Table
from inspector.drawing.safe_text import visible
from inspector.drawing.terminal_figures import render_table
from inspector.errors import UsageError
from inspector.spec import TOKENS, RunSpec

if TYPE_CHECKING:
    import pyarrow as pa

    from inspector.events import Event
    from inspector.sources.target import Loaded
    from inspector.spec import TargetSpec
    from inspector.statistics.token_table import VectorFile
    from inspector.store.checkpoints import Checkpoints

Row = Mapping[str, Any]
"""One row of the table in long form; its `token` may hold any character at all."""

COLUMNS = (
    Column(title="position"),
    Column(title="id"),
    Column(title="token"),
    Column(title="split"),
    Column(title="loss", unit="nats", digits=2),
    Column(title="‖x‖", digits=2),
    Column(title="L0"),
    Column(title="‖error‖", digits=2),
    Column(title="‖linear‖", digits=2),
    Column(title="‖nonlinear‖", digits=2),
)
_KEYS = (
    "position", "token_id", "token", "split", "loss", "x_norm", "l0",
    "sae_error_norm", "linear_error_norm", "nonlinear_error_norm",
)  # fmt: skip

NUMBERING = "context and position count from 0; on the screen contexts count from 1"
"""Stated in every file, since scripts depend on the one and people look at the other."""
ROWS_AT_ONCE = 4096
"""Rows that are Python objects at one time while JSON is written."""

SUFFIX = ".safetensors"
KINDS = ("x", "error", "linear", "nonlinear")
"""As `statistics.token_table.KINDS`, which brings torch."""


class Kinds(click.ParamType[tuple[str, ...]]):
    """A comma-separated list of kinds: error,linear,nonlinear."""

    name = "LIST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The kinds without repetitions, in the order of KINDS."""
        if isinstance(value, tuple):
            return value
        given = str(value).split(",")
        for kind in given:
            if kind not in KINDS:
                self.fail(f"{kind!r} is no kind of vector. Write {', '.join(KINDS)} with commas.", param, ctx)
        return tuple(kind for kind in KINDS if kind in given)


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  dm-inspect tokens
  dm-inspect tokens --prompt 'def main():' --l0 16
  dm-inspect tokens --prompt-file notes.txt --prompt-file code.py --json
  dm-inspect tokens --out tokens.parquet
  dm-inspect tokens --vectors error,linear,nonlinear --out tokens.safetensors
""",
)
@click.option("--prompt", metavar="TEXT", help="Score this text instead of the target's.")
@prompt_file_option
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
@batch_size_option
@ray_option
@quiet_option
@target_options
def tokens(
    prompt: str | None,
    prompt_files: tuple[Path, ...],
    generate: int | None,
    temperature: float,
    as_json: bool,
    out: Path | None,
    kinds: tuple[str, ...] | None,
    batch_size: int,
    ray: str | None,
    quiet: bool,
    target: TargetSpec,
) -> None:
    """Print the per-token table behind the stream.

    A row per token and SAE: context, position, token, split, loss, the norms of x, of the SAE error, and of its linear
    and nonlinear parts. context and position count from 0; the app counts contexts from 1. Without --json or --out the
    first context is shown as text, with one SAE.
    """
    prompts = prompts_of(prompt, prompt_files)
    if generate is not None and len(prompts) > 1:
        raise UsageError(f"--generate goes on from one text, and {len(prompts)} were given. Give one --prompt-file.")
    if as_json and out is not None:
        raise UsageError("--json and --out were both given. Leave one out.")
    place = vectors_place(out, kinds)
    for path in (out, place):
        if path is not None:
            check_file_place(path)
    as_text = not as_json and out is None
    if ray is not None:
        if out is None or kinds is not None or prompts or generate is not None:
            raise UsageError(
                "--ray shares the table of the target's text, which goes into a file. Add --out FILE.parquet, and "
                "leave --vectors, --prompt and --generate away."
            )
        _on_cluster(target, batch_size, ray, out, quiet=quiet)
        return
    with contextlib.ExitStack() as stack:
        wanted = Wanted(
            prompts=prompts,
            generate=generate,
            temperature=temperature,
            batch_size=batch_size,
            vectors=place,
            kinds=kinds,
            only_vectors=place is not None and place == out,
            only_first=as_text and not prompts,
        )
        loaded, table, checkpoints = follow(_table(target, wanted, stack), quiet=quiet)
        if as_json:
            print_json_list("tokens", rows_of(table), notes=[NUMBERING])
        elif wanted.only_vectors:
            say(f"wrote vectors to {out}")
        elif out is not None:
            write_parquet(table, out)
            say(f"wrote {table.num_rows:,} rows to {out}{f' and their vectors to {place}' if place else ''}")
        else:
            print_first(loaded, table, n_own=max(len(prompts), generate is not None))
        if checkpoints is not None:  # only now: until the table is where it belongs they are all there is
            checkpoints.discard()


def _on_cluster(target: TargetSpec, batch_size: int, ray: str, out: Path, *, quiet: bool) -> None:
    """Let workers make the table, in shards of contexts, and write it in their order."""
    from inspector.cluster.driver import tokens_on_cluster

    check_address(ray)
    spec = RunSpec(target=target, experiments=(TOKENS,), batch_size=batch_size, shards=SHARDS, ray=ray)

    def write(table: pa.Table) -> int:
        write_parquet(table, out)
        return int(table.num_rows)

    n_rows = follow(tokens_on_cluster(spec, write), quiet=quiet)
    say(f"wrote {n_rows:,} rows to {out}")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What of which tokens."""

    prompts: tuple[str, ...]
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
    from inspector.sources.target import hashed

    yield from hashed(loaded)
    checkpoints = stack.enter_context(runner.table_checkpoints(loaded, wanted.batch_size))
    n_tokens = loaded.contexts.token_ids.numel()
    own = bool(wanted.prompts) or wanted.generate is not None
    if own:
        lengths = (len(loaded.model.encode(text)) + (wanted.generate or 0) for text in wanted.prompts or ("",))
        n_tokens = sum(min(loaded.model.n_ctx, length) for length in lengths)
    with vector_file(wanted.vectors, wanted.kinds, loaded, n_tokens, own_text=own) as vectors:
        table = yield from runner.token_table(
            loaded,
            prompts=wanted.prompts,
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
    from inspector.statistics.token_table import fitted_maps, rows_of_contexts

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

    stated = table.replace_schema_metadata({**(table.schema.metadata or {}), "numbering": NUMBERING})
    with whole_file(path) as temporary:
        parquet.write_table(stated, temporary, compression="zstd")


def print_first(loaded: Loaded, table: pa.Table, *, n_own: int) -> None:
    """One SAE's rows of the first context, or of all `n_own` texts of the user's own; and how to get at the rest."""
    ids = [sae.ref.sae_id for sae in loaded.saes]
    shown = ids[len(ids) // 2]
    rows = list(rows_of(table))
    for number in range(max(n_own, 1)):
        title = "prompt and generation" if n_own else loaded.contexts.names[0]
        title += f" {number + 1} of {n_own}" if n_own > 1 else ""
        here = [row for row in rows if row["context"] == number]
        print_text(("\n" if number else "") + token_table_text(here, shown, title), end="")
    more = f"{len(ids)} SAEs; --sae ID shows another one" if len(ids) > 1 else "one SAE"
    whole = f"the first of {len(loaded.contexts.names):,} contexts, {more}" if not n_own else more
    print_text(f"\n{whole}. --json and --out FILE.parquet give every row.")


def vectors_place(out: Path | None, kinds: Sequence[str] | None) -> Path | None:
    """The file of the vectors: --out itself, or beside a table there; None if none were asked for.

    Raises:
        UsageError: there is no --out, or it can hold neither.
    """
    if out is not None and out.suffix not in (".parquet", SUFFIX):
        raise UsageError(
            f"--out {out} ends in neither .parquet (the table) nor {SUFFIX} (--vectors). Rename it, or use --json."
        )
    if kinds is None:
        if out is not None and out.suffix == SUFFIX:
            raise UsageError(f"--out {out} is for vectors, and no --vectors say which. Add --vectors error, or so.")
        return None
    if out is None:
        raise UsageError(f"--vectors go into a file. Add --out FILE.parquet or --out FILE{SUFFIX}.")
    return out if out.suffix == SUFFIX else out.with_suffix(f".vectors{SUFFIX}")


@contextlib.contextmanager
def vector_file(
    path: Path | None, kinds: Sequence[str] | None, loaded: Loaded, n_tokens: int, *, own_text: bool
) -> Iterator[VectorFile | None]:
    """What takes the vectors, after their size was told; the file appears when the block ends well.

    Raises:
        ResourceError: the disk has no room for so many tokens.
    """
    if path is None or kinds is None:
        yield None
        return
    from inspector.statistics.token_table import VectorFile, names_of, require_room, size_of

    chosen: Any = tuple(kinds)
    sae_ids = [sae.ref.sae_id for sae in loaded.saes]
    d = loaded.model.check_hook(loaded.hook_name)
    n_bytes = size_of(chosen, sae_ids, n_tokens, d)
    say(
        f"vectors: {'up to ' if own_text else ''}{n_bytes / 1e6:,.1f} MB, {len(names_of(chosen, sae_ids))} tensors of "
        f"{n_tokens:,} tokens x {d:,}, float32, to {path}"
    )
    require_room(path, n_bytes, path.name)
    with whole_file(path) as temporary:
        about = {**_about(loaded), "scored": "prompt or generation" if own_text else "text"}
        file = VectorFile(temporary, chosen, sae_ids, d, about, name=path.name)
        try:
            yield file
            file.finish()
        finally:
            file.close()


def _about(loaded: Loaded) -> dict[str, Any]:
    """What the file says of itself: enough to know which activations of which text these are."""
    from inspector import __version__

    target = loaded.target
    return {
        "model": loaded.model.name,
        "weights_hash": loaded.model.weights_hash,
        **({"quantised": loaded.model.quantised} if loaded.model.quantised else {}),
        "hook_name": loaded.hook_name,
        "sae_weights": {sae.ref.sae_id: sae.weights_hash for sae in loaded.saes},
        "text": target.text or "",
        **({} if loaded.contexts.field is None else {"text_field": loaded.contexts.field}),
        "tokens_sha256": loaded.contexts.sha256,
        "split": target.split,
        "seed": str(target.seed),
        "positions": list(target.positions or ()),
        "n_train": loaded.plan.n_train,
        "n_test": loaded.plan.n_test,
        # Tokens above the threshold are `excluded` in `split`, whatever the plan says of them.
        "outliers": None
        if loaded.outliers is None
        else {"factor": loaded.outliers.factor, "threshold": loaded.outliers.threshold},
        "numbering": NUMBERING,
        "program_version": __version__,
    }


def token_table_text(rows: Sequence[Row], sae: str, title: str) -> str:
    """The rows of one SAE, a line per token.

    Args:
        rows: of one context, any number of SAEs.
        sae: the SAE to show.
        title: where the text is from.
    """
    lines = tuple(
        tuple("" if row[key] is None else _quoted(row[key]) if key == "token" else row[key] for key in _KEYS)
        for row in rows
        if row["sae"] == sae
    )
    return render_table(Table(title=visible(f"{title} · SAE {sae}"), columns=COLUMNS, rows=lines))


def _quoted(token: str) -> str:
    """With marks around it: otherwise a leading space, which most tokens have, could not be seen."""
    return f"'{token}'"
