"""The suite trainer: its gradients, its budget of randomness, and what it leaves on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sae_lens import SAE, TopKTrainingSAE, TopKTrainingSAEConfig

from inspector.errors import DataError, ResourceError, UsageError
from inspector.events import Loading, TrainProgress, Warned
from inspector.sources.sae_loading import load_sae
from inspector.sources.suites import list_suite
from inspector.training.checkpoint import FACTS_FILE, FOLDER, LOG_FILE
from inspector.training.learners import Architecture, LearnerSettings
from inspector.training.suite_files import Quality, SaePlan, plan_suite, read_qualities, remove_halves
from inspector.training.topk_learner import TopKLearner, topk_gradients
from inspector.training.trainer import Pace, TrainSettings, train_suite
from tests.training.taught import ARCHITECTURES, HOOK, LENGTH, OTHER, contexts, source, train_all_kinds

PLANS = (SaePlan(hook_name=HOOK, d_sae=64, k=4), SaePlan(hook_name=OTHER, d_sae=48, k=2))
SETTINGS = TrainSettings(tokens=4000, batch_tokens=128, block_contexts=16, special_ids=(1,))


def train(out: Path, settings: TrainSettings = SETTINGS, plans=PLANS, stop_after: int | None = None):  # type: ignore[no-untyped-def]
    """Events and, if it was not stopped after some steps, qualities."""
    work = train_suite(source, contexts(64), contexts(16, seed=9), plans, settings, out, {"model_name": "toy"})
    events = []
    while True:
        try:
            events.append(next(work))
        except StopIteration as finished:
            return events, finished.value
        if stop_after is not None and sum(isinstance(event, TrainProgress) for event in events) >= stop_after:
            work.close()
            return events, None


def assert_same_suites(one: Path, other: Path) -> None:
    """Every file byte for byte, but the log's clock."""
    names = sorted(path.relative_to(one).as_posix() for path in one.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(other).as_posix() for path in other.rglob("*") if path.is_file())
    for name in names:
        if name == LOG_FILE:
            assert log_lines(one) == log_lines(other)
        else:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


def log_lines(out: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (out / LOG_FILE).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_gradients_equal_those_of_the_dense_formulation() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, target = torch.randn(300, 8, generator=generator), torch.randn(300, 8, generator=generator)
    encoder, decoder = (torch.randn(40, 8, generator=generator, requires_grad=True) for _ in range(2))
    b_enc = torch.randn(40, generator=generator, requires_grad=True)
    with torch.no_grad():
        lean = topk_gradients(inputs, target, encoder, b_enc, decoder, 5, torch.float32)
    pre = inputs @ encoder.t() + b_enc
    top = pre.topk(5)
    dense = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    (target - dense @ decoder).square().sum(1).mean().backward()  # type: ignore[no-untyped-call]
    # float32 sums in another order.
    torch.testing.assert_close(lean.encoder, encoder.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lean.decoder, decoder.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lean.b_enc, b_enc.grad, rtol=1e-4, atol=1e-5)


def test_gradients_do_not_depend_on_how_many_entries_are_sorted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    inputs, encoder, decoder = (torch.randn(n, 8, generator=generator) for n in (100, 30, 30))
    arguments = (inputs, inputs, encoder, torch.zeros(30), decoder, 4, torch.float32)
    whole = topk_gradients(*arguments)
    monkeypatch.setattr("inspector.training.topk_learner.MAX_SORTED", 28)
    torch.testing.assert_close(topk_gradients(*arguments).decoder, whole.decoder, rtol=1e-4, atol=1e-5)


def test_bias_gradient_counts_both_places_of_b_dec() -> None:
    settings = LearnerSettings(auxiliary_weight=0.0)
    learner = TopKLearner("a", 32, 4, seed=0, settings=settings, center=torch.full((8,), 0.3))
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(2))
    learner.step(x, 0.0)
    reference = learner.b_dec.detach().clone().requires_grad_()
    pre = (x - reference) @ learner.encoder.detach().t()
    top = pre.topk(4)
    x_hat = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu()) @ learner.decoder.detach() + reference
    (x - x_hat).square().sum(1).mean().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(learner.b_dec.grad, reference.grad, rtol=1e-4, atol=1e-5)


