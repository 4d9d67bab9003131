"""Tokens that outweigh all others on the screen: their mark, the axis, the walk, and what the side pane says."""

from __future__ import annotations

from array import array
from dataclasses import replace

from inspector.drawing.levels import legend_runs, scale_of
from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.drawing.tokens import MEASURES, SaeColumns, TokenDocument
from inspector.tui.documents import ScoredText, ranking
from inspector.tui.widgets.detail import TokenFacts, norm_lines
from inspector.tui.widgets.token_lines import Colouring
from inspector.tui.widgets.token_pane import TokenPane
from inspector.tui.widgets.trace import TraceData, TracePane, beyond_cells
from tests.drawing.documents import mode_named
from tests.tui.widgets.test_trace import two_widths

HEAVY = 3


def text(letter: str = "o") -> ScoredText:
    """Eight tokens with norms about 10, the fourth with 780."""
    norms = [10.0, 9.0, 11.0, 780.0, 10.0, 8.0, 12.0, 10.0]
    columns = [array("f", [value * share for value in norms]) for share in (1.0, 0.5, 0.4, 0.3)]
    one = SaeColumns(
        l0=columns[0], sae_error_norm=columns[1], linear_error_norm=columns[2], nonlinear_error_norm=columns[3]
    )
    document = TokenDocument(
        source="context",
        epoch=1,
        token_ids=list(range(8)),
        tokens=["a"] * 8,
        split=list("xtt" + letter + "tttt"),
        loss=array("f", [1.0] * 8),
        x_norm=array("f", norms),
        saes=tuple(one for _ in two_widths().saes),
    )
    return ScoredText(document)


def test_axis_and_colours_are_set_by_the_others() -> None:
    measure = next(each for each in MEASURES if each.id == "total")
    assert text().extent([0], measure) == (4.0, 6.0) and text("t").extent([0], measure) == (4.0, 390.0)
    found = [scale_of(measure, 4, {}, of.document, 0, relative=True)[0] for of in (text(), text("t"))]
    highest = [scale.edges[-1] for scale in found]
    assert highest[0] < 10 < highest[1]


def test_the_plot_draws_one_beyond_its_axis_at_the_edge_with_its_value() -> None:
    data = TraceData(text=text(), choice=two_widths(), mode=mode_named("total"), position=2)
    lines = TracePane()._body(data, 60, 5)
    top = "".join(piece for piece, _ in lines[0])
    assert "↑390" in top and not any("390" in piece for line in lines[1:] for piece, _ in line)
    assert "↑" not in "".join(p for p, _ in TracePane()._body(replace(data, text=text("t")), 60, 5)[0])


def test_values_that_would_overlap_are_left_out_smallest_first_and_the_last_goes_to_the_left() -> None:
    cells: list[tuple[str, int | None]] = [(" ", None)] * 12
    shown = "".join(c for c, _ in beyond_cells(cells, [(0, "999", 0), (2, "800", 0), (11, "500", 0)]))
    assert shown == " ↑999  ↑500 "


def test_it_has_a_mark_of_its_own_which_the_legend_names() -> None:
    for depth in ("truecolor", "16", "none"):
        palette = build_palette(DEFAULT_ENDPOINTS, depth)  # type: ignore[arg-type]
        document = text().document
        look = Colouring(
            document=document, sae=0, mode=mode_named("total"), palette=palette, size_scale=None, share_scale=None
        )
        assert look.look(HEAVY) == (palette.outlier, "▲")
        assert palette.outlier not in (palette.excluded, palette.plain, *palette.shares, *palette.ramps["total"])
    view = TokenPane()
    view.document = text().document
    assert "outlier" in "".join(run for run, _ in legend_runs(view.legend, 90))
    view.document = text("t").document
    assert "outlier" not in "".join(run for run, _ in legend_runs(view.legend, 90))


def test_n_passes_over_it_unless_told_otherwise() -> None:
    of, mode = text(), mode_named("total")
    assert HEAVY not in of.ranked(0, mode) and of.ranked(0, mode, outliers=True)[0] == HEAVY
    assert ranking([5.0, 9.0, 1.0], "xot", outliers=True) == [1, 2]


def test_the_side_pane_says_how_many_times_the_median() -> None:
    facts = TokenFacts(text=text(), position=HEAVY, choice=two_widths(), scale=6.0, median_norm=10.0)
    said = ["".join(piece for piece, _ in line) for line in norm_lines(facts, 50)]
    assert "outlier" in said[0] and "78 x the median norm" in said
    assert not any("median" in line for line in map(str, norm_lines(replace(facts, position=1), 50)))
