"""Which precision numbers are made in: never less than was asked for, and what bfloat16 changes where it was chosen."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inspector import runner
from inspector.sources import memory_plan
from inspector.sources.loading import load_model
from inspector.sources.memory_sizes import planned
from inspector.sources.model import LanguageModel
from inspector.sources.precision import effect_of, exact_products
from inspector.sources.target import open_target, resolve
from inspector.spec import RunSpec, TargetSpec, command_of
from tests.sources.test_target_memory import result_of, target

__all__ = ["target"]  # the fixture

HOOK = "blocks.1.hook_resid_post"
TOKENS = torch.arange(3, 51).reshape(2, 24)


def less_by_the_old_switch() -> None:
    torch.backends.cuda.matmul.allow_tf32 = True


def less_by_the_new_switch() -> None:
    torch.backends.fp32_precision = "tf32"


def less_on_the_cpu() -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # type: ignore[attr-defined]


def less_everywhere() -> None:
    torch.set_float32_matmul_precision("medium")


@pytest.mark.parametrize(
    "less", [less_by_the_old_switch, less_by_the_new_switch, less_on_the_cpu, less_everywhere], ids=lambda f: f.__name__
)
def test_products_are_exact_in_every_pass_whoever_asked_for_less(
    toy_dirs: dict[str, Path], less: Callable[[], None]
) -> None:
    model = load_model(TargetSpec(model=str(toy_dirs["gemma2"]), device="cpu"))
    expected = model.activations(TOKENS, HOOK)
    try:
        less()
        assert torch.equal(model.activations(TOKENS, HOOK), expected)
        assert torch.get_float32_matmul_precision() == "highest"
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"  # type: ignore[attr-defined]
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"  # type: ignore[attr-defined]
        assert not torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    finally:
        torch.backends.fp32_precision = "none"
        exact_products()


@pytest.fixture(params=["gemma2", "llama"])
def rounded(request: pytest.FixtureRequest, toy_dirs: dict[str, Path], tmp_path: Path) -> Path:
    """A model whose weights are numbers that bfloat16 has."""
    folder = shutil.copytree(toy_dirs[request.param], tmp_path / "model")
    weights = {name: value.bfloat16().float() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return Path(folder)


def loaded_as(folder: Path, dtype: str) -> LanguageModel:
    return load_model(TargetSpec(model=str(folder), device="cpu", dtype=dtype))  # type: ignore[arg-type]


def test_a_model_in_bfloat16_computes_in_float32_what_the_float32_model_does(rounded: Path) -> None:
    """Bit for bit: the same weights, the same sums, also of Gemma's factor of the embedding, which is no weight."""
    model = loaded_as(rounded, "bfloat16")
    before = model.activations(TOKENS, HOOK)
    raised = model.in_float32(TOKENS, HOOK)
    assert torch.equal(raised, loaded_as(rounded, "float32").activations(TOKENS, HOOK))
    assert not torch.equal(raised, before)
    assert torch.equal(model.activations(TOKENS, HOOK), before)  # and afterwards it is what it was
    original = model._bridge.original_model
    assert {each.dtype for each in original.parameters()} == {torch.bfloat16}


# ---- auto -----------------------------------------------------------------------------------------------------------


def too_small(target: TargetSpec) -> TargetSpec:
    """With a byte less than float32 needs at the least."""
    resolved = resolve(target)
    usual = planned(resolved.files, resolved.refs, resolved.target, device="cpu", budget=10**12, session=False)
    assert (usual.dtype, usual.why) == ("float32", "")
    return replace(target, max_memory=memory_plan._smallest(usual.sizes) - 1)


def test_auto_takes_bfloat16_where_float32_does_not_fit_and_measures_what_that_changes(target: TargetSpec) -> None:
    small = result_of(open_target(too_small(target)))
    assert small.model.dtype == torch.bfloat16
    assert small.effect is not None
    assert small.effect.why.startswith("In float32 it would not fit: at least ")
    assert small.effect.n_tokens == min(256, int(small.plan.included[:2].sum()))
    assert 1e-4 < small.effect.x < 0.1  # eight bits are 4e-3
    assert small.effect.error_norms.keys() == {sae.ref.sae_id for sae in small.saes}
    spec = RunSpec(target=small.target, experiments=("error-vector",))
    assert "--dtype bfloat16" in command_of(spec, "error-vector")  # the same numbers where float32 would fit
    (found,) = result_of(runner.run(spec, small))
    assert found["provenance"]["dtype"] == "bfloat16"
    assert found["provenance"]["precision"]["x"] == small.effect.x
    assert small.effect.note in found["warnings"]
    # Who asks for it gets the same numbers, and is not told what they know.
    asked = result_of(open_target(replace(too_small(target), dtype="bfloat16")))
    assert asked.effect is None
    (again,) = result_of(runner.run(replace(spec, target=asked.target), asked))
    assert again["provenance"]["fingerprint"] == found["provenance"]["fingerprint"]
    assert again["saes"] == found["saes"]
    assert "precision" not in again["provenance"]


def test_what_is_measured_is_what_the_float32_model_says(target: TargetSpec, rounded: Path) -> None:
    """With weights that bfloat16 has, against a model that is loaded in float32."""
    small = result_of(open_target(too_small(replace(target, model=str(rounded)))))
    wide = loaded_as(rounded, "float32")
    rows = small.plan.included[:2].flatten().nonzero()[:256, 0]
    low, high = (
        model.activations(small.contexts.token_ids[:2], small.hook_name).flatten(0, 1)[rows]
        for model in (small.model, wide)
    )
    assert small.effect.x == pytest.approx(float((low - high).norm() / high.norm()), rel=1e-6)
    sae = small.saes[0]
    norms = [(x - sae.reconstruct(x).x_hat).norm(dim=1) for x in (low, high)]
    expected = ((norms[0] - norms[1]).abs() / norms[1]).median()
    assert small.effect.error_norms[sae.ref.sae_id] == pytest.approx(float(expected), rel=1e-4)  # other chunks


def test_without_room_for_a_layer_it_says_so() -> None:
    def no_room() -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError

    effect = effect_of(torch.zeros(5, 3), no_room, [], "In float32 it would not fit: it is large.")
    assert effect.x is None
    assert effect.note == (
        "The model is in bfloat16. In float32 it would not fit: it is large. What that changes could not be measured: "
        "one layer in float32 found no room beside it."
    )


def test_a_target_that_fits_nowhere_is_refused_in_either(target: TargetSpec) -> None:
    with pytest.raises(memory_plan.ResourceError, match=r"--max-memory allows 1 MB"):
        result_of(open_target(replace(target, max_memory=10**6)))
