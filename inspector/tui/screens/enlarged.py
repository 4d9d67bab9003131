"""The Stream's plot on the whole screen: a plot per width under each other, or all in one, with a cursor of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.screen import Screen

from inspector.drawing.tokens import next_mode
from inspector.tui.widgets.bars import FooterPane
from inspector.tui.widgets.trace import TraceData, TracePane

if TYPE_CHECKING:
    from textual.app import ComposeResult

HINTS = (("←→", "token"), ("m", "mode"), ("+ -", "zoom"), ("s", "one plot or several"), ("Enter", "go to token"))


class EnlargedTrace(Screen[int | None]):
    """Returns the position to go to; None to stay."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,z,q", "leave", "back", show=False, id="enlarged.back"),
        Binding("enter", "take", "go to token", show=False, id="enlarged.take"),
        Binding("left,h", "step(-1)", "previous token", show=False, id="enlarged.previous"),
        Binding("right,l", "step(1)", "next token", show=False, id="enlarged.next"),
        Binding("m", "mode(1)", "next mode", show=False, id="enlarged.mode"),
        Binding("M", "mode(-1)", "previous mode", show=False, id="enlarged.mode-back"),
        Binding("+", "zoom(-1)", "fewer tokens", show=False, id="enlarged.zoom-in"),
        Binding("-", "zoom(1)", "more tokens", show=False, id="enlarged.zoom-out"),
        Binding("s", "apart", "one plot or several", show=False, id="enlarged.apart"),
    ]

    def __init__(self, data: TraceData) -> None:
        super().__init__()
        self._data = data

    def compose(self) -> ComposeResult:
        """The plot and its keys."""
        yield TracePane(id="enlarged-trace")
        yield FooterPane(id="enlarged-footer")

    def on_mount(self) -> None:
        """Draw what the small plot showed."""
        self.query_one(FooterPane).show(HINTS, ("Esc", "back"))
        self.query_one(TracePane).apart = True
        self._show()
        self.query_one(TracePane).focus()

    def _show(self) -> None:
        self.query_one(TracePane).show(self._data)

    def action_step(self, step: int) -> None:
        """Along the text."""
        last = len(self._data.text) - 1
        self._data = replace(self._data, position=min(max(self._data.position + step, 0), last))
        self._show()

    def action_mode(self, step: int) -> None:
        """Another measure."""
        self._data = replace(self._data, mode=next_mode(self._data.mode, step))
        self._show()

    def action_zoom(self, step: int) -> None:
        """More or fewer tokens."""
        self.query_one(TracePane).zoom(step)

    def action_apart(self) -> None:
        """Each width in a plot of its own, or all in one."""
        pane = self.query_one(TracePane)
        pane.apart = not pane.apart
        self._show()

    def on_trace_pane_chosen(self, message: TracePane.Chosen) -> None:
        """A click moves the cursor."""
        self._data = replace(self._data, position=message.position)
        self._show()

    def action_take(self) -> None:
        """Back, with the cursor here."""
        self.dismiss(self._data.position)

    def action_leave(self) -> None:
        """Back to where it was."""
        self.dismiss(None)
