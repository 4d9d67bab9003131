from __future__ import annotations

from array import array
from collections.abc import Iterator

import pytest
from textual.app import App, ComposeResult
from textual.geometry import Offset, Region
from textual.pilot import Pilot
from textual.selection import SELECT_ALL

from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.drawing.tokens import SaeColumns, TokenDocument
from inspector.tui.widgets import token_pane
from inspector.tui.widgets.token_lines import Legend
from inspector.tui.widgets.token_pane import TokenPane
from tests.drawing.documents import columns, document, floats, mode_named


class Bare(App[None]):
    CSS = "TokenPane { height: 1fr; padding: 0; }\nLegend { padding: 0; }"
    ENABLE_COMMAND_PALETTE = False

    def __init__(self) -> None:
        super().__init__()
        self.moved: list[int] = []
        self.edges: list[int] = []

    def compose(self) -> ComposeResult:
        yield TokenPane()
        yield Legend()

    def on_mount(self) -> None:
        self.query_one(TokenPane).focus()

    def on_token_pane_cursor_moved(self, event: TokenPane.CursorMoved) -> None:
        self.moved.append(event.position)

    def on_token_pane_edge_reached(self, event: TokenPane.EdgeReached) -> None:
        self.edges.append(event.step)

    def on_token_pane_legend_changed(self, event: TokenPane.LegendChanged) -> None:
        self.query_one(Legend).show(event.legend)


