"""Text that is no text everywhere: bytes that are not UTF-8, halves of surrogate pairs. They become U+FFFD, and count.

A tokenizer takes neither, and a file cannot hold the second; what stands in their place is the character that Unicode
has for it, so that a text with one bad byte in a million is measured, and its reader is told.
"""

from __future__ import annotations

import codecs
import re

REPLACEMENT = "\ufffd"
_REPLACEMENT_BYTES = REPLACEMENT.encode()
_HIGH_AND_LOW = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_LONE = re.compile("[\ud800-\udfff]")


def mended(text: str) -> tuple[str, int]:
    r"""The text with U+FFFD for each half of a surrogate pair, and how many there were.

    Halves come from JSON (`"\ud83d"`) and from command lines that are not UTF-8, whose bytes Python keeps as such.
    Two that belong together are joined.
    """
    try:
        text.encode()  # ten times as quick as looking for them
    except UnicodeEncodeError:
        pass
    else:
        return text, 0
    joined = _HIGH_AND_LOW.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
    return _LONE.subn(REPLACEMENT, joined)


def decoded(data: bytes) -> tuple[str, int]:
    """UTF-8 with U+FFFD for what is not, and how many of those are not in the bytes themselves."""
    try:
        return data.decode("utf-8-sig"), 0
    except UnicodeDecodeError:
        pass
    decoder = Decoder()
    return decoder.decode(data, last=True), decoder.replaced


class Decoder:
    """UTF-8 that comes in pieces, cut anywhere; a byte-order mark at the very beginning is dropped."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun = False
        self.replaced = 0
        """Characters U+FFFD so far that stand for bytes that are not UTF-8."""

    def decode(self, data: bytes, *, last: bool = False) -> str:
        """The characters that are complete by now."""
        before = self._decoder.getstate()[0]
        text = self._decoder.decode(data, final=last)
        whole = before + data
        waiting = self._decoder.getstate()[0]
        done = whole[: len(whole) - len(waiting)]
        self.replaced += text.count(REPLACEMENT) - done.count(_REPLACEMENT_BYTES)
        if not self._begun and text:
            self._begun, text = True, text.removeprefix("\ufeff")
        return text


def replaced_note(name: str, n_characters: int) -> str:
    """What a reader is told of them."""
    what = "1 character was" if n_characters == 1 else f"{n_characters:,} characters were"
    return f"{name}: {what} no valid UTF-8 or half a surrogate pair and became U+FFFD."
