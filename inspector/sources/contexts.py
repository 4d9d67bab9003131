"""The tokens everything is measured on: equally long contexts, BOS first, cut from text in a seeded way.

A file of many records gives the first tokens of each record that is long enough, one context per record, as in the
paper (spec 1.2). Long texts, and the demo's documents, give windows of consecutive tokens, spread over all documents.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inspector.errors import DataError
from inspector.sources.limits import check_length, default_context_length
from inspector.sources.python_text import Document, demo_documents
from inspector.sources.readers import (
    HubText,
    Problems,
    Record,
    check_text,
    has_records,
    read_records,
    read_text,
    shuffled,
)

if TYPE_CHECKING:
    from inspector.sources.model import LanguageModel
    from inspector.sources.tokenizer import Tokenizer
    from inspector.spec import TargetSpec

_GROUP = 32
"""Documents tokenised at once: enough to use the tokenizer's threads, few enough to stop early."""
_BYTES_PER_TOKEN = 8
"""Generous for any tokenizer of any language it was made for; only says how much of a large file is read."""
_MIN_READ, _MAX_READ = 1 << 20, 1 << 28
"""Bytes of one text. A tokenizer without word boundaries takes 5 s for a megabyte."""
_MARGIN = 16
"""Tokens beyond a context that a shortened text must hold, so that the cut cannot change the context's last tokens."""


@dataclass(frozen=True, kw_only=True)
class Contexts:
    """Equally long token windows."""

    token_ids: Tensor
    """[c, t] int64, BOS in column 0 if the model has one."""
    names: tuple[str, ...]
    """Where each is from: 'json/decoder.py tokens 510-764' or 'pile.jsonl record 17'."""
    sha256: str
    """Of the ids as little-endian int64, row by row."""
    notes: tuple[str, ...] = ()
    """What a user should know about the text."""


def load_contexts(target: TargetSpec, model: LanguageModel) -> Contexts:
    """The contexts of the target's text. Fewer than asked for are used as they are, with a note.

    Raises:
        UsageError: when the context length or number is impossible.
        DataError: when the text is missing, unreadable or too short for a single context.
    """
    length = default_context_length(model.n_ctx) if target.context_length is None else target.context_length
    check_length(length, target.contexts, model.n_ctx)
    cutter = _Cutter(model.tokenizer, length)
    text = target.text or "demo"
    notes: tuple[str, ...] = ()
    if text == "demo":
        name, found = "The demo's text", cutter.windows(list(demo_documents()), target.contexts, target.seed)
    else:
        path = check_text(text)
        if isinstance(path, HubText):
            return _from_hub(path, target, model.tokenizer, cutter, length)
        name = path.name
        if has_records(path):
            problems = Problems()
            records = shuffled(read_records(path, problems), target.seed)
            found = cutter.heads(records, path.name, target.contexts)
            notes = problems.notes(path)
        else:
            body, notes = read_text(path, min(_MAX_READ, max(_MIN_READ, target.contexts * length * _BYTES_PER_TOKEN)))
            found = sorted(
                cutter.windows([(path.name, body)], target.contexts, target.seed), key=lambda item: item.start
            )
    notes += _enough(len(found), name, target, cutter, length)
    return contexts_from([item.ids for item in found], [item.name for item in found], notes)


def _enough(n_found: int, name: str, target: TargetSpec, cutter: _Cutter, length: int) -> tuple[str, ...]:
    """A note if there are fewer contexts than asked for.

    Raises:
        DataError: there is none.
    """
    if not n_found:
        raise DataError(
            f"{name} has no text of {length:,} tokens; the longest has {cutter.longest:,}. "
            f"Give a longer --text, or --context-length {max(3, cutter.longest):,} or less."
        )
    if n_found < target.contexts:
        return (f"{target.contexts:,} contexts were asked for; {name} has {n_found:,} of {length:,} tokens.",)
    return ()


def _from_hub(text: HubText, target: TargetSpec, tokenizer: Tokenizer, cutter: _Cutter, length: int) -> Contexts:
    """The first tokens of a data set's long enough documents; from the disk if they were taken before."""
    from inspector.sources import hub_text

    wanted = hub_text.Wanted(
        name=text.name,
        split=text.split,
        field=text.field,
        seed=target.seed,
        n_contexts=target.contexts,
        length=length,
        tokenizer=hub_text.tokenizer_hash(tokenizer.encode, len(tokenizer)),
    )
    known = hub_text.kept(wanted)
    if known is not None:
        rows, names = known.token_ids.tolist(), known.names
    else:
        stream = hub_text.records(text, target.seed, offline=target.offline)
        found = cutter.heads(stream, text.name, target.contexts)
        rows, names = [item.ids for item in found], tuple(item.name for item in found)
        if found:
            hub_text.keep(wanted, rows, names)
    return contexts_from(rows, names, _enough(len(rows), str(text), target, cutter, length))


