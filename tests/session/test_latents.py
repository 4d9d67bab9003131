"""The latent view against one plain pass over all contexts, with every latent of every token at hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from inspector.errors import UsageError
from inspector.session import latents as module
from inspector.session.latents import N_EXAMPLES, N_NEIGHBOURS, WINDOW_AFTER, WINDOW_BEFORE, Latents, LatentSearch
from inspector.session.protocol import Failed, GetContext, GetLatent, LatentView
from inspector.session.service import Service
from inspector.spec import TargetSpec
from tests.session.test_service import Running

if TYPE_CHECKING:
    from inspector.sources.target import Loaded


class Everything:
    """All latents of all tokens of one SAE: [contexts, positions, d_sae]."""

    def __init__(self, loaded: Loaded, row: int) -> None:
        self.sae = loaded.saes[row]
        x = loaded.model.activations(loaded.contexts.token_ids, loaded.hook_name)
        with torch.inference_mode():
            flat = torch.cat([latents.clone() for _, latents in self.sae.chunks(x.flatten(0, 1))])
        self.latents = flat.view(*x.shape[:2], -1).double().numpy()
        self.included = loaded.plan.included.numpy()

    def scored(self, index: int) -> np.ndarray:
        """[contexts, positions] with -1 where nothing is searched."""
        return np.where(self.included, self.latents[:, :, index], -1.0)


@pytest.fixture(scope="module")
def everything(loaded: Loaded) -> Everything:
    return Everything(loaded, 3)


def view_of(latents: Latents, asked: GetLatent) -> tuple[LatentView, int]:
    """The answer, and the steps it took."""
    items = list(latents.answer(asked))
    assert items[:-1] == [None] * (len(items) - 1)
    assert isinstance(items[-1], LatentView)
    return items[-1], len(items)


def numbers(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<f4")


@pytest.fixture(scope="module")
def latents(loaded: Loaded) -> Latents:
    return Latents(loaded)


def busy(everything: Everything) -> int:
    """A latent that is active in many contexts, but not in all."""
    in_contexts = [int((everything.scored(i).max(axis=1) > 0).sum()) for i in range(everything.latents.shape[2])]
    return int(np.argsort(in_contexts)[-3])


def test_examples_are_the_strongest_of_each_context_in_order(
    loaded: Loaded, latents: Latents, everything: Everything
) -> None:
    index = busy(everything)
    told, _ = view_of(latents, GetLatent(request=7, sae_id=everything.sae.ref.sae_id, index=index))
    assert (told.request, told.sae_id, told.index) == (7, everything.sae.ref.sae_id, index)
    scored = everything.scored(index)
    best = scored.max(axis=1)
    order = [int(context) for context in np.argsort(-best, kind="stable") if best[context] > 0]
    assert len(order) >= 9
    # Two contexts may hold the same text and so the same activation; the strength decides, then the earlier context.
    assert [example.context for example in told.examples] == order[:N_EXAMPLES]
    for example in told.examples:
        assert example.position == int(scored[example.context].argmax())
    assert told.max_activation == pytest.approx(best.max(), rel=1e-6)


def test_an_example_shows_its_window_with_the_activations_there(
    loaded: Loaded, latents: Latents, everything: Everything
) -> None:
    index = busy(everything)
    told, _ = view_of(latents, GetLatent(sae_id=everything.sae.ref.sae_id, index=index))
    length = loaded.contexts.token_ids.shape[1]
    for example in told.examples:
        start = max(0, example.position - WINDOW_BEFORE)
        stop = min(length, example.position + WINDOW_AFTER + 1)
        ids = loaded.contexts.token_ids[example.context, start:stop].tolist()
        assert example.start == start
        assert example.tokens == [loaded.model.token_text(token) for token in ids]
        # float32 through the same SAE, in other chunks: 1e-5 of the activation.
        np.testing.assert_allclose(
            numbers(example.activations), everything.latents[example.context, start:stop, index], rtol=1e-5, atol=1e-6
        )
        assert numbers(example.activations)[example.position - start] == pytest.approx(
            everything.scored(index)[example.context].max(), rel=1e-5
        )


def test_density_counts_the_searched_tokens_alone(latents: Latents, everything: Everything) -> None:
    for index in (0, 5, busy(everything)):
        told, _ = view_of(latents, GetLatent(sae_id=everything.sae.ref.sae_id, index=index))
        assert told.n_tokens == int(everything.included.sum())
        active = (everything.latents[:, :, index] > 0) & everything.included
        assert told.density == pytest.approx(active.sum() / everything.included.sum(), rel=1e-12)


def test_a_latent_that_is_never_active_has_no_examples(loaded: Loaded, everything: Everything) -> None:
    class Silenced:
        """The SAE with its latent 4 never active."""

        ref, rows_of = everything.sae.ref, everything.sae.rows_of
        decoder_rows, decode = everything.sae.decoder_rows, everything.sae.decode

        def chunks(self, x: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
            for rows, values in everything.sae.chunks(x):
                kept = values.clone()
                kept[:, 4] = 0.0
                yield rows, kept

    silenced = replace(loaded, saes=(Silenced(),))  # type: ignore[arg-type]
    told, _ = view_of(Latents(silenced), GetLatent(sae_id=everything.sae.ref.sae_id, index=4))
    assert (told.examples, told.density, told.max_activation) == ([], 0.0, 0.0)
    assert len(told.neighbours) == N_NEIGHBOURS
    assert (told.card.histogram, told.card.drawn, told.card.n_drawn) == ([], [], 0)


def test_neighbours_are_the_largest_cosines_of_the_decoder(latents: Latents, everything: Everything) -> None:
    rows = everything.sae.whole_decoder().double().numpy()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = unit @ unit[4]
    cosines[4] = -np.inf
    told, _ = view_of(latents, GetLatent(sae_id=everything.sae.ref.sae_id, index=4))
    expected = np.argsort(-cosines)[:N_NEIGHBOURS]
    assert [each.index for each in told.neighbours] == expected.tolist()
    np.testing.assert_allclose([each.cosine for each in told.neighbours], cosines[expected], atol=1e-5)


def test_the_contexts_are_searched_once_and_in_short_steps(loaded: Loaded, everything: Everything) -> None:
    fresh = Latents(loaded)
    asked = GetLatent(sae_id=everything.sae.ref.sae_id, index=1)
    _, first = view_of(fresh, asked)
    _, second = view_of(fresh, asked)
    # A step for the model and one for the SAE, for each context; then only the examples and the decoders are left.
    assert first - second == 2 * len(loaded.contexts.token_ids)
    assert second <= 2 * (N_EXAMPLES + len(module.QUANTILES)) + 4


def test_a_search_that_was_left_goes_on_with_the_next_question(loaded: Loaded, everything: Everything) -> None:
    fresh = Latents(loaded)
    asked = GetLatent(sae_id=everything.sae.ref.sae_id, index=busy(everything))
    left = fresh.answer(asked)
    for _ in range(30):
        assert next(left) is None
    other = fresh.answer(GetLatent(sae_id=everything.sae.ref.sae_id, index=2))
    for _ in range(5):
        next(other)
    told, steps = view_of(fresh, asked)
    expected, all_steps = view_of(Latents(loaded), asked)
    assert steps == all_steps - 35
    assert told == expected


def test_a_table_keeps_the_strongest_where_it_has_room_for_few(
    loaded: Loaded, everything: Everything, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TABLE_BYTES", 1)
    search = LatentSearch(loaded, everything.sae)
    while search.advance():
        pass
    for index in range(everything.sae.ref.d_sae):
        best = np.sort(everything.scored(index).max(axis=1))[::-1][: module.FEWEST]
        told = [place.activation for place in search.strongest.of(index)]
        np.testing.assert_allclose(told, best[best > 0], rtol=1e-6)


def test_the_histogram_counts_every_activation_once_between_its_edges(latents: Latents, everything: Everything) -> None:
    index = busy(everything)
    told, _ = view_of(latents, GetLatent(sae_id=everything.sae.ref.sae_id, index=index))
    values = everything.scored(index)
    values = values[values > 0]
    bins = told.card.histogram
    assert sum(each.n for each in bins) == len(values)
    for one, other in pairwise(bins):
        assert one.high == other.low and other.high / other.low == pytest.approx(2**0.25)
    # An activation may lie on an edge to float32.
    for each in bins:
        inside = ((values >= each.low * (1 + 1e-6)) & (values < each.high * (1 - 1e-6))).sum()
        around = ((values >= each.low * (1 - 1e-6)) & (values < each.high * (1 + 1e-6))).sum()
        assert inside <= each.n <= around


def test_examples_are_drawn_from_all_activations_and_not_the_strongest_alone(
    loaded: Loaded, latents: Latents, everything: Everything
) -> None:
    index = busy(everything)
    told, _ = view_of(latents, GetLatent(sae_id=everything.sae.ref.sae_id, index=index))
    scored, card = everything.scored(index), told.card
    in_contexts = int((scored.max(axis=1) > 0).sum())
    assert card.n_drawn == min(module.MOST, in_contexts)
    own = [numbers(each.activations)[each.position - each.start] for each in card.drawn]
    assert own == sorted(own, reverse=True)
    assert [each.quantile for each in card.drawn] == sorted((each.quantile or 0 for each in card.drawn), reverse=True)
    for each, value in zip(card.drawn, own, strict=True):
        assert value == pytest.approx(scored[each.context, each.position], rel=1e-5) and value > 0
    assert len({each.context for each in card.drawn}) == len(card.drawn)


def test_every_active_token_is_as_likely_to_be_drawn(
    loaded: Loaded, everything: Everything, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over many seeds the mean activation drawn is the mean of all, not that of the strongest."""
    index = busy(everything)
    means = []
    for seed in range(12):
        search = LatentSearch(replace(loaded, target=replace(loaded.target, seed=seed)), everything.sae)
        while search.advance():
            pass
        means.append(np.mean([place.activation for place in search.drawn.of(index)]))
    values = everything.scored(index)
    # Of each context one: a token counts by one over the active ones of its context, as all 40 contexts fit.
    per_context = [row[row > 0].mean() for row in values if (row > 0).any()]
    spread = np.std(means) / np.sqrt(len(means)) + 1e-3
    assert np.mean(means) == pytest.approx(np.mean(per_context), abs=5 * spread)
    assert np.mean(means) < np.mean([row.max() for row in values if (row > 0).any()]) - 5 * spread


