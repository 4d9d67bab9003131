"""A stream of batches is the whole, in order, whatever the batch size."""

import pytest
import torch

from inspector.errors import UsageError
from inspector.sources.activations import stream
from inspector.sources.contexts import contexts_from
from inspector.sources.model import LanguageModel

RESID = "blocks.1.hook_resid_post"


def test_batches_put_together_are_the_same_to_the_bit_for_every_batch_size(
    model: LanguageModel, tokens: torch.Tensor
) -> None:
    contexts = contexts_from(tokens.tolist(), ["a", "b", "c", "d"])
    indices = [3, 0, 2]
    for batch_size in (1, 2, 3, 8):
        batches = list(stream(model, contexts, RESID, indices, batch_size))
        assert len(batches) == -(-3 // batch_size)
        whole = {
            name: torch.cat([getattr(batch, name) for batch in batches])
            for name in ("contexts", "positions", "token_ids", "x")
        }
        assert torch.equal(whole["x"], model.activations(tokens[indices], RESID).flatten(0, 1))
        assert whole["contexts"].tolist() == [3] * 24 + [0] * 24 + [2] * 24
        assert whole["positions"].tolist() == list(range(24)) * 3
        assert torch.equal(whole["token_ids"], tokens[indices].flatten())


def test_no_contexts_give_no_batches_and_no_batch_is_an_error(model: LanguageModel, tokens: torch.Tensor) -> None:
    contexts = contexts_from(tokens.tolist(), ["a", "b", "c", "d"])
    assert list(stream(model, contexts, RESID, [], 8)) == []
    with pytest.raises(UsageError, match="A batch of 0 contexts"):
        list(stream(model, contexts, RESID, [0], 0))
