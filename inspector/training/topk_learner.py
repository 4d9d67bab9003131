"""One TopK SAE while it learns.

What is learned is sae-lens' TopK SAE: a `TopKTrainingSAE` takes the weights in the end and exports them, and plain
sae-lens loads them. `dm-inspect train` lets sae-lens' own trainer do the steps (see `sae_lens_learner`). Not so here,
for the demo's suite and the SAEs on errors, of which there are many to be trained on one core: sae-lens multiplies
dense [tokens, d_sae] activations, all zeros but k per row, by the decoder and again in the backward pass, six dense
products per SAE and step. Here only the pre-activations are dense; everything after the top k touches k rows per token.
The gradients are the same (a test compares them with autograd's and with sae-lens').

Inputs are scaled to a mean norm of sqrt(d_in); decoder rows have unit norm after every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from inspector.training.learners import LearnerSettings, Reconstructed, seed_of

MAX_SORTED = 32_768
"""Entries sorted at once; torch's CPU sort takes another, much slower road above this."""


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """Of mean |target - a D|^2, a = relu(top k of (inputs E' + b))."""

    encoder: Tensor
    """[d_sae, d_in]"""
    b_enc: Tensor
    """[d_sae]"""
    decoder: Tensor
    """[d_sae, d_in]"""
    of_output: Tensor
    """[tokens, d_in], in `a D`."""
    residual: Tensor
    """[tokens, d_in] `target - a D`."""
    fired: Tensor
    """[tokens, k] latents chosen, -1 where the activation is 0."""


def topk_gradients(
    inputs: Tensor, target: Tensor, encoder: Tensor, b_enc: Tensor, decoder: Tensor, k: int, dtype: torch.dtype
) -> Gradients:
    """Reconstruction and gradients of one batch; see `Gradients` for the formula.

    Args:
        inputs, target: [tokens, d_in].
        encoder, decoder: [d_sae, d_in].
        b_enc: [d_sae].
        k: latents kept per token.
        dtype: in which the largest pre-activations are searched.
    """
    pre = torch.addmm(b_enc.to(dtype), inputs.to(dtype), encoder.to(dtype).t())
    chosen = pre.topk(k, sorted=False)
    indices = chosen.indices
    values = chosen.values if dtype is encoder.dtype else _row_products(encoder, indices, inputs) + b_enc[indices]
    activations = values.relu()
    residual = target - functional.embedding_bag(indices, decoder, per_sample_weights=activations, mode="sum")
    of_output = residual * (-2 / len(inputs))
    of_activations = _row_products(decoder, indices, of_output) * (values > 0)
    of_b_enc = torch.zeros_like(b_enc).index_add_(0, indices.flatten(), of_activations.flatten())
    of_encoder, of_decoder = _scatter_products(indices, len(b_enc), (of_activations, inputs), (activations, of_output))
    return Gradients(
        encoder=of_encoder,
        b_enc=of_b_enc,
        decoder=of_decoder,
        of_output=of_output,
        residual=residual,
        fired=torch.where(values > 0, indices, -1),
    )


def _row_products(weight: Tensor, indices: Tensor, vectors: Tensor) -> Tensor:
    """[tokens, k]: the inner product of each token's vector with each of its chosen rows.

    It is the derivative of an embedding bag in its weights, whose kernel never gathers [tokens, k, d_in].
    """
    with torch.enable_grad():
        weights = torch.zeros(indices.shape, dtype=weight.dtype, device=weight.device, requires_grad=True)
        bags = functional.embedding_bag(indices, weight.detach(), per_sample_weights=weights, mode="sum")
    return torch.autograd.grad(bags, weights, vectors)[0]


