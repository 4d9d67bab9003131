"""Dots on a canvas, exactly."""

from __future__ import annotations

from inspector.drawing.braille import Canvas


def text(canvas: Canvas) -> list[str]:
    return ["".join(character for character, _ in canvas.cells(line)) for line in range(canvas.lines)]


def test_each_of_the_eight_dots_of_a_cell() -> None:
    """The bits of Unicode's Braille Patterns block, dot by dot."""
    expected = {(0, 0): "⠁", (0, 1): "⠂", (0, 2): "⠄", (0, 3): "⡀", (1, 0): "⠈", (1, 1): "⠐", (1, 2): "⠠", (1, 3): "⢀"}
    for (x, y), character in expected.items():
        canvas = Canvas(1, 1)
        canvas.dot(x, y, 0)
        assert text(canvas) == [character]


def test_dots_in_one_cell_add_up_and_the_last_series_names_the_cell() -> None:
    canvas = Canvas(2, 1)
    canvas.dot(0, 0, 3)
    canvas.dot(1, 3, 5)
    assert canvas.cells(0) == [("⢁", 5), (" ", None)]


def test_what_is_outside_is_not_drawn() -> None:
    canvas = Canvas(1, 1)
    for x, y in ((-1, 0), (2, 0), (0, -1), (0, 4)):
        canvas.dot(x, y, 0)
    assert text(canvas) == [" "]


def test_a_path_has_no_gaps_in_either_direction() -> None:
    canvas = Canvas(2, 2)
    canvas.path([(0, 7), (3, 0)], 0)
    dots = {(x, y) for y in range(8) for x in range(4) if ord(canvas.cells(y // 4)[x // 2][0]) - 0x2800 & _bit(x, y)}
    assert {y for _, y in dots} == set(range(8))
    assert {x for x, _ in dots} == set(range(4))


def _bit(x: int, y: int) -> int:
    return ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))[y % 4][x % 2]


def test_marks_stand_alone_and_are_as_wide_as_asked() -> None:
    drawn = []
    for width in (1, 2):
        canvas = Canvas(3, 1)
        canvas.marks([(0, 3), None, (4, 0)], 0, width)
        drawn.append(text(canvas)[0])
    assert drawn == ["⡀ ⠁", "⣀ ⠉"]


def test_none_is_a_gap() -> None:
    canvas = Canvas(3, 1)
    canvas.path([(0, 0), (1, 0), None, (4, 0), (5, 0)], 0)
    assert text(canvas) == ["⠉ ⠉"]
