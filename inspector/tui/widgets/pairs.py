"""How well one width's error norm predicts another's, token by token: R² of each enabled pair (Eq. 13, Fig. 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from inspector.tui.lines import Line
from inspector.tui.widgets.line_pane import LinePane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspector.session.protocol import Pairs
    from inspector.tui.view_state import Choice

LABEL, CELL = 6, 5


def pair_lines(pairs: Pairs | None, choice: Choice | None, width: int, height: int) -> list[Line]:
    """The upper triangle: rows predict columns. What does not fit is left out from the widest on."""
    if choice is None:
        return [[("no SAEs yet", "muted")]]
    if len(choice.enabled) < 2:
        return [[("enable two widths:", "muted")], [("press their number keys", "muted")]]
    if pairs is None or not pairs.sae_ids:
        return [[("…", "muted")]]
    place = {choice.saes[row].sae_id: index for index, row in choice.shown}
    order = [(i, place[sae_id]) for i, sae_id in enumerate(pairs.sae_ids) if sae_id in place]
    columns = order[1:][: max(1, (width - LABEL) // CELL)]
    rows = order[:-1][: max(1, height - 1)]
    heading: Line = [(" " * LABEL, "")]
    heading += [(f"{choice.labels[index]:>{CELL}}", f"series-{choice.series(index)}") for _, index in columns]
    lines: list[Line] = [heading]
    for number_in_order, (i, index) in enumerate(rows):
        line: Line = [(f"{choice.labels[index]:<{LABEL}}", f"series-{choice.series(index)}")]
        for column_in_order, (j, _) in enumerate(columns, 1):
            line.append((f"{_r2(pairs.r2[i][j]) if column_in_order > number_in_order else '':>{CELL}}", ""))
        lines.append(line)
    if len(lines) < height:
        lines.append([(f"on {pairs.n_tokens:,} held-out tokens", "muted")])
    return lines


def _r2(value: float | None) -> str:
    """.81 of 0.81; 1.0 of 1; '-' of nothing."""
    if value is None or value != value:
        return "-"
    text = f"{value:.2f}"
    return "1.0" if text == "1.00" else text.replace("0.", ".", 1)


class PairsPane(LinePane):
    """Takes the session's pairs."""

    HELP: ClassVar[str] = "pairs"
    DEFAULT_CSS = """
    PairsPane { width: 38; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._pairs: Pairs | None = None
        self._choice: Choice | None = None

    def show(self, pairs: Pairs | None, choice: Choice | None) -> None:
        """Draw this."""
        self._pairs, self._choice = pairs, choice
        self.rebuild()

    def build(self, width: int, height: int) -> Sequence[Line]:
        """Title and triangle."""
        title = self.title_line([("R² of norms, row → column", "")], [], width)
        return [title, *([(" ", ""), *line] for line in pair_lines(self._pairs, self._choice, width - 2, height - 1))]
