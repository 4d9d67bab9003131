"""What kind of token a token is: word start, inside a word, number, code mark and so on; the one rule, and it applied.

Told from the token's own text and whether a word has begun before it, so that it means the same for every tokenizer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inspector.sources.target import Loaded

CLASSES = (
    "word start", "inside a word", "number", "punctuation", "code mark", "newline", "space", "part of a character",
    "special", "outlier",
)  # fmt: skip
"""What `class_of` says, and `outlier`: whatever it is, it outweighs all others (see `engine.plan`)."""
START, INSIDE, NUMBER, PUNCTUATION, CODE, NEWLINE, SPACE, PART, SPECIAL, OUTLIER = range(len(CLASSES))
CODE_MARKS = frozenset("()[]{}<>=+*/%&|^~@#$_\\`")
"""Marks that code is made of; quotes, hyphens and what ends a sentence or a clause are punctuation."""


def class_of(text: str, *, within_word: bool, special: bool = False) -> int:
    """The class of a token, as an index into CLASSES; the one rule for it.

    The first line that fits decides: it is special · it holds a piece of a character (U+FFFD) · it is blank, with a
    line break (newline) or without (space) · it has a letter: inside a word where that word has begun in the token
    before, else a word start · it has a digit: number · it has one of CODE_MARKS: code mark · else punctuation.

    Args:
        text: of the token alone, its leading space kept.
        within_word: the token before it ends in a letter, a digit or an underscore.
        special: the tokenizer has it for something else than text.
    """
    if special:
        return SPECIAL
    if "\ufffd" in text:
        return PART
    if not text.strip():
        return NEWLINE if "\n" in text or "\r" in text else SPACE
    if any(letter.isalpha() for letter in text):
        return INSIDE if within_word and is_wordy(text[0]) else START
    if any(letter.isnumeric() for letter in text):
        return NUMBER
    return CODE if CODE_MARKS & set(text) else PUNCTUATION


def is_wordy(letter: str) -> bool:
    """Whether a word goes on over this character."""
    return letter.isalnum() or letter == "_"


class TokenKinds:
    """The ids of a text, numbered, with what is known of each.

    Args:
        loaded: the target.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.ids = torch.unique(loaded.contexts.token_ids.cpu())
        """[u] int64, ascending: the number of an id is its place here."""
        texts = loaded.model.token_texts(self.ids.tolist())
        special = [token in loaded.model.special_ids for token in self.ids.tolist()]
        # A token may hold half a character; a lone surrogate could not be stored.
        self.texts = [text.encode("utf-8", "replace").decode() for text in texts]
        self._by_start = torch.tensor(
            [
                [class_of(text, within_word=within, special=each) for within in (False, True)]
                for text, each in zip(self.texts, special, strict=True)
            ]
        )
        self._goes_on = torch.tensor(
            [bool(text) and is_wordy(text[-1]) and not each for text, each in zip(self.texts, special, strict=True)]
        )

    def of(self, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers and classes of the tokens of contexts [c, t], both flat."""
        numbers = torch.searchsorted(self.ids, token_ids.cpu().contiguous())
        within = torch.zeros_like(numbers)
        within[:, 1:] = self._goes_on[numbers[:, :-1]].to(numbers)
        return numbers.flatten(), self._by_start[numbers, within].flatten()
