"""What learns, against sae-lens driven by itself and against autograd."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sae_lens import SAE, TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.sae import TrainStepInput
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from inspector.training.learners import Architecture, LearnerSettings
from inspector.training.sae_lens_learner import SaeLensLearner
from inspector.training.topk_learner import TopKLearner, topk_gradients
from tests.training.taught import ARCHITECTURES

D_IN, D_SAE, K, BATCH = 12, 40, 4, 64
RATE = 1e-3


def batches(n: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(D_SAE, D_IN, generator=generator)
    return [
        torch.randn(BATCH, D_SAE, generator=generator).relu()
        * (torch.rand(BATCH, D_SAE, generator=generator) < 0.1)
        @ table
        + 0.2
        for _ in range(n)
    ]


def learner(kind: Architecture, dead_after_tokens: int = 150_000) -> SaeLensLearner:
    return SaeLensLearner(
        "name",
        kind,
        D_SAE,
        K,
        seed=3,
        settings=LearnerSettings(learning_rate=RATE, dead_after_tokens=dead_after_tokens),
        sample=batches(1)[0],
        batch_tokens=BATCH,
        total_steps=30,
    )


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_our_loop_is_sae_lens_own(kind: Architecture) -> None:
    """`SAETrainer.fit` over the same batches at a constant rate gives the same weights, bit for bit."""
    ours, theirs = learner(kind), learner(kind)
    for x in batches(30):
        ours.step(x, RATE)
    config = SAETrainerConfig(
        total_training_samples=30 * BATCH,
        train_batch_size_samples=BATCH,
        lr=RATE,
        lr_end=RATE,
        dead_feature_window=2343,
    )
    if kind == "batchtopk":
        # The one thing that is done differently: the moving average begins with the first batch's value.
        first = theirs.sae.training_forward_pass(
            TrainStepInput(
                sae_in=batches(1)[0], coefficients={}, dead_neuron_mask=None, n_training_steps=0, is_logging_step=False
            )
        ).feature_acts
        theirs.sae.topk_threshold = first[first > 0].min().double()
    SAETrainer(config, theirs.sae, iter(batches(30))).fit()
    for name, value in theirs.sae.state_dict().items():
        torch.testing.assert_close(ours.sae.state_dict()[name], value, rtol=0, atol=1e-12 if "topk" in name else 0)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_state_is_all_there_is(kind: Architecture) -> None:
    """With latents dead on the way, so that the record of firing matters; into a learner that has gone elsewhere."""
    one, other = learner(kind, 2 * BATCH), learner(kind, 2 * BATCH)
    for x in batches(5, seed=9):
        other.step(x, 0.1)
    with torch.no_grad():
        one.sae.b_enc[:5] -= 100.0
    for x in batches(20):
        one.step(x, RATE)
    other.load_state({name: value.clone() for name, value in one.state().items()})
    assert one.n_dead == other.n_dead > 0
    for x in batches(10, seed=1):
        assert one.step(x, RATE) == other.step(x, RATE)
    for name, value in one.state().items():
        assert torch.equal(other.state()[name], value), name


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_what_it_reconstructs_is_what_it_writes(tmp_path: Path, kind: Architecture) -> None:
    scale = 0.3
    taught = learner(kind)
    for x in batches(30):
        taught.step(x, 1e-2)
    x = torch.cat(batches(4, seed=2))
    now = taught.reconstruct(x)
    sae = taught.finished(scale)
    sae.save_inference_model(tmp_path)
    loaded = SAE.load_from_disk(tmp_path, dtype="float32")
    with torch.no_grad():
        latents = loaded.encode(x / scale)
        torch.testing.assert_close(loaded.decode(latents) * scale, now.x_hat, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(loaded.W_dec.norm(dim=1), torch.ones(D_SAE))
    assert torch.equal((latents > 0).sum(1), now.l0)
    assert torch.equal((latents > 0).any(0), now.fired)


def test_lean_gradients_equal_sae_lens_own() -> None:
    """The demo's and the errors' SAEs are taught by our arithmetic: the same loss and gradients, in another order."""
    sae = TopKTrainingSAE(
        TopKTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, k=K, rescale_acts_by_decoder_norm=False, decoder_init_norm=None)
    )
    x = torch.cat(batches(3))
    sae.b_dec.data.copy_(x.mean(0))
    step = TrainStepInput(sae_in=x, coefficients={}, dead_neuron_mask=None, n_training_steps=0, is_logging_step=False)
    sae.training_forward_pass(step).loss.backward()
    with torch.no_grad():
        inputs = x - sae.b_dec
        ours = topk_gradients(inputs, inputs, sae.W_enc.t().contiguous(), sae.b_enc, sae.W_dec, K, torch.float32)
        of_b_dec = ours.of_output.sum(0) - ours.b_enc @ sae.W_enc.t()
    # float32 sums in another order.
    torch.testing.assert_close(ours.encoder.t(), sae.W_enc.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.decoder, sae.W_dec.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.b_enc, sae.b_enc.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(of_b_dec, sae.b_dec.grad, rtol=1e-4, atol=1e-5)


def test_clipping_is_torchs_on_the_loss_in_units_of_fvu() -> None:
    x = torch.cat(batches(2))
    variance = float((x - x.mean(0)).square().sum())
    plain, clipped = (
        TopKLearner(
            "a", D_SAE, K, seed=0, center=x.mean(0), settings=LearnerSettings(auxiliary_weight=0.0, clip_norm=norm)
        )
        for norm in (None, 0.05)
    )
    for each in (plain, clipped):
        each.step(x, 0.0)
    wanted = [torch.zeros_like(parameter, requires_grad=True) for parameter in plain.parameters()]
    reference = TopKLearner("a", D_SAE, K, seed=0, center=x.mean(0), settings=LearnerSettings(auxiliary_weight=0.0))
    inputs = x - reference.b_dec.detach()
    own = topk_gradients(
        inputs, inputs, reference.encoder.detach(), reference.b_enc.detach(), reference.decoder.detach(), K,
        torch.float32,
    )  # fmt: skip
    of_b_dec = own.of_output.sum(0) - own.b_enc @ reference.encoder.detach()
    for parameter, gradient in zip(wanted, (own.encoder, own.decoder, own.b_enc, of_b_dec), strict=True):
        parameter.grad = gradient * len(x) / variance  # mean squared error per token to FVU
    before = torch.nn.utils.clip_grad_norm_(wanted, 0.05)
    assert float(before) > 0.05, "or the test clips nothing"
    found = clipped.parameters()
    torch.testing.assert_close(found[0].grad, wanted[0].grad, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found[3].grad, wanted[3].grad, rtol=1e-4, atol=1e-7)


def test_lean_reconstruction_is_the_written_one(tmp_path: Path) -> None:
    lean = TopKLearner("a", D_SAE, K, seed=0, settings=LearnerSettings(), center=batches(1)[0].mean(0))
    for x in batches(20):
        lean.step(x, 1e-2)
    x = torch.cat(batches(2, seed=5))
    now = lean.reconstruct(x)
    lean.finished(2.0).save_inference_model(tmp_path)
    loaded = SAE.load_from_disk(tmp_path, dtype="float32")
    with torch.no_grad():
        latents = loaded.encode(x / 2.0)
        torch.testing.assert_close(loaded.decode(latents) * 2.0, now.x_hat, rtol=1e-4, atol=1e-4)
    assert torch.equal((latents > 0).sum(1), now.l0)
    assert torch.equal((latents > 0).any(0), now.fired)
