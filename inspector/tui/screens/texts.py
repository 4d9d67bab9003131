"""The texts of the user's own: an editor for one of several lines, and the list of all.

The editor is Textual's TextArea. A pasted text is scored as it is; what a terminal would obey is shown by a symbol
meanwhile, and so is what TextArea would take for the end of a line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import TextArea

from inspector.drawing.safe_text import visible
from inspector.tui.lines import Line, left
from inspector.tui.widgets.bars import FooterPane, TitleBar
from inspector.tui.widgets.scrolling import RowList

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text
    from textual import events
    from textual.app import ComposeResult

    from inspector.tui.own_texts import OwnText
    from inspector.tui.screens.stream import StreamScreen

FIRST_STAND_IN = 0xF0000
"""A private plane of Unicode, in which a character stands for one that must not reach the terminal."""
KINDS = {"prompt": "yours", "generated": "generated"}


class PromptArea(TextArea):
    """Lines to type or paste; `whole` is what was meant."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "screen.score", "score", show=False, priority=True, id="prompt.score"),
        Binding("ctrl+j,shift+enter,alt+enter", "new_line", "new line", show=False, id="prompt.new-line"),
    ]
    DEFAULT_CSS = """
    PromptArea, PromptArea:focus { border: none; padding: 0 1; background: $surface; }
    """

    def __init__(self, history: Sequence[str]) -> None:
        """An empty one.

        Args:
            history: earlier texts, the newest last.
        """
        super().__init__(soft_wrap=True, tab_behavior="indent", compact=True)
        self._history = [*history, ""]
        self._at = len(history)
        self._hidden: list[str] = []

    @property
    def whole(self) -> str:
        """The text with every character that was pasted."""
        return "".join(self._hidden[i] if (i := ord(c) - FIRST_STAND_IN) in range(len(self._hidden)) else c
                       for c in self.text)  # fmt: skip

    def harmless(self, text: str) -> str:
        """With stand-ins for what must not reach the terminal; line ends as terminals paste them become ours."""
        shown: list[str] = []
        for character in text.replace("\r\n", "\n").replace("\r", "\n"):
            if character not in "\n\t" and not character.isprintable():
                if character not in self._hidden:
                    self._hidden.append(character)
                character = chr(FIRST_STAND_IN + self._hidden.index(character))
            shown.append(character)
        return "".join(shown)

    def get_line(self, line_index: int) -> Text:
        """A line with a symbol for every stand-in."""
        line = super().get_line(line_index)
        for index, hidden in enumerate(self._hidden):
            line.plain = line.plain.replace(chr(FIRST_STAND_IN + index), visible(hidden)[:1])
        return line

    def on_paste(self, event: events.Paste) -> None:
        """All of it, whatever is in it."""
        event.stop()
        event.prevent_default()
        start, end = sorted(self.selection)
        self.move_cursor(self.replace(self.harmless(event.text), start, end).end_location)

    def action_new_line(self) -> None:
        """Another line."""
        start, end = sorted(self.selection)
        self.move_cursor(self.replace("\n", start, end).end_location)

    def action_cursor_up(self, select: bool = False) -> None:
        """A line up; from the first one, the text before this one."""
        if select or self.cursor_location[0] > 0 or not self._recall(-1):
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        """A line down; from the last one, the text after this one."""
        if select or self.cursor_location[0] < self.document.line_count - 1 or not self._recall(1):
            super().action_cursor_down(select)

    def _recall(self, step: int) -> bool:
        """Another text of the history, in which this one stays; whether there is one."""
        if not 0 <= self._at + step < len(self._history):
            return False
        self._history[self._at] = self.whole
        self._at += step
        self.text = self.harmless(self._history[self._at])
        self.move_cursor(self.document.end)
        return True