def _scatter_products(indices: Tensor, d_sae: int, *factors: tuple[Tensor, Tensor]) -> list[Tensor]:
    """For each (weights [tokens, k], vectors [tokens, d_in]): [d_sae, d_in], what each latent's choices sum to.

    Row i is the sum of weight * vector over the places where latent i was chosen.
    """
    totals: list[Tensor] = []
    rows = max(1, MAX_SORTED // indices.shape[1])
    latents = torch.arange(d_sae, device=indices.device)
    for first in range(0, len(indices), rows):
        here = slice(first, first + rows)
        ordered, order = torch.sort(indices[here].flatten(), stable=True)
        offsets = torch.searchsorted(ordered, latents)
        tokens = order // indices.shape[1]
        for i, (weights, vectors) in enumerate(factors):
            part = functional.embedding_bag(
                tokens, vectors[here], offsets, per_sample_weights=weights[here].flatten()[order], mode="sum"
            )
            if first:
                totals[i] += part
            else:
                totals.append(part)
    return totals


class TopKLearner:
    """Weights, optimiser and firing record of one SAE; `step` by batch, `state` to keep, `write_into` to finish.

    Args:
        name: the SAE's id; with the seed it determines the first weights, whatever else is trained beside it.
        d_sae, k: number of latents, and how many are active per token.
        seed: of the first weights.
        settings: how it learns.
        center: [d_in] the first decoder bias, in scaled units: the activations' mean.
    """

    def __init__(self, name: str, d_sae: int, k: int, *, seed: int, settings: LearnerSettings, center: Tensor) -> None:
        self.k = k
        self.d_in = d_in = len(center)
        self.settings = settings
        generator = torch.Generator().manual_seed(seed_of(seed, name))
        rows = torch.randn(d_sae, d_in, generator=generator).to(center.device)
        rows /= rows.norm(dim=1, keepdim=True)
        self.decoder = rows.clone().requires_grad_()
        self.encoder = rows.clone().requires_grad_()
        self.b_enc = torch.zeros(d_sae, device=center.device, requires_grad=True)
        self.b_dec = center.clone().requires_grad_()
        self.silent_tokens = torch.zeros(d_sae, dtype=torch.int64, device=center.device)
        """[d_sae] tokens since the latent fired."""
        self.optimizer = torch.optim.Adam(self.parameters(), lr=settings.learning_rate, betas=(0.9, 0.999), fused=True)

    def parameters(self) -> list[Tensor]:
        """The encoder [d_sae, d_in], decoder [d_sae, d_in], b_enc [d_sae], b_dec [d_in]."""
        return [self.encoder, self.decoder, self.b_enc, self.b_dec]

    @property
    def n_dead(self) -> int:
        """Latents that did not fire for `dead_after_tokens`."""
        return int((self.silent_tokens > self.settings.dead_after_tokens).sum())

    @torch.no_grad()
    def step(self, x: Tensor, learning_rate: float) -> float:
        """One Adam step on scaled activations [tokens, d_in]; returns the batch's FVU before it.

        Args:
            x: the batch.
            learning_rate: Adam's, for this step.
        """
        dtype = getattr(torch, self.settings.selection_dtype)
        inputs = x - self.b_dec
        main = topk_gradients(inputs, inputs, self.encoder, self.b_enc, self.decoder, self.k, dtype)
        self.encoder.grad, self.decoder.grad, self.b_enc.grad = main.encoder, main.decoder, main.b_enc
        # b_dec is subtracted from the input as well as added to the output.
        self.b_dec.grad = main.of_output.sum(0) - main.b_enc @ self.encoder
        self._add_auxiliary(inputs, main.residual, dtype)
        variance = float((x - x.mean(0)).square().sum())
        if self.settings.clip_norm is not None:
            self._clip(self.settings.clip_norm, len(x) / max(variance, 1e-30))
        decoder_slope = self.decoder.grad
        decoder_slope -= (decoder_slope * self.decoder).sum(1, keepdim=True) * self.decoder
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.decoder /= self.decoder.norm(dim=1, keepdim=True)
        self.silent_tokens += len(x)
        self.silent_tokens[main.fired[main.fired >= 0]] = 0
        return float(main.residual.square().sum()) / max(variance, 1e-30)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Reconstructed:
        """What the SAE makes of scaled activations [tokens, d_in] as it is now."""
        inputs = x - self.b_dec
        chosen = torch.addmm(self.b_enc, inputs, self.encoder.t()).topk(self.k, sorted=False)
        activations = chosen.values.relu()
        bags = functional.embedding_bag(chosen.indices, self.decoder, per_sample_weights=activations, mode="sum")
        fired = torch.zeros(len(self.b_enc), dtype=torch.bool, device=x.device)
        fired[chosen.indices[activations > 0]] = True
        return Reconstructed(x_hat=bags + self.b_dec, l0=(activations > 0).sum(dim=1), fired=fired)

    def _clip(self, largest: float, scale: float) -> None:
        """Multiply all gradients by `scale`, and then so that their common norm is at most `largest`."""
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        norm = scale * float(torch.stack([gradient.norm() for gradient in gradients]).norm())
        factor = scale * min(1.0, largest / (norm + 1e-6))
        for gradient in gradients:
            gradient *= factor

    def _add_auxiliary(self, inputs: Tensor, residual: Tensor, dtype: torch.dtype) -> None:
        """Let the dead latents explain the residual (Gao et al. 2024, appendix A.2), and add that loss's gradients."""
        dead = (self.silent_tokens > self.settings.dead_after_tokens).nonzero()[:, 0]
        if not len(dead) or not self.settings.auxiliary_weight:
            return
        wanted = inputs.shape[1] // 2
        k = min(wanted, len(dead))
        weight = self.settings.auxiliary_weight * min(len(dead) / wanted, 1.0)
        aux = topk_gradients(inputs, residual, self.encoder[dead], self.b_enc[dead], self.decoder[dead], k, dtype)
        for parameter, gradient in ((self.encoder, aux.encoder), (self.decoder, aux.decoder), (self.b_enc, aux.b_enc)):
            assert parameter.grad is not None
            parameter.grad.index_add_(0, dead, gradient, alpha=weight)

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, by name; what `load_state` takes."""
        tensors = {"silent_tokens": self.silent_tokens}
        for name, parameter in zip(("encoder", "decoder", "b_enc", "b_dec"), self.parameters(), strict=True):
            tensors[name] = parameter.detach()
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{name}.{key}"] = torch.as_tensor(value)
        return tensors

    @torch.no_grad()
    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Continue where `state` was taken."""
        self.silent_tokens.copy_(tensors["silent_tokens"])
        for name, parameter in zip(("encoder", "decoder", "b_enc", "b_dec"), self.parameters(), strict=True):
            parameter.copy_(tensors[name])
            self.optimizer.state[parameter] = {
                key: tensors[f"{name}.{key}"].to(parameter.device).clone()
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{name}.{key}" in tensors
            }

    def finished(self, scale: float) -> Any:
        """See `Learner`."""
        from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig

        sae = TopKTrainingSAE(
            TopKTrainingSAEConfig(
                d_in=self.d_in,
                d_sae=len(self.b_enc),
                k=self.k,
                apply_b_dec_to_input=True,
                normalize_activations="none",
                # Rows have unit norm, so rescaling by it would change nothing but cost a pass over the decoder.
                rescale_acts_by_decoder_norm=False,
                decoder_init_norm=None,
            )
        )
        self.write_into(sae, scale)
        return sae

    @torch.no_grad()
    def write_into(self, sae: Any, scale: float) -> None:
        """Put the weights into a sae-lens TopK SAE, undoing the scaling of the inputs.

        E, b_enc, D, b_dec reconstruct scale * x; with both biases divided by `scale` they reconstruct x itself, and
        the activations are smaller by that factor.

        Args:
            sae: a `TopKTrainingSAE` of the same sizes.
            scale: what activations were multiplied by.
        """
        sae.W_enc.data.copy_(self.encoder.t())
        sae.W_dec.data.copy_(self.decoder)
        sae.b_enc.data.copy_(self.b_enc / scale)
        sae.b_dec.data.copy_(self.b_dec / scale)
