"""Whether transformer-lens computes what the model's own implementation computes: asked once for each set of weights.

TransformerBridge replaces parts of a model by its own, and for some architectures what it computes then is another
function. Activations would look plausible and be of no model that exists. So both are run on the same few hundred
tokens at the first load, and the answer is kept under the hash of the weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inspector.errors import TargetError
from inspector.sources.model_files import ModelFiles
from inspector.sources.registry_index import cache_folder

N_TOKENS = 256
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Root mean square of the logits' difference over their spread. Two orders of the same float32 sums differ by some
1e-6, which forty layers make 1e-4 at most; bfloat16 has 16 bits less. A wrong scale or mask gives 0.1 and more."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """The tokens on which both are asked, and under what name the answer is kept."""

    tokens: Tensor
    """[1, t] int64."""
    name: str
    """Of the model, for a refusal."""
    dtype: torch.dtype
    key: str

    @classmethod
    def of(cls, files: ModelFiles, hf_model: Any) -> Question:
        """Of a model whose weights are loaded and that transformer-lens has not seen yet."""
        rows = int(hf_model.get_input_embeddings().weight.shape[0])
        length = max(2, min(N_TOKENS, files.n_ctx or N_TOKENS))
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(0, rows, (1, length), generator=generator)
        versions = [f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "transformer-lens")]
        about = [files.digest(), str(hf_model.dtype), *versions, str(length)]
        key = hashlib.sha256("\n".join(about).encode()).hexdigest()
        return cls(tokens=tokens, name=files.name, dtype=hf_model.dtype, key=key)

    def was_answered(self) -> bool:
        """Whether the two were found to be the same before."""
        with contextlib.suppress(OSError, ValueError):
            return bool(json.loads(self._path.read_text(encoding="utf-8"))["same"])
        return False

    @torch.inference_mode()
    def logits_of(self, hf_model: Any) -> Tensor:
        """[1, t, v] float32 on the CPU, as the model's own implementation computes them."""
        logits: Tensor = hf_model(self.tokens.to(hf_model.device), use_cache=False).logits
        return logits.float().cpu()

    def require_same(self, expected: Tensor, found: Tensor) -> None:
        """Keep the answer, or refuse the model.

        Raises:
            TargetError: they differ by more than the sums' order explains; with the size of it.
        """
        found = found.float().cpu()
        spread = float((expected - expected.mean(dim=-1, keepdim=True)).square().mean().sqrt())
        off = float((found - expected).square().mean().sqrt()) / max(spread, 1e-12)
        tolerance = TOLERANCE.get(self.dtype, TOLERANCE[torch.bfloat16])
        if not off <= tolerance:
            raise TargetError(
                f"transformer-lens does not compute {self.name} as its own implementation does: on "
                f"{self.tokens.shape[1]} tokens the logits differ by {off:.2g} of their spread, and rounding explains "
                f"{tolerance:g} at most. "
                "Its activations would be of another model; choose one of another architecture."
            )
        with contextlib.suppress(OSError):  # not kept: it is asked again
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text(json.dumps({"same": True, "off": off}), encoding="utf-8")
            temporary.replace(self._path)

    @property
    def _path(self) -> Path:
        return cache_folder() / "bridge-checks" / f"{self.key}.json"
