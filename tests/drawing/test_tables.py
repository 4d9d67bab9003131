"""Tables as exact characters."""

from __future__ import annotations

from inspector.drawing.figures import Column, Table
from inspector.drawing.tables import format_cell, render_table


def test_a_table_cell_by_cell() -> None:
    table = Table(
        title="Errors",
        columns=(
            Column(title="SAE"),
            Column(title="latents"),
            Column(title="R²", digits=2),
            Column(title="size", unit="MB"),
        ),
        rows=(("a/b", 16384, 0.5, 1.25), ("longer", 8, None, -2.0)),
        note="A note.",
    )
    assert render_table(table) == (
        "Errors\n"
        "\n"
        "SAE     latents         R²  size (MB)\n"
        "──────  ───────  ─────────  ─────────\n"
        "a/b      16,384       0.50      1.250\n"
        "longer        8  undefined     -2.000\n"
        "\n"
        "A note.\n"
    )


def test_a_table_without_rows_title_and_note_is_its_header() -> None:
    assert (
        render_table(Table(title="", columns=(Column(title="SAE"), Column(title="L0")), rows=()))
        == "SAE  L0\n───  ──\n"
    )


def test_cells() -> None:
    assert format_cell(None, 3) == "undefined"
    assert format_cell(0.0, 3) == "0.000"
    assert format_cell(4e-14, 3) == "4.0e-14"
    assert format_cell(-0.0004, 3) == "-4.0e-04"
    assert format_cell(1234567, 3) == "1,234,567"
    assert format_cell(1234.5678, 1) == "1,234.6"
    assert format_cell("", 3) == ""


def test_hostile_text_stays_in_its_cell() -> None:
    table = Table(title="", columns=(Column(title="SAE"), Column(title="n")), rows=(("\x1b[31mred\n", 1), ("日本", 2)))
    text = render_table(table)
    assert "\x1b" not in text
    assert text.count("\n") == 4
    assert text.splitlines()[3] == "日本       2"
