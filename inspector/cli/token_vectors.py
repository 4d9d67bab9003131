"""`dm-inspect tokens --vectors`: where the vectors go, what they will take, and what the file says about them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.cli.narration import say
from inspector.cli.output import whole_file
from inspector.errors import UsageError

if TYPE_CHECKING:
    from inspector.sources.target import Loaded
    from inspector.store.vector_file import VectorFile

SUFFIX = ".safetensors"
KINDS = ("x", "error", "linear", "nonlinear")
"""As `statistics.vector_rows.KINDS`, which brings torch."""


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
    from inspector.store.vector_file import VectorFile, names_of, require_room, size_of

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
        "program_version": __version__,
    }
