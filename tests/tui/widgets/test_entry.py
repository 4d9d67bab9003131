"""The form and the pane of lines on their own: what they draw and what keys do to them."""

from __future__ import annotations

from textual.app import App, ComposeResult

from inspector.tui.experiment_list import ParamField
from inspector.tui.lines import Line, text_of, width_of
from inspector.tui.widgets.entry import Form
from inspector.tui.widgets.scrolling import LinesView

FIELDS = [
    ParamField(key="tokens", kind="int", default="0", doc="How many."),
    ParamField(key="variant", kind="str", default="", doc="Which one."),
    ParamField(key="null", kind="choice", default="none", doc="A control.", choices=("none", "shuffle")),
]


class Page(App[None]):
    """Both panes in an app of their own, with the variables of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def get_theme_variable_defaults(self) -> dict[str, str]:
        from inspector.tui.themes import DEFAULTS

        return {"foreground-muted": "#888888", **DEFAULTS}

    def compose(self) -> ComposeResult:
        yield Form(id="form")
        yield LinesView(id="lines")

    def on_form_changed(self) -> None:
        self.told.append("changed")

    def on_form_started(self) -> None:
        self.told.append("started")


async def test_values_are_typed_stepped_and_put_back() -> None:
    async with Page().run_test(size=(100, 20)) as pilot:
        app = pilot.app
        assert isinstance(app, Page)
        form = app.query_one(Form)
        form.show(FIELDS, {})
        form.focus()
        await pilot.press("4", "2", "enter")
        assert form.values == {"tokens": "42"}
        await pilot.press("down", "enter", "a", "space", "j", "backspace", "tab")
        assert form.values == {"tokens": "42", "variant": "a"}
        assert form.field is FIELDS[2]
        await pilot.press("right")
        assert form.values["null"] == "shuffle"
        await pilot.press("left", "left")
        assert form.values["null"] == "shuffle", "round and round"
        await pilot.press("backspace", "up", "backspace")
        assert form.values == {"tokens": "42"}, "the default is not a value of its own"
        await pilot.press("end", "enter")
        await pilot.pause()
        assert app.told[-1] == "started"
        assert app.told.count("changed") == 7


async def test_every_line_fits_and_the_cursor_is_seen_in_a_low_window() -> None:
    for width in (40, 60, 78, 118):
        async with Page().run_test(size=(width, 8)) as pilot:
            form = pilot.app.query_one(Form)
            form.show(FIELDS, {"variant": "x" * 150})
            form.focus()
            for _ in range(len(FIELDS)):
                await pilot.press("down")
            await pilot.pause()
            lines = [text_of(line) for line in form.lines]
            assert any("▸  start" in line for line in lines), lines
            assert all(width_of(line) <= width for line in form.lines)


def shown(view: LinesView) -> list[str]:
    return [view.render_line(y).text.rstrip() for y in range(view.size.height)]


async def test_lines_scroll_and_a_bar_says_that_there_is_more() -> None:
    def numbered(width: int) -> list[Line]:
        return [[(f"line {number} ".ljust(width, "."), "")] for number in range(30)]

    async with Page().run_test(size=(60, 12)) as pilot:
        view = pilot.app.query_one(LinesView)
        view.show_made(numbered)
        view.focus()
        await pilot.pause()
        height = view.size.height
        assert shown(view)[0].startswith("line 0 ")
        assert view.show_vertical_scrollbar
        await pilot.press("end")
        assert shown(view)[-1].startswith("line 29 ")
        await pilot.press("up", "pageup")
        assert shown(view)[0].startswith(f"line {30 - height - 1 - (height - 1)} ")
        view.show_made(lambda _: [[("all", "")]])
        await pilot.pause()
        assert not view.show_vertical_scrollbar


async def test_a_log_stays_at_its_end_unless_the_reader_went_up() -> None:
    async with Page().run_test(size=(60, 12)) as pilot:
        log = LinesView(follow=True)
        await pilot.app.mount(log)
        log.focus()

        async def lines(count: int) -> None:
            log.show_made(lambda _: [[(f"line {number}", "")] for number in range(count)])
            await pilot.pause()

        await lines(30)
        assert shown(log)[-1] == "line 29"
        await pilot.press("up")
        top = shown(log)[0]
        await lines(40)
        assert shown(log)[0] == top
        await pilot.press("end")
        await lines(50)
        assert shown(log)[-1] == "line 49"
