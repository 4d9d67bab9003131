"""Suites: which SAEs there are for this model, what is on disk, what is loaded; choose, open, download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from textual.containers import Horizontal
from textual.message import Message
from textual.worker import get_current_worker

from inspector.drawing.safe_text import visible
from inspector.errors import InspectorError, TargetError
from inspector.sources.built_in import DEMO, SMOLLM2, suite_folder, weights_of
from inspector.spec import TargetSpec, command_words, target_words
from inspector.tui.actions import actions_of, help_rows
from inspector.tui.lines import Line, left, wrapped
from inspector.tui.screens.base import OpenTarget, SideScreen, leave_saying
from inspector.tui.screens.help import PaneHelp
from inspector.tui.suite_list import (
    Fetching,
    Hook,
    Suites,
    fetch_all,
    fetch_commands,
    first_hook,
    l0_text,
    nearest_l0,
    opened,
    read_suites,
    size_text,
    total_text,
    whole,
)
from inspector.tui.widgets.line_pane import LinePane
from inspector.tui.widgets.scrolling import GridPane, RowList

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from inspector.session.protocol import Ready
    from inspector.spec import SaeRef

ACTIONS = actions_of(
    "suites",
    ("choose", "space", "choose", "Choose this SAE, or not any more", "choose"),
    ("row", "w", "row", "Choose every L0 of this width, or none", "width"),
    ("nearest", "n", "nearest", "Choose of each width the L0 nearest to this one's", "nearest L0"),
    ("all", "a", "all", "Choose every SAE of this hook, or none", "all"),
    ("open", "enter o", "open", "Open the chosen SAEs, or the whole hook", "open"),
    ("filter", "/", "filter", "Only the hooks with these words", "filter"),
    ("download", "d", "download", "Download what is chosen and not on disk", "download"),
    ("stop", "x", "stop", "Stop the download; what has arrived is kept"),
    ("copy", "y", "copy", "Copy the command that opens them", "copy command"),
    ("copy-download", "Y", "copy_download", "Copy the commands that download them"),
    ("built-in", "b", "built_in", "Open SmolLM2, or from there the small demo", "built-in model"),
    ("pane", "tab", "pane", "Hooks or SAEs", "pane"),
    ("pane-back", "shift+tab", "pane", "Hooks or SAEs"),
    ("help", "?", "help", "Help for the suites", "help"),
    ("back", "escape q s", "back", "Back to the stream", "back"),
)  # fmt: skip

MOVES = (
    ("↑ ↓ k j", "the next hook; among the SAEs, the width above or below"),
    ("← → h l", "the next L0 of this width"),
    ("PgUp PgDn { }", "a page of hooks"),
)

HELP = PaneHelp(
    title="Suites",
    paragraphs=(
        "Every SAE that is known for the model: the suite's own folder, or what the registry of published SAEs lists, "
        "read without a network. On the left the hooks, layer by layer; on the right the SAEs of one hook, a line per "
        "width, with their nominal L0s.",
        "● is loaded in this session, * is on disk, ■ is chosen. ? is an L0 or width that only the SAE's own "
        "configuration says, and that is not on disk.",
        "Enter opens what is chosen, or with nothing chosen the whole hook. The session stays and keeps its model if "
        "the model is the same and no job and no other view needs what it has loaded; else another session is started, "
        "and the one before goes on for as long as it would without a view. S shows what each holds, and ends it.",
        "d downloads what is chosen and missing into the Hugging Face cache, one file after the other; x stops, and "
        "the next d goes on where it stopped. What is opened is downloaded as well, if it is not there.",
        "b opens SmolLM2-135M, a real model with SAEs that this project trained, and from there the small demo.",
    ),
    keys=help_rows(MOVES, ACTIONS),
)


BAR = 24
"""Columns of a download's bar."""


