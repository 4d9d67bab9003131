"""The table of claims as lines for a terminal: every verdict with its reason, wrapped and never cut."""

from __future__ import annotations

from collections.abc import Sequence

from inspector.claims.verdict import CANNOT_TELL, CONSISTENT, CONTRADICTS, Verdict, counted
from inspector.drawing.lines import prose
from inspector.drawing.palette import Line, TokenPalette, figure_palette

SIGNS = {CONSISTENT: "✓", CONTRADICTS: "✗", CANNOT_TELL: "?"}


def claims_lines(verdicts: Sequence[Verdict], width: int, palette: TokenPalette) -> list[Line]:
    """A paragraph per claim, and how many came out how.

    Args:
        verdicts: of `evaluate`.
        width: columns.
        palette: of the terminal.
    """
    styles = figure_palette(palette)
    lines: list[Line] = []
    indent = " " * 7
    for each in verdicts:
        sign = f"{SIGNS[each.verdict]} {each.id:<4} "
        said = prose(f"{each.claim} {each.verdict[0].upper()}{each.verdict[1:]}.", width - len(indent), styles.strong)
        lines += [[(sign if i == 0 else indent, styles.strong), *line] for i, line in enumerate(said)]
        number = f"{each.number}{each.said_of}" if each.number else ""
        told = (
            f"paper: {each.paper}",
            f"here: {number}" if number else "",
            each.why,
            each.said_of_all_tokens,
            _from(each),
        )
        for text in told:
            lines += [[(indent, styles.plain), *line] for line in prose(text, width - len(indent), styles.plain)]
    return [*lines, [], *prose(counted(verdicts), width, styles.strong)]


def _from(each: Verdict) -> str:
    return f"from {', '.join(each.results)}" if each.results else ""
