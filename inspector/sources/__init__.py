"""The only place that knows transformer-lens, sae-lens, datasets and file formats of text and weights.

Libraries are kept from writing to the terminal: stderr belongs to the progress bar, and in the session to its log.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inspector.errors import InspectorError, ResourceError, TargetError, first_line, is_out_of_memory

_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "WANDB_SILENT": "true",
    "TQDM_DISABLE": "1",
}
"""What a user has set stays as it is."""
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def quiet_libraries(*, offline: bool = False) -> None:
    """Switch off progress bars, advice and telemetry; with `offline`, the hub as well, for the rest of the process.

    To be called before transformers, datasets or sae-lens are imported: they read the environment as they load.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if offline:
        os.environ.update(_OFFLINE)
    if "transformers" in sys.modules:
        # No import statement: looking for files, as the app does, must not depend on that library.
        logging = importlib.import_module("transformers.utils.logging")
        logging.set_verbosity_error()
        logging.disable_progress_bar()


@contextmanager
def explained(too_large: str, otherwise: Callable[[str], str]) -> Iterator[None]:
    """Turn what libraries raise on a model's or an SAE's files into one sentence.

    Args:
        too_large: the sentence where memory runs out.
        otherwise: the one for any other error, of its first line without a full stop.
    """
    try:
        yield
    except InspectorError:
        raise
    except (
        Exception
    ) as error:  # torch, safetensors, transformers, transformer-lens and sae-lens raise some twenty kinds
        if is_out_of_memory(error):
            raise ResourceError(too_large) from error
        raise TargetError(otherwise(first_line(error).rstrip("."))) from error
