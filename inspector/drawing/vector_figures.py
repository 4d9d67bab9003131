"""Figures as SVG, PDF or PNG through matplotlib, in the layout of the paper's: panels beside each other.

Matplotlib is an extra of the package and is imported here, when a picture is asked for. No text is ever read as
markup: token text and names of models are drawn as they are, with what cannot be seen made visible.
"""

from __future__ import annotations

import io
import logging
import math
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from inspector.drawing.figures import (
    Bands,
    Bars,
    Curve,
    DotGrid,
    Figure,
    GroupedBars,
    Heatmap,
    Numbers,
    Series,
    Table,
    TokenStrip,
    TokenTrace,
    Violin,
)
from inspector.drawing.lines import cut, shared_start
from inspector.drawing.palette_build import paper_colour
from inspector.drawing.safe_text import NEWLINE, visible
from inspector.drawing.scales import SAID, Scale, ends_of, format_cell, is_thicket, number_text, scale_of, thinned
from inspector.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAP, MAP_STEPS = "cividis", 40
"""Colours of values: reads the same for every colour blindness and in grey."""
GREY = "#666666"
PANEL, WIDE = (4.6, 3.5), 7.5
"""Inches of one panel, and across a picture that holds a wide kind."""
TEXTS = (TokenTrace, TokenStrip)
"""Kinds that take a row of their own, or their tokens could not be read."""
WIDE_KINDS = (Bands, GroupedBars, Table, *TEXTS)
ACROSS = 3
"""Panels beside each other, at most."""
POINTS = ("o", "s", "^", "D", "v", "P", "X", "*")
LONGEST_NAME = 26
"""Columns of a name in a legend or at a tick."""
STRIP_COLUMNS, STRIP_LINES = 60, 10
"""Of a text; more lines than that make the panel fuller, not taller."""
ROOM_FOR_NAMES = 70
"""Columns of all names under a panel together, above which they stand upright."""
PLACES = 300
"""Across a panel, that the eye keeps apart in a line."""
MOST_INSIDE = 5
"""Series named inside a panel; more of them stand below it, where they cover nothing."""
CLOUD, CROWD = 400, 24
"""Points above which they are specks, and those of a line above which they get no marks."""


def picture(figures: Sequence[Figure], kind: str) -> bytes:
    """All plots in one picture; the tables only where there is nothing else.

    Args:
        figures: of one result.
        kind: 'svg', 'pdf' or 'png'. The same figures give the same bytes.

    Raises:
        UsageError: matplotlib is not installed.
    """
    plots: Sequence[Figure] = [figure for figure in figures if not isinstance(figure, Table)] or figures
    with _quiet_matplotlib() as new_picture:
        rows = _rows(plots)
        across = max(map(len, rows))
        heights = [max(_height(figure) for figure in row) for row in rows]
        width = max(across * PANEL[0], WIDE if any(isinstance(figure, WIDE_KINDS) for figure in plots) else 0.0)
        whole = new_picture(figsize=(width, sum(heights)), layout="constrained")
        grid = whole.add_gridspec(len(rows), across, height_ratios=heights)
        for number, row in enumerate(rows):
            for column, figure in enumerate(row):
                axes = whole.add_subplot(grid[number, :] if isinstance(figure, TEXTS) else grid[number, column])
                if figure.title:
                    axes.set_title(visible(figure.title), fontsize=10)
                _panel(axes, figure)
        out = io.BytesIO()
        # Neither a date nor the program's version: what has not changed shall not differ.
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
        whole.savefig(out, format=kind, dpi=150, metadata=metadata, transparent=False)
        return out.getvalue()


def svg_of(figure: Figure, salt: str) -> str:
    """One figure as an `<svg>` element to stand inside a page.

    Args:
        figure: what to draw.
        salt: makes the ids inside it its own, so that several in one page do not mix up their clip paths.

    Raises:
        UsageError: matplotlib is not installed.
    """
    width = WIDE if isinstance(figure, WIDE_KINDS) else 5.6
    with _quiet_matplotlib(salt) as new_picture:
        whole = new_picture(figsize=(width, _height(figure) + 0.4), layout="constrained")
        _panel(whole.add_subplot(), figure)
        out = io.StringIO()
        whole.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    text = out.getvalue()
    return text[text.index("<svg") :]


