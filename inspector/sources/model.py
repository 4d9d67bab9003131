"""The language model: activations, logits, splices and live generation. How a pass is run, `forward.py` knows.

Weights are used as published: no folding, no centring, no compatibility mode, because Gemma Scope and Llama Scope were
trained on the plain Hugging Face numbers. Values leave in float32 with heads flattened, whatever the model computes in.

Every forward pass runs **one context at a time**. Matrix products round differently for different numbers of rows, so
a batch of eight may give other last bits than eight of one; with one shape per context length an activation depends on
its context alone, and a caller's batch size changes speed and memory but no number. `activations.py` has measurements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inspector.errors import DataError, TargetError, UsageError
from inspector.sources import hooks
from inspector.sources.forward import N_TOKENS, Bridged, Native, Outputs, Way, agree, loss_of
from inspector.sources.model_files import FilesState, ModelFiles, require_same
from inspector.sources.precision import raised
from inspector.sources.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class ForwardPass:
    """What one forward pass gave."""

    outputs: tuple[Outputs, ...]
    """What each context predicts."""
    activations: dict[str, Tensor]
    """[c, t, d] float32 by hook name, heads flattened."""

    @property
    def logits(self) -> Tensor:
        """[c, t, v] float32, all of them at once: c x t x v x 4 bytes."""
        return torch.stack([outputs.all() for outputs in self.outputs])


@dataclass(frozen=True, kw_only=True)
class ScoredPass:
    """A forward pass of which only the losses were kept."""

    loss: Tensor
    """[c, t] float32, nats for the next token; NaN at the last position."""
    activations: dict[str, Tensor]
    """[c, t, d] float32 by hook name, heads flattened."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """The tokens fed in one step of generation; the first step is the whole prompt."""

    token_ids: list[int]
    """n tokens."""
    x: Tensor
    """[n, d] float32, their activations."""
    loss_before: float | None
    """Nats of this step's first token as seen from the position before; None for the prompt."""
    loss: Tensor
    """[n] float32, nats of the NEXT token; NaN at the last, whose next token is not known yet."""


