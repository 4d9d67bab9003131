"""Why float16 is no type for these models: one sentence for the command line, one refusal for files."""

from __future__ import annotations

from inspector.errors import TargetError
from inspector.sources.memory_sizes import stored_dtypes
from inspector.sources.model_files import ModelFiles

_GEMMA = "gemma"


def refuse_float16_gemma(files: ModelFiles) -> None:
    """Refuse a Gemma whose weights are stored in float16, unless the user chose a dtype and so knows.

    Gemma is published in bfloat16, whose range float16 does not have: activations pass 65,504, weights below 6e-8
    became zero when they were converted. It would load, and compute something else than the SAEs were trained on.

    Raises:
        TargetError: with what to do.
    """
    if not str(files.config.get("model_type", "")).startswith(_GEMMA):
        return
    said = files.config.get("dtype", files.config.get("torch_dtype"))
    # A model that says float32 was made so and only stored in half the room, as the demo is.
    if said == "float16" or (said != "float32" and "F16" in stored_dtypes(files)):
        raise TargetError(
            f"{files.name} is a Gemma in float16, which ends at 65,504 where Gemma's activations go beyond: its "
            "weights are not those that SAEs were trained on. Give the published bfloat16 ones, or say --dtype float32."
        )
