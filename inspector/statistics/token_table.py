"""The per-token table: every token, and for every SAE the sizes of its error's parts.

Long form: one row per token and SAE. Rows are made context by context, so what is held in memory is the table itself
and one context's activations.

Behind the table are vectors: x, the SAE error and its two parts. They are `d` times its size and go to a safetensors
file, so no more than one context's is ever held. The header of the format says where each tensor begins, so it is
written first, and every row goes to its place.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from inspector.disk.tensors import header_of
from inspector.engine.decomposition import Decomposition, decompose
from inspector.engine.moments import to_float64
from inspector.engine.regression import LinearMap
from inspector.errors import DataError, InspectorError, ResourceError
from inspector.events import Event, Loading
from inspector.sources.activations import ActivationBatch, origin_of
from inspector.sources.target import Loaded
from inspector.statistics.first_pass import collect_first
from inspector.statistics.passes import Activations, Progress, require_finite
from inspector.statistics.sums import Keeper, RowKeeper, Together
from inspector.training.error_saes import map_hash

if TYPE_CHECKING:
    import pyarrow as pa

Maps = Mapping[str, LinearMap]
"""x to sae_error, by sae_id."""
TRAIN, TEST, EXCLUDED = "train", "test", "excluded"
NORMS = ("sae_error_norm", "linear_error_norm", "nonlinear_error_norm")


def fitted_maps(
    loaded: Loaded, batch_size: int, *, keeper: Keeper | None = None, shards: int = 1
) -> Generator[Event, None, Maps]:
    """The affine maps of every SAE, from the target's ordinary training tokens; `keeper`: where their sums are kept."""
    activations = Activations(
        loaded=loaded, batch_size=loaded.at_once(batch_size), outliers=loaded.outliers, keeper=keeper, shards=shards
    )
    first = yield from collect_first(activations, loaded.plan)
    return {sae_id: maps.error_map for sae_id, maps in first.ordinary.fit().items()}


def rows_of_contexts(
    loaded: Loaded,
    maps: Maps,
    batch_size: int,
    *,
    keeper: RowKeeper | None = None,
    vectors: VectorFile | None = None,
    keep_rows: bool = True,
) -> Generator[Event, None, pa.Table]:
    """All positions of all contexts of the target.

    Args:
        loaded: the target.
        maps: of every SAE.
        batch_size: contexts per batch.
        keeper: where rows are kept on the way; None: nowhere.
        vectors: takes the vectors too. They are not kept on the way, so neither are the rows.
        keep_rows: False returns those of the first batch only, where nothing but vectors is wanted.
    """
    import pyarrow as pa

    if vectors is not None:
        keeper = None
        vectors.begin(loaded.contexts.token_ids.numel(), maps)
    token_ids = loaded.contexts.token_ids
    progress = Progress("scores", len(token_ids), token_ids.shape[1])
    tables, done = ([], 0) if keeper is None else keeper.rows()
    if done:
        progress.restart(done)
        what = f"rows of an interrupted run, of {done:,} of {len(token_ids):,} contexts"
        yield Loading(what=what, seconds=0.0)
    n_kept = len(tables)
    batch_size = loaded.at_once(batch_size)
    for first in range(done, len(token_ids), batch_size):
        group = token_ids[first : first + batch_size]
        rows = list(_rows_of(loaded, maps, first, group, vectors))
        tables += rows if keep_rows or not tables else []
        if keeper is not None and keeper.due():
            keeper.store_rows(tables[n_kept:], first + len(group))
            n_kept = len(tables)
        yield progress.advance(len(group))
    return pa.concat_tables(tables)


ROWS = "rows"
"""Step of the processes that share a table."""