def contexts_from(rows: Sequence[Sequence[int]], names: Sequence[str], notes: tuple[str, ...] = ()) -> Contexts:
    """Contexts from token ids already made: [c] rows of the same length."""
    token_ids = torch.tensor([list(row) for row in rows], dtype=torch.int64)
    data = token_ids.numpy().astype("<i8", copy=False).tobytes()
    return Contexts(token_ids=token_ids, names=tuple(names), sha256=hashlib.sha256(data).hexdigest(), notes=notes)


@dataclass(frozen=True, kw_only=True)
class _Context:
    ids: list[int]
    name: str
    start: int


class _Cutter:
    """Cuts texts into contexts of `length` tokens, BOS included, and remembers the longest text it met."""

    def __init__(self, tokenizer: Tokenizer, length: int) -> None:
        self._tokenizer = tokenizer
        self._length = length
        self._front = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        self._body = length - len(self._front)
        self.longest = 0
        """Tokens, BOS included."""

    def windows(self, documents: Sequence[Document], n_contexts: int, seed: int) -> list[_Context]:
        """Windows of consecutive tokens, round by round one from each document, in a seeded order.

        So the documents are drawn from as evenly as their lengths allow, and fewer contexts are a beginning of more.
        """
        documents = list(documents)
        random.Random(seed).shuffle(documents)
        pools: list[tuple[str, array[int], list[int]]] = []
        found: list[_Context] = []
        for first in range(0, len(documents), _GROUP):
            for name, ids in self._tokenised(documents[first : first + _GROUP]):
                starts = list(range(0, len(ids) - self._body + 1, self._body))
                if starts:
                    random.Random(f"{seed}:{name}").shuffle(starts)
                    pools.append((name, ids, starts))
                    found.append(self._window(name, ids, starts[0]))
            if len(found) >= n_contexts:
                return found[:n_contexts]
        for turn in range(1, max((len(starts) for _, _, starts in pools), default=0)):
            for name, ids, starts in pools:
                if turn < len(starts):
                    found.append(self._window(name, ids, starts[turn]))
                    if len(found) >= n_contexts:
                        return found
        return found

    def heads(self, records: Iterable[Record], file_name: str, n_contexts: int) -> list[_Context]:
        """The first tokens of each record that is long enough, until there are `n_contexts`."""
        found: list[_Context] = []
        # A token has at least one byte, so shorter records need not be tokenised to be passed over.
        long_enough = (item for item in records if self._may_be_long(item[1]))
        while group := list(islice(long_enough, min(_GROUP, 2 * (n_contexts - len(found))))):
            texts = [(f"{file_name} record {number:,}", text) for number, text in group]
            for name, ids in self._tokenised(texts, self._head):
                if len(ids) >= self._body:
                    found.append(self._window(name, ids, 0, label=name))
                    if len(found) >= n_contexts:
                        return found
        return found

    def _tokenised(self, documents: Sequence[Document], shorten: Any = None) -> Iterator[tuple[str, array[int]]]:
        """Token ids of each document without BOS; `shorten` may cut the text, but never below the tokens needed."""
        texts = [text if shorten is None else shorten(text) for _, text in documents]
        for (name, text), part, ids in zip(documents, texts, self._tokenizer.encode_batch(texts), strict=True):
            if len(part) < len(text) and len(ids) < self._length + _MARGIN:
                ids = self._tokenizer.encode(text)
            self.longest = max(self.longest, len(ids))
            yield name, array("q", ids[len(self._front) :])

    def _head(self, text: str) -> str:
        """As much of a text as surely holds a context; tokens near the cut may differ, so there is a margin."""
        return text[: (self._length + _MARGIN) * _BYTES_PER_TOKEN]

    def _may_be_long(self, text: str) -> bool:
        n_bytes = len(text.encode("utf-8", "surrogatepass"))
        if n_bytes < self._body:
            self.longest = max(self.longest, min(n_bytes, self._length - 1))
            return False
        return True

    def _window(self, name: str, ids: array[int], start: int, label: str | None = None) -> _Context:
        stop = start + self._body
        shown = label or f"{name} tokens {start}-{stop - 1}"
        return _Context(ids=[*self._front, *ids[start:stop]], name=shown, start=start)
