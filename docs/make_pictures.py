"""Makes the pictures of the guide from the program itself: `python docs/make_pictures.py [--fake|--running] [NAME]...`

Starts a session on the picture's target (or, with --fake, an invented one; with --running, takes the user's own where
one runs, with the notes and results there), waits until the linear map is finished, plays some keys and saves what is
on the screen as docs/pictures/NAME.svg. Looks the same in every viewer: no web fonts, no leading spaces.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "TEXTUAL_ANIMATIONS": "none"}
os.environ.pop("NO_COLOR", None)

if TYPE_CHECKING:
    from inspector.tui.inspector_app import InspectorApp
    from inspector.tui.session import Client, Connect

FOLDER = ROOT / "docs" / "pictures"
CHARACTER = 12.2
"""Width of a character in Textual's SVG export."""
FIT_SECONDS = 300.0


@dataclass(frozen=True)
class Picture:
    """One screen state and how to get there."""

    keys: tuple[str, ...] = ()
    at: tuple[int, int] | None = None
    """Context and position to begin at, from 0."""
    size: tuple[int, int] = (120, 40)
    theme: str = "okabe"
    typed: str = ""
    """Typed after the keys, then Enter."""
    seconds: float = 2.0
    """To let things settle."""
    target: str = ""
    """Options of TARGET; '': the demo."""


SMOLLM2 = "--model smollm2 --layer 12 --widths 512,2k,8k --l0 32 --contexts 92"
"""The target of docs/tour.md."""
JAPANESE = "吾輩は猫である。\n名前はまだ無い。\nどこで生れたかとんと見当がつかぬ。\n"
"""The text of three lines there."""

PICTURES: dict[str, Picture] = {
    "stream": Picture(keys=("greater_than_sign", "down", "down", "down", "right", "right", "right")),
    "stream-worst": Picture(keys=("m", "m", "m", "n", "n", "n")),
    "stream-share": Picture(keys=("m", "m", "m", "m", "2", "4", "3")),
    "stream-narrow": Picture(keys=("greater_than_sign", "down", "down"), size=(80, 24)),
    "stream-light": Picture(keys=("greater_than_sign", "down", "down"), theme="light"),
    "stream-sixteen": Picture(keys=("greater_than_sign", "down", "down"), theme="sixteen"),
    "stream-generating": Picture(keys=("greater_than_sign", "down", "down", "down", "down", "g"), seconds=8.0),
    "stream-prompt": Picture(
        keys=("p",), typed="def read_file(path):\n    with open(path) as file:\n        return file.read()\n"
    ),
    "stream-beside": Picture(keys=("greater_than_sign", "D", "n")),
    "stream-find": Picture(keys=("slash",), typed="return"),
    "stream-help": Picture(keys=("question_mark",), seconds=1.0),
    "stream-enlarged": Picture(keys=("z", "right"), seconds=1.0),
    # These show what is stored: run `dm-inspect run all` first, and for SmolLM2 what docs/tour.md says.
    "results": Picture(keys=("r", *["down"] * 8), seconds=3.0),
    "results-narrow": Picture(keys=("r", *["down"] * 6, "f"), size=(80, 24), seconds=3.0),
    "results-claims": Picture(keys=("r", "p"), seconds=3.0),
    "worst": Picture(keys=("w", "tab", "tab"), seconds=5.0, target=SMOLLM2),
    # The first question searches every context, minutes on a small machine.
    "anatomy": Picture(at=(69, 40), keys=("1", "a"), size=(120, 76), seconds=600.0, target=SMOLLM2),
    "tour-latent": Picture(at=(69, 40), keys=("3", "L", "i"), typed="2780", seconds=600.0, target=SMOLLM2),
    "tour-beside": Picture(at=(68, 44), keys=("1", "D"), seconds=15.0, target=SMOLLM2),
    "tour-prompt": Picture(keys=("p",), typed=JAPANESE, seconds=60.0, target=SMOLLM2),
    "notes": Picture(keys=("B",), seconds=3.0, target=SMOLLM2),
    "latent": Picture(keys=("greater_than_sign", "n", "L"), seconds=90.0),
}


