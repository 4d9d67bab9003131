"""A token's error anatomy against NumPy in float64, and the splices against transformers' own model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pytest
import torch

from inspector.errors import DataError, UsageError
from inspector.session import similar as module
from inspector.session.anatomy import LIKELY, N_MOVED, anatomy_of
from inspector.session.cards import AnatomyCard, SimilarCard, Splice
from inspector.session.fitting import ErrorNorms, background_fit
from inspector.session.protocol import AnalysePrompt, GetAnatomy, GetSimilar
from inspector.session.similar import Similar
from inspector.session.texts import Texts

if TYPE_CHECKING:
    from inspector.engine.regression import LinearMap
    from inspector.sources.sae import LoadedSae
    from inspector.sources.target import Loaded
    from inspector.spec import TargetSpec

A = TypeVar("A")
CONTEXT, POSITION = 5, 17


def last(items: Iterator[A | None]) -> A:
    *before, answer = items
    assert before == [None] * len(before) and answer is not None
    return answer


@pytest.fixture(scope="module")
def texts(loaded: Loaded) -> Texts:
    """Texts with the last maps of the background fit."""
    work = background_fit(loaded, ErrorNorms([sae.ref.sae_id for sae in loaded.saes]))
    browser = Texts(loaded)
    fit = browser.fits["excluded"]
    fit.maps, fit.epoch = [item for item in work if item is not None][-1].maps, 1
    return browser


@pytest.fixture(scope="module")
def narrow(loaded: Loaded) -> LoadedSae:
    return loaded.saes[1]


def asked(sae: LoadedSae, **more: object) -> GetAnatomy:
    values = {"request": 3, "source": "context", "context": CONTEXT, "position": POSITION, "sae_id": sae.ref.sae_id}
    return GetAnatomy(**{**values, **more})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def card(texts: Texts, narrow: LoadedSae) -> AnatomyCard:
    told = last(anatomy_of(texts, 0, asked(narrow)))
    assert (told.request, told.asked) == (3, asked(narrow))
    return told.card


class Everything:
    """Vectors of one context in float64."""

    def __init__(self, loaded: Loaded, maps: Mapping[str, LinearMap], context: int = CONTEXT) -> None:
        ids = loaded.contexts.token_ids[context : context + 1]
        x = loaded.model.activations(ids, loaded.hook_name)[0]
        self.x = x.double().numpy()
        self.x_hat, self.linear, self.nonlinear = {}, {}, {}
        for sae in loaded.saes:
            name, fitted = sae.ref.sae_id, maps[sae.ref.sae_id]
            self.x_hat[name] = sae.reconstruct(x).x_hat.double().numpy()
            self.linear[name] = self.x @ fitted.weight.numpy().T + fitted.bias.numpy()
            self.nonlinear[name] = self.x - self.x_hat[name] - self.linear[name]


@pytest.fixture(scope="module")
def every(loaded: Loaded, texts: Texts) -> Everything:
    return Everything(loaded, texts.fits["excluded"].maps)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def rows_of(sae: LoadedSae) -> np.ndarray:
    return sae.whole_decoder().double().numpy()


def test_the_widths_are_those_of_the_nearest_l0_with_norms_and_cosines(
    loaded: Loaded, every: Everything, card: AnatomyCard, narrow: LoadedSae
) -> None:
    same = [sae for sae in loaded.saes if sae.ref.nominal_l0 == narrow.ref.nominal_l0]
    assert [each.sae_id for each in card.widths] == [sae.ref.sae_id for sae in same]
    scored = [p for p in np.flatnonzero(loaded.plan.included[CONTEXT].numpy()) if p != POSITION]
    own = every.nonlinear[narrow.ref.sae_id][POSITION]
    for width in card.widths:
        linear, nonlinear = (part[width.sae_id][POSITION] for part in (every.linear, every.nonlinear))
        # float32 activations through float32 maps: 1e-5 relative.
        assert width.sae_error == pytest.approx(np.linalg.norm(linear + nonlinear), rel=1e-5)
        assert width.linear_error == pytest.approx(np.linalg.norm(linear), rel=1e-5)
        assert width.nonlinear_error == pytest.approx(np.linalg.norm(nonlinear), rel=1e-5)
        assert width.parts_cosine == pytest.approx(cosine(linear, nonlinear), abs=1e-5)
        others = [cosine(nonlinear, every.nonlinear[sae.ref.sae_id][POSITION]) for sae in same]
        assert width.cosines == pytest.approx(others, abs=1e-5)
        away = [cosine(own, every.nonlinear[width.sae_id][p]) for p in scored]
        assert width.elsewhere == pytest.approx(np.mean(away), abs=1e-5)
    assert card.x_norm == pytest.approx(np.linalg.norm(every.x[POSITION]), rel=1e-6)


def test_directions_are_those_of_the_chosen_decoder_and_of_the_widest(
    loaded: Loaded, every: Everything, card: AnatomyCard, narrow: LoadedSae
) -> None:
    own = every.nonlinear[narrow.ref.sae_id][POSITION]
    widest = max((sae for sae in loaded.saes if sae.ref.nominal_l0 == narrow.ref.nominal_l0), key=lambda s: s.ref.d_sae)
    assert [each.sae_id for each in card.directions] == [narrow.ref.sae_id, widest.ref.sae_id]
    for told, sae in zip(card.directions, (narrow, widest), strict=True):
        rows = rows_of(sae)
        cosines = np.array([cosine(row, own) for row in rows])
        order = np.argsort(-np.abs(cosines))[:10]
        assert [each.index for each in told.nearest] == order.tolist()
        assert [each.cosine for each in told.nearest] == pytest.approx(cosines[order], abs=1e-5)
        assert told.chosen[0] == order[0]
        for share in told.shares:
            basis = rows[told.chosen[: share.n]].T
            fit = basis @ np.linalg.lstsq(basis, own, rcond=None)[0]
            assert share.share == pytest.approx(fit @ fit / (own @ own), abs=1e-5)
            assert 0 < share.random <= share.random_most <= 1 + 1e-9
            assert share.others is not None and 0 < share.others <= 1
        # Ten of sixteen dimensions explain most of anything: only the control tells that it means nothing.
        assert told.shares[-1].share > 0.5 and told.shares[-1].random > 0.5


def logits_of(target: TargetSpec, loaded: Loaded, ids: list[int], value: np.ndarray | None) -> np.ndarray:
    """Next-token logits at POSITION by transformers' own model, with the stream after layer 1 replaced there."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(target.model, attn_implementation="eager").eval()
    assert loaded.hook_name == "blocks.1.hook_resid_post"

    def put(_module: object, _inputs: object, output: object) -> object:
        stream = output[0] if isinstance(output, tuple) else output
        assert isinstance(stream, torch.Tensor)
        if value is not None:
            stream[0, POSITION] = torch.from_numpy(value).float()
        return output

    handle = model.model.layers[1].register_forward_hook(put)
    with torch.inference_mode():
        logits: np.ndarray = model(torch.tensor([ids])).logits[0, POSITION].double().numpy()
    handle.remove()
    return logits


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    found: np.ndarray = shifted - np.log(np.exp(shifted).sum())
    return found


