from __future__ import annotations

import pytest

from inspector.drawing.legend import LegendData, legend_runs
from inspector.drawing.level_scale import LevelScale, nice_scale
from inspector.drawing.palette import Depth
from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.drawing.token_modes import MODES, TokenMode, mode_named

DEPTHS: tuple[Depth, ...] = ("truecolor", "256", "16", "none")


def legend(mode: TokenMode, depth: Depth = "truecolor", marks: bool = False) -> LegendData:
    palette = build_palette(DEFAULT_ENDPOINTS, depth)
    n_shares = len(palette.shares) if mode.size is None else palette.n_shares
    return LegendData(
        mode=mode,
        palette=palette,
        size_scale=nice_scale([1000.0 + index for index in range(900)], palette.n_sizes) if mode.size else None,
        share_scale=nice_scale([], n_shares, upper_limit=1.0) if mode.share else None,
        marks=marks,
    )


def text(data: LegendData, width: int) -> str:
    return "".join(part for part, _ in legend_runs(data, width))


def test_share_with_marks_reads_as_in_the_sketch() -> None:
    assert text(legend(mode_named("share"), marks=True), 80) == (
        "share of nonlinear error  ▁▁ 20 ▃▃ 40 ▅▅ 60 ▆▆ 80 ██ %"
    )


def test_total_fits_eighty_columns_with_all_its_edges() -> None:
    data = legend(mode_named("total"), marks=True)
    assert text(data, 80) == "SAE error norm  ▁▁ 1200 ▂▂ 1320 ▃▃ 1440 ▄▄ 1560 ▅▅ 1680 ▆▆ 1800 ▇▇ 1920 ██"
    assert text(data, 70) == "SAE error norm  ▁▁1200▂▂1320▃▃1440▄▄1560▅▅1680▆▆1800▇▇1920██"


def test_mixed_shows_size_and_both_hues() -> None:
    shown = text(legend(mode_named("mixed")), 120)
    assert shown.startswith("‖error‖ ")
    assert "│ linear " in shown
    assert shown.endswith(" nonlinear")


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.id)
@pytest.mark.parametrize("marks", [False, True])
def test_every_edge_is_there_in_eighty_columns(mode: TokenMode, depth: Depth, marks: bool) -> None:
    data = legend(mode, depth, marks)
    shown = text(data, 78)
    assert len(shown) <= 78
    for scale, percent in ((data.size_scale, mode.size and mode.size.percent), (data.share_scale, True)):
        if scale is not None:
            assert all(label in shown for label in scale.labels(percent=bool(percent)))


def test_swatches_have_the_styles_of_their_levels() -> None:
    data = legend(mode_named("share"))
    styles = [style for part, style in legend_runs(data, 80) if part.isspace()]
    assert styles == list(data.palette.shares)


@pytest.mark.parametrize("width", [0, 1, 5, 20, 40])
def test_it_is_cut_where_there_is_no_room(width: int) -> None:
    assert len(text(legend(mode_named("mixed")), width)) <= width


def test_no_scale_no_legend() -> None:
    data = legend(mode_named("share"))
    blank = LegendData(mode=data.mode, palette=data.palette, size_scale=None, share_scale=None, marks=False)
    assert legend_runs(blank, 80) == []
    assert LevelScale(edges=(1.0,)).n_levels == 2
