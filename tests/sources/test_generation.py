"""Tokens sampled one at a time carry the same numbers as the whole text run at once."""

import pytest
import torch

from inspector.errors import DataError, UsageError
from inspector.sources.forward import loss_of
from inspector.sources.model import LanguageModel, Step

RESID, Z = "blocks.1.hook_resid_post", "blocks.1.attn.hook_z"


def generate(model: LanguageModel, hook: str = RESID, prompt: str = "a token", **options: float) -> list[Step]:
    settings = {"max_tokens": 10, "temperature": 1.0, "seed": 3} | options
    return list(model.generate(model.encode(prompt), hook, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("hook", [RESID, Z])
def test_generated_tokens_equal_a_full_run(model: LanguageModel, hook: str) -> None:
    """The Gemma toy's sliding window is 32 and the text 64 long, so the cache's window is crossed as well."""
    steps = generate(model, hook, max_tokens=1000, seed=1)
    ids = torch.tensor([[token for step in steps for token in step.token_ids]])
    assert ids.shape[1] == model.n_ctx
    full = model.forward(ids, [hook])
    x = torch.cat([step.x for step in steps])
    # 1e-4 is the promise (3e-6 was measured): another order of float32 sums, through three layers.
    torch.testing.assert_close(x, full.activations[hook][0], rtol=1e-4, atol=1e-4)
    loss = loss_of(full.outputs[0], ids[0])
    n_prompt = len(steps[0].token_ids)
    torch.testing.assert_close(steps[0].loss[:-1], loss[: n_prompt - 1], rtol=1e-4, atol=1e-4)
    told_later = torch.tensor([step.loss_before for step in steps[1:]])
    torch.testing.assert_close(told_later, loss[n_prompt - 1 : -1], rtol=1e-4, atol=1e-4)


def test_every_token_has_its_activation_the_last_included(model: LanguageModel) -> None:
    steps = generate(model, max_tokens=5)
    assert [len(step.token_ids) for step in steps] == [len(model.encode("a token")), 1, 1, 1, 1, 1]
    assert all(step.x.shape == (len(step.token_ids), 16) for step in steps)
    assert steps[0].loss_before is None
    assert all(step.loss_before is not None and step.loss_before > 0 for step in steps[1:])
    assert all(step.loss[-1].isnan() for step in steps)


def test_the_prompt_alone_is_one_step(model: LanguageModel) -> None:
    assert [step.token_ids for step in generate(model, max_tokens=0)] == [model.encode("a token")]


def test_same_seed_same_text_and_temperature_zero_is_the_likeliest_token(model: LanguageModel) -> None:
    texts = [[step.token_ids for step in generate(model, seed=seed)] for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]
    for temperature in (0, 1e-9):  # a tiny one is the same in the limit, and must not become NaN
        steps = generate(model, temperature=temperature)
        ids = torch.tensor([[token for step in steps for token in step.token_ids]])
        likeliest = model.forward(ids).logits[0].argmax(dim=-1)
        n_prompt = len(steps[0].token_ids)
        assert ids[0, n_prompt:].tolist() == likeliest[n_prompt - 1 : -1].tolist()


def test_a_full_context_ends_cleanly(model: LanguageModel) -> None:
    prompt = "x" * (model.n_ctx - 2)  # with BOS one token is left
    steps = generate(model, prompt=prompt, max_tokens=100)
    assert sum(len(step.token_ids) for step in steps) == model.n_ctx
    assert len(steps) == 2
    assert len(generate(model, prompt="x" * (model.n_ctx - 1))) == 1


def test_an_end_token_ends_the_text_and_has_its_activation(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = generate(model)[3].token_ids[0]
    monkeypatch.setattr(model, "end_ids", frozenset({third}))
    steps = generate(model)
    assert steps[-1].token_ids == [third]
    assert len(steps) <= 4
    assert steps[-1].x.shape == (1, 16)


def test_impossible_prompts_are_refused_before_the_first_step(model: LanguageModel) -> None:
    with pytest.raises(DataError, match=r"has 101 tokens but .* takes 64"):
        model.generate(model.encode("x" * 100), RESID, max_tokens=1, temperature=1, seed=0)
    with pytest.raises(DataError, match="holds no token"):
        model.generate([], RESID, max_tokens=1, temperature=1, seed=0)
    with pytest.raises(UsageError, match="Temperature -1 is not"):
        model.generate([1], RESID, max_tokens=1, temperature=-1, seed=0)
