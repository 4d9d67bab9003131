"""Memory of a whole target: told before loading, kept to, and refused with exit code 5; float16 Gemma."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from inspector import runner
from inspector.cli.narration import memory_text
from inspector.errors import ExitCode, ResourceError, TargetError
from inspector.events import Event, Loading, MemoryPlanned
from inspector.session.frames import unpack
from inspector.session.latents import Latents
from inspector.session.protocol import (
    ContextScores,
    Failed,
    GetContext,
    GetDetail,
    GetLatent,
    LoadProgress,
    Ready,
)
from inspector.session.service import Service
from inspector.session.texts import Texts
from inspector.sources.memory_plan import _smallest, moved_bytes, plan_memory
from inspector.sources.memory_sizes import sizes_of
from inspector.sources.memory_sums import Way, needed_bytes, sae_bytes
from inspector.sources.sliced import SlicedSae
from inspector.sources.slices import Matrix, Slices
from inspector.sources.target import Loaded, ResolvedTarget, open_target, resolve
from inspector.spec import RunSpec, TargetSpec
from inspector.statistics.costs import Workload
from inspector.statistics.first_pass import collect_first
from inspector.statistics.passes import Activations
from tests.session.test_service import Running
from tests.toy import write_toy_model, write_toy_sae

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, toy_dirs: dict[str, Path]) -> TargetSpec:
    folder = tmp_path_factory.mktemp("memory")
    (folder / "text.txt").write_text(" ".join(f"word{i * i % 97}" for i in range(3000)))
    for d_sae in (64, 8192, 16384):
        write_toy_sae(folder / "suite" / f"w{d_sae}", d_in=16, d_sae=d_sae, k=4, hook_name=HOOK)
    return TargetSpec(
        model=str(toy_dirs["gemma2"]),
        suite=str(folder / "suite"),
        text=str(folder / "text.txt"),
        contexts=20,
        device="cpu",
        accept_gate=True,
    )


def opened(target: TargetSpec, events: list[Event] | None = None) -> Loaded:
    return result_of(open_target(target), events)


def result_of(work: Generator[Event, None, Any], events: list[Event] | None = None) -> Any:
    while True:
        try:
            event = next(work)
        except StopIteration as done:
            return done.value
        if events is not None:
            events.append(event)


def budget_that(choice: ResolvedTarget, slices: bool) -> int:
    """Bytes with which SAEs are sliced, or with which narrower chunks are enough."""
    sizes = sizes_of(choice.files, choice.refs, choice.target, dtype_bytes=4, session=False, on_host=True)
    budget = plan_memory(sizes, 10**12, device="cpu").needed
    while True:
        made = plan_memory(sizes, budget, device="cpu")
        if bool(made.sliced) if slices else made.chunk_tokens is not None:
            return budget
        budget = int(0.98 * budget)


def test_the_plan_is_told_before_anything_is_loaded(target: TargetSpec) -> None:
    events: list[Event] = []
    loaded = opened(target, events)
    (planned,) = (event for event in events if isinstance(event, MemoryPlanned))
    first = next(event for event in events if isinstance(event, Loading) and event.what == "model")
    assert events.index(planned) < events.index(first)
    assert loaded.memory is not None
    assert (planned.rows, planned.needed) == (loaded.memory.rows, loaded.memory.needed)
    assert planned.device == "cpu" and planned.budget > planned.needed
    rows = dict(planned.rows)
    n_parameters = sum(tensor.numel() for tensor in load_file(Path(target.model) / "model.safetensors").values())
    assert rows["model weights"] == 4 * n_parameters
    assert rows["SAE weights (3)"] == sum(4 * (2 * 16 * m + 3 * m + 16) for m in (64, 8192, 16384))
    assert loaded.memory.notes == ()


@pytest.mark.parametrize("slices", [False, True])
def test_within_less_memory_the_numbers_stay(target: TargetSpec, slices: bool) -> None:
    usual = opened(target)
    small = opened(replace(target, max_memory=budget_that(resolve(target), slices)))
    assert small.memory is not None and small.memory.needed <= (small.target.max_memory or 0)
    if not slices:
        assert [sae.chunk_tokens for sae in small.saes] == [small.memory.chunk_tokens] * 3
    assert any(isinstance(sae, SlicedSae) for sae in small.saes) == slices
    spec = RunSpec(target=target, experiments=("error-vector",), batch_size=16)
    (expected,), (found,) = result_of(runner.run(spec, usual)), result_of(runner.run(spec, small))
    assert small.at_once(4096) == small.memory.contexts_at_once < 4096
    for a, b in zip(expected["saes"], found["saes"], strict=True):
        assert a["r2_pooled"] == pytest.approx(b["r2_pooled"], abs=1e-5)  # other chunks: float32's last digits
    narrow = any("take 16 tokens at once" in w or "take 64 tokens at once" in w for w in found["warnings"])
    assert narrow == (small.memory.chunk_tokens is not None)
    assert any("SAEs in slices of" in warning for warning in found["warnings"]) == slices
    assert found["provenance"]["fingerprint"] == expected["provenance"]["fingerprint"]


@pytest.fixture(scope="module")
def seven(target: TargetSpec, tmp_path_factory: pytest.TempPathFactory) -> TargetSpec:
    """Seven widths, as the 9B model has them, a thousandth as wide."""
    suite = tmp_path_factory.mktemp("seven")
    for power in range(8, 15):
        kind = {"k": 4} if power % 2 else {"threshold": 2.0}
        write_toy_sae(suite / f"w{2**power}", d_in=16, d_sae=2**power, hook_name=HOOK, **kind)  # type: ignore[arg-type]
    return replace(target, suite=str(suite), contexts=12)


class Both(NamedTuple):
    """The seven widths twice: there whole, and in slices; and what was told of the latter."""

    whole: Loaded
    small: Loaded
    told: list[Event]


@pytest.fixture(scope="module")
def both(seven: TargetSpec) -> Both:
    choice = resolve(seven)
    budget = _smallest(sizes_of(choice.files, choice.refs, seven, dtype_bytes=4, session=True, on_host=True))
    events: list[Event] = []
    whole = result_of(open_target(seven, session=True))
    return Both(whole, result_of(open_target(replace(seven, max_memory=budget), session=True), events), events)


def test_seven_widths_in_a_budget_of_less_than_one_run_and_are_looked_at(seven: TargetSpec, both: Both) -> None:
    """All numbers of the app and of a run are those of SAEs that are there whole, to float32's last digits."""
    whole, small, events = both
    choice = resolve(seven)
    sizes = sizes_of(choice.files, choice.refs, seven, dtype_bytes=4, session=True, on_host=True)
    budget = _smallest(sizes)
    plan = small.memory
    assert plan is not None
    assert len(plan.sliced_from_disk) >= 5 and not plan.sliced_from_host
    assert budget < needed_bytes(sizes, Way(contexts=1)) - sum(map(sae_bytes, choice.refs)) // 3
    (told,) = (event for event in events if isinstance(event, MemoryPlanned))
    assert "from disk" in told.slices and f"{len(plan.sliced)} of 7 SAEs in slices" in told.slices
    assert memory_text(told)[-1].strip() == told.slices
    shown, expected = Texts(small), Texts(whole)
    for context in range(2):
        found, wanted = (each.context(1, GetContext(context=context)) for each in (shown, expected))
        for one, other in zip(found.saes, wanted.saes, strict=True):
            assert unpack(one.l0).tolist() == unpack(other.l0).tolist()
            np.testing.assert_allclose(unpack(one.sae_error_norm), unpack(other.sae_error_norm), rtol=1e-4)
    for sae in whole.saes[1::4]:
        asked = GetDetail(source="context", context=1, position=9, sae_id=sae.ref.sae_id)
        one, other = shown.detail(1, asked), expected.detail(1, asked)
        assert [latent.index for latent in one.latents] == [latent.index for latent in other.latents]
        about = GetLatent(sae_id=sae.ref.sae_id, index=one.latents[0].index)
        mine, theirs = ([*Latents(each).answer(about)][-1] for each in (small, whole))
        assert mine is not None and theirs is not None
        assert (mine.density, mine.n_tokens) == (theirs.density, theirs.n_tokens)
        assert [each.index for each in mine.neighbours] == [each.index for each in theirs.neighbours]
    ids = ("error-vector", "norm-prediction")
    spec = RunSpec(target=seven, experiments=ids, batch_size=4)
    for found_one, wanted_one in zip(
        result_of(runner.run(spec, small)), result_of(runner.run(spec, whole)), strict=True
    ):
        for a, b in zip(found_one["saes"], wanted_one["saes"], strict=True):
            numbers = {key: value for key, value in b.items() if isinstance(value, float)}
            assert {key: a[key] for key in numbers} == pytest.approx(numbers, rel=1e-4, abs=1e-5)


