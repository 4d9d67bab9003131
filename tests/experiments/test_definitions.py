"""The sentence beside a number says what this run computed, in every profile: its words against the protocol's fields,
and numbers recomputed as the words say.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from inspector.experiment import Experiment
from inspector.experiments import find, ids
from inspector.spec import Profile
from inspector.statistics.profiles import PROTOCOLS, Protocol
from tests.experiments.own import Array, Toy, decoded, hidden, opened

OWN_INTERCEPT = {"norm-baselines", "per-token-scaling", "synthetic-random", "theory-c1"}
"""Their fits have an intercept or none whatever the profile's maps have."""
OF_FVU = {"norm-prediction", "fvu-nonlinear", "pursuit", "dark-matter-breakdown"}
"""They measure fvu where the profile says."""
SQUARED = re.compile(r"‖sae_error‖²")


@pytest.fixture(params=ids())
def experiment(request: pytest.FixtureRequest) -> Experiment:
    return find(request.param)


@pytest.fixture(params=list(PROTOCOLS))
def protocol(request: pytest.FixtureRequest) -> Protocol:
    found = PROTOCOLS[request.param]
    return replace(found, split=found.split or "context")


def test_the_words_are_those_of_the_protocol(experiment: Experiment, protocol: Protocol) -> None:
    said = experiment.defined(protocol, experiment.params())
    if experiment.id not in OWN_INTERCEPT:
        assert (re.search("without (an )?intercept", said) is None) == protocol.intercept
        switched = experiment.defined(replace(protocol, intercept=not protocol.intercept), experiment.params())
        assert switched != said
        assert ("+ b‖" in said) <= protocol.intercept and ("a x + c" in said) <= protocol.intercept
    if experiment.id in OF_FVU:
        assert ("all tokens, training tokens included" in said) == (protocol.fvu_on == "all")
    if protocol.split == "token":  # every context has held-out tokens and training tokens
        assert "over held-out contexts" not in said
    assert ("D-12" in said) == (experiment.id == "norm-test" and protocol.norm_test_above is not None)
    assert ("D-19" in said) == (experiment.id == "norm-baselines" and protocol.token_means_on == "all")
    assert ("D-21" in said) == (experiment.id == "synthetic-sae" and protocol.planted_as_published)
    assert ("D-07" in said) == (experiment.id == "dark-matter-breakdown" and protocol.breakdown_as_published)


def test_the_words_say_which_norms(protocol: Protocol) -> None:
    first = {
        "per-token-scaling": protocol.scaling.startswith("squared"),
        "scaling-with-nonlinear": protocol.scaling_with == "squared",
        "norm-baselines": protocol.baselines_of == "squared",
    }
    for experiment_id, squared in first.items():
        said = find(experiment_id).defined(protocol)
        at = said.index("‖sae_error‖")
        assert (SQUARED.match(said, at) is not None) == squared, said
    scaling = find("per-token-scaling").defined(protocol)
    assert ("c y1 + k" in scaling) == protocol.scaling.endswith("intercept")
    tested = find("norm-test").defined(protocol)
    assert ("on all tokens, held-out ones included" in tested) == (protocol.norm_test_map_on == "all")


def test_a_bar_is_no_norm(experiment: Experiment, protocol: Protocol) -> None:
    """‖x‖ is the norm and ‖x‖² its square; |x| and |x|^2 were both."""
    said = experiment.defined(protocol) + experiment.question + experiment.contradicted_by
    assert not re.search(r"\|[a-z_]|\^2", said), said


def test_the_interval_names_its_number(experiment: Experiment) -> None:
    params = experiment.params(resamples=321)
    if experiment.id != "theory-c1":
        assert "321 draws" in experiment.defined(PROTOCOLS["careful"], params)
        assert "draws over" not in experiment.defined(PROTOCOLS["careful"], experiment.params(resamples=0))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return opened(tmp_path_factory.mktemp("definitions"))


def masks(toy: Toy, profile: str) -> tuple[Array, Array]:
    from inspector.statistics.pipeline import plan_of

    plan = plan_of(toy.loaded, PROTOCOLS[profile])  # type: ignore[index]
    return plan.train.numpy(), plan.test.numpy()


@pytest.mark.parametrize("profile", list(PROTOCOLS))
@pytest.mark.parametrize("intercept", ["", "on", "off"])
def test_numbers_are_what_the_words_say(toy: Toy, profile: Profile, intercept: str) -> None:
    """Recomputed by scikit-learn from nothing but the words; float32 activations: to 1e-4."""
    params = {"intercept": intercept} if intercept else {}
    vector, norm, fvu = toy.run("error-vector", "norm-prediction", "fvu-nonlinear", profile=profile, **params)
    train, test = masks(toy, profile)
    x = toy.raw["resid"]
    folder = toy.folder(toy.layer, "resid", toy.widths[0])
    error = x - decoded(folder, hidden(folder, x))

    def row(found: dict[str, Any]) -> dict[str, Any]:
        (own,) = (each for each in found["saes"] if each["d_sae"] == toy.widths[0])
        return dict(own)

    def fitted(found: dict[str, Any], y: Array, where: Array) -> tuple[Array, Array]:
        with_intercept = "without an intercept" not in found["definition"]
        fit = LinearRegression(fit_intercept=with_intercept).fit(x[train], y[train])
        return y[where], fit.predict(x[where])

    assert row(vector)["r2_mean_dims"] == pytest.approx(r2_score(*fitted(vector, error, test)), abs=1e-4)
    assert row(norm)["r2_norm"] == pytest.approx(r2_score(*fitted(norm, (error**2).sum(axis=-1), test)), abs=1e-4)
    where = train | test if "all tokens, training tokens included" in fvu["definition"] else test
    y, predicted = fitted(fvu, error, where)
    total = ((x[where] - x[where].mean(axis=0)) ** 2).sum()
    assert row(fvu)["fvu_nonlinear"] == pytest.approx(((y - predicted) ** 2).sum() / total, abs=1e-4)
    assert row(fvu)["fvu"] == row(norm)["fvu"] == pytest.approx((y**2).sum() / total, abs=1e-4)
    wrong = fitted({"definition": "" if "without" in vector["definition"] else "without an intercept"}, error, test)
    assert abs(r2_score(*wrong) - row(vector)["r2_mean_dims"]) > 1e-4, "the toy can tell them apart"
    assert np.isfinite(predicted).all()