def test_splices_are_what_transformers_computes(
    loaded: Loaded, toy_target: TargetSpec, every: Everything, card: AnatomyCard, narrow: LoadedSae
) -> None:
    ids = loaded.contexts.token_ids[CONTEXT].tolist()
    name = narrow.ref.sae_id
    plain = logits_of(toy_target, loaded, ids, None)
    p = log_softmax(plain)
    x, linear, nonlinear = every.x[POSITION], every.linear[name][POSITION], every.nonlinear[name][POSITION]
    parts = {"Sae": linear + nonlinear, "Sae + linear": nonlinear, "Sae + nonlinear": linear, "x": 0.0 * x}
    assert [each.arm for each in card.splices] == list(parts)
    for told in card.splices:
        logits = logits_of(toy_target, loaded, ids, x - parts[told.arm])
        q = log_softmax(logits)
        assert told.norm == pytest.approx(np.linalg.norm(parts[told.arm]), rel=1e-5)
        # float32 logits of size ten: 1e-6 of them, squared or times a change, in a divergence.
        assert told.kl == pytest.approx((np.exp(p) * (p - q)).sum(), abs=1e-6, rel=1e-3)
        assert told.loss == pytest.approx(-q[ids[POSITION + 1]], abs=1e-4)
        check_moves(loaded, told, plain, logits)


def check_moves(loaded: Loaded, told: Splice, plain: np.ndarray, logits: np.ndarray) -> None:
    change = logits - plain
    change -= change.mean()
    before, after = np.exp(log_softmax(plain)), np.exp(log_softmax(logits))
    if told.arm == "x":
        return
    order = [i for i in np.argsort(-change, kind="stable") if max(before[i], after[i]) >= LIKELY]
    up = [i for i in order if change[i] > 0][:N_MOVED]
    assert [each.token for each in told.up] == loaded.model.token_texts([int(i) for i in up])
    assert [each.change for each in told.up] == pytest.approx(change[up], abs=1e-4)
    assert [each.after for each in told.up] == pytest.approx(after[up], rel=1e-3, abs=1e-6)
    down = [i for i in reversed(order) if change[i] < 0][:N_MOVED]
    assert [each.token for each in told.down] == loaded.model.token_texts([int(i) for i in down])