class LanguageModel:
    """A loaded model. Made by `load_model`; not safe to use from two threads at once.

    Args:
        bridge: a TransformerBridge in evaluation mode.
        tokenizer: of the same model.
        files: where both came from.
        warnings: what was odd about loading it.
        native: the same model without the bridge, which runs wherever it sees the same; None: the bridge runs always.
    """

    def __init__(
        self,
        bridge: Any,
        tokenizer: Tokenizer,
        files: ModelFiles,
        warnings: tuple[str, ...] = (),
        native: Native | None = None,
    ) -> None:
        self._bridge = bridge
        self._bridged = Bridged(bridge)
        self._points = self._bridged.points
        self._native = native
        if native is not None:
            native.know(bridge)
        self._agreed: dict[str | None, bool] = {}
        self._widths: dict[str, int] = {}
        self._files = files
        self.files: FilesState = ()
        """That it was loaded from, as they were then; set by `load_model`."""
        self.tokenizer = tokenizer
        self.warnings = warnings
        self.name = files.name
        self.quantised = "" if files.origin is None else files.origin.label
        """How the weights were stored before they were made numbers again: Q4_1 and the like; empty: as numbers."""
        self.directory: Path = files.directory
        self.d_model = int(bridge.cfg.d_model)
        self.n_layers = int(bridge.cfg.n_layers)
        self.n_ctx = int(bridge.cfg.n_ctx)
        self.vocab_size = int(bridge.original_model.get_input_embeddings().weight.shape[0])
        self.device = torch.device(bridge.cfg.device)
        self.has_layer_norm = str(bridge.cfg.normalization_type or "").startswith("LN")
        """Whether norms take the mean over dimensions off, so that a stream without it gives the same logits."""
        self.dtype: torch.dtype = next(bridge.original_model.parameters()).dtype
        self.n_bytes = sum(each.nbytes for each in bridge.original_model.parameters())
        """Of its weights, on its device."""
        self.bos_id = tokenizer.bos_id
        self.special_ids = tokenizer.special_ids
        generation = getattr(bridge.original_model, "generation_config", None)
        ends = getattr(generation, "eos_token_id", None)
        ends = ends if isinstance(ends, list) else [ends]
        self.end_ids = frozenset(int(i) for i in (*ends, tokenizer.eos_id) if i is not None)
        """Tokens after which generation ends."""

    @property
    def published_name(self) -> str | None:
        """The Hugging Face id, as far as it is known: as asked for, or as the configuration records it."""
        if not self.directory.exists() or not Path(self.name).expanduser().exists():
            return self.name
        recorded = self._files.config.get("_name_or_path")
        return recorded if isinstance(recorded, str) and recorded else None

    @cached_property
    def weights_hash(self) -> str:
        """sha256 of configuration and weights; computed at first use, because it reads every byte.

        Raises:
            TargetError: the files are not those any more that were loaded.
        """
        found = self._files.digest()
        require_same(self.files)
        return found

    # ---- text -----------------------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Token ids, BOS exactly once at the front if the model has one. Never cut: running them checks `n_ctx`."""
        return self.tokenizer.encode(text)

    def token_text(self, token_id: int) -> str:
        """The text of one token alone; may hold any character."""
        return self.tokenizer.token_text(token_id)

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """The text of each token alone."""
        return self.tokenizer.token_texts(ids)

    def spelled(self, ids: Sequence[int]) -> list[str]:
        """The text of each token where it stands, characters whole; see `Tokenizer.spelled`."""
        return self.tokenizer.spelled(ids)

    # ---- numbers --------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def check_hook(self, hook_name: str) -> int:
        """Width of the hook's value with heads flattened.

        Raises:
            TargetError: for an unknown name (with the nearest), a hook that never fires, or one that does not carry
                one vector per token.
        """
        if hook_name not in self._widths:
            shapes = []
            for length in (2, 3):  # two lengths, to tell the token axis from an axis that happens to be as long
                tokens = torch.zeros(1, length, dtype=torch.int64, device=self.device)
                with hooks.capture(self._points, [hook_name], stop=True) as taken:
                    self._bridged.run(tokens)
                value = taken[hook_name]
                shapes.append(list(value.shape))
            per_token = (
                len(shapes[0]) >= 3
                and [shape[1] for shape in shapes] == [2, 3]
                and shapes[0][2:] == shapes[1][2:]
                and value.is_floating_point()
            )
            if not per_token:
                raise TargetError(
                    f"Hook {hook_name!r} gives a value of shape {shapes[1]} for 3 tokens, not one vector per token. "
                    "Choose a hook such as hook_resid_post, hook_mlp_out or attn.hook_z."
                )
            self._widths[hook_name] = value[0, 0].numel()
        return self._widths[hook_name]

    @torch.inference_mode()
    def activations(self, tokens: Tensor, hook_name: str) -> Tensor:
        """The hook's values, [c, t] int64 -> [c, t, d] float32. The pass ends once the hook has fired."""
        return self.values(tokens, [hook_name])[hook_name]

    @torch.inference_mode()
    def in_float32(self, tokens: Tensor, hook_name: str) -> Tensor:
        """As `activations`, every product and sum in float32, of weights that are rounded to the model's dtype."""
        with raised(self._way([hook_name]).parts()):
            return self.activations(tokens, hook_name)

    @property
    def hook_names(self) -> frozenset[str]:
        """Every hook there is."""
        return frozenset(self._points)

    @torch.inference_mode()
    def values(self, tokens: Tensor, hook_names: Sequence[str]) -> dict[str, Tensor]:
        """Several hooks' values, [c, t] int64 -> [c, t, d] float32 each. The pass ends once all have fired."""
        return self._values(tokens, hook_names, self._way(hook_names))

    def _values(self, tokens: Tensor, hook_names: Sequence[str], way: Way) -> dict[str, Tensor]:
        names = list(dict.fromkeys(hook_names))
        found: dict[str, list[Tensor]] = {name: [] for name in names}
        for row in self.check_tokens(tokens).split(1):
            with hooks.capture(way.points, names, stop=True) as taken:
                way.run(row)
            for name in names:
                found[name].append(_flat(taken[name]))
        return {name: torch.cat(parts) for name, parts in found.items()}

    @torch.inference_mode()
    def forward(self, tokens: Tensor, hook_names: Sequence[str] = ()) -> ForwardPass:
        """What is predicted, and the hooks' values."""
        passes = list(self._passes(self.check_tokens(tokens), hook_names))
        return ForwardPass(
            outputs=tuple(outputs for outputs, _ in passes),
            activations={name: torch.cat([taken[name] for _, taken in passes]) for name in hook_names},
        )

    @torch.inference_mode()
    def score(self, tokens: Tensor, hook_names: Sequence[str] = ()) -> ScoredPass:
        """Losses and the hooks' values; never holds the logits of more than `forward.ROWS` positions."""
        tokens = self.check_tokens(tokens)
        losses, values = [], []
        for row, (outputs, taken) in zip(tokens, self._passes(tokens, hook_names), strict=True):
            losses.append(loss_of(outputs, row))
            values.append(taken)
        return ScoredPass(
            loss=torch.stack(losses),
            activations={name: torch.cat([taken[name] for taken in values]) for name in hook_names},
        )

    @torch.inference_mode()
    def splice(self, tokens: Tensor, hook_name: str, replacement: Tensor) -> ForwardPass:
        """What is predicted with the hook's value replaced.

        Args:
            tokens: [c, t] int64.
            hook_name: checked; an unknown one raises instead of splicing nothing.
            replacement: [c, t, d], heads flattened.
        """
        tokens = self.check_tokens(tokens)
        if replacement.shape[:2] != tokens.shape:
            raise TargetError(
                f"The replacement has shape {list(replacement.shape)} but the tokens {list(tokens.shape)}. "
                "Give one vector per token."
            )
        way, made = self._way([hook_name]), []
        for i, row in enumerate(tokens.split(1)):
            with hooks.replace(way.points, hook_name, replacement[i : i + 1].to(self.device)):
                made.append(way.run(row))
        return ForwardPass(outputs=tuple(made), activations={})

    @torch.inference_mode()
    def direct_logits(self, directions: Tensor) -> Tensor:
        """What directions of the residual stream write to the logits by themselves, past all later blocks.

        The final norm is applied to each as if the stream held nothing else: its weight counts and the direction's
        length does not, so the numbers compare tokens with each other and not directions. Half the difference to the
        opposite direction is taken, in which what the norm and the unembedding add on their own cancels; a soft cap of
        the logits is not applied.

        Args:
            directions: [n, d_model], not zero.

        Returns:
            [n, v] float32.

        Raises:
            TargetError: the model has no final norm and unembedding that are known.
        """
        norm, unembed = (getattr(self._bridge, name, None) for name in ("ln_final", "unembed"))
        if norm is None or unembed is None:
            raise TargetError(
                f"{self.name} has no final norm and unembedding that are known here. Look at its splices."
            )
        # So long that the norm's epsilon, which is added to the mean square, is nothing beside it.
        long = 1e3 * self.d_model**0.5 * torch.nn.functional.normalize(directions.float(), dim=1)
        both = torch.cat([long, -long]).to(self.device, self.dtype)
        logits = unembed(norm(both[None]))[0].float()
        return (logits[: len(long)] - logits[len(long) :]) / 2

    def generate(
        self, tokens: Sequence[int], hook_name: str, *, max_tokens: int, temperature: float, seed: int
    ) -> Iterator[Step]:
        """Sample up to `max_tokens` after the prompt, one token at a time, each with its own activation.

        transformer-lens' own loop never feeds the last sampled token, which then has no activation. Here it is fed in
        one more step, so that every token on the screen can be scored. Ends early, without error, at an end-of-text
        token or when the model's context is full. Close the iterator to stop.

        Args:
            tokens: the prompt, at least one token.
            hook_name: whose values `Step.x` holds.
            max_tokens: to sample; 0 gives the prompt's step alone.
            temperature: 0 takes the likeliest token; above 0, logits are divided by it.
            seed: same seed, same text, on the same device.

        Raises:
            DataError: when the prompt is empty or longer than the model's context.
            UsageError: for a negative or infinite temperature.
        """
        if not tokens:
            raise DataError(
                "The prompt holds no token and the model has no beginning-of-sequence token. Type some text."
            )
        if not 0 <= temperature < float("inf"):
            raise UsageError(
                f"Temperature {temperature} is not 0 or more. Use 0 for the likeliest token, 1 for the model's odds."
            )
        fed = torch.tensor([list(tokens)], dtype=torch.int64)
        self.check_tokens(fed)
        return self._steps(fed, hook_name, max_tokens, temperature, seed)

    def _steps(self, fed: Tensor, hook_name: str, max_tokens: int, temperature: float, seed: int) -> Iterator[Step]:
        generator = torch.Generator().manual_seed(seed)
        length, n_sampled = fed.shape[1], 0
        loss_before: float | None = None
        cache = None
        while True:
            outputs, x, cache = self.step(fed, hook_name, cache)
            token_ids = fed[0].tolist()
            yield Step(token_ids=token_ids, x=x, loss_before=loss_before, loss=loss_of(outputs, fed[0]))
            ended = n_sampled > 0 and token_ids[-1] in self.end_ids
            if ended or n_sampled >= max_tokens or length >= self.n_ctx:
                return
            last = outputs.at(outputs.n - 1).cpu()
            token = _sample(last, temperature, generator)
            loss_before = float(last.logsumexp(dim=-1) - last[token])
            fed = torch.tensor([[token]], dtype=torch.int64)
            length += 1
            n_sampled += 1

    @torch.inference_mode()
    def step(self, tokens: Tensor, hook_name: str, cache: Any) -> tuple[Outputs, Tensor, Any]:
        """Feed the next tokens of one sequence, with a key-value cache.

        Args:
            tokens: [1, n] int64, those the cache does not hold yet.
            hook_name: the hook to read.
            cache: what the step before returned; `None` at the start.

        Returns:
            What is predicted after each, the hook's values [n, d] float32, and the cache.
        """
        way = self._way([hook_name])
        with hooks.capture(way.points, [hook_name]) as taken:
            outputs, cache = way.step(tokens.to(self.device, non_blocking=True), cache)
        if cache is None:
            raise TargetError(
                f"{self.name} keeps no key-value cache, so it cannot generate here. Give a text with --prompt."
            )
        return outputs, _flat(taken[hook_name])[0], cache

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _way(self, hook_names: Sequence[str]) -> Way:
        """How a pass is run that reads or replaces these hooks: the one place where it is decided."""
        if self._native is not None and all(self._agrees(name) for name in (None, *hook_names)):
            return self._native
        return self._bridged

    def _agrees(self, hook_name: str | None) -> bool:
        """Whether both ways were found to be the same there; asked of them when a hook is used for the first time."""
        if hook_name not in self._agreed:
            assert self._native is not None
            shape = (1, min(N_TOKENS, self.n_ctx))
            tokens = torch.randint(0, self.vocab_size, shape, generator=torch.Generator().manual_seed(0))
            self._agreed[hook_name] = agree(self._native, self._bridged, hook_name, tokens.to(self.device), self.dtype)
        return self._agreed[hook_name]

    @torch.inference_mode()
    def bridged(self, tokens: Tensor) -> Tensor:
        """Logits [t, v] float32 as the bridge computes them, of [1, t]."""
        return self._bridged.run(self.check_tokens(tokens)).all()

    def _passes(self, tokens: Tensor, hook_names: Sequence[str]) -> Iterator[tuple[Outputs, dict[str, Tensor]]]:
        """What each context predicts, and flat activations, of checked tokens."""
        way = self._way(hook_names)
        for row in tokens.split(1):
            with hooks.capture(way.points, hook_names) as taken:
                outputs = way.run(row)
            yield outputs, {name: _flat(value) for name, value in taken.items()}

    def check_tokens(self, tokens: Tensor) -> Tensor:
        """Tokens on the model's device, or an error where the model would compute nonsense or crash."""
        if tokens.ndim != 2 or tokens.numel() == 0:
            raise DataError(f"Tokens have shape {list(tokens.shape)}. Give at least one context of at least one token.")
        if tokens.shape[1] > self.n_ctx:
            raise DataError(
                f"The text has {tokens.shape[1]:,} tokens but {self.name} takes {self.n_ctx:,}. Give it less text."
            )
        low, high = (int(end) for end in tokens.aminmax())  # of the host's, as all but a generation's are
        if self.vocab_size <= high < len(self.tokenizer):
            row, position = (int(i) for i in (tokens == high).nonzero()[0])
            where = "the text" if len(tokens) == 1 else f"text {row + 1:,} of {len(tokens):,}"
            raise self.without_row(high, f"position {position} of {where}")
        if low < 0 or high >= self.vocab_size:
            wrong = low if low < 0 else high
            raise UsageError(f"Token id {wrong} is outside the vocabulary. Use ids from 0 to {self.vocab_size - 1}.")
        return tokens.to(self.device, non_blocking=True)

    def without_row(self, token_id: int, where: str) -> DataError:
        """That a text has a token which the tokenizer knows and the model's embedding does not."""
        return DataError(
            f"Token {self.token_text(token_id)!r} (id {token_id}) at {where} has no row in the model's embedding, "
            f"which has {self.vocab_size:,}. Leave it out of the text."
        )


def _sample(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    """One token id from logits [v]."""
    if temperature == 0:
        return int(logits.argmax())
    # In float64 and relative to the largest: a tiny temperature then ends in the likeliest token and not in NaN.
    scaled = (logits.double() - logits.max()) / temperature
    return int(torch.multinomial(scaled.softmax(dim=-1), 1, generator=generator))


def _flat(value: Tensor) -> Tensor:
    """[c, t, ...] -> [c, t, d] float32."""
    return value.flatten(2).float()
