"""What the screens look like, kept: each at four sizes, in four themes, and empty, loading and failed.

    python -m tests.tui.matrix [NAME]...               writes tests/tui/looks/*.txt again, or those with NAME in them
    python -m tests.tui.matrix --png FOLDER [NAME]...  draws what is kept as pictures, to be looked at

A file holds the text of the screen, below it how each cell looks as runs (12a3b: twelve cells as `a` says, three as
`b`), and what the letters mean: words, places and colours each change lines of their own. Everything comes from an
invented session and from invented results, and no clock is asked.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal
from unittest import mock

from rich.cells import cell_len
from rich.color import Color
from rich.style import Style
from rich.terminal_theme import TerminalTheme

from inspector.errors import TargetError
from inspector.session.protocol import Failed, GetAnatomy, GetCosts, GetLatent, GetSimilar, LoadProgress, StartJob
from inspector.spec import TargetSpec
from inspector.store.notes import Notes, of_latent, of_token
from inspector.tui.screens import export
from inspector.tui.screens.experiments import ExperimentsScreen
from inspector.tui.suite_list import Suites, hooks_of, read_suites
from tests.fake_jobs import EPOCH, FakeJobs
from tests.fake_session import VOCABULARY, WORDS, FakeSession, noise
from tests.store.objects import result, worst_result
from tests.tui.clock import Unhurried, time_of_the_loop
from tests.tui.driving import Driven, driven
from tests.tui.stored_results import norm_result, save_at

if TYPE_CHECKING:
    from rich.segment import Segment

FOLDER = Path(__file__).parent / "looks"
State = Literal["loaded", "empty", "loading", "failed"]
SIZES = ((60, 16), (80, 24), (120, 40), (200, 60))
THEMES = ("okabe", "light", "sixteen", "none")
"""The last is the first without colours."""
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

SCREENS: dict[str, tuple[str, ...]] = {
    "stream": (),
    "share": ("m", "m", "m", "m", "u"),
    "detail": ("d",),
    "beside": ("D",),
    "enlarged": ("z", "right"),
    "texts": ("P",),
    "prompt": ("p",),
    "help": ("question_mark",),
    "palette": ("colon",),
    "worst": ("w",),
    "latent": ("L",),
    "anatomy": ("a",),
    "notes": ("B",),
    "note": ("asterisk",),
    "experiments": ("e", "down", "space"),
    "parameters": ("e", "down", "enter"),
    "jobs": ("J",),
    "results": ("r",),
    "claims": ("r", "p"),
    "export": ("r", "x"),
    "suites": ("s",),
    "switcher": ("S",),
    "tour": ("i",),
}
"""Keys from the Stream to each of them."""
UNDO: dict[str, tuple[str, ...]] = {"share": ("M", "M", "M", "M", "u"), "detail": ("d",)}
"""Keys back, where it is not a screen over the Stream."""
STATES: dict[State, tuple[str, ...]] = {
    "loaded": tuple(SCREENS),
    "empty": ("worst", "notes", "jobs", "results", "claims"),
    "loading": ("stream", "latent", "anatomy", "suites"),
    "failed": ("stream", "latent", "suites", "ended"),
}
"""Which screens are kept in which state."""
ALONE = ("stream", "ended")
"""Where there is no session, nothing else is shown in the same run."""


@dataclass(frozen=True)
class Run:
    """One start of the app, and what is looked at in it."""

    state: State
    size: tuple[int, int]
    theme: str
    screens: tuple[str, ...]

    @property
    def alone(self) -> str:
        """The screen, where no session is there for others; ''."""
        return self.screens[0] if self.state != "loaded" and self.screens[0] in ALONE else ""

    def name(self, screen: str) -> str:
        """Of the file of a screen."""
        return f"{screen}-{self.state}-{self.size[0]}x{self.size[1]}-{self.theme}"


def runs() -> list[Run]:
    """Every screen is kept at every size, loaded; every size in every theme; every state at every size and theme."""
    found = []
    for number, (state, screens) in enumerate(STATES.items()):
        for at, size in enumerate(SIZES):
            if state == "loaded":
                for turn, theme in enumerate(THEMES):
                    some = tuple(each for place, each in enumerate(screens) if (place + at) % len(THEMES) == turn)
                    found.append(Run(state, size, theme, some))
            else:
                theme = THEMES[(number + at) % len(THEMES)]
                if (number + at) % 2:  # an app of their own each
                    found += [Run(state, size, theme, (each,)) for each in screens if each in ALONE]
                found.append(Run(state, size, theme, tuple(each for each in screens if each not in ALONE)))
    return found


# ---- an invented world ----------------------------------------------------------------------------------------------


@contextmanager
def world(run: Run) -> Iterator[None]:
    """Folders of its own, a clock that stands, a terminal of 24 bits."""
    with tempfile.TemporaryDirectory(prefix="look-", dir="/tmp") as folder, ExitStack() as stack:
        environment = {"XDG_STATE_HOME": f"{folder}/state", "XDG_CONFIG_HOME": f"{folder}/config", "HOME": folder,
                       "DM_INSPECT_RESULTS_DIR": f"{folder}/results", "DM_INSPECT_JOBS_DIR": f"{folder}/jobs",
                       "DM_INSPECT_RUNTIME_DIR": f"{folder}/run", "HF_HOME": f"{folder}/hub",
                       "XDG_CACHE_HOME": f"{folder}/cache", "TERM": "xterm-256color",
                       "COLORTERM": "truecolor"}  # fmt: skip
        kept = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM_PROGRAM")}
        environment |= {"NO_COLOR": "1"} if run.theme == "none" else {}
        stack.enter_context(mock.patch.dict(os.environ, kept | environment, clear=True))
        loads = run.state == "loading" and bool(run.alone)  # elsewhere the Stream waits until it has passed
        for module in ("screens.base", *(("widgets.stream_panes", "screens.stream") if loads else ())):
            stack.enter_context(mock.patch(f"inspector.tui.{module}.time", CLOCK))
        Path(folder, "results").mkdir()
        if run.state == "loaded":
            _store()
        stack.enter_context(mock.patch.dict(export._last, {"folder": "/home/me/figures", "kind": "svg"}, clear=True))
        stack.enter_context(mock.patch.dict(ExperimentsScreen.remembered, clear=True))

        def read(target: TargetSpec) -> Suites:
            if run.state == "failed":
                raise TargetError(GATED.message)
            found = read_suites(target)  # those of the demo, but for the path of their folder
            return replace(found, hooks=hooks_of(replace(ref, release="demo-suite") for ref in found.refs))

        stack.enter_context(mock.patch("inspector.tui.screens.suites.read_suites", read))
        # Whatever packages there are where this runs.
        stack.enter_context(mock.patch("inspector.sources.built_in.is_installed", return_value=True))
        if run.state == "loading":
            stack.enter_context(mock.patch("inspector.tui.screens.suites.SuitesScreen.in_thread"))  # never read
        yield


CLOCK = SimpleNamespace(time=lambda: EPOCH + 300.0, monotonic=lambda: 1000.0)
"""Stands still."""
SAE = "layer_3/resid/width_1024/l0_16"
"""That the invented session begins with."""


def _store() -> None:
    """Results and notes, of days gone by."""
    made = [worst(), norm_result("a" * 16, shift=-0.125), result(), norm_result("b" * 16), norm_result("c" * 16)]
    for day, each in enumerate(made, 1):
        for sae, name in zip(each["saes"], (SAE, SAE.replace("1024", "4096")), strict=True):
            sae["sae"] = name
        if day < len(made):  # the newest keeps its hostile names
            each["provenance"] |= {"model": "demo", "text": "fake", "n_contexts": 300, "context_length": 256}
        save_at(each, f"2026-01-0{day}T03:04:05+00:00", f"dm-inspect run {each['experiment']} --widths 256,1k")
    moment = datetime.datetime(2026, 1, 6, 3, 4, 5, tzinfo=datetime.UTC)
    with mock.patch("inspector.store.notes.datetime") as clock:
        clock.datetime.now.return_value = moment
        _take_notes(Notes())


def _take_notes(notes: Notes) -> None:
    words = ("Why so much here?", "", "Compare with 4k; the anatomy says that ten latents take a third of it up.")
    for at, said in enumerate(words):
        notes.put(of_token("demo", "fake", "context", at, 40 + at, [], token=WORDS[at], sae=SAE), said)
    notes.put(of_latent("demo", SAE, 321, []), "Fires in headings")


def worst() -> dict[str, Any]:
    """Forty places of the invented text."""
    made = worst_result(40)
    found = made["result"]
    found["sae"] = SAE
    found["classes"]["sae"] = [SAE, SAE, "other"]
    for name in ("tokens", "places"):
        found[name]["token"] = [VOCABULARY[at % len(VOCABULARY)] for at in range(40)]
        found[name]["share"] = [at / 39 for at in range(39)] + [None]
        found[name]["loss"] = [12.0 * noise(31, at) for at in range(40)]
    return made


def session_of(state: State) -> FakeSession:
    """What is there to be shown."""
    jobs = FakeJobs(hold=True, steps=4)
    made = FakeSession(hostile_share=0.01, epochs=1, jobs=jobs)
    slow = (GetLatent, GetAnatomy, GetSimilar, GetCosts)
    if state == "loading":
        made.silent = set(slow)
    if state == "failed":
        made.failures = {kind: FAILED for kind in slow}
    if state == "loaded":
        for names, steps in ((("error-vector",), 5), (("pursuit",), 2), (("norm-prediction", "norm-test"), 3)):
            jobs.answer(StartJob(experiments=list(names)))
            jobs.advance(steps)
            if names == ("pursuit",):
                jobs.end("job-2", "failed", "The device is out of memory. Run fewer experiments at once.")
        jobs.answer(StartJob(experiments=["shrinkage"]))
    return made


FAILED = Failed(exit_code=4, message="Only 12 tokens are left, and 128 are needed. Give more contexts.")
GATED = Failed(
    exit_code=3,
    message="The model 'gemma-2-9b' is gated and there is no token. Accept its licence on the hub, then log in.",
)


# ---- looking --------------------------------------------------------------------------------------------------------


async def look(run: Run) -> dict[str, Picture]:
    """Start the app, go from screen to screen; the pictures by the name of their file."""
    session, alone = session_of(run.state), run.alone
    theme = THEMES[0] if run.theme == "none" else run.theme
    if alone == "stream" and run.state == "failed":
        session.fail_loading = GATED
    elif alone == "stream" and run.state == "loading":
        session.load_seconds = 1e6
    pictures = {}
    with world(run):
        begun = alone != "stream"
        async with driven(session, size=run.size, theme=theme, wait=begun) as app:
            if run.state == "loading" and not begun:
                app.client.tell(LoadProgress(what="model", seconds=2.5, done=1, total=3))
                app.client.tell(LoadProgress(what="SAE 1/15", seconds=0.4, detail="layer_3/resid/width_256/l0_8"))
                app.client.tell(
                    LoadProgress(what="SAE 2/15", seconds=None, done_bytes=12_000_000, total_bytes=48_000_000,
                                 bytes_per_second=4e6)
                )  # fmt: skip
            if begun:
                await app.press("greater_than_sign", "down", "right")
            if alone == "ended":
                app.client.lose("The session was killed (out of memory). Open fewer SAEs at once.")
                await app.until(lambda: app.app.screen is not app.home)
            for screen in run.screens:
                await rest(app)
                for key in () if screen == alone else SCREENS[screen]:
                    await app.pilot.press(key)
                    await rest(app)
                pictures[run.name(screen)] = picture(app)
                await app.pilot.press(*UNDO.get(screen, ()))
                while begun and app.app.screen is not app.home and screen != alone:
                    await app.app.pop_screen()
    return pictures


async def rest(app: Driven) -> None:
    """Wait until nothing is pending but what a silent session owes: three seconds in a row, of the loop's time, at
    whose ends no thread is at work. All that the app puts off is due within one.
    """
    quiet = 0
    while quiet < 3:
        await app.pilot.pause(1.0)
        quiet = 0 if asyncio.get_running_loop().waits_for_others() else quiet + 1  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Picture:
    """The cells of a screen."""

    lines: tuple[str, ...]
    """Their text."""
    runs: tuple[str, ...]
    """By line, how they look: '12a3b'."""
    letters: dict[str, str]
    """What the letters of `runs` mean, in Rich's words."""

    def text(self) -> str:
        """As it is kept."""
        said = [f"{letter}  {look}" for letter, look in self.letters.items()]
        return "\n".join([*self.lines, RULE, *self.runs, RULE, *said, ""])

    @classmethod
    def of(cls, text: str) -> Picture:
        """What was kept."""
        lines, runs, letters = (part.split("\n") for part in text.split(f"\n{RULE}\n"))
        return cls(tuple(lines), tuple(runs), dict(each.split("  ", 1) for each in letters if each))


