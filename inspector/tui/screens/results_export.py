"""Asks for a format and a folder, and writes the chosen results there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static
from textual.worker import Worker, WorkerState

from inspector.drawing.safe_text import visible
from inspector.tui.exporting import FORMATS, Export, exports, run_export
from inspector.tui.lines import Line, left
from inspector.tui.widgets.row_list import RowList

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from inspector.store.results import Record

_last: dict[str, str] = {}
"""Folder and format of the last export of this run of the program: most people write several files to one place."""


class ExportScreen(ModalScreen[None]):
    """Formats, a folder, the command; Enter writes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "close", show=False, id="export.close"),
        Binding("tab,shift+tab", "other", "format or folder", show=False, id="export.other"),
        Binding("y", "copy", "copy the command", show=False, id="export.copy"),
    ]
    DEFAULT_CSS = """
    ExportScreen {
        align: center middle; background: $background;
        & > Vertical { width: 92; max-width: 100%; height: auto; max-height: 100%; padding: 1 2; background: $surface;
            overflow-y: auto; }
        & RowList { height: 7; margin: 1 0; }
        & Input { width: 1fr; height: 1; border: none; padding: 0; background: $panel; }
        & Input:focus { border: none; background-tint: $foreground 0%; }
        & #export-command { margin: 1 0 0 0; color: $foreground-muted; }
        & #export-keys { margin: 1 0 0 0; color: $foreground-muted; }
    }
    """

    def __init__(self, records: Sequence[Record]) -> None:
        super().__init__()
        self._ids = [record.id for record in records]
        self.writing = False
        """While commands run."""

    def compose(self) -> ComposeResult:
        """Four things, from top to bottom."""
        what = self._ids[0] if len(self._ids) == 1 else f"{len(self._ids)} results"
        with Vertical():
            yield Static(f"Export {what}", markup=False, classes="export--title")
            yield RowList(id="export-formats")
            yield Static("into the folder", markup=False)
            folder = Input(_last.get("folder", str(Path.cwd())), compact=True, id="export-folder")
            folder.cursor_blink = False  # A blink is 2.6 kB each second over a line that may be slow.
            yield folder
            yield Static("", markup=False, id="export-command")
            yield Static("↑↓ format · Tab folder · Enter writes · y copies the command · Esc closes", markup=False,
                         id="export-keys")  # fmt: skip

    def on_mount(self) -> None:
        """The format of the last time first."""
        kinds = [kind for kind, _ in FORMATS]
        known = _last.get("kind", kinds[0])
        rows = self.query_one(RowList)
        rows.show(len(FORMATS), _format_line, cursor=kinds.index(known))
        rows.focus()
        self._show_command()

    @property
    def kind(self) -> str:
        """The format under the cursor."""
        return FORMATS[self.query_one(RowList).cursor][0]

    @property
    def planned(self) -> list[Export]:
        """The commands that Enter runs."""
        folder = Path(self.query_one(Input).value.strip() or ".").expanduser().absolute()
        return exports(self._ids, self.kind, folder)

    def _show_command(self) -> None:
        planned = self.planned
        more = f"\nand {len(planned) - 1} more" if len(planned) > 1 else ""
        self.query_one("#export-command", Static).update(visible(planned[0].command) + more)

    def on_row_list_moved(self, message: RowList.Moved) -> None:
        """Another format."""
        message.stop()
        self._show_command()

    def on_row_list_chosen(self, message: RowList.Chosen) -> None:
        """Enter on a format."""
        message.stop()
        self._write()

    def on_input_changed(self, message: Input.Changed) -> None:
        """Another folder."""
        message.stop()
        self._show_command()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """Enter in the folder."""
        message.stop()
        self._write()

    def action_other(self) -> None:
        """To the folder, or back to the formats."""
        rows = self.query_one(RowList)
        (self.query_one(Input) if rows.has_focus else rows).focus()

    def action_copy(self) -> None:
        """The commands, for a shell."""
        commands = "\n".join(export.command for export in self.planned)
        self.app.copy_to_clipboard(commands)
        self.notify(f"Copied:\n{visible(commands, newline=' ')}", markup=False)

    def _write(self) -> None:
        if self.writing:
            return
        planned = self.planned
        folder = planned[0].path.parent
        _last.update(folder=str(folder), kind=self.kind)
        self.writing = True
        self.query_one("#export-keys", Static).update(f"writing {len(planned)} … Esc stops")
        self.run_worker(self._run(planned), name="export", group="export", exclusive=True, exit_on_error=False)

    async def _run(self, planned: Sequence[Export]) -> None:
        """One command after the other: each imports what it draws with, and two at once would only wait."""
        for export in planned:
            problem = await run_export(export)
            if problem:
                self.writing = False
                self.query_one("#export-keys", Static).update(visible(problem))
                return
        written = planned[0].path if len(planned) == 1 else f"{len(planned)} files in {planned[0].path.parent}"
        self.app.notify(f"Wrote {visible(str(written))}", markup=False)
        self.dismiss()

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """A worker that broke is a bug: it ends the program as any other would, with one line and a log."""
        error = event.worker.error
        if event.state == WorkerState.ERROR and isinstance(error, Exception):
            self.app._handle_exception(error)


def _format_line(number: int, width: int) -> Line:
    kind, what = FORMATS[number]
    return [(left(kind, 10), "strong"), (what, "muted")]
