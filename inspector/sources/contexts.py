"""The tokens everything is measured on: equally long contexts, BOS first, cut from text in a seeded way.

A file of many records gives the first tokens of each record that is long enough, one context per record, as in the
paper (spec 1.2). Long texts, and the demo's documents, give windows of consecutive tokens, spread over all documents.

Sizes that cannot be are refused before anything is loaded, so nothing here imports torch at module level.
"""

from __future__ import annotations

import hashlib
import random
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from inspector.errors import DataError, UsageError
from inspector.sources.built_in import DEMO
from inspector.sources.python_text import Document, demo_documents
from inspector.sources.readers import (
    PIECE_BYTES,
    PYTHON_TEXTS,
    WHOLE_BYTES,
    HubText,
    check_text,
    has_records,
    read_records,
    read_text,
    record_name,
    shuffled,
)
from inspector.sources.records import Reading, Record

if TYPE_CHECKING:
    from torch import Tensor

    from inspector.sources.model import LanguageModel
    from inspector.sources.tokenizer import Tokenizer
    from inspector.spec import TargetSpec

PAPER_CONTEXT_LENGTH = 1024
PAPER_FIRST_POSITION = 200
"""What the paper takes of a text; see `default_context_length` and `default_positions`."""
MANY_PIECES = 30
"""Of a file of one text, from which they count as documents of their own: enough to hold ten of them out."""
_GROUP = 32
"""Documents tokenised at once: enough to use the tokenizer's threads, few enough to stop early."""
_BYTES_PER_TOKEN = 8
"""Generous for any tokenizer of any language it was made for; only says how much of a large file is read."""
_MIN_READ, _MAX_READ = WHOLE_BYTES, 1 << 28
"""Bytes of one text. A tokenizer without word boundaries takes 5 s for a megabyte."""
_STRINGS_SHOWN = 3
"""Special tokens named in a note."""
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
    field: str | None = None
    """Of the records, the field that was read; None if they have none, or the text is no records."""
    documents: tuple[int, ...]
    """[c] the number of the document each is from, counted in the order of the contexts. A file of one text is
    one, unless it is so large that it is read in many pieces."""


def default_context_length(n_ctx: int) -> int:
    """The paper's 1024, or the model's limit if that is smaller."""
    return min(PAPER_CONTEXT_LENGTH, n_ctx)


