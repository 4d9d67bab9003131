"""hf: text from a data set on a hub to rows of tokens, and once more without the hub; parquet and .jsonl.zst files.

The order is the library's own shuffle of the same documents in a local file; ids are those of the tokenizer's file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from tests import toy
from tests.commands import BLOCK, Done, commands
from tests.hub_server import Hub, hub_server

TOKEN = "hf_SecretSecretSecretSecretSecretSe"
LENGTH, N = 64, 24
DOCUMENTS = [f"{i} " + "the error of a token " * (2 if i % 3 == 0 else 20 + i % 7) for i in range(150)]


@dataclass(frozen=True, kw_only=True)
class Served:
    """What came of the commands, and what the hub was asked."""

    done: list[Done]
    hub: Hub
    model: Path
    folder: Path


def target(folder: Path, text: str, *more: str) -> list[str]:
    return [
        *("tokens", "--model", str(folder / "model"), "--suite", str(folder / "suite"), "--accept-gate", "--json"),
        *("--text", f"hf:{text}", "--contexts", str(N), "--context-length", str(LENGTH), "--positions", "4:", *more),
    ]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Both data sets read from the hub, then again with every socket blocked; and what cannot be read."""
    folder = tmp_path_factory.mktemp("hub-text")
    toy.write_toy_model(folder / "model")
    toy.write_toy_sae(folder / "suite" / "a", d_in=16, d_sae=64, k=4, hook_name="blocks.1.hook_resid_post")
    (folder / "rows" / "data").mkdir(parents=True)
    pq.write_table(pa.table({"text": DOCUMENTS}), folder / "rows" / "data" / "train-00000-of-00001.parquet")
    (folder / "lines" / "train").mkdir(parents=True)
    # As the Pile's: a file of zstd frames; what follows the first one counts too.
    lines = "".join(json.dumps({"text": text, "meta": {"set": "x"}}) + "\n" for text in DOCUMENTS).encode()
    with (folder / "lines" / "train" / "00.jsonl.zst").open("wb") as file:
        for part in (lines[:5000], lines[5000:]):
            file.write(pa.compress(part, codec="zstd", asbytes=True))
    with hub_server() as hub:
        hub.publish("datasets/some/rows", folder / "rows")
        hub.publish("datasets/some/lines", folder / "lines")
        hub.publish("datasets/some/secret", folder / "rows")
        hub.gated.add("datasets/some/secret")
        done = commands(
            folder,
            [
                target(folder, "some/rows"),
                target(folder, "some/lines"),
                target(folder, "some/secret"),
                target(folder, "some/nothing"),
                target(folder, "some/lines:validation"),
                target(folder, "some/lines:train:body"),
                [BLOCK, *target(folder, "some/rows", "--offline")],
                target(folder, "some/lines"),
                target(folder, "some/lines", "--seed", "1", "--offline"),
                target(folder, "some/lines", "--text-field", "meta"),
                target(folder, "some/lines:train:text", "--text-field", "meta"),
                [BLOCK, *target(folder, "some/lines", "--text-field", "text")],
            ],
            HF_ENDPOINT=hub.url,
            HF_HUB_DISABLE_XET="1",
            HF_TOKEN=TOKEN,
        )
        yield Served(done=done, hub=hub, model=folder / "model", folder=folder)


def rows_of(done: Done) -> list[dict[str, Any]]:
    assert done.code == 0, done.err
    rows: list[dict[str, Any]] = json.loads(done.out)["tokens"]
    return rows


def contexts_of(done: Done) -> list[list[int]]:
    found: dict[int, list[int]] = {}
    for row in rows_of(done):
        found.setdefault(row["context"], []).append(row["token_id"])
    return [found[context] for context in sorted(found)]


@pytest.mark.parametrize("place", [0, 1])
def test_the_first_tokens_of_long_enough_documents_in_shuffled_order(served: Served, place: int) -> None:
    """Spec 1.2: seed 42, buffer 10,000, documents that are too short skipped, one context per document."""
    from datasets import load_dataset

    path = served.folder / "local.parquet"
    pq.write_table(pa.table({"text": DOCUMENTS}), path)
    cache = str(served.folder / "library")
    stream = load_dataset("parquet", data_files=str(path), split="train", streaming=True, cache_dir=cache)
    tokenizer = Tokenizer.from_file(str(served.model / "tokenizer.json"))
    ids = [tokenizer.encode(row["text"]).ids for row in stream.shuffle(seed=42, buffer_size=10_000)]
    expected = [each[:LENGTH] for each in ids if len(each) >= LENGTH][:N]
    assert any(len(each) < LENGTH for each in ids[:N])
    assert contexts_of(served.done[place]) == expected


def test_a_second_run_needs_nobody(served: Served) -> None:
    assert rows_of(served.done[6]) == rows_of(served.done[0])
    assert rows_of(served.done[7]) == rows_of(served.done[1])
    assert rows_of(served.done[11]) == rows_of(served.done[1])


def test_a_field_that_is_named_twice_is_a_mistake(served: Served) -> None:
    assert served.done[10].code == 2
    assert "names a field and --text-field 'meta' another one" in served.done[10].err


def test_the_field_that_is_read_is_told(served: Served) -> None:
    for place in (0, 1, 6, 7, 11):
        assert f"{N} contexts of {LENGTH} tokens, from field 'text'" in served.done[place].err


def test_what_cannot_be_had_is_one_line_and_exit_code_4(served: Served) -> None:
    for place, sentence in (
        (2, "hub has no data set some/secret, or does not show it to you"),
        (3, "hub has no data set some/nothing"),
        (4, "has no split 'validation'"),
        (5, "has no field 'body'; its fields: text (text), meta (objects)"),
        (8, "--offline forbids to fetch them"),
        (9, "Field 'meta' of hf:some/lines:train:meta holds objects, no text."),
    ):
        done = served.done[place]
        errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
        assert (done.code, done.out, len(errors)) == (4, "", 1), done.err
        assert sentence in errors[0]
        assert "Traceback" not in done.err


def test_the_token_goes_to_the_hub_and_nowhere_else(served: Served) -> None:
    assert f"Bearer {TOKEN}" in served.hub.tokens
    assert not any(TOKEN in done.out + done.err for done in served.done)
    kept = list((served.folder / ".cache").rglob("*.safetensors"))
    assert kept
    assert not any(TOKEN.encode() in path.read_bytes() for path in kept)
