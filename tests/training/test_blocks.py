"""What SAEs learn from is without tokens that outweigh all others."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from inspector.training.blocks import LEFT_OUT, ActivationBlocks, Ids, OutlierMarks

IDS = np.arange(40 * 8, dtype=np.int64).reshape(40, 8)
HEAVY = {3, 77, 201, 311}
SPECIAL = tuple(int(i) for i in IDS[:, 0])


def source(ids: Tensor) -> dict[str, Tensor]:
    """Gaussian by token id; the heavy ones 50 times as long at one hook, special ones at both."""
    rows = torch.stack([torch.randn(6, generator=torch.Generator().manual_seed(int(i))) for i in ids.flatten()])
    special = torch.from_numpy(np.isin(ids.numpy(), SPECIAL)).flatten()[:, None]
    heavy = torch.tensor([int(i) in HEAVY for i in ids.flatten()])[:, None]
    b = rows * torch.where(special, 90.0, 1.0)
    return {"a": (b * torch.where(heavy, 50.0, 1.0)).view(*ids.shape, 6), "b": b.view(*ids.shape, 6)}


def blocks(marked: bool) -> ActivationBlocks:
    made = OutlierMarks(source, 4.0, IDS[:10], SPECIAL) if marked else source
    return ActivationBlocks(made, IDS, block_contexts=20, model_batch=4, special_ids=SPECIAL, seed=0)


def test_outliers_at_any_hook_are_left_out_at_all_of_them_and_counted() -> None:
    with_marks, without = blocks(True), blocks(False)
    seen = [{hook: x for hook, x in with_marks(i).items()} for i in range(2)]
    all_b = torch.cat([without(i)["b"] for i in range(2)])
    rows = torch.cat([block["b"] for block in seen])
    assert LEFT_OUT not in seen[0] and len(all_b) - len(rows) == len(HEAVY)
    assert with_marks.n_left_out() == (len(HEAVY), len(all_b)) and without.n_left_out() == (0, len(all_b))
    heavy = source(torch.tensor(sorted(HEAVY))[None])["b"][0]
    assert not (rows[:, None] == heavy[None]).all(dim=2).any()  # at the hook where they are ordinary, too
    assert (all_b[:, None] == heavy[None]).all(dim=2).any(dim=0).all()
    assert float(torch.cat([block["a"] for block in seen]).norm(dim=1).max()) < 10
    again = blocks(True)  # a block is a pure function of its number, also when it is the first one asked for
    assert torch.equal(again(1)["a"], seen[1]["a"])


def test_the_median_is_that_of_ordinary_tokens() -> None:
    marks = OutlierMarks(source, 4.0, IDS[:10], SPECIAL)
    ordinary = source(torch.from_numpy(IDS[:10, 1:]))["b"].flatten(0, 1).norm(dim=1)
    assert marks.rules["b"].median_norm == float(ordinary.median())
    assert not OutlierMarks(lambda ids: {"a": torch.zeros(*ids.shape, 2)}, 4.0, IDS[:2], ()).rules


def test_a_small_first_block_only_cuts_the_same_order_elsewhere() -> None:
    def contexts(first: int | None) -> list[Ids]:
        blocks = ActivationBlocks(
            source, IDS, block_contexts=20, model_batch=4, special_ids=SPECIAL, seed=0, first_contexts=first
        )
        return [blocks._rows(number) for number in range(4)]

    whole, small = contexts(None), contexts(6)
    assert [len(rows) for rows in small] == [6, 20, 20, 20]
    assert np.array_equal(np.concatenate(small)[:60], np.concatenate(whole)[:60])


def test_a_block_tells_how_much_of_it_there_is() -> None:
    blocks = ActivationBlocks(source, IDS, block_contexts=10, model_batch=4, special_ids=SPECIAL, seed=0)
    assert list(blocks.pieces(0)) == [(4, 10), (8, 10), (10, 10)]
