"""The whole program on a pretended CUDA device: no mix of devices, the CPU's numbers, few waits, and what memory does.

What a GPU would do is not tested: that is `benchmarks/gpu.py`, on a machine that has one.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils._device import _device_constructors

from inspector.errors import ResourceError, is_out_of_memory
from inspector.experiments import choose
from inspector.runner import run as run_experiments
from inspector.session.protocol import (
    ContextScores,
    Failed,
    Generate,
    Generated,
    GetContext,
    GetDetail,
    MapImproved,
    TokenDetail,
)
from inspector.session.texts import Texts
from inspector.sources.sae_loading import load_sae
from inspector.sources.slices import Slices
from inspector.sources.target import Loaded, open_target
from inspector.spec import RunSpec, TargetSpec
from inspector.statistics.first_pass import Fit, collect_first
from inspector.statistics.passes import Activations
from inspector.statistics.second_pass import SecondPass, collect_second
from tests import toy
from tests.cli.conftest import Run, run  # noqa: F401  # commands are run here as there
from tests.interp.conftest import finished
from tests.pretended import Gpu, pretended
from tests.session.conftest import WORDS
from tests.session.test_service import Running

T = TypeVar("T")
CUDA = "cuda:0"
SHARED = ("norm-prediction", "error-vector", "fvu-nonlinear")
"""What both passes give."""
OWN = ("ce-splice", "cross-component")
"""Those that run the model on their own, with a short sample."""


@dataclass(frozen=True)
class World:
    """The same target on both sides."""

    gpu: Gpu
    on_cpu: Loaded
    on_gpu: Loaded

    def words(self, *, device: str) -> tuple[str, ...]:
        """As a command's TARGET."""
        target = self.on_cpu.target
        options = {"model": target.model, "suite": target.suite, "text": target.text, "device": device}
        return tuple(word for name, value in options.items() for word in (f"--{name}", str(value)))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A Gemma 2 of 16 dimensions, TopK SAEs of two widths and two L0s, 24 contexts of 32 tokens."""
    folder = tmp_path_factory.mktemp("toy")
    chosen = random.Random(0)
    text = " ".join(chosen.choice(WORDS) for _ in range(3000))
    (folder / "text.txt").write_text(text, encoding="utf-8")
    model = toy.write_toy_model(folder / "model")
    suite = toy.fit_toy_suite(toy.write_toy_suite(folder / "suite"), model, text)
    target = TargetSpec(
        model=str(model), suite=str(suite), text=str(folder / "text.txt"), contexts=24, context_length=32, device="cpu"
    )
    on_cpu = finished(open_target(target))
    _device_constructors.cache_clear()  # as in a process that enters the device before anything else
    with pretended() as gpu:
        yield World(gpu=gpu, on_cpu=on_cpu, on_gpu=finished(open_target(replace(target, device=CUDA))))


def assert_same(found: Any, expected: Any, path: str = "", rel: float = 1e-9) -> None:
    """Numbers to 1e-9, which another layout of a matrix in memory may cost a sum in float64; the rest exactly."""
    if isinstance(expected, dict):
        assert set(found) == set(expected), path
        for key in set(expected) - {
            "device",
            "command",
            "folder",
            "fingerprint",
            "made",
            "created",
            "id",
            "provenance",
        }:
            assert_same(found[key], expected[key], f"{path}/{key}", rel)
    elif isinstance(expected, list):
        assert len(found) == len(expected), path
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert_same(a, b, f"{path}/{i}", rel)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=rel, abs=1e-3 * rel, nan_ok=True), path
    else:
        assert found == expected, path


def results(loaded: Loaded, *experiments: str, **more: Any) -> list[dict[str, Any]]:
    return finished(run_experiments(RunSpec(target=loaded.target, experiments=experiments, **more), loaded))


def in_slices(loaded: Loaded, *, hold: bool) -> Loaded:
    """The same target with SAEs that come twenty latents of 16 numbers at a time."""
    slices = Slices(loaded.model.device, 4 * 16 * 20)
    saes = tuple(load_sae(sae.ref, loaded.model.device, 16, slices=slices, hold=hold) for sae in loaded.saes)
    return replace(loaded, saes=saes)


def test_the_device_refuses_what_cuda_refuses(world: World) -> None:
    there, here = torch.ones(3, device=CUDA), torch.ones(3)
    mixes = {
        "a sum": lambda: there + here,
        "a sum in place": lambda: here.add_(there),
        "a product": lambda: torch.ones(2, 3) @ there[:, None],
        "an index": lambda: here[there > 0],
        "a value": lambda: there.index_put_((torch.tensor([0]),), here[:1]),
        "two of them": lambda: torch.cat([there, torch.ones(3, device="cuda:1")]),
        "numpy": lambda: np.asarray(there),
    }
    for name, mix in mixes.items():
        with pytest.raises((RuntimeError, TypeError)):
            mix()
            pytest.fail(name)
    assert (there + torch.tensor(2.0)).device == there.device  # a number without dimensions is let through
    with pytest.raises(RuntimeError, match="invalid device"):
        torch.ones(3, device="cuda:2")
    assert torch.cuda.is_available()


def test_models_are_built_without_memory_as_ever(world: World) -> None:
    with torch.device("meta"):
        made = torch.tensor([1.0]), torch.empty(2)
    assert [each.device.type for each in made] == ["meta", "meta"]


def test_it_counts_what_waits_and_nothing_else(world: World) -> None:
    def waits(*work: Any) -> int:
        before = world.gpu.waits.total()
        for each in work:
            each()
        return world.gpu.waits.total() - before

    x, places = torch.ones(4, 3, device=CUDA), torch.tensor([1, 2])
    assert waits(lambda: (x @ x.T).softmax(dim=-1).topk(2), lambda: x[places.to(CUDA, non_blocking=True)]) == 0
    waiting = [x.sum().item, lambda: bool(x.any()), x.cpu, x.tolist, lambda: places.to(CUDA), lambda: x[places]]
    waiting += [x.nonzero, lambda: torch.tensor([1.0], device=CUDA), lambda: float(x[0, 0])]
    assert [waits(each) for each in waiting] == [1] * len(waiting)
    assert waits(lambda: x[x[:, 0] > 0]) >= 1


def test_gradients_are_those_of_the_cpu(world: World) -> None:
    values = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    found = []
    for device in ("cpu", CUDA):
        weight = torch.nn.Parameter(values.clone().to(device))
        (torch.ones(2, 5, device=device) @ weight).square().sum().backward()
        torch.optim.Adam([weight]).step()
        found.append(weight.detach().cpu())
    assert torch.equal(*found)


def test_gradients_of_a_functions_own_are_those_of_the_cpu(world: World) -> None:
    """As of JumpReLU's thresholds, which no operator inside has."""

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return (x > 0).to(x.dtype)

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
            return 2 * grads[0]

    found = []
    for device in ("cpu", CUDA):
        weight = torch.nn.Parameter(torch.arange(-2.0, 3.0).to(device))
        (Doubled.apply(weight) * torch.arange(5.0, device=device)).sum().backward()
        assert weight.grad is not None
        found.append(weight.grad.cpu())
    assert torch.equal(*found) and torch.equal(found[0], 2 * torch.arange(5.0))


