"""What LanguageModel promises, against transformers itself and against exact identities."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from inspector.errors import DataError, TargetError, UsageError
from inspector.sources.forward import Outputs, loss_of
from inspector.sources.model import LanguageModel

RESID, MLP, ATTN = "blocks.1.hook_resid_post", "blocks.1.hook_mlp_out", "blocks.1.hook_attn_out"
Z = "blocks.1.attn.hook_z"


def hugging_face(model: LanguageModel, tokens: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Logits and hidden states as transformers gives them, from the same folder but another object."""
    from transformers import AutoModelForCausalLM

    with torch.inference_mode():
        reference = AutoModelForCausalLM.from_pretrained(model.directory, attn_implementation="eager").eval()
        out = reference(tokens, output_hidden_states=True, use_cache=False)
    return out.logits, out.hidden_states


def test_activations_and_logits_equal_those_of_transformers(model: LanguageModel, tokens: Tensor) -> None:
    logits, hidden = hugging_face(model, tokens)
    full = model.forward(tokens, [RESID])
    # 1e-6 of values of size 1 to 10: batches of one against a batch of four. Not the last layer, whose hidden state
    # is after the final norm.
    torch.testing.assert_close(full.activations[RESID], hidden[2], rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(full.logits, logits, rtol=1e-6, atol=2e-6)
    assert not torch.allclose(full.activations[RESID], hidden[1], atol=1e-2)


def test_stopping_at_the_hook_changes_no_bit(model: LanguageModel, tokens: Tensor) -> None:
    full = model.forward(tokens, [RESID, Z, MLP])
    for name in (RESID, Z, MLP):
        assert torch.equal(model.activations(tokens, name), full.activations[name])


def test_residual_stream_is_the_sum_of_what_the_sublayers_write(model: LanguageModel, tokens: Tensor) -> None:
    """On Gemma 2 this holds only for hook_mlp_out and hook_attn_out after the post-norms: what Gemma Scope reads."""
    parts = model.forward(tokens, ["blocks.1.hook_resid_pre", ATTN, MLP, RESID]).activations
    total = parts["blocks.1.hook_resid_pre"] + parts[ATTN] + parts[MLP]
    torch.testing.assert_close(total, parts[RESID], rtol=0, atol=5e-6)  # two float32 additions of values up to 10
    raw = model.activations(tokens, "blocks.1.mlp.hook_out")
    if "gemma" in str(model.directory):
        assert (raw - parts[MLP]).abs().max() > 0.1


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_activations_do_not_depend_on_the_batch_by_a_single_bit(
    model: LanguageModel, tokens: Tensor, batch: int
) -> None:
    parts = [model.activations(part, RESID) for part in tokens.split(batch)]
    assert torch.equal(torch.cat(parts), model.activations(tokens, RESID))


def test_values_are_float32_with_heads_flattened(model: LanguageModel, tokens: Tensor) -> None:
    assert (model.check_hook(RESID), model.check_hook(Z)) == (16, 24)
    x = model.activations(tokens, Z)
    assert (x.shape, x.dtype) == ((4, 24, 24), torch.float32)


def test_mistyped_hooks_raise_with_the_nearest_names_wherever_they_are_given(
    model: LanguageModel, tokens: Tensor
) -> None:
    wrong = "blocks.1.hook_resid_pots"
    says = r"^The model has no hook 'blocks.1.hook_resid_pots'. Nearest: blocks.1.hook_resid_post, .*\.$"
    for call in (
        lambda: model.check_hook(wrong),
        lambda: model.activations(tokens, wrong),
        lambda: model.forward(tokens, [wrong]),
        lambda: model.splice(tokens, wrong, torch.zeros(4, 24, 16)),
        lambda: list(model.generate([1], wrong, max_tokens=1, temperature=0, seed=0)),
    ):
        with pytest.raises(TargetError, match=says):
            call()


@pytest.mark.parametrize(
    ("hook", "says"),
    [
        ("blocks.1.attn.hook_pattern", r"shape \[1, 4, 3, 3\] for 3 tokens, not one vector per token"),
        ("embed.hook_in", r"shape \[1, 3\] for 3 tokens, not one vector per token"),
        ("blocks.1.attn.hook_result", "no value passed it"),
    ],
)
def test_hooks_without_a_vector_per_token_are_refused(toys: dict[str, LanguageModel], hook: str, says: str) -> None:
    with pytest.raises(TargetError, match=says):
        toys["gemma2"].check_hook(hook)


def test_hooks_are_removed_after_errors_and_stops(model: LanguageModel, tokens: Tensor) -> None:
    before = model.forward(tokens).logits
    with pytest.raises(TargetError):
        model.splice(tokens, RESID, torch.zeros(4, 24, 15))
    model.activations(tokens, RESID)
    assert torch.equal(model.forward(tokens).logits, before)


@pytest.mark.parametrize("hook", [RESID, Z, MLP])
def test_splicing_a_hooks_own_value_changes_no_bit_and_another_value_does(
    model: LanguageModel, tokens: Tensor, hook: str
) -> None:
    full = model.forward(tokens, [hook])
    x = full.activations[hook]
    assert torch.equal(model.splice(tokens, hook, x).logits, full.logits)
    changed = x.clone()
    changed[2, 10] += 1
    spliced = model.splice(tokens, hook, changed).logits
    assert torch.equal(spliced[[0, 1, 3]], full.logits[[0, 1, 3]])
    assert torch.equal(spliced[2, :10], full.logits[2, :10])  # the past cannot know
    assert (spliced[2, 10] - full.logits[2, 10]).abs().max() > 1e-3


def test_splicing_the_last_residual_gives_the_logits_of_norm_and_unembedding(
    toys: dict[str, LanguageModel], tokens: Tensor
) -> None:
    from transformers import AutoModelForCausalLM

    model = toys["llama"]
    x = torch.randn(4, 24, 16, generator=torch.Generator().manual_seed(0))
    reference = AutoModelForCausalLM.from_pretrained(model.directory)
    with torch.inference_mode():
        expected = reference.lm_head(reference.model.norm(x))
    found = model.splice(tokens, "blocks.2.hook_resid_post", x).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def loss_per_token(logits: Tensor, tokens: Tensor) -> Tensor:
    made = [Outputs(n=len(each), make=each.__getitem__) for each in logits]
    return torch.stack([loss_of(outputs, row) for outputs, row in zip(made, tokens, strict=True)])


def test_loss_is_the_cross_entropy_of_the_next_token_in_float32(model: LanguageModel, tokens: Tensor) -> None:
    logits = model.forward(tokens).logits
    loss = loss_per_token(logits, tokens)
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].double().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    )
    torch.testing.assert_close(loss[:, :-1].flatten().double(), expected, rtol=1e-6, atol=2e-6)
    assert loss.dtype == torch.float32
    assert loss[:, -1].isnan().all()
    assert not loss[:, :-1].isnan().any()


