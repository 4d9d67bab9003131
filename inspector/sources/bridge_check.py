"""Whether transformer-lens computes what the model's own implementation computes: asked once for each set of weights.

TransformerBridge replaces parts of a model by its own, and for some architectures what it computes then is another
function. Activations would look plausible and be of no model that exists. So both are run on the same few hundred
tokens at the first load, and the answer is kept under the hash of the weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inspector.errors import TargetError
from inspector.sources.model_files import ModelFiles
from inspector.sources.registry_index import cache_folder
from inspector.sources.unchanged import FilesState

N_TOKENS = 256
KEPT_EVERY = 4
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Root mean square of the logits' difference over their spread. The registry's architectures agree to 5e-7 in float32
and in every bit in bfloat16: both sides make the same sums, nearly always in the same order. The room is for those that
do not. All roundings of bfloat16 together move the logits of Gemma 3 270M by 0.19, those of float32, 65,536 times
smaller, by some 3e-6. What was wrong so far (Cohere, a GPT-2 without attention scaling) was off by 0.4 and more."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """The tokens on which both are asked, and under what names the answer is kept."""

    tokens: Tensor
    """[1, t] int64."""
    files: ModelFiles
    dtype: torch.dtype
    state: FilesState
    """The files, as they were before anything was read from them."""

    @classmethod
    def of(cls, files: ModelFiles, hf_model: Any, state: FilesState) -> Question:
        """Of a model whose weights are loaded and that transformer-lens has not seen yet."""
        rows = int(hf_model.get_input_embeddings().weight.shape[0])
        length = max(2, min(N_TOKENS, files.n_ctx or N_TOKENS))
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(0, rows, (1, length), generator=generator)
        return cls(tokens=tokens, files=files, dtype=hf_model.dtype, state=state)

    def was_answered(self) -> bool:
        """Whether the two were found to be the same before."""
        if _says_same(self._of_state):
            return True
        if not _says_same(self._of_weights):
            return False
        _keep(self._of_state, {"same": True})
        return True

    @torch.inference_mode()
    def logits_of(self, hf_model: Any) -> Tensor:
        """[1, t/4, v] float32 on the CPU, as the model's own implementation computes them at every fourth token."""
        logits: Tensor = hf_model(self.tokens.to(hf_model.device), use_cache=False).logits
        return self._looked_at(logits)

    def require_same(self, expected: Tensor, found: Tensor) -> None:
        """Keep the answer, or refuse the model.

        Raises:
            TargetError: they differ by more than the sums' order explains; with the size of it.
        """
        found = self._looked_at(found)
        spread = float((expected - expected.mean(dim=-1, keepdim=True)).square().mean().sqrt())
        off = float((found - expected).square().mean().sqrt()) / max(spread, 1e-12)
        tolerance = TOLERANCE.get(self.dtype, TOLERANCE[torch.bfloat16])
        if not off <= tolerance:
            raise TargetError(
                f"transformer-lens does not compute {self.files.name} as its own implementation does: on "
                f"{self.tokens.shape[1]} tokens the logits differ by {off:.2g} of their spread, and rounding explains "
                f"{tolerance:g} at most. "
                "Its activations would be of another model; choose one of another architecture."
            )
        for path in (self._of_weights, self._of_state):
            _keep(path, {"same": True, "off": off})

    def _looked_at(self, logits: Tensor) -> Tensor:
        """Some of [1, t, v], the last token among them: with Gemma's vocabulary those of all are 0.3 GB, twice."""
        return logits[:, (logits.shape[1] - 1) % KEPT_EVERY :: KEPT_EVERY].float().cpu()

    @property
    def _of_state(self) -> Path:
        """By the files as the disk describes them, so that not every byte is read again at every load."""
        return self._path(repr(self.state))

    @property
    def _of_weights(self) -> Path:
        """By what is in the files, wherever they are."""
        return self._path(self.files.digest())

    def _path(self, which: str) -> Path:
        versions = [f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "transformer-lens")]
        about = "\n".join([which, str(self.dtype), *versions, str(self.tokens.shape[1])])
        return cache_folder() / "bridge-checks" / f"{hashlib.sha256(about.encode()).hexdigest()}.json"


def _says_same(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return json.loads(path.read_text(encoding="utf-8"))["same"] is True
    return False


def _keep(path: Path, answer: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # not kept: it is asked again
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(answer), encoding="utf-8")
        temporary.replace(path)
