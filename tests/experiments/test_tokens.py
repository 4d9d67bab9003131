"""Experiments on single tokens, against numpy, scikit-learn and transformers from the same files.

Tolerance 1e-4: SAEs and the split of an error run in float32, the reference in float64.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from inspector.drawing.figures import Curve, GroupedBars, Heatmap, Table, TokenTrace, Violin
from inspector.engine.plan import make_plan
from inspector.experiments import find
from inspector.experiments._shared import measure
from inspector.runner import run
from inspector.session.fitting import ErrorNorms
from inspector.session.protocol import GetPairs
from inspector.spec import RunSpec
from inspector.statistics import grouping, token_pass
from inspector.statistics.token_norms import TokenNorms
from tests.experiments.own import Toy, finish, opened
from tests.experiments.tokens import Reference, Split, size

ALL = (
    "norm-baselines", "norm-test", "per-token-scaling", "per-token-split", "per-token-trace", "scaling-with-nonlinear",
    "shrinkage",
)  # fmt: skip
PARAMS = {"start": "100", "length": "20", "l0": "0"}
Results = dict[str, dict[str, Any]]
NEAR = 1e-4


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return opened(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def results(toy: Toy) -> Results:
    return {each["experiment"]: each for each in toy.run(*ALL, **PARAMS)}


@pytest.fixture(scope="module")
def reference(toy: Toy) -> Reference:
    return Reference(toy, toy.train, toy.test)


@pytest.fixture(scope="module")
def published(toy: Toy) -> Results:
    return {each["experiment"]: each for each in toy.run(*ALL, profile="paper-code", **PARAMS)}


@pytest.fixture(scope="module")
def published_reference(toy: Toy) -> Reference:
    """Tokens split at random and no intercept (D-05, D-25)."""
    target, loaded = toy.loaded.target, toy.loaded
    assert target.positions is not None
    plan = make_plan(
        loaded.contexts.token_ids, loaded.model.special_ids, target.positions, target.train_tokens, "token", target.seed
    )
    return Reference(toy, plan.train.numpy(), plan.test.numpy(), intercept=False)


def rows_of(result: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {row["d_sae"]: row for row in result["saes"]}


def test_they_share_one_measurement() -> None:
    assert {find(name).measure for name in ALL} == {measure}
    assert len({find(name).params for name in ALL}) == 1


@pytest.mark.parametrize("experiment", ALL)
def test_result_is_json_and_draws_itself(results: Results, experiment: str) -> None:
    stored = json.loads(json.dumps(results[experiment], allow_nan=False))
    assert stored["controls"]
    figures = find(experiment).draw(stored)
    assert any(isinstance(figure, Table) for figure in figures)
    assert any(isinstance(figure, Curve | GroupedBars | Heatmap | TokenTrace | Violin) for figure in figures)
    for figure in figures:
        assert figure.title
        if isinstance(figure, Table):
            assert all(len(row) == len(figure.columns) for row in figure.rows)
        if isinstance(figure, Curve):
            assert figure.series and all(len(series.x) == len(series.y) for series in figure.series)
        if isinstance(figure, TokenTrace):
            assert all(len(series.values) == len(figure.tokens) for series in figure.series)


def norm_test(reference: Reference, splits: dict[int, Split], result: dict[str, Any]) -> None:
    for width, split in splits.items():
        row = rows_of(result)[width]
        vectors = {"x": reference.x, "x_hat": split.x_hat, "sae_error": split.error,
                   "linear_error": split.linear, "nonlinear_error": split.nonlinear,
                   "x_hat_plus_nonlinear": split.x_hat + split.nonlinear}  # fmt: skip
        switched = result["controls"]["intercept"]
        for name, vector in vectors.items():
            expected = reference.r2_on_x(size(vector), intercept=reference.intercept)
            assert row[f"r2_{name}"] == pytest.approx(expected, abs=NEAR)
            other = reference.r2_on_x(size(vector), intercept=not reference.intercept)
            assert switched[f"r2_{name}"][row["sae"]] == pytest.approx(other, abs=NEAR)


def test_norms_are_scikit_learns(reference: Reference, results: Results) -> None:
    norm_test(reference, reference.splits, results["norm-test"])


def test_norms_of_the_published_protocol_are_scikit_learns(published_reference: Reference, published: Results) -> None:
    """The map that splits the error is fitted on all tokens, held-out ones included; the norms on training tokens."""
    of_all = published_reference.split_by(published_reference.train | published_reference.test)
    norm_test(published_reference, of_all, published["norm-test"])
    with pytest.raises(AssertionError):
        norm_test(published_reference, published_reference.splits, published["norm-test"])


def test_pairs_are_scikit_learns(reference: Reference, results: Results) -> None:
    sizes = {width: size(split.error) for width, split in reference.splits.items()}
    x_sq = size(reference.x)
    widths = reference.toy.widths
    pairs = results["per-token-scaling"]["result"]["pairs"]
    assert [(pair["d_small"], pair["d_large"]) for pair in pairs] == [(a, b) for a in widths for b in widths if a < b]
    for pair in pairs:
        small, large = sizes[pair["d_small"]], sizes[pair["d_large"]]
        for kind, one, other in (("squared", small, large), ("unsquared", small**0.5, large**0.5)):
            for fit in ("origin", "intercept"):
                expected = reference.r2(other, one, intercept=fit == "intercept")
                assert pair[f"r2_{kind}_{fit}"] == pytest.approx(expected, abs=NEAR)
        assert pair["r2"] == pair["r2_squared_origin"]
        own = large[reference.test] ** 0.5
        found = results["per-token-scaling"]["result"]
        assert found["mean_error_norm"][pair["large"]] == pytest.approx(own.mean(), rel=NEAR)
        assert found["variation"][pair["large"]] == pytest.approx(own.std() / own.mean(), rel=NEAR)
        train = reference.train
        assert pair["factor"] == pytest.approx((small * large)[train].sum() / (small**2)[train].sum(), rel=NEAR)
        assert pair["r2_x_norm"] == pytest.approx(reference.r2(large, x_sq), abs=NEAR)
        assert pair["r2_activation"] == pytest.approx(reference.r2(large, reference.on_x(small)), abs=NEAR)
        assert pair["r2_activation_own"] == pytest.approx(reference.r2(large, reference.on_x(large)), abs=NEAR)


def test_pairs_are_those_of_the_session(reference: Reference, results: Results) -> None:
    """What the app shows of the same tokens, from the norms themselves: another way to the same number."""
    norms = ErrorNorms([str(width) for width in reference.splits])
    sizes = {str(width): torch.from_numpy(size(split.error).ravel()) for width, split in reference.splits.items()}
    norms.add(sizes, *(torch.from_numpy(mask.ravel()) for mask in (reference.train, reference.test)))
    table = norms.pairs(GetPairs(request=1, sae_ids=list(sizes))).r2
    found = iter(results["per-token-scaling"]["result"]["pairs"])
    for i in range(3):
        for j in range(i + 1, 3):
            assert next(found)["r2"] == pytest.approx(table[i][j], abs=NEAR)


def test_baselines_of_pairs_have_an_intercept_in_every_profile(
    published_reference: Reference, published: Results
) -> None:
    best = Reference(published_reference.toy, published_reference.train, published_reference.test)
    for pair in published["per-token-scaling"]["result"]["pairs"]:
        small, large = (size(best.splits[pair[key]].error) ** 0.5 for key in ("d_small", "d_large"))
        assert pair["r2"] == pytest.approx(best.r2(large, small), abs=NEAR)
        assert pair["r2_x_norm"] == pytest.approx(best.r2(large, size(best.x) ** 0.5), abs=NEAR)
        assert pair["r2_activation"] == pytest.approx(best.r2(large, best.on_x(small)), abs=NEAR)


def test_gains_from_a_second_norm_are_scikit_learns(reference: Reference, results: Results) -> None:
    """In percent, to 1e-2: a gain is a small difference of two fits."""
    for pair in results["scaling-with-nonlinear"]["result"]["pairs"]:
        small, large = reference.splits[pair["d_small"]], reference.splits[pair["d_large"]]
        for kind, power in (("", 1.0), ("_other", 0.5)):
            one, other = size(small.error) ** power, size(large.error) ** power
            before = reference.rest(other, one).sum()
            further = {"": size(small.nonlinear), "_linear": size(small.linear), "_x_norm": size(reference.x)}
            for name, second in further.items():
                if kind and name == "_x_norm":
                    continue
                after = reference.rest(other, one, second**power).sum()
                assert pair[f"decrease_percent{kind}{name}"] == pytest.approx(100 * (1 - after / before), abs=1e-2)
        one, other, second = size(small.error), size(large.error), size(small.nonlinear)
        through = [reference.rest(other, *columns, intercept=False).sum() for columns in ((one,), (one, second))]
        assert pair["decrease_percent_no_intercept"] == pytest.approx(100 * (1 - through[1] / through[0]), abs=1e-2)
        assert pair["r2"] == pytest.approx(reference.r2(other, one), abs=NEAR)


def test_slopes_and_correlations_are_numpys(reference: Reference, results: Results) -> None:
    found, test = results["per-token-split"], reference.test
    norms = {
        part: {width: size(getattr(split, part))[test] ** 0.5 for width, split in reference.splits.items()}
        for part in ("linear", "nonlinear")
    }
    logs = np.log2(list(reference.splits))
    for part, own in norms.items():
        means = [own[width].mean() for width in reference.splits]
        slope = np.polyfit(logs, means, 1)[0]
        assert found["result"][f"{part}_slope"] == pytest.approx(slope, abs=NEAR)
        assert found["result"][f"{part}_slope_percent"] == pytest.approx(100 * slope / np.mean(means), abs=1e-2)
        for width, row in rows_of(found).items():
            assert row[f"mean_{part}_norm"] == pytest.approx(own[width].mean(), rel=NEAR)
        for pair in found["result"]["pairs"]:
            widths = [
                int(row["d_sae"])
                for name in (pair["small"], pair["large"])
                for row in found["saes"]
                if row["sae"] == name
            ]
            expected = np.corrcoef(own[widths[0]], own[widths[1]])[0, 1]
            assert pair[part] == pytest.approx(expected, abs=NEAR)
    switched = Reference(reference.toy, reference.train, test, intercept=False)
    for part in norms:
        means = [(size(getattr(split, part))[test] ** 0.5).mean() for split in switched.splits.values()]
        slope = np.polyfit(logs, means, 1)[0]
        assert found["controls"]["intercept"][f"{part}_slope"] == pytest.approx(slope, abs=NEAR)


def test_traces_are_numpys_and_held_out(reference: Reference, results: Results) -> None:
    shown, split = (results[f"per-token-{name}"]["result"] for name in ("trace", "split"))
    context, positions = shown["context"], shown["positions"]
    assert len(positions) == 20 and positions == list(range(positions[0], positions[0] + 20))
    assert reference.test[context, positions].all() and not any(shown["train"])
    assert shown["tokens"] == reference.toy.loaded.model.token_texts(reference.ids[context, positions].tolist())
    by_sae = {row["sae"]: row["d_sae"] for row in results["per-token-trace"]["saes"]}
    mean = np.zeros(20)
    for sae, width in by_sae.items():
        own = reference.splits[width]
        for name, vectors, where in (("sae_error", own.error, shown), ("linear_error", own.linear, split),
                                     ("nonlinear_error", own.nonlinear, split)):  # fmt: skip
            assert where[name][sae] == pytest.approx(size(vectors)[context, positions] ** 0.5, rel=NEAR)
        mean += size(own.nonlinear)[context, positions] ** 0.5 / len(by_sae)
    assert shown["mean_nonlinear_error"] == pytest.approx(mean, rel=NEAR)
    first = next(iter(by_sae.values()))
    for row in results["per-token-trace"]["saes"]:
        both = [size(reference.splits[width].error)[reference.test] ** 0.5 for width in (first, row["d_sae"])]
        assert row["correlation"] == pytest.approx(np.corrcoef(both[0], both[1])[0, 1], abs=NEAR)
        assert row["mean_norm"] == pytest.approx(both[1].mean(), rel=NEAR)


def test_shrinkage_is_numpys(reference: Reference, results: Results) -> None:
    x, train, test = reference.x, reference.train, reference.test
    mean = x[train].mean(axis=0)
    for width, split in reference.splits.items():
        row = rows_of(results["shrinkage"])[width]
        centred = split.linear - split.linear[train].mean(axis=0)
        for kind, own, short, along in (("", x, split.x_hat, split.linear),
                                        ("_centred", x - mean, split.x_hat - mean, centred)):  # fmt: skip
            lengths = [np.linalg.norm(each[test], axis=-1) for each in (own, short, along)]
            assert row[f"norm_ratio{kind}"] == pytest.approx((lengths[1] / lengths[0]).mean(), abs=NEAR)
            assert row[f"ratio_of_means{kind}"] == pytest.approx(lengths[1].mean() / lengths[0].mean(), abs=NEAR)
            cosine = (own * along)[test].sum(axis=-1) / lengths[0] / lengths[2]
            assert row[f"cosine{kind}"] == pytest.approx(cosine.mean(), abs=NEAR)
        around, error = (x - mean)[train], split.error[train] - split.error[train].mean(axis=0)
        scalar = (around * error).sum() / (around**2).sum()
        diagonal = (around * error).sum(axis=0) / (around**2).sum(axis=0)
        assert row["scalar"] == pytest.approx(scalar, abs=NEAR)
        for name, factor in (("scalar", scalar), ("diagonal", diagonal)):
            predicted = (x - mean)[test] * factor + split.error[train].mean(axis=0)
            for key, average in (("", "variance_weighted"), ("_mean_dims", "uniform_average")):
                expected = r2_score(split.error[test], predicted, multioutput=average)
                assert row[f"r2_{name}{key}"] == pytest.approx(expected, abs=NEAR)
        for key, average in (("", "variance_weighted"), ("_mean_dims", "uniform_average")):
            expected = r2_score(split.error[test], split.linear[test], multioutput=average)
            assert row[f"r2_full{key}"] == pytest.approx(expected, abs=NEAR)


def baselines(reference: Reference, result: dict[str, Any], headline: float, other: float) -> None:
    """Both targets, `headline` and `other` being the powers of the squared norm that they are."""
    x_norm, position = size(reference.x) ** 0.5, np.broadcast_to(np.arange(reference.x.shape[1]), reference.ids.shape)
    for width, split in reference.splits.items():
        row = rows_of(result)[width]
        for suffix, power in (("", headline), ("_other", other)):
            y = size(split.error) ** power
            expected = {
                "x": reference.r2_on_x(y),
                "loss": reference.r2(y, reference.loss),
                "x_norm": reference.r2(y, x_norm),
            }
            for name, value in expected.items():
                assert row[f"r2_{name}{suffix}"] == pytest.approx(value, abs=NEAR)
        y, test, train = size(split.error) ** headline, reference.test, reference.train
        means = reference.class_means(y, reference.ids)
        place = position - reference.class_means(position.astype(np.float64), reference.ids)
        slope = (place * (y - means))[train].sum() / (place**2)[train].sum()
        assert row["r2_token_position"] == pytest.approx(r2_score(y[test], (means + slope * place)[test]), abs=NEAR)


def test_baselines_are_scikit_learns(reference: Reference, results: Results) -> None:
    result = results["norm-baselines"]
    baselines(reference, result, 1.0, 0.5)
    test, train = reference.test, reference.train
    classes = reference.frequent(least=10)
    assert result["result"]["classes"] == len(np.unique(classes[classes >= 0]))
    for width, split in reference.splits.items():
        row, y = rows_of(result)[width], size(split.error)
        assert row["r2_token"] == pytest.approx(
            r2_score(y[test], reference.class_means(y, reference.ids)[test]), abs=NEAR
        )
        of_class = reference.class_means(y, classes)
        within = reference.x - reference.class_means(reference.x, classes)
        weight = np.linalg.lstsq(within[train], (y - of_class)[train], rcond=None)[0]
        predicted = of_class + within @ weight
        assert row["r2_token_and_x"] == pytest.approx(r2_score(y[test], predicted[test]), abs=NEAR)
        left = ((y - predicted)[test] ** 2).sum() / ((y - of_class)[test] ** 2).sum()
        assert row["r2_x_within_token"] == pytest.approx(1 - left, abs=NEAR)
        if np.ptp(split.l0[train]) == 0:
            assert row["r2_l0"] is None
        else:
            assert row["r2_l0"] == pytest.approx(reference.r2(y, split.l0), abs=NEAR)


def test_they_agree_with_the_shared_passes(toy: Toy, results: Results) -> None:
    """The same numbers on another way: norm-prediction and error-vector, intervals included."""
    norms, vectors = toy.run("norm-prediction", "error-vector")
    for index, row in enumerate(norms["saes"]):
        own = results["norm-test"]["saes"][index]
        assert own["r2_sae_error"] == pytest.approx(row["r2_norm"], abs=1e-6)
        assert results["norm-baselines"]["saes"][index]["r2_x"] == pytest.approx(row["r2_norm"], abs=1e-6)
        ends = results["norm-test"]["intervals"][row["sae"]]["r2_sae_error"]
        assert ends == pytest.approx(norms["intervals"][row["sae"]]["r2_norm"], abs=1e-6)
        null = results["norm-test"]["controls"]["gaussian_null"]["r2_sae_error"][row["sae"]]
        assert null == pytest.approx(norms["controls"]["gaussian_null"]["r2_norm"][row["sae"]], abs=1e-9)
        full, vector = results["shrinkage"]["saes"][index], vectors["saes"][index]
        assert full["r2_full"] == pytest.approx(vector["r2_pooled"], abs=1e-6)
        assert full["r2_full_mean_dims"] == pytest.approx(vector["r2_mean_dims"], abs=1e-6)
        ends = results["shrinkage"]["intervals"][row["sae"]]["r2_full"]
        assert ends == pytest.approx(vectors["intervals"][row["sae"]]["r2_pooled"], abs=1e-6)


def test_intervals_are_those_of_contexts_drawn_one_by_one(reference: Reference, results: Results) -> None:
    """Forty draws of whole contexts, tokens repeated as often as their context was drawn; the fit held fixed."""
    test = reference.test
    contexts = np.flatnonzero(test.any(axis=1))
    draws = np.random.default_rng(reference.toy.loaded.target.seed).multinomial(
        len(contexts), np.full(len(contexts), 1 / len(contexts)), size=40
    )
    found = results["per-token-scaling"]
    pair = found["result"]["pairs"][0]
    small, large = (size(reference.splits[pair[key]].error) for key in ("d_small", "d_large"))
    values = []
    for counts in draws:
        rows = np.repeat(contexts, counts)
        y = np.concatenate([large[row][test[row]] for row in rows])
        y_hat = pair["factor"] * np.concatenate([small[row][test[row]] for row in rows])
        values.append(1 - ((y - y_hat) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    ends = found["intervals"][f"{pair['small']} -> {pair['large']}"]["r2"]
    assert ends == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=NEAR)


def test_batches_of_another_size_give_the_same_s28(toy: Toy, results: Results) -> None:
    for batch in (1, 7):
        spec = RunSpec(
            target=toy.loaded.target, experiments=ALL, params={"resamples": "40", **PARAMS}, batch_size=batch
        )
        for other in finish(run(spec, toy.loaded)):
            own = results[other["experiment"]]
            for key in ("saes", "result", "intervals"):
                assert same(own[key], other[key]), (other["experiment"], key)


def test_more_contexts_than_groups_change_no_number_but_the_intervals(
    toy: Toy, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept does not grow with the text: sums of ten blocks of contexts instead of one of each."""
    monkeypatch.setattr(grouping, "MOST_GROUPS", 10)
    seen: list[dict[str, Any]] = []

    def kept(**found: Any) -> TokenNorms:
        seen.append(found)
        return TokenNorms(**found)

    monkeypatch.setattr(token_pass, "TokenNorms", kept)
    for other in toy.run(*ALL, **PARAMS):
        own = results[other["experiment"]]
        assert same(own["saes"], other["saes"]) and same(own["result"], other["result"])
    (found,) = seen
    d, k = toy.raw["resid"].shape[-1], len(toy.widths)
    assert found["n_contexts"] == int(toy.test.any(axis=1).sum()) > 10
    n_groups = len(found["counts"][0])
    assert 5 <= n_groups <= 10 and found["squared"].test.shape == (n_groups, 2 + 4 * k, 2 + 4 * k)
    assert all(sae.error_sum.shape == (n_groups, d) and len(sae.sums.nonlinear) == n_groups for sae in found["saes"])


