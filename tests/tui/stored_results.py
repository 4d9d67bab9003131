"""A few stored results for the screens: small, of real experiments, with a hostile name and an undefined score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inspector.store.results import Record, save
from tests.store.objects import HOSTILE, result

COMMAND = "dm-inspect run norm-prediction --model tiny"


def norm_result(fingerprint: str = "0123456789abcdef", shift: float = 0.0, **changes: Any) -> dict[str, Any]:
    """Two SAEs of two widths, the second of them with a hostile name and an undefined score."""
    made = result("norm-prediction", fingerprint=fingerprint, **changes)
    for row, fvu in zip(made["saes"], (0.25, None), strict=True):
        row["r2_norm"] = None if row.pop("r2_pooled") is None else 0.5 + shift
        row.pop("r2_mean_dims")
        row["fvu"] = fvu
    made["intervals"] = {"a": {"r2_norm": [0.45 + shift, 0.55 + shift]}}
    made["result"] = {"paper_range": [0.7, 0.95]}
    made["controls"] = {"gaussian_null": {"definition": f"As if Gaussian {HOSTILE}.", "r2_norm": {"a": 0.0125}}}
    made["provenance"]["profile"] = made["profile"]
    return made


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for results, empty."""
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(folder))
    return folder


def save_at(made: dict[str, Any], created: str, command: str = COMMAND) -> Record:
    """Store a result as if it had been measured at that time."""
    import datetime
    from unittest import mock

    moment = datetime.datetime.fromisoformat(created)
    with mock.patch("inspector.store.results.datetime") as clock:
        clock.datetime.now.return_value = moment
        clock.UTC = datetime.UTC
        return save(made, command)
