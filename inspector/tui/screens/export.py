"""Asks for a format and a folder, and writes the chosen results there: by the commands that do the same from a shell.

Each runs in a process of its own, so the screen stays free of matplotlib, pyarrow and numpy and never waits, and what
it writes is what a script gets.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static
from textual.worker import Worker

from inspector.disk.folders import child_environment
from inspector.drawing.safe_text import visible
from inspector.tui.lines import Line, left
from inspector.tui.screens.base import end_if_broken, leave_saying
from inspector.tui.widgets.scrolling import RowList

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from inspector.store.results import Record

FORMATS: tuple[tuple[str, str], ...] = (
    ("csv", "a row per SAE, every number as it was measured"),
    ("parquet", "the same table, typed, with the whole result inside"),
    ("json", "the result as `run --json` printed it"),
    ("svg", "the figures, as vectors"),
    ("pdf", "the figures, for a paper"),
    ("png", "the figures, as pixels"),
    ("html", "one page of all that are chosen, with the claims"),
)
"""(format, what it is)."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """One command and the file that it writes."""

    arguments: tuple[str, ...]
    """After `dm-inspect`."""
    path: Path

    @property
    def command(self) -> str:
        """As a shell takes it."""
        return shlex.join(("dm-inspect", *self.arguments))


def exports(ids: Sequence[str], kind: str, folder: Path) -> list[Export]:
    """The commands that write these results: a file each, but one page of all.

    Args:
        ids: of stored results.
        kind: one of FORMATS.
        folder: where.
    """
    if kind == "html":
        name = f"{ids[0]}.html" if len(ids) == 1 else "report.html"
        return [Export(arguments=("results", "report", *ids, "--out", str(folder / name)), path=folder / name)]
    made = []
    for each in ids:
        path = folder / f"{each}.{kind}"
        made.append(Export(arguments=("results", "export", each, "--format", kind, "--out", str(path)), path=path))
    return made


async def run_export(export: Export) -> str:
    """Run one; '' when the file is there, else why not, in the command's own words."""
    # -P: a module of the user's in the current folder must not take the place of one of ours.
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "inspector", *export.arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            env=child_environment(),
        )  # fmt: skip
    except OSError as error:
        return f"No process could be started: {error.strerror}. Free some memory and try again."
    try:
        _, said = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode == 0:
        return ""
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"The command ended with {process.returncode}. Run it in a shell to see why."


PICTURES = ("svg", "pdf", "png", "html")
"""Formats that matplotlib draws, which is an extra of the package."""
INSTALL = "pip install 'dm-inspect[figures]'"


@cache
def cannot(kind: str) -> str:
    """The command that brings what a format needs; '' if it is there."""
    return INSTALL if kind in PICTURES and util.find_spec("matplotlib") is None else ""


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
        &.-low > Vertical { padding: 0 2; }
        &.-low RowList, &.-low #export-command, &.-low #export-keys { margin: 0; }
    }
    """

    VERTICAL_BREAKPOINTS = [(0, "-low"), (20, "-high")]  # noqa: RUF012 - Textual declares it so

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
            yield Input(_last.get("folder", str(Path.cwd())), compact=True, id="export-folder")
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
        install = cannot(self.kind)
        told = f"{self.kind} is drawn by matplotlib, which is not installed:\n{install}" if install else ""
        self.query_one("#export-command", Static).update(told or visible(planned[0].command) + more)

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
        commands = cannot(self.kind) or "\n".join(export.command for export in self.planned)
        self.app.copy_to_clipboard(commands)
        self.notify(f"Copied {len(self.planned)} command{'s' if len(self.planned) > 1 else ''}.", markup=False)

    def _write(self) -> None:
        if self.writing or cannot(self.kind):
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
        leave_saying(self, f"Wrote {visible(str(written))}")

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """A worker that broke is a bug."""
        end_if_broken(event)


def _format_line(number: int, width: int) -> Line:
    kind, what = FORMATS[number]
    if cannot(kind):
        return [(left(kind, 10), "muted"), ("needs matplotlib; y copies the command that installs it", "warning")]
    return [(left(kind, 10), "strong"), (what, "muted")]
