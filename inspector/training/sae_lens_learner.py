"""One TopK, BatchTopK or JumpReLU SAE while sae-lens' own trainer teaches it, driven a step at a time.

`SAETrainer.step` does the forward and backward pass, the clipping and Adam's step; this file chooses the learning rate,
and keeps the state in tensors where sae-lens pickles it. Its learning-rate scheduler is overruled before every step:
the rate here is a function of the tokens done, so there is nothing of it to keep.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inspector.training.learners import Architecture, LearnerSettings, Reconstructed, seed_of

JUMPRELU_BANDWIDTH = 1.0
"""Of the kernel by which a threshold feels its neighbourhood. Inputs have a mean square of 1
per dimension and encoder rows unit norm, so pre-activations are of the order of 1: narrower, and most tokens move no
threshold."""
L0_COEFFICIENT = 3.0
"""Of JumpReLU's penalty 2 / target (l0 - target)^2 beside a squared error of about FVU x d_in. On
the demo's activations, 512 latents and 250 steps, 1 to 10 end within 15% of a target of 16; more costs FVU."""
FIRST_L0 = 3
"""Times the target is where JumpReLU begins: pre-activations concentrate on few latents in the first
steps, and thresholds that begin at the target let through half of it for long."""
THRESHOLD_STEPS = 100
"""BatchTopK's threshold is a moving average over so many steps, sae-lens' own number; of a short
training a twentieth."""
SAMPLE_TOKENS = 1024
"""From which JumpReLU's first threshold is taken."""


