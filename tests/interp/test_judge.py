"""A model from disk as a judge: its likeliest tokens, the same each time, and what it will not load."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from inspector.errors import TargetError
from inspector.interp import prompts
from inspector.interp.asking import AnswerStore, Asker
from inspector.interp.judge import LocalJudge
from inspector.sources.writer import Writer, load_writer
from tests.interp.conftest import finished

QUESTION = prompts.decide("detection", "dark matter", ["one", "two"])
TURNS = QUESTION.turns
TEMPLATE = (
    "{% for message in messages %}<bos>{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama that has learned nothing, with room for a question."""
    from tests.toy import write_toy_model

    made = write_toy_model(tmp_path_factory.mktemp("judge") / "llama", "llama", context=4096)
    # As many models do: a configuration that asks for sampling, which a judge must not follow.
    (made / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": 1.5, "top_k": 3}))
    return made


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def writer(folder: Path) -> Writer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_writer(str(folder), "cpu")


def likeliest(writer: Writer, text: str, n: int) -> str:
    """By hand: one pass over everything for each token."""
    tokenizer, model = writer._tokenizer, writer._model
    ids = tokenizer(text)["input_ids"]
    start = len(ids)
    with torch.inference_mode():
        for _ in range(n):
            ids = [*ids, int(model(torch.tensor([ids])).logits[0, -1].argmax())]
            if ids[-1] == tokenizer.eos_token_id:
                break
    return str(tokenizer.decode(ids[start:], skip_special_tokens=True))


def test_it_writes_the_likeliest_tokens(writer: Writer) -> None:
    text = "\n\n".join([*(turn["content"] for turn in TURNS), "Answer:\n"])
    written = writer.write(TURNS, 12)
    assert written and written == likeliest(writer, text, 12) == writer.write(TURNS, 12)


@pytest.mark.parametrize("template", [TEMPLATE, NO_SYSTEM])
def test_it_speaks_as_the_model_was_taught(writer: Writer, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer._tokenizer, "chat_template", template)
    text = writer._tokenizer.decode(writer._ids(TURNS))
    joined = "\n\n".join(turn["content"] for turn in TURNS)
    turns = [("user", joined)] if template is NO_SYSTEM else [(turn["role"], turn["content"]) for turn in TURNS]
    assert text == "".join(f"<bos>{role}: {content}\n" for role, content in turns) + "assistant: "


def test_a_question_that_is_too_long_is_said(writer: Writer) -> None:
    with pytest.raises(TargetError, match=r"tokens and its answer up to 10, but .* takes 4,096"):
        writer.write([{"role": "user", "content": "a b " * 4000}], 10)


def test_its_answers_are_kept_under_its_weights(writer: Writer, tmp_path: Path) -> None:
    judge = LocalJudge(writer)
    assert judge.name == f"local:{writer.digest[:32]}"
    with Asker(judge, AnswerStore(tmp_path), "1") as asker:
        (answer,) = finished(asker.ask([QUESTION], "scoring"))
        assert answer == writer.write(TURNS, QUESTION.max_tokens)
        assert asker.known([QUESTION]) == [answer]
    assert asyncio.run(LocalJudge(writer).ask(QUESTION)).text == answer


def test_what_is_no_judge_is_refused(tmp_path: Path, folder: Path) -> None:
    import shutil

    with pytest.raises(TargetError, match="There is no model directory"):
        load_writer(str(tmp_path / "none"), "cpu")
    pickled = shutil.copytree(folder, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(TargetError, match="not loaded because such a file can run code"):
        load_writer(str(pickled), "cpu")
    own_code = shutil.copytree(folder, tmp_path / "code")
    config: dict[str, Any] = json.loads((own_code / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "mine.Model", "AutoConfig": "mine.Config"}}
    (own_code / "config.json").write_text(json.dumps(config))
    (own_code / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(TargetError):
        load_writer(str(own_code), "cpu")
    assert not (tmp_path / "ran").exists()
