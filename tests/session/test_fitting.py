"""The background fit against NumPy's least squares on all tokens at once."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import torch

from inspector import runner
from inspector.engine.plan import make_plan, with_everything
from inspector.errors import DataError
from inspector.runner import run
from inspector.session import fitting
from inspector.session.fitting import ErrorNorms, Fits, Improvement, background_fit
from inspector.session.protocol import (
    AnalysePrompt,
    ContextScores,
    GetContext,
    GetPairs,
    MapImproved,
    PolicySet,
    SetPolicy,
)
from inspector.session.service import Service
from inspector.session.texts import Texts
from inspector.sources.target import open_target
from inspector.spec import RunSpec, TargetSpec, command_of
from tests.session.test_service import Running

if TYPE_CHECKING:
    from inspector.sources.target import Loaded


@pytest.fixture(scope="module")
def fitted(loaded: Loaded) -> tuple[list[Improvement], ErrorNorms]:
    norms = ErrorNorms([sae.ref.sae_id for sae in loaded.saes])
    return [item for item in background_fit(loaded, norms) if item is not None], norms


class Reference:
    """Everything of one SAE in float64: x and error of training and held-out tokens, and the least-squares map."""

    def __init__(self, loaded: Loaded, row: int) -> None:
        x = loaded.model.activations(loaded.contexts.token_ids, loaded.hook_name)
        flat = x.flatten(0, 1)
        x_hat = loaded.saes[row].reconstruct(flat).x_hat
        self.x, self.error = flat.double().numpy(), (flat - x_hat).double().numpy()
        self.train = loaded.plan.train.flatten().numpy()
        self.test = loaded.plan.test.flatten().numpy()
        ones = np.ones((int(self.train.sum()), 1))
        self.map = np.linalg.lstsq(np.hstack([self.x[self.train], ones]), self.error[self.train], rcond=None)[0]

    def linear_error(self, x: np.ndarray) -> np.ndarray:
        return x @ self.map[:-1] + self.map[-1]


def test_each_fit_has_more_tokens_and_the_last_has_all(
    fitted: tuple[list[Improvement], ErrorNorms], loaded: Loaded
) -> None:
    told = [item.message for item in fitted[0]]
    assert [m.epoch for m in told] == sorted(m.epoch for m in told)
    assert [m.n_tokens for m in told] == sorted(m.n_tokens for m in told)
    assert {m.n_tokens_goal for m in told} == {loaded.plan.n_train}
    assert [m.finished for m in told] == [False] * (len(told) - 1) + [True]
    assert (told[-1].n_tokens, told[-1].n_held_out) == (loaded.plan.n_train, loaded.plan.n_test)
    assert len({m.epoch for m in told}) >= 4
    # No map from fewer tokens than would determine it: it would reproduce them and mean nothing.
    assert told[0].n_tokens >= fitting.TOKENS_PER_DIMENSION * loaded.model.d_model


@pytest.mark.parametrize("row", range(4))
def test_the_last_map_and_its_scores_are_those_of_least_squares(
    fitted: tuple[list[Improvement], ErrorNorms], loaded: Loaded, row: int
) -> None:
    last = fitted[0][-1]
    reference = Reference(loaded, row)
    linear_map = last.maps[loaded.saes[row].ref.sae_id]
    # Both solve in float64; x is the same float32 numbers. 1e-6 leaves room for the condition of x alone.
    np.testing.assert_allclose(linear_map.weight.numpy().T, reference.map[:-1], atol=1e-6)
    np.testing.assert_allclose(linear_map.bias.numpy(), reference.map[-1], atol=1e-6)
    x, error = reference.x[reference.test], reference.error[reference.test]
    rest = ((error - reference.linear_error(x)) ** 2).sum()
    variance = ((x - x.mean(0)) ** 2).sum()
    quality = last.message.qualities[row]
    # Predictions are made in float32, relative error 1e-7 each, and averaged over a few hundred tokens.
    assert quality.r2 == pytest.approx(1 - rest / ((error - error.mean(0)) ** 2).sum(), abs=1e-6)
    assert quality.fvu == pytest.approx((error**2).sum() / variance, abs=1e-6)
    assert quality.fvu_nonlinear == pytest.approx(rest / variance, abs=1e-6)
    assert quality.r2_low is not None and quality.r2_high is not None
    assert quality.r2_low < quality.r2 < quality.r2_high
    assert quality.l0 == pytest.approx(loaded.saes[row].ref.nominal_l0, rel=0.2)


@pytest.mark.parametrize("row", range(4))
def test_the_ranges_of_the_colours_are_quantiles_over_held_out_tokens(
    fitted: tuple[list[Improvement], ErrorNorms], loaded: Loaded, row: int
) -> None:
    reference = Reference(loaded, row)
    x, error = reference.x[reference.test], reference.error[reference.test]
    linear = reference.linear_error(x)
    rest = np.linalg.norm(error - linear, axis=1)
    sizes = {
        "total": np.linalg.norm(error, axis=1),
        "linear": np.linalg.norm(linear, axis=1),
        "nonlinear": rest,
        "fvu": (rest / np.linalg.norm(x, axis=1)) ** 2,
    }
    ranges = fitted[0][-1].message.qualities[row].ranges
    assert set(ranges) == set(sizes)
    for name, (low, high) in ranges.items():
        # Of up to 16 of the held-out contexts, so that a fit stays quick: not more than a few ranks away.
        assert (sizes[name] < low).mean() == pytest.approx(0.2, abs=0.05), name
        assert (sizes[name] < high).mean() == pytest.approx(0.97, abs=0.02), name


def test_the_last_numbers_are_those_of_a_headless_run(
    fitted: tuple[list[Improvement], ErrorNorms], loaded: Loaded
) -> None:
    spec = RunSpec(target=loaded.target, experiments=("error-vector", "fvu-nonlinear"), batch_size=3)
    running = run(spec, loaded)
    while True:
        try:
            next(running)
        except StopIteration as done:
            vector, fvu = done.value
            break
    for quality, r2, unexplained in zip(fitted[0][-1].message.qualities, vector["saes"], fvu["saes"], strict=True):
        # 1e-6 is the promise; the sums of both are float64 and over the same float32 numbers.
        assert quality.r2 == pytest.approx(r2["r2_pooled"], abs=1e-6)
        assert [quality.r2_low, quality.r2_high] == pytest.approx(vector["intervals"][r2["sae"]]["r2_pooled"], abs=1e-6)
        assert quality.fvu == pytest.approx(unexplained["fvu"], abs=1e-6)
        assert quality.fvu_nonlinear == pytest.approx(unexplained["fvu_nonlinear"], abs=1e-6)
        assert quality.l0 == pytest.approx(r2["l0"], abs=1e-9)


def test_pairs_are_of_all_held_out_tokens_each_once(
    fitted: tuple[list[Improvement], ErrorNorms], loaded: Loaded
) -> None:
    ids = [sae.ref.sae_id for sae in loaded.saes]
    pairs = fitted[1].pairs(GetPairs(sae_ids=[ids[0], ids[3]]))
    assert pairs.n_tokens == loaded.plan.n_test
    one, two = Reference(loaded, 0), Reference(loaded, 3)
    a, b = (one.error**2).sum(1), (two.error**2).sum(1)
    slope = (a * b)[one.train].sum() / (a * a)[one.train].sum()
    a, b = a[one.test], b[one.test]
    assert pairs.r2[0][1] == pytest.approx(1 - ((b - slope * a) ** 2).sum() / ((b - b.mean()) ** 2).sum(), abs=1e-5)


def test_the_first_fits_are_measured_on_held_out_tokens_and_are_worse(
    fitted: tuple[list[Improvement], ErrorNorms],
) -> None:
    first, last = fitted[0][0].message.qualities, fitted[0][-1].message.qualities
    assert all(a.r2 < b.r2 for a, b in zip(first, last, strict=True) if a.r2 is not None and b.r2 is not None)


def test_a_large_hook_is_fitted_in_a_thread_with_the_same_result(
    fitted: tuple[list[Improvement], ErrorNorms], loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "WIDE", 1)
    monkeypatch.setattr(fitting, "EVALUATION_BYTES", 0)  # and with reconstructions made anew each time
    monkeypatch.setattr(fitting, "PART_TOKENS", 10)  # and contexts in several parts
    norms = ErrorNorms([sae.ref.sae_id for sae in loaded.saes])
    last = [item for item in background_fit(loaded, norms) if item is not None][-1]
    # Batches of 10 and of 32 tokens round differently in the SAE: 1e-7 relative.
    expected = fitted[0][-1].message
    assert last.message.n_held_out == expected.n_held_out
    assert norms.n_test == loaded.plan.n_test
    for a, b in zip(last.message.qualities, expected.qualities, strict=True):
        assert a.r2 == pytest.approx(b.r2, abs=1e-6)
        assert a.fvu_nonlinear == pytest.approx(b.fvu_nonlinear, abs=1e-6)


def test_a_number_that_is_none_ends_the_fit_and_says_where(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    activations = type(loaded.model).activations

    def broken(self: object, tokens: torch.Tensor, hook_name: str) -> torch.Tensor:
        x = activations(self, tokens, hook_name).clone()  # type: ignore[arg-type]
        x[:, 20, 3] = torch.nan
        return x

    monkeypatch.setattr(type(loaded.model), "activations", broken)
    norms = ErrorNorms([sae.ref.sae_id for sae in loaded.saes])
    with pytest.raises(DataError, match=r"activation is not finite at context \d+, position 20"):
        list(background_fit(loaded, norms))


def test_r2_is_of_held_out_tokens_with_the_slope_of_training_tokens() -> None:
    rng = np.random.default_rng(0)
    first = rng.gamma(3.0, size=400).astype(np.float32)
    second = (0.6 * first + 0.2 * rng.gamma(3.0, size=400)).astype(np.float32)
    train = np.arange(400) < 250
    norms = ErrorNorms(["a", "b"])
    for part in (slice(0, 100), slice(100, 400)):
        norms.add(
            {"a": torch.from_numpy(first[part]), "b": torch.from_numpy(second[part])},
            train=torch.from_numpy(train[part]),
            test=torch.from_numpy(~train[part]),
        )
    x, y = first[train].astype(float), second[train].astype(float)
    slope = np.linalg.lstsq(x[:, None], y, rcond=None)[0][0]
    held_x, held_y = first[~train].astype(float), second[~train].astype(float)
    expected = 1 - ((held_y - slope * held_x) ** 2).sum() / ((held_y - held_y.mean()) ** 2).sum()
    pairs = norms.pairs(GetPairs(request=3, sae_ids=["a", "b"]))
    assert pairs.request == 3
    assert pairs.n_tokens == 150
    assert pairs.r2[0][0] == pairs.r2[1][1] == 1.0
    assert pairs.r2[1][0] is None
    assert pairs.r2[0][1] == pytest.approx(expected, rel=1e-9)  # both sum in float64


def test_unrelated_errors_are_not_predicted() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2, 4000, generator=generator)
    norms = ErrorNorms(["a", "b"])
    train = torch.arange(4000) < 2000
    norms.add({"a": values[0], "b": values[1]}, train=train, test=~train)
    # Worse than the mean: the slope is E[ab] / E[aa] = 3/4, what it leaves 7/48, the variance 1/12: R2 = 1 - 7/4.
    r2 = norms.pairs(GetPairs(sae_ids=["a", "b"])).r2[0][1]
    assert r2 is not None
    assert r2 == pytest.approx(-0.75, abs=0.15)  # 2000 held-out tokens: a standard error of 0.05


def test_nothing_is_known_before_anything_was_seen_or_where_nothing_varies() -> None:
    norms = ErrorNorms(["a", "b"])
    assert norms.pairs(GetPairs(sae_ids=["a", "b"])).r2 == [[1.0, None], [None, 1.0]]
    train = torch.tensor([True, True, False, False])
    norms.add({"a": torch.ones(4), "b": torch.ones(4)}, train=train, test=~train)
    assert norms.pairs(GetPairs(sae_ids=["a", "b"])).r2[0][1] is None


# ---- the plan -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["context", "token"])
def test_everything_but_the_last_position_is_added_and_nothing_moves(split: Literal["context", "token"]) -> None:
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 12, (20, 16)))
    plan = make_plan(ids, {0, 1}, (4, 12), None, split, seed=3)
    whole = with_everything(plan, split, seed=3)
    expected = torch.ones_like(plan.included)
    expected[:, -1] = False
    assert torch.equal(whole.included, expected)
    assert whole.n_train + whole.n_test == 20 * 15
    assert bool((whole.train & plan.train == plan.train).all())
    assert not bool((whole.train & plan.test).any())
    if split == "context":
        assert not bool((whole.train.any(dim=1) & whole.test.any(dim=1)).any())
    else:
        assert whole.n_train / 300 == pytest.approx(plan.n_train / int(plan.included.sum()), abs=2 / 300)
    assert torch.equal(whole.train, with_everything(plan, split, seed=3).train)


# ---- the fit --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(loaded: Loaded) -> Texts:
    """Both policies, fitted to the end."""
    browser = Texts(loaded)
    fits = Fits(loaded, browser.fits)
    for policy, reading in browser.fits.items():
        fits.want(policy)
        while fits.has_work:
            improved = fits.step({policy})
            if improved is not None:
                assert improved.message.policy == policy
                reading.improve(improved)
    return browser


def test_the_second_fit_is_least_squares_on_all_tokens_special_ones_too(both: Texts, loaded: Loaded) -> None:
    special = sorted(loaded.model.special_ids)
    ids = loaded.contexts.token_ids
    x = loaded.model.activations(ids, loaded.hook_name).double().numpy()
    # Independent of the plan's code: contexts that the usual plan fits on, and every position but the last.
    fitted = loaded.plan.train.any(dim=1).numpy()
    assert np.isin(ids.numpy(), special)[:, 0].all()
    told = both.fits["included"].told
    assert told is not None and told.finished
    assert told.n_tokens == fitted.sum() * (ids.shape[1] - 1)
    for row, sae in enumerate(loaded.saes):
        flat = torch.from_numpy(x).float().flatten(0, 1)
        error = (flat - sae.reconstruct(flat).x_hat).double().numpy().reshape(x.shape)
        train_x, train_y = x[fitted, :-1].reshape(-1, x.shape[-1]), error[fitted, :-1].reshape(-1, x.shape[-1])
        test_x, test_y = x[~fitted, :-1].reshape(-1, x.shape[-1]), error[~fitted, :-1].reshape(-1, x.shape[-1])
        one = np.ones((len(train_x), 1))
        linear = np.linalg.lstsq(np.hstack([train_x, one]), train_y, rcond=None)[0]
        made = both.fits["included"].maps[sae.ref.sae_id]
        # Float64 on both sides, from the same float32 numbers.
        np.testing.assert_allclose(made.weight.numpy().T, linear[:-1], atol=1e-6)
        rest = test_y - test_x @ linear[:-1] - linear[-1]
        r2 = 1 - (rest**2).sum() / ((test_y - test_y.mean(0)) ** 2).sum()
        assert told.qualities[row].r2 == pytest.approx(r2, abs=1e-6)
        usual = both.fits["excluded"].told
        assert usual is not None and usual.qualities[row].r2 != pytest.approx(r2, abs=1e-4)  # it does change the number


def test_the_command_line_gives_the_same_numbers(both: Texts, loaded: Loaded) -> None:
    opening = open_target(replace(loaded.target, include_special=True))
    again = result_of(opening)
    assert torch.equal(again.plan.train, both.fits["included"].plan.train)
    assert torch.equal(again.plan.included, both.fits["included"].plan.included)
    n_usual, n_all = int(loaded.plan.included.sum()), int(again.plan.included.sum())
    note = f"(--include-special): {n_all - n_usual:,} tokens more than the usual {n_usual:,}."
    assert any(note in warning for warning in again.warnings)
    assert again.gate is not None and loaded.gate is not None and again.gate.n_tokens == loaded.gate.n_tokens
    spec = RunSpec(target=again.target, experiments=("error-vector",))
    (vector,) = result_of(runner.run(spec, again))
    told = both.fits["included"].told
    assert told is not None
    for quality, row in zip(told.qualities, vector["saes"], strict=True):
        assert quality.r2 == pytest.approx(row["r2_pooled"], abs=1e-6)
    assert any(note in warning for warning in vector["warnings"])
    assert vector["provenance"]["special_tokens"] == "included"
    assert "--include-special" in command_of(spec, "error-vector")
    (usual,) = result_of(runner.run(RunSpec(target=loaded.target, experiments=("error-vector",)), loaded))
    assert "special_tokens" not in usual["provenance"]
    assert usual["provenance"]["fingerprint"] != vector["provenance"]["fingerprint"]
    # The profile of the paper's code splits by token: then too everything is counted.
    (by_token,) = result_of(runner.run(replace(spec, profile="paper-text"), again))
    assert by_token["provenance"]["n_train"] + by_token["provenance"]["n_test"] == n_all


def result_of(work: Generator[Any, None, Any]) -> Any:
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value


def test_a_view_sees_its_own_policy_and_others_theirs(both: Texts, loaded: Loaded) -> None:
    asked = GetContext(context=3)
    usual = both.context(1, asked)
    answer = both.set_policy(1, SetPolicy(request=9, policy="included"))
    ids = loaded.contexts.token_ids[:, :-1].numpy()
    special = np.isin(ids, sorted(loaded.model.special_ids))
    out = ~loaded.plan.included.numpy()[:, :-1]
    assert answer == PolicySet(
        request=9, policy="included", n_special=int((out & special).sum()), n_before=int((out & ~special).sum())
    )
    assert answer.n_special >= len(ids) and answer.n_before > 0
    mine, theirs = both.context(1, asked), both.context(2, asked)
    assert theirs == usual
    assert (mine.policy, theirs.policy) == ("included", "excluded")
    assert set(mine.split[:-1]) <= {"t", "h"} and mine.split[-1] == "x"
    assert theirs.split[0] == "x"
    for a, b in zip(mine.saes, theirs.saes, strict=True):
        assert (a.l0, a.sae_error_norm) == (b.l0, b.sae_error_norm)
        assert a.nonlinear_error_norm != b.nonlinear_error_norm
    prompt = both.prompt(1, AnalysePrompt(text="the error"))
    assert (prompt.split[0], both.prompt(2, AnalysePrompt(text="the error")).split[0]) == ("h", "x")
    sae_ids = [sae.ref.sae_id for sae in loaded.saes[:2]]
    assert both.pairs(1, GetPairs(sae_ids=sae_ids)).n_tokens > both.pairs(2, GetPairs(sae_ids=sae_ids)).n_tokens
    both.forget(1)
    assert both.context(1, asked) == usual


def test_switching_runs_neither_model_nor_saes(both: Texts, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    both.context(7, GetContext(context=5))

    def never(*_: object) -> None:
        raise AssertionError("it ran again")

    with monkeypatch.context() as patch:
        patch.setattr(type(loaded.model), "forward", never)
        patch.setattr(type(loaded.saes[0]), "reconstruct", never)
        for policy in ("included", "excluded"):
            both.set_policy(7, SetPolicy(policy=policy))
            assert both.context(7, GetContext(context=5)).policy == policy


def test_fits_take_turns_and_the_one_that_is_waited_for_goes_first(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inspector.session import fitting

    steps: list[str] = []

    def counted(_loaded: object, _norms: object, policy: str) -> object:
        for _ in range(3):
            steps.append(policy)
            yield None

    monkeypatch.setattr(fitting, "background_fit", counted)
    fits = Fits(loaded, Texts(loaded).fits)
    fits.want("excluded")
    fits.step({"excluded"})
    fits.want("included")
    fits.want("included")
    for _ in range(4):  # the last one finds it finished
        fits.step({"included"})
    assert steps == ["excluded", "included", "included", "included"]
    while fits.has_work:
        fits.step(set())
    assert steps[4:] == ["excluded", "excluded"]


# ---- the session ----------------------------------------------------------------------------------------------------


def test_a_view_that_changes_its_policy_is_sent_its_texts_again_and_nobody_else(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Service, "_load", lambda self: (loaded, []))
    running = Running(TargetSpec())
    mine, other = running.attach(), running.attach()
    running.start()

    def finished(message: object) -> bool:
        return isinstance(message, MapImproved) and message.finished

    running.until(mine, finished)
    running.until(other, finished)
    running.ask(mine, GetContext(request=1, context=2))
    running.ask(other, GetContext(request=1, context=2))
    n_other = len(running.told[other - 1])
    assert isinstance(running.ask(mine, SetPolicy(request=2, policy="included")), PolicySet)
    last = running.until(mine, lambda m: finished(m) and isinstance(m, MapImproved) and m.policy == "included")
    assert isinstance(last, MapImproved)
    running.until(
        mine,
        lambda m: (
            isinstance(m, ContextScores) and (m.request, m.context, m.policy, m.epoch) == (0, 2, "included", last.epoch)
        ),
    )
    n_fits = sum(isinstance(m, MapImproved) for m in running.told[mine - 1])
    assert isinstance(running.ask(mine, SetPolicy(request=3, policy="excluded")), PolicySet)
    running.ask(mine, GetContext(request=4, context=0))
    back = running.told[mine - 1]
    # Told at once: the numbers of the maps that are there already, and the text under them.
    assert [m.policy for m in back if isinstance(m, MapImproved)][n_fits:] == ["excluded"]
    running.until(mine, lambda m: isinstance(m, ContextScores) and m.request == 0 and m.policy == "excluded")
    assert not [m for m in running.told[other - 1][n_other:] if not isinstance(m, ContextScores) or m.request == 0]
    late = running.attach()
    assert [m.policy for m in running.told[late - 1] if isinstance(m, MapImproved)] == ["excluded"]
    running.end()


def test_a_fit_knows_its_policy(loaded: Loaded, both: Texts) -> None:
    told = both.fits["included"].told
    assert told is not None
    improvement = Improvement(maps={}, message=replace_message(told, epoch=told.epoch))
    assert not both.fits["included"].improve(improvement)  # the same maps, measured on more tokens
    assert both.fits["included"].maps


def replace_message(message: MapImproved, **fields: object) -> MapImproved:
    import msgspec

    return msgspec.structs.replace(message, **fields)
