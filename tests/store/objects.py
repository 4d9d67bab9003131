"""A result to store, with a hostile name, an undefined score and lists inside."""

from __future__ import annotations

from typing import Any

HOSTILE = "\x1b[2J</script><b>&\u202e"


def result(experiment: str = "error-vector", fingerprint: str = "0123456789abcdef", **changes: Any) -> dict[str, Any]:
    common = {"layer": 3, "hook_name": "h", "nominal_l0": 16.0, "l0": 15.9, "n_train": 1280, "n_test": 640}
    return {
        "experiment": experiment,
        "profile": "careful",
        "definition": "R² = 1 - a / b.",
        "provenance": {
            "fingerprint": fingerprint,
            "model": HOSTILE,
            "hook_name": "blocks.3.hook_resid_post",
            "weights_hash": "aa",
            "tokens_sha256": "bb",
            "split": "context",
            "seed": 7,
            "null": None,
            "program_version": "0.1.0",
            "versions": {"torch": "2.13.0"},
        },
        "saes": [
            {"sae": "a", "d_sae": 256, "r2_pooled": 0.1 + 0.2, "r2_mean_dims": 0.25, **common},
            {"sae": HOSTILE, "d_sae": 4096, "r2_pooled": None, "r2_mean_dims": 1e-17, **common},
        ],
        "result": {"lowest_r2_mean_dims": 0.25, "curve": [1.0, 2.5]},
        "intervals": {"a": {"r2_pooled": [0.25, 0.35], "r2_mean_dims": None}},
        "controls": {"shuffled_targets": {"definition": "As if shuffled.", "r2_pooled": -0.0125}},
        "warnings": [f"Something about {HOSTILE}."],
        **changes,
    }
