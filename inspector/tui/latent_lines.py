"""What makes one latent active, as lines: what is known of it, its neighbours, its strongest examples. No Textual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.drawing.lines import cut, prose
from inspector.drawing.palette import LEVEL_MARKS, FigurePalette, Line, figure_palette
from inspector.drawing.safe_text import cell_width, visible
from inspector.drawing.scales import number_text
from inspector.session.protocol import unpack

if TYPE_CHECKING:
    from inspector.drawing.palette import CellStyle, TokenPalette
    from inspector.session.protocol import LatentExample, LatentView

CURSOR = "▸ "
INDENT = "  "
MOST_NEIGHBOURS = 9
"""Those that a number key opens."""


@dataclass(frozen=True, kw_only=True)
class LatentPage:
    """A latent's lines, and where each example stands in them."""

    lines: list[Line]
    starts: tuple[int, ...]
    """Of each example its first line; the last one is the number of lines."""


def latent_page(view: LatentView, cursor: int, width: int, palette: TokenPalette) -> LatentPage:
    """The whole page.

    Args:
        view: the session's answer.
        cursor: number of the example that is marked.
        width: columns.
        palette: of the theme.
    """
    styles = figure_palette(palette)
    lines = [*_facts(view, width, styles), []]
    if view.neighbours:
        lines += [*_neighbours(view, width, styles), []]
    if not view.examples:
        lines += prose(f"It is active at none of the {view.n_tokens:,} tokens searched.", width, styles.plain)
    starts = []
    top = view.max_activation
    for number, example in enumerate(view.examples):
        starts.append(len(lines))
        lines += [*_example(example, number == cursor, top, width, palette, styles), []]
    return LatentPage(lines=lines, starts=(*starts, len(lines)))


def _facts(view: LatentView, width: int, styles: FigurePalette) -> list[Line]:
    often = f"active at {100 * view.density:.3g}% of {view.n_tokens:,} tokens"
    if view.density > 0.1:
        often += ", a dense latent"
    lines: list[Line] = [
        [(cut(f"{often} · largest activation {number_text(view.max_activation)}", width), styles.plain)]
    ]
    if view.link:
        lines.append([(cut(visible(view.link), width), styles.quiet)])
    if view.explanation:
        score = "not scored" if view.score is None else f"score {view.score:.2f}"
        lines += prose(f"{view.explanation} ({score})", width, styles.strong)
    else:
        lines.append([(cut("no explanation is stored: `dm-inspect interp` makes them", width), styles.quiet)])
    return lines


def _neighbours(view: LatentView, width: int, styles: FigurePalette) -> list[Line]:
    """Number key, index and cosine of the nearest decoder directions."""
    lines: list[Line] = [[(cut("nearest decoder directions, by number key", width), styles.strong)]]
    used = width
    for key, each in enumerate(view.neighbours[:MOST_NEIGHBOURS], 1):
        text = f"{key}: {each.index} {each.cosine:+.2f}".replace("+0.", "+.").replace("-0.", "-.")
        size = cell_width(text) + 3
        if used + size > width:
            lines.append([(INDENT, styles.plain)])
            used = len(INDENT)
        lines[-1].append((text + "   ", styles.plain))
        used += size
    return lines


def _example(
    example: LatentExample, marked: bool, top: float, width: int, palette: TokenPalette, styles: FigurePalette
) -> list[Line]:
    """A heading, then the window's tokens, those where the latent is active in its colour."""
    activations = list(unpack(example.activations))
    strongest = max((value for value in activations if value == value), default=0.0)
    head = f"{CURSOR if marked else INDENT}context {example.context + 1}, position {example.position}"
    look = styles.strong if marked else styles.quiet
    lines: list[Line] = [[(cut(f"{head} · {number_text(strongest)}", width), look)], [(INDENT, styles.plain)]]
    used = len(INDENT)
    for place, (token, value) in enumerate(zip(example.tokens, activations, strict=False), example.start):
        text, style = _token(token, value, top, place == example.position, palette, styles)
        text = cut(text, width - len(INDENT))
        if used + cell_width(text) > width:
            lines.append([(INDENT, styles.plain)])
            used = len(INDENT)
        lines[-1].append((text, style))
        used += cell_width(text)
    return lines


def _token(
    token: str, value: float, top: float, peak: bool, palette: TokenPalette, styles: FigurePalette
) -> tuple[str, CellStyle]:
    """A token; the strongest one in brackets, and without colours a block after each that says how large."""
    from dataclasses import replace

    text = visible(token)
    active = value == value and value > 0.0
    style = styles.of_value(value, 0.0, top) if active else styles.plain
    if active and not styles.coloured:
        share = min(value / top, 1.0) if top > 0 else 0.0
        text += LEVEL_MARKS[min(int(share * len(LEVEL_MARKS)), len(LEVEL_MARKS) - 1)]
    if peak:
        return f"[{text}]", replace(style, bold=True)
    return text, style


def examples_table(view: LatentView) -> str:
    """The examples as tab-separated text, a line per token; tokens are escaped as in JSON."""
    import json

    lines = ["sae\tlatent\texample\tcontext\tposition\ttoken\tactivation"]
    for number, example in enumerate(view.examples, 1):
        for offset, (token, value) in enumerate(zip(example.tokens, unpack(example.activations), strict=False)):
            fields = (view.sae_id, str(view.index), str(number), str(example.context), str(example.start + offset),
                      json.dumps(token)[1:-1], f"{value:.7g}")  # fmt: skip
            lines.append("\t".join(fields))
    return "\n".join(lines) + "\n"
