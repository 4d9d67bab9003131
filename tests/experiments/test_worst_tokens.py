"""worst-tokens against the per-token table: every mean, spread and place recomputed with NumPy from its rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inspector.experiments import worst_tokens
from inspector.experiments.worst_tokens import rows_of
from inspector.runner import run
from inspector.spec import RunSpec
from inspector.statistics import worst_tokens as engine
from inspector.statistics.measured import student
from inspector.statistics.token_kinds import CLASSES, class_of
from inspector.statistics.token_table import fitted_maps, rows_of_contexts
from inspector.statistics.worst_tokens import LEAST_BLOCKS, Places, WorstOfEach, halves_of
from tests.experiments.own import Toy, finish, opened

SAE = "layer_1/resid/width_64/l0_4"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return opened(tmp_path_factory.mktemp("worst"))


@pytest.fixture(scope="module")
def found(toy: Toy) -> dict[str, Any]:
    return toy.one("worst-tokens", places="300")


@pytest.fixture(scope="module")
def table(toy: Toy) -> dict[str, Any]:
    """The per-token table's columns for one SAE, of the tokens that count."""
    maps = finish(fitted_maps(toy.loaded, 8))
    rows = finish(rows_of_contexts(toy.loaded, maps, 8)).to_pydict()
    keep = [i for i, sae in enumerate(rows["sae"]) if sae == SAE and rows["split"][i] != "excluded"]
    return {name: np.array([values[i] for i in keep], dtype=object) for name, values in rows.items()}


def numbers(table: dict[str, Any]) -> dict[str, Any]:
    """By name of VALUES, as the table has them."""
    linear, nonlinear, total, x, loss = (
        table[name].astype(float)
        for name in ("linear_error_norm", "nonlinear_error_norm", "sae_error_norm", "x_norm", "loss")
    )
    share = nonlinear**2 / (linear**2 + nonlinear**2)
    return {
        "nonlinear": nonlinear, "linear": linear, "total": total, "share": share, "fvu": (nonlinear / x) ** 2,
        "loss": loss,
    }  # fmt: skip


def test_the_values_are_those_of_the_pass() -> None:
    assert worst_tokens.VALUES == engine.VALUES


def test_means_and_spreads_of_token_ids_are_those_of_the_per_token_table(
    found: dict[str, Any], table: dict[str, Any]
) -> None:
    """The table is float32, the sums float64 of float32 vectors: 1e-5 relative covers both roundings."""
    values = numbers(table)
    rows = list(rows_of(found["result"]["tokens"]))
    ids = table["token_id"].astype(int)
    assert {row["token_id"] for row in rows} == set(ids.tolist())
    assert sum(row["n"] for row in rows) == len(ids) == found["result"]["n_tokens"]
    squares = values["nonlinear"] ** 2
    for row in rows:
        own = ids == row["token_id"]
        assert row["n"] == own.sum() and row["token"] == table["token"][own][0]
        assert row["part"] == pytest.approx(squares[own].sum() / squares.sum(), rel=1e-5)
        for name, each in values.items():
            assert row[name] == pytest.approx(each[own].mean(), rel=1e-5), (row["token"], name)
            assert row[f"{name}_sd"] == pytest.approx(each[own].std(), rel=1e-4, abs=2e-5 * each[own].mean())
        worst = np.flatnonzero(own)[values["nonlinear"][own].argmax()]
        assert (row["context"], row["position"]) == (table["context"][worst], table["position"][worst])


def test_token_ids_seen_often_enough_come_first_each_part_by_its_mean(found: dict[str, Any]) -> None:
    rows = list(rows_of(found["result"]["tokens"]))
    assert rows == sorted(rows, key=lambda row: (row["n"] < 5, -row["nonlinear"]))
    assert {row["n"] < 5 for row in rows} == {True, False}