class SaeLensLearner:
    """See the module, and `Learner` for the methods.

    Args:
        name: the SAE's id; with the seed it determines the first weights, whatever else is trained beside it.
        architecture: how latents are chosen.
        d_sae, l0: number of latents, and how many should be active per token: exactly for TopK, on average for
            BatchTopK, as the target of a penalty for JumpReLU.
        seed: of the first weights.
        settings: how it learns.
        sample: [n, d_in] scaled activations; their mean is the first decoder bias.
        batch_tokens: of every step.
        total_steps: about how many there will be.
    """

    def __init__(
        self,
        name: str,
        architecture: Architecture,
        d_sae: int,
        l0: int,
        *,
        seed: int,
        settings: LearnerSettings,
        sample: Tensor,
        batch_tokens: int,
        total_steps: int,
    ) -> None:
        from sae_lens.config import SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer

        device = sample.device
        self.d_in = sample.shape[1]
        self._settings, self._architecture = settings, architecture
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(seed, name))
            sae = _new_sae(architecture, self.d_in, d_sae, l0, settings).to(device)
        sae.cfg.device = str(device)
        sae.b_dec.data.copy_(sample.mean(0))
        if architecture == "batchtopk":
            sae.cfg.topk_threshold_lr = 1 / max(1, min(THRESHOLD_STEPS, total_steps // 20))
        if architecture == "jumprelu":
            with torch.no_grad():
                x = sample[:SAMPLE_TOKENS]
                pre = (sae.process_sae_in(x) @ sae.W_enc + sae.b_enc).flatten()
                sae.threshold.data.fill_(max(0.0, float(pre.topk(min(FIRST_L0 * l0, d_sae) * len(x)).values[-1])))
        self.sae: Any = sae
        self._trainer: Any = SAETrainer(
            SAETrainerConfig(
                # The schedule that follows from these is overruled; they only have to be consistent.
                total_training_samples=batch_tokens,
                train_batch_size_samples=batch_tokens,
                lr=settings.learning_rate,
                lr_end=settings.learning_rate,
                device=str(device),
                dead_feature_window=max(1, settings.dead_after_tokens // batch_tokens),
            ),
            sae,
            iter(()),  # steps are given their batches
        )

    @property
    def n_dead(self) -> int:
        """See `Learner`."""
        return int(self._trainer.dead_neurons.sum())

    def step(self, x: Tensor, learning_rate: float) -> float:
        """See `Learner`."""
        trainer = self._trainer
        for group in trainer.optimizer.param_groups:
            group["lr"] = learning_rate
        output = trainer.step(x)
        trainer.n_training_steps += 1
        if self._architecture == "batchtopk" and trainer.n_training_steps == 1:
            # A moving average that begins at 0 is far too low after a short training; begin with the first batch's.
            self.sae.topk_threshold /= self.sae.cfg.topk_threshold_lr
        with torch.no_grad():
            variance = (x - x.mean(0)).square().sum()
            return float((x - output.sae_out).square().sum() / variance.clamp_min(1e-30))

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Reconstructed:
        """See `Learner`."""
        sae = self.sae
        if self._architecture == "batchtopk":
            pre = sae.process_sae_in(x) @ sae.W_enc + sae.b_enc
            pre = pre * sae.W_dec.norm(dim=-1)
            latents = torch.where(pre > sae.topk_threshold.to(pre.dtype), pre, 0.0).relu()
        else:
            latents = sae.encode(x)
        active = latents > 0
        return Reconstructed(x_hat=sae.decode(latents), l0=active.sum(dim=1), fired=active.any(dim=0))

    def state(self) -> dict[str, Tensor]:
        """See `Learner`."""
        trainer = self._trainer
        tensors = {f"sae.{name}": tensor.detach() for name, tensor in self.sae.state_dict().items()}
        for name, parameter in self.sae.named_parameters():
            for key, value in trainer.optimizer.state[parameter].items():
                tensors[f"adam.{name}.{key}"] = torch.as_tensor(value)
        tensors["trainer.act_freq_scores"] = trainer.act_freq_scores
        tensors["trainer.n_forward_passes_since_fired"] = trainer.n_forward_passes_since_fired
        counts = [trainer.n_training_steps, trainer.n_training_samples, trainer.n_frac_active_samples]
        tensors["trainer.counts"] = torch.tensor(counts, dtype=torch.int64)
        return tensors

    @torch.no_grad()
    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """See `Learner`."""
        trainer, device = self._trainer, self.sae.b_dec.device
        self.sae.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("sae.")})
        for name, parameter in self.sae.named_parameters():
            known = {key: f"adam.{name}.{key}" for key in ("step", "exp_avg", "exp_avg_sq")}
            trainer.optimizer.state[parameter] = {
                # Adam keeps the number of steps on the CPU, whatever the device.
                key: tensors[full].clone() if key == "step" else tensors[full].to(device).clone()
                for key, full in known.items()
                if full in tensors
            }
        trainer.act_freq_scores = tensors["trainer.act_freq_scores"].to(device).clone()
        trainer.n_forward_passes_since_fired = tensors["trainer.n_forward_passes_since_fired"].to(device).clone()
        counts = [int(count) for count in tensors["trainer.counts"]]
        trainer.n_training_steps, trainer.n_training_samples, trainer.n_frac_active_samples = counts
        for scheduler in trainer.coefficient_schedulers.values():
            scheduler.load_state_dict({"current_step": trainer.n_training_steps})

    def finished(self, scale: float) -> Any:
        """See `Learner`."""
        self.sae.fold_activation_norm_scaling_factor(scale)
        # With unit rows nothing is to be rescaled any more, and readers may decode the active latents only.
        self.sae.fold_W_dec_norm()
        if self._architecture != "jumprelu":
            self.sae.cfg.rescale_acts_by_decoder_norm = False
        return self.sae


def _new_sae(architecture: Architecture, d_in: int, d_sae: int, l0: int, settings: LearnerSettings) -> Any:
    import sae_lens

    if architecture != "jumprelu":
        name = "TopKTrainingSAE" if architecture == "topk" else "BatchTopKTrainingSAE"
        config = getattr(sae_lens, f"{name}Config")(
            d_in=d_in, d_sae=d_sae, k=l0, aux_loss_coefficient=settings.auxiliary_weight, decoder_init_norm=1.0
        )
        return getattr(sae_lens, name)(config)
    return sae_lens.JumpReLUTrainingSAE(
        sae_lens.JumpReLUTrainingSAEConfig(
            d_in=d_in,
            d_sae=d_sae,
            decoder_init_norm=1.0,
            jumprelu_bandwidth=JUMPRELU_BANDWIDTH,
            jumprelu_sparsity_loss_mode="quadratic",
            target_l0=float(l0),
            l0_coefficient=L0_COEFFICIENT,
        )
    )