def test_the_width_that_is_looked_at_comes_first_and_what_it_waits_for_is_told(both: Both) -> None:
    told: list[LoadProgress] = []
    texts = Texts(both.small, lambda _, message: told.append(message))
    ids = [sae.ref.sae_id for sae in both.small.saes if sae.comes_in_slices]
    answers = texts.scored(1, GetContext(request=5, context=3, first=ids[-1]))
    at_once = next(answers)
    assert at_once.waiting == [ids[-1], *ids[:-1]] and not told
    assert at_once.tokens and all(math.isnan(value) for value in unpack(at_once.saes[-1].l0))

    shown = next(answers)
    assert shown.waiting == ids[:-1] and not any(math.isnan(value) for value in unpack(shown.saes[-1].l0))
    sizes = [each.done_bytes for each in told]
    assert {(each.what, each.detail, each.total_bytes) for each in told} == {(ids[-1], "disk", 4 * 16 * 2**14)}
    assert len(sizes) > 1 and sizes == sorted(sizes) and sizes[-1] == 4 * 16 * 2**14

    other = texts.scored(1, GetContext(request=6, context=3, first=ids[2]))  # the width is switched meanwhile
    assert next(other).waiting == [ids[2], *(sae_id for sae_id in ids[:-1] if sae_id != ids[2])]
    assert ids[2] not in next(answers).waiting, "what was begun goes on with the width that is looked at now"
    last = [*other][-1]
    wanted = Texts(both.whole).context(1, GetContext(context=3))
    assert last.waiting == [] and texts.context(1, GetContext(context=3)).waiting == []
    for one, another in zip(last.saes, wanted.saes, strict=True):
        np.testing.assert_allclose(unpack(one.sae_error_norm), unpack(another.sae_error_norm), rtol=1e-4)


