"""Special tokens in or out: plans, both fits against least squares, and what a view that changes its mind is told."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import torch

from inspector import runner
from inspector.engine.plan import make_plan, with_everything
from inspector.session.browser import Browser
from inspector.session.fitting import Improvement
from inspector.session.policy import Fits
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
from inspector.sources.target import open_target
from inspector.spec import RunSpec, TargetSpec
from inspector.store.command import command_of
from tests.session.test_service import Running

if TYPE_CHECKING:
    from inspector.sources.target import Loaded


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
def both(loaded: Loaded) -> Browser:
    """Both policies, fitted to the end."""
    browser = Browser(loaded)
    fits = Fits(loaded, browser.readings)
    for policy, reading in browser.readings.items():
        fits.want(policy)
        while fits.has_work:
            improved = fits.step({policy})
            if improved is not None:
                assert improved.message.policy == policy
                reading.improve(improved)
    return browser


def test_the_second_fit_is_least_squares_on_all_tokens_special_ones_too(both: Browser, loaded: Loaded) -> None:
    special = sorted(loaded.model.special_ids)
    ids = loaded.contexts.token_ids
    x = loaded.model.activations(ids, loaded.hook_name).double().numpy()
    # Independent of the plan's code: contexts that the usual plan fits on, and every position but the last.
    fitted = loaded.plan.train.any(dim=1).numpy()
    assert np.isin(ids.numpy(), special)[:, 0].all()
    told = both.readings["included"].told
    assert told is not None and told.finished
    assert told.n_tokens == fitted.sum() * (ids.shape[1] - 1)
    for row, sae in enumerate(loaded.saes):
        flat = torch.from_numpy(x).float().flatten(0, 1)
        error = (flat - sae.reconstruct(flat).x_hat).double().numpy().reshape(x.shape)
        train_x, train_y = x[fitted, :-1].reshape(-1, x.shape[-1]), error[fitted, :-1].reshape(-1, x.shape[-1])
        test_x, test_y = x[~fitted, :-1].reshape(-1, x.shape[-1]), error[~fitted, :-1].reshape(-1, x.shape[-1])
        one = np.ones((len(train_x), 1))
        linear = np.linalg.lstsq(np.hstack([train_x, one]), train_y, rcond=None)[0]
        made = both.readings["included"].maps[sae.ref.sae_id]
        # Float64 on both sides, from the same float32 numbers.
        np.testing.assert_allclose(made.weight.numpy().T, linear[:-1], atol=1e-6)
        rest = test_y - test_x @ linear[:-1] - linear[-1]
        r2 = 1 - (rest**2).sum() / ((test_y - test_y.mean(0)) ** 2).sum()
        assert told.qualities[row].r2 == pytest.approx(r2, abs=1e-6)
        usual = both.readings["excluded"].told
        assert usual is not None and usual.qualities[row].r2 != pytest.approx(r2, abs=1e-4)  # it does change the number


def test_the_command_line_gives_the_same_numbers(both: Browser, loaded: Loaded) -> None:
    opening = open_target(replace(loaded.target, include_special=True))
    again = result_of(opening)
    assert torch.equal(again.plan.train, both.readings["included"].plan.train)
    assert torch.equal(again.plan.included, both.readings["included"].plan.included)
    n_usual, n_all = int(loaded.plan.included.sum()), int(again.plan.included.sum())
    note = f"(--include-special): {n_all - n_usual:,} tokens more than the usual {n_usual:,}."
    assert any(note in warning for warning in again.warnings)
    assert again.gate is not None and loaded.gate is not None and again.gate.n_tokens == loaded.gate.n_tokens
    spec = RunSpec(target=again.target, experiments=("error-vector",))
    (vector,) = result_of(runner.run(spec, again))
    told = both.readings["included"].told
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


def test_a_view_sees_its_own_policy_and_others_theirs(both: Browser, loaded: Loaded) -> None:
    asked = GetContext(context=3)
    usual = both.context(asked, 1)
    answer = both.set_policy(1, SetPolicy(request=9, policy="included"))
    ids = loaded.contexts.token_ids[:, :-1].numpy()
    special = np.isin(ids, sorted(loaded.model.special_ids))
    out = ~loaded.plan.included.numpy()[:, :-1]
    assert answer == PolicySet(
        request=9, policy="included", n_special=int((out & special).sum()), n_before=int((out & ~special).sum())
    )
    assert answer.n_special >= len(ids) and answer.n_before > 0
    mine, theirs = both.context(asked, 1), both.context(asked, 2)
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
    assert both.pairs(GetPairs(sae_ids=sae_ids), 1).n_tokens > both.pairs(GetPairs(sae_ids=sae_ids), 2).n_tokens
    both.forget(1)
    assert both.context(asked, 1) == usual


def test_switching_runs_neither_model_nor_saes(both: Browser, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    both.context(GetContext(context=5), 7)

    def never(*_: object) -> None:
        raise AssertionError("it ran again")

    with monkeypatch.context() as patch:
        patch.setattr(type(loaded.model), "forward", never)
        patch.setattr(type(loaded.saes[0]), "reconstruct", never)
        for policy in ("included", "excluded"):
            both.set_policy(7, SetPolicy(policy=policy))
            assert both.context(GetContext(context=5), 7).policy == policy


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
    fits = Fits(loaded, Browser(loaded).readings)
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


def test_a_fit_knows_its_policy(loaded: Loaded, both: Browser) -> None:
    told = both.readings["included"].told
    assert told is not None
    improvement = Improvement(maps={}, message=replace_message(told, epoch=told.epoch))
    assert not both.readings["included"].improve(improvement)  # the same maps, measured on more tokens
    assert both.readings["included"].maps


def replace_message(message: MapImproved, **fields: object) -> MapImproved:
    import msgspec

    return msgspec.structs.replace(message, **fields)
