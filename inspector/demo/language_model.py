"""The demo's language model: a Gemma 2 of two million parameters, and the loop that trains it on a CPU.

Gemma 2 and not something simpler, because the demo should exercise what the large models exercise: norms after the
sublayers, soft caps, grouped-query attention, tied embeddings. The loop is seeded and resumable: weights, optimiser
moments and progress are kept in one safetensors file, and batches depend on the step alone.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional
from transformers import Gemma2Config, Gemma2ForCausalLM

from inspector.demo.corpus import BOS_ID, CONTEXT_LENGTH, EOS_ID, PAD_ID, VOCAB_SIZE, Windows
from inspector.disk.files import write_whole

ROWS = 512
SOFT_CAP = 30.0
"""Gemma 2's `final_logit_softcapping`."""


def _rows(hidden: Tensor, weight: Tensor, targets: Tensor, n_tokens: float) -> tuple[Tensor, Tensor, Tensor]:
    """Summed loss of some rows, and the gradients of the mean loss in `hidden` and `weight`."""
    squashed = torch.tanh((hidden @ weight.t()).float() / SOFT_CAP)
    logits = SOFT_CAP * squashed
    normaliser = torch.logsumexp(logits, -1)
    picked = logits.gather(1, targets[:, None])[:, 0]
    is_target = torch.arange(weight.shape[0])[None] == targets[:, None]
    # d loss / d raw = (softmax - one_hot) * d cap / d raw, and d cap / d raw = 1 - tanh^2.
    slope = (torch.exp(logits - normaliser[:, None]) - is_target.float()) * (1 - squashed * squashed) / n_tokens
    slope = slope.to(hidden.dtype)
    return (normaliser - picked).sum(), slope @ weight, slope.t() @ hidden


_compiled_rows = torch.compile(_rows, dynamic=False)


class SoftCappedLoss(torch.autograd.Function):
    """Mean cross entropy in nats per token of `cap(hidden @ weight.T)`; products in bfloat16 or as `dtype` says.

    No step holds all logits: eight thousand tokens times 4096 logits in float32, and their gradients, pass the memory
    bus a dozen times in the plain formulation, which on a CPU costs more than the model. 512 rows at a time become loss
    and gradients while they are in cache.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, fast: bool) -> Tensor:
        """`hidden` [tokens, d_model], `weight` [vocab, d_model], `targets` [tokens]; `fast` compiles the inner part."""
        rows = _compiled_rows if fast else _rows
        n_tokens = hidden.shape[0]
        low_hidden, low_weight = hidden.to(dtype), weight.to(dtype)
        hidden_slope = torch.empty_like(hidden, dtype=torch.float32)
        weight_slope = torch.zeros_like(weight)
        total = torch.zeros(())
        for first in range(0, n_tokens, ROWS):
            here = slice(first, first + ROWS)
            loss, of_hidden, of_weight = rows(low_hidden[here], low_weight, targets[here], float(n_tokens))
            total = total + loss
            hidden_slope[here] = of_hidden
            weight_slope += of_weight
        ctx.save_for_backward(hidden_slope, weight_slope)
        return total / n_tokens

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Scale the gradients made on the way forward."""
        hidden_slope, weight_slope = ctx.saved_tensors
        return hidden_slope * slope, weight_slope * slope, None, None, None


DECAY_SHARE = 0.4
"""The learning rate falls linearly to 0 over this many steps per step trained before (0.4: the last 29% of the run)."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to train."""

    tokens: int
    """Budget, decay included."""
    minutes: float
    """Wall-clock budget over all resumptions; the decay begins early enough to end about then."""
    batch_size: int = 32
    """Windows per step."""
    learning_rate: float = 3e-3
    warmup_steps: int = 200
    seed: int = 0
    checkpoint_minutes: float = 3.0
    compiled: bool = True
    """Whether torch may compile model and loss: half a minute at the start, twice the speed after it."""


@dataclass(kw_only=True)
class Progress:
    """Where a run stands; written beside the weights at every checkpoint."""

    step: int = 0
    seconds: float = 0.0
    decay_from: int | None = None
    """Step at which the decay began; `None` before."""
    train_loss: float = math.nan
    """Nats per token, mean over the last steps."""
    held_out_loss: float = math.nan
    """Nats per token on held-out windows."""


ARCHITECTURE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "max_position_embeddings": CONTEXT_LENGTH,
    # Windows never exceed the context, so a sliding window of the same length changes nothing; full attention in every
    # layer says so and saves building a second mask.
    "sliding_window": CONTEXT_LENGTH,
    "layer_types": ["full_attention"] * 6,
    "pad_token_id": PAD_ID,
    "bos_token_id": BOS_ID,
    "eos_token_id": EOS_ID,
    "tie_word_embeddings": True,
    "initializer_range": 0.02,
    "attn_implementation": "eager",
}


def new_model(seed: int, **changed: Any) -> Gemma2ForCausalLM:
    """The untrained model: 6 layers, d_model 128, 4 heads over 2 key-value heads, 2.0 M parameters.

    Args:
        seed: of the weights.
        changed: entries of `Gemma2Config` to set otherwise, for a smaller one in tests.
    """
    torch.manual_seed(seed)
    config = Gemma2Config(**{**ARCHITECTURE, **changed})
    model = Gemma2ForCausalLM(config)
    with torch.no_grad():
        # Gemma multiplies embeddings by sqrt(d_model): with 1/sqrt(d_model) the residual stream begins at unit size.
        model.model.embed_tokens.weight.normal_(std=config.hidden_size**-0.5)
    return model


