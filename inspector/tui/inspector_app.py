"""The Textual application: themes, the command palette, thrifty output, and what happens when something breaks.

What is on the screen is the screens' business. This touches three private parts of Textual, each guarded by a test:
`_display` (to send only changed cells), `_fatal_error` (to end with one line instead of a traceback) and
`_exit_renderables` (where that line goes).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import signal
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from rich.text import Text
from textual._compositor import CompositorUpdate
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.command import CommandPalette
from textual.screen import ModalScreen, Screen

from inspector.tui.saved_state import UiState, load_state, save_state
from inspector.tui.terminal_diff import TerminalDiff
from inspector.tui.themes import (
    DEFAULT_THEME,
    DEFAULTS,
    Theme,
    depth_of,
    find_themes,
    palette_of,
    theme_for,
    theme_named,
)
from inspector.tui.widgets.bars import Banner, show_banner
from inspector.tui.widgets.session_panes import OpeningScreen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from rich.console import RenderableType
    from textual.driver import Driver
    from textual.events import DescendantFocus

    from inspector.events import GateLine
    from inspector.spec import TargetSpec
    from inspector.tui.screens.base import GoTo, MarksChosen, OpenScreen, OpenTarget, ScreenName
    from inspector.tui.screens.result_pages import Measure
    from inspector.tui.screens.stream import StreamScreen
    from inspector.tui.session import Client, Connect, SessionView


NOTICE_SECONDS = 3.0
"""A notice stays; enough for two short sentences."""
REMEMBER_SECONDS = 5.0
"""Between two looks at whether the view is elsewhere: what a program that is killed can lose."""


class InspectorApp(App[int]):
    """dm-inspect."""

    TITLE = "dm-inspect"
    COMMANDS = App.COMMANDS | {lambda: importlib.import_module("inspector.tui.places").Places}
    NOTIFICATION_TIMEOUT = NOTICE_SECONDS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit", "quit", show=False, priority=True, id="app.quit"),
        Binding("ctrl+c", "copy_selection", "copy", show=False, priority=True, id="app.copy"),
        Binding("ctrl+z", "suspend_process", "suspend", show=False, priority=True, id="app.suspend"),
    ]
    CSS = """
    Screen { background: $background; color: $foreground; }
    CommandPalette, EndedScreen, PromptScreen, TextsScreen, Question, NoteEntry { background: transparent; }
    CommandPalette SearchIcon { display: none; }
    ToastRack { dock: top; align: right top; margin: 1 1 0 0; }
    Toast { width: 46; max-width: 60%; padding: 0 1; margin: 0; }
    Tooltip { max-width: 60; padding: 0 1; background: $panel; }
    * { scrollbar-size-vertical: 1; }
    """

    def __init__(
        self,
        model: str,
        connect: Connect,
        *,
        theme: str | None = None,
        remember: bool = True,
        survives: bool = True,
        prompts: Sequence[str] = (),
    ) -> None:
        """An app that has not started.

        Args:
            model: What was asked for.
            connect: Makes a connection to the session.
            theme: Name of a theme; None: the last one, or the default.
            remember: Whether to read and write what is kept between runs.
            survives: Whether the session, and with it a job, goes on without this program.
            prompts: Texts to list beside the contexts; it begins with the first.

        Raises:
            UsageError: there is no theme of that name.
        """
        super().__init__()
        self.animation_level = "none"
        self._model = model
        self._connect = connect
        self._remember = remember
        self._survives = survives
        self._prompts = tuple(prompts)
        self.asked: TargetSpec | None = None
        """What was asked for, where that is known: not where a running session was named."""
        self.connect_to: Callable[[TargetSpec], Awaitable[Client]] | None = None
        """Makes a connection to a session of another target; None: there is no other."""
        self._gate_failures: tuple[GateLine, ...] = ()
        self.home: StreamScreen | None = None
        """None until the first picture is painted."""
        self._noticed_on: Screen[object] | None = None
        """The screen that notices are of: the last that is no question, help or palette over another."""
        self._diff = TerminalDiff()
        self._shown_cursor: tuple[int, int] | None = None
        self._state = load_state() if remember else UiState()
        self.themes, self._theme_problems = find_themes()
        remembered = self._state.theme if self._state.theme in self.themes else None
        wanted = theme_named(theme, self.themes) if theme is not None else self.themes[remembered or DEFAULT_THEME]
        for known in self.themes.values():
            self.register_theme(known)
        self.theme = theme_for(depth_of(self), wanted, self.themes).name

    # ---- themes -----------------------------------------------------------------------------------------------------

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Colours our widgets need and a foreign theme lacks."""
        return DEFAULTS

    @property
    def chosen_theme(self) -> Theme:
        """The theme in use."""
        return self.themes.get(self.theme, self.themes[DEFAULT_THEME])

    def choose_theme(self, name: str) -> None:
        """Use a theme from now on, and the next time."""
        self.theme = name
        if self.home is not None:
            self.home.show_palette(palette_of(self))
        self._keep(replace(self._latest(), theme=name))

    def action_next_theme(self) -> None:
        """The theme after this one, by name."""
        names = sorted(self.themes)
        at = names.index(self.theme) if self.theme in names else -1
        self.choose_theme(names[(at + 1) % len(names)])
        self.notify(f"{self.chosen_theme.title}: {self.chosen_theme.summary}", timeout=2, markup=False)

    def on_marks_chosen(self, message: MarksChosen) -> None:
        """Show or hide the second channel the next time too."""
        self._keep(replace(self._latest(), marks=message.marks))

    def _latest(self) -> UiState:
        """What is kept now: another view may have written since."""
        return load_state() if self._remember else self._state

    def _keep(self, state: UiState) -> None:
        self._state = state
        if self._remember:
            save_state(state)

    # ---- the screen -------------------------------------------------------------------------------------------------

    def get_default_screen(self) -> Screen[int]:
        """The first picture."""
        return OpeningScreen(self._model)

    async def _open_home(self) -> None:
        """Put the Stream screen over the first picture, once that is painted."""
        # In a thread: some 0.1 s of imports, during which the loop still answers.
        stream = await asyncio.to_thread(importlib.import_module, "inspector.tui.screens.stream")
        replaced = self.home
        state = stream.StreamState(self._state.views.get)
        state.first_prompts, self._prompts = self._prompts, ()
        if self.asked is not None and self.asked.include_special:
            state.session = replace(state.session, policy="included")
        self.home = stream.StreamScreen(self._model, self._connect, palette_of(self), self._state.marks, state)
        await (self.push_screen if replaced is None else self.switch_screen)(self.home)
        self.home.session_changed.subscribe(self, self._session_changed)
        if self._remember and not self._state.tour:
            self.home.text_changed.subscribe(self, self._tell_once)

    async def _tell_once(self, _: object) -> None:
        """On the first start, when there is a text: what its colours are."""
        if self.home is not None and self.screen is self.home and not self._latest().tour:
            self._keep(replace(self._latest(), tour=True))
            await self.home.action_over("questions", "tour")

    def on_mount(self) -> None:
        """Paint, then load the rest; say which theme files are wrong; end in order when the terminal goes away."""
        self.call_after_refresh(self._open_home)
        for problem in self._theme_problems:
            self.notify(problem, severity="warning", markup=False)
        self.app_resume_signal.subscribe(self, lambda _: self.action_redraw())
        self.screen_change_signal.subscribe(self, self._screen_changed)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Not in the main thread, or not on this system: then the default action stands.
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                loop.add_signal_handler(number, self.exit, 128 + number, 128 + number)

        if not self.is_headless:  # a terminal that goes away ends the view, whether or not a signal tells so
            from inspector.tui.terminal_watch import watch

            watch(getattr(self._driver, "fileno", None), loop, self.remember_view)
        self.set_interval(REMEMBER_SECONDS, self.remember_view)

    def get_driver_class(self) -> type[Driver]:
        """Textual's for this system; on Linux and macOS one that a lost terminal cannot block."""
        found = super().get_driver_class()
        if found.__name__ == "LinuxDriver":
            from inspector.tui.terminal_watch import PatientDriver

            return PatientDriver
        return found

    def remember_view(self) -> None:
        """Keep where the user is, for the next view; nothing is written if that is known."""
        saved = self.home.state.saved_view() if self.home is not None else None
        if saved is not None and self._state.views.get(saved[0]) != saved[1]:
            self._keep(self._latest().with_view(*saved))

    def exit(self, result: int | None = None, return_code: int = 0, message: RenderableType | None = None) -> None:
        """Leave; the next view begins here."""
        self.remember_view()
        super().exit(result, return_code, message)

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """No cursor blinks, of Textual's palette neither: that is 2.6 kB a second over a line that may be slow."""
        if hasattr(event.widget, "cursor_blink"):
            event.widget.cursor_blink = False

    def on_resize(self) -> None:
        """A window that shrank and grew again has lost what was cut off, though its size is the same as before."""
        self._diff.forget()

    def action_redraw(self) -> None:
        """Send the whole screen again, for when something else wrote to the terminal."""
        self._diff.forget()
        self.refresh(layout=True)

    # ---- what screens ask for ---------------------------------------------------------------------------------------

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The command palette: what the screen offers, the themes, and what is the same everywhere."""
        from inspector.tui.screens.base import ActionScreen

        source = screen if isinstance(screen, ActionScreen) else self.home
        if source is not None:
            yield from source.commands()
        for theme in self.themes.values():
            yield SystemCommand(f"Theme: {theme.title}", theme.summary, partial(self.choose_theme, theme.name))
        yield SystemCommand("Save the screen as an SVG picture", "no key", self.action_screenshot)
        yield SystemCommand("Redraw the whole screen", "no key", self.action_redraw)

    def action_switch(self) -> None:
        """Another model, hook, suite, session or text, by name."""
        from inspector.tui.places import switcher

        if not isinstance(self.screen, CommandPalette):
            self.push_screen(switcher())

    async def on_open_screen(self, message: OpenScreen) -> None:
        """A screen asks for another one."""
        await self.action_open_screen(message.name, message.ids)

    async def action_open_screen(self, name: ScreenName, ids: Sequence[str] = ()) -> None:
        """Show a screen over the Stream. Experiments and Jobs take each other's place.

        Args:
            name: also of its module, which is imported only now: in a thread, during which the loop still answers.
            ids: results to go to.
        """
        module = await asyncio.to_thread(importlib.import_module, f"inspector.tui.screens.{name}")
        made, shown, home = getattr(module, f"{name.title()}Screen"), self.screen, self.home
        if home is None:
            return
        match name:
            case "experiments" | "results" if isinstance(shown, made):
                shown.go_to(ids)
            case "results":
                await self.push_screen(made(ids))
            case "suites":
                await self.push_screen(made(self.target, home.session.ready))
            case "worst":
                choice = home.state.choice
                await self.push_screen(made(home, choice.sae.sae_id if choice is not None else ""))
            case "notes" if not isinstance(shown, made):
                await self.push_screen(made(home))
            case "experiments" | "jobs" if not isinstance(shown, made):
                screen, swaps = made(home), type(shown).__name__ in ("ExperimentsScreen", "JobsScreen")
                await (self.switch_screen if swaps else self.push_screen)(screen)
                if ids:
                    screen.go_to(ids)

    async def on_go_to(self, message: GoTo) -> None:
        """Show a token in the Stream."""
        if self.home is not None:
            await self.home.go(message.context, message.position)

    # ---- what every screen shows ------------------------------------------------------------------------------------

    def _screen_changed(self, screen: Screen[object]) -> None:
        """Notices stay behind on the screen that they are of. While the load gate's failure is accepted, every screen
        says so.
        """
        if screen is not self._noticed_on and not isinstance(screen, (ModalScreen, OpeningScreen)):
            if self._noticed_on is not None:  # what is said while the program starts is the first screen's
                self.clear_notifications()
            self._noticed_on = screen
        if self._gate_failures and not screen.query(Banner):
            self.call_later(show_banner, screen, self._gate_failures)

    def _session_changed(self, session: SessionView) -> None:
        if session.gate_failures != self._gate_failures:
            self._gate_failures = session.gate_failures
            for screen in self.screen_stack:
                for banner in screen.query(Banner):
                    banner.show(self._gate_failures)
                self._screen_changed(screen)
        if session.stage == "failed" and self.connect_to is not None:
            from inspector.tui.places import offer

            self.run_worker(offer(self), group="offer", exclusive=True, exit_on_error=False)

    # ---- leaving ----------------------------------------------------------------------------------------------------

    async def action_quit(self) -> None:
        """The keys that leave from anywhere."""
        self.leave()

    async def action_copy_selection(self) -> None:
        """What is selected, with the mouse or in a field that is typed into; where nothing is, which key leaves."""
        typed = getattr(self.screen.focused, "selected_text", "")  # of an Input or a TextArea, which may not be loaded
        text = typed or self.screen.get_selected_text()
        if text:
            self.copy_to_clipboard(text)
            self.notify(f"Copied {len(text):,} characters.", timeout=2)
        else:
            self.notify("Nothing is selected. Drag over text to copy it; q quits.", timeout=4)

    def leave(self) -> None:
        """Leave; with the exit code of what failed, if nothing was ever shown. While a job runs, ask first."""
        session = self.home.session if self.home is not None else None
        if session is None or session.stage in ("failed", "lost") or not session.unfinished:
            self._go(session.exit_code if session else 0)
            return
        from inspector.tui.screens.questions import LeavingScreen

        if isinstance(self.screen, LeavingScreen):
            self._go(0)
        else:
            self.push_screen(LeavingScreen(session.unfinished, survives=self._survives), self._leaving_answered)

    def _leaving_answered(self, answer: str | None) -> None:
        if answer == "cancel":
            self.run_worker(self._cancel_and_leave(), group="leave", exit_on_error=False)
        elif answer == "leave":
            self._go(0)

    def _go(self, code: int) -> None:
        """Leave, with two lines that stay on the terminal."""
        from inspector.tui.screens.questions import farewell

        said = farewell(self.home.session, survives=self._survives) if self.home is not None else ""
        self.exit(code, return_code=code, message=Text(said, no_wrap=True, overflow="ignore") if said else None)

    async def _cancel_and_leave(self) -> None:
        from inspector.tui.screens.questions import cancel_all

        if self.home is not None:
            await cancel_all(self.home)
        self._go(0)

    @property
    def target(self) -> TargetSpec:
        """What is looked at: as the session says that it loaded it, or, before that, as it was asked for."""
        from inspector.spec import TargetSpec, target_of

        ready = self.home.session.ready if self.home is not None else None
        if ready is not None and ready.target:
            return target_of(ready.target)
        return self.asked or TargetSpec(model=ready.model if ready is not None else self._model)

    def on_measure(self, message: Measure) -> None:
        """A claim lacks these experiments. Asked once while the session has not answered."""
        from inspector.tui.places import measure

        if all(each.is_finished for each in self.workers if each.group == "measure"):
            self.run_worker(measure(self, message.experiments), group="measure", exit_on_error=False)

    def on_open_target(self, message: OpenTarget) -> None:
        """A new Stream in the place of this one: on this session, if it holds the model and nobody else needs what it
        has loaded, else on another, and then the one before goes on.
        """
        if self.home is not None and self.connect_to is not None:
            from inspector.tui.places import open_target

            self.run_worker(open_target(self, message.target, self.connect_to), group="open", exit_on_error=False)

    def say(self, text: str, severity: Literal["information", "error"] = "information") -> None:
        """A notice."""
        self.notify(text, severity=severity, timeout=8 if severity == "error" else None, markup=False)

    async def open(self, connect: Connect, asked: TargetSpec | None, model: str) -> None:
        """A new Stream in the place of this one, on another session; one that runs says itself what it is `asked`."""
        self.remember_view()
        self.asked, self._model, self._connect = asked, model, connect
        self._gate_failures = ()
        while self.screen is not self.home:
            await self.pop_screen()
        await self._open_home()

    # ---- output -----------------------------------------------------------------------------------------------------

    def _display(self, screen: Screen[object], renderable: object) -> None:
        """Send what differs from what the terminal shows; nothing if nothing does."""
        if isinstance(renderable, CompositorUpdate) and self._writes():
            cursor = self.cursor_position
            renderable = self._diff.reduce(renderable, self.console, (self.size.width, self.size.height))
            if renderable is None:
                if cursor == self._shown_cursor:
                    self.post_display_hook()
                    return
                renderable = CompositorUpdate()
            self._shown_cursor = cursor
        super()._display(screen, cast("RenderableType | None", renderable))

    def _writes(self) -> bool:
        """Whether Textual would write to a terminal now; the same conditions as its own."""
        return bool(self._running) and not (self._closed or self.is_headless or self.is_inline or self._batch_count)

    # ---- when something breaks --------------------------------------------------------------------------------------

    def _fatal_error(self) -> None:
        """An unexpected error: the traceback goes to a file, one line to the terminal. The exit code is 1."""
        if not self._exit_renderables:  # The first error; what follows from it would only be in the way.
            error = self._exception
            line = f"dm-inspect stopped unexpectedly: {type(error).__name__}: {error}".splitlines()[0]
            from inspector.tui.screens.questions import view_log

            self._exit_renderables.append(Text(f"{line}. {view_log(error)}", no_wrap=True, overflow="ignore"))
        self._close_messages_no_wait()
