"""Examples against a table of every latent at every token: who is chosen, who is held out, who is left out and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from inspector.engine.plan import Plan, make_plan
from inspector.errors import DataError, UsageError
from inspector.interp.examples import (
    DEAD,
    DENSE,
    FEW,
    N_DECILES,
    N_EXPLAINED,
    N_NEGATIVES,
    PER_DECILE,
    Collector,
    Example,
    Gathered,
    LatentExamples,
    draw_latents,
    gather,
)
from inspector.interp.export import file_name
from inspector.interp.readers import Reader
from inspector.interp.windows import Windows, windows_of
from inspector.sources.activations import ActivationBatch
from inspector.spec import SaeRef
from tests.interp.conftest import SETTINGS, finished

if TYPE_CHECKING:
    from inspector.sources.target import Loaded

N_CONTEXTS, LENGTH, WINDOW, D_SAE = 120, 41, 8, 12
SPECIAL = 7


@dataclass
class Sae:
    ref: SaeRef


class Table:
    """Stands in for an SAE: x is its latents."""

    name = "table"

    def __init__(self) -> None:
        ref = SaeRef(sae_id="table", release="made", layer=0, hook_name="h", d_in=D_SAE, d_sae=D_SAE)
        self.sae: Any = Sae(ref)

    def active(self, x: torch.Tensor, columns: torch.Tensor) -> tuple[torch.Tensor, int]:
        return x[:, columns], int((x > 0).sum())


def latents_table() -> np.ndarray:
    """[contexts, positions, latents]: a few kinds of latents, the rest sparse noise."""
    made = np.random.default_rng(0)
    x = np.where(made.random((N_CONTEXTS, LENGTH, D_SAE)) < 0.05, made.exponential(size=(N_CONTEXTS, LENGTH, D_SAE)), 0)
    x[:, :, 1] = 0.0  # dead
    x[:, :, 2] = np.where(made.random((N_CONTEXTS, LENGTH)) < 0.002, 1.0, 0.0)  # rare
    x[:, :, 3] = 1.0 + made.random((N_CONTEXTS, LENGTH))  # always on
    x[:, :4, 1] = 5.0  # active, but where nothing is scored
    return x


@pytest.fixture(scope="module")
def table() -> torch.Tensor:
    return torch.from_numpy(latents_table()).float()


@pytest.fixture(scope="module")
def token_ids() -> torch.Tensor:
    ids = torch.from_numpy(np.random.default_rng(1).integers(10, 99, size=(N_CONTEXTS, LENGTH)))
    ids[5, 9] = SPECIAL
    return ids


@pytest.fixture(scope="module")
def plan(token_ids: torch.Tensor) -> Plan:
    return make_plan(token_ids, {SPECIAL}, (4, None), None, "context", 0)


@pytest.fixture(scope="module")
def windows(plan: Plan) -> Windows:
    return windows_of(plan, WINDOW)


def collected(
    table: torch.Tensor, windows: Windows, token_ids: torch.Tensor, *, at_once: int, seed: int = 0
) -> Gathered:
    collector = Collector(Table(), np.arange(D_SAE, dtype=np.int64), windows, seed)
    for first in range(0, N_CONTEXTS, at_once):
        contexts = torch.arange(first, min(first + at_once, N_CONTEXTS))
        collector.update(
            ActivationBatch(
                contexts=contexts.repeat_interleave(LENGTH),
                positions=torch.arange(LENGTH).repeat(len(contexts)),
                token_ids=token_ids[contexts].flatten(),
                x=table[contexts].flatten(0, 1),
            )
        )
    return collector.finish(token_ids)


@pytest.fixture(scope="module")
def found(table: torch.Tensor, windows: Windows, token_ids: torch.Tensor) -> Gathered:
    return collected(table, windows, token_ids, at_once=8)


def test_windows_tile_the_scored_positions_without_special_tokens(windows: Windows, plan: Plan) -> None:
    # Positions 4 to 39 hold four windows of 8; one of the context with a special token in it is broken.
    assert len(windows) == 4 * N_CONTEXTS - 1 and windows.n_broken == 1
    assert set(windows.starts.tolist()) == {4, 12, 20, 28}
    for context, start in zip(windows.contexts.tolist(), windows.starts.tolist(), strict=True):
        assert bool(plan.included[context, start : start + WINDOW].all())
    assert (5, 4) not in set(zip(windows.contexts.tolist(), windows.starts.tolist(), strict=True))


def test_windows_that_cannot_be_are_refused(plan: Plan, token_ids: torch.Tensor) -> None:
    assert len(windows_of(plan, 36)) == N_CONTEXTS - 1
    with pytest.raises(UsageError, match="--window 37 is longer than the 36 tokens"):
        windows_of(plan, 37)
    nothing = make_plan(token_ids, set(range(99)), (4, None), None, "context", 0)
    with pytest.raises(DataError, match="No position is included"):
        windows_of(nothing, 4)


def every(latent: LatentExamples) -> list[Example]:
    tested = [example for decile in latent.deciles for example in decile]
    return [*latent.shown, *tested, *latent.negatives, *latent.spare]


def test_every_example_is_what_the_table_says(found: Gathered, table: torch.Tensor, token_ids: torch.Tensor) -> None:
    for latent in found.latents:
        for example in every(latent):
            here = slice(example.start, example.start + WINDOW)
            assert np.array_equal(example.activations, table[example.context, here, latent.index].numpy())
            assert np.array_equal(example.token_ids, token_ids[example.context, here].numpy())
        assert all(example.peak == 0 for example in latent.negatives)
        assert all(example.peak > 0 for example in (*latent.shown, *latent.spare))


def test_counts_are_those_of_the_protocol(found: Gathered) -> None:
    assert len(found.latents) == D_SAE - 3
    for latent in found.latents:
        assert len(latent.shown) == N_EXPLAINED
        assert [len(decile) for decile in latent.deciles] == [PER_DECILE] * N_DECILES
        assert len(latent.negatives) == N_NEGATIVES
        windows = [example.window for example in every(latent)]
        assert len(set(windows)) == len(windows), "no window serves twice"


def test_nothing_of_the_explainers_contexts_is_tested(found: Gathered) -> None:
    for latent in found.latents:
        seen = {example.context for example in latent.shown}
        assert len(seen) == N_EXPLAINED, "the strongest windows are of different contexts where there are enough"
        tested = [*latent.negatives, *latent.spare, *(example for decile in latent.deciles for example in decile)]
        assert not seen & {example.context for example in tested}


def test_the_explainer_sees_the_strongest_window_of_the_strongest_contexts(
    found: Gathered, table: torch.Tensor, windows: Windows
) -> None:
    peaks = table[:, 4:36].unfold(1, WINDOW, WINDOW).amax(dim=-1)  # [contexts, windows, latents]
    for latent in found.latents:
        own = peaks[:, :, latent.index].clone()
        own[5, 0] = 0
        best = own.amax(dim=1).sort(descending=True).values[:N_EXPLAINED]
        assert [example.peak for example in latent.shown] == pytest.approx(best.tolist())


def test_deciles_are_tenths_of_all_active_windows(found: Gathered, table: torch.Tensor, windows: Windows) -> None:
    """All windows fit into the sample here, so the tenths are known exactly."""
    peaks = table[:, 4:36].unfold(1, WINDOW, WINDOW).amax(dim=-1).numpy()
    for latent in found.latents:
        own = peaks[:, :, latent.index].copy()
        own[5, 0] = 0
        own[[example.context for example in latent.shown]] = 0
        active = np.sort(own[own > 0])
        for part, decile in zip(np.array_split(active, N_DECILES), latent.deciles, strict=True):
            assert all(part[0] <= example.peak <= part[-1] for example in decile)


def test_who_is_left_out_is_counted_with_the_reason(found: Gathered, table: torch.Tensor, windows: Windows) -> None:
    assert found.skipped == {DEAD: (1,), FEW: (2,), DENSE: (3,)}
    assert (len(found.drawn), found.n_windows) == (D_SAE, len(windows))
    inside = torch.stack(
        [
            table[context, start : start + WINDOW]
            for context, start in zip(windows.contexts.tolist(), windows.starts.tolist(), strict=True)
        ]
    )
    assert found.n_tokens == inside.shape[0] * WINDOW
    assert found.l0 == pytest.approx(float((inside > 0).sum()) / found.n_tokens)
    for latent in found.latents:
        own = inside[:, :, latent.index] > 0
        assert latent.density == pytest.approx(float(own.float().mean()))


@pytest.mark.parametrize("at_once", [1, 50])
def test_batches_change_nothing(
    found: Gathered,
    table: torch.Tensor,
    windows: Windows,
    token_ids: torch.Tensor,
    at_once: int,
) -> None:
    again = collected(table, windows, token_ids, at_once=at_once).latents
    assert [[example.window for example in every(latent)] for latent in again] == [
        [example.window for example in every(latent)] for latent in found.latents
    ]


def test_another_seed_chooses_others(
    found: Gathered, table: torch.Tensor, windows: Windows, token_ids: torch.Tensor
) -> None:
    again = collected(table, windows, token_ids, at_once=8, seed=1).latents
    assert [e.window for e in again[0].shown] == [e.window for e in found.latents[0].shown]
    assert [e.window for e in again[0].negatives] != [e.window for e in found.latents[0].negatives]


def test_latents_are_drawn_from_all_and_fewer_are_a_beginning_of_more() -> None:
    few, many = draw_latents(1000, 50, 3), draw_latents(1000, 200, 3)
    assert len(set(few.tolist())) == 50 and set(few.tolist()) < set(many.tolist())
    assert few.tolist() == sorted(few.tolist()) and few.max() < 1000
    assert draw_latents(10, 50, 0).tolist() == list(range(10))
    assert draw_latents(1000, 50, 4).tolist() != few.tolist()


def test_a_number_that_is_none_is_said_and_not_taken_for_silence(
    judged: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = type(judged.model).activations

    def broken(self: object, tokens: torch.Tensor, hook_name: str) -> torch.Tensor:
        x = whole(self, tokens, hook_name).clone()  # type: ignore[arg-type]
        x[0, 9] = torch.nan
        return x

    monkeypatch.setattr(type(judged.model), "activations", broken)
    with pytest.raises(DataError, match="activation is not finite at context 0, position 9"):
        finished(gather(judged, [Reader(name=judged.saes[0].ref.sae_id, sae=judged.saes[0])], SETTINGS, batch_size=8))


@pytest.mark.parametrize(
    ("name", "file"),
    [("layer_4/resid/width_1k/l0_16", "layer_4.resid.width_1k.l0_16"), ("..", "sae"), (".", "sae"), ("../a", "a")],
)
def test_what_is_written_of_a_reader_stays_in_its_folder(name: str, file: str, tmp_path: Path) -> None:
    assert file_name(name) == file
    assert (tmp_path / file_name(name)).resolve().parent == tmp_path.resolve()
