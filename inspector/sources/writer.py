"""A causal language model from disk that only has to write: no hooks, no bridge.

Safetensors alone, and never code that comes with a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from inspector.errors import TargetError
from inspector.sources import explained, quiet_libraries
from inspector.sources.dequantising import provided
from inspector.sources.loading import pick_device
from inspector.sources.tokenizer import load_tokenizer

if TYPE_CHECKING:
    pass


Turns = Sequence[dict[str, str]]
"""Messages with `role` (system, user) and `content`."""


class Writer:
    """Continues a conversation with its likeliest tokens. Made by `load_writer`.

    Args:
        model: of transformers, in evaluation mode.
        tokenizer: of the same folder.
        digest: hash of configuration and weights.
        name: as the user gave it.
    """

    def __init__(self, model: Any, tokenizer: Any, digest: str, name: str) -> None:
        self._model, self._tokenizer, self.digest, self.name = model, tokenizer, digest, name
        self.n_ctx = int(getattr(model.config, "max_position_embeddings", 0) or 0)
        """Longest text in tokens; 0: not known."""

    @torch.inference_mode()
    def write(self, turns: Turns, max_tokens: int) -> str:
        """The answer to a conversation; the same each time.

        Raises:
            TargetError: the conversation is longer than the model takes.
        """
        from transformers import GenerationConfig

        ids = self._ids(turns)
        if self.n_ctx and len(ids) + max_tokens > self.n_ctx:
            raise TargetError(
                f"A question has {len(ids):,} tokens and its answer up to {max_tokens:,}, but {self.name} takes "
                f"{self.n_ctx:,}. Show fewer or shorter excerpts, or take another judge."
            )
        tokens = torch.tensor([ids], dtype=torch.int64, device=self._model.device)
        ends = self._model.generation_config.eos_token_id
        # A configuration of its own: the folder's may ask for sampling.
        settings = GenerationConfig(
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=self._tokenizer.eos_token_id if ends is None else ends,
            pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id or 0,
        )
        made = self._model.generate(tokens, attention_mask=torch.ones_like(tokens), generation_config=settings)
        return str(self._tokenizer.decode(made[0, len(ids) :].tolist(), skip_special_tokens=True))

    def _ids(self, turns: Turns) -> list[int]:
        """The conversation as the model was taught to read one; as plain text if it was not."""
        if getattr(self._tokenizer, "chat_template", None):
            try:
                return self._templated(turns)
            except Exception:  # templates raise their own; the usual refusal is of a system message
                joined = "\n\n".join(turn["content"] for turn in turns)
                return self._templated([{"role": "user", "content": joined}])
        text = "\n\n".join([*(turn["content"] for turn in turns), "Answer:\n"])
        return [int(i) for i in self._tokenizer(text)["input_ids"]]

    def _templated(self, turns: Turns) -> list[int]:
        text = self._tokenizer.apply_chat_template(list(turns), add_generation_prompt=True, tokenize=False)
        return [int(i) for i in self._tokenizer(text, add_special_tokens=False)["input_ids"]]


def load_writer(directory: str, device: str) -> Writer:
    """Load a folder in the Hugging Face layout, in the precision it is stored in, or a GGUF, in float32.

    Raises:
        TargetError: it is missing, incomplete, needs code of its own, or is none.
        ResourceError: it does not fit into memory.
    """
    quiet_libraries(offline=True)
    files = provided(directory)
    where = pick_device(device)
    from transformers import AutoModelForCausalLM

    with explained(
        f"The judge {directory} does not fit into memory. Use a smaller model.",
        lambda first: (
            f"{files.directory} cannot be loaded as a judge: {first}. Give a folder with config.json, "
            "safetensors and a tokenizer, of an architecture that transformers knows."
        ),
    ):
        tokenizer = load_tokenizer(files.directory)
        model = AutoModelForCausalLM.from_pretrained(
            str(files.directory), dtype="auto", use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
        model.eval().requires_grad_(False).to(where)
        return Writer(model, tokenizer, files.digest(), directory)
