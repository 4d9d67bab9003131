"""The scored texts the view holds: messages made into documents, and one number per token for plots and rankings.

A few dozen contexts stay in memory, the least recently used go first. No Textual, no numpy: a context of 1,024 tokens
and 40 SAEs is some hundred kilobytes of `array`, and a measure's values are made once per SAE and kept. Their table, in
the columns of `dm-inspect tokens`, is what the copying keys hand out.
"""

from __future__ import annotations

import json
from array import array
from collections import OrderedDict
from typing import TYPE_CHECKING

from inspector.drawing.tokens import LEFT_OUT, SaeColumns, TokenDocument
from inspector.session.frames import unpack
from inspector.session.protocol import ContextScores, Generated
from inspector.store.exports import not_a_formula

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from inspector.drawing.tokens import Measure, TokenMode
    from inspector.session.cards import SaeScores
    from inspector.session.protocol import Policy
    from inspector.spec import SaeRef

WORST_PER_CONTEXT = 10
"""The walk over the worst tokens stays this long in one context before it goes on to the next."""
MAX_DOCUMENTS = 48
"""Contexts kept: browsing back a page or two is instant; 48 x 0.7 MB at the largest suites."""


def sae_columns(scores: SaeScores) -> SaeColumns:
    """Unpack one SAE's part of a message."""
    return SaeColumns(
        l0=unpack(scores.l0),
        sae_error_norm=unpack(scores.sae_error_norm),
        linear_error_norm=unpack(scores.linear_error_norm),
        nonlinear_error_norm=unpack(scores.nonlinear_error_norm),
    )


def document_of(message: ContextScores | Generated, *, source: str, name: str, context: int = 0) -> TokenDocument:
    """Unpack what a message says of a text."""
    return TokenDocument(
        source=source,
        context=context,
        epoch=message.epoch,
        name=name,
        token_ids=list(message.token_ids),
        tokens=list(message.tokens),
        split=list(message.split),
        loss=unpack(message.loss),
        x_norm=unpack(message.x_norm),
        saes=tuple(map(sae_columns, message.saes)),
    )


def main_measure(mode: TokenMode) -> Measure:
    """The one number a mode ranks and plots tokens by: its size, or its share if it shows nothing else."""
    measure = mode.size or mode.share
    assert measure is not None, "a mode shows something"
    return measure


def ranking(values: Sequence[float], split: Sequence[str], *, outliers: bool = False) -> list[int]:
    """Positions of the largest values, largest first; missing values and what counts in no fit are left out.

    Args:
        values: one per token.
        split: letters of `TokenDocument.split`.
        outliers: whether tokens that outweigh all others are ranked too.
    """
    left_out = ("x",) if outliers else LEFT_OUT
    usable = [
        p for p, letter in enumerate(split) if letter not in left_out and p < len(values) and values[p] == values[p]
    ]
    return sorted(usable, key=lambda p: (-values[p], p))[:WORST_PER_CONTEXT]


