"""What a view is told about tokens, against a model and SAEs run again from scratch."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inspector.errors import DataError, InspectorError, UsageError
from inspector.session import documents, texts
from inspector.session.cards import Guess, SaeScores
from inspector.session.fitting import ErrorNorms, background_fit
from inspector.session.protocol import (
    AnalysePrompt,
    ContextScores,
    Find,
    Floats,
    Generate,
    Generated,
    GetContext,
    GetDetail,
    GetPairs,
    Hit,
)
from inspector.session.texts import TextIndex, Texts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inspector.engine.regression import LinearMap
    from inspector.sources.target import Loaded

TEXT = "the error of dark matter"


def improve(browser: Texts, maps: Mapping[str, LinearMap], epoch: int) -> None:
    """As the background fit does it."""
    reading = browser.fits["excluded"]
    reading.maps, reading.epoch = maps, epoch


@pytest.fixture(scope="module")
def maps(loaded: Loaded) -> Mapping[str, LinearMap]:
    last = [
        item for item in background_fit(loaded, ErrorNorms([sae.ref.sae_id for sae in loaded.saes])) if item is not None
    ][-1]
    return last.maps


@pytest.fixture
def browser(loaded: Loaded) -> Texts:
    return Texts(loaded)


@pytest.fixture
def sharp(loaded: Loaded, maps: Mapping[str, LinearMap]) -> Texts:
    """With maps."""
    made = Texts(loaded)
    improve(made, maps, 3)
    return made


def numbers(data: Floats) -> np.ndarray:
    return np.frombuffer(data, "<f4")


class Rerun:
    """Everything about some tokens, from one fresh pass, with plain arithmetic in float64."""

    def __init__(self, loaded: Loaded, ids: list[int]) -> None:
        tokens = torch.tensor([ids])
        done = loaded.model.forward(tokens, (loaded.hook_name,))
        self.loaded = loaded
        self.tokens = tokens
        self.x = done.activations[loaded.hook_name][0]
        self.log_probabilities = done.logits[0].double().log_softmax(dim=-1).numpy()
        following = tokens[0, 1:].numpy()
        self.loss = -self.log_probabilities[np.arange(len(following)), following]

    def parts(self, row: int, error_map: LinearMap) -> dict[str, np.ndarray]:
        """x_hat, linear and nonlinear error [t, d]."""
        made = self.loaded.saes[row].reconstruct(self.x)
        x, x_hat = self.x.double().numpy(), made.x_hat.double().numpy()
        linear = x @ error_map.weight.numpy().T + error_map.bias.numpy()
        return {"x": x, "x_hat": x_hat, "linear": linear, "nonlinear": x - x_hat - linear, "l0": made.l0.numpy()}

    def check(self, saes: list[SaeScores], maps: Mapping[str, LinearMap], last: int = 0) -> None:
        """Norms to 1e-4 of |x|, the tolerance the design gives the whole decomposition in float32."""
        for row, scores in enumerate(saes):
            parts = self.parts(row, maps[self.loaded.saes[row].ref.sae_id])
            size = np.linalg.norm(parts["x"], axis=1)
            assert np.all(np.abs(parts["x_hat"] + parts["linear"] + parts["nonlinear"] - parts["x"]) < 1e-12)
            for told, expected in (
                (scores.sae_error_norm, parts["linear"] + parts["nonlinear"]),
                (scores.linear_error_norm, parts["linear"]),
                (scores.nonlinear_error_norm, parts["nonlinear"]),
            ):
                assert np.all(np.abs(numbers(told) - np.linalg.norm(expected, axis=1)) < 1e-4 * size)
            assert np.array_equal(numbers(scores.l0), parts["l0"])


def check_scores(told: ContextScores, loaded: Loaded, maps: Mapping[str, LinearMap]) -> Rerun:
    rerun = Rerun(loaded, told.token_ids)
    np.testing.assert_allclose(numbers(told.loss)[:-1], rerun.loss, rtol=1e-5)
    assert np.isnan(numbers(told.loss)[-1])
    np.testing.assert_allclose(numbers(told.x_norm), np.linalg.norm(rerun.x.numpy(), axis=1), rtol=1e-6)
    rerun.check(told.saes, maps)
    return rerun


# ---- whole texts ----------------------------------------------------------------------------------------------------


def test_a_context_is_scored_as_a_fresh_run_scores_it(
    sharp: Texts, loaded: Loaded, maps: Mapping[str, LinearMap]
) -> None:
    told = sharp.context(0, GetContext(request=4, context=7))
    assert (told.request, told.source, told.context, told.epoch) == (4, "context", 7, 3)
    assert told.name == loaded.contexts.names[7]
    assert told.token_ids == loaded.contexts.token_ids[7].tolist()
    assert told.tokens == [loaded.model.token_text(token) for token in told.token_ids]
    check_scores(told, loaded, maps)
    letters = {(False, False): "x", (True, True): "t", (True, False): "h"}
    pairs = zip(loaded.plan.included[7].tolist(), loaded.plan.train[7].tolist(), strict=True)
    assert told.split == "".join(letters[pair] for pair in pairs)


def test_before_the_first_map_the_parts_are_not_known_and_the_whole_is(browser: Texts) -> None:
    told = browser.context(0, GetContext(context=0))
    assert told.epoch == 0
    for scores in told.saes:
        assert np.isnan(numbers(scores.linear_error_norm)).all()
        assert np.isnan(numbers(scores.nonlinear_error_norm)).all()
        assert np.isfinite(numbers(scores.sae_error_norm)).all()


def test_after_a_fit_a_text_recolours_without_the_model(
    browser: Texts, loaded: Loaded, maps: Mapping[str, LinearMap], monkeypatch: pytest.MonkeyPatch
) -> None:
    browser.context(0, GetContext(context=2))
    browser.prompt(1, AnalysePrompt(text=TEXT))

    def never(*_: object) -> None:
        raise AssertionError("the model ran again")

    with monkeypatch.context() as patch:
        patch.setattr(type(loaded.model), "forward", never)
        improve(browser, maps, 1)
        context, prompt = browser.context(0, GetContext(context=2)), browser.own_again(1, "prompt", 0)
    assert prompt is not None
    assert context.epoch == prompt.epoch == 1
    check_scores(context, loaded, maps)
    check_scores(prompt, loaded, maps)


def test_without_kept_reconstructions_the_numbers_are_the_same(
    sharp: Texts, loaded: Loaded, maps: Mapping[str, LinearMap], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "RECONSTRUCTIONS_BYTES", 0)
    first, second = sharp.context(0, GetContext(context=2)), sharp.context(0, GetContext(context=2))
    assert first == second
    check_scores(second, loaded, maps)


def test_a_prompt_holds_out_everything_but_special_tokens(
    sharp: Texts, loaded: Loaded, maps: Mapping[str, LinearMap]
) -> None:
    told = sharp.prompt(1, AnalysePrompt(request=2, text=f"  {TEXT}\n"))
    assert (told.request, told.source, told.name) == (2, "prompt", TEXT)
    assert told.token_ids == loaded.model.encode(f"  {TEXT}\n")
    assert told.split == "x" + "h" * (len(told.token_ids) - 1)
    check_scores(told, loaded, maps)


def test_the_oldest_texts_are_dropped_when_there_is_no_room(browser: Texts, monkeypatch: pytest.MonkeyPatch) -> None:
    one = browser.context(0, GetContext(context=0))
    assert one.tokens
    kept = browser.kept
    size = kept.get(("context", 0, 0)).n_bytes  # type: ignore[union-attr]
    kept.limit = 2 * size
    for context in (1, 0, 2):
        browser.context(0, GetContext(context=context))
    assert [kept.get(("context", 0, i)) is not None for i in (0, 1, 2)] == [True, False, True]
    kept.limit = 0
    browser.context(0, GetContext(context=3))
    assert [kept.get(("context", 0, i)) is not None for i in (0, 2, 3)] == [False, False, True]


# ---- generation -----------------------------------------------------------------------------------------------------


def generated(browser: Texts, asked: Generate) -> list[Generated]:
    return [item for item in browser.generate(1, asked) if item is not None]


def together(messages: list[Generated]) -> tuple[list[int], list[SaeScores], np.ndarray]:
    """Ids, scores and losses of a generation, as a view puts them together."""
    saes = [
        SaeScores(
            **{name: b"".join(getattr(m.saes[row], name) for m in messages) for name in SaeScores.__struct_fields__}
        )
        for row in range(len(messages[0].saes))
    ]
    losses: list[float] = []
    for message in messages:
        if message.loss_before is not None:
            losses[-1] = message.loss_before
        losses += numbers(message.loss).tolist()
    return [token for m in messages for token in m.token_ids], saes, np.array(losses)


@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["token by token", "all at once"])
def test_every_live_token_is_decomposed_as_a_full_rerun_decomposes_it(
    sharp: Texts, loaded: Loaded, maps: Mapping[str, LinearMap], monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:

    monkeypatch.setattr(documents, "MESSAGE_SECONDS", seconds)
    messages = generated(sharp, Generate(request=6, prompt_ids=loaded.model.encode(TEXT), max_tokens=20, seed=3))
    ids, saes, losses = together(messages)
    prompt = loaded.model.encode(TEXT)
    assert ids[: len(prompt)] == prompt
    assert len(ids) == len(prompt) + 20
    rerun = Rerun(loaded, ids)
    rerun.check(saes, maps)
    # The cache adds its own rounding, 1e-6 of logits of size ten.
    np.testing.assert_allclose(losses[:-1], rerun.loss, atol=1e-4)
    assert np.isnan(losses[-1])
    assert "".join(m.split for m in messages) == "x" + "h" * (len(ids) - 1)
    assert [text for m in messages for text in m.tokens] == loaded.model.token_texts(ids)


def test_questions_between_two_tokens_change_nothing(sharp: Texts, loaded: Loaded) -> None:
    asked = Generate(prompt_ids=loaded.model.encode(TEXT), max_tokens=15, seed=1)
    undisturbed = together(generated(sharp, asked))
    messages = []
    for i, item in enumerate(sharp.generate(1, asked)):
        sharp.context(0, GetContext(context=i % 5))
        sharp.detail(1, GetDetail(source="context", context=i % 5, position=9, sae_id=loaded.saes[0].ref.sae_id))
        messages += [item] if item is not None else []
    disturbed = together(messages)
    assert disturbed[0] == undisturbed[0]
    np.testing.assert_array_equal(disturbed[2], undisturbed[2])


def test_a_contexts_own_tokens_can_be_continued(sharp: Texts, loaded: Loaded) -> None:
    ids = loaded.contexts.token_ids[3, :10].tolist()
    (first, *rest) = generated(sharp, Generate(prompt_ids=ids, max_tokens=4))
    assert first.token_ids == ids
    assert sum(len(m.token_ids) for m in rest) == 4


def test_a_generation_ends_where_the_models_context_ends(sharp: Texts, loaded: Loaded) -> None:
    ids, *_ = together(generated(sharp, Generate(prompt_ids=loaded.model.encode(TEXT), max_tokens=100_000)))
    assert len(ids) <= loaded.model.n_ctx


# ---- one token ------------------------------------------------------------------------------------------------------


def best(log_probabilities: np.ndarray, loaded: Loaded) -> list[Guess]:
    order = np.argsort(-log_probabilities)[:5]
    return [
        Guess(token=loaded.model.token_text(int(i)), probability=float(np.exp(log_probabilities[i]))) for i in order
    ]


def same(told: list[Guess], expected: list[Guess]) -> None:
    assert [guess.token for guess in told] == [guess.token for guess in expected]
    np.testing.assert_allclose([g.probability for g in told], [g.probability for g in expected], rtol=1e-4)


def test_detail_tells_the_latents_and_what_each_replacement_does_to_the_next_token(
    sharp: Texts, loaded: Loaded, maps: Mapping[str, LinearMap]
) -> None:
    sae = loaded.saes[2]
    told = sharp.detail(1, GetDetail(request=8, source="context", context=5, position=21, sae_id=sae.ref.sae_id))
    assert (told.request, told.context, told.position, told.sae_id) == (8, 5, 21, sae.ref.sae_id)
    rerun = Rerun(loaded, loaded.contexts.token_ids[5].tolist())
    assert [(latent.index, latent.activation) for latent in told.latents] == sae.active_latents(rerun.x[21])
    assert told.n_active == len(told.latents) == int(sae.reconstruct(rerun.x).l0[21])
    same(told.guesses["model"], best(rerun.log_probabilities[21], loaded))
    parts = rerun.parts(2, maps[sae.ref.sae_id])
    included = loaded.plan.included[5].numpy()[:, None]
    for name, vector in (
        ("Sae", parts["x_hat"]),
        ("Sae + linear", parts["x_hat"] + parts["linear"]),
        ("Sae + nonlinear", parts["x_hat"] + parts["nonlinear"]),
    ):
        replacement = torch.from_numpy(np.where(included, vector, parts["x"])).float()[None]
        logits = loaded.model.splice(rerun.tokens, loaded.hook_name, replacement).logits[0, 21].double()
        same(told.guesses[name], best(logits.log_softmax(dim=-1).numpy(), loaded))


def test_before_the_first_map_only_the_sae_is_spliced(browser: Texts, loaded: Loaded) -> None:
    told = browser.detail(1, GetDetail(source="context", context=0, position=9, sae_id=loaded.saes[0].ref.sae_id))
    assert list(told.guesses) == ["model", "Sae"]


def test_a_perfect_sae_changes_no_guess(sharp: Texts, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    from inspector.sources.sae import Reconstruction

    def perfect(_: object, x: torch.Tensor) -> Reconstruction:
        return Reconstruction(x_hat=x.clone(), l0=torch.ones(len(x), dtype=torch.int32))

    monkeypatch.setattr(type(loaded.saes[0]), "reconstruct", perfect)
    told = sharp.detail(1, GetDetail(source="context", context=1, position=9, sae_id=loaded.saes[0].ref.sae_id))
    same(told.guesses["Sae"], told.guesses["model"])


def test_guesses_of_a_text_are_made_once_per_sae_and_fit(
    sharp: Texts, loaded: Loaded, maps: Mapping[str, LinearMap], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    splice = type(loaded.model).splice
    monkeypatch.setattr(type(loaded.model), "splice", lambda *args: calls.append(args[1].shape) or splice(*args))
    ids = [sae.ref.sae_id for sae in loaded.saes[:2]]
    for position in (9, 10, 11):
        for sae_id in ids:
            sharp.detail(1, GetDetail(source="context", context=0, position=position, sae_id=sae_id))
    assert calls == [torch.Size([1, 32])] * 6  # one replacement at a time: a text's logits may be a gigabyte
    improve(sharp, maps, 4)
    sharp.detail(1, GetDetail(source="context", context=0, position=9, sae_id=ids[0]))
    assert len(calls) == 9


def test_details_of_prompts_and_generations_are_their_views_own(sharp: Texts, loaded: Loaded) -> None:
    sae_id = loaded.saes[0].ref.sae_id
    prompt = sharp.prompt(1, AnalysePrompt(text=TEXT))
    sharp.prompt(2, AnalysePrompt(text="x"))
    last = len(prompt.token_ids) - 1
    told = sharp.detail(1, GetDetail(source="prompt", context=0, position=last, sae_id=sae_id))
    rerun = Rerun(loaded, prompt.token_ids)
    same(told.guesses["model"], best(rerun.log_probabilities[last], loaded))
    with pytest.raises(UsageError, match=f"Position {last} is not in a text of 2 tokens"):
        sharp.detail(2, GetDetail(source="prompt", context=0, position=last, sae_id=sae_id))
    messages = generated(sharp, Generate(prompt_ids=loaded.model.encode(TEXT), max_tokens=6))
    ids, *_ = together(messages)
    told = sharp.detail(1, GetDetail(source="generated", context=0, position=len(ids) - 1, sae_id=sae_id))
    same(told.guesses["model"], best(Rerun(loaded, ids).log_probabilities[-1], loaded))
    for view, source in ((2, "generated"), (3, "prompt"), (1, "nonsense")):
        with pytest.raises(UsageError, match=f"no text '{source}' of this view"):
            sharp.detail(view, GetDetail(source=source, context=0, position=0, sae_id=sae_id))
    sharp.forget(1)
    with pytest.raises(UsageError, match="Send the prompt again"):
        sharp.detail(1, GetDetail(source="prompt", context=0, position=0, sae_id=sae_id))


def test_a_view_has_several_texts_and_a_generation_comes_back_by_its_tokens(sharp: Texts, loaded: Loaded) -> None:
    sae_id = loaded.saes[0].ref.sae_id
    first, second = (
        sharp.prompt(7, AnalysePrompt(text=text, number=n)) for n, text in ((1, TEXT), (2, f"{TEXT} {TEXT}"))
    )
    ids, *_ = together(generated(sharp, Generate(prompt_ids=first.token_ids, max_tokens=6, number=3)))
    again = sharp.prompt(7, AnalysePrompt(token_ids=ids, source="generated", number=3))
    assert [(each.source, each.context) for each in (first, second, again)] == [
        ("prompt", 1),
        ("prompt", 2),
        ("generated", 3),
    ]
    assert again.token_ids == ids
    for told in (first, second, again):
        last = len(told.token_ids) - 1
        asked = GetDetail(source=told.source, context=told.context, position=last, sae_id=sae_id)
        # Each detail is of its own text, also when the session kept only its tokens.
        sharp.kept.drop(lambda key: key[1] == 7)
        same(sharp.detail(7, asked).guesses["model"], best(Rerun(loaded, told.token_ids).log_probabilities[-1], loaded))
        with pytest.raises(UsageError, match="is not in a text of"):
            sharp.detail(7, GetDetail(source=told.source, context=told.context, position=last + 1, sae_id=sae_id))
    with pytest.raises(UsageError, match="token_ids holds 10000000"):
        sharp.prompt(7, AnalysePrompt(token_ids=[10_000_000]))


def test_latents_link_to_their_pages_where_they_have_one(loaded: Loaded) -> None:
    sae = copy.copy(loaded.saes[0])
    sae.ref = replace(sae.ref, neuronpedia="gemma-2-2b/20-res-16k")
    asked = GetDetail(source="context", context=2, position=20, sae_id=sae.ref.sae_id)
    (first, *_) = Texts(replace(loaded, saes=(sae, *loaded.saes[1:]))).detail(1, asked).latents
    assert first.link == f"https://www.neuronpedia.org/gemma-2-2b/20-res-16k/{first.index}"
    assert Texts(loaded).detail(1, asked).latents[0].link == ""


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_what_does_not_exist_is_named(sharp: Texts, loaded: Loaded) -> None:
    sae_id = loaded.saes[0].ref.sae_id
    n = len(loaded.contexts.names)
    with pytest.raises(UsageError, match=rf"no context {n}\. The contexts are 0 to {n - 1}"):
        sharp.context(0, GetContext(context=n))
    with pytest.raises(UsageError, match="no context -1"):
        sharp.context(0, GetContext(context=-1))
    with pytest.raises(UsageError, match=f"'{sae_id}x' is not loaded. Nearest: .*{sae_id}"):
        sharp.detail(1, GetDetail(source="context", context=0, position=0, sae_id=sae_id + "x"))
    with pytest.raises(UsageError, match="is not loaded"):
        sharp.pairs(0, GetPairs(sae_ids=[sae_id, "?"]))
    with pytest.raises(UsageError, match="Position 32 is not in a text of 32 tokens"):
        sharp.detail(1, GetDetail(source="context", context=0, position=32, sae_id=sae_id))


def test_texts_that_do_not_fit_are_refused_before_the_model_sees_them(sharp: Texts, loaded: Loaded) -> None:
    limit = loaded.model.n_ctx
    with pytest.raises(DataError, match=f"tokens, but the model reads {limit}. Shorten it"):
        sharp.prompt(1, AnalysePrompt(text="日" * limit))
    with pytest.raises(DataError, match="needs room for at least one more"):
        sharp.generate(1, Generate(prompt_ids=[5] * limit))
    for wrong in (loaded.model.vocab_size, -1):
        with pytest.raises(UsageError, match=f"prompt_ids holds {wrong}"):
            sharp.generate(1, Generate(prompt_ids=[1, wrong]))
    with pytest.raises(InspectorError):
        sharp.generate(1, Generate(prompt_ids=[5], temperature=float("nan")))


def test_an_empty_prompt_is_the_first_token_alone(sharp: Texts, loaded: Loaded) -> None:
    assert sharp.prompt(1, AnalysePrompt(text="")).token_ids == [loaded.model.bos_id]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_located_and_not_coloured(
    sharp: Texts, loaded: Loaded, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    forward = type(loaded.model).forward

    def broken(*args: object) -> object:
        done = forward(*args)  # type: ignore[arg-type]
        done.activations[loaded.hook_name] = done.activations[loaded.hook_name].clone()
        done.activations[loaded.hook_name][0, 4, 2] = value
        return done

    monkeypatch.setattr(type(loaded.model), "forward", broken)
    with pytest.raises(
        DataError, match=rf"hook_resid_post is {value} at context 6 .*position 4, dimension 2 \(float32"
    ):
        sharp.context(0, GetContext(context=6))
    monkeypatch.undo()
    assert np.isfinite(numbers(sharp.context(0, GetContext(context=6)).x_norm)).all()


def test_text_is_found_across_tokens(sharp: Texts, loaded: Loaded) -> None:
    hits = sharp.find(0, Find(text=" DARK ")).hits
    assert len(hits) > 3
    for hit in hits:
        ids = loaded.contexts.token_ids[hit.context].tolist()
        following = "".join(loaded.model.token_texts(ids[hit.position :]))
        assert " dark " in following[: len(loaded.model.token_text(ids[hit.position])) + len(" dark ")]


TEXTS = ["def", " dark", " mat", "ter", "İ", "", "aa", "DARK", "ß", "\n"]


def index(*contexts: list[int]) -> TextIndex:
    return TextIndex(contexts, lambda ids: [TEXTS[token] for token in ids])


def places(found_in: TextIndex, text: str) -> list[tuple[int, int]]:
    return [(hit.context, hit.position) for hit in found_in.find(Find(text=text)).hits]


def test_a_match_across_tokens_is_found_where_it_begins() -> None:
    made = index([0, 1, 2, 3], [1, 2, 3, 3])
    assert places(made, "dark matter") == [(0, 1), (1, 0)]
    assert places(made, "ef da") == [(0, 0)]
    assert places(made, "nowhere") == []
    assert places(made, "") == []


def test_case_is_ignored() -> None:
    made = index([7, 1])
    assert places(made, "dark") == places(made, "DARK") == [(0, 0), (0, 1)]


def test_a_letter_that_grows_when_lowered_shifts_nothing() -> None:
    assert len("İ".lower()) == 2
    assert places(index([4, 4, 4, 0]), "def") == [(0, 3)]


def test_tokens_without_text_are_never_the_place() -> None:
    assert places(index([5, 5, 0, 5]), "def") == [(0, 2)]
    assert places(index([0, 5, 1]), "dark") == [(0, 2)]


def test_two_matches_in_one_token_count_once_and_overlapping_ones_in_two_tokens_twice() -> None:
    assert places(index([6]), "a") == [(0, 0)]
    assert places(index([6, 6]), "aa") == [(0, 0), (0, 1)]


def test_the_limit_is_kept_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    made = index([0, 0, 0], [0])
    monkeypatch.setattr(texts, "MOST_HITS", 3)
    found = made.find(Find(request=5, text="def"))
    assert (found.request, len(found.hits), found.truncated) == (5, 3, True)
    monkeypatch.setattr(texts, "MOST_HITS", 4)
    found = made.find(Find(text="def"))
    assert (len(found.hits), found.truncated) == (4, False)


@given(
    st.lists(st.lists(st.integers(0, len(TEXTS) - 1), max_size=12), max_size=4),
    st.text("def arkmt\n", min_size=1, max_size=4),
)
def test_it_finds_what_looking_at_every_character_finds(contexts: list[list[int]], needle: str) -> None:
    expected = []
    for context, ids in enumerate(contexts):
        owners = [position for position, token in enumerate(ids) for _ in TEXTS[token].lower()]
        text = "".join(TEXTS[token].lower() for token in ids)
        begins = [owners[at] for at in range(len(text)) if text.startswith(needle, at)]
        expected += [Hit(context=context, position=position) for position in sorted(set(begins))]
    assert index(*contexts).find(Find(text=needle)).hits == expected


def test_the_whole_corpus_is_searched_at_once() -> None:
    made = index(*[[1, 2, 3, 0] * 256] * 300)
    made.find(Find(text="x"))
    began = time.thread_time()  # of this thread alone, whatever else the machine does
    assert made.find(Find(text="terdef dark")).truncated
    # 300 x 1024 tokens: 1.2 million characters; 10 ms when nothing else runs. Slow by a factor of 50 is a mistake.
    assert time.thread_time() - began < 0.5