@pytest.fixture(autouse=True)
def colourful(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    yield


def lines(pane: TokenPane) -> list[str]:
    return [pane.render_line(y).text.rstrip() for y in range(pane.size.height)]


def numbered(n: int) -> list[str]:
    """Tokens of exactly five cells: ' 0000', ' 0001', ..."""
    return [f" {index:04d}" for index in range(n)]


async def started(pilot: Pilot[None], doc: TokenDocument | None) -> TokenPane:
    pane = pilot.app.query_one(TokenPane)
    if doc is not None:
        pane.set_document(doc)
    await pilot.pause()
    return pane


def scored(n: int, **kwargs: int) -> TokenDocument:
    return document(numbered(n), linear=[float(i % 9) for i in range(n)], nonlinear=[3.0] * n, **kwargs)


async def test_without_tokens_it_says_so() -> None:
    app = Bare()
    async with app.run_test(size=(30, 6)) as pilot:
        pane = await started(pilot, None)
        assert [line.strip() for line in lines(pane)] == ["", "", "No tokens yet", "", ""]
        pane.set_document(document([]))
        assert [line.strip() for line in lines(pane)] == ["", "", "This document has no tokens", "", ""]
        pane.set_document(document(["a"]))
        assert lines(pane)[0] == "a"


async def test_keys_walk_tokens_lines_and_pages() -> None:
    app = Bare()
    async with app.run_test(size=(31, 6)) as pilot:  # 30 cells: six tokens a line, five lines.
        pane = await started(pilot, scored(100))
        assert lines(pane)[0] == " 0000 0001 0002 0003 0004 0005"
        for key, position in [
            ("right", 1),
            ("down", 7),
            ("l", 8),
            ("j", 14),
            ("left", 13),
            ("h", 12),
            ("up", 6),
            ("k", 0),
            ("pagedown", 30),
            ("pagedown", 60),
            ("pageup", 30),
            ("end", 99),
            ("home", 0),
        ]:
            await pilot.press(key)
            assert pane.cursor == position, key
        assert app.moved == [0, 1, 7, 8, 14, 13, 12, 6, 0, 30, 60, 30, 99, 0]


async def test_up_and_down_keep_their_column_over_a_short_line() -> None:
    app = Bare()
    async with app.run_test(size=(31, 6)) as pilot:
        pane = await started(pilot, document(["aaaa", "bbbb", "\n", "c", "\n", "dddd", "eeee"]))
        await pilot.press("right", "down", "down")
        assert pane.cursor == 6
        await pilot.press("up", "up")
        assert pane.cursor == 1


async def test_walking_past_an_end_is_told_and_moves_nothing() -> None:
    app = Bare()
    async with app.run_test(size=(31, 6)) as pilot:
        pane = await started(pilot, scored(8))
        await pilot.press("left", "up")
        assert (app.edges, pane.cursor) == ([-1, -1], 0)
        await pilot.press("end", "right", "down")
        assert (app.edges, pane.cursor) == ([-1, -1, 1, 1], 7)


async def test_the_cursor_starts_on_the_first_included_token() -> None:
    app = Bare()
    async with app.run_test(size=(31, 6)) as pilot:
        pane = await started(pilot, scored(40, excluded=10))
        assert pane.cursor == 10
        assert app.moved == [10]


async def test_better_scores_of_the_same_tokens_keep_cursor_and_scroll() -> None:
    app = Bare()
    async with app.run_test(size=(31, 6)) as pilot:
        pane = await started(pilot, scored(400, epoch=1))
        pane.move_to(300)
        await pilot.pause()
        top = pane.scroll_offset.y
        assert top > 0
        before = pane.render_line(1)
        pane.set_document(document(numbered(400), linear=[9.0] * 400, nonlinear=[99.0] * 400, epoch=2))
        await pilot.pause()
        assert (pane.cursor, pane.scroll_offset.y) == (300, top)
        assert [segment.style for segment in pane.render_line(1)] != [segment.style for segment in before]
        pane.set_document(scored(401))
        await pilot.pause()
        assert (pane.cursor, pane.scroll_offset.y) == (0, 0)


async def test_a_cursor_step_repaints_two_tokens_and_a_recolouring_builds_only_visible_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = Bare()
    async with app.run_test(size=(31, 6)) as pilot:
        pane = await started(pilot, scored(2000, n_saes=2))
        regions: list[Region] = []
        monkeypatch.setattr(pane, "refresh", lambda *where, **_: regions.extend(where))
        await pilot.press("right")
        assert regions == [Region(0, 0, 5, 1), Region(5, 0, 5, 1)]
        monkeypatch.undo()
        built: list[int] = []
        original = token_pane.line_strip

        def counted(*args: object, **kwargs: object) -> object:
            built.append(1)
            return original(*args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(token_pane, "line_strip", counted)
        pane.set_sae(1, {})
        await pilot.pause()
        assert len(built) == 5
        pane.set_hits([])
        lines(pane)
        assert len(built) <= 10


async def test_scrolling_at_an_edge_jumps_a_third_instead_of_a_line() -> None:
    app = Bare()
    async with app.run_test(size=(31, 10)) as pilot:  # Nine lines.
        pane = await started(pilot, scored(600))
        tops = []
        for _ in range(12):
            await pilot.press("down")
            tops.append(pane.scroll_offset.y)
        assert tops == [0] * 8 + [6] * 4
        assert pane.cursor == 72


async def test_a_click_moves_the_cursor() -> None:
    app = Bare()
    async with app.run_test(size=(31, 6)) as pilot:
        pane = await started(pilot, scored(100))
        await pilot.click(TokenPane, offset=(12, 2))
        assert pane.cursor == 14
        pane.styles.padding = (0, 0, 0, 5)
        await pilot.resize_terminal(36, 6)
        await pilot.pause()
        await pilot.click(TokenPane, offset=(12, 2))  # Seven cells into lines of six tokens.
        assert pane.cursor == 13


async def test_mouse_selection_has_offsets_and_copies_text() -> None:
    app = Bare()
    async with app.run_test(size=(31, 6)) as pilot:
        pane = await started(pilot, document(["a", " 漢", "\n", "b\x1b"]))
        pane.screen.selections = {pane: SELECT_ALL}
        await pilot.pause()
        assert pane.get_selection(SELECT_ALL) == ("a 漢\nb␛", "\n")
        widget, offset = app.screen.get_widget_and_offset_at(1, 1)
        assert (widget, offset) == (pane, Offset(1, 1))


async def test_marks_are_laid_out_and_taken_back() -> None:
    app = Bare()
    async with app.run_test(size=(31, 6)) as pilot:
        pane = await started(pilot, document(["a", " b"], linear=[1.0, 50.0], nonlinear=[0.0, 0.0]))
        pane.set_marks(True)
        assert lines(pane)[0] == "a  b⡇"
        pane.set_marks(False)
        assert lines(pane)[0] == "a b"
        pane.set_palette(build_palette(DEFAULT_ENDPOINTS, "none"))
        assert pane.marks
        assert lines(pane)[0] == "a  b⡇"
        await pilot.pause()


async def test_the_legend_follows_mode_and_marks() -> None:
    app = Bare()
    async with app.run_test(size=(81, 6)) as pilot:
        pane = await started(pilot, scored(100))
        legend = app.query_one(Legend)
        pane.set_mode(mode_named("loss"))
        await pilot.pause()
        shown = legend.render_line(0)
        assert shown.text.startswith("loss ")
        assert shown.text.rstrip().endswith("nats")
        assert shown.cell_length == 81
        pane.set_marks(True)
        await pilot.pause()
        assert "⣿⣿" in legend.render_line(0).text


async def test_a_hundred_thousand_tokens_are_laid_out_in_slices_and_reached_at_once() -> None:
    app = Bare()
    async with app.run_test(size=(31, 6)) as pilot:
        n = 100_000
        doc = document([" 1234"] * n, linear=[1.0] * n, nonlinear=[1.0] * n)
        pane = app.query_one(TokenPane)
        pane.set_document(doc)
        assert pane._wrapped.n_tokens == token_pane.SLICE
        await pilot.press("end")
        assert pane.cursor == n - 1
        await pilot.pause()
        assert pane.virtual_size.height == -(-n // 6)
        assert lines(pane)[1].endswith("1234")


async def test_resizing_wraps_anew_and_keeps_the_cursor_in_view() -> None:
    app = Bare()
    async with app.run_test(size=(31, 6)) as pilot:
        pane = await started(pilot, scored(400))
        pane.move_to(350)
        await pilot.resize_terminal(61, 12)
        await pilot.pause()
        line, _ = pane._wrapped.place_of(350)
        assert line == 350 // 12
        assert pane.scroll_offset.y <= line < pane.scroll_offset.y + pane.size.height
        for size in [(4, 3), (1, 1), (200, 60), (31, 6)]:
            await pilot.resize_terminal(*size)
            await pilot.pause()
        assert pane.cursor == 350


def more(n: int) -> tuple[array[float], array[float], list[SaeColumns]]:
    return floats([1.0] * n), floats([10.0] * n), [columns(n, linear=[1.0] * n, nonlinear=[2.0] * n)]


async def drawn(pilot: Pilot[object], pane: TokenPane) -> None:
    """Wait until what the pane was told has been drawn."""
    while pane._flush_timer is not None:
        await pilot.pause(0.01)
    await pilot.pause()


async def test_a_growing_document_is_followed_in_jumps_and_drawn_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_pane, "FLUSH_SECONDS", 0.01)
    app = Bare()
    async with app.run_test(size=(31, 10)) as pilot:  # Nine lines of six.
        doc = document([], n_saes=1, source="generated")
        pane = await started(pilot, doc)
        tops = []
        for batch in range(16):
            loss, x_norm, saes = more(6)
            start = len(doc)
            tokens = numbered(start + 6)[start:]
            doc.extend(
                start=start, token_ids=[0] * 6, tokens=tokens, split=["h"] * 6, loss=loss, x_norm=x_norm, saes=saes
            )
            pane.document_grew()
            pane.document_grew()
            await drawn(pilot, pane)
            tops.append(pane.scroll_offset.y)
            assert tokens[-1].strip() in "".join(lines(pane)), batch
        assert tops == [0] * 9 + [3] * 3 + [6] * 3 + [9]
        assert app.moved == [0]


async def test_a_reader_who_scrolled_away_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_pane, "FLUSH_SECONDS", 0.01)
    app = Bare()
    async with app.run_test(size=(31, 6)) as pilot:
        doc = document(numbered(120), linear=[1.0] * 120, nonlinear=[1.0] * 120, source="generated")
        pane = await started(pilot, doc)
        loss, x_norm, saes = more(60)
        doc.extend(
            start=120,
            token_ids=[0] * 60,
            tokens=numbered(60),
            split=["h"] * 60,
            loss=loss,
            x_norm=x_norm,
            saes=saes,
        )
        pane.document_grew()
        await drawn(pilot, pane)
        assert pane.scroll_offset.y == 0
        assert pane._wrapped.n_tokens == 180


async def test_no_color_starts_and_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = Bare()
    async with app.run_test(size=(31, 6)) as pilot:
        pane = await started(pilot, scored(100, excluded=3))
        pane.set_palette(build_palette(DEFAULT_ENDPOINTS, "none"))
        await pilot.press("right", "down", "pagedown", "end")
        assert app.export_screenshot()


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (4, 2)])
async def test_hostile_tokens_paint_at_any_size(size: tuple[int, int]) -> None:
    tokens = [
        "\x1b[2J",
        "\u202e",
        "\u0301",
        "\ud800",
        "\n\n\n",
        "\t",
        "",
        "\U0001f469\u200d\U0001f52c",
        "漢" * 90,
        " " * 300,
    ]
    app = Bare()
    async with app.run_test(size=size) as pilot:
        pane = await started(pilot, document(tokens, linear=[1.0] * 10, nonlinear=[1.0] * 10))
        for key in ("end", "up", "home", "down", "pagedown"):
            await pilot.press(key)
        assert all(pane.render_line(y).cell_length == pane.size.width for y in range(pane.size.height))
        assert "\x1b[2J" not in app.export_screenshot()
