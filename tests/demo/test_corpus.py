"""The demo's token stream: tokenizer, windows, near copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from inspector.demo.corpus import (
    BOS_ID,
    EOS_ID,
    VOCAB_SIZE,
    Windows,
    encode,
    save_tokenizer,
    shuffled,
    train_tokenizer,
    without_near_copies,
)

TEXTS = [f"def function_{i}(x):\n    return x + {i}\n" for i in range(50)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS)


def test_tokenizer_loads_with_plain_transformers_and_adds_one_bos(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    text = "def ß(x):\n\treturn '→'  # never seen\n"
    ids = loaded(text).input_ids
    assert ids[0] == BOS_ID == loaded.bos_token_id
    assert BOS_ID not in ids[1:]
    assert loaded.decode(ids[1:]) == text
    assert len(loaded) <= VOCAB_SIZE


def test_stream_ends_each_text_with_eos_and_knows_where_each_begins(tokenizer: Tokenizer) -> None:
    ids, starts = encode(tokenizer, TEXTS, batch=7)
    assert (ids == EOS_ID).sum() == len(TEXTS)
    assert starts[0] == 0
    assert (ids[starts[1:] - 1] == EOS_ID).all()
    for i in (0, 8, 49):
        end = starts[i + 1] if i + 1 < len(starts) else len(ids)
        assert tokenizer.decode(ids[starts[i] : end - 1].tolist()) == TEXTS[i]


def test_windows_cover_the_stream_about_once_per_epoch() -> None:
    ids = np.arange(3, 10_003).astype(np.uint16)
    windows = Windows(ids, np.asarray([0, 500, 4000]), seed=0, length=17)
    rows = windows.batch(0, windows.per_epoch)
    assert rows.shape == (windows.per_epoch, 17)
    assert (rows[:, 0] == BOS_ID).all()
    assert (np.diff(rows[:, 1:], axis=1) == 1).all(), "a window is a contiguous piece of the stream"
    assert len(np.unique(rows[:, 1:])) > 0.98 * len(ids)
    at_start = np.isin(rows[:, 1], [3, 503, 4003]).mean()
    assert at_start == pytest.approx(0.1, abs=0.02)


def test_windows_begin_elsewhere_in_the_next_epoch() -> None:
    windows = Windows(np.arange(3, 10_003).astype(np.uint16), np.asarray([0]), seed=0, length=17)
    first, second = (set(windows.batch(epoch, windows.per_epoch)[:, 1]) for epoch in (0, 1))
    assert len(first & second) < 0.05 * len(first)


def test_a_batch_does_not_depend_on_the_batches_before_it() -> None:
    def fresh() -> Windows:
        return Windows(np.arange(3, 5003).astype(np.uint16), np.asarray([0, 100]), seed=4, length=33)

    walked = fresh()
    batches = [walked.batch(step, 8) for step in range(60)]
    np.testing.assert_array_equal(fresh().batch(59, 8), batches[59])
    np.testing.assert_array_equal(walked.batch(3, 8), batches[3])
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(batches[3], batches[4])


def test_too_short_a_stream_is_refused() -> None:
    with pytest.raises(ValueError, match="40 tokens are too few for windows of 33"):
        Windows(np.zeros(40, dtype=np.uint16), np.asarray([0]), seed=0, length=33)


def test_near_copies_are_left_out_and_the_filter_carries_over() -> None:
    lines = [f"this_is_a_long_enough_line_number = {i}" for i in range(20)]
    documents = [("a", "\n".join(lines[:10])), ("b", "\n".join(lines[4:12])), ("c", "\n".join(lines[8:20]))]
    seen: set[int] = set()
    assert [name for name, _ in without_near_copies(documents, seen)] == ["a", "c"]
    assert not list(without_near_copies([("again", documents[0][1])], seen))


def test_shuffle_is_seeded() -> None:
    documents = [(str(i), "") for i in range(100)]
    assert shuffled(documents, 1) == shuffled(documents, 1) != shuffled(documents, 2)
    assert sorted(shuffled(documents, 1)) == sorted(documents)