class PromptScreen(ModalScreen[str | None]):
    """Returns the text that is to be scored; None for nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "close", show=False, priority=True, id="prompt.close"),
    ]
    DEFAULT_CSS = """
    PromptScreen { background: transparent; align: left bottom; }
    PromptScreen > TitleBar { width: 100%; }
    PromptScreen > PromptArea { width: 100%; height: 33%; min-height: 6; }
    PromptScreen > FooterPane { width: 100%; }
    """

    def __init__(self, history: Sequence[str]) -> None:
        """An editor.

        Args:
            history: earlier texts, the newest last.
        """
        super().__init__()
        self._history = history

    def compose(self) -> ComposeResult:
        """A title, the editor, its keys."""
        yield TitleBar()
        yield PromptArea(self._history)
        yield FooterPane()

    def on_mount(self) -> None:
        """Ready to type."""
        self.query_one(TitleBar).show([("a text of your own", "")], "", focused=True)
        keys = [("Enter", "score its tokens"), ("ctrl+j", "new line")]
        keys += [("↑ ↓", "earlier texts")] if self._history else []
        self.query_one(FooterPane).show(keys, ("Esc", "close"))
        self.query_one(PromptArea).focus()

    def action_score(self) -> None:
        """Enter."""
        text = self.query_one(PromptArea).whole
        self.dismiss(text if text.strip() else None)

    def action_close(self) -> None:
        """Escape."""
        self.dismiss(None)


class TextsScreen(ModalScreen["tuple[OwnText | None, bool] | None"]):
    """Returns a text, None for the contexts, and whether it is to be forgotten; None to stay."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,P", "close", "close", show=False, id="texts.close"),
        Binding("delete,x", "forget", "forget", show=False, id="texts.forget"),
    ]
    DEFAULT_CSS = """
    TextsScreen { align: center middle; background: transparent; }
    TextsScreen > * { width: 84; max-width: 100%; }
    TextsScreen > RowList { max-height: 60%; min-height: 6; }
    TextsScreen > FooterPane { dock: none; }
    """

    def __init__(self, texts: Sequence[OwnText], contexts: str, lengths: Sequence[int | None], cursor: int) -> None:
        """A list.

        Args:
            texts: of the user's own.
            contexts: what the first entry says of the contexts.
            lengths: tokens of each text; None: not known.
            cursor: which entry is on the screen: 0 the contexts.
        """
        super().__init__()
        self._texts, self._contexts, self._lengths, self._cursor = texts, contexts, lengths, cursor

    def compose(self) -> ComposeResult:
        """A title, the entries, the keys."""
        yield TitleBar()
        yield RowList()
        yield FooterPane()

    def on_mount(self) -> None:
        """Draw them."""
        self.query_one(TitleBar).show("texts", focused=True)
        rows = self.query_one(RowList)
        rows.styles.height = len(self._texts) + 2
        rows.show(len(self._texts) + 1, self._row, cursor=self._cursor)
        rows.focus()
        self.query_one(FooterPane).show([("Enter", "show"), ("x", "forget")], ("Esc", "close"))

    def _row(self, row: int, width: int) -> Line:
        if not row:
            return [(left("contexts", 11), "strong"), (self._contexts, "")]
        text, length = self._texts[row - 1], self._lengths[row - 1]
        told = "" if length is None else f"{length:,} tokens"
        return [(left(KINDS[text.source], 11), "accent"), (left(text.name, width - 25), ""), (f"{told:>14}", "muted")]

    def on_row_list_chosen(self, message: RowList.Chosen) -> None:
        """Enter, or a click on the cursor."""
        message.stop()
        self.dismiss((self._texts[message.row - 1] if message.row else None, False))

    def action_forget(self) -> None:
        """This one goes."""
        row = self.query_one(RowList).cursor
        if row:
            self.dismiss((self._texts[row - 1], True))

    def action_close(self) -> None:
        """Nothing was chosen."""
        self.dismiss(None)


def write(stream: StreamScreen) -> None:
    """Open the editor, and score what was written in it."""

    async def written(text: str | None) -> None:
        if text is not None:
            stream.state.analyse(text)
            await stream.settle()

    stream.app.push_screen(PromptScreen(stream.state.own.history()), written)


def choose(stream: StreamScreen) -> None:
    """List the contexts and the texts of the user's own, and show the one that is chosen."""
    state, ready = stream.state, stream.session.ready
    if ready is None:
        return

    async def chosen(answer: tuple[OwnText | None, bool] | None) -> None:
        if answer is None:
            return
        text, forget = answer
        if text is None:
            state.to_contexts()
        elif forget:
            state.drop_text(text.source, text.number)
        else:
            state.go(text.source, text.number, "first")
        await stream.settle()
        if forget:
            choose(stream)

    found = [state.texts.get(each.source, each.number) for each in state.own.all]
    lengths = [None if text is None else len(text) for text in found]
    now = state.own.find(state.place.source, state.place.context)
    at = 0 if now is None else state.own.all.index(now) + 1
    contexts = f"{ready.n_contexts:,} of {ready.context_length:,} tokens, from {visible(ready.text)}"
    stream.app.push_screen(TextsScreen(state.own.all, contexts, lengths, at), chosen)