def test_a_step_to_another_token_brings_no_encoder_again(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """The latents were found with x_hat; another token's are looked up, and are those of the whole SAE."""
    texts, whole = Texts(both.small), Texts(both.whole)
    sliced = [sae.ref.sae_id for sae in both.small.saes if sae.comes_in_slices]
    asked = [
        GetDetail(source="context", context=3, position=position, sae_id=sae_id)
        for sae_id in sliced
        for position in (5, 31, 17)
    ]
    for sae_id in sliced:
        texts.detail(1, GetDetail(source="context", context=3, position=4, sae_id=sae_id))
    monkeypatch.setattr(Slices, "arriving", lambda *_: pytest.fail("an encoder was brought"))
    for one in asked:
        found, wanted = texts.detail(1, one), whole.detail(1, one)
        assert [latent.index for latent in found.latents] == [latent.index for latent in wanted.latents]
        assert [latent.activation for latent in found.latents] == pytest.approx(
            [latent.activation for latent in wanted.latents], rel=1e-4
        )
        assert found.n_active == wanted.n_active > 0


def test_a_pass_brings_each_slice_once_per_batch_as_the_plan_counts(
    seven: TargetSpec, both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought: Counter[int] = Counter()
    arriving = Slices.arriving

    def counted(self: Slices, matrix: Matrix, n: int) -> Any:
        brought[id(matrix)] += 1
        return arriving(self, matrix, n)

    monkeypatch.setattr(Slices, "arriving", counted)
    small, size = both.small, 4
    contexts = int(small.plan.train.any(dim=1).sum())
    result_of(collect_first(Activations(loaded=small, batch_size=size), small.plan))
    assert small.memory is not None and contexts > size
    memory = replace(small.memory, contexts_at_once=size)
    assert dict(brought) == dict.fromkeys(brought, math.ceil(contexts / size)) and len(brought) == len(memory.sliced)
    choice = resolve(seven)
    sizes = sizes_of(choice.files, choice.refs, seven, dtype_bytes=4, session=False, on_host=True)
    work = replace(Workload.of_plan(sizes, small.plan, layer=1, n_layers=3), memory=memory)

    def per_turn(n: int) -> int:
        return sum(moved_bytes(ref, n * sizes.length) for ref in choice.refs if ref.sae_id in memory.sliced)

    assert work.walk("moments", contexts, sae=1.0).disk == math.ceil(contexts / size) * per_turn(size)
    roomy = replace(work, memory=replace(memory, contexts_at_once=64))  # a run takes eight all the same
    assert roomy.walk("moments", 17, sae=1.0).disk == 3 * per_turn(RunSpec.batch_size)


def test_a_view_has_one_text_scored_at_a_time(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Service, "_load", lambda _: (both.small, []))
    session = Running(both.small.target)
    view = session.attach()
    ids = [sae.ref.sae_id for sae in both.small.saes]
    for request, sae_id in enumerate((ids[-1], ids[2]), start=1):
        session.views.ask(view, GetContext(request=request, context=request, first=sae_id))
    session.start()
    failed = session.until(view, lambda told: told.request == 1)
    assert isinstance(failed, Failed) and failed.exit_code == ExitCode.CANCELLED
    session.until(view, lambda told: isinstance(told, ContextScores) and told.request == 2 and not told.waiting)
    order = [told.waiting for told in session.told[0] if isinstance(told, ContextScores) and told.request == 2]
    assert order[0][0] == ids[2] and [len(each) for each in order] == list(range(len(order) - 1, -1, -1))
    ready = session.until(view, lambda told: isinstance(told, Ready))
    assert isinstance(ready, Ready) and ready.in_slices
    session.end()


def test_too_little_is_refused_before_the_model_is_loaded(target: TargetSpec) -> None:
    events: list[Event] = []
    with pytest.raises(ResourceError, match=r"--max-memory allows 1 MB\. What would fit: .*--max-memory \d+M") as error:
        opened(replace(target, max_memory=10**6), events)
    assert error.value.exit_code == ExitCode.RESOURCE
    assert not any(isinstance(event, Loading) and event.what == "model" for event in events)
    # And what it names does fit.
    value = int(str(error.value).rsplit("--max-memory ", 1)[1].rstrip("M."))
    assert opened(replace(target, max_memory=value * 10**6)).memory is not None


def test_more_than_there_is_is_refused(target: TargetSpec) -> None:
    with pytest.raises(ResourceError, match=r"--max-memory allows 1000000\.0 GB, but cpu has only"):
        opened(replace(target, max_memory=10**15))


def test_the_table_has_what_counts() -> None:
    event = MemoryPlanned(
        rows=(("model weights", 5_230_000_000), ("SAE weights (7)", 60_100_000_000), ("sums per context", 1_000_000)),
        needed=65_331_000_000,
        budget=79_100_000_000,
        device="cuda:0",
    )
    assert memory_text(event) == [
        "memory on cuda:0:",
        "  model weights         5.23 GB",
        "  SAE weights (7)      60.10 GB",
        "  together, at most    65.33 GB of 79.10 GB that may be used",
    ]


# ---- float16 --------------------------------------------------------------------------------------------------------


def in_half(folder: Path, stored: torch.dtype, said: str) -> Path:
    weights = {name: value.to(stored) for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config.pop("torch_dtype", None)
    (folder / "config.json").write_text(json.dumps(config | {"dtype": said}))
    return folder


@pytest.mark.parametrize(
    ("stored", "said"), [(torch.float16, "float16"), (torch.float16, "bfloat16"), (torch.bfloat16, "float16")]
)
def test_a_gemma_in_float16_is_refused_with_the_reason(
    target: TargetSpec, tmp_path: Path, stored: torch.dtype, said: str
) -> None:
    half = replace(target, model=str(in_half(write_toy_model(tmp_path / "m", "gemma2"), stored, said)))
    with pytest.raises(TargetError, match=r"is a Gemma in float16, which ends at 65,504 .* or say --dtype float32\.$"):
        resolve(half)
    assert resolve(replace(half, dtype="float32")).layer == 1  # who says so knows


def test_other_types_and_models_are_not(target: TargetSpec, tmp_path: Path) -> None:
    resolve(replace(target, model=str(in_half(write_toy_model(tmp_path / "g", "gemma2"), torch.bfloat16, "bfloat16"))))
    resolve(replace(target, model=str(in_half(write_toy_model(tmp_path / "l", "llama"), torch.float16, "float16"))))