def _panel(axes: Axes, figure: Figure) -> None:
    """Draw one figure of any kind into one panel."""
    draw: dict[type[Any], Callable[..., None]] = {
        Curve: _curve, Bands: _bands, DotGrid: _grid, Heatmap: _heatmap, Violin: _violin, Bars: _bars,
        GroupedBars: _grouped, TokenTrace: _trace, TokenStrip: _strip, Table: _table,
    }  # fmt: skip
    draw[type(figure)](axes, figure)


def _rows(plots: Sequence[Figure]) -> list[list[Figure]]:
    """Panels beside each other; a text has a row of its own."""
    narrow = sum(not isinstance(figure, TEXTS) for figure in plots)
    across = 2 if narrow == 4 else min(narrow, ACROSS)
    rows: list[list[Figure]] = []
    for figure in plots:
        if not rows or isinstance(figure, TEXTS) or isinstance(rows[-1][0], TEXTS) or len(rows[-1]) == across:
            rows.append([])
        rows[-1].append(figure)
    return rows


def _height(figure: Figure) -> float:
    match figure:
        case Table():
            return max(1.2, 0.26 * (len(figure.rows) + 2))
        case Bars():
            return max(PANEL[1], 0.28 * len(figure.labels) + 1.2)
        case GroupedBars():
            return PANEL[1] + (1.6 if sum(map(len, figure.groups)) > 70 else 0.0)
        case Heatmap():
            return max(PANEL[1], 0.34 * len(figure.y_ticks) + 1.2)
    return PANEL[1]


@contextmanager
def _quiet_matplotlib(salt: str = "dm-inspect") -> Iterator[Callable[..., Any]]:
    """A maker of pictures that needs no screen and reads no user's settings."""
    try:
        import matplotlib
        from matplotlib.figure import Figure as Picture
    except ImportError as error:
        raise UsageError(
            "Figures as files are drawn by matplotlib, which is not installed. Install it with "
            "`pip install 'dm-inspect[figures]'`."
        ) from error

    settings: dict[Any, Any] = {  # keys of matplotlib's own, which it spells as a type of three hundred words
        "svg.hashsalt": salt,
        "svg.fonttype": "path",  # a reader's machine need not have the font, and no text can become markup
        "pdf.fonttype": 42,
        "text.parse_math": False,  # a token may hold dollar signs
        "font.family": ["DejaVu Sans"],
        "font.size": 9.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "legend.fontsize": 8.0,
    }
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        warnings.filterwarnings("ignore", message=".*Glyph .* missing from")  # drawn as a box, which is honest
        logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
        yield Picture


def _colours() -> Any:
    """Few enough steps that a colour bar is drawn as areas: above fifty, matplotlib makes it a picture of pixels."""
    from matplotlib import colormaps

    return colormaps[MAP].resampled(MAP_STEPS)


def _ink(shade: Sequence[float]) -> str:
    """Of text on a filled cell: what is readable there."""
    return "white" if 0.2126 * shade[0] + 0.7152 * shade[1] + 0.0722 * shade[2] < 0.45 else "black"


def _name(text: str) -> str:
    """A name that leaves room for the plot."""
    return cut(visible(text), LONGEST_NAME, keep_end=True)


def _floats(values: Numbers) -> list[float]:
    """None as not-a-number, which matplotlib leaves out."""
    return [math.nan if value is None else value for value in values]


def _without_start(names: Sequence[str]) -> tuple[list[str], str]:
    """Names that leave room for the plot, without the folders they share; and those."""
    shown = list(map(visible, names))
    shared = shared_start(shown)
    return [_name(name.removeprefix(shared)) for name in shown], shared


def _set_scales(axes: Axes, x: Scale, y: Scale) -> None:
    """Labels, limits, and the same ticks as in a terminal."""
    axes.set(xlabel=visible(x.axis.heading), ylabel=visible(y.axis.heading))
    for which, scale in (("x", x), ("y", y)):
        getattr(axes, f"set_{which}scale")("log" if scale.log else "linear")
        getattr(axes, f"set_{which}lim")(scale.low, scale.high)
        ticks = scale.ticks(7)
        getattr(axes, f"set_{which}ticks")([value for value, _ in ticks], labels=[text for _, text in ticks])
    axes.minorticks_off()


