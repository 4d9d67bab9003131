"""The per-token table: every token, and for every SAE the sizes of its error's parts.

Long form: one row per token and SAE. Rows are made context by context, so what is held in memory is the table itself
and one context's activations.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.engine.decomposition import decompose
from inspector.engine.moments import to_float64
from inspector.engine.regression import LinearMap
from inspector.errors import DataError
from inspector.events import Event, Loading
from inspector.sources.activations import ActivationBatch, origin_of
from inspector.sources.target import Loaded
from inspector.statistics.first_pass import collect_first
from inspector.statistics.passes import Activations, Progress, require_finite
from inspector.statistics.sums import Keeper, RowKeeper

if TYPE_CHECKING:
    import pyarrow as pa

    from inspector.statistics.token_vectors import VectorFile

Maps = Mapping[str, "LinearMap"]
"""x to sae_error, by sae_id."""
TRAIN, TEST, EXCLUDED = "train", "test", "excluded"


def fitted_maps(loaded: Loaded, batch_size: int, *, keeper: Keeper | None = None) -> Generator[Event, None, Maps]:
    """The affine maps of every SAE, from the target's ordinary training tokens; `keeper`: where their sums are kept."""
    activations = Activations(
        loaded=loaded, batch_size=loaded.at_once(batch_size), outliers=loaded.outliers, keeper=keeper
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


def rows_of_prompt(loaded: Loaded, maps: Maps, prompt: str, vectors: VectorFile | None = None) -> pa.Table:
    """The tokens of a typed text, as context 0.

    Raises:
        DataError: the text is empty or longer than the model's context.
    """
    ids = loaded.model.encode(prompt)
    if not prompt or not ids:
        raise DataError("The prompt is empty. Give --prompt some text.")
    token_ids = torch.tensor(ids, dtype=torch.int64)
    scored = loaded.model.score(token_ids[None], [loaded.hook_name])
    x = scored.activations[loaded.hook_name][0]
    if vectors is not None:
        vectors.begin(len(ids), maps)
    return _rows(loaded, maps, 0, token_ids, x, scored.loss[0], [EXCLUDED] * len(ids), vectors)


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

    # A token may hold half a character; the decoder writes a replacement for it, a lone surrogate cannot be stored.
    texts = [text.encode("utf-8", "replace").decode() for text in loaded.model.token_texts(token_ids.tolist())]
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


NORMS = ("sae_error_norm", "linear_error_norm", "nonlinear_error_norm")
