"""Every experiment in the folder keeps the rules, a new one from the day it is added."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from typing import Any

import pytest

from inspector.drawing.figures import Curve, Table
from inspector.errors import UsageError
from inspector.experiment import Experiment, FitParams, parse_params, words_of
from inspector.experiments import choose, discover, find, ids
from inspector.experiments._shared import table
from inspector.runner import result_object
from inspector.spec import RunSpec, SaeRef, TargetSpec
from inspector.statistics.measured import SaeStatistics, Scores, Statistics
from inspector.statistics.profiles import ERROR_COVARIANCE, ERROR_MAP, NORM_MAP

NAMES = ("fvu", "fvu_nonlinear", "r2_norm", "r2_pooled", "r2_mean_dims")
MEASURES = {
    "norm-prediction": {"r2_norm", "fvu"},
    "error-vector": {"r2_pooled", "r2_mean_dims"},
    "fvu-nonlinear": {"fvu", "fvu_nonlinear"},
}
"""Keys of the contract; scripts depend on them."""


def statistics(*, undefined: bool = False) -> Statistics:
    scores = (
        Scores() if undefined else Scores(fvu=0.2, fvu_nonlinear=0.1, r2_norm=0.8, r2_pooled=0.5, r2_mean_dims=-0.4)
    )
    saes = tuple(
        SaeStatistics(
            ref=SaeRef(
                sae_id=f"sae{i}", release="made", layer=3, hook_name="blocks.3.x", d_in=4, d_sae=2**i, nominal_l0=None
            ),
            l0=7.5,
            scores=scores,
            intervals={name: None if undefined else (0.1, 0.9) for name in NAMES},
            train=scores,
            switched=scores,
            gaussian_r2_norm=None if undefined else 0.3,
            undefined_dims=4 if undefined else 0,
        )
        for i in (4, 8)
    )
    return Statistics(
        d=4,
        n_train=100,
        n_test=50,
        n_test_contexts=12,
        intercept=True,
        fvu_on="held-out",
        effective_rank=4,
        condition_number=2.0,
        constant_share=0.5,
        affine_fvu=0.5,
        affine_fvu_nonlinear=0.0,
        saes=saes,
    )


def outcome_object(experiment: Experiment, of: Statistics) -> dict[str, Any]:
    assert experiment.compute is not None
    outcome = experiment.compute(of, experiment.params())
    spec = RunSpec(target=TargetSpec(), experiments=(experiment.id,))
    about, said = {"fingerprint": "f"}, experiment.defined()
    return dict(result_object(experiment, outcome, of, spec, about, list(outcome.warnings), definition=said))


@pytest.fixture(params=ids())
def experiment(request: pytest.FixtureRequest) -> Experiment:
    return find(request.param)


def test_the_id_is_the_name_of_the_file(experiment: Experiment) -> None:
    assert experiment.id in ids() and re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", experiment.id)


def test_it_says_what_it_is(experiment: Experiment) -> None:
    assert experiment.question.endswith("?") and "\n" not in experiment.question
    assert re.search(r"Sec|Eq|Fig|App", experiment.reference)
    assert experiment.defined().endswith(".") and experiment.contradicted_by.endswith(".")
    assert set(experiment.needs) <= {NORM_MAP, ERROR_MAP, ERROR_COVARIANCE} and (
        experiment.needs or experiment.own_work
    )
    assert dataclasses.is_dataclass(experiment.params)


@pytest.fixture(params=[each for each in ids() if find(each).own_work is None])
def shared(request: pytest.FixtureRequest) -> Experiment:
    """An experiment that computes from the shared passes alone; the others have tests with their own measurements."""
    return find(request.param)


@pytest.mark.parametrize("undefined", [False, True])
def test_its_result_is_json_with_the_keys_of_the_contract(shared: Experiment, undefined: bool) -> None:
    found = outcome_object(shared, statistics(undefined=undefined))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(found) == [
        "experiment", "profile", "definition", "provenance", "saes", "result", "intervals", "controls", "warnings",
    ]  # fmt: skip
    common = {"sae", "layer", "hook_name", "d_sae", "nominal_l0", "l0", "n_train", "n_test"}
    measured = MEASURES.get(shared.id)
    for row in found["saes"]:
        assert set(row) >= common
        if measured is not None:
            assert set(row) - common == measured
        assert set(found["intervals"][row["sae"]]) <= set(row)
    assert found["controls"]


@pytest.mark.parametrize("undefined", [False, True])
def test_it_draws_a_table_and_a_curve_from_its_stored_result(shared: Experiment, undefined: bool) -> None:
    stored = json.loads(json.dumps(outcome_object(shared, statistics(undefined=undefined))))
    figures = shared.draw(stored)
    assert any(isinstance(figure, Table) for figure in figures)
    assert any(isinstance(figure, Curve) for figure in figures)
    for figure in figures:
        assert figure.title
        if isinstance(figure, Table):
            assert len(figure.rows) == 2 and all(len(row) == len(figure.columns) for row in figure.rows)


def test_compute_is_pure(shared: Experiment) -> None:
    of = statistics()
    assert shared.compute is not None
    assert shared.compute(of, shared.params()) == shared.compute(of, shared.params())


def test_listing_them_loads_neither_torch_nor_numpy_nor_a_screen() -> None:
    code = (
        "import sys, inspector.experiments as e; e.discover();"
        "print(sorted({'torch', 'numpy', 'rich', 'textual', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no experiment 'norm-predict'\. Nearest: norm-prediction"):
        choose(["norm-predict"])
    with pytest.raises(UsageError, match="No experiment was named"):
        choose([])
    assert [each.id for each in choose(["error-vector", "all"])] == [
        "error-vector",
        *[each for each in ids() if each != "error-vector"],
    ]
    assert list(discover()) == ids()


def test_parameters_are_read_and_refused() -> None:
    chosen = choose(["norm-prediction", "error-vector"])
    read = parse_params(chosen, {"intercept": "off", "resamples": "50"})
    assert set(read.values()) == {FitParams(intercept=False, resamples=50)}
    assert parse_params(chosen, {})["error-vector"] == FitParams()
    for given, message in (
        ({"intercpt": "on"}, "Nearest: intercept"),
        ({"intercept": "maybe"}, "neither on nor off"),
        ({"resamples": "many"}, "is not a number"),
        ({"resamples": "-1"}, "is negative"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_params(chosen, given)


@pytest.mark.parametrize("experiment_id", ids())
def test_a_word_that_there_is_not_is_refused_before_anything_is_loaded(experiment_id: str) -> None:
    chosen = find(experiment_id)
    for each in dataclasses.fields(chosen.params):
        if "among" not in each.metadata:
            continue
        for word in each.metadata["among"]:
            assert getattr(parse_params([chosen], {each.name: word})[experiment_id], each.name) == word
        with pytest.raises(UsageError, match=f"'{each.name}=no-such.* is not known"):
            parse_params([chosen], {each.name: "no-such"})
        both = ",".join(each.metadata["among"])
        if each.metadata["several"]:
            assert words_of(getattr(parse_params([chosen], {each.name: both})[experiment_id], each.name))
        else:
            with pytest.raises(UsageError, match="is not known"):
                parse_params([chosen], {each.name: both})


def test_a_table_has_as_many_digits_as_its_intervals_support() -> None:
    columns = ("from", ("R²", "95% low", "high"), ("low, contexts", "high"), "further")
    rows = [("a", (0.81234, [0.8, 0.82]), (None, [0.5, 0.9]), 0.5), ("b", (None, None), (None, None), None)]
    drawn = table("T", columns, rows, digits=4)
    assert [(column.title, column.digits) for column in drawn.columns] == [
        ("from", 4), ("R²", 3), ("95% low", 3), ("high", 3), ("low, contexts", 2), ("high", 2), ("further", 4),
    ]  # fmt: skip
    assert drawn.rows == (("a", 0.81234, 0.8, 0.82, 0.5, 0.9, 0.5), ("b", None, None, None, None, None, None))