def _curve(axes: Axes, figure: Curve) -> None:
    x = scale_of((at for series in figure.series for at in series.x), figure.x, named=True)
    _set_scales(axes, x, scale_of(ends_of(figure.series), figure.y))
    _series(axes, [thinned(series, x, PLACES) for series in figure.series])
    if any(is_thicket(series, PLACES) for series in figure.series):
        axes.set_xlabel(f"{visible(figure.x.heading)}\n{SAID}")
    if len(figure.series) > MOST_INSIDE:
        axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    elif any(series.name for series in figure.series):  # on a ground of its own: there may be no free corner
        axes.legend(frameon=True, framealpha=0.8, edgecolor="none")


def _series(axes: Axes, all_series: Sequence[Series], *, black: bool = False) -> None:
    over: dict[str, Any] = {"zorder": 5} if black else {}
    for index, series in enumerate(all_series):
        colour = "black" if black else paper_colour(index, series.name, len(all_series))
        line = {"line": "-", "points": "", "dotted": ":"}[series.style]
        mark = "" if len(series.x) > CROWD and line else POINTS[index % len(POINTS)]
        y = _floats(series.y)
        if series.style == "points" and len(series.x) > CLOUD:
            axes.plot(series.x, y, ".", color=colour, markersize=2, alpha=0.35, zorder=1)
            axes.plot([], [], ".", color=colour, markersize=5, label=_name(series.name))  # seen in the legend
            continue
        if series.low:
            low, high = _floats(series.low), _floats(series.high)
            if mark:
                # Not as error bars: an interval of percentiles need not hold its own point.
                axes.vlines(series.x, low, high, color=colour, linewidth=1.0, alpha=0.7, **over)
            else:
                axes.fill_between(series.x, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(series.x, y, color=colour, linestyle=line or "none", marker=mark, markersize=4, linewidth=1.3,
                  label=_name(series.name), **over)  # fmt: skip
        missing = [x for x, value in zip(series.x, series.y, strict=True) if value is None]
        if missing:
            at = [axes.get_ylim()[0]] * len(missing)
            axes.plot(missing, at, "x", color=colour, clip_on=False, label=f"{_name(series.name)}: undefined")


def _bands(axes: Axes, figure: Bands) -> None:
    beyond = list(figure.extrapolated) or [False] * len(figure.at)
    split = beyond.index(True) if True in beyond else len(beyond)
    lower = cover = [0.0] * len(figure.at)
    tops = []
    for index, band in enumerate(figure.bands):
        upper = [low + (value or 0.0) for low, value in zip(lower, band.values, strict=True)]
        colour = paper_colour(index, band.name, len(figure.bands))
        # What a lower band covers already stays seen: a negative band below makes them overlap.
        seen = [max(top, under) for top, under in zip(upper, cover, strict=True)]
        axes.fill_between(figure.at[:split], cover[:split], seen[:split], color=colour, alpha=0.75, linewidth=0,
                          label=_name(band.name))  # fmt: skip
        negative = [value is not None and value < 0.0 for value in band.values]
        if any(negative):
            axes.fill_between(figure.at, lower, upper, where=negative, label=f"{_name(band.name)}, negative",
                              facecolor="none", edgecolor=colour, hatch="///", linewidth=0, zorder=3)  # fmt: skip
        start = max(split - 1, 0)
        axes.fill_between(figure.at[start:], cover[start:], seen[start:], facecolor=colour, alpha=0.22, linewidth=0)
        axes.plot(figure.at[start:], upper[start:], ":", color=colour, linewidth=1.4)
        tops += upper
        lower, cover = upper, seen
    x = scale_of((*figure.at, *(x for series in figure.points for x in series.x)), figure.x, margin=0.0)
    _set_scales(axes, x, scale_of((*tops, *ends_of(figure.points)), figure.y, zero=True))
    n_areas = len(axes.get_legend_handles_labels()[0])
    _series(axes, figure.points, black=True)
    if 0 < split < len(figure.at):
        axes.axvline(figure.at[split - 1], color=GREY, linewidth=0.8, linestyle=":")
    handles, labels = axes.get_legend_handles_labels()
    order = [*range(n_areas - 1, -1, -1), *range(n_areas, len(handles))]  # areas as they lie, the highest first
    axes.legend([handles[i] for i in order], [labels[i] for i in order], ncols=3, loc="upper center",
                bbox_to_anchor=(0.5, -0.15))  # fmt: skip


def _grid(axes: Axes, figure: DotGrid) -> None:
    known = [dot for dot in figure.dots if dot.value is not None]
    values = [dot.value for dot in figure.dots if dot.value is not None]
    x = scale_of((dot.x for dot in figure.dots), figure.x, margin=0.1, named=True)
    _set_scales(axes, x, scale_of((dot.y for dot in figure.dots), figure.y, margin=0.12, named=True))
    drawn = axes.scatter([dot.x for dot in known], [dot.y for dot in known], c=values, cmap=_colours(), s=55,
                         edgecolors=GREY, linewidths=0.5)  # fmt: skip
    for dot in known:
        axes.annotate(number_text(dot.value), (dot.x, dot.y), xytext=(0, 5), textcoords="offset points", ha="center",
                      va="bottom", fontsize=7)  # fmt: skip
    missing = [dot for dot in figure.dots if dot.value is None]
    if missing:
        axes.plot([dot.x for dot in missing], [dot.y for dot in missing], "x", color=GREY, label="undefined")
        axes.legend()
    if known:
        axes.figure.colorbar(drawn, ax=axes, label=visible(figure.value.heading))


def _heatmap(axes: Axes, figure: Heatmap) -> None:
    values = [
        [math.nan if value is None or (figure.triangle and j < i) else value for j, value in enumerate(row)]
        for i, row in enumerate(figure.values)
    ]
    axes.set(xlabel=visible(figure.x.heading), ylabel=visible(figure.y.heading))
    if not any(value == value for row in values for value in row):
        axes.text(0.5, 0.5, "nothing is defined", transform=axes.transAxes, ha="center", color=GREY)
        return
    across, down = range(len(figure.x_ticks)), range(len(figure.y_ticks))
    shown = axes.pcolormesh(across, down, values, cmap=_colours(), shading="nearest")
    axes.invert_yaxis()
    low, high = shown.get_clim()
    for i, row in enumerate(figure.values):
        for j, value in enumerate(row):
            if figure.triangle and j < i:
                continue
            if value is None:
                axes.text(j, i, "×", ha="center", va="center", color=GREY)
                continue
            ink = _ink(_colours()(0.5 if high <= low else (value - low) / (high - low)))
            axes.text(j, i, number_text(value), ha="center", va="center", fontsize=7, color=ink)
    axes.set_xticks(across, labels=list(map(_name, figure.x_ticks)))
    axes.set_yticks(down, labels=list(map(_name, figure.y_ticks)))
    axes.figure.colorbar(shown, ax=axes, label=visible(figure.value.heading))


def _violin(axes: Axes, figure: Violin) -> None:
    for index, sample in enumerate(figure.samples):
        values = [value for value in sample if math.isfinite(value)]
        colour = paper_colour(index, figure.labels[index], len(figure.samples))
        if len(values) > 1 and max(values) > min(values):
            parts: Any = axes.violinplot([values], [index], widths=0.8, showextrema=False)
            parts["bodies"][0].set(facecolor=colour, alpha=0.4)
        shifts = [index + 0.06 * math.sin(12.9 * i) for i in range(len(values))]
        axes.plot(shifts, values, ".", color=colour, markersize=3)
        if values:
            axes.hlines(statistics.median(values), index - 0.25, index + 0.25, color="black", linewidth=1.5)
        else:
            place = axes.get_xaxis_transform()
            axes.text(index, 0.5, "undefined", transform=place, ha="center", fontsize=7, color=GREY)
    axes.set_xticks(range(len(figure.labels)), labels=list(map(_name, figure.labels)), rotation=15)
    axes.set_ylabel(visible(figure.value.heading))


def _bars(axes: Axes, figure: Bars) -> None:
    at = range(len(figure.labels))
    axes.barh(at, _floats(figure.values), color=paper_colour(0, "", 1), alpha=0.8)
    if figure.low:
        axes.hlines(at, _floats(figure.low), _floats(figure.high), color="black", linewidth=1.2)
    for index, value in enumerate(figure.values):
        place = (max([0.0, *(end for end in (value, *figure.high[index : index + 1]) if end is not None)]), index)
        axes.annotate(number_text(value), place, xytext=(4, 0), textcoords="offset points", va="center", fontsize=7)
    names, shared = _without_start(figure.labels)
    axes.set_yticks(at, labels=names)
    axes.set(xlabel=visible(figure.value.heading), ylabel=shared, ylim=(len(figure.labels) - 0.4, -0.6))
    axes.margins(x=0.15)
    axes.axvline(0.0, color=GREY, linewidth=0.8)


def _grouped(axes: Axes, figure: GroupedBars) -> None:
    width = 0.8 / max(len(figure.bars), 1)
    seen: set[str] = set()
    for index, series in enumerate(figure.bars):
        at = [group - 0.4 + width * (index + 0.5) for group in range(len(figure.groups))]
        colour = paper_colour(index, series.name, len(figure.bars))
        axes.bar(at, _floats(series.values), width * 0.92, color=colour, alpha=0.7, label=_name(series.name))
        if series.low:
            axes.vlines(at, _floats(series.low), _floats(series.high), color="black", linewidth=1.0)
        for place, value in zip(at, series.values, strict=True):
            if value is None:
                axes.text(place, 0.0, "×", ha="center", va="bottom", color=GREY)
        for number, mark in enumerate(series.marks):
            style = ("-", "--", ":")[number % 3]
            name = "_nolegend_" if mark.name in seen else _name(mark.name)
            ends = [place - width * 0.46 for place in at], [place + width * 0.46 for place in at]
            axes.hlines(_floats(mark.values), *ends, color="black", linestyle=style, linewidth=2.0, label=name)
            seen.add(mark.name)
    names, shared = _without_start(figure.groups)
    upright = sum(map(len, names)) + 2 * len(names) > ROOM_FOR_NAMES
    axes.set_xticks(range(len(names)), labels=names, rotation=90 if upright else 0, fontsize=7 if upright else None)
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    axes.set(xlabel=shared, ylabel=visible(figure.value.heading))
    if figure.bars:
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.28 * (high - low))  # room for the legend above the bars
        axes.legend(loc="upper left", ncols=2)