def learning_rate(step: int, schedule: Schedule, decay_from: int | None) -> float:
    """Warm-up, constant, then linear to 0 over `DECAY_SHARE * decay_from` steps."""
    rate = schedule.learning_rate * min(1.0, (step + 1) / schedule.warmup_steps)
    if decay_from is not None:
        rate *= max(0.0, 1 - (step - decay_from) / max(1.0, DECAY_SHARE * decay_from))
    return rate


def train(
    model: Gemma2ForCausalLM,
    windows: Windows,
    held_out: npt.NDArray[np.int64],
    schedule: Schedule,
    folder: Path,
    log_every: int = 50,
) -> Iterator[Progress]:
    """Train `model` in place, yielding progress; killed at any time, the same call continues at the last checkpoint.

    Matrix products run in bfloat16, weights and moments stay float32.

    Args:
        held_out: [windows, length] token ids for the logged loss.
        folder: where the checkpoint lives.
    """
    decayed: list[torch.nn.Parameter] = []
    plain: list[torch.nn.Parameter] = []
    for parameter in model.parameters():
        (decayed if parameter.ndim == 2 else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-10, fused=True)
    progress = load_checkpoint(model, folder, optimizer)
    body = torch.compile(model.model, dynamic=False) if schedule.compiled else model.model
    tokens_per_step = schedule.batch_size * windows.length
    planned_decay = int(schedule.tokens / tokens_per_step / (1 + DECAY_SHARE))
    clock = saved = time.monotonic()
    losses: list[float] = []
    model.train()
    while True:
        if progress.decay_from is None and (
            progress.step >= planned_decay or progress.seconds * (1 + DECAY_SHARE) >= schedule.minutes * 60
        ):
            progress.decay_from = progress.step
        finished = progress.decay_from is not None and progress.step >= progress.decay_from * (1 + DECAY_SHARE)
        now = time.monotonic()
        progress.seconds += now - clock
        clock = now
        if finished or progress.step % log_every == 0:
            progress.train_loss = float(np.mean(losses)) if losses else progress.train_loss
            losses.clear()
            if finished or progress.step % (20 * log_every) == 0:
                progress.held_out_loss = loss_on(model, held_out)
            yield progress
        if finished or now - saved > schedule.checkpoint_minutes * 60:
            save_checkpoint(model, optimizer, progress, folder)
            saved = now
        if finished:
            return
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress.step, schedule, progress.decay_from)
        ids = torch.from_numpy(windows.batch(progress.step, schedule.batch_size))
        with torch.autocast("cpu", torch.bfloat16):
            hidden = body(input_ids=ids[:, :-1]).last_hidden_state
        loss = SoftCappedLoss.apply(
            hidden.flatten(0, 1), model.lm_head.weight, ids[:, 1:].flatten(), torch.bfloat16, schedule.compiled
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        progress.step += 1


@torch.no_grad()
def loss_on(model: Gemma2ForCausalLM, windows: npt.NDArray[np.int64], batch_size: int = 16) -> float:
    """Mean next-token loss in nats per token, in float32. `windows`: [windows, length] ids with `<bos>` first."""
    model.eval()
    total = 0.0
    for first in range(0, len(windows), batch_size):
        ids = torch.from_numpy(windows[first : first + batch_size])
        logits = model(input_ids=ids).logits
        total += functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="sum").item()
    model.train()
    return total / (windows.shape[0] * (windows.shape[1] - 1))


def save_checkpoint(
    model: Gemma2ForCausalLM, optimizer: torch.optim.Optimizer, progress: Progress, folder: Path
) -> None:
    """Write weights, moments and progress in one atomic file, so that a kill in between cannot mix two steps."""
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"weight/{name}"] = parameter.detach().contiguous()
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}/{name}"] = torch.as_tensor(value).contiguous()
    write_whole(folder / "checkpoint.safetensors", save(tensors, metadata={"progress": json.dumps(asdict(progress))}))


def load_checkpoint(model: Gemma2ForCausalLM, folder: Path, optimizer: torch.optim.Optimizer | None = None) -> Progress:
    """Restore what `save_checkpoint` wrote, without an optimizer the weights alone; else a new `Progress`."""
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return Progress()
    with safe_open(path, framework="pt") as file:
        progress = Progress(**json.loads(file.metadata()["progress"]))
    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"weight/{name}"])
            if optimizer is not None:
                known = {key: f"{key}/{name}" for key in ("step", "exp_avg", "exp_avg_sq")}
                optimizer.state[parameter] = {key: tensors[full] for key, full in known.items() if full in tensors}
    return progress


def export(model: Gemma2ForCausalLM, folder: Path) -> None:
    """Write the model in the Hugging Face layout: weights in float16, to be computed with in float32.

    Gemma overflows in float16 arithmetic, so the configuration asks loaders for float32.
    """
    copy.deepcopy(model).half().eval().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n")
    (folder / "model.safetensors").chmod(0o644)
