"""Where the experiment `error-saes` keeps what it trains; known without importing torch."""

from __future__ import annotations

import os
from pathlib import Path

import inspector

VARIABLE = "DM_INSPECT_ERROR_SAES_DIR"


def error_saes_folder() -> Path:
    """Where trained SAEs are kept unless told otherwise: the checkout's cache, or the user's. Not made here."""
    if asked := os.environ.get(VARIABLE):
        return Path(asked).absolute()
    if results := os.environ.get("DM_INSPECT_RESULTS_DIR"):
        return Path(results).absolute() / "error-saes"
    checkout = Path(inspector.__file__).parents[1]
    if (checkout / "cache" / "README.md").is_file() and (checkout / "pyproject.toml").is_file():
        return checkout / "cache" / "error-saes"
    import platformdirs

    return platformdirs.user_cache_path("dm-inspect") / "error-saes"
