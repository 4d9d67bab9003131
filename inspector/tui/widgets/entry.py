"""What is typed: one line for a text to find or a latent's number, and a form of short values.

The form has one line per field and a cursor; letters stay keys until a field is opened with Enter. It hears its keys
itself: a binding runs in the app's turn, when keys typed fast behind it have long come, and so does Textual's own way
from one Input to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Static

from inspector.drawing.safe_text import visible
from inspector.tui.lines import Line, cut, left, width_of
from inspector.tui.widgets.line_pane import LinePane

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from textual import events
    from textual.app import ComposeResult

    from inspector.tui.experiment_list import ParamField

Purpose = Literal["find", "latent"]
LABELS: dict[Purpose, tuple[str, str, str]] = {
    "find": (" find ", "text in any context", " Enter finds it · Esc closes "),
    "latent": (" latent ", "its number", " Enter shows it · Esc closes "),
}
"""Name, what to type, and what the keys do."""


class CommandBar(Horizontal):
    """Hidden until it is opened; posts `Entered` or `Closed`."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "close", show=False, id="bar.close")]
    DEFAULT_CSS = """
    CommandBar {
        height: 1; dock: bottom; display: none; background: $surface;
        & > .bar--name { width: auto; background: $accent; color: $background; text-style: bold; }
        & > .bar--keys { width: auto; background: $panel; color: $foreground-muted; }
        & > Input { width: 1fr; height: 1; border: none; padding: 0 1; background: $surface; }
        & > Input:focus { border: none; background-tint: $foreground 0%; }
    }
    """

    @dataclass
    class Entered(Message):
        """Enter was pressed."""

        purpose: Purpose
        text: str

    class Closed(Message):
        """Escape was pressed, or Enter on nothing."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._purpose: Purpose = "find"
        self._texts: dict[Purpose, str] = {"find": "", "latent": ""}

    def compose(self) -> ComposeResult:
        """A label and the input."""
        yield Static("", markup=False, classes="bar--name")
        yield Input(compact=True, select_on_focus=True)
        yield Static("", markup=False, classes="bar--keys")

    def open(self, purpose: Purpose) -> None:
        """Show it, with what was typed the last time."""
        self._purpose = purpose
        label, placeholder, keys = LABELS[purpose]
        self.query_one(".bar--name", Static).update(label)
        self.query_one(".bar--keys", Static).update(keys)
        field = self.query_one(Input)
        field.placeholder = placeholder
        field.value = self._texts[purpose]
        self.display = True
        field.focus()

    def action_close(self) -> None:
        """Hide it."""
        self.display = False
        self.post_message(self.Closed())

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter."""
        event.stop()
        text = event.value
        self._texts[self._purpose] = text
        self.display = False
        if text.strip():
            self.post_message(self.Entered(self._purpose, text))
        else:
            self.post_message(self.Closed())