def _trace(axes: Axes, figure: TokenTrace) -> None:
    at = list(range(len(figure.tokens)))
    for index, series in enumerate(figure.series):
        colour = paper_colour(index, series.name, len(figure.series))
        axes.plot(at, _floats(series.values), color=colour, linewidth=1.2, label=_name(series.name))
    every = max(1, -(-len(at) // 60))
    names = [visible(token)[:12] for token in figure.tokens[::every]]
    axes.set_xticks(at[::every], labels=names, rotation=90, fontsize=6)
    axes.margins(x=0.01)
    axes.set(xlabel=f"token, from position {figure.first_position}", ylabel=visible(figure.value.heading))
    if any(series.name for series in figure.series):
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))  # beside the panel, which its lines fill


def _strip(axes: Axes, figure: TokenStrip) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    known = [value for value in figure.values if value is not None]
    scale = Normalize(min(known), max(known)) if known else Normalize(0.0, 1.0)
    column, line = 0, 0
    for token, value in zip(figure.tokens, figure.values, strict=True):
        text = visible(token)[:40]
        if column + len(text) > STRIP_COLUMNS:
            column, line = 0, line + 1
        shade = _colours()(scale(value)) if value is not None else (1.0, 1.0, 1.0, 1.0)
        axes.text(column, -line, text, family="DejaVu Sans Mono", fontsize=7, color=_ink(shade),
                  bbox={"facecolor": shade, "edgecolor": "none", "pad": 1.0})  # fmt: skip
        column += len(text)
        if NEWLINE in text:
            column, line = 0, line + 1
    axes.set(xlim=(0, STRIP_COLUMNS), ylim=(-max(line, STRIP_LINES) - 1, 1))
    axes.axis("off")
    shown = ScalarMappable(scale, _colours())
    axes.figure.colorbar(shown, ax=axes, label=visible(figure.value.heading), orientation="horizontal", shrink=0.5)


def _table(axes: Axes, figure: Table) -> None:
    axes.axis("off")
    if not figure.rows:
        return
    rows = [[format_cell(cell, column.digits)[:48] for cell, column in zip(row, figure.columns, strict=True)]
            for row in figure.rows]  # fmt: skip
    titles = [visible(column.title) for column in figure.columns]
    drawn = axes.table(cellText=rows, colLabels=titles, loc="center", edges="horizontal")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(7)
    drawn.auto_set_column_width(list(range(len(figure.columns))))