def test_places_are_the_worst_of_the_per_token_table(found: dict[str, Any], table: dict[str, Any]) -> None:
    values = numbers(table)
    order = np.argsort(-values["nonlinear"], kind="stable")[:300]
    places = found["result"]["places"]
    assert places["context"] == table["context"][order].tolist()
    assert places["position"] == table["position"][order].tolist()
    assert places["token"] == table["token"][order].tolist()
    assert places["train"] == [split == "train" for split in table["split"][order]]
    for name, each in values.items():
        np.testing.assert_allclose(places[name], each[order], rtol=1e-5)


def test_classes_and_positions_are_means_over_their_tokens(
    toy: Toy, found: dict[str, Any], table: dict[str, Any]
) -> None:
    values = numbers(table)
    texts = {int(i): toy.loaded.model.token_text(int(i)) for i in toy.loaded.contexts.token_ids.unique()}
    kinds = []
    for context, position, token in zip(table["context"], table["position"], table["token"], strict=True):
        before = texts[int(toy.loaded.contexts.token_ids[context, position - 1])] if position else ""
        goes_on = before not in ("", "<bos>") and (before[-1].isalnum() or before[-1] == "_")
        kinds.append(CLASSES[class_of(token, within_word=goes_on)])
    own = [row for row in rows_of(found["result"]["classes"]) if row["sae"] == SAE]
    assert {row["class"] for row in own} == {"all", *kinds} and len(set(kinds)) > 1
    for row in own:
        chosen = np.array([row["class"] in ("all", kind) for kind in kinds])
        assert row["n"] == chosen.sum()
        for name, each in values.items():
            assert row[name] == pytest.approx(each[chosen].mean(), rel=1e-5)
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    place = table["position"].astype(int)
    for row in rows_of(found["result"]["positions"]):
        chosen = (place >= row["first"]) & (place <= row["last"])
        assert row["n"] == chosen.sum()
        assert row["loss"] == pytest.approx(values["loss"][chosen].mean(), rel=1e-5)
    assert found["result"]["first_position"] == 6 and found["result"]["last_position"] == 46


def test_damage_is_the_change_of_the_loss_with_x_hat_in_the_place_of_x(toy: Toy, found: dict[str, Any]) -> None:
    """Recomputed by transformers alone, with a hook of torch; float32 runs of two programs agree to 1e-3 nats here."""
    places = found["result"]["places"]
    sae = next(each for each in toy.loaded.saes if each.ref.sae_id == SAE)
    for context in sorted(set(places["context"]))[:3]:
        ids = toy.loaded.contexts.token_ids[context][None]
        included = toy.loaded.plan.included[context]

        def swap(module: Any, inputs: Any, output: Any, included: torch.Tensor = included) -> Any:
            x = (output[0] if isinstance(output, tuple) else output).clone()
            x[0, included] = sae.reconstruct(x[0, included]).x_hat
            return (x, *output[1:]) if isinstance(output, tuple) else x

        with torch.no_grad():
            plain = toy.model(ids).logits[0].log_softmax(dim=-1)
            handle = toy.model.model.layers[toy.layer].register_forward_hook(swap)
            after = toy.model(ids).logits[0].log_softmax(dim=-1)
            handle.remove()
        change = (plain - after)[:-1].gather(1, ids[0, 1:, None])[:, 0]
        here = [i for i, each in enumerate(places["context"]) if each == context]
        expected = [float(change[places["position"][i]]) for i in here]
        np.testing.assert_allclose([places["damage"][i] for i in here], expected, atol=1e-3)
    assert found["controls"]["before_the_splice"]["gap"] < 1e-4