class SuitesScreen(SideScreen):
    """Hooks on the left, the SAEs of one on the right."""

    ACTIONS = ACTIONS
    HELP_TEXT = HELP
    DEFAULT_CSS = """
    #suites-panes { height: 1fr; }
    #suites-hooks { width: 26; height: 1fr; margin-right: 1; }
    #suites-about { height: 6; padding: 0 1; }
    #suites-grid { height: 1fr; width: 1fr; }
    """

    @dataclass
    class Listed(Message):
        """What there is, or why nothing."""

        suites: Suites | None
        problem: str

    @dataclass
    class Fetched(Message):
        """A download goes on; `problem` is not None when it has ended."""

        told: Fetching | None
        problem: str | None = None

    def __init__(self, target: TargetSpec, ready: Ready | None) -> None:
        """Nothing is read yet.

        Args:
            target: whose model's SAEs.
            ready: what the session has loaded, where the cursor begins; None: nothing yet.
        """
        super().__init__()
        self._target = target
        self._loaded = frozenset(sae.sae_id for sae in ready.saes) if ready is not None else frozenset()
        self._begin = ready.hook_name if ready is not None else ""
        self.suites: Suites | None = None
        self.problem = ""
        """Why there is nothing to show."""
        self.chosen: dict[str, SaeRef] = {}
        """By id, of one hook."""
        self.fetching: Fetching | None = None
        """The download under way."""
        self.fetch_problem = ""

    def compose(self) -> ComposeResult:
        """Two panes, what is under the cursor, the keys."""
        yield from super().compose()
        with Horizontal(id="suites-panes"):
            yield RowList(id="suites-hooks")
            yield GridPane(id="suites-grid")
        yield LinePane(id="suites-about")

    def on_mount(self) -> None:
        """Paint, then read."""
        super().on_mount()
        self.show_all()
        self.rows.focus()
        self.call_after_refresh(self._read)

    def _read(self) -> None:
        self.in_thread("suites", self._list)

    def _list(self) -> None:
        """In a thread."""
        try:
            self.post_message(self.Listed(read_suites(self._target), ""))
        except InspectorError as error:
            self.post_message(self.Listed(None, str(error)))

    def on_suites_screen_listed(self, message: Listed) -> None:
        """Show what there is; what was chosen stays chosen, with what is on disk now."""
        first = self.suites is None
        self.suites, self.problem = message.suites, message.problem
        known = {ref.sae_id: ref for ref in self.suites.refs} if self.suites is not None else {}
        self.chosen = {each: known[each] for each in self.chosen if each in known}
        cursor = None
        if first and self.suites is not None:
            cursor = first_hook(self.suites.hooks, self._begin, self._target)
        self.show_all(cursor)
        if first and self.hook is not None:
            loaded = [ref for ref in self.hook.refs if ref.sae_id in self._loaded]
            if loaded:
                self.grid.go_to(loaded[0])
                self.show_all()

    # ---- what is drawn ----------------------------------------------------------------------------------------------

    @property
    def rows(self) -> RowList:
        """The hooks."""
        return self.query_one(RowList)

    @property
    def grid(self) -> GridPane:
        """The SAEs."""
        return self.query_one(GridPane)

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """Those that have SAEs, and the words of the filter."""
        found = self.suites.hooks if self.suites is not None else ()
        return tuple(hook for hook in found if self.matches(f"layer {hook.layer} {hook.site} {hook.name}"))

    @property
    def hook(self) -> Hook | None:
        """The one under the cursor."""
        return self.hooks[self.rows.cursor] if self.rows.cursor < len(self.hooks) else None

    @property
    def wanted(self) -> list[SaeRef]:
        """What is chosen, else the SAE under the cursor."""
        return list(self.chosen.values()) or ([self.grid.ref] if self.grid.ref is not None else [])

    def show_all(self, cursor: int | None = None) -> None:
        """Every pane."""
        hooks = self.hooks

        def row(number: int, width: int) -> Line:
            hook = hooks[number]
            here = any(ref.sae_id in self._loaded for ref in hook.refs)
            layer = "-" if hook.layer is None else str(hook.layer)
            on_disk = sum(ref.on_disk for ref in hook.refs)
            return [("● " if here else "  ", "good"), (f"{layer:>2} ", "strong"), (left(visible(hook.site), 9), ""),
                    (f"{len(hook.refs):>3}", ""), (f" {on_disk}*" if on_disk else "", "muted")]  # fmt: skip

        reading: Line = [("  reading …", "muted")]
        self.rows.show(len(hooks), row, cursor=cursor, head=lambda _: [("      layer, site, SAEs", "muted")],
                       empty=[[], reading] if self.suites is None and not self.problem else [])  # fmt: skip
        self.query_one("#suites-panes").display = not self.problem
        self.show_grid()

    def show_grid(self) -> None:
        """The SAEs of the hook, and what is under the cursor."""
        self.grid.show(self.hook, self.chosen, self._loaded)
        self.show_about()
        model = visible(self._target.model)
        total = f"{len(self.suites.refs):,} SAEs of {len(self.suites.hooks)} hooks" if self.suites is not None else ""
        self.show_head((f"  suites of {model}", ""), end=total)
        known = self.suites is not None
        keys = (("↑↓←→", "SAE"), "open", "choose", "filter", "nearest", "row", "download", "built-in", "copy", "pane")
        self.show_keys(*(keys if known else ()), last=("?", "help") if known else ("Esc", "back"))

    def show_about(self) -> None:
        """The SAE under the cursor, what is chosen, and a download."""
        lines = self._about()
        self.query_one("#suites-about", LinePane).draw(lambda _width, _height: lines)

    def _about(self) -> list[Line]:
        if self.problem:
            return [
                [("There is nothing to choose from.", "error")],
                *wrapped(visible(self.problem), self.size.width - 2, least=20),
            ]
        ref, hook = self.grid.ref, self.hook
        if ref is None or hook is None:
            return []
        facts = [f"{ref.d_sae:,} latents" if ref.d_sae else "latents ?", f"nominal L0 {l0_text(ref)}",
                 size_text(ref.n_bytes), "on disk" if ref.on_disk else "not on disk"]  # fmt: skip
        facts += ["loaded"] if ref.sae_id in self._loaded else []
        lines: list[Line] = [
            [(visible(ref.sae_id), "strong"), (f"  {visible(ref.release)}", "muted")],
            [(" · ".join(facts), ""), (f"  {visible(hook.name)}", "muted")],
        ]
        if self.chosen:
            lines.append([("■ ", "accent"), (total_text(self.chosen.values()), "")])
        else:
            lines.append([("nothing chosen: Enter opens the whole hook, Space chooses this one", "muted")])
        lines.append(_fetch_line(self.fetching) if self.fetching is not None else [])
        if self.fetch_problem and self.fetching is None:
            lines[-1:] = wrapped(visible(self.fetch_problem), self.size.width - 2, "error", least=20)
        return lines

    # ---- widgets tell -----------------------------------------------------------------------------------------------

    def on_row_list_moved(self, message: RowList.Moved) -> None:
        """Another hook."""
        message.stop()
        self.show_grid()

    def on_row_list_chosen(self, message: RowList.Chosen) -> None:
        """Enter on a hook."""
        message.stop()
        self.action_open()

    def on_grid_pane_moved(self, message: GridPane.Moved) -> None:
        """Another SAE."""
        message.stop()
        self.show_grid()

    def on_grid_pane_chosen(self, message: GridPane.Chosen) -> None:
        """Enter on an SAE."""
        message.stop()
        self.action_open()

    # ---- choosing ---------------------------------------------------------------------------------------------------

    def _toggle(self, refs: Sequence[SaeRef]) -> None:
        """Choose all of these, or, if all are chosen, none of them; SAEs of another hook are let go."""
        if not refs:
            return
        hook = refs[0].hook_name
        self.chosen = {each: ref for each, ref in self.chosen.items() if ref.hook_name == hook}
        if all(ref.sae_id in self.chosen for ref in refs):
            for ref in refs:
                del self.chosen[ref.sae_id]
        else:
            self.chosen |= {ref.sae_id: ref for ref in refs}
        self.show_grid()

    def action_choose(self) -> None:
        """This SAE."""
        if self.grid.ref is not None:
            self._toggle([self.grid.ref])

    def action_row(self) -> None:
        """This width."""
        if self.grid.ref is not None and self.hook is not None:
            self._toggle(next(row.cells for row in self.hook.rows if self.grid.ref in row.cells))

    def action_all(self) -> None:
        """This hook."""
        if self.hook is not None:
            self._toggle(self.hook.refs)

    def action_nearest(self) -> None:
        """Of each width one, as `--l0` picks."""
        ref = self.grid.ref
        if ref is not None and self.hook is not None and ref.nominal_l0 is not None:
            self.chosen = {}
            self._toggle(nearest_l0(self.hook, ref.nominal_l0))

    def action_pane(self) -> None:
        """Hooks or SAEs."""
        (self.grid if self.rows.has_focus else self.rows).focus()

    def action_built_in(self) -> None:
        """The other model that brings SAEs of its own, or what brings its weights."""
        other = SMOLLM2 if self._target.model != SMOLLM2 else DEMO
        try:
            suite_folder(other)
            weights_of(other)
        except TargetError as error:
            self.notify(str(error), severity="error", markup=False)
        else:
            self.post_message(OpenTarget(TargetSpec(model=other)))

    # ---- opening and downloading ------------------------------------------------------------------------------------

    def action_open(self) -> None:
        """What is chosen, or the whole hook, in place of what is looked at."""
        target = self._to_open()
        if target is not None:
            self.post_message(OpenTarget(target))
            self.dismiss()

    def _to_open(self) -> TargetSpec | None:
        if self.suites is None or self.hook is None:
            return None
        return opened(self.suites, list(self.chosen.values())) if self.chosen else whole(self._target, self.hook)

    def action_download(self) -> None:
        """Fetch what is missing of what is chosen."""
        missing = [ref for ref in self.wanted if not ref.on_disk and ref.repo is not None]
        if self.fetching is not None:
            self.notify("A download is under way: x stops it.", timeout=3)
        elif not missing:
            self.notify("It is on disk already." if len(self.wanted) == 1 else "All of it is on disk.", timeout=3)
        else:
            self.fetching = Fetching(number=1, total=len(missing), what=missing[0].sae_id)
            self.fetch_problem = ""
            self.in_thread("fetch", partial(self._fetch, missing))
            self.show_grid()

    def _fetch(self, refs: Sequence[SaeRef]) -> None:
        """In a thread."""
        worker = get_current_worker()

        def tell(told: Fetching) -> None:
            self.post_message(self.Fetched(told))

        problem = fetch_all(refs, self._target, tell, lambda: worker.is_cancelled)
        self.post_message(self.Fetched(None, problem))

    def on_suites_screen_fetched(self, message: Fetched) -> None:
        """A download goes on or has ended."""
        if message.problem is None:
            self.fetching = message.told if self.fetching is not None else None
        else:
            self.fetching = None
            self.fetch_problem = message.problem
            if not message.problem:
                self.notify("Downloaded.", timeout=3)
            self._read()  # what is on disk has changed, whole or in part
        self.show_about()

    def action_stop(self) -> None:
        """Stop the download."""
        if self.fetching is not None:
            self.workers.cancel_group(self, "fetch")

    def action_copy(self) -> None:
        """The command that opens them."""
        target = self._to_open()
        if target is not None:
            self.copy_command(command_words(target_words(target)))

    def action_copy_download(self) -> None:
        """The commands that download them."""
        commands = fetch_commands(self.wanted)
        if commands:
            self.copy_command("\n".join(commands))
        else:
            self.notify("All of it is on disk.", timeout=3)

    def filtered(self) -> None:
        """Other hooks."""
        self.show_all(0)

    def action_back(self) -> None:
        """To the stream; a download ends with the screen, and says so."""
        if self.unfilter():
            return
        if self.fetching is None:
            self.dismiss()
        else:
            leave_saying(self, "The download was stopped. What has arrived is kept; d goes on with it.")


def _fetch_line(told: Fetching) -> Line:
    """A bar, bytes, rate and time left."""
    share = told.done_bytes / told.total_bytes if told.total_bytes else 0.0
    full = int(share * BAR)
    line: Line = [(f"{told.number}/{told.total} ", "strong"), ("█" * full, "accent"), ("░" * (BAR - full), "muted")]
    if not told.total_bytes:
        return [*line, (f"  {visible(told.what)}", "")]
    line.append((f"  {told.done_bytes / 1e6:,.1f} of {told.total_bytes / 1e6:,.1f} MB", ""))
    if told.bytes_per_second > 0:
        left_seconds = (told.total_bytes - told.done_bytes) / told.bytes_per_second
        line.append((f"  {told.bytes_per_second / 1e6:,.1f} MB/s, {left_seconds:.0f} s left · x stops", "muted"))
    return line