def test_x_itself_changes_nothing_and_something_random_does(card: AnatomyCard) -> None:
    same = card.splices[-1]
    assert (same.arm, same.missing, same.norm, same.random_kl) == ("x", "", 0.0, None)
    assert same.kl == pytest.approx(0.0, abs=1e-12)
    for each in card.splices[:-1]:
        assert each.kl > 1e-6 and each.random_kl is not None and each.random_kl > 1e-6


def test_shares_of_everything_in_the_wider_reconstruction_add_up_to_the_error(
    loaded: Loaded, every: Everything, card: AnatomyCard, narrow: LoadedSae
) -> None:
    wider = card.wider
    assert wider is not None and card.why_no_wider == ""
    wide = next(sae for sae in loaded.saes if sae.ref.sae_id == wider.sae_id)
    assert wide.ref.d_sae > narrow.ref.d_sae
    r, x = every.nonlinear[narrow.ref.sae_id][POSITION], every.x[POSITION]
    e = x - every.x_hat[narrow.ref.sae_id][POSITION]
    rows, small = rows_of(wide), rows_of(narrow)
    active = dict(wide.active_latents(torch.from_numpy(x).float()))
    assert wider.n_active == len(active) == len(wider.latents)
    for each in wider.latents:
        row = rows[each.index]
        assert each.activation == pytest.approx(active[each.index], rel=1e-5)
        assert each.share == pytest.approx(active[each.index] * (row @ r) / (r @ r), abs=1e-5)
        assert each.share_of_error == pytest.approx(active[each.index] * (row @ e) / (e @ e), abs=1e-5)
        assert each.cosine == pytest.approx(cosine(row, r), abs=1e-5)
        cosines = np.array([cosine(row, other) for other in small])
        assert each.known.index == int(cosines.argmax())
        assert each.known.cosine == pytest.approx(cosines.max(), abs=1e-5)
    assert [each.share for each in wider.latents] == sorted((each.share for each in wider.latents), reverse=True)
    # The identity, from the SAE's own x_hat: exact but for float32.
    assert wider.of_latents == pytest.approx(sum(each.share for each in wider.latents), abs=1e-9)
    assert wider.left == pytest.approx((x - every.x_hat[wider.sae_id][POSITION]) @ r / (r @ r), abs=1e-5)
    assert wider.gap == pytest.approx(0.0, abs=1e-5)
    basis = rows[list(active)].T
    fit = basis @ np.linalg.lstsq(basis, r, rcond=None)[0]
    assert wider.explained == pytest.approx(fit @ fit / (r @ r), abs=1e-5)
    # k rows of d dimensions hold k / d of a random vector; twenty draws of it are within 0.2 here.
    assert wider.explained_random == pytest.approx(len(active) / 16, abs=0.2)


