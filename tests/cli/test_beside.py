"""`dm-inspect beside`: pairs of rows, their difference, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from inspector.cli import beside
from inspector.spec import TargetSpec
from tests.cli.conftest import Run


def rows(scale: float, n: int = 4, token_id: int = 7) -> list[dict[str, Any]]:
    """A context of `n` tokens: the first excluded, the last without a loss; every other one has more linear error."""
    return [
        {
            "context": 0, "position": p, "token_id": token_id + p, "token": f" t\x1b{p}",
            "split": "excluded" if p == 0 else "test", "loss": None if p == n - 1 else 0.5, "x_norm": 10.0, "sae": "s",
            "l0": 4.0, "sae_error_norm": 5 * scale, "linear_error_norm": 3 * scale * (1 + p),
            "nonlinear_error_norm": 4 * scale,
        }
        for p in range(n)
    ]  # fmt: skip


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> list[TargetSpec]:
    """Two SAEs on every layer, the second of half the error; the targets that were opened."""
    asked: list[TargetSpec] = []

    def table(target: TargetSpec, _prompt: str | None, _batch: int) -> Generator[Any, None, dict[str, list[Any]]]:
        asked.append(target)
        yield from ()
        if target.widths == (256,):
            return {f"layer {target.layers}": rows(1.0 + 0.5 * bool(target.layers))}
        return {"narrow": rows(1.0), "wide": rows(0.5)}

    monkeypatch.setattr(beside, "_rows", table)
    return asked


def found(run: Run, *args: str) -> dict[str, Any]:
    outcome = run("beside", *args, "--json")
    assert outcome.code == 0, outcome.err
    data: dict[str, Any] = json.loads(outcome.out)
    return data


def test_every_token_has_both_and_the_difference_of_what_was_asked_for(run: Run, two: list[TargetSpec]) -> None:
    data = found(run)
    assert data["saes"] == ["narrow", "wide"]
    assert "count from 0" in data["notes"][1]
    assert [row["position"] for row in data["beside"]] == [1, 2, 3, 0], "what does not count comes last"
    row = data["beside"][0]
    assert (row["a_nonlinear"], row["b_nonlinear"], row["difference"]) == (4.0, 2.0, -0.5)
    assert (row["a_total"], row["b_total"], row["a_l0"]) == (5.0, 2.5, 4.0)
    assert row["a_fvu"] == pytest.approx(0.16) and row["b_fvu"] == pytest.approx(0.04)
    assert row["a_share"] == row["b_share"] == pytest.approx(16 / (16 + 36))
    assert {row["difference"] for row in found(run, "--by", "share")["beside"]} == {0.0}, "points, not parts"
    assert [row["loss"] for row in data["beside"]][2] is None


def test_the_largest_difference_comes_first_and_top_cuts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    second = rows(1.0)
    for row, norm in zip(second, (9.0, 4.4, 1.0, 8.0), strict=True):
        row["nonlinear_error_norm"] = norm
    answer = {"a": rows(1.0), "b": second}

    def table(*_: object) -> Generator[Any, None, dict[str, list[Any]]]:
        yield from ()
        return answer

    monkeypatch.setattr(beside, "_rows", table)
    assert [row["position"] for row in found(run)["beside"]] == [2, 3, 1, 0]
    assert len(found(run, "--top", "2")["beside"]) == 2
    outcome = run("beside", "--top", "1")
    assert "nonlinear error norm · first a · second b" in outcome.out
    assert "' t␛2'" in outcome.out and "-75" in outcome.out
    assert "1 of 4 tokens" in outcome.out


def test_two_layers_of_the_same_text(run: Run, two: list[TargetSpec]) -> None:
    data = found(run, "--widths", "256", "--other-layer", "4")
    assert data["saes"] == ["layer None", "layer (4,)"]
    assert [target.layers for target in two] == [None, (4,)]
    assert data["beside"][0]["difference"] == pytest.approx((6.0 - 4.0) / 6.0)


def test_what_is_no_pair_is_refused(
    run: Run, two: list[TargetSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = run("beside", "--widths", "256")
    assert (outcome.code, outcome.err.splitlines()[-1]) == (
        2,
        "error: 1 SAEs are loaded, but two are compared. Name them with --sae twice, or with --widths and --l0.",
    )
    outcome = run("beside", "--other-layer", "2")
    assert outcome.code == 2 and "2 and 2 SAEs are loaded" in outcome.err
    path = tmp_path / "p.txt"
    path.write_text("a")
    assert run("beside", "--prompt", "b", "--prompt-file", str(path)).code == 2

    def other_tokens(*_: object) -> Generator[Any, None, dict[str, list[Any]]]:
        yield from ()
        return {"a": rows(1.0), "b": rows(1.0, token_id=8)}

    monkeypatch.setattr(beside, "_rows", other_tokens)
    outcome = run("beside")
    assert outcome.code == 3 and "do not have the same tokens" in outcome.err
