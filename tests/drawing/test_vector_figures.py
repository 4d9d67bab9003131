"""Pictures as files: every kind of figure, the same bytes twice, no text taken for markup, and a clear word without
matplotlib."""

from __future__ import annotations

import dataclasses
import sys
from xml.etree import ElementTree

import pytest

from inspector.drawing.figures import Axis, Curve, Heatmap, Series
from inspector.drawing.palette_build import paper_colour, parse_hex, to_oklab
from inspector.drawing.vector_figures import picture, svg_of
from inspector.errors import UsageError
from tests.drawing.samples import EMPTY, SAMPLES

SIGNS = {"svg": b"<?xml", "pdf": b"%PDF-", "png": b"\x89PNG"}


@pytest.mark.parametrize("kind", SIGNS)
def test_all_kinds_of_figures_come_out_and_the_same_twice(kind: str) -> None:
    figures = [SAMPLES[name] for name in ("curve", "bands", "grid")]
    first, second = (picture(figures, kind) for _ in range(2))
    assert first.startswith(SIGNS[kind])
    assert first == second


@pytest.mark.parametrize("name", SAMPLES)
def test_every_kind_is_well_formed_and_nothing_in_it_is_active(name: str) -> None:
    text = svg_of(SAMPLES[name], name)
    root = ElementTree.fromstring(text)  # our own output, not somebody's file
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {
        "svg", "g", "defs", "path", "use", "clipPath", "rect", "style", "metadata", "RDF", "Work", "type",
        "date", "format", "creator", "Agent", "title",
    }  # fmt: skip
    assert "alert(1)" not in text.replace("&lt;", "<") or "<script" not in text


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_to_draw_is_a_picture_too(name: str) -> None:
    assert svg_of(EMPTY[name], name).startswith("<svg")


def test_a_grid_of_nothing_but_undefined_numbers_is_a_picture_too() -> None:
    figure = Heatmap(title="t", x=Axis(label="x"), y=Axis(label="y"), value=Axis(label="v"), x_ticks=("a",),
                     y_ticks=("b",), values=((None,),))  # fmt: skip
    assert svg_of(figure, "t").startswith("<svg")
    assert svg_of(dataclasses.replace(figure, values=((0.5,),)), "t").startswith("<svg")


def test_linear_and_nonlinear_error_have_the_hues_that_they_have_on_the_screen() -> None:
    """Whatever their places: with one colour per place, nonlinear error that came first was blue."""
    names = ("nonlinear error", "linear error", "512")
    series = tuple(Series(name=name, x=(1.0, 2.0), y=(1.0, number)) for number, name in enumerate(names, 2))
    text = svg_of(Curve(title="t", x=Axis(label="x"), y=Axis(label="y"), series=series), "hues").lower()
    linear, nonlinear, width = (to_oklab(parse_hex(paper_colour(i, names[i], 3))) for i in (1, 0, 2))
    assert all(paper_colour(i, name, 3) in text for i, name in enumerate(names))
    assert linear[2] < -0.08 and nonlinear[2] > 0.08  # blue and orange: OKLab's b
    assert max(abs(width[2] - linear[2]), abs(width[2] - nonlinear[2])) > 0.08


def test_dollar_signs_are_no_formula() -> None:
    figure = Curve(title="$\\frac{1}$", x=Axis(label="a$"), y=Axis(label="$$"),
                   series=(Series(name="$x^", x=(1.0, 2.0), y=(1.0, 2.0)),))  # fmt: skip
    assert svg_of(figure, "dollars").startswith("<svg")


def test_a_table_alone_is_drawn() -> None:
    assert picture([SAMPLES["table"]], "png").startswith(SIGNS["png"])


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"matplotlib, which is not installed\. .*pip install 'dm-inspect\[figures\]'"):
        picture([SAMPLES["curve"]], "svg")
