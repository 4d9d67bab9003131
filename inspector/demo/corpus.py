"""From documents to the token stream the demo's language model learns from.

Everything is a pure function of the documents and a seed: the batch of step `s` can be asked for without the steps
before it, which is what makes the training resumable without storing any position.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from inspector.sources.python_text import Document, long_lines

VOCAB_SIZE = 4096
CONTEXT_LENGTH = 256
PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2

DOCUMENT_START_SHARE = 0.1
"""Share of the windows that begin where a document begins, as pages of the demo do; the others begin anywhere."""

Ids = npt.NDArray[np.uint16]


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A byte-level BPE of `VOCAB_SIZE` tokens that puts `<bos>` in front of every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=16,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, BOS_ID)]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer` in the Hugging Face layout, loadable offline with `AutoTokenizer`."""
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=CONTEXT_LENGTH,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


def shuffled(documents: Iterable[Document], seed: int) -> list[Document]:
    """The documents in a seeded random order."""
    listed = list(documents)
    order = np.random.default_rng(seed).permutation(len(listed))
    return [listed[i] for i in order]


def without_near_copies(documents: Iterable[Document], seen: set[int], limit: float = 0.5) -> Iterator[Document]:
    """The documents less than `limit` of whose long lines stood in documents before them.

    Installed packages repeat each other (one model family after the other, vendored helpers); a small model should not
    spend its tokens there. `seen` holds hashes of lines and grows; hand it on to filter a second set against the first.
    """
    for name, text in documents:
        lines = [hash(line) for line in long_lines(text)]
        if sum(line in seen for line in lines) <= limit * len(lines):
            yield name, text
            seen.update(lines)


def encode(tokenizer: Tokenizer, texts: Sequence[str], batch: int = 512) -> tuple[Ids, npt.NDArray[np.int64]]:
    """The token stream of `texts`, each ended by `<eos>` and without `<bos>`, and where each text begins in it.

    Returns:
        ids [tokens] and starts [texts].
    """
    parts: list[Ids] = []
    starts: list[int] = []
    position = 0
    for first in range(0, len(texts), batch):
        for encoding in tokenizer.encode_batch_fast(list(texts[first : first + batch]), add_special_tokens=False):
            ids = np.asarray([*encoding.ids, EOS_ID], dtype=np.uint16)
            parts.append(ids)
            starts.append(position)
            position += len(ids)
    return np.concatenate(parts), np.asarray(starts, dtype=np.int64)


class Windows:
    """Batches of `<bos>` + 255 tokens from a token stream, each stream position about once per epoch.

    Every epoch cuts the stream at another phase, adds windows that begin at a document's start, and shuffles all.

    Args:
        ids: [tokens] the stream.
        starts: [documents] where the documents begin.
        seed: of phases and orders.
        length: of a window, `<bos>` included.
    """

    def __init__(self, ids: Ids, starts: npt.NDArray[np.int64], seed: int, length: int = CONTEXT_LENGTH) -> None:
        self._ids = ids
        self._starts = starts[starts <= len(ids) - length]
        self._seed = seed
        self.length = length
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)
        plain = (len(ids) - 2 * length) // (length - 1)
        if plain < 1 or not len(self._starts):
            raise ValueError(f"{len(ids)} tokens are too few for windows of {length}. Use more text.")
        self._n_at_start = int(plain * DOCUMENT_START_SHARE / (1 - DOCUMENT_START_SHARE))
        self.per_epoch = plain + self._n_at_start

    def batch(self, step: int, size: int) -> npt.NDArray[np.int64]:
        """The `step`-th batch: [size, length] token ids, the first column `<bos>`."""
        chosen = [self._window_start(i) for i in range(step * size, (step + 1) * size)]
        rows = np.stack([self._ids[start : start + self.length - 1] for start in chosen]).astype(np.int64)
        return np.concatenate([np.full((size, 1), BOS_ID), rows], axis=1)

    def _window_start(self, index: int) -> int:
        epoch, place = divmod(index, self.per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng([self._seed, epoch])
            stride = self.length - 1
            plain = rng.integers(stride) + stride * np.arange(self.per_epoch - self._n_at_start)
            at_start = rng.choice(self._starts, self._n_at_start)
            self._order = rng.permutation(np.concatenate([plain, at_start]))
            self._epoch = epoch
        return int(self._order[place])
