"""Finding a text among the contexts, across token boundaries, and the token it begins in.

The texts of the tokens are joined per context and searched as one string; what is found is counted back to its token.
Built when first asked for: 300 contexts of 1024 tokens take a tenth of a second then, and a few milliseconds per
search.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from inspector.session.protocol import Find, Found, Hit


class TextIndex:
    """The searchable text of all contexts.

    Args:
        token_ids: ids of every context.
        text_of: text of one token; called once per different id.
    """

    def __init__(self, token_ids: Sequence[Sequence[int]], text_of: Callable[[int], str]) -> None:
        self._token_ids = token_ids
        self._texts = {token: text_of(token) for token in {token for ids in token_ids for token in ids}}
        # Folded token by token, so that a letter that grows when lowered ('İ') does not shift what follows it.
        self._folded = {token: text.lower() for token, text in self._texts.items()}
        self._joined: dict[bool, list[str]] = {}

    def find(self, asked: Find) -> Found:
        """Where the text begins, in order; a token in which it begins twice counts once. An empty text is nowhere."""
        texts = self._texts if asked.case_sensitive else self._folded
        needle = asked.text if asked.case_sensitive else asked.text.lower()
        hits: list[Hit] = []
        for context, text in enumerate(self._text(asked.case_sensitive) if needle else ()):
            for position in self._positions(text, needle, self._token_ids[context], texts):
                if len(hits) >= max(0, asked.limit):
                    return Found(request=asked.request, hits=hits, truncated=True)
                hits.append(Hit(context=context, position=position))
        return Found(request=asked.request, hits=hits)

    def _text(self, case_sensitive: bool) -> list[str]:
        if case_sensitive not in self._joined:
            texts = self._texts if case_sensitive else self._folded
            self._joined[case_sensitive] = ["".join([texts[token] for token in ids]) for ids in self._token_ids]
        return self._joined[case_sensitive]

    @staticmethod
    def _positions(text: str, needle: str, ids: Sequence[int], texts: dict[int, str]) -> list[int]:
        at = text.find(needle)
        if at < 0:
            return []
        starts = list(accumulate((len(texts[token]) for token in ids), initial=0))
        found: list[int] = []
        while at >= 0:
            # The last token that starts at or before the match: tokens without text share a start with their successor.
            position = bisect_right(starts, at, hi=len(ids)) - 1
            if not found or found[-1] != position:
                found.append(position)
            at = text.find(needle, at + 1)
        return found