def test_the_share_of_the_error_along_a_latent_is_that_of_its_squared_projections(
    loaded: Loaded, latents: Latents, everything: Everything
) -> None:
    sae = everything.sae
    x = loaded.model.activations(loaded.contexts.token_ids, loaded.hook_name)[loaded.plan.included]
    error = (x - sae.reconstruct(x).x_hat).double().numpy()
    rows = sae.whole_decoder().double().numpy()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    card = view_of(latents, GetLatent(sae_id=sae.ref.sae_id, index=7))[0].card
    assert card.error_share == pytest.approx(((error @ unit[7]) ** 2).sum() / (error**2).sum(), rel=1e-5)
    assert card.error_share_random == 1 / 16
    shares = ((error @ unit.T) ** 2).sum(axis=0) / (error**2).sum()
    assert card.error_share_others is not None and shares.min() <= card.error_share_others <= shares.max()


def test_logits_are_the_row_through_the_final_norm_and_the_unembedding(
    loaded: Loaded, toy_target: TargetSpec, latents: Latents, everything: Everything
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(toy_target.model)
    row = everything.sae.whole_decoder()[3].double()
    scaled = row / row.square().mean().sqrt() * (1 + model.model.norm.weight.detach().double())
    logits = (model.get_output_embeddings().weight.detach().double() @ scaled).numpy()
    card = view_of(latents, GetLatent(sae_id=everything.sae.ref.sae_id, index=3))[0].card
    order = np.argsort(-logits)
    for told, expected in ((card.top, order[:10]), (card.bottom, order[::-1][:10])):
        assert [each.logit for each in told] == pytest.approx(logits[expected], rel=1e-4, abs=1e-5)
        assert [each.token for each in told] == loaded.model.token_texts(expected.tolist())
    assert card.why_no_logits == ""


def test_the_nearest_of_other_widths_are_the_largest_cosines_there(
    loaded: Loaded, latents: Latents, everything: Everything
) -> None:
    card = view_of(latents, GetLatent(sae_id=everything.sae.ref.sae_id, index=4))[0].card
    own = everything.sae.whole_decoder()[4].double().numpy()
    (other,) = card.across
    sae = next(sae for sae in loaded.saes if sae.ref.sae_id == other.sae_id)
    assert (sae.ref.nominal_l0, sae.ref.d_sae) == (everything.sae.ref.nominal_l0, 32)
    rows = sae.whole_decoder().double().numpy()
    cosines = rows @ own / np.linalg.norm(rows, axis=1) / np.linalg.norm(own)
    order = np.argsort(-cosines)[:3]
    assert [each.index for each in other.nearest] == order.tolist()
    assert [each.cosine for each in other.nearest] == pytest.approx(cosines[order], abs=1e-5)
    assert 0 < other.random_cosine < 1


def test_what_was_said_about_it_comes_along(loaded: Loaded, everything: Everything) -> None:
    sae_id = everything.sae.ref.sae_id
    told, _ = view_of(
        Latents(loaded, lambda ref, index: (f"{ref.sae_id} {index}", 0.75)), GetLatent(sae_id=sae_id, index=3)
    )
    assert (told.explanation, told.score, told.link) == (f"{sae_id} 3", 0.75, "")


def test_what_cannot_be_answered_is_refused_at_once(loaded: Loaded, latents: Latents) -> None:
    with pytest.raises(UsageError, match=r"is not loaded\. Nearest"):
        latents.answer(GetLatent(sae_id=loaded.saes[0].ref.sae_id + "x", index=0))
    with pytest.raises(UsageError, match=r"no latent 32\. Its latents are 0 to 31"):
        latents.answer(GetLatent(sae_id=loaded.saes[0].ref.sae_id, index=32))


def test_a_session_answers_about_latents_between_other_questions(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def at_once(self: Service) -> tuple[Loaded, list[str]]:
        return loaded, []

    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path))
    monkeypatch.setattr(Service, "_load", at_once)
    sae_id = loaded.saes[3].ref.sae_id
    # Before the service runs: the model is not to be used by two threads at once.
    expected = view_of(Latents(loaded), GetLatent(request=1, sae_id=sae_id, index=2))[0]
    running = Running(TargetSpec())
    running.attach()
    running.start()
    try:
        running.views.ask(1, GetLatent(request=1, sae_id=sae_id, index=2))
        running.views.ask(1, GetContext(request=2, context=0))
        told = running.until(1, lambda message: isinstance(message, LatentView))
        order = [message.request for message in running.told[0] if message.request in (1, 2)]
        assert order == [2, 1], "a context does not wait for the search"
        assert told == expected
        refused = running.ask(1, GetLatent(request=3, sae_id=sae_id, index=-1))
        assert isinstance(refused, Failed) and "has no latent -1" in refused.message
    finally:
        running.end()
