"""Text to token ids and back, with the two rules every number here depends on: BOS once, and no token lost.

Wraps a Hugging Face tokenizer. Nothing is cut to the model's length here; that is for callers to refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from inspector.errors import DataError, TargetError, first_line, is_panic, panics_are_errors
from inspector.sources.records import mended

HALF = "\ufffd"
"""What decoders write for bytes that are no whole character."""
LONGEST_RUN = 16
"""Tokens that may share characters one into the next before they are taken one by one; a character has four bytes."""
_ANCHOR_TEXT = "a"
"""Decoded before each token, because some decoders strip the space in front of the first token they see."""


class Tokenizer:
    """A tokenizer with one beginning-of-sequence token in front of every text.

    Args:
        tokenizer: a Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.bos_id: int | None = tokenizer.bos_token_id
        self.eos_id: int | None = tokenizer.eos_token_id
        special = set(tokenizer.all_special_ids)
        special.update(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)
        self.special_ids = frozenset(int(i) for i in special if i is not None)
        names = set(tokenizer.all_special_tokens)
        names.update(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
        self.special_texts = frozenset(str(name) for name in names if name)
        """What special tokens look like in a text, such as '</s>'."""
        self.added_ids = frozenset(int(i) for i in tokenizer.added_tokens_decoder)
        """Ids that are not of the trained vocabulary."""
        self._bos_text: str | None = tokenizer.bos_token if self.bos_id is not None else None
        self._texts: dict[int, str] = {}
        self._runs: dict[tuple[int, ...], list[str] | None] = {}
        self._anchor = self._ids([_ANCHOR_TEXT])[0][-1:]
        self._anchor_text = self._decode(self._anchor)

    def __len__(self) -> int:
        """Number of token ids it can produce, added ones included."""
        return len(self._tokenizer)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, BOS exactly once at the front if the model has one. See `encode_batch`."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text.

        Literal BOS strings in front of a text are the BOS; anywhere else they are text, and are spelled in ordinary
        tokens (Llama's `<s>` is also an HTML tag). Other special strings keep their meaning, as in chat prompts.
        Halves of surrogate pairs, which no tokenizer takes, become U+FFFD.
        """
        bodies = [self._strip_bos(mended(text)[0]) for text in texts]
        encoded = self._ids(bodies)
        if self.bos_id is None:
            return encoded
        for i, ids in enumerate(encoded):
            if self.bos_id in ids:
                ids = self._ids([bodies[i]], split_special_tokens=True)[0]
                if self.bos_id in ids:  # tokenizers that cannot spell it: better missing there than counted twice
                    ids = [token for token in ids if token != self.bos_id]
            encoded[i] = [self.bos_id, *ids]
        return encoded

    def token_text(self, token_id: int) -> str:
        """The token's text on its own: leading space kept, half characters as U+FFFD, special tokens by name."""
        known = self._texts.get(token_id)
        if known is None:
            text = self._decode([*self._anchor, token_id])
            known = text.removeprefix(self._anchor_text) if text.startswith(self._anchor_text) else text
            self._texts[token_id] = known
        return known

    def token_texts(self, token_ids: Iterable[int]) -> list[str]:
        """`token_text` of each."""
        return [self.token_text(int(token_id)) for token_id in token_ids]

    def spelled(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each token where it stands: a character that several tokens spell is whole, on the first of them.

        The others have no text, or what they hold beside it. Put together it is the text, but for bytes that are no
        character at all, each of which is U+FFFD as in `token_text`.
        """
        texts = self.token_texts(token_ids)
        at = 0
        while at < len(texts):
            run = self._run(token_ids, at) if HALF in texts[at] else None
            if run is not None:
                texts[at : at + len(run)] = run
            at += 1 if run is None else len(run)
        return texts

    def _run(self, token_ids: Sequence[int], start: int) -> list[str] | None:
        """The texts of the fewest tokens from `start` on that are whole characters together; None: they never are."""
        for stop in range(start + 2, min(start + LONGEST_RUN, len(token_ids)) + 1):
            ids = tuple(int(token_id) for token_id in token_ids[start:stop])
            if ids not in self._runs:
                whole = self.text(ids)
                self._runs[ids] = None if HALF in whole else self._shared_out(ids)
            if (found := self._runs[ids]) is not None:
                return found
        return None

    def _shared_out(self, ids: Sequence[int]) -> list[str]:
        """The characters of a run, each with the token that begins it."""
        texts = [""] * len(ids)
        known, begun = "", None  # where a character that is not whole yet begins
        for place in range(len(ids)):
            decoded = self.text(ids[: place + 1])
            whole = decoded.rstrip(HALF)
            new = whole[len(known) :]
            if new and begun is not None:
                texts[begun], new, begun = texts[begun] + new[0], new[1:], None
            texts[place] += new
            if decoded != whole and begun is None:
                begun = place
            known = whole
        return texts

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of several tokens together: a letter of several tokens is whole, the first leading space kept."""
        text = self._decode([*self._anchor, *token_ids])
        return text.removeprefix(self._anchor_text) if text.startswith(self._anchor_text) else text

    def _strip_bos(self, text: str) -> str:
        while self._bos_text and text.startswith(self._bos_text):
            text = text[len(self._bos_text) :]
        return text

    def _ids(self, texts: Sequence[str], **options: Any) -> list[list[int]]:
        if not texts:
            return []
        try:
            encoded = self._tokenizer(
                list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False, **options
            )
        except BaseException as error:
            if not is_panic(error):
                raise
            what = next(iter(str(error).splitlines()), "")[:160]
            longest = max(map(len, texts))
            raise DataError(
                f"The tokenizer gave up on a text of {longest:,} characters ({what}). Shorten or change the text."
            ) from error
        return [list(map(int, ids)) for ids in encoded["input_ids"]]

    def _decode(self, token_ids: Sequence[int]) -> str:
        with panics_are_errors():
            return str(
                self._tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
            )


def load_tokenizer(directory: Any) -> Any:
    """The Hugging Face tokenizer of a model folder, never running code from it.

    Raises:
        TargetError: when the folder has none that can be loaded.
    """
    from transformers import AutoTokenizer

    try:
        try:
            # As transformer-lens loads it, so that it need not load it again.
            return AutoTokenizer.from_pretrained(str(directory), add_bos_token=True, trust_remote_code=False)
        except ValueError:  # it has no BOS
            return AutoTokenizer.from_pretrained(str(directory), trust_remote_code=False)
    except Exception as error:  # tokenizers raises bare Exception for a broken file
        raise TargetError(
            f"{directory} has no tokenizer that can be loaded ({first_line(error)}). "
            "Copy tokenizer.json and tokenizer_config.json there."
        ) from error
