"""Many texts of one file or data set: which of their fields is read, what of them is left out, and what is mended.

Bytes that are not UTF-8 and halves of surrogate pairs become U+FFFD, and count: a tokenizer takes neither, and a file
cannot hold the second. So a text with one bad byte in a million is measured, and its reader is told.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from inspector.errors import DataError

Record = tuple[int, str]
"""Number of the record in its file, from 1, and its text."""

PREFERRED = ("text", "content", "document", "body", "article", "story", "passage", "code")
"""Names under which data sets keep their text, the likeliest first."""
SHUFFLE_RECORDS = 10_000
"""As the paper's streaming shuffle (spec 1.2)."""
SAMPLE_RECORDS = 1000
"""So many records decide which field is read."""
SAMPLE_CHARACTERS = 16 << 20
"""Or fewer, if they are long."""
_SHOWN = 8
"""Fields named in an error."""


@dataclass
class Reading:
    """What came of reading records: the field, and what could not be used."""

    field: str | None = None
    """The field that is read: as asked for, and once it is decided, as found; None: records are strings themselves."""
    seed: int = 0
    """Of the order in which a large file is read, where it can be."""
    any_order: bool = False
    """Whether it was; otherwise a large file is read from its beginning."""
    n_read: int = 0
    """Records looked at."""
    at_end: bool = False
    """Whether there were no more."""
    broken: int = 0
    first: str = ""
    """Where and why, for the first one."""
    without_text: int = 0
    too_long: int = 0
    replaced: int = 0
    """Characters that became U+FFFD."""

    def text_of(self, value: object) -> str | None:
        """A usable text, or None and one more without."""
        self.n_read += 1
        if not isinstance(value, str) or not value.strip():
            self.without_text += 1
            return None
        text, n_replaced = mended(value)
        self.replaced += n_replaced
        return text

    def failed(self, where: str, why: str) -> None:
        """A record that could not be read."""
        self.broken += 1
        self.first = self.first or f"{where}: {why}"

    def notes(self, name: str) -> tuple[str, ...]:
        """A sentence for each kind."""
        found = []
        if self.broken:
            one = self.broken == 1
            lines = "1 line could not be read and was" if one else f"{self.broken:,} lines could not be read and were"
            found.append(f"{name}: {lines} left out; {self.first}.")
        if self.too_long:
            found.append(f"{name}: {self.too_long:,} lines of more than 16 MB were left out.")
        if self.without_text:
            records = "1 record" if self.without_text == 1 else f"{self.without_text:,} records"
            field = "" if self.field is None else f" in field {self.field!r}"
            was = "was" if self.without_text == 1 else "were"
            found.append(f"{name}: {records} without text{field} {was} left out.")
        if not self.at_end and not self.any_order and self.n_read:
            found.append(f"{name} was not read to its end: contexts are of its first {self.n_read:,} records.")
        if self.replaced:
            found.append(replaced_note(name, self.replaced))
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of records, as far as they were looked at."""

    name: str
    kind: str
    """Of its values: text, null, or the word for something else."""
    n_characters: int = 0
    """Of its texts together."""


def fields_of(records: Iterable[object]) -> list[Field]:
    """The fields of records that were read from JSON, in the order they are met."""
    characters: dict[str, int] = {}
    kinds: dict[str, str] = {}
    for record in records:
        if isinstance(record, Mapping):
            for name, value in record.items():
                kind = _kind(value)
                known = kinds.setdefault(name, kind)
                if kind == "text" or known == "null":
                    kinds[name] = kind
                characters[name] = characters.get(name, 0) + (len(value) if isinstance(value, str) else 0)
    return [Field(name=name, kind=kind, n_characters=characters[name]) for name, kind in kinds.items()]


def choose_field(fields: Sequence[Field], asked: str | None, where: str) -> str:
    """The field to read: the one asked for; else the first of PREFERRED; else the one with the most text.

    Args:
        fields: all there are.
        asked: of --text-field; None: decide.
        where: the file or data set, for errors.

    Raises:
        DataError: there is no such field, or none that holds text.
    """
    if asked is not None:
        found = next((field for field in fields if field.name == asked), None)
        if found is None:
            raise DataError(f"{where} has no field {asked!r}; its fields: {_shown(fields)}. Choose one of them.")
        if found.kind not in ("text", "null"):
            raise DataError(
                f"Field {asked!r} of {where} holds {found.kind}, no text. Its fields: {_shown(fields)}; choose another "
                "with --text-field."
            )
        return asked
    texts = [field for field in fields if field.kind == "text"]
    if not texts:
        raise DataError(
            f"{where} has no field that holds text; its fields: {_shown(fields) or 'none'}. "
            "Each record needs a field with a string."
        )
    for preferred in PREFERRED:
        alike = [field for field in texts if field.name.lower() == preferred]
        if alike:
            return min(alike, key=lambda field: field.name != preferred).name
    return max(texts, key=lambda field: field.n_characters).name


def _shown(fields: Sequence[Field]) -> str:
    more = f" and {len(fields) - _SHOWN:,} more" if len(fields) > _SHOWN else ""
    return ", ".join(f"{field.name} ({field.kind})" for field in fields[:_SHOWN]) + more


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case str():
            return "text"
        case bool():
            return "booleans"
        case int() | float():
            return "numbers"
        case Mapping():
            return "objects"
    return "lists"


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