def same(one: Any, other: Any) -> bool:
    """Equal to 1e-6 relative, however nested: float32 rounds differently in products of other shapes."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float):
        return bool(one == pytest.approx(other, rel=1e-5, abs=1e-6))
    return bool(one == other)


# ---- what the public code does otherwise ---------------------------------------------------------------------------


def test_d09_headline_is_unsquared_with_intercept(results: Results, published: Results) -> None:
    for found, headline in ((results, "squared_origin"), (published, "unsquared_intercept")):
        result = found["per-token-scaling"]["result"]
        assert result["headline"] == headline and result["published"] == "unsquared_intercept"
        for pair in result["pairs"]:
            assert pair["r2"] == pair[f"r2_{headline}"]
            assert abs(pair["r2_squared_origin"] - pair["r2_unsquared_intercept"]) > 1e-3


def test_d12_figure_and_medians_leave_out_low_values_but_rows_do_not(published: Results, results: Results) -> None:
    code, careful = published["norm-test"], results["norm-test"]
    low = {
        name: [row[f"r2_{name}"] for row in code["saes"] if row[f"r2_{name}"] <= 0.5]
        for name in code["result"]["medians"]
    }
    assert code["result"]["below_half"] == {name: len(values) for name, values in low.items()}
    assert code["result"]["left_out"] == sum(map(len, low.values())) > 0
    assert careful["result"]["left_out"] == 0
    violins = [violin(found) for found in (code, careful)]
    shown = [sum(map(len, figure.samples)) for figure in violins]
    assert shown == [18 - code["result"]["left_out"], 18]
    assert "left out" in violins[0].note and any("left out" in each for each in code["warnings"])


def violin(found: Any) -> Violin:
    return next(each for each in find("norm-test").draw(found) if isinstance(each, Violin))


def test_d18_and_d19_move_the_token_baseline(
    toy: Toy, published: Results, results: Results, published_reference: Reference
) -> None:
    code, careful = published["norm-baselines"], results["norm-baselines"]
    assert (code["result"]["headline"], careful["result"]["headline"]) == ("squared", "squared")
    assert code["result"]["token_means"] == "all tokens, in sample"
    # In Fig. 13 the public code has an intercept, so only the split differs for the other predictors.
    baselines(Reference(toy, published_reference.train, published_reference.test), code, 1.0, 0.5)
    included = published_reference.train | published_reference.test
    everything = Reference(toy, included, included)
    for width, split in everything.splits.items():
        y = size(split.error)
        in_sample = r2_score(y[included], everything.class_means(y, everything.ids)[included])
        assert rows_of(code)[width]["r2_token"] == pytest.approx(in_sample, abs=NEAR)
        assert in_sample > rows_of(careful)[width]["r2_token"] + 0.01
        # The published baseline predicts tokens that it has seen; the held-out one is beside it.
        assert code["controls"]["token_means"]["held_out"][rows_of(code)[width]["sae"]] < in_sample
    (text,) = toy.run("norm-baselines", profile="paper-text", **PARAMS)
    assert text["result"]["headline"] == "unsquared"
    baselines(Reference(toy, published_reference.train, published_reference.test), text, 0.5, 1.0)


def test_d23_headline_is_unsquared(results: Results, published: Results) -> None:
    assert results["scaling-with-nonlinear"]["result"]["headline"] == "squared"
    assert published["scaling-with-nonlinear"]["result"]["headline"] == "unsquared"
    for pair in results["scaling-with-nonlinear"]["result"]["pairs"]:
        assert abs(pair["decrease_percent"] - pair["decrease_percent_other"]) > 1e-3


def test_intercept_switched_off_moves_every_regression_on_x(toy: Toy, results: Results) -> None:
    off = {each["experiment"]: each for each in toy.run("norm-test", "norm-baselines", intercept="off", **PARAMS)}
    without = Reference(toy, toy.train, toy.test, intercept=False)
    norm_test(without, without.splits, off["norm-test"])
    for width, split in without.splits.items():
        expected = without.r2_on_x(size(split.error), intercept=False)
        assert rows_of(off["norm-baselines"])[width]["r2_x"] == pytest.approx(expected, abs=NEAR)
        assert abs(expected - rows_of(results["norm-baselines"])[width]["r2_x"]) > 1e-4


def test_a_trace_longer_than_any_context_is_said(toy: Toy) -> None:
    found = toy.one("per-token-trace", length="48")
    assert found["result"]["tokens"] == [] and any("included tokens" in each for each in found["warnings"])
    assert find("per-token-trace").draw(found)  # type: ignore[arg-type]
    split = toy.one("per-token-split", length="48")
    assert split["result"]["falling_linear"] is None and find("per-token-split").draw(split)  # type: ignore[arg-type]
