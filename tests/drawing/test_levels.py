"""Levels of size and share: edges that are round, and the legend that says them, to the cell."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.drawing.levels import LegendData, LevelScale, legend_runs, relative_scale, scale_of
from inspector.drawing.palette import Depth
from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.drawing.tokens import LINEAR, LOSS, MEASURES, MODES, NONLINEAR, SHARE, Measure, TokenDocument, TokenMode
from tests.drawing.documents import NAN, document, mode_named

SIZES = st.lists(st.floats(0, 1e6, allow_subnormal=False), max_size=60)
SHARES = st.lists(st.floats(0, 1), max_size=60)


@given(SIZES, st.integers(2, 9))
def test_edges_ascend_from_above_zero_in_equal_steps(values: list[float], n_levels: int) -> None:
    edges = relative_scale(values, n_levels).edges
    assert len(edges) == n_levels - 1
    assert edges[0] > 0
    steps = [after - before for before, after in pairwise(edges)]
    # 1e-6: edges are rounded to ten digits.
    assert all(step > 0 and step == pytest.approx(steps[0], rel=1e-6) for step in steps)


@given(SHARES, st.integers(2, 9))
def test_edges_of_a_share_stay_inside_it(values: list[float], n_levels: int) -> None:
    edges = relative_scale(values, n_levels, 1.0).edges
    assert len(edges) == n_levels - 1
    assert edges[0] > 0 and edges[-1] < 1
    assert all(after > before for before, after in pairwise(edges))


def test_known_edges() -> None:
    values = [float(value) for value in range(101)]
    assert relative_scale(values, 8).edges == (24, 36, 48, 60, 72, 84, 96)
    assert relative_scale([value / 100 for value in values], 5, 1.0).labels(percent=True) == (
        "20",
        "40",
        "60",
        "80",
    )


def test_the_bulk_uses_all_levels_and_outliers_do_not_stretch_them() -> None:
    values = [50.0 + index % 50 for index in range(1000)]
    scale = relative_scale([*values, 1e9, 2e9], 8)
    levels = [scale.level(value) for value in values]
    assert set(levels) == set(range(8))
    assert scale.edges[-1] < 110
    assert scale.level(1e9) == 7


def test_level_of_an_edge_is_the_upper_one_and_nan_has_none() -> None:
    scale = LevelScale(edges=(1.0, 2.0))
    assert [scale.level(value) for value in (0.0, 0.99, 1.0, 1.5, 2.0, 9.0)] == [0, 0, 1, 1, 2, 2]
    assert scale.level(NAN) is None
    assert scale.level(float("inf")) == 2


@pytest.mark.parametrize(
    ("edges", "percent", "labels"),
    [
        ((10.0, 12.5, 15.0), False, ("10.0", "12.5", "15.0")),
        ((60.0, 72.0), False, ("60", "72")),
        ((0.2, 0.4), True, ("20", "40")),
        ((0.425, 0.45), True, ("42.5", "45.0")),
        ((1e-7, 2e-7), False, ("1e-07", "2e-07")),
    ],
)
def test_labels_share_their_decimals(edges: tuple[float, ...], percent: bool, labels: tuple[str, ...]) -> None:
    assert LevelScale(edges=edges).labels(percent=percent) == labels


def edges(measure: Measure, of: TokenDocument | None = None, relative: bool = False, n: int = 8) -> tuple[float, ...]:
    return scale_of(measure, n, {"linear": (20.0, 80.0)}, of, 0, relative=relative)[0].edges


def test_excluded_tokens_do_not_count() -> None:
    tokens = ["a"] * 100
    norms = [1e6] * 50 + [10.0 + index for index in range(50)]
    without = document(tokens, linear=norms, nonlinear=[0.0] * 100, excluded=50)
    assert edges(LINEAR, without, relative=True)[-1] < 65
    assert edges(LINEAR, document(tokens, linear=norms, nonlinear=[0.0] * 100), relative=True)[-1] > 1e5


def test_what_is_measured_on_the_whole_text_is_the_same_in_every_context() -> None:
    small, large = (document(["a"] * 64, linear=[norm] * 64, nonlinear=[1.0] * 64) for norm in (3.0, 900.0))
    for measure in (LINEAR, SHARE, LOSS):
        assert edges(measure, small) == edges(measure, large) == edges(measure)
    assert edges(LINEAR)[0] == pytest.approx(20, rel=0.2) and edges(LINEAR)[-1] == pytest.approx(80, rel=0.2)
    assert edges(LINEAR, small, relative=True) != edges(LINEAR, large, relative=True)


@pytest.mark.parametrize("n", range(2, 8))
def test_the_scale_of_a_share_is_centred_on_a_half_and_never_moves(n: int) -> None:
    found = edges(SHARE, document(["a"] * 64, linear=[9.0] * 64, nonlinear=[1.0] * 64), n=n)
    assert [round(1 - edge, 10) for edge in reversed(found)] == list(found)
    if n == 5:
        assert found == (0.2, 0.4, 0.6, 0.8)


@pytest.mark.parametrize("depth", ["truecolor", "256", "16", "none"])
@pytest.mark.parametrize("mode", ["mixed", "share"])
def test_a_token_that_is_53_percent_nonlinear_is_not_painted_linear(depth: Depth, mode: str) -> None:
    palette, chosen = build_palette(DEFAULT_ENDPOINTS, depth), mode_named(mode)
    n = palette.n_shares if chosen.size else len(palette.shares)
    scale, relative = scale_of(SHARE, n, {}, None, 0, relative=False)
    level = scale.level(0.53)
    assert level is not None and level >= (n - 1) / 2 and not relative
    assert palette.mark(chosen, palette.n_sizes - 1 if chosen.size else None, level) not in "⡀⡄⡆⡇"


def test_where_nothing_was_measured_the_scale_is_the_contexts_own_and_says_so() -> None:
    shown = document(["a"] * 64, linear=[10.0] * 64, nonlinear=[2.0] * 64)
    assert scale_of(NONLINEAR, 8, {}, shown, 0, relative=False) == (relative_scale([2.0] * 64, 8), True)
    assert scale_of(NONLINEAR, 8, {"nonlinear": (1.0, 5.0)}, shown, 0, relative=False)[1] is False
    said = text(replace(legend(mode_named("nonlinear")), relative=True), 120)
    assert said.startswith("relative to this context  nonlinear error norm  ")
    assert "context" not in text(legend(mode_named("nonlinear")), 120)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.id)
def test_without_tokens_or_saes_or_a_map_there_is_still_a_scale(measure: Measure) -> None:
    for of in (document([]), document(["a"] * 8, n_saes=0), document(["a"] * 8, excluded=8), None):
        assert edges(measure, of, relative=True) == relative_scale([], 8, measure.upper_limit).edges
    assert len(edges(measure, document(["a"] * 8, epoch=0), relative=True)) == 7


DEPTHS: tuple[Depth, ...] = ("truecolor", "256", "16", "none")


def legend(mode: TokenMode, depth: Depth = "truecolor", marks: bool = False) -> LegendData:
    palette = build_palette(DEFAULT_ENDPOINTS, depth)
    n_shares = len(palette.shares) if mode.size is None else palette.n_shares
    return LegendData(
        mode=mode,
        palette=palette,
        size_scale=relative_scale([1000.0 + index for index in range(900)], palette.n_sizes) if mode.size else None,
        share_scale=relative_scale([], n_shares, 1.0) if mode.share else None,
        marks=marks,
    )


def text(data: LegendData, width: int) -> str:
    return "".join(part for part, _ in legend_runs(data, width))


def test_share_with_marks_reads_as_in_the_sketch() -> None:
    assert text(legend(mode_named("share"), marks=True), 80) == (
        "share of nonlinear error  ⡇⡇ 20 ⡄⡄ 40 ⣀⣀ 60 ⢠⢠ 80 ⢸⢸ %"
    )


def test_total_fits_eighty_columns_with_all_its_edges() -> None:
    data = legend(mode_named("total"), marks=True)
    assert text(data, 80) == "SAE error norm     1200 ⣀⣀ 1320 ⣀⣀ 1440 ⣤⣤ 1560 ⣤⣤ 1680 ⣶⣶ 1800 ⣶⣶ 1920 ⣿⣿"
    assert text(data, 70) == "SAE error norm    1200⣀⣀1320⣀⣀1440⣤⣤1560⣤⣤1680⣶⣶1800⣶⣶1920⣿⣿"


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
