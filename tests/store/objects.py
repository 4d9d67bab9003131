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


def worst_result(n: int = 6, **changes: Any) -> dict[str, Any]:
    """Places of `n` tokens, the first hostile, the last without a share; as the experiment stores them."""
    values: list[Any] = [float(n - i) for i in range(n)]
    tokens = [HOSTILE, "=1+1", " the", "\n", " import", " os", *[f" t{i}" for i in range(n)]][:n]
    kinds = ["code mark", "code mark", "word start", "newline", "word start", "word start", *["word start"] * n][:n]
    numbers = {"nonlinear": values, "linear": values[::-1], "total": values, "share": [0.5] * (n - 1) + [None],
               "fvu": [0.25] * n, "loss": [float(i % 3) for i in range(n)]}  # fmt: skip
    places: dict[str, list[Any]]
    places = {"context": [i // 2 for i in range(n)], "position": [10 + i for i in range(n)],
              "token_id": list(range(n)), "token": tokens, "class": kinds, "train": [False] * n,
              "x_norm": [8.0] * n, **numbers}  # fmt: skip
    means = {f"{name}{end}": each for name, each in numbers.items() for end in ("", "_sd", "_half")}
    ids = {"token_id": list(range(n)), "token": tokens, "class": kinds, "n": [7] * (n - 1) + [1], "n_blocks": [7] * n,
           "part": [1 / n] * n, "context": places["context"], "position": places["position"], **means}  # fmt: skip
    sae = "layer_3/resid/width_1k/l0_16"
    rows = 3
    ends = ("", "_sd", "_low", "_high")
    classes = {"sae": [sae, sae, "other"], "class": ["all", "word start", "all"], "n": [n, 2, n],
               "documents": [3] * rows, "part": [1.0, 0.4, 1.0],
               **{f"{name}{end}": [1.0] * rows for name in numbers for end in ends}}  # fmt: skip
    positions = {"first": [8, 16], "last": [15, 20], "n": [4, 2],
                 **{f"{name}{end}": [1.0, 2.0] for name in numbers for end in ends}}  # fmt: skip
    made = result("worst-tokens", **changes)
    made["result"] = {
        "sae": sae, "by": "nonlinear", "n_tokens": n, "n_ids": n, "n_contexts": 3, "n_documents": 3, "n_outliers": 2,
        "median_norm": 8.0, "first_position": 8, "last_position": 20, "damage_measured": False, "classes": classes,
        "positions": positions, "tokens": ids, "places": places,
        "outliers": {name: each[:2] for name, each in places.items()},
    }  # fmt: skip
    return made