class ScoredText:
    """A document with what was derived from it. The document grows while it is generated; what is derived follows."""

    def __init__(self, document: TokenDocument, finished: bool = True, policy: Policy = "excluded") -> None:
        self.document = document
        self.policy = policy
        """Whose maps split the errors, and who decides which tokens count."""
        self.finished = finished
        """False while it is being generated."""
        self.waiting: frozenset[str] = frozenset()
        """SAEs whose scores are still to come."""
        self._values: dict[tuple[int, str], array[float]] = {}
        self._extents: dict[tuple[int, str], tuple[float, float]] = {}

    @classmethod
    def of(cls, message: ContextScores) -> ScoredText:
        """From a context or a prompt."""
        document = document_of(message, source=message.source, context=message.context, name=message.name)
        text = cls(document, policy=message.policy)
        text.waiting = frozenset(message.waiting)
        return text

    @classmethod
    def generated(cls, message: Generated, name: str, number: int = 0) -> ScoredText:
        """From the first message of a generation, which holds its prompt."""
        return cls(document_of(message, source="generated", name=name, context=number), message.finished)

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.document)

    @property
    def key(self) -> tuple[str, int]:
        """(source, number of the context)."""
        return (self.document.source, self.document.context)

    @property
    def has_map(self) -> bool:
        """Whether the errors are split into linear and nonlinear."""
        return self.document.epoch > 0

    def extend(self, message: Generated) -> None:
        """Append generated tokens; ValueError if they do not follow the last one."""
        self.document.extend(
            start=message.start,
            token_ids=message.token_ids,
            tokens=message.tokens,
            split=message.split,
            loss=unpack(message.loss),
            x_norm=unpack(message.x_norm),
            saes=[sae_columns(scores) for scores in message.saes],
            loss_before=message.loss_before,
        )
        self.finished = message.finished
        self._values.clear()
        self._extents.clear()

    def values(self, row: int, measure: Measure) -> array[float]:
        """The measure of every token for the SAE in this row; NaN where it is not known."""
        key = (row, measure.id)
        if key not in self._values:
            document = self.document
            self._values[key] = array("f", [measure.value(document.scalars(p, row)) for p in range(len(document))])
        return self._values[key]

    def top(self, rows: Iterable[int], measure: Measure) -> float:
        """The largest value among the included tokens of these SAEs; NaN if there is none."""
        return self.extent(rows, measure)[1]

    def extent(self, rows: Iterable[int], measure: Measure) -> tuple[float, float]:
        """The smallest and the largest value among the included tokens of these SAEs; NaN if there is none."""
        known = [extent for row in rows if (extent := self._extent(row, measure))[0] == extent[0]]
        nan = float("nan")
        return min((low for low, _ in known), default=nan), max((high for _, high in known), default=nan)

    def _extent(self, row: int, measure: Measure) -> tuple[float, float]:
        key = (row, measure.id)
        if key not in self._extents:
            values, nan = self.values(row, measure), float("nan")
            kept = [values[p] for p in self.document.included() if values[p] == values[p]]
            self._extents[key] = min(kept, default=nan), max(kept, default=nan)
        return self._extents[key]

    def ranked(self, row: int, mode: TokenMode, *, outliers: bool = False) -> list[int]:
        """Positions of the worst tokens in this mode, worst first; `outliers`: those too that outweigh all others."""
        return ranking(self.values(row, main_measure(mode)), self.document.split, outliers=outliers)


class Texts:
    """The texts at hand, by source and number."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], ScoredText] = OrderedDict()

    def put(self, text: ScoredText) -> None:
        """Keep a text; an older one of the same name goes."""
        self._kept[text.key] = text
        self._kept.move_to_end(text.key)
        while len(self._kept) > MAX_DOCUMENTS:
            self._kept.popitem(last=False)

    def get(self, source: str, context: int) -> ScoredText | None:
        """A text, if it is at hand."""
        text = self._kept.get((source, context))
        if text is not None:
            self._kept.move_to_end((source, context))
        return text

    def clear(self) -> None:
        """Forget all of them."""
        self._kept.clear()

    def __len__(self) -> int:
        """How many texts are at hand."""
        return len(self._kept)


def number_on_screen(document: TokenDocument) -> int:
    """The number of a context or of a text of the user's own, as people count."""
    return document.context + 1 if document.source == "context" else document.context


NUMBERS = ("l0", "sae_error_norm", "linear_error_norm", "nonlinear_error_norm")
COLUMNS = ("context", "position", "token_id", "token", "split", "loss", "x_norm", "sae", *NUMBERS, "context_on_screen")
"""Those of `dm-inspect tokens`, in which contexts count from 0, and the number on the screen, which is from 1."""
SPLITS = {"t": "train", "h": "test", "x": "excluded", "o": "excluded"}


def table(text: ScoredText, positions: Iterable[int], rows: Sequence[int], saes: Sequence[SaeRef]) -> str:
    """Long form: a line for each token and SAE, and a line of names. An unknown number is an empty field.

    The token is escaped as in JSON, so that no text can break a line, and as in a CSV, so that none is a formula.
    """
    document = text.document
    lines = ["\t".join(COLUMNS)]
    for position in positions:
        for row in rows:
            scalars = document.scalars(position, row)
            fields = (
                str(document.context),
                str(position),
                str(document.token_ids[position]),
                not_a_formula(json.dumps(document.tokens[position])[1:-1]),
                SPLITS.get(document.split[position], ""),
                _field(scalars.loss),
                _field(scalars.x_norm),
                not_a_formula(saes[row].sae_id),
                *(_field(getattr(scalars, name)) for name in NUMBERS),
                str(number_on_screen(document)),
            )
            lines.append("\t".join(fields))
    return "\n".join(lines) + "\n"


def _field(value: float) -> str:
    return f"{value:.7g}" if value == value else ""