RULE = "──── looks ────"
"""Between the three parts of a file."""


def picture(app: Driven) -> Picture:
    """What is on the screen now."""
    letters: dict[str, str] = {}
    lines, runs = [], []
    for strip in app.app.screen._compositor.render_strips():
        told = ""
        for look, length in _looks(strip):
            if look not in letters:
                letters[look] = LETTERS[len(letters)] if len(letters) < len(LETTERS) else f"({len(letters)})"
            told += f"{length}{letters[look]}"
        lines.append(re.sub("/tmp/look-.{8}", "/tmp/look-xxxxxxxx", strip.text.rstrip()))
        runs.append(told)
    return Picture(tuple(lines), tuple(runs), {letter: look for look, letter in letters.items()})


def _looks(strip: Iterable[Segment]) -> list[tuple[str, int]]:
    """(look, cells) of a line; neighbours that look the same are one."""
    found: list[tuple[str, int]] = []
    for text, style, control in strip:
        look = str(style.without_color + Style(color=style.color, bgcolor=style.bgcolor)) if style else "none"
        look = re.sub(r" ?link \S+", "", look)
        length = 0 if control else cell_len(text)
        if found and found[-1][0] == look:
            found[-1] = (look, found[-1][1] + length)
        elif length:
            found.append((look, length))
    return found


