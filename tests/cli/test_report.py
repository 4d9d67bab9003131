"""A result as text, to the character; the numbers are made up."""

from __future__ import annotations

from typing import Any

from inspector.cli.plain import overview
from inspector.cli.report import report
from inspector.cli.tokens import token_table_text
from inspector.experiments import find

PLOT = """\
 0.8 ┤   ⡄
     │   ⡇
     │   ⡇
0.78 ┤   ⡇
     │   ⡇
0.76 ┤   ⡇
     │   ⡇
     │   ●
0.74 ┤   ⡇
     │   ⡇
0.72 ┤   ⡇
     │   ⡇
     │   ⡇
 0.7 ┤   ⠃                                                                                                        ×
     └───┬────────────┬────────────┬────────────┬─────────────┬────────────┬────────────┬────────────┬────────────┬───
       15.96        15.965       15.97        15.975        15.98        15.985       15.99        15.995         16
                                                        L0 (log)
"""
"""One point with its interval, one that is not defined."""


GRID = """\
Norm R² by width and L0
L0 (log)
   16 ┤                                                                                                       ×
      │
      │
15.99 ┤
      │
      │
15.98 ┤
      │
      │
15.97 ┤
      │
      │
15.96 ┤       ●0.750
      └───────┬───────────────────────────────────────────────────────────────────────────────────────────────┬───────
             256                                                                                              4k
                                                SAE width (latents, log)
‖e‖² R²  0.750 ▁▂▃▄▅▆▇█ 0.750
× undefined
"""
"""The same in the layout of Fig. 2."""


def result(**changes: Any) -> dict[str, Any]:
    common = {"layer": 3, "hook_name": "blocks.3.hook_resid_post", "nominal_l0": 16.0, "n_train": 1280, "n_test": 640}
    return {
        "experiment": "norm-prediction",
        "profile": "careful",
        "definition": "r2_norm = 1 - a / b.",
        "provenance": {
            "model": "to\x1by",
            "hook_name": "blocks.3.hook_resid_post",
            "n_train_per_d": 80.0,
            "split": "context",
            "program_version": "0.1.0",
            "seed": 7,
            "fingerprint": "0123456789abcdef",
        },
        "saes": [
            {"sae": "a", "d_sae": 256, "l0": 15.96, "r2_norm": 0.75, "fvu": 0.25, **common},
            {"sae": "b", "d_sae": 4096, "l0": 16.0, "r2_norm": None, "fvu": 0.125, **common},
        ],
        "result": {},
        "intervals": {"a": {"r2_norm": [0.7, 0.8], "fvu": None}, "b": {"r2_norm": None, "fvu": None}},
        "controls": {
            "gaussian_null": {"definition": "As if Gaussian.", "r2_norm": {"a": 0.5, "b": 0.25}},
            "shuffled_targets": {"definition": "As if shuffled.", "r2_norm": -0.0125},
        },
        "warnings": [],
        **changes,
    }


def test_a_report_has_table_counts_controls_and_what_made_it() -> None:
    assert report(find("norm-prediction"), result()) == (
        "Norm prediction · to␛y · blocks.3.hook_resid_post\n"
        "How much of the per-token variation of the squared error norm is an affine function of the activation?\n"
        "\n"
        "Squared norm of the SAE error predicted from x\n"
        "\n"
        "SAE  latents  nominal L0    L0    ‖e‖² R²    95% low       high     FVU\n"
        "───  ───────  ──────────  ────  ─────────  ─────────  ─────────  ──────\n"
        "a        256          16  16.0      0.750      0.700      0.800  0.2500\n"
        "b      4,096          16  16.0  undefined  undefined  undefined  0.1250\n"
        "\n"
        "r2_norm = 1 - a / b.\n"
        "\n"
        "Norm prediction\n"
        "‖e‖² R²\n"
        "⠒●⠒ 256   ⠒■⠒ 4k   × undefined\n"
        f"{PLOT}"
        "\n"
        f"{GRID}"
        "\n"
        "tokens: 1,280 fitted, 80 per dimension; 640 held out; split by context\n"
        "control gaussian null: r2_norm 0.2500 to 0.5000. As if Gaussian.\n"
        "control shuffled targets: r2_norm -0.0125. As if shuffled.\n"
        f"contradicted by: {find('norm-prediction').contradicted_by}\n"
        "made by: dm-inspect 0.1.0, profile careful, seed 7, fingerprint 0123456789ab\n"
        "\n"
    )


def test_the_overview_joins_the_experiments_of_each_sae() -> None:
    vector = result(experiment="error-vector", intervals={"a": {"r2_pooled": [0.2, 0.4]}, "b": {}})
    for entry, value in zip(vector["saes"], (0.3, 0.1), strict=True):
        del entry["r2_norm"], entry["fvu"]
        entry["r2_pooled"] = value
    vector["saes"][0]["fvu_nonlinear"] = 0.2
    vector["saes"][1]["fvu_nonlinear"] = 0.1
    assert overview([result(), vector]).splitlines()[:6] == [
        "to␛y · blocks.3.hook_resid_post · affine map from 1,280 tokens, scored on 640 held out",
        "",
        "SAE  width    L0  r2_norm               r2_pooled          fvu    fvu_nonlinear",
        "───  ─────  ────  ────────────────────  ─────────────────  ─────  ─────────────",
        "a    256    16.0  0.750 [0.700, 0.800]  0.30 [0.20, 0.40]  0.250  0.200",
        "b    4k     16.0  undefined             0.100              0.125  0.100",
    ]


def test_tokens_are_shown_as_symbols_and_the_last_loss_as_nothing() -> None:
    common = {"split": "test", "x_norm": 10.0, "l0": 3, "sae_error_norm": 5.0, "linear_error_norm": 3.0}
    rows = [
        {
            "position": 0,
            "token_id": 7,
            "token": " \x1b[2J",
            "loss": 1.5,
            "sae": "s",
            "nonlinear_error_norm": 4.0,
            **common,
        },
        {
            "position": 0,
            "token_id": 7,
            "token": " \x1b[2J",
            "loss": 1.5,
            "sae": "t",
            "nonlinear_error_norm": 9.0,
            **common,
        },
        {
            "position": 1,
            "token_id": 1234,
            "token": "日",
            "loss": None,
            "sae": "s",
            "nonlinear_error_norm": 4.0,
            **common,
        },
    ]
    assert token_table_text(rows, "s", "a\x1b.py") == (
        "a␛.py · SAE s\n"
        "\n"
        "position     id  token    split  loss (nats)    ‖x‖  L0  ‖error‖  ‖linear‖  ‖nonlinear‖\n"
        "────────  ─────  ───────  ─────  ───────────  ─────  ──  ───────  ────────  ───────────\n"
        "       0      7  ' ␛[2J'  test          1.50  10.00   3     5.00      3.00         4.00\n"
        "       1  1,234  '日'     test                10.00   3     5.00      3.00         4.00\n"
    )