@pytest.mark.parametrize("names", [SHARED, OWN])
def test_results_are_those_of_the_cpu(world: World, names: tuple[str, ...]) -> None:
    params = {"contexts": "2"} if names == OWN else {}
    assert_same(results(world.on_gpu, *names, params=params), results(world.on_cpu, *names, params=params))


@pytest.mark.parametrize("held", [True, False])
def test_saes_in_slices_give_the_same(world: World, held: bool) -> None:
    found, expected = (results(each, *SHARED) for each in (in_slices(world.on_gpu, hold=held), world.on_cpu))
    assert_same(found, expected, rel=1e-5)  # float32 sums in another order


@pytest.mark.parametrize("n_saes", [1, 4])
def test_a_pass_waits_twice_per_batch_however_many_saes(world: World, n_saes: int) -> None:
    """For the marks of outliers and for the sums. What the model waits for is transformers' look at its positions."""
    loaded = replace(world.on_gpu, saes=world.on_gpu.saes[:n_saes])
    activations = Activations(loaded=loaded, batch_size=4, outliers=loaded.outliers)
    batches = [math.ceil(int(part.any(dim=1).sum()) / 4) for part in (loaded.plan.train, loaded.plan.test)]

    def waits(work: Generator[Any, None, T]) -> tuple[T, int]:
        world.gpu.waits.clear()
        done = finished(work)
        own = {line: n for line, n in world.gpu.waits.items() if not line.startswith("sources/forward.py")}
        assert world.gpu.waits.total() - sum(own.values()) <= 2 * len(loaded.contexts.token_ids), world.gpu.waits
        return done, sum(own.values())

    first, in_first = waits(collect_first(activations, loaded.plan))
    assert in_first <= 2 * batches[0] + 2, world.gpu.waits  # and where the sums are moved to, once
    maps = Fit.of(first.ordinary, intercept=True).maps
    _, in_second = waits(collect_second(activations, {"held out": partial(SecondPass, maps, loaded.plan)}))
    assert in_second <= 2 * batches[1], world.gpu.waits


