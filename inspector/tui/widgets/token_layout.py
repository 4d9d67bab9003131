"""Where each token of a document stands when the text is wrapped to a width.

Lines are filled token by token; a line is broken before the word that does not fit (a token that begins with a space
begins a word), inside a word only if the word is longer than `MAX_WORD`, and inside a token only if the token is wider
than a whole line. A newline shows its mark and ends the line. Laying out is incremental, so that a generation appends
to it and a long document is laid out in slices.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from inspector.drawing.safe_text import CONTINUED, clusters, visible_lines

MAX_WORD = 16
"""Cells. A longer tail is broken where the line ends rather than moved down as a whole."""
TAB = "→   "
CONTINUATION = ((CONTINUED, 1, False),)
"""Of a token whose character stands on an earlier one."""


class Piece(NamedTuple):
    """A run of cells of one token on one line."""

    token: int
    text: str
    """Shown text, without the mark."""
    column: int
    width: int
    """Cells, the mark included."""
    marked: bool
    """Whether the token's mark follows: true on the last piece of each token when marks are on."""


class TokenLayout:
    """Tokens wrapped to lines; grows at the end."""

    def __init__(self, width: int, *, marks: bool = False) -> None:
        """Start empty.

        Args:
            width: Cells per line; at least 4, so that any cluster and its mark fit.
            marks: Keep a cell after each token for its mark.
        """
        self.width = max(width, 4)
        self.marks = marks
        self.n_tokens = 0
        self._text: list[str] = []
        self._token = array("l")
        self._column = array("l")
        self._cells = array("l")
        self._marked = bytearray()
        self._first_piece = array("l")  # Of each token.
        self._line_start = array("l", [0])  # First piece of each line.
        self._used = 0  # Cells used in the last line.
        self._word = 0  # Piece at which the last word of the last line begins.
        self._foreign = False  # Whether the text so far ends with a character that may have several tokens.

    @property
    def n_lines(self) -> int:
        """Lines so far; an empty document has one."""
        return len(self._line_start)

    def extend(self, tokens: Sequence[str]) -> int:
        """Lay out more tokens; returns the first line that differs from before."""
        first_changed = self.n_lines - 1
        for text in tokens:
            self._first_piece.append(len(self._text))
            parts = visible_lines(text, tab=TAB) if text or not self._foreign else CONTINUATION
            self._foreign = not text[-1].isascii() if text else self._foreign
            begins_word = text[:1].isspace() or self._used == 0
            last = len(parts) - 1
            for index, (shown, cells, ends_line) in enumerate(parts):
                self._place(shown, cells, marked=self.marks and index == last, begins_word=begins_word)
                begins_word = False
                if ends_line:
                    self._new_line()
            self.n_tokens += 1
        return first_changed

    def _place(self, shown: str, cells: int, *, marked: bool, begins_word: bool) -> None:
        cells += marked
        if begins_word:
            self._word = len(self._text)
        if self._used + cells > self.width:
            self._make_room(cells)
        if cells <= self.width:
            self._append(shown, cells, marked=marked)
            return
        run, used = "", 0
        for cluster, wide in clusters(shown):
            if used + wide > self.width:
                self._append(run, used, marked=False)
                self._new_line()
                run, used = "", 0
            run, used = run + cluster, used + wide
        if used + marked > self.width:
            self._append(run, used, marked=False)
            self._new_line()
            run, used = "", 0
        self._append(run, used + marked, marked=marked)

    def _make_room(self, cells: int) -> None:
        """Break the line before the last word if that is short and not the whole line, else right here."""
        start = self._line_start[-1]
        if start < self._word < len(self._text):
            tail = self._used - self._column[self._word]
            if tail + cells <= min(MAX_WORD, self.width):
                shift = self._column[self._word]
                self._line_start.append(self._word)
                for piece in range(self._word, len(self._text)):
                    self._column[piece] -= shift
                self._used = tail
                return
        if self._used > 0:
            self._new_line()

    def _append(self, text: str, cells: int, *, marked: bool) -> None:
        self._text.append(text)
        self._token.append(self.n_tokens)
        self._column.append(self._used)
        self._cells.append(cells)
        self._marked.append(marked)
        self._used += cells

    def _new_line(self) -> None:
        self._line_start.append(len(self._text))
        self._used = 0
        self._word = len(self._text)

    # ---- looking up -------------------------------------------------------------------------------------------

    def _piece(self, index: int) -> Piece:
        return Piece(
            self._token[index],
            self._text[index],
            self._column[index],
            self._cells[index],
            bool(self._marked[index]),
        )

    def _line_range(self, line: int) -> range:
        if not 0 <= line < self.n_lines:
            return range(0)
        end = self._line_start[line + 1] if line + 1 < self.n_lines else len(self._text)
        return range(self._line_start[line], end)

    def line(self, line: int) -> Iterator[Piece]:
        """The pieces of a line from left to right; none beyond the last line."""
        return map(self._piece, self._line_range(line))

    def pieces_of(self, token: int) -> Iterator[tuple[int, Piece]]:
        """(line, piece) of each piece of a token."""
        if not 0 <= token < self.n_tokens:
            return
        end = self._first_piece[token + 1] if token + 1 < self.n_tokens else len(self._text)
        for index in range(self._first_piece[token], end):
            yield bisect_right(self._line_start, index) - 1, self._piece(index)

    def place_of(self, token: int) -> tuple[int, int]:
        """(line, column) of the first cell of a token."""
        line, piece = next(self.pieces_of(token))
        return line, piece.column

    def line_width(self, line: int) -> int:
        """Cells used in a line."""
        pieces = self._line_range(line)
        return self._column[pieces[-1]] + self._cells[pieces[-1]] if pieces else 0

    def token_at(self, line: int, column: int) -> int | None:
        """Token nearest to a column in a line, or the nearest line above that has one; None in an empty document."""
        line = min(max(line, 0), self.n_lines - 1)
        while line > 0 and not self._line_range(line):
            line -= 1
        pieces = self._line_range(line)
        if not pieces:
            return None
        place = bisect_right(self._column, column, pieces.start, pieces.stop) - 1
        return self._token[max(place, pieces.start)]

    def tokens_of(self, line: int) -> range:
        """Tokens with a piece in this line."""
        pieces = self._line_range(min(max(line, 0), self.n_lines - 1))
        return range(self._token[pieces.start], self._token[pieces.stop - 1] + 1) if pieces else range(0)