def test_held_out_alone_and_without_damage(toy: Toy) -> None:
    found = toy.one("worst-tokens", held_out="on", damage="off", by="loss", sae="layer_1/resid/width_32/l0_4")
    result = found["result"]
    assert result["n_tokens"] == toy.test.sum() and not any(result["places"]["train"])
    assert "damage" not in result["places"] and "before_the_splice" not in found["controls"]
    assert result["sae"] == "layer_1/resid/width_32/l0_4"
    assert result["places"]["loss"] == sorted(result["places"]["loss"], reverse=True)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_neither_batches_nor_shards_change_a_number(
    toy: Toy, found: dict[str, Any], batch_size: int, shards: int
) -> None:
    """To 1e-6 relative, the promise of `runner.run`; places and counts exactly."""
    spec = RunSpec(
        target=toy.loaded.target,
        experiments=("worst-tokens",),
        params={"resamples": "40", "places": "300"},
        batch_size=batch_size,
        shards=shards,
    )
    (again,) = finish(run(spec, toy.loaded))
    for table in ("places", "tokens", "classes", "positions"):
        for name, values in found["result"][table].items():
            other = again["result"][table][name]
            if all(isinstance(value, float) for value in values):
                np.testing.assert_allclose(other, values, rtol=1e-5, atol=1e-7, err_msg=name)
            else:
                known = [value for value in values if value is not None]
                if known and isinstance(known[0], float):
                    assert [value is None for value in other] == [value is None for value in values]
                else:
                    assert other == values, name


def test_outliers_stand_apart(toy: Toy) -> None:
    """With a threshold that a tenth of the tokens is above: they are in their class and list and in nothing else."""
    from dataclasses import replace

    from inspector.engine.plan import Outliers

    x = toy.raw["resid"]
    norms = np.linalg.norm(x, axis=-1)
    marks = Outliers(factor=1.0, median_norm=float(np.quantile(norms, 0.9)))
    spec = RunSpec(target=toy.loaded.target, experiments=("worst-tokens",), params={"resamples": "0"})
    (found,) = finish(run(spec, replace(toy.loaded, outliers=marks)))
    expected = int(((norms > marks.threshold) & toy.loaded.plan.included.numpy()).sum())
    result = found["result"]
    own = {row["class"]: row for row in rows_of(result["classes"]) if row["sae"] == SAE}
    assert expected > 20 and result["n_outliers"] == own["outlier"]["n"] == expected
    assert own["all"]["n"] == result["n_tokens"] == int(toy.loaded.plan.included.sum()) - expected
    assert max(result["places"]["x_norm"]) <= marks.threshold < min(result["outliers"]["x_norm"])
    assert result["outliers"]["x_norm"] == sorted(result["outliers"]["x_norm"], reverse=True)
    assert sum(result["tokens"]["n"]) == result["n_tokens"]


def test_its_result_is_json_and_is_drawn(found: dict[str, Any]) -> None:
    from inspector.drawing.terminal_figures import render_table

    stored = json.loads(json.dumps(found, allow_nan=False))
    assert stored == found
    figures = worst_tokens.draw(stored)
    assert [type(figure).__name__ for figure in figures] == [
        "GroupedBars", "Table", "Table", "Table", "Curve", "Table",
    ]  # fmt: skip
    assert "'" + found["result"]["places"]["token"][0].replace("\n", "␊") in render_table(figures[3])  # type: ignore[arg-type]


# ---- the interval of a token id --------------------------------------------------------------------------------------


