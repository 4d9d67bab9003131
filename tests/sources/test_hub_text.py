"""Text of a data set: the library's own streamed shuffle, kept tokens, damaged ones, and what is said when it fails.

The library streams a local parquet file instead of a hub's; its shuffle is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inspector.errors import DataError
from inspector.sources import hub_text
from inspector.sources.contexts import Contexts, load_contexts
from inspector.sources.loading import load_model
from inspector.spec import TargetSpec
from tests.toy import BOS_ID, write_toy_model

NAME = "hf:some/set"
N, LENGTH, BUFFER = 5, 24, 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_model(TargetSpec(model=str(write_toy_model(tmp_path_factory.mktemp("model") / "m")), device="cpu"))


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """200 documents, every third too short; what the library is asked for."""
    texts = [f"{i} " + "the token " * (1 if i % 3 == 0 else 10) for i in range(200)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "part.parquet")
    asked: list[str] = []

    def streamed(text: object) -> Any:
        from datasets import load_dataset

        asked.append(str(text))
        return load_dataset("parquet", data_files=str(tmp_path / "part.parquet"), split="train", streaming=True)

    monkeypatch.setattr(hub_text, "streamed", streamed)
    from datasets import config

    # The library waits five seconds for arrow's threads whenever a stream is closed.
    monkeypatch.setattr(config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    monkeypatch.setattr(hub_text, "PAPER_BUFFER", BUFFER)
    monkeypatch.setattr(hub_text, "user_folder", lambda _: tmp_path / "cache")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    yield asked


def load(model: Any, **fields: object) -> Contexts:
    given: dict[str, object] = {"text": NAME, "contexts": N, "context_length": LENGTH}
    return load_contexts(TargetSpec(**{**given, **fields}), model)  # type: ignore[arg-type]


def test_the_first_tokens_of_long_enough_documents_in_the_order_of_the_librarys_shuffle(
    model: Any, published: list[str], tmp_path: Path
) -> None:
    from datasets import load_dataset

    found = load(model)
    assert found.token_ids.shape == (N, LENGTH)
    assert set(found.token_ids[:, 0].tolist()) == {BOS_ID}
    stream = load_dataset("parquet", data_files=str(tmp_path / "part.parquet"), split="train", streaming=True)
    texts = [row["text"] for row, _ in zip(stream.shuffle(seed=42, buffer_size=BUFFER), range(50), strict=False)]
    expected = [model.encode(text)[:LENGTH] for text in texts if len(model.encode(text)) >= LENGTH][:N]
    assert found.token_ids.tolist() == expected
    assert load(model, seed=1).token_ids.tolist() != expected


def test_a_second_run_asks_nobody_and_measures_the_same(model: Any, published: list[str]) -> None:
    first = load(model)
    again = load(model, offline=True)
    assert published == ["hf:some/set:train"]
    assert (again.sha256, again.names) == (first.sha256, first.names)


@pytest.mark.parametrize("change", [lambda raw: raw[:-8] + b"12345678", lambda raw: raw[:50], lambda raw: b""])
def test_damaged_tokens_are_taken_again(model: Any, published: list[str], tmp_path: Path, change: Any) -> None:
    first = load(model)
    (path,) = (tmp_path / "cache" / "tokens").glob("*.safetensors")
    path.write_bytes(change(path.read_bytes()))
    assert load(model).sha256 == first.sha256
    assert len(published) == 2


def test_the_papers_seed_and_buffer() -> None:
    """Spec 1.2."""
    assert (hub_text.PAPER_SEED, hub_text.PAPER_BUFFER) == (42, 10_000)


def test_other_wishes_are_other_tokens(model: Any, published: list[str]) -> None:
    load(model)
    for fields in ({"contexts": 4}, {"context_length": 20}, {"seed": 3}, {"text": f"{NAME}:test"}):
        load(model, **fields)
    assert len(published) == 5


def test_offline_without_kept_tokens_says_what_to_do(model: Any, published: list[str]) -> None:
    with pytest.raises(DataError, match="--offline forbids"):
        load(model, offline=True)
    assert published == []


def test_a_missing_field_names_those_there_are(model: Any, published: list[str]) -> None:
    with pytest.raises(DataError, match=r"has no field 'body'; its fields: text \(text\)"):
        load(model, text=f"{NAME}:train:body")


def test_too_short_documents_are_said(model: Any, published: list[str]) -> None:
    with pytest.raises(DataError, match="has no text of 64 tokens"):
        load(model, text=NAME, context_length=64)


def test_no_word_of_an_error_is_repeated(model: Any, published: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise ConnectionError("https://user:hf_Secret@host")

    monkeypatch.setattr(hub_text, "streamed", fail)
    with pytest.raises(DataError, match=r"cannot be read from the hub \(ConnectionError\)") as caught:
        load(model)
    assert "hf_Secret" not in str(caught.value)


def test_a_field_that_was_found_is_kept_with_the_tokens(model: Any, published: list[str], tmp_path: Path) -> None:
    """Offline nobody can ask the data set again which of its fields holds the text."""
    texts = [f"{i} " + "the token " * 10 for i in range(60)]
    table = pa.table({"url": ["u"] * 60, "content": texts, "title": ["t"] * 59 + [None]})
    pq.write_table(table, tmp_path / "part.parquet")
    found = load(model)
    assert found.field == "content"
    again = load(model, offline=True)
    assert (again.field, again.sha256, again.names) == ("content", found.sha256, found.names)
    named = load(model, text_field="content")
    assert (named.field, named.sha256) == ("content", found.sha256)
    assert load(model, text=f"{NAME}:train:content", offline=True).sha256 == found.sha256
    assert published == ["hf:some/set:train", "hf:some/set:train:content"]
    with pytest.raises(DataError, match="--offline forbids"):
        load(model, text_field="title", offline=True)
    with pytest.raises(DataError, match=r"its fields: url \(text\), content \(text\), title \(text\)"):
        load(model, text_field="body")


def test_what_was_left_out_is_said_again_when_kept_tokens_are_opened(
    model: Any, published: list[str], tmp_path: Path
) -> None:
    texts = [None if i % 3 == 0 else f"{i} " + "the token " * 10 for i in range(12)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "part.parquet")
    first = load(model, contexts=8)
    assert first.notes[0] == "some/set: 4 records without text in field 'text' were left out."
    assert load(model, contexts=8, offline=True).notes == first.notes


def test_tokens_kept_by_an_older_version_open_still(model: Any, published: list[str], tmp_path: Path) -> None:
    """They were of the field `text`, under the same key, without notes."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    first = load(model)
    (path,) = (tmp_path / "cache" / "tokens").glob("*.safetensors")
    with safe_open(path, framework="pt") as file:
        about, ids = dict(file.metadata()), file.get_tensor("token_ids")
    del about["notes"], about["read_field"]
    save_file({"token_ids": ids}, path, metadata=about)
    again = load(model, offline=True)
    assert (again.sha256, again.field, again.notes) == (first.sha256, "text", ())