def test_reconstruction_on_disk_equals_the_learners(tmp_path: Path) -> None:
    """The scaling of inputs is folded, rows have unit norm, and sae-lens' own inference agrees."""
    learner = TopKLearner("a", 32, 4, seed=0, settings=LearnerSettings(), center=torch.full((8,), 0.3))
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(3)) * 5
    scale = 0.25
    for i in range(20):
        learner.step(x * scale, 1e-3 * (1 + i / 40))
    sae = TopKTrainingSAE(
        TopKTrainingSAEConfig(d_in=8, d_sae=32, k=4, rescale_acts_by_decoder_norm=False, decoder_init_norm=None)
    )
    learner.write_into(sae, scale)
    sae.save_inference_model(tmp_path)
    loaded = SAE.load_from_disk(tmp_path, dtype="float32")
    with torch.no_grad():
        main = topk_gradients(
            x * scale - learner.b_dec,
            x * scale - learner.b_dec,
            learner.encoder,
            learner.b_enc,
            learner.decoder,
            4,
            torch.float32,
        )
        x_hat = x - main.residual / scale
        torch.testing.assert_close(loaded(x), x_hat, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(sae(x), x_hat, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(loaded.W_dec.norm(dim=1), torch.ones(32))


def test_suite_has_the_promised_layout_and_loads_with_plain_sae_lens(tmp_path: Path) -> None:
    _, qualities = train(tmp_path)
    assert sorted(path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("cfg.json")) == [
        "layer_1/mlp/width_48/l0_2",
        "layer_3/resid/width_64/l0_4",
    ]
    assert not (tmp_path / FOLDER).exists()
    folder = tmp_path / "layer_3/resid/width_64/l0_4"
    config = json.loads((folder / "cfg.json").read_text())
    assert (config["k"], config["dtype"]) == (4, "float16")
    assert (config["metadata"]["hook_name"], config["metadata"]["model_name"]) == (HOOK, "toy")
    sae = SAE.load_from_disk(folder, dtype="float32")
    assert sae.cfg.metadata.hook_name == HOOK
    assert sorted(qualities, key=lambda quality: quality.sae_id) == read_qualities(tmp_path)


def test_training_beats_an_untrained_sae_and_shuffled_weights_do_not(tmp_path: Path) -> None:
    _, trained = train(
        tmp_path / "long", TrainSettings(tokens=30_000, batch_tokens=128, block_contexts=16, special_ids=(1,))
    )
    _, untrained = train(
        tmp_path / "short", TrainSettings(tokens=128, batch_tokens=16, block_contexts=1, special_ids=(1,))
    )
    for quality, control in zip(trained, untrained, strict=True):
        assert quality.fvu < 0.6 * control.fvu
        assert quality.n_tokens == 16 * (LENGTH - 1)
    sae = SAE.load_from_disk(tmp_path / "long" / trained[0].sae_id, dtype="float32")
    x = source(torch.from_numpy(contexts(16, seed=9)))[HOOK][:, 1:].flatten(0, 1)
    with torch.no_grad():
        error, variance = (x - sae(x)).square().sum(), (x - x.mean(0)).square().sum()
        assert trained[0].fvu == pytest.approx(float(error / variance), rel=1e-4)
        sae.W_dec.data = sae.W_dec.data[torch.randperm(64, generator=torch.Generator().manual_seed(0))]
        assert (x - sae(x)).square().sum() > variance


@pytest.mark.parametrize("stop_after", [2, 4, 11])
def test_a_stopped_run_continues_to_the_same_bytes(tmp_path: Path, stop_after: int) -> None:
    train(tmp_path / "whole")
    train(tmp_path / "parts", stop_after=stop_after)
    assert (tmp_path / "parts" / FOLDER / FACTS_FILE).exists()
    train(tmp_path / "parts")
    assert_same_suites(tmp_path / "whole", tmp_path / "parts")


def test_an_sae_does_not_depend_on_what_is_trained_beside_it(tmp_path: Path) -> None:
    train(tmp_path / "both")
    train(tmp_path / "one", plans=PLANS[:1])
    weights = f"{PLANS[0].sae_id}/sae_weights.safetensors"
    assert (tmp_path / "both" / weights).read_bytes() == (tmp_path / "one" / weights).read_bytes()


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    train(tmp_path / "a")
    train(tmp_path / "b", TrainSettings(tokens=4000, seed=1, batch_tokens=128, block_contexts=16, special_ids=(1,)))
    weights = f"{PLANS[0].sae_id}/sae_weights.safetensors"
    assert (tmp_path / "a" / weights).read_bytes() != (tmp_path / "b" / weights).read_bytes()


def test_progress_counts_tokens_and_names_every_sae(tmp_path: Path) -> None:
    events, _ = train(tmp_path)
    assert isinstance(events[0], Warned)
    assert "read 2.7 times" in events[0].message
    steps = [event for event in events if isinstance(event, TrainProgress)]
    assert [event.tokens_done for event in steps[:3]] == [128, 256, 384]
    assert steps[-1].tokens_done == steps[-1].tokens_total
    assert set(steps[0].fvu) == {plan.sae_id for plan in PLANS}


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    train(tmp_path, stop_after=2)
    with pytest.raises(UsageError, match=r"checkpoint of a different training run. Choose another folder"):
        train(tmp_path, TrainSettings(tokens=5000, batch_tokens=128, block_contexts=16, special_ids=(1,)))


def test_dead_latents_are_revived_by_the_auxiliary_loss() -> None:
    def alive(weight: float) -> int:
        settings = LearnerSettings(dead_after_tokens=500, auxiliary_weight=weight)
        learner = TopKLearner("a", 64, 2, seed=0, settings=settings, center=torch.zeros(8))
        with torch.no_grad():
            learner.b_enc[8:] -= 3.0
        generator = torch.Generator().manual_seed(4)
        for _ in range(150):
            learner.step(torch.randn(128, 8, generator=generator), 1e-2)
        return 64 - learner.n_dead

    assert alive(0.0) <= 16
    assert alive(1.0) > 32


def test_learning_rate_rises_holds_and_falls() -> None:
    settings = LearnerSettings(learning_rate=1.0, warmup_tokens=100, decay_share=0.3)
    assert [settings.rate(done, 10_000) for done in (50, 100, 7000)] == [0.5, 1.0, 1.0]
    assert settings.rate(8500, 10_000) == pytest.approx(0.5)
    assert settings.rate(10_050, 10_000) == 0.0
    assert settings.rate(5, 100) == 0.5, "a short run warms up over a tenth of itself"


def test_a_time_budget_makes_the_run_one_of_fewer_tokens(tmp_path: Path) -> None:
    """Out of time from the first batch on, the run decays at once: 128 tokens are 70% of 183, so two batches."""
    hurried, _ = train(tmp_path / "hurried", replace(SETTINGS, minutes=1e-9))
    assert hurried[-1].tokens_total == 183
    assert [event.tokens_done for event in hurried if isinstance(event, TrainProgress)] == [128, 183]
    train(tmp_path / "relaxed", replace(SETTINGS, minutes=1e9))
    train(tmp_path / "unlimited")
    weights = f"{PLANS[0].sae_id}/sae_weights.safetensors"
    assert (tmp_path / "relaxed" / weights).read_bytes() == (tmp_path / "unlimited" / weights).read_bytes()


def test_text_of_special_tokens_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="hold no ordinary token"):
        next(train_suite(source, np.ones((4, 8), dtype=np.int64), contexts(2), PLANS, SETTINGS, tmp_path, {}))


def test_plan_names_sites_and_leaves_out_the_impossible() -> None:
    hooks = ["blocks.3.hook_resid_post", "blocks.3.attn.hook_z", "blocks.0.ln1.hook_scale"]
    assert [plan.sae_id for plan in plan_suite(hooks, [1024, 8], [16])] == [
        "layer_3/resid/width_1k/l0_16",
        "layer_3/attn/width_1k/l0_16",
        "blocks.0.ln1.hook_scale/width_1k/l0_16",
    ]
    with pytest.raises(UsageError, match="L0 16 is impossible with 8 latents"):
        SaePlan(hook_name=HOOK, d_sae=8, k=16)


def test_qualities_are_sorted_by_width(tmp_path: Path) -> None:
    for width in (4096, 256):
        folder = tmp_path / f"layer_3/resid/width_{width}/l0_8"
        folder.mkdir(parents=True)
        quality = Quality(
            sae_id=folder.relative_to(tmp_path).as_posix(), d_sae=width, nominal_l0=8, n_tokens=1, l0=8.0, fvu=0.1,
            dead_latents=0, trained_tokens=1,
        )  # fmt: skip
        (folder / "quality.json").write_text(json.dumps(quality.__dict__))
    assert [quality.d_sae for quality in read_qualities(tmp_path)] == [256, 4096]


def test_a_killed_training_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL at three random moments, with a checkpoint at every step so that some hit the writing of one."""
    command = [sys.executable, "-m", "tests.training.taught", str(tmp_path / "parts"), "11"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    train_all_kinds(tmp_path / "whole")  # in this process, which orders sets in another way
    assert_same_suites(tmp_path / "whole", tmp_path / "parts")
    assert len(log_lines(tmp_path / "parts")) == 20


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_architecture_learns_and_reloads_in_plain_sae_lens(tmp_path: Path, kind: Architecture) -> None:
    plan = SaePlan(hook_name=HOOK, d_sae=64, k=4, architecture=kind)
    settings = replace(SETTINGS, tokens=40_000)
    events, (quality,) = train(tmp_path / "saes", settings, plans=(plan,))
    sae = SAE.load_from_disk(tmp_path / "saes" / plan.sae_id, dtype="float32")
    assert sae.cfg.architecture() == ("topk" if kind == "topk" else "jumprelu")
    assert sae.cfg.normalize_activations == "none"
    x = source(torch.from_numpy(contexts(16, seed=9)))[HOOK][:, 1:].flatten(0, 1)
    with torch.no_grad():
        latents = sae.encode(x)
        error = (x - sae.decode(latents)).square().sum() / (x - x.mean(0)).square().sum()
    assert float(error) == pytest.approx(quality.fvu, rel=1e-4)
    assert quality.fvu < 0.5
    assert quality.l0 == pytest.approx(float((latents > 0).sum(1).float().mean()))
    assert quality.l0 == pytest.approx(4, rel=0.25), "the load gate's tolerance"
    (ref,) = list_suite(tmp_path / "saes")
    assert ref.nominal_l0 == pytest.approx(4 if kind == "topk" else quality.l0)
    here = load_sae(ref, torch.device("cpu"), x.shape[1]).reconstruct(x)
    with torch.no_grad():
        torch.testing.assert_close(here.x_hat, sae.decode(latents), rtol=1e-4, atol=1e-4)
    assert torch.equal(here.l0, (latents > 0).sum(1, dtype=torch.int32))
    # What was said on the way describes the very SAE that was written: float16 on disk, hence 1%.
    last = events[-1].held_out[plan.sae_id]
    assert (last["fvu"], last["l0"]) == pytest.approx((quality.fvu, quality.l0), rel=0.01)


def test_held_out_text_is_measured_on_the_way_and_logged(tmp_path: Path) -> None:
    events, _ = train(tmp_path)
    measured = [event for event in events if isinstance(event, TrainProgress) and event.held_out]
    lines = log_lines(tmp_path)
    assert [line["tokens"] for line in lines] == [min(128 * -(-200 * i // 128), 4096) for i in range(1, 21)], (
        "twenty times, after the batch in which another twentieth was complete"
    )
    assert len(measured) == len(lines)
    assert lines[-1]["saes"][PLANS[0].sae_id]["fvu"] == measured[-1].held_out[PLANS[0].sae_id]["fvu"]  # type: ignore[index]
    assert set(lines[0]["saes"]) == {plan.sae_id for plan in PLANS}  # type: ignore[call-overload]


def test_random_numbers_drawn_by_others_change_nothing(tmp_path: Path) -> None:
    torch.manual_seed(1)
    train(tmp_path / "a")
    torch.manual_seed(2)
    before = torch.get_rng_state()
    train(tmp_path / "b")
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_suites(tmp_path / "a", tmp_path / "b")


def test_a_run_killed_while_it_wrote_its_saes_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise RuntimeError("killed")

    train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("inspector.training.trainer.measure", killed)
        with pytest.raises(RuntimeError):
            train(tmp_path / "parts")
    events, _ = train(tmp_path / "parts")
    assert not [event for event in events if isinstance(event, TrainProgress)], "nothing is learned again"
    assert_same_suites(tmp_path / "whole", tmp_path / "parts")


def test_a_block_made_in_pieces_is_the_same_and_may_be_stopped_in_between(tmp_path: Path) -> None:
    events, _ = train(tmp_path / "whole")
    many, _ = train(tmp_path / "pieces", replace(SETTINGS, model_batch=2))
    steps = [event.tokens_done for event in events if isinstance(event, TrainProgress)]
    assert [event.tokens_done for event in many if isinstance(event, TrainProgress)] == steps
    pauses = [sum(isinstance(event, Loading) and event.total > 0 for event in each) for each in (events, many)]
    assert pauses[1] == 8 * pauses[0], "one after each pass of the model"
    weights = f"{PLANS[0].sae_id}/sae_weights.safetensors"
    assert (tmp_path / "whole" / weights).read_bytes() == (tmp_path / "pieces" / weights).read_bytes()
    assert len(log_lines(tmp_path / "pieces")) == len(log_lines(tmp_path / "whole")), "a pause is not a measurement"


def test_a_suite_that_cannot_be_written_keeps_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "saes").mkdir()
    (tmp_path / "saes" / "layer_3").write_text("in the way")
    with pytest.raises(ResourceError, match=r"could not be written: .*\. Make room there and give the command again\."):
        train(tmp_path / "saes")
    (tmp_path / "saes" / "layer_3").unlink()
    events, _ = train(tmp_path / "saes")
    assert not [event for event in events if isinstance(event, TrainProgress)], "nothing is learned again"
    train(tmp_path / "whole")
    assert_same_suites(tmp_path / "whole", tmp_path / "saes")


def test_halves_that_a_killed_process_left_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".sae_weights.safetensors.ab12_xyz.tmp", ".cfg.json.abcdefgh.tmp", "notes.tmp", ".mine.abcdefgh.tmp"):
        (tmp_path / name).write_text("half")
    remove_halves(tmp_path)
    remove_halves(tmp_path / "nothing")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.abcdefgh.tmp", "notes.tmp"]


def test_every_block_is_told_before_it_is_learned_from_and_the_first_is_small(tmp_path: Path) -> None:
    settings = replace(SETTINGS, tokens=1500, first_contexts=4, model_batch=2)
    told, _ = train(tmp_path, settings)
    blocks = [event for event in told if isinstance(event, Loading) and event.total]
    assert [(event.done, event.total) for event in blocks[:3]] == [(2, 4), (4, 4), (2, 16)]
    kinds = [type(event) for event in told]
    assert kinds.index(TrainProgress) == 4, "a warning, two passes of the model, the held-out text, and the first step"
    assert all(event.tokens_per_second > 0 for event in told if isinstance(event, TrainProgress))


def test_a_pace_counts_what_is_made_and_what_is_learned_from() -> None:
    assert Pace().tokens_per_second == 0
    pace = Pace(made=1000, making=10.0)
    assert pace.tokens_per_second == pytest.approx(100)
    pace = Pace(made=1000, making=10.0, learned=500, learning=5.0)
    assert pace.tokens_per_second == pytest.approx(50)


def test_a_run_that_an_older_version_began_goes_on_with_its_blocks(tmp_path: Path) -> None:
    """It made the first block like all others."""
    stopped = replace(SETTINGS, checkpoint_minutes=0.0)
    train(tmp_path / "parts", stopped, stop_after=3)
    train(tmp_path / "parts", replace(stopped, first_contexts=4))
    train(tmp_path / "whole", stopped)
    assert_same_suites(tmp_path / "whole", tmp_path / "parts")
    train(tmp_path / "small", replace(stopped, first_contexts=4))
    weights = f"{PLANS[0].sae_id}/sae_weights.safetensors"
    assert (tmp_path / "small" / weights).read_bytes() != (tmp_path / "whole" / weights).read_bytes()