def test_splices_wait_once_per_context(world: World) -> None:
    results(world.on_gpu, "ce-splice", params={"contexts": "2"})  # what is made at first use
    world.gpu.waits.clear()
    results(world.on_gpu, "ce-splice", params={"contexts": "2"})
    assert sum(n for line, n in world.gpu.waits.items() if line.startswith("statistics/spliced.py")) <= 2


def test_tokens_on_the_second_device(world: World, run: Run) -> None:  # noqa: F811
    own = ("tokens", "--contexts", "30", "--context-length", "32", "--json", "--quiet")
    found = [run(*own, *world.words(device=device)) for device in ("cuda:1", "cpu")]
    assert [each.code for each in found] == [0, 0], found[0].err
    assert_same(*(json.loads(each.out) for each in found))


def test_a_session_pages_and_generates_as_on_the_cpu(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []
    for loaded in (world.on_gpu, world.on_cpu):
        monkeypatch.setattr("inspector.session.service.Service._load", lambda _, loaded=loaded: (loaded, []))
        session = Running(loaded.target)
        view = session.attach()
        session.start()
        session.until(view, lambda told: isinstance(told, MapImproved) and told.finished)
        pages = [session.ask(view, GetContext(request=number, context=number)) for number in (1, 2, 3)]
        session.views.ask(view, Generate(request=9, prompt_ids=[1, 40, 50], max_tokens=5))
        session.until(view, lambda told: isinstance(told, Generated) and told.finished)
        told = [each for each in session.told[0] if isinstance(each, Generated)]
        session.end()
        answers.append((pages, told))
    (pages, told), (expected_pages, expected) = answers
    for page, other in zip(pages, expected_pages, strict=True):
        assert isinstance(page, ContextScores) and isinstance(other, ContextScores)
        assert (page.tokens, page.split, page.loss, page.x_norm) == (
            other.tokens,
            other.split,
            other.loss,
            other.x_norm,
        )
        for mine, theirs in zip(page.saes, other.saes, strict=True):
            assert (mine.l0, mine.sae_error_norm) == (theirs.l0, theirs.sae_error_norm)
            ours, wanted = (np.frombuffer(each.nonlinear_error_norm, "<f4") for each in (mine, theirs))
            np.testing.assert_allclose(ours, wanted, rtol=1e-5)  # float32 predictions
    assert [token for each in told for token in each.tokens] == [token for each in expected for token in each.tokens]


def test_widths_are_switched_while_they_come_in_slices(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The width that is looked at comes first, whichever was asked for before, with the CPU's numbers and latents."""
    there = in_slices(world.on_gpu, hold=True)
    monkeypatch.setattr("inspector.session.service.Service._load", lambda _: (there, []))
    session = Running(there.target)
    view, texts = session.attach(), Texts(world.on_cpu)
    narrow, wide = (there.saes[row].ref.sae_id for row in (0, -1))
    for request, sae_id in enumerate((wide, narrow, wide), start=1):
        session.views.ask(view, GetContext(request=request, context=request, first=sae_id))
    session.start()
    session.until(view, lambda told: isinstance(told, ContextScores) and told.request == 3 and not told.waiting)
    details = [
        session.ask(view, GetDetail(request=number, source="context", context=3, position=17, sae_id=sae_id))
        for number, sae_id in enumerate((wide, narrow), start=4)
    ]
    cancelled = {told.request for told in session.told[0] if isinstance(told, Failed)}
    pages = [told for told in session.told[0] if isinstance(told, ContextScores) and told.request == 3]
    session.end()
    assert cancelled == {1, 2}
    assert [page.waiting[:1] for page in pages[:1]] == [[wide]] and len(pages) == 1 + len(there.saes)
    expected = texts.context(1, GetContext(context=3))
    for found, wanted in zip(pages[-1].saes, expected.saes, strict=True):
        assert found.l0 == wanted.l0
        ours, theirs = (np.frombuffer(each.sae_error_norm, "<f4") for each in (found, wanted))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)  # float32 sums in another order
    for detail, sae_id in zip(details, (wide, narrow), strict=True):
        asked = GetDetail(source="context", context=3, position=17, sae_id=sae_id)
        assert isinstance(detail, TokenDetail)
        assert_same(*(msgspec.to_builtins(each.latents) for each in (detail, texts.detail(1, asked))), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu"])
def test_training_gives_the_cpus_saes(
    world: World,
    run: Run,  # noqa: F811
    tmp_path: Path,
    architecture: str,
) -> None:
    own = ("--layer", "1", "--widths", "32", "--l0", "4", "--tokens", "4000", "--context-length", "32", "--json")
    target = world.on_cpu.target
    rows, weights = [], []
    for device in (CUDA, "cpu"):
        source = ("--model", str(target.model), "--text", str(target.text), "--device", device, "--quiet")
        out = tmp_path / device
        trained = run("train", *source, *own, "--architecture", architecture, "--out", str(out))
        assert trained.code == 0, trained.err
        rows.append(json.loads(trained.out)["saes"])
        (file,) = out.rglob("sae_weights.safetensors")
        weights.append(load_file(file))
    assert_same(*rows)
    for name, wanted in weights[1].items():
        torch.testing.assert_close(weights[0][name], wanted)


# ---- memory ---------------------------------------------------------------------------------------------------------


def sweep(world: World) -> list[dict[str, Any]]:
    return results(replace(world.on_gpu, saes=world.on_gpu.saes[:1]), "norm-prediction", batch_size=8)


def outcome_at(world: World, number: int, expected: list[dict[str, Any]]) -> str:
    """What becomes of a run whose memory runs out once, at an allocation."""
    world.gpu.allocations, world.gpu.fails_at = 0, number
    try:
        found = sweep(world)
    except Exception as error:
        assert isinstance(error, ResourceError) or is_out_of_memory(error), f"allocation {number}"
        return "refused"
    finally:
        world.gpu.fails_at = None
    assert_same(found, expected)
    return "went on"


def allocations(world: World) -> list[str]:
    """The line behind every allocation of a run."""
    world.gpu.allocations, world.gpu.asking = 0, []
    sweep(world)
    lines, world.gpu.asking = world.gpu.asking, None
    return lines


def test_memory_that_runs_out_once_changes_no_number(world: World) -> None:
    expected, n = sweep(world), len(allocations(world))
    outcomes = [outcome_at(world, number, expected) for number in range(n // 8, n, n // 4)]
    assert "went on" in outcomes


@pytest.mark.slow
def test_memory_that_runs_out_at_any_line_changes_no_number(world: World) -> None:
    """At the first and at the last allocation of each line: those between are the same in other batches.

    The first batch has eight contexts, so what it asks of the model and of an SAE goes on in halves. Where there is
    nothing to halve, a single context, empty sums, or what is concluded from them, the run is refused.
    """
    expected, lines = sweep(world), allocations(world)
    firsts = {line: number for number, line in reversed(list(enumerate(lines)))}
    lasts = {line: number for number, line in enumerate(lines)}
    outcomes = {n: outcome_at(world, n, expected) for n in sorted({*firsts.values(), *lasts.values()})}
    asked = {line: outcomes[number] for line, number in firsts.items() if line.startswith("sources/")}
    assert len(asked) > 10 and set(asked.values()) == {"went on"}, asked
    assert all(outcomes[number] == "refused" for line, number in firsts.items() if line.startswith("engine/scores.py"))


# ---- everything -----------------------------------------------------------------------------------------------------


FEW = {"contexts": 2, "tokens": 120, "latents": 20, "sae_tokens": 512, "seeds": 1, "expansion": 2, "resamples": 20}
"""Of everything as little as shows whether a device is mixed: quality is looked at elsewhere."""
SMALL = tuple(each.id for each in choose(["all"]) if each.needs_target)
"""Simulations know no device."""


@pytest.mark.slow
def test_all_experiments_give_the_cpus_results(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name, loaded in (("gpu", world.on_gpu), ("cpu", world.on_cpu)):
        monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path / name))  # or one would take what the other trained
        found.append(results(loaded, *SMALL, params={key: str(value) for key, value in FEW.items()}))
    assert_same(*found)


@pytest.mark.slow
def test_a_judge_of_this_process_runs_there(
    world: World,
    run: Run,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DM_INSPECT_ANSWERS_DIR", str(tmp_path / "answers"))
    monkeypatch.setattr("inspector.interp.prompts.EXPLANATION_TOKENS", 8)
    judge = toy.write_toy_model(tmp_path / "judge", "llama", context=4096)
    asked = ("--latents", "4", "--window", "7", "--shown", "12", "--judge", f"local:{judge}", "--contexts", "200")
    own = ("interp", *asked, "--widths", "64", "--l0", "4", "--context-length", "32", "--json", "--quiet")
    found = [run(*own, *world.words(device=device)) for device in (CUDA, "cpu")]
    assert [each.code for each in found] == [0, 0], found[0].err
    assert_same(*(json.loads(each.out)["saes"] for each in found))


def cards(loaded: Loaded) -> list[dict[str, Any]]:
    """A token's anatomy, its likes and a latent's card, as a session answers them."""
    from inspector.session.anatomy import anatomy_of
    from inspector.session.latents import Latents
    from inspector.session.protocol import GetAnatomy, GetLatent, GetSimilar
    from inspector.session.similar import Similar
    from inspector.statistics.token_table import fitted_maps

    texts = Texts(loaded)
    fit = texts.fits["excluded"]
    fit.maps, fit.epoch = finished(fitted_maps(loaded, 8)), 1
    sae_id = loaded.saes[1].ref.sae_id
    place: dict[str, Any] = {"source": "context", "context": 5, "position": 17, "sae_id": sae_id}
    answers = (
        anatomy_of(texts, 0, GetAnatomy(**place)),
        Similar(texts).answer(0, GetSimilar(**place)),
        Latents(loaded).answer(GetLatent(sae_id=sae_id, index=3)),
    )
    return [msgspec.to_builtins(list(answer)[-1]) for answer in answers]


def test_cards_are_the_same(world: World) -> None:
    # float32 through the same operations; 1e-5 is what another order of a sum leaves.
    assert_same(cards(world.on_gpu), cards(world.on_cpu), rel=1e-5)