def test_the_identity_fails_where_the_reconstruction_is_another(
    loaded: Loaded, texts: Texts, narrow: LoadedSae, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = loaded.saes[3]
    true = wide.active_latents
    monkeypatch.setattr(wide, "active_latents", lambda x: [(index, 2 * value) for index, value in true(x)])
    told = last(anatomy_of(texts, 0, asked(narrow, wider=wide.ref.sae_id))).card.wider
    assert told is not None and abs(told.gap) > 1e-2


def test_the_widest_has_nothing_wider_and_wrong_ones_are_refused(loaded: Loaded, texts: Texts) -> None:
    widest, narrow = loaded.saes[3], loaded.saes[0]
    card = last(anatomy_of(texts, 0, asked(widest))).card
    assert card.wider is None and "Choose a narrower one" in card.why_no_wider
    assert [each.sae_id for each in card.directions] == [widest.ref.sae_id]
    with pytest.raises(UsageError, match=r"is not loaded\. Nearest"):
        anatomy_of(texts, 0, asked(narrow, wider=widest.ref.sae_id + "x"))
    with pytest.raises(UsageError, match="no more than the 32 of"):
        anatomy_of(texts, 0, asked(narrow, wider=narrow.ref.sae_id))
    with pytest.raises(UsageError, match="Position 99 is not in a text of 32 tokens"):
        anatomy_of(texts, 0, asked(narrow, position=99))
    with pytest.raises(DataError, match="is not fitted yet"):
        anatomy_of(Texts(loaded), 0, asked(narrow))


def test_a_prompt_and_the_last_token_of_a_text_are_answered(loaded: Loaded, texts: Texts, narrow: LoadedSae) -> None:
    scores = texts.prompt(4, AnalysePrompt(text="the error"))
    end = len(scores.token_ids) - 1
    place = {"source": "prompt", "context": 0, "position": end}
    card = last(anatomy_of(texts, 4, asked(narrow, **place))).card
    assert card.following is None and all(each.loss is None for each in card.splices)
    found = last(Similar(texts).answer(4, GetSimilar(sae_id=narrow.ref.sae_id, **place))).card  # type: ignore[arg-type]
    assert len(found.found) == module.N_SIMILAR


def similar(loaded: Loaded, texts: Texts, sae: LoadedSae) -> SimilarCard:
    at = GetSimilar(request=2, source="context", context=CONTEXT, position=POSITION, sae_id=sae.ref.sae_id)
    return last(Similar(texts).answer(0, at)).card


def test_similar_tokens_are_the_largest_cosines_of_all_scored_ones(
    loaded: Loaded, texts: Texts, narrow: LoadedSae, every: Everything
) -> None:
    card = similar(loaded, texts, narrow)
    own = every.nonlinear[narrow.ref.sae_id][POSITION]
    best: list[tuple[float, int, int]] = []
    for context in range(len(loaded.contexts.token_ids)):
        there = Everything(loaded, texts.fits["excluded"].maps, context).nonlinear[narrow.ref.sae_id]
        places = np.flatnonzero(loaded.plan.included[context].numpy())
        here = [(cosine(own, there[p]), context, int(p)) for p in places if (context, p) != (CONTEXT, POSITION)]
        best.append(max(here))
    best.sort(reverse=True)
    assert card.n_searched == card.n_scored == int(loaded.plan.included.sum())
    assert [(each.context, each.position) for each in card.found] == [each[1:] for each in best[: module.N_SIMILAR]]
    assert [each.cosine for each in card.found] == pytest.approx([each[0] for each in best[:12]], abs=1e-5)
    ids = loaded.contexts.token_ids
    same = [int(ids[each.context, each.position]) == int(ids[CONTEXT, POSITION]) for each in card.found]
    assert card.n_same == sum(same)
    share = (ids[loaded.plan.included] == ids[CONTEXT, POSITION]).double().mean()
    assert card.share_same == pytest.approx(float(share), abs=1e-6)
    for each in card.found:
        text = "".join(loaded.model.token_texts(ids[each.context].tolist()))
        assert each.before + each.token + each.after in text


def test_the_same_text_elsewhere_fails_in_the_same_way(loaded: Loaded, narrow: LoadedSae, texts: Texts) -> None:
    ids = loaded.contexts.token_ids.clone()
    ids[9] = ids[CONTEXT]
    twice = replace(loaded, contexts=replace(loaded.contexts, token_ids=ids))
    browser = Texts(twice)
    fit = browser.fits["excluded"]
    fit.maps, fit.epoch = texts.fits["excluded"].maps, 1
    card = similar(twice, browser, narrow)
    first = card.found[0]
    assert (first.context, first.position) == (9, POSITION) and first.cosine == pytest.approx(1.0, abs=1e-6)
    assert card.random_cosine < 0.95


def test_where_not_all_fit_whole_contexts_are_searched_and_it_is_said(
    loaded: Loaded, texts: Texts, narrow: LoadedSae, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {(each.context, each.position) for each in similar(loaded, texts, narrow).found}
    per_context = int(loaded.plan.included[0].sum())
    monkeypatch.setattr(module, "SIMILAR_BYTES", 4 * 16 * per_context * 10)
    card = similar(loaded, texts, narrow)
    assert (card.n_searched, card.n_scored) == (10 * per_context, 40 * per_context)
    assert len(card.found) == 10 and len({each.context for each in card.found}) == 10
    assert whole - {(each.context, each.position) for each in card.found}


def test_the_contexts_are_searched_once_per_map(texts: Texts, narrow: LoadedSae) -> None:
    answers = Similar(texts)
    at = GetSimilar(source="context", context=CONTEXT, position=POSITION, sae_id=narrow.ref.sae_id)
    first, second = (sum(1 for _ in answers.answer(0, at)) for _ in range(2))
    assert first - second == 2 * 40 and second == 2