async def take(picture: Picture, connect: Connect) -> str:
    """Start the app, play the keys, export."""
    from inspector.spec import target_of
    from inspector.tui.inspector_app import InspectorApp

    app = InspectorApp(target_of(picture.target.split()).model, connect, theme=picture.theme, remember=False)
    async with app.run_test(size=picture.size) as pilot:
        await _until_fitted(app, pilot.pause)
        if picture.at is not None and app.home is not None:
            await app.home.go(*picture.at)
            await pilot.pause(2.0)
        for key in picture.keys:
            await pilot.press(key)
            await pilot.pause(0.4)
        if picture.typed:
            await pilot.press(*("space" if c == " " else c for c in picture.typed if c.isalnum() or c == " "))
            field = app.screen.focused  # an Input, or the editor of a text
            setattr(field, "value" if hasattr(field, "value") else "text", picture.typed)
            await pilot.press("enter")
        await pilot.pause(picture.seconds)
        app.clear_notifications()
        await pilot.pause(0.3)
        return tidy(app.export_screenshot(title="dm-inspect"))


async def _until_fitted(app: InspectorApp, pause: object) -> None:
    for _ in range(int(FIT_SECONDS / 0.25)):
        if app.home is None:
            await asyncio.sleep(0.1)
            continue
        session = app.home.session
        if session.stage == "failed":
            raise SystemExit(f"The session failed: {session.error}")
        if app.home.state.text is not None and session.improved is not None and session.improved.finished:
            await asyncio.sleep(1.0)
            return
        await asyncio.sleep(0.25)
    raise SystemExit(f"The linear map was not finished after {FIT_SECONDS:g} s.")


def tidy(svg: str) -> str:
    """Without web fonts; leading spaces become positions, which some viewers would drop."""
    svg = re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", "'DejaVu Sans Mono', Menlo, Consolas, monospace")
    svg = re.sub(
        r'<text class="([^"]*)" x="([\d.]+)" y="([\d.]+)" textLength="([\d.]+)" ([^>]*)>([^<]*)</text>', _shift, svg
    )
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def _shift(match: re.Match[str]) -> str:
    look, x, y, length, rest, text = match.groups()
    stripped = re.sub("^(?:&#160;)+", "", text)
    moved = (len(text) - len(stripped)) // len("&#160;") * CHARACTER
    shown = re.sub("(?:&#160;)+$", "", stripped)
    shorter = (len(stripped) - len(shown)) // len("&#160;") * CHARACTER
    if not shown:
        return ""
    place = f'x="{float(x) + moved:.1f}" y="{y}" textLength="{float(length) - moved - shorter:.1f}"'
    return f'<text class="{look}" {place} {rest}>{shown}</text>'


async def make(names: list[str], *, fake: bool, leave: bool) -> None:
    """One session for all pictures of a target; it is stopped at the end, unless it is to be left."""
    from inspector.session.client import SessionClient
    from inspector.session.protocol import Stop
    from inspector.spec import target_of
    from tests.fake_session import FakeClient, FakeSession

    async def connect(target: str) -> Client:
        if fake:
            return FakeClient(FakeSession(hostile_share=0.02, epochs=4, tokens_per_second=30.0))
        return await SessionClient.open(target_of(target.split()))

    FOLDER.mkdir(exist_ok=True)
    for target in dict.fromkeys(PICTURES[name].target for name in names):
        for name in (name for name in names if PICTURES[name].target == target):
            svg = await take(PICTURES[name], partial(connect, target))
            (FOLDER / f"{name}.svg").write_text(svg, encoding="utf-8")
            print(f"{name}.svg  {len(svg) / 1000:.0f} kB", flush=True)
        if not (fake or leave):
            await (await connect(target)).send(Stop())


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fake", action="store_true", help="an invented session instead of the demo")
    parser.add_argument("--running", action="store_true", help="the user's own sessions, which go on")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PICTURES))
    asked = parser.parse_args()
    unknown = set(asked.names) - set(PICTURES)
    if unknown:
        parser.error(f"no picture {', '.join(sorted(unknown))}; there are {', '.join(PICTURES)}")
    if asked.running:
        asyncio.run(make(asked.names or list(PICTURES), fake=False, leave=True))
        return
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {
            "XDG_STATE_HOME": f"{home}/state",
            "XDG_RUNTIME_DIR": home,
            "DM_INSPECT_RUNTIME_DIR": f"{home}/run",
        }
        asyncio.run(make(asked.names or list(PICTURES), fake=asked.fake, leave=False))


if __name__ == "__main__":
    main()