def default_positions(context_length: int) -> tuple[int, int | None]:
    """From 200 on as in the paper, or from an eighth of a context shorter than the paper's."""
    return (PAPER_FIRST_POSITION if context_length >= PAPER_CONTEXT_LENGTH else context_length // 8), None


def check_length(length: int, n_contexts: int, n_ctx: int | None) -> None:
    """Refuse context sizes that cannot be, as early as possible.

    Raises:
        UsageError: with the limit.
    """
    if n_contexts < 1:
        raise UsageError(f"--contexts {n_contexts} leaves nothing to look at. Use 1 or more.")
    if length < 3:
        raise UsageError(f"--context-length {length} leaves no token to predict. Use 3 or more.")
    if n_ctx is not None and length > n_ctx:
        raise UsageError(f"--context-length {length:,} is more than the model takes. Use {n_ctx:,} or less.")


def load_contexts(target: TargetSpec, model: LanguageModel) -> Contexts:
    """The contexts of the target's text. Fewer than asked for are used as they are, with a note.

    Raises:
        UsageError: when the context length or number is impossible.
        DataError: when the text is missing, unreadable or too short for a single context, or holds a token that the
            model has no row for.
    """
    length = default_context_length(model.n_ctx) if target.context_length is None else target.context_length
    check_length(length, target.contexts, model.n_ctx)
    found = _load(target, _Cutter(model.tokenizer, length, target.contexts, target.seed))
    require_rows(found, model)
    return found


def require_rows(contexts: Contexts, model: LanguageModel) -> None:
    """Refuse contexts with a token that the tokenizer has and the model's embedding has not.

    Raises:
        DataError: with the token and where it is.
    """
    beyond = (contexts.token_ids >= model.vocab_size).nonzero()
    if len(beyond):
        row, position = (int(i) for i in beyond[0])
        where = f"position {position} of {contexts.names[row]}"
        raise model.without_row(int(contexts.token_ids[row, position]), where)


def _load(target: TargetSpec, cutter: _Cutter) -> Contexts:
    """As `load_contexts`, whatever the tokens are."""
    text = target.text or DEMO
    path = check_text(text, target.text_field)
    if path is None:
        documents = demo_documents(sources=text == DEMO)
        return _contexts(cutter.windows(list(documents)), PYTHON_TEXTS[text], cutter)
    if isinstance(path, HubText):
        return _from_hub(path, target, cutter)
    if has_records(path):
        reading = Reading(field=target.text_field, seed=target.seed)
        records = shuffled(read_records(path, reading), target.seed)
        found = cutter.heads(records, f"{path.name} {record_name(path)}")
        return _contexts(found, path.name, cutter, reading.notes(path.name), reading.field)
    n_bytes = cutter.length * _BYTES_PER_TOKEN
    most = min(_MAX_READ, max(_MIN_READ, target.contexts * n_bytes))
    pieces, notes = read_text(path, most, seed=target.seed, piece_bytes=max(PIECE_BYTES, 8 * n_bytes))
    order = {name: place for place, (name, _) in enumerate(pieces)}
    found = sorted(cutter.windows(pieces), key=lambda item: (order[item.document], item.start))
    return _contexts(found, path.name, cutter, notes, one_text=True)


def _contexts(
    found: Sequence[_Context],
    name: str,
    cutter: _Cutter,
    notes: tuple[str, ...] = (),
    field: str | None = None,
    *,
    one_text: bool = False,
) -> Contexts:
    notes = (*notes, *cutter.special.notes(name, one_text=one_text), *cutter.enough(len(found), name))
    documents = [item.document for item in found]
    if one_text and len(set(documents)) < MANY_PIECES:
        documents = [name] * len(found)
    return contexts_from([item.ids for item in found], [item.name for item in found], notes, field, documents)


def _from_hub(text: HubText, target: TargetSpec, cutter: _Cutter) -> Contexts:
    """The first tokens of a data set's long enough documents; from the disk if they were taken before."""
    from inspector.sources import hub_text

    wanted = hub_text.Wanted(
        name=text.name,
        split=text.split,
        field=text.field or hub_text.USUAL_FIELD,
        seed=target.seed,
        n_contexts=target.contexts,
        length=cutter.length,
        tokenizer=hub_text.tokenizer_hash(cutter.tokenizer.encode, len(cutter.tokenizer)),
    )
    known = hub_text.kept(wanted)
    if known is None and text.field is None:
        known = hub_text.kept(replace(wanted, field=hub_text.FOUND_FIELD))
    if known is None:
        reading = Reading(field=text.field, any_order=True)
        records = hub_text.records(text, target.seed, reading, offline=target.offline)
        found = cutter.heads(records, f"{text.name} record")
        field = reading.field or hub_text.USUAL_FIELD
        known = hub_text.KeptTokens(
            token_ids=contexts_from([item.ids for item in found], []).token_ids,
            names=tuple(item.name for item in found),
            field=field,
            notes=(*reading.notes(text.name), *cutter.special.notes(text.name, one_text=False)),
        )
        if found:
            is_usual = text.field is not None or field == hub_text.USUAL_FIELD
            hub_text.keep(replace(wanted, field=field if is_usual else hub_text.FOUND_FIELD), known)
    notes = (*known.notes, *cutter.enough(len(known.names), str(text)))
    return contexts_from(known.token_ids.tolist(), known.names, notes, known.field)


def contexts_from(
    rows: Sequence[Sequence[int]],
    names: Sequence[str],
    notes: tuple[str, ...] = (),
    field: str | None = None,
    documents: Sequence[str] | None = None,
) -> Contexts:
    """Contexts from token ids already made: [c] rows of the same length; without `documents` each is its own."""
    import torch

    token_ids = torch.tensor([list(row) for row in rows], dtype=torch.int64)
    data = token_ids.numpy().astype("<i8", copy=False).tobytes()
    digest = hashlib.sha256(data).hexdigest()
    numbers: dict[str, int] = {}
    numbered = [numbers.setdefault(each, len(numbers)) for each in documents or ()]
    return Contexts(
        token_ids=token_ids,
        names=tuple(names),
        sha256=digest,
        notes=notes,
        field=field,
        documents=tuple(range(len(token_ids)) if documents is None else numbered),
    )


@dataclass(frozen=True, kw_only=True)
class _Context:
    ids: list[int]
    name: str
    start: int
    document: str


class SpecialStrings:
    """Counts special tokens written out in texts, such as '<|endoftext|>' between documents, and what they become.

    Args:
        tokenizer: whose special tokens are looked for.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        longest_first = sorted(tokenizer.special_texts, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._special_ids = tokenizer.special_ids
        self._n_front = 0 if tokenizer.bos_id is None else 1
        self.found: Counter[str] = Counter()
        self.n_tokens = 0
        """So many special tokens came of them; the BOS in front of a text is not one of them."""

    def count(self, text: str, ids: Sequence[int]) -> None:
        """Look at one text and its token ids, BOS included."""
        if self._pattern is None:
            return
        here = Counter(self._pattern.findall(text))
        if here:
            self.found += here
            self.n_tokens += sum(token in self._special_ids for token in ids[self._n_front :])

    def notes(self, name: str, *, one_text: bool) -> tuple[str, ...]:
        """What there is to say about them; `one_text`: the text of this name could be given as records instead."""
        total = self.found.total()
        if not total:
            return ()
        strings = ", ".join(f"{text!r} ({n:,})" for text, n in self.found.most_common(_STRINGS_SHOWN))
        more = f" and {len(self.found) - _STRINGS_SHOWN:,} others" if len(self.found) > _STRINGS_SHOWN else ""
        if self.n_tokens >= total:
            what = "They are tokens of their own: neither fitted nor scored, and contexts go on across them"
        elif not self.n_tokens:
            what = "They are spelled in ordinary tokens, which are fitted and scored, and contexts go on across them"
        else:
            what = (
                f"{self.n_tokens:,} are tokens of their own, neither fitted nor scored; the others are spelled in "
                "ordinary tokens or begin a text. Contexts go on across all of them"
            )
        advice = "; to keep documents apart, give them as records of a .jsonl" if one_text else ""
        return (f"{name} has special tokens of this model written out: {strings}{more}. {what}{advice}.",)


class _Cutter:
    """Cuts texts into `n_contexts` contexts of `length` tokens, BOS included; `seed`: of the order of windows."""

    def __init__(self, tokenizer: Tokenizer, length: int, n_contexts: int, seed: int) -> None:
        self.tokenizer, self.length, self._n_contexts, self._seed = tokenizer, length, n_contexts, seed
        self._front = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        self._body = length - len(self._front)
        self.longest = 0
        """Tokens of the longest text that was met, BOS included."""
        self.special = SpecialStrings(tokenizer)
        """What was met of them."""

    def windows(self, documents: Sequence[Document]) -> list[_Context]:
        """Windows of consecutive tokens, round by round one from each document, in a seeded order.

        So the documents are drawn from as evenly as their lengths allow, and fewer contexts are a beginning of more.
        """
        documents = list(documents)
        random.Random(self._seed).shuffle(documents)
        pools: list[tuple[str, array[int], list[int]]] = []
        found: list[_Context] = []
        for first in range(0, len(documents), _GROUP):
            for name, ids in self._tokenised(documents[first : first + _GROUP]):
                starts = list(range(0, len(ids) - self._body + 1, self._body))
                if starts:
                    random.Random(f"{self._seed}:{name}").shuffle(starts)
                    pools.append((name, ids, starts))
                    found.append(self._window(name, ids, starts[0]))
            if len(found) >= self._n_contexts:
                return found[: self._n_contexts]
        for turn in range(1, max((len(starts) for _, _, starts in pools), default=0)):
            for name, ids, starts in pools:
                if turn < len(starts):
                    found.append(self._window(name, ids, starts[turn]))
                    if len(found) >= self._n_contexts:
                        return found
        return found

    def heads(self, records: Iterable[Record], name: str) -> list[_Context]:
        """The first tokens of each record that is long enough, until there are enough; `name` precedes a number."""
        found: list[_Context] = []
        # A token has at least one byte, so shorter records need not be tokenised to be passed over. Of long ones only
        # a beginning is held: a group of records of many megabytes would not fit into memory.
        long_enough = ((number, text[: self._most]) for number, text in records if self._may_be_long(text))
        while group := list(islice(long_enough, min(_GROUP, 2 * (self._n_contexts - len(found))))):
            texts = [(f"{name} {number:,}", text) for number, text in group]
            for name, ids in self._tokenised(texts, heads=True):
                if len(ids) >= self._body:
                    found.append(self._window(name, ids, 0, label=name))
                    if len(found) >= self._n_contexts:
                        return found
        return found

    def enough(self, n_found: int, name: str) -> tuple[str, ...]:
        """A note if there are fewer contexts than asked for.

        Raises:
            DataError: there is none.
        """
        if not n_found:
            raise DataError(
                f"{name} has no text of {self.length:,} tokens; the longest has {self.longest:,}. "
                f"Give a longer --text, or --context-length {max(3, self.longest):,} or less."
            )
        if n_found < self._n_contexts:
            return (f"{self._n_contexts:,} contexts were asked for; {name} has {n_found:,} of {self.length:,} tokens.",)
        return ()

    def _tokenised(self, documents: Sequence[Document], *, heads: bool = False) -> Iterator[tuple[str, array[int]]]:
        """Token ids of each document without BOS; with `heads` as many as a context needs, or a few more."""
        texts = [text[: self._enough] if heads else text for _, text in documents]
        for (name, text), part, ids in zip(documents, texts, self.tokenizer.encode_batch(texts), strict=True):
            while len(part) < len(text) and len(ids) < self.length + _MARGIN:
                part = text[: 2 * len(part)]
                ids = self.tokenizer.encode(part)
            self.longest = max(self.longest, len(ids))
            self.special.count(part, ids)
            yield name, array("q", ids[len(self._front) :])

    @property
    def _enough(self) -> int:
        """Characters that nearly always hold a context; tokens near the cut may differ, so there is a margin."""
        return (self.length + _MARGIN) * _BYTES_PER_TOKEN

    @property
    def _most(self) -> int:
        """Characters that hold one surely: no tokenizer's longest token is longer on the average."""
        return self._enough * 32

    def _may_be_long(self, text: str) -> bool:
        n_bytes = len(text.encode("utf-8", "surrogatepass"))
        if n_bytes < self._body:
            self.longest = max(self.longest, min(n_bytes, self.length - 1))
            return False
        return True

    def _window(self, name: str, ids: array[int], start: int, label: str | None = None) -> _Context:
        stop = start + self._body
        shown = label or f"{name} tokens {start}-{stop - 1}"
        return _Context(ids=[*self._front, *ids[start:stop]], name=shown, start=start, document=name)