class FilterLine(Input):
    """Words that narrow a list while they are typed; hidden until it is opened. Enter keeps them, Escape lets them go.

    Posts `Filtered` with every change, and `Left` when the list should have the keys again.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave(False)", "without a filter", show=False),
        Binding("enter,down,up,tab", "leave(True)", "to the list", show=False),
    ]
    DEFAULT_CSS = """
    FilterLine { height: 1; dock: bottom; display: none; border: none; padding: 0 1; background: $surface; }
    FilterLine:focus { border: none; background-tint: $foreground 0%; }
    """

    @dataclass
    class Filtered(Message):
        """Other words."""

        text: str

    class Left(Message):
        """The list has the keys again."""

    def __init__(self) -> None:
        super().__init__(compact=True, placeholder="words to look for · Enter keeps them · Esc shows all")

    def open(self) -> None:
        """Show it."""
        self.display = True
        self.focus()

    def fill(self, text: str) -> None:
        """Narrow the list by this; the list keeps the keys."""
        self.value, self.display = text, bool(text)

    def action_leave(self, keep: bool) -> None:
        """Back to the list."""
        self.fill(self.value if keep else "")
        self.post_message(self.Left())

    def on_input_changed(self, event: Input.Changed) -> None:
        """Narrow the list at once."""
        event.stop()
        self.post_message(self.Filtered(event.value))


LONGEST = 200
"""Characters of a value."""


class Form(LinePane, can_focus=True):
    """Posts `Changed` with another value, `Moved` with the cursor on another field, `Started` on its last line."""

    DEFAULT_CSS = """
    Form { background: $surface; padding: 0 1; }
    """

    class Changed(Message):
        """A value is another."""

    class Moved(Message):
        """The cursor is on another field."""

    class Started(Message):
        """Enter on the last line."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.fields: Sequence[ParamField] = ()
        self.values: dict[str, str] = {}
        """What differs from the defaults, as typed."""
        self.cursor = 0
        self.editing: str | None = None
        """What is typed; None: nothing is being edited."""
        self._untouched = False
        """What is edited is still as it was: what is typed takes its place."""
        self._top = 0

    def show(self, fields: Sequence[ParamField], values: Mapping[str, str]) -> None:
        """Draw these fields."""
        self.fields, self.values = fields, dict(values)
        self.cursor = min(self.cursor, len(fields))
        self.editing = None
        self.rebuild()

    @property
    def field(self) -> ParamField | None:
        """The one under the cursor; None on the last line."""
        return self.fields[self.cursor] if self.cursor < len(self.fields) else None

    def value(self, field: ParamField) -> str:
        """As it stands now."""
        return self.values.get(field.key, field.default)

    # ---- drawing ----------------------------------------------------------------------------------------------------

    def build(self, width: int, height: int) -> Sequence[Line]:
        """The fields around the cursor, then the line that starts."""
        lines: list[Line] = [self._line(index, width) for index in range(len(self.fields))]
        lines += [[], self._start_line(width)]
        at = self.cursor if self.cursor < len(self.fields) else len(lines) - 1
        self._top = min(max(self._top, at - height + 1), at)
        self._top = max(0, min(self._top, len(lines) - height))
        return lines[self._top : self._top + height]

    def _line(self, index: int, width: int) -> Line:
        field = self.fields[index]
        here = index == self.cursor
        name = max((len(each.key) for each in self.fields), default=8) + 2
        room = 24 if width >= 90 else 18
        value, changed = self.value(field), self.value(field) != field.default
        if here and self.editing is not None:
            shown = visible(self.editing[-(room - 3) :])
            cell: Line = [("  ", ""), (shown, "strong reverse")] if self._untouched else [(" ", ""), (shown, "strong")]
            cell.append(("▏", "accent"))
        elif field.choices:
            look = "accent" if changed else "strong" if here else ""
            cell = [("‹ ", "muted"), (value, look), (" ›", "muted")]
        else:
            look = "error" if field.refused(value) else "accent" if changed else "strong" if here else ""
            cell = [("  ", ""), (visible(cut(value, room - 3)) or "—", look)]
        cell.append((" " * max(1, room - width_of(cell)), ""))
        kind = self._kind(field)
        line: Line = [
            ("▸ " if here else "  ", "marker"),
            (left(field.key, name), "strong" if here else ""),
            *cell,
            (left(kind, 28 if width >= 90 else max(0, min(28, width - name - room - 2))), "muted"),
        ]
        rest = width - width_of(line) - 1
        if rest >= 16:
            line += [(" ", ""), (cut(field.doc, rest), "muted")]
        return line

    @staticmethod
    def _kind(field: ParamField) -> str:
        names = {"int": "whole number", "float": "number", "str": "text", "bool": "", "choice": ""}
        kind = field.range or names.get(field.kind, field.kind)
        default = field.default or "empty"
        return f"{kind}, default {default}" if kind else f"default {default}" if default != "default" else "by profile"

    def _start_line(self, width: int) -> Line:
        here = self.cursor == len(self.fields)
        look = "strong reverse" if here and self.has_focus else "strong"
        return [("▸ " if here else "  ", "marker"), (" start ", look), ("   Enter or s", "muted")]

    # ---- keys -------------------------------------------------------------------------------------------------------

    def action_move(self, step: int) -> None:
        """Another field; what was typed stands."""
        self._commit()
        self.cursor = min(max(self.cursor + step, 0), len(self.fields))
        self.rebuild()
        self.post_message(self.Moved())

    def action_choose(self, step: int) -> None:
        """The next choice, round and round."""
        field = self.field
        if field is not None and field.choices:
            at = field.choices.index(self.value(field)) if self.value(field) in field.choices else 0
            self._set(field, field.choices[(at + step) % len(field.choices)])

    def action_open(self) -> None:
        """Edit a text, step a choice, or start."""
        field = self.field
        if field is None:
            self.post_message(self.Started())
        elif field.choices:
            self.action_choose(1)
        else:
            self.editing, self._untouched = self.value(field), True
            self.rebuild()

    def action_clear(self) -> None:
        """The default again."""
        if self.field is not None:
            self._set(self.field, self.field.default)

    def _commit(self) -> None:
        field, typed = self.field, self.editing
        self.editing = None
        if field is not None and typed is not None:
            self._set(field, typed.strip())

    def _set(self, field: ParamField, value: str) -> None:
        before = self.value(field)
        self.values.pop(field.key, None)
        if value != field.default:
            self.values[field.key] = value
        self.rebuild()
        if before != value:
            self.post_message(self.Changed())

    def on_key(self, event: events.Key) -> None:
        """Every key of the form; while a text is edited, all are its."""
        if self._edits(event) or self._moves(event.key):
            event.stop()
            event.prevent_default()

    def _moves(self, key: str) -> bool:
        """Whether the key goes to another field, or changes or opens this one."""
        match key:
            case "down" | "j" | "tab":
                self.action_move(1)
            case "up" | "k" | "shift+tab":
                self.action_move(-1)
            case "home" | "end":
                self.action_move(99 if key == "end" else -99)
            case "left" | "h" | "right" | "l" | "space":
                self.action_choose(-1 if key in ("left", "h") else 1)
            case "enter":
                self.action_open()
            case "backspace" | "delete":
                self.action_clear()
            case _:
                return False
        return True

    def _edits(self, event: events.Key) -> bool:
        """Whether the key is of the text that is edited."""
        field = self.field
        if self.editing is None:
            # A number can be typed without opening the field: no digit is a key here.
            if field is None or field.choices or not (event.character or "").isdigit():
                return False
            self.editing = ""
        untouched, self._untouched = self._untouched, False
        match event.key:
            case "enter":
                self._commit()
            case "tab" | "down":
                self.action_move(1)
            case "up" | "shift+tab":
                self.action_move(-1)
            case "escape":
                self.editing = None
            case "backspace" if not untouched:
                self.editing = self.editing[:-1]
            case "backspace" | "ctrl+u" | "delete":
                self.editing = ""
            case _ if event.character is not None and event.is_printable:
                self.editing = (("" if untouched else self.editing) + event.character)[:LONGEST]
        self.rebuild()
        return True

    def on_paste(self, event: events.Paste) -> None:
        """Into the field that is edited, or the one under the cursor."""
        event.stop()
        if self.field is not None and not self.field.choices:
            text = "".join(character for character in event.text if character.isprintable())
            self.editing = (("" if self._untouched else self.editing or "") + text)[:LONGEST]
            self._untouched = False
            self.rebuild()

    def on_click(self, event: events.Click) -> None:
        """A click puts the cursor there; on the cursor it opens."""
        row = self._top + event.y
        target = row if row < len(self.fields) else len(self.fields) if row == len(self.fields) + 1 else None
        if target is None:
            return
        if target == self.cursor:
            self.action_open()
        else:
            self.action_move(target - self.cursor)