def test_loss_of_half_precision_logits_is_not_rounded_to_half_precision() -> None:
    logits = torch.randn(2, 600, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    tokens = torch.randint(0, 50, (2, 600), generator=torch.Generator().manual_seed(1))
    loss = loss_per_token(logits, tokens)
    expected = loss_per_token(logits.double(), tokens)
    assert (loss - expected)[:, :-1].abs().max() < 2e-6  # float32; bfloat16 would be off by 0.01
    assert loss[:, -1].isnan().all()


def test_score_gives_the_losses_and_activations_of_forward(model: LanguageModel, tokens: Tensor) -> None:
    full, scored = model.forward(tokens, [RESID]), model.score(tokens, [RESID])
    assert torch.equal(scored.loss[:, :-1], loss_per_token(full.logits, tokens)[:, :-1])
    assert torch.equal(scored.activations[RESID], full.activations[RESID])


def test_text_longer_than_the_model_is_refused_and_not_cut(model: LanguageModel) -> None:
    ids = model.encode("x" * 200)
    assert len(ids) > model.n_ctx == 64
    for call in (model.forward, lambda tokens: model.activations(tokens, RESID)):
        with pytest.raises(DataError, match=r"has \d+ tokens but .* takes 64\. Give it less text\.$"):
            call(torch.tensor([ids]))


def test_token_ids_outside_the_vocabulary_are_refused(model: LanguageModel) -> None:
    with pytest.raises(UsageError, match=r"Token id 300 is outside the vocabulary. Use ids from 0 to 299."):
        model.forward(torch.tensor([[1, 300]]))
    with pytest.raises(DataError, match=r"shape \[1, 0\]"):
        model.forward(torch.zeros(1, 0, dtype=torch.int64))


def test_weights_hash_follows_the_weights_and_not_the_folder(
    toys: dict[str, LanguageModel], toy_dirs: dict[str, Path], tmp_path: Path
) -> None:
    import shutil

    from inspector.sources.model_files import find_model

    copy = shutil.copytree(toy_dirs["llama"], tmp_path / "elsewhere")
    assert find_model(str(copy)).digest() == toys["llama"].weights_hash != toys["gemma2"].weights_hash
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    assert find_model(str(copy)).digest() != toys["llama"].weights_hash