# ---- drawing what is kept -------------------------------------------------------------------------------------------


def draw(kept: Picture, path: Path) -> None:
    """As a PNG, with the font of most terminals of this system."""
    from matplotlib import font_manager
    from PIL import Image, ImageDraw, ImageFont

    wide, high = 9, 18
    columns = sum(int(n) for n in re.findall(r"\d+", kept.runs[0]) if n)
    image = Image.new("RGB", (wide * columns, high * len(kept.lines)))
    canvas = ImageDraw.Draw(image)
    named = {"normal": "DejaVu Sans Mono", "bold": "DejaVu Sans Mono:bold", "braille": "DejaVu Sans"}
    fonts = {key: ImageFont.truetype(font_manager.findfont(name), 15) for key, name in named.items()}
    for row, (line, told) in enumerate(zip(kept.lines, kept.runs, strict=True)):
        styles = [Style.parse(kept.letters[key]) for n, key in RUN.findall(told) for _ in range(int(n))]
        cells: list[str] = []
        for character in line:
            size = cell_len(character)
            if size == 0 and cells:
                cells[-1] += character
            else:
                cells += [character] + [""] * (size - 1)
        cells += [" "] * (columns - len(cells))
        for column, (text, style) in enumerate(zip(cells, styles, strict=False)):
            front, back = (
                tuple((each or Color.default()).get_truecolor(VGA, foreground=ground))
                for each, ground in ((style.color, True), (style.bgcolor, False))
            )
            if style.reverse:
                front, back = back, front
            if style.dim:
                front = tuple((a + b) // 2 for a, b in zip(front, back, strict=True))
            x, y = column * wide, row * high
            span = wide * max(1, cell_len(text))
            if text:
                canvas.rectangle((x, y, x + span - 1, y + high - 1), fill=back)
            if text.strip():
                font = fonts["braille" if "\u2800" <= text[0] <= "\u28ff" else "bold" if style.bold else "normal"]
                canvas.text((x, y), text, font=font, fill=front)
            if style.underline:
                canvas.line((x, y + high - 2, x + span - 1, y + high - 2), fill=front)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


VGA = TerminalTheme(
    (0, 0, 0), (200, 200, 200),
    [(0, 0, 0), (170, 0, 0), (0, 170, 0), (170, 85, 0), (0, 0, 170), (170, 0, 170), (0, 170, 170), (170, 170, 170)],
    [(85, 85, 85), (255, 85, 85), (85, 255, 85), (255, 255, 85), (85, 85, 255), (255, 85, 255), (85, 255, 255),
     (255, 255, 255)],
)  # fmt: skip
RUN = re.compile(r"(\d+)(\w|\(\d+\))")


async def renew(words: Sequence[str]) -> None:
    """Take the pictures again and keep them."""
    FOLDER.mkdir(exist_ok=True)
    for run in runs():
        names = [run.name(screen) for screen in run.screens]
        if words and not any(word in name for word in words for name in names):
            continue
        for name, taken in (await look(run)).items():
            (FOLDER / f"{name}.txt").write_text(taken.text(), encoding="utf-8")
        print(*names, flush=True)
    if not words:
        expected = {f"{run.name(screen)}.txt" for run in runs() for screen in run.screens}
        for path in FOLDER.glob("*.txt"):
            if path.name not in expected:
                path.unlink()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.tui.matrix", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--png", type=Path, metavar="FOLDER", help="draw what is kept instead")
    parser.add_argument("words", nargs="*", metavar="NAME")
    asked = parser.parse_args()
    if asked.png is None:
        with time_of_the_loop(), asyncio.Runner(loop_factory=Unhurried) as runner:
            runner.run(renew(asked.words))
    for path in sorted(FOLDER.glob("*.txt")) if asked.png is not None else ():
        if not asked.words or any(word in path.stem for word in asked.words):
            draw(Picture.of(path.read_text(encoding="utf-8")), asked.png / f"{path.stem}.png")


if __name__ == "__main__":
    main()
