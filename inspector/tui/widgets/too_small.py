"""What is shown in a window too small for anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.tui.lines import Line
from inspector.tui.widgets.line_pane import LinePane

if TYPE_CHECKING:
    from collections.abc import Sequence


class TooSmall(LinePane):
    """Says which size is needed, and which there is."""

    def __init__(self, needed: tuple[int, int], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._needed = needed

    def build(self, width: int, height: int) -> Sequence[Line]:
        """A sentence, broken where it must."""
        columns, lines = self._needed
        window = self.app.size
        sentence = f"This window is {window.width}x{window.height}. dm-inspect needs {columns}x{lines}. q quits."
        rows: list[str] = [""]
        for word in sentence.split():
            if rows[-1] and len(rows[-1]) + 1 + len(word) > width:
                rows.append("")
            rows[-1] = f"{rows[-1]} {word}".strip()
        return [[(row, "strong")] for row in rows]
