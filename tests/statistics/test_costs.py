"""What passes cost: operations as torch counts them, every measurement counted once, and what is left of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from inspector.engine.plan import PAPER_TOKENS, PAPER_TRAIN
from inspector.events import PassProgress
from inspector.experiment import parse_params
from inspector.experiments import choose
from inspector.sources.memory_sums import Sizes
from inspector.spec import SaeRef
from inspector.statistics import costs
from inspector.statistics.costs import Ahead, Pass, Rates, Workload
from inspector.statistics.passes import CACHE_BYTES

if TYPE_CHECKING:
    from pathlib import Path

RATES = Rates(model=1e12, sae=1e12, sums=1e11, numbers=1e10)
EVERYTHING = choose(["all"])


def workload(n_parameters: int = 9_000_000_000, n_saes: int = 3, length: int = 1024) -> Workload:
    saes = tuple(
        SaeRef(sae_id=str(i), release="", layer=20, hook_name="", d_in=3584, d_sae=16384 << i, nominal_l0=60.0)
        for i in range(n_saes)
    )
    sizes = Sizes(
        n_parameters=n_parameters, dtype_bytes=2, d_model=3584, n_heads=16, d_ff=14336, vocab_size=256_000, saes=saes,
        d_in=3584, n_contexts=300, length=length,
    )  # fmt: skip
    return Workload.expected(sizes, layer=20, n_layers=42, start=200, train_tokens=None)


def test_constants_are_those_of_the_code_that_is_counted() -> None:
    assert costs.KEPT_BYTES == CACHE_BYTES
    assert pytest.approx(PAPER_TRAIN / PAPER_TOKENS) == costs.TRAIN_SHARE


def test_the_papers_tokens_are_expected_of_the_papers_contexts() -> None:
    work = workload()
    assert work.n_tokens == 300 * 823 == PAPER_TOKENS
    assert work.n_train == PAPER_TRAIN
    assert work.contexts == 300


@pytest.mark.parametrize("layer", [0, 2])
def test_a_forward_pass_is_counted_as_torch_counts_it(tmp_path: Path, layer: int) -> None:
    """Attention and all products; torch counts both. Norms and the like are no products."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    d, length, vocabulary = 64, 32, 300
    config = Gemma2Config(
        hidden_size=d, intermediate_size=4 * d, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
        head_dim=16, vocab_size=vocabulary, attn_implementation="eager",
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    sizes = replace(
        workload().sizes, n_parameters=sum(each.numel() for each in model.parameters()), d_model=d, d_in=d,
        vocab_size=vocabulary, length=length, n_contexts=1,
    )  # fmt: skip
    work = replace(workload(), sizes=sizes, n_layers=3, layer=layer)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, length, dtype=torch.int64), use_cache=False)
    assert work.forward(1, whole=True) == pytest.approx(counter.get_total_flops(), rel=0.02)
    body = counter.get_total_flops() - 2 * length * d * vocabulary
    assert work.forward(1) == pytest.approx(body * (layer + 1) / 3, rel=0.02)


def test_an_sae_and_a_scatter_are_counted_as_torch_counts_them() -> None:
    work = workload(n_saes=1)
    (ref,) = work.saes
    x, w = torch.zeros(4, ref.d_in, device="meta"), torch.zeros(ref.d_in, ref.d_sae, device="meta")
    with FlopCounterMode(display=False) as counter:
        x @ w
    assert work.coded(4, work.saes) == pytest.approx(counter.get_total_flops(), rel=0.01)  # and 60 decoded latents
    with FlopCounterMode(display=False) as counter:
        x.T @ x
    assert work.squares(4, 1) == counter.get_total_flops()


@pytest.mark.parametrize("experiment", EVERYTHING, ids=lambda each: each.id)
def test_every_experiment_says_what_it_costs(experiment: object) -> None:
    (each,) = [one for one in EVERYTHING if one is experiment]
    (found,), shared = costs.estimate([each], parse_params([each], {}), workload(), RATES)
    assert found.passes
    assert found.seconds is not None
    assert found.seconds > 0
    assert (shared > 0) is each.needs_target
    assert found.seconds == pytest.approx(sum(one.seconds(RATES) for one in found.passes))
    assert found.own_seconds == pytest.approx(found.seconds - shared)
    assert not found.measured


def test_a_measurement_that_experiments_share_is_counted_once() -> None:
    chosen = choose(["norm-test", "per-token-split", "error-vector"])
    (first, second, plain), shared = costs.estimate(chosen, parse_params(chosen, {}), workload(), RATES)
    assert first.own_seconds == pytest.approx((first.seconds or 0) - shared)
    assert (second.own_seconds, plain.own_seconds) == (0.0, 0.0)
    assert second.seconds == pytest.approx(first.seconds)  # each alone makes it
    assert plain.seconds == pytest.approx(shared)
    names = [each.name for each in costs.passes_of(chosen, parse_params(chosen, {}), workload())]
    assert names == ["moments", "scores", "token norms"]


def test_what_was_measured_stands_in_the_place_of_what_is_expected() -> None:
    chosen = choose(["ce-splice", "theory-c1"])
    (splice, theory), shared = costs.estimate(
        chosen, parse_params(chosen, {}), workload(), RATES, took={"ce-splice": 7.0}, shared_took=5.0
    )
    assert (splice.own_seconds, splice.seconds, splice.measured) == (7.0, 12.0, True)
    assert (theory.measured, shared) == (False, 5.0)
    assert theory.seconds == theory.own_seconds


def test_an_experiment_that_does_not_say_is_not_known_until_it_was_measured() -> None:
    silent = [replace(choose(["ce-splice"])[0], passes=None)]
    (before,), _ = costs.estimate(silent, parse_params(silent, {}), workload(), RATES)
    assert (before.own_seconds, before.seconds, before.passes) == (None, None, None)
    (after,), _ = costs.estimate(silent, parse_params(silent, {}), workload(), RATES, took={"ce-splice": 2.0})
    assert after.own_seconds == 2.0


def test_what_is_left_is_told_over_all_passes_at_the_pace_of_the_one_under_way() -> None:
    def told(name: str, done: int, total: int, seconds_left: float, rate: float = 10.0) -> PassProgress:
        return PassProgress(
            name=name, contexts_done=done, contexts_total=total, tokens_per_second=rate, seconds_left=seconds_left
        )

    passes = [Pass(name=name, contexts=10, sae=seconds) for name, seconds in (("moments", 2), ("scores", 1), ("p", 4))]
    ahead = Ahead(passes, Rates(model=1, sae=1, sums=1, numbers=1), length=10)
    # 10 contexts of 10 tokens at 10 tokens a second are 10 s where 2 were expected: five times as slow.
    assert ahead.left(told("moments", 9, 10, 1.0)) == pytest.approx(1.0 + 5 * (1 + 4))
    assert ahead.left(told("scores", 0, 5, 5.0)) == pytest.approx(5.0 + 5 * 4)
    assert ahead.left(told("p, held out", 9, 10, 1.0)) == pytest.approx(1.0)
    assert ahead.left(told("something else", 1, 2, 3.0)) == 3.0
