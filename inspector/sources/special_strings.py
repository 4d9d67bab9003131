"""Special tokens written out in a text, such as '<|endoftext|>' between documents: how many, and what they become."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inspector.sources.tokenizer import Tokenizer

_SHOWN = 3


class SpecialStrings:
    """Counts them in texts as they are tokenised.

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
        strings = ", ".join(f"{text!r} ({n:,})" for text, n in self.found.most_common(_SHOWN))
        more = f" and {len(self.found) - _SHOWN:,} others" if len(self.found) > _SHOWN else ""
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
