"""Any figure as lines of styled text, for `results show`, `run` and the Results screen; without torch or numpy.

    for line in render_figure(figure, width=100, height=20, palette=theme.palette(depth)): ...

Every line is at most `width` columns wide. Nothing in a title, name or token can act on the terminal, and what an
undefined number looks like is said in the figure.
"""

from __future__ import annotations

from inspector.drawing.figures import (
    Bands,
    Bars,
    Curve,
    DotGrid,
    Figure,
    GroupedBars,
    Heatmap,
    Table,
    TokenStrip,
    TokenTrace,
    Violin,
)
from inspector.drawing.lines import cut, prose
from inspector.drawing.palette import FigurePalette, Line, TokenPalette, figure_palette
from inspector.drawing.safe_text import cell_width, visible
from inspector.drawing.tables import table_lines
from inspector.drawing.terminal_bars import bars_lines, grouped_lines, violin_lines
from inspector.drawing.terminal_curves import band_lines, curve_lines, trace_lines
from inspector.drawing.terminal_grids import grid_lines, heatmap_lines, strip_lines

NARROWEST = 40
"""Columns below which nothing is laid out any more; the lines are then wider than asked for."""


def render_figure(figure: Figure, width: int, height: int, palette: TokenPalette, *, notes: bool = True) -> list[Line]:
    """The figure with its title and note.

    Args:
        figure: what to draw.
        width: columns.
        height: lines that a plot shall take, title included, note not. Tables, bars and texts take what they need.
        palette: of the theme at this terminal's colour depth.
        notes: draw the note below.
    """
    styles = figure_palette(palette)
    width = max(width, NARROWEST)
    lines: list[Line] = []
    if figure.title:
        lines.append([(cut(visible(figure.title), width), styles.strong)])
    lines += [_clipped(line, width) for line in _body(figure, width, max(height - len(lines), 10), styles)]
    if notes and figure.note:
        lines += [[], *prose(figure.note, width, styles.quiet)]
    return lines


def _clipped(line: Line, width: int) -> Line:
    """What fits: only where a screen is too narrow for a figure's own words."""
    kept: Line = []
    for text, style in line:
        kept.append((cut(text, width), style))
        width -= cell_width(kept[-1][0])
        if kept[-1][0] != text:
            break
    return kept


def _body(figure: Figure, width: int, height: int, palette: FigurePalette) -> list[Line]:
    match figure:
        case Table():
            return table_lines(figure, width, palette)
        case Curve():
            return curve_lines(figure, width, height, palette)
        case Bands():
            return band_lines(figure, width, height, palette)
        case TokenTrace():
            return trace_lines(figure, width, height, palette)
        case Bars():
            return bars_lines(figure, width, palette)
        case GroupedBars():
            return grouped_lines(figure, width, palette)
        case Violin():
            return violin_lines(figure, width, palette)
        case Heatmap():
            return heatmap_lines(figure, width, palette)
        case DotGrid():
            return grid_lines(figure, width, height, palette)
        case TokenStrip():
            return strip_lines(figure, width, palette)
