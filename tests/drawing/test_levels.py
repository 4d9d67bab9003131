"""Levels of size and share: edges that are round, and the legend that says them, to the cell."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.drawing.levels import LegendData, LevelScale, ScaleBook, legend_runs, nice_scale
from inspector.drawing.palette import Depth
from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.drawing.tokens import LINEAR, LOSS, MODES, SHARE, TOTAL, TokenMode
from tests.drawing.documents import NAN, document, mode_named

SIZES = st.lists(st.floats(0, 1e6, allow_subnormal=False), max_size=60)
SHARES = st.lists(st.floats(0, 1), max_size=60)


@given(SIZES, st.integers(2, 9))
def test_edges_ascend_from_above_zero_in_equal_steps(values: list[float], n_levels: int) -> None:
    edges = nice_scale(values, n_levels).edges
    assert len(edges) == n_levels - 1
    assert edges[0] > 0
    steps = [after - before for before, after in pairwise(edges)]
    # 1e-6: edges are rounded to ten digits.
    assert all(step > 0 and step == pytest.approx(steps[0], rel=1e-6) for step in steps)


@given(SHARES, st.integers(2, 9))
def test_edges_of_a_share_stay_inside_it(values: list[float], n_levels: int) -> None:
    edges = nice_scale(values, n_levels, upper_limit=1.0).edges
    assert len(edges) == n_levels - 1
    assert edges[0] > 0 and edges[-1] < 1
    assert all(after > before for before, after in pairwise(edges))


def test_known_edges() -> None:
    values = [float(value) for value in range(101)]
    assert nice_scale(values, 8).edges == (24, 36, 48, 60, 72, 84, 96)
    assert nice_scale([value / 100 for value in values], 5, upper_limit=1.0).labels(percent=True) == (
        "20",
        "40",
        "60",
        "80",
    )


def test_the_bulk_uses_all_levels_and_outliers_do_not_stretch_them() -> None:
    values = [50.0 + index % 50 for index in range(1000)]
    scale = nice_scale([*values, 1e9, 2e9], 8)
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


def test_excluded_tokens_do_not_count() -> None:
    tokens = ["a"] * 100
    norms = [1e6] * 50 + [10.0 + index for index in range(50)]
    book, with_them = ScaleBook(), ScaleBook()
    book.observe(document(tokens, linear=norms, nonlinear=[0.0] * 100, excluded=50))
    with_them.observe(document(tokens, linear=norms, nonlinear=[0.0] * 100))
    assert book.scale(LINEAR, 8).edges[-1] < 65
    assert with_them.scale(LINEAR, 8).edges[-1] > 1e5


def test_edges_settle_they_change_only_when_the_documents_have_doubled() -> None:
    book = ScaleBook()
    seen = []
    for index in range(9):
        book.observe(document(["a"] * 64, linear=[10.0 * (index + 1)] * 64, nonlinear=[1.0] * 64, context=index))
        seen.append(book.scale(LINEAR, 8).edges)
    changed = [after != before for before, after in pairwise(seen)]
    assert changed == [True, False, True, False, False, False, True, False]


def test_a_better_map_replaces_what_depends_on_it_and_keeps_the_rest() -> None:
    book = ScaleBook()
    book.observe(document(["a"] * 64, epoch=1, linear=[10.0] * 64, nonlinear=[10.0] * 64))
    loss, before = book.scale(LOSS, 8), book.scale(LINEAR, 8)
    book.observe(document(["a"] * 64, epoch=2, linear=[90.0] * 64, nonlinear=[10.0] * 64))
    assert book.scale(LINEAR, 8).edges[0] > before.edges[-1]
    assert book.scale(LOSS, 8) == loss
    book.observe(document(["a"] * 64, epoch=1, linear=[10.0] * 64, nonlinear=[10.0] * 64, context=7))
    assert book.scale(LINEAR, 8).edges[0] > before.edges[-1]  # Late news of an old map is ignored.


def test_the_same_context_counts_once() -> None:
    once, twice = ScaleBook(), ScaleBook()
    first = document(["a"] * 64, linear=[10.0] * 64, nonlinear=[5.0] * 64)
    other = document(["a"] * 64, linear=[99.0] * 64, nonlinear=[5.0] * 64, context=1)
    for book, documents in ((once, [first, other]), (twice, [first, first, other])):
        for item in documents:
            book.observe(item)
    assert once.scale(LINEAR, 8) == twice.scale(LINEAR, 8)


def test_all_saes_share_one_scale() -> None:
    book = ScaleBook()
    book.observe(document(["a"] * 640, linear=[10.0 + index for index in range(640)], nonlinear=[1.0] * 640, n_saes=3))
    single = ScaleBook()
    single.observe(document(["a"] * 640, linear=[10.0 + index for index in range(640)], nonlinear=[1.0] * 640))
    assert book.scale(TOTAL, 8) == single.scale(TOTAL, 8)


def test_without_a_map_the_scales_of_its_parts_are_the_empty_ones() -> None:
    book = ScaleBook()
    book.observe(document(["a"] * 64, epoch=0))
    assert book.scale(SHARE, 5) == nice_scale([], 5, upper_limit=1.0)
    assert book.scale(TOTAL, 8).edges[0] > 1.5  # All totals are 5: edges around it, not from 0 to 1.


def test_a_document_without_included_tokens_or_saes_teaches_nothing() -> None:
    book = ScaleBook()
    book.observe(document(["a"] * 8, excluded=8))
    book.observe(document(["a"] * 8, n_saes=0))
    book.observe(document([]))
    assert book.scale(TOTAL, 8) == nice_scale([], 8)


def test_the_sample_stays_bounded() -> None:
    book = ScaleBook()
    for index in range(40):
        book.observe(document(["a"] * 64, linear=[1.0] * 64, nonlinear=[1.0] * 64, n_saes=10, context=index))
    assert max(len(sample.values) for sample in book._samples.values()) <= 8192


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