def test_the_interval_of_a_token_holds_the_truth_as_often_as_it_says() -> None:
    """Documents have effects of their own, so that an interval over tokens would be far too narrow.

    2,000 made texts of 64 documents in 16 blocks: 95% is expected; 93% to 98% allows for the ratio's bias and for three
    standard errors of the count (0.5% each). The interval over tokens, for contrast, holds it less than 80% of times.
    """
    rng = np.random.default_rng(0)
    made, documents, mean = 2000, 64, 3.0
    per_document = rng.poisson(3.0, size=(documents, made))
    effects = rng.normal(scale=1.0, size=(documents, made))
    sums = np.zeros((documents, made, engine.WITHOUT_SQUARES))
    sums[..., 0] = per_document
    sums[..., 2] = per_document * (mean + effects) + rng.normal(size=(documents, made)) * np.sqrt(per_document)
    blocks = sums.reshape(16, documents // 16, made, -1).sum(axis=1)
    halves = halves_of(blocks, 0, [16] * made)
    n, total = per_document.sum(axis=0), sums[..., 2].sum(axis=0)
    holds = np.abs(total / n - mean) <= np.array(halves, dtype=float)
    assert 0.93 <= holds.mean() <= 0.98
    naive = student(200) * np.sqrt(2.0 / n)
    assert (np.abs(total / n - mean) <= naive).mean() < 0.80


def test_a_token_in_few_documents_has_no_interval() -> None:
    blocks = np.ones((16, 2, engine.WITHOUT_SQUARES))
    assert halves_of(blocks, 0, [LEAST_BLOCKS - 1, LEAST_BLOCKS]) == [None, pytest.approx(0.0)]


# ---- classes, places -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text,within,expected",
    [
        (" the", True, "word start"),
        ("the", False, "word start"),
        ("the", True, "inside a word"),
        ("_name", True, "inside a word"),
        (".append", True, "word start"),
        ("é", True, "inside a word"),
        ("日本", False, "word start"),
        ("42", False, "number"),
        (" 3.14", True, "number"),
        (",", True, "punctuation"),
        ('"', False, "punctuation"),
        ("]),", True, "code mark"),
        ("__", True, "code mark"),
        ("\n        ", False, "newline"),
        ("\r", False, "newline"),
        ("   ", False, "space"),
        ("", False, "space"),
        ("\ufffd", True, "part of a character"),
    ],
)
def test_the_class_of_a_token(text: str, within: bool, expected: str) -> None:
    assert CLASSES[class_of(text, within_word=within)] == expected
    assert CLASSES[class_of(text, within_word=within, special=True)] == "special"


def _places(most: int, rows: torch.Tensor, parts: int) -> torch.Tensor:
    made = [Places(most, "nonlinear") for _ in range(parts)]
    for part, place in zip(torch.tensor_split(rows, parts), made, strict=True):
        for row in part.split(3):
            place.add(row)
    for other in made[1:]:
        made[0].merge(other)
    tensors, facts = made[0].state()
    again = Places(most, "nonlinear")
    again.restore(tensors, facts, torch.device("cpu"))
    return again.rows


def _rows() -> Iterator[torch.Tensor]:
    """Many equal values, so that ties decide."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.zeros(200, len(engine.PLACE), dtype=torch.float64)
    rows[:, 0] = torch.arange(200) // 20
    rows[:, 1] = torch.arange(200) % 20
    rows[:, engine.PLACE.index("nonlinear")] = torch.randint(0, 9, (200,), generator=generator).double()
    yield rows[torch.randperm(200, generator=generator)]


def test_places_are_the_same_in_any_order_and_any_parts() -> None:
    (rows,) = _rows()
    column = rows[:, engine.PLACE.index("nonlinear")]
    order = sorted(range(200), key=lambda i: (-column[i], rows[i, 0], rows[i, 1]))
    for most in (1, 17, 200, 500):
        for parts in (1, 4):
            assert torch.equal(_places(most, rows, parts), rows[order[:most]])


def test_the_worst_of_each_is_the_first_of_equal_ones() -> None:
    (rows,) = _rows()
    numbers, column = rows[:, 1].to(torch.int64) % 5, rows[:, engine.PLACE.index("nonlinear")]
    made = [WorstOfEach(6), WorstOfEach(6)]
    for part, each in zip(torch.tensor_split(torch.arange(200), 2), made, strict=True):
        each.add(numbers[part], column[part], rows[part, 0], rows[part, 1])
    made[0].merge(made[1])
    for number in range(5):
        own = [i for i in range(200) if numbers[i] == number]
        best = min(own, key=lambda i: (-column[i], rows[i, 0], rows[i, 1]))
        assert made[0].rows[number].tolist() == [float(column[best]), float(rows[best, 0]), float(rows[best, 1])]
    assert made[0].rows[5, 0] == -torch.inf


def test_stored_places_of_another_pass_are_refused(tmp_path: Path) -> None:
    tensors, facts = Places(5, "loss").state()
    with pytest.raises(ValueError, match="another pass"):
        Places(5, "nonlinear").restore(tensors, facts, torch.device("cpu"))
    with pytest.raises(ValueError, match="other tokens"):
        WorstOfEach(3).restore(WorstOfEach(4).state()[0], {"n": 4}, torch.device("cpu"))