def rows_together(
    loaded: Loaded, maps: Maps, batch_size: int, others: Together, n_parts: int
) -> Generator[Event, None, None]:
    """The same rows by processes that share them: each hands in the rows of some contexts, for `joined_rows`."""
    token_ids = loaded.contexts.token_ids
    n, at_once = len(token_ids), loaded.at_once(batch_size)
    starts = [n * part // n_parts for part in range(n_parts + 1)]
    progress = Progress("scores", n, token_ids.shape[1])
    while (part := others.claim(ROWS, n_parts)) is not None:
        tables: list[pa.Table] = []
        try:
            for first in range(starts[part], starts[part + 1], at_once):
                group = token_ids[first : min(first + at_once, starts[part + 1])]
                tables += _rows_of(loaded, maps, first, group, None)
                yield progress.advance(len(group))
        except InspectorError:
            if not others.give_up(ROWS, part):
                raise
            continue
        others.hand_in(ROWS, part, {ROWS: _as_tensor(tables)}, {})


def _as_tensor(tables: Sequence[pa.Table]) -> Tensor:
    """[bytes] uint8 of the format that Arrow's processes exchange; empty for no table."""
    from pyarrow import BufferOutputStream, ipc

    if not tables:
        return torch.empty(0, dtype=torch.uint8)
    sink = BufferOutputStream()
    with ipc.new_stream(sink, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    return torch.frombuffer(bytearray(sink.getvalue()), dtype=torch.uint8)


def joined_rows(parts: Iterable[Mapping[str, Tensor]]) -> pa.Table:
    """The whole table of what `rows_together` handed in, in that order."""
    import pyarrow as pa

    tables = []
    for each in parts:
        if len(each[ROWS]):
            with pa.ipc.open_stream(pa.py_buffer(each[ROWS].numpy())) as reader:
                tables.append(reader.read_all())
    return pa.concat_tables(tables)


def _rows_of(loaded: Loaded, maps: Maps, first: int, group: Tensor, vectors: VectorFile | None) -> Iterator[pa.Table]:
    """Rows of each context of a batch, the first of which has this index."""
    plan = loaded.plan
    scored = loaded.model.score(group, [loaded.hook_name])
    for i, x in enumerate(scored.activations[loaded.hook_name]):
        context = first + i
        included = plan.included[context]
        if loaded.outliers is not None:
            included = included & ~loaded.outliers.among(x)
        splits = [
            EXCLUDED if not kept else TRAIN if train else TEST
            for train, kept in zip(plan.train[context].tolist(), included.tolist(), strict=True)
        ]
        yield _rows(loaded, maps, context, group[i], x, scored.loss[i], splits, vectors)


def rows_of_prompts(loaded: Loaded, maps: Maps, prompts: Sequence[str], vectors: VectorFile | None = None) -> pa.Table:
    """The tokens of typed texts, as contexts 0, 1, ... in their order.

    Raises:
        DataError: a text is empty or longer than the model's context.
    """
    import pyarrow as pa

    texts = [loaded.model.encode(prompt) for prompt in prompts]
    if not all(prompts) or not all(texts):
        raise DataError("The prompt is empty. Give --prompt some text.")
    if vectors is not None:
        vectors.begin(sum(map(len, texts)), maps)
    tables = []
    for context, ids in enumerate(texts):
        token_ids = torch.tensor(ids, dtype=torch.int64)
        scored = loaded.model.score(token_ids[None], [loaded.hook_name])
        x = scored.activations[loaded.hook_name][0]
        tables.append(_rows(loaded, maps, context, token_ids, x, scored.loss[0], [EXCLUDED] * len(ids), vectors))
    return pa.concat_tables(tables)


def rows_of_generation(
    loaded: Loaded,
    maps: Maps,
    prompt: str,
    n_tokens: int,
    temperature: float,
    seed: int,
    vectors: VectorFile | None = None,
) -> pa.Table:
    """A prompt and what the model samples after it, as context 0, from the activations of the sampling itself.

    Raises:
        DataError: there is nothing to begin with: no prompt, and the model has no beginning-of-sequence token.
    """
    model = loaded.model
    start = model.encode(prompt) if prompt else [] if model.bos_id is None else [model.bos_id]
    ids: list[int] = []
    x: list[Tensor] = []
    losses: list[float] = []
    for step in model.generate(start, loaded.hook_name, max_tokens=n_tokens, temperature=temperature, seed=seed):
        if losses and step.loss_before is not None:
            losses[-1] = step.loss_before
        ids += step.token_ids
        x.append(step.x)
        losses += step.loss.tolist()
    token_ids = torch.tensor(ids, dtype=torch.int64)
    if vectors is not None:
        vectors.begin(len(ids), maps)
    return _rows(loaded, maps, 0, token_ids, torch.cat(x), torch.tensor(losses), [EXCLUDED] * len(ids), vectors)


@torch.inference_mode()
def _rows(
    loaded: Loaded,
    maps: Maps,
    context: int,
    token_ids: Tensor,
    x: Tensor,
    loss: Tensor,
    splits: Sequence[str],
    vectors: VectorFile | None = None,
) -> pa.Table:
    """Rows of one context: x [t, d], loss [t], one split per position."""
    import pyarrow as pa

    n, saes = len(token_ids), [(sae.ref.sae_id, sae) for sae in loaded.saes]
    positions = torch.arange(n)
    batch = ActivationBatch(
        contexts=torch.full((n,), context, dtype=torch.int64),
        positions=positions,
        token_ids=token_ids.cpu(),
        x=x,
        origin=origin_of(loaded.model, loaded.hook_name),
    )
    require_finite(x, batch, "activation")
    if vectors is not None:
        vectors.tokens(batch, torch.tensor([(EXCLUDED, TRAIN, TEST).index(split) for split in splits]))
    per_sae: dict[str, list[Tensor]] = {"l0": [], **{name: [] for name in NORMS}}
    for sae_id, sae in saes:
        made = sae.reconstruct(x)
        require_finite(made.x_hat, batch, f"reconstruction of SAE '{sae_id}'")
        parts = decompose(x, made.x_hat, maps[sae_id])
        if vectors is not None:
            vectors.take(sae_id, parts)
        per_sae["l0"].append(made.l0.cpu())
        for name in NORMS:
            per_sae[name].append(getattr(parts, name).float().cpu())
    repeated = positions.repeat_interleave(len(saes)).numpy()

    def each(values: pa.Array) -> pa.Array:
        """Values of the tokens, once per SAE."""
        return values.take(pa.array(repeated))

    # Bytes that are no character are a replacement; a lone surrogate cannot be stored.
    texts = [text.encode("utf-8", "replace").decode() for text in loaded.model.spelled(token_ids.tolist())]
    columns = {
        "context": each(pa.array(batch.contexts.numpy())),
        "position": each(pa.array(positions.numpy())),
        "token_id": each(pa.array(batch.token_ids.numpy())),
        "token": each(pa.array(texts, pa.string())),
        "split": each(pa.array(splits, pa.string())),
        "loss": each(pa.array(loss.float().cpu().numpy(), from_pandas=True)),
        "x_norm": each(pa.array(to_float64(x).norm(dim=1).float().cpu().numpy())),
        "sae": pa.array([sae_id for sae_id, _ in saes] * n, pa.string()),
    }
    for name, values in per_sae.items():
        columns[name] = pa.array(torch.stack(values, dim=1).flatten().numpy())
    return pa.table(columns)


# ---- the vectors behind it -------------------------------------------------------------------------------------------

VectorKind = Literal["x", "error", "linear", "nonlinear"]
KINDS: tuple[VectorKind, ...] = get_args(VectorKind)
"""x; x - x_hat; what the map predicts of it; what is left. x = x_hat + linear + nonlinear."""
_PARTS: dict[VectorKind, str] = {
    "x": "x", "error": "sae_error", "linear": "linear_error", "nonlinear": "nonlinear_error"
}  # fmt: skip
"""What a kind is called in a `Decomposition`."""
FORMAT = "dm-inspect error vectors 1"
INDEX = ("context", "position", "token_id")
"""[tokens] int64 each, as in the per-token table."""
SPLITS = ("excluded", "train", "test")
"""Of the tensor `split` [tokens] uint8."""
DEFINITION = (
    "error = x - x_hat; linear = W x + b, the affine map of x to error that was fitted on the tokens whose split is 1; "
    "nonlinear = error - linear. Row i of every tensor is the same token."
)
_SPARE = 64 << 20
"""Bytes that must be left on the disk."""


def names_of(kinds: Sequence[VectorKind], sae_ids: Sequence[str]) -> list[str]:
    """Names of the tensors [tokens, d]: 'x', and 'error/SAE' and so on for each SAE."""
    names = ["x"] if "x" in kinds else []
    return names + [f"{kind}/{sae_id}" for sae_id in sae_ids for kind in kinds if kind != "x"]


def size_of(kinds: Sequence[VectorKind], sae_ids: Sequence[str], n_tokens: int, d: int) -> int:
    """Bytes of the file, but for its header."""
    return n_tokens * (4 * d * len(names_of(kinds, sae_ids)) + 8 * len(INDEX) + 1)


def require_room(path: Path, n_bytes: int, name: str) -> None:
    """Before anything is computed for it.

    Raises:
        ResourceError: the disk has less room than a file of so many bytes takes.
    """
    free = shutil.disk_usage(path.parent).free
    if n_bytes + _SPARE > free:
        raise ResourceError(
            f"{name} would take {n_bytes / 1e6:,.0f} MB of the {free / 1e6:,.0f} MB left on its disk, where "
            f"{_SPARE / 1e6:.0f} MB are to stay free. Take fewer SAEs, --contexts or --vectors, or another disk."
        )


class VectorFile:
    """A file under way. It takes the vectors in the order of the table, in which each token has a row per SAE.

    Args:
        path: where it is written; the caller moves it to its place when it is whole.
        kinds: of vectors.
        sae_ids: in the order of the table.
        d: width of x.
        about: what its metadata say beside what this class knows.
        name: of the file, for errors.
    """

    def __init__(
        self,
        path: Path,
        kinds: Sequence[VectorKind],
        sae_ids: Sequence[str],
        d: int,
        about: Mapping[str, Any],
        *,
        name: str,
    ) -> None:
        self._name = name
        self._path, self._kinds, self._sae_ids, self._d, self._about = path, kinds, sae_ids, d, about
        self._file: IO[bytes] | None = None
        self._places: dict[str, int] = {}
        self._first = self._n_here = 0
        self._n_tokens = 0

    def begin(self, n_tokens: int, maps: Mapping[str, LinearMap]) -> None:
        """Write the header: so many tokens will come, and these maps are applied to them."""
        require_room(self._path, size_of(self._kinds, self._sae_ids, n_tokens, self._d), self._name)
        self._n_tokens = n_tokens
        types: dict[str, tuple[str, list[int]]] = {name: ("I64", [n_tokens]) for name in INDEX}
        types |= {name: ("F32", [n_tokens, self._d]) for name in names_of(self._kinds, self._sae_ids)}
        types["split"] = ("U8", [n_tokens])
        header, self._places, n_bytes = header_of(types, self._metadata(maps))
        with self._told():
            self._file = self._path.open("wb")
            self._file.write(header)
            self._file.truncate(n_bytes)

    def tokens(self, batch: ActivationBatch, splits: Tensor) -> None:
        """The next tokens, with 0 for excluded, 1 for train, 2 for test; their SAEs follow."""
        self._first += self._n_here
        self._n_here = len(splits)
        for name, values in zip(INDEX, (batch.contexts, batch.positions, batch.token_ids), strict=True):
            self._rows(name, values.to(torch.int64))
        self._rows("split", splits.to(torch.uint8))

    def take(self, sae_id: str, parts: Decomposition) -> None:
        """One SAE's vectors of these tokens."""
        for kind in self._kinds:
            if kind != "x" or sae_id == self._sae_ids[0]:
                name = kind if kind == "x" else f"{kind}/{sae_id}"
                self._rows(name, getattr(parts, _PARTS[kind]).to(torch.float32))

    def close(self) -> None:
        """No more will come."""
        file, self._file = self._file, None
        if file is not None:
            with self._told():
                file.close()

    def finish(self) -> int:
        """Close the file, which is whole; returns its number of bytes."""
        assert self._first + self._n_here == self._n_tokens, "every token that was announced has come"
        self.close()
        return self._path.stat().st_size

    def _rows(self, name: str, values: Tensor) -> None:
        assert self._file is not None, "begin comes first"
        raw = values.detach().cpu().contiguous().numpy()
        assert len(raw) == self._n_here
        with self._told():
            self._file.seek(self._places[name] + self._first * (raw.nbytes // max(1, len(raw))))
            self._file.write(raw.data)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """An error of the disk as one sentence, with the name of the file."""
        try:
            yield
        except OSError as error:
            raise ResourceError(
                f"{self._name} could not be written: {error.strerror}. Make room there, or choose another place."
            ) from error

    def _metadata(self, maps: Mapping[str, LinearMap]) -> dict[str, str]:
        fitted = {
            sae_id: {
                "sha256": map_hash(found),
                "n_train": found.n_train,
                "intercept": found.intercept,
                "effective_rank": found.effective_rank,
            }
            for sae_id, found in maps.items()
        }
        about = {
            "format": FORMAT, "definition": DEFINITION, "splits": SPLITS, "saes": list(self._sae_ids), "maps": fitted,
            **self._about,
        }  # fmt: skip
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
