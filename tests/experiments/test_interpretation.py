"""What stands beside the numbers: the warnings and readings that keep them from being misread."""

from __future__ import annotations

from dataclasses import replace

from inspector.drawing.figures import Table
from inspector.experiments import find
from tests.experiments.test_all import outcome_object, statistics


def test_s09_and_s10_are_printed_beside_fvu_nonlinear() -> None:
    experiment = find("fvu-nonlinear")
    found = outcome_object(experiment, statistics())
    assert "S-09" in found["result"]["interpretation"] and "no virtue" in found["result"]["interpretation"]
    (table,) = [figure for figure in experiment.draw(found) if isinstance(figure, Table)]  # type: ignore[arg-type]
    assert found["result"]["interpretation"] in table.note and "FVU" in [column.title for column in table.columns]
    assert found["result"]["train_fvu_nonlinear"] == {"sae4": 0.1, "sae8": 0.1}


def test_a_norm_r2_at_the_gaussian_null_is_said_aloud() -> None:
    of = statistics()
    low = replace(of, saes=(replace(of.saes[0], scores=replace(of.saes[0].scores, r2_norm=0.25)), of.saes[1]))
    experiment = find("norm-prediction")
    assert outcome_object(experiment, of)["warnings"] == []
    (warning,) = outcome_object(experiment, low)["warnings"]
    assert warning == "sae4: r2_norm 0.250 is not above the 0.300 of a Gaussian with the same moments."


def test_dimensions_without_r2_are_counted() -> None:
    of = statistics()
    some = replace(of, saes=(replace(of.saes[0], undefined_dims=1), of.saes[1]))
    (warning,) = outcome_object(find("error-vector"), some)["warnings"]
    assert warning.startswith("sae4: the error is constant in 1 of 4 dimensions")


def test_the_intercept_is_printed_the_other_way() -> None:
    with_it = outcome_object(find("error-vector"), statistics())["controls"]["intercept"]
    without = outcome_object(find("error-vector"), replace(statistics(), intercept=False))["controls"]["intercept"]
    assert with_it["definition"] == "Scores without an intercept (D-05)." and with_it["constant_share"] == 0.5
    assert without["definition"] == "Scores with an intercept (D-05)."
