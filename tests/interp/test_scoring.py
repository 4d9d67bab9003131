"""The scores of judges whose competence is known, asked through a chat server with all its faults."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspector.experiments import find
from inspector.interp import prompts
from inspector.interp.asking import AnswerStore, Asker
from inspector.interp.chat import ChatJudge, Key, Patience
from inspector.interp.examples import N_DECILES, N_NEGATIVES, PER_DECILE, Settings
from inspector.interp.outcome import result_of
from inspector.interp.scoring import GROUPS, Judged, cost_of, explaining, items_of, score, strong
from inspector.store.results import KEYS, load, save
from tests.interp.conftest import SETTINGS, Examined, finished
from tests.judge_server import JudgeServer, Script, always_yes, coin, garbage, is_explaining, judge_server, judging

KEY = "canary-5d20c1"
ANSWERS_PER_LATENT = N_DECILES * PER_DECILE + N_NEGATIVES


class Setup:
    """Everything between the examples and a result, with its files in one folder."""

    def __init__(self, examined: Examined, folder: Path) -> None:
        self.examined, self.folder = examined, folder

    def asker(self, server: JudgeServer, *, name: str = "judge-1", parallel: int = 8) -> Asker:
        async def at_once(_seconds: float) -> None:
            """Nobody waits."""

        store = AnswerStore(self.folder / "answers")
        judge = ChatJudge(
            server.url, name, Key(KEY), parallel=parallel, patience=Patience(sleep=at_once, answer_seconds=10.0)
        )
        return Asker(judge, store, prompts.VERSION)

    def run(
        self, server: JudgeServer, settings: Settings = SETTINGS, **how: Any
    ) -> tuple[list[Judged], dict[str, Any]]:
        """Scores of the only SAE, and the result."""
        examined = self.examined
        decode = examined.loaded.model.tokenizer.text
        with self.asker(server, **how) as asker:
            scored = finished(score(examined.gathered, asker, decode, settings))
            self.tally = asker.tally
            result = result_of(
                examined.loaded, examined.gathered, scored, examined.windows, settings,
                judge=asker.judge.name, judge_url=server.url,
            )  # fmt: skip
        return scored[0], dict(result)


@pytest.fixture
def setup(examined: Examined, tmp_path: Path) -> Setup:
    return Setup(examined, tmp_path)


@pytest.fixture
def serve() -> Iterator[Any]:
    running = []

    def start(script: Script, **settings: Any) -> JudgeServer:
        server = judge_server(script, **settings)
        running.append(server)
        return server.__enter__()

    yield start
    for server in running:
        server.__exit__(None, None, None)


def oracle(examined: Examined, scorer: prompts.Scorer, settings: Settings = SETTINGS) -> Script:
    """A judge who has been handed the truth: it explains each latent by its number, and knows its excerpts."""
    decode = examined.loaded.model.tokenizer.text
    number: dict[str, str] = {}
    truth: dict[tuple[str, str], bool] = {}
    for latent in examined.only.latents:
        name = f"latent {latent.index}"
        number[explaining(latent, decode, SETTINGS).user] = name
        for item in items_of(latent, scorer, decode, settings.seed):
            assert truth.setdefault((name, item.text), item.truth) == item.truth, "a text both active and silent"
    decide = judging(lambda description, text: int(truth[description, text]))

    def script(messages: list[dict[str, str]]) -> str:
        if is_explaining(messages):
            return json.dumps({"explanation": number[messages[-1]["content"]]})
        return decide(messages)

    return script


def row_of(result: dict[str, Any]) -> dict[str, Any]:
    (row,) = result["saes"]
    return dict(row)


def group_scores(result: dict[str, Any]) -> list[float | None]:
    """Not, Q1 to Q10."""
    return [row_of(result)[f"accuracy_{group.lower()}"] for group in GROUPS]


# ---- judges whose scores are known -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scorer", ["detection", "fuzzing"])
def test_an_oracle_scores_one_everywhere(setup: Setup, serve: Any, scorer: prompts.Scorer) -> None:
    settings = replace(SETTINGS, scorer=scorer)
    scored, result = setup.run(serve(oracle(setup.examined, scorer, settings)), settings)
    assert group_scores(result) == [1.0] * 11
    row = row_of(result)
    assert (row["balanced_accuracy"], row["n_unparsable"], row["unparsable_share"]) == (1.0, 0, 0.0)
    assert all(ends == [1.0, 1.0] for ends in result["intervals"][row["sae"]].values())
    assert [each.explanation for each in scored] == [f"latent {each.latent.index}" for each in scored]


@pytest.mark.parametrize("scorer", ["detection", "fuzzing"])
def test_who_always_says_yes_is_right_on_deciles_and_wrong_on_negatives(
    setup: Setup, serve: Any, scorer: prompts.Scorer
) -> None:
    _, result = setup.run(serve(always_yes()), replace(SETTINGS, scorer=scorer))
    assert group_scores(result) == [0.0, *[1.0] * 10]
    assert row_of(result)["balanced_accuracy"] == 0.5


def test_a_coin_scores_a_half_within_its_interval(setup: Setup, serve: Any) -> None:
    _, result = setup.run(serve(coin(3)))
    row = row_of(result)
    low, high = result["intervals"][row["sae"]]["balanced_accuracy"]
    assert low < 0.5 < high and high - low < 0.2
    for group, value in zip(GROUPS, group_scores(result), strict=True):
        low, high = result["intervals"][row["sae"]][f"accuracy_{group.lower()}"]
        assert value is not None and low <= value <= high
        # 56 (or 400) throws: five standard errors are 0.33 (0.13).
        assert abs(value - 0.5) < (0.13 if group == "Not" else 0.34)


def test_garbage_is_counted_and_not_guessed(setup: Setup, serve: Any) -> None:
    scored, result = setup.run(serve(garbage))
    row = row_of(result)
    n = len(setup.examined.only.latents)
    assert row["n_questions"] == row["n_unparsable"] == n * ANSWERS_PER_LATENT // SETTINGS.shown
    assert (row["unparsable_share"], row["balanced_accuracy"]) == (1.0, None)
    assert group_scores(result) == [None] * 11
    assert set(result["intervals"][row["sae"]].values()) == {None}
    assert any("100% of the answers" in warning for warning in result["warnings"])
    assert all(each.counts is not None and each.counts.parsed.sum() == 0 for each in scored)


def test_a_judge_that_is_clear_now_and_then_is_scored_on_what_is_clear(setup: Setup, serve: Any) -> None:
    knows = oracle(setup.examined, "detection")

    def script(messages: list[dict[str, str]]) -> str:
        answer = knows(messages)
        return answer if is_explaining(messages) or len(messages[-1]["content"]) % 2 else f"I think {answer}"

    _, result = setup.run(serve(script))
    row = row_of(result)
    assert row["balanced_accuracy"] == 1.0
    assert row["unparsable_share"] == pytest.approx(row["n_unparsable"] / row["n_questions"])
    assert 0 < row["n_unparsable"] < row["n_questions"]


def test_a_latent_without_an_explanation_is_counted_and_not_scored(setup: Setup, serve: Any) -> None:
    knows = oracle(setup.examined, "detection")
    mute = f"latent {setup.examined.only.latents[2].index}"

    def script(messages: list[dict[str, str]]) -> str:
        answer = knows(messages)
        return "It is about matter." if is_explaining(messages) and mute in answer else answer

    scored, result = setup.run(serve(script))
    assert [each.explanation is None for each in scored] == [i == 2 for i in range(len(scored))]
    assert (row_of(result)["n_unexplained"], row_of(result)["n_scored"]) == (1, len(scored) - 1)
    assert result["result"]["latents"][2]["balanced_accuracy"] is None


def test_by_the_explanations_of_others_an_oracle_knows_less(setup: Setup, serve: Any) -> None:
    knows = oracle(setup.examined, "detection")

    def script(messages: list[dict[str, str]]) -> str:
        try:
            return knows(messages)
        except KeyError:  # the excerpts of another latent: nothing is known of them
            return json.dumps([0] * SETTINGS.shown)

    _, result = setup.run(serve(script), replace(SETTINGS, control=True))
    (value, *ends) = result["controls"]["other_explanations"]["balanced_accuracy"][row_of(result)["sae"]]
    assert row_of(result)["balanced_accuracy"] == 1.0
    assert value == pytest.approx(0.5, abs=0.1) and len(ends) == 2


# ---- what was shown --------------------------------------------------------------------------------------------------


def test_detection_shows_no_marks_and_fuzzing_as_many_wrong_as_right(examined: Examined) -> None:
    decode = examined.loaded.model.tokenizer.text
    for latent in examined.only.latents:
        plain = items_of(latent, "detection", decode, 0)
        marked = items_of(latent, "fuzzing", decode, 0)
        for items in (plain, marked):
            assert Counter(item.group for item in items) == {0: N_NEGATIVES, **{q: PER_DECILE for q in range(1, 11)}}
        assert not any(prompts.OPEN in item.text for item in plain)
        assert all(prompts.OPEN in item.text for item in marked)
        for example in latent.shown:
            marks = strong(example)
            assert marks.any() and np.all(example.activations[marks] > 0.6 * example.peak)


def test_what_is_shown_depends_on_the_seed_alone(examined: Examined) -> None:
    decode = examined.loaded.model.tokenizer.text
    latent = examined.only.latents[0]
    assert items_of(latent, "fuzzing", decode, 0) == items_of(latent, "fuzzing", decode, 0)
    assert items_of(latent, "fuzzing", decode, 0) != items_of(latent, "fuzzing", decode, 1)


# ---- faults, and what is asked ---------------------------------------------------------------------------------------


def test_faults_are_retried_and_change_no_score(setup: Setup, serve: Any) -> None:
    faults = ["429", "500", "cut", "502", "cut headers", "503", "not json", "429", "no choices"]
    # One alone, to see who is there, then faults and answers in turn: no question meets seven of them.
    in_turn = [each for fault in faults for each in (None, fault)]
    server = serve(oracle(setup.examined, "detection"), faults=in_turn)
    _, result = setup.run(server)
    assert group_scores(result) == [1.0] * 11
    assert setup.tally.retried == len(faults)
    assert len(server.asked) == len({json.dumps(body) for body in server.asked}), "no question was answered twice"


def test_nothing_is_asked_again(setup: Setup, serve: Any) -> None:
    server = serve(oracle(setup.examined, "detection"))
    _, first = setup.run(server)
    n = len(server.asked)
    assert n == len(setup.examined.only.latents) * (1 + ANSWERS_PER_LATENT // SETTINGS.shown) == setup.tally.asked
    _, again = setup.run(server)
    assert (len(server.asked), setup.tally.asked, setup.tally.known) == (n, 0, n)
    assert again == first
    setup.run(server, name="judge-2")
    assert len(server.asked) == 2 * n, "another model is asked for itself"


def test_what_was_answered_before_a_stop_is_not_asked_again(setup: Setup, serve: Any) -> None:
    server = serve(oracle(setup.examined, "detection"))
    examined, decode = setup.examined, setup.examined.loaded.model.tokenizer.text
    with setup.asker(server, parallel=1) as asker:
        work = score(examined.gathered, asker, decode, SETTINGS)
        while asker.tally.asked < 15:
            next(work)
        work.close()
        done = asker.tally.asked
    assert len(server.asked) - done in (0, 1), "at most the question that was on the way is lost"
    before = len(server.asked)
    _, result = setup.run(server)
    assert group_scores(result) == [1.0] * 11
    total = len(examined.only.latents) * (1 + ANSWERS_PER_LATENT // SETTINGS.shown)
    assert len(server.asked) - before == total - done


def test_the_cost_is_known_before_anybody_is_asked(setup: Setup, serve: Any) -> None:
    server = serve(oracle(setup.examined, "detection"))
    examined, decode = setup.examined, setup.examined.loaded.model.tokenizer.text

    def cost() -> Any:
        with setup.asker(server) as asker:
            return cost_of(examined.gathered, asker, decode, SETTINGS)

    before = cost()
    assert server.tried == 0
    total = len(examined.only.latents) * (1 + ANSWERS_PER_LATENT // SETTINGS.shown)
    assert (before.questions, before.known) == (total, 0)
    setup.run(server)
    characters = sum(len(message["content"]) for body in server.asked for message in body["messages"])
    # The explanations are not known beforehand: a guess of 200 characters each.
    assert before.prompt_tokens == pytest.approx(characters / 3.5, rel=0.35)
    after = cost()
    assert (after.questions, after.known, after.prompt_tokens) == (total, total, 0)


def test_a_judge_that_thinks_gets_room_and_its_thoughts_are_left_out(setup: Setup, serve: Any) -> None:
    knows = oracle(setup.examined, "detection")
    server = serve(lambda messages: f"<think>[0, 0] or {{}}?</think>\n{knows(messages)}")
    _, result = setup.run(server, replace(SETTINGS, thinking=500))
    assert group_scores(result) == [1.0] * 11
    assert {body["max_tokens"] for body in server.asked} == {500 + prompts.EXPLANATION_TOKENS, 500 + 16 + 4 * 12}


def test_no_more_at_once_than_allowed_and_the_first_alone(setup: Setup, serve: Any) -> None:
    server = serve(always_yes())
    together = threading.Event()
    first: list[int] = []

    def wait(number: int) -> None:
        if number == 1:
            time.sleep(0.3)  # long enough for others to come, if any came
            first.append(server.most_at_once)
        elif server.most_at_once >= 3 or together.wait(120):
            together.set()

    server.on_request = wait
    setup.run(server, parallel=3)
    assert first == [1] and together.is_set()
    assert server.most_at_once == 3


# ---- the result ------------------------------------------------------------------------------------------------------


def test_the_result_is_kept_and_drawn_like_any_other(setup: Setup, serve: Any, tmp_path: Path) -> None:
    _, result = setup.run(serve(oracle(setup.examined, "detection")))
    assert tuple(result) == KEYS
    record = save(result, "dm-inspect interp", folder=tmp_path / "results")
    stored = load(record.id, folder=tmp_path / "results").result
    assert stored == json.loads(json.dumps(result))
    experiment = find(record.experiment)
    titles = [figure.title for figure in experiment.draw(stored)]  # type: ignore[arg-type]
    assert titles == [
        "Detection scores",
        "Detection accuracy by decile of activation",
        "Accuracy on active windows",
        "Latents, the best explained first",
    ]
    assert result["provenance"]["judge"] == "judge-1"
    other = setup.run(serve(oracle(setup.examined, "detection")), name="judge-2")[1]
    assert other["provenance"]["fingerprint"] != result["provenance"]["fingerprint"]


def test_the_key_is_in_nothing_that_was_written(setup: Setup, serve: Any, tmp_path: Path) -> None:
    server = serve(oracle(setup.examined, "detection"), faults=["500", "429"])
    _, result = setup.run(server)
    save(result, "dm-inspect interp", folder=tmp_path / "results")
    assert server.keys and set(server.keys) == {f"Bearer {KEY}"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 2
    assert [path.name for path in files if KEY.encode() in path.read_bytes()] == []
