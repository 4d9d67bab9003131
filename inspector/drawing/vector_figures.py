"""Figures as SVG, PDF or PNG through matplotlib, in the layout of the paper's: panels beside each other.

Matplotlib is an extra of the package and is imported here, when somebody asks for a picture. No text is ever read as
markup: token text and names of models are drawn as they are, with what cannot be seen made visible.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from inspector.drawing.figures import Figure, Table
from inspector.drawing.safe_text import visible
from inspector.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#6b6b6b", "#3b2f8f")
"""Okabe and Ito's colour-blind-safe set without its yellow, which is lost on white."""
MAP = "cividis"
"""Colours of values: reads the same for every colour blindness and in grey."""
MAP_STEPS = 40
GREY = "#666666"
PANEL = (4.6, 3.5)
"""Inches of one panel."""
DPI = 150
ACROSS = 3
"""Panels beside each other, at most."""


def picture(figures: Sequence[Figure], kind: str) -> bytes:
    """All plots in one picture; the tables only where there is nothing else.

    Args:
        figures: of one result.
        kind: 'svg', 'pdf' or 'png'. The same figures give the same bytes.

    Raises:
        UsageError: matplotlib is not installed.
    """
    plots: list[Figure] = [figure for figure in figures if not isinstance(figure, Table)]
    plots = plots or list(figures)
    with _quiet_matplotlib() as new_picture:
        rows = _rows(plots)
        across = max(map(len, rows))
        heights = [max(_height(figure) for figure in row) for row in rows]
        width = max(across * PANEL[0], 7.5 if any(_is_wide(figure) for figure in plots) else 0.0)
        whole = new_picture(figsize=(width, sum(heights)), layout="constrained")
        grid = whole.add_gridspec(len(rows), across, height_ratios=heights)
        for number, row in enumerate(rows):
            for column, figure in enumerate(row):
                place = grid[number, :] if _is_row(figure) else grid[number, column]
                draw_panel(whole, whole.add_subplot(place), figure)
        out = io.BytesIO()
        # Neither a date nor the program's version: what has not changed shall not differ.
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
        whole.savefig(out, format=kind, dpi=DPI, metadata=metadata, transparent=False)
        return out.getvalue()


def svg_of(figure: Figure, salt: str) -> str:
    """One figure as an `<svg>` element to stand inside a page.

    Args:
        figure: what to draw.
        salt: makes the ids inside it its own, so that several in one page do not mix up their clip paths.

    Raises:
        UsageError: matplotlib is not installed.
    """
    with _quiet_matplotlib(salt) as new_picture:
        whole = new_picture(figsize=(7.5 if _is_wide(figure) else 5.6, _height(figure) + 0.4), layout="constrained")
        draw_panel(whole, whole.add_subplot(), figure, title=False)
        out = io.StringIO()
        whole.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    text = out.getvalue()
    return text[text.index("<svg") :]


def draw_panel(whole: Picture, axes: Axes, figure: Figure, *, title: bool = True) -> None:
    """Draw one figure into one panel."""
    from inspector.drawing import vector_panels

    if title and figure.title:
        axes.set_title(visible(figure.title), fontsize=10)
    vector_panels.draw(whole, axes, figure)


def _rows(plots: Sequence[Figure]) -> list[list[Figure]]:
    """Panels beside each other; a text has a row of its own, or its tokens could not be read."""
    narrow = sum(not _is_row(figure) for figure in plots)
    across = 2 if narrow == 4 else min(narrow, ACROSS)
    rows: list[list[Figure]] = []
    for figure in plots:
        if not rows or _is_row(figure) or _is_row(rows[-1][0]) or len(rows[-1]) == across:
            rows.append([])
        rows[-1].append(figure)
    return rows


def _is_row(figure: Figure) -> bool:
    from inspector.drawing.figures import TokenStrip, TokenTrace

    return isinstance(figure, TokenTrace | TokenStrip)


def _height(figure: Figure) -> float:
    from inspector.drawing.figures import Bars, GroupedBars, Heatmap, TokenStrip

    match figure:
        case Table():
            return max(1.2, 0.26 * (len(figure.rows) + 2))
        case Bars():
            return max(PANEL[1], 0.28 * len(figure.labels) + 1.2)
        case GroupedBars():
            return PANEL[1] + (1.6 if sum(map(len, figure.groups)) > 70 else 0.0)
        case TokenStrip():
            return PANEL[1]
        case Heatmap():
            return max(PANEL[1], 0.34 * len(figure.y_ticks) + 1.2)
    return PANEL[1]


def _is_wide(figure: Figure) -> bool:
    from inspector.drawing.figures import Bands, GroupedBars, TokenStrip, TokenTrace

    return isinstance(figure, Bands | TokenTrace | TokenStrip | GroupedBars | Table)


@contextmanager
def _quiet_matplotlib(salt: str = "dm-inspect") -> Iterator[Callable[..., Any]]:
    """A maker of pictures that needs no screen and reads nobody's settings."""
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Picture
    except ImportError as error:
        raise UsageError(
            "Figures as files are drawn by matplotlib, which is not installed. Install it with "
            "`pip install 'dm-inspect[figures]'`."
        ) from error

    def new_picture(**values: Any) -> Any:
        made = Picture(**values)
        FigureCanvasAgg(made)
        return made

    settings: dict[Any, Any] = {  # keys of matplotlib's own, which it spells as a type of three hundred words
        "svg.hashsalt": salt,
        "svg.fonttype": "path",  # a reader's machine need not have the font, and no text can become markup
        "pdf.fonttype": 42,
        "text.parse_math": False,  # a token may hold dollar signs
        "text.usetex": False,
        "font.family": ["DejaVu Sans"],
        "font.size": 9.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "legend.fontsize": 8.0,
        "axes.formatter.use_mathtext": False,
    }
    import logging
    import warnings

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        warnings.filterwarnings("ignore", message=".*Glyph .* missing from")  # drawn as a box, which is honest
        logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
        yield new_picture
