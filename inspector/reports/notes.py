"""Bookmarks and notes as one Markdown page: what each is about, what was written, figures as text, and commands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from inspector.drawing.safe_text import visible, visible_block
from inspector.errors import InspectorError

if TYPE_CHECKING:
    from inspector.store.notes import Note

WIDTH = 100
"""Columns of a figure."""
HEIGHT = 16
"""Lines of a plot."""
FIGURES = 2
"""Of a result, the first ones."""


IN_TITLE = ("source", "context", "position", "token", "index", "result")
"""Facts that the title has, contexts counted from 1 there, as on the screen."""


def markdown(notes: Iterable[Note]) -> str:
    """The page. What a token or a name holds stands in code, as it is shown; only the user's words are Markdown."""
    lines = ["# Notes", ""]
    for note in notes:
        subject = note.subject
        lines += [f"## {note.number}. {subject.kind}: {code(subject.title)}", ""]
        if note.words:
            lines += [visible_block(note.words), ""]
        lines += [*(f"- {name.replace('_', ' ')}: {code(_told(value))}" for name, value in facts(subject.about)), ""]
        if subject.kind == "result":
            lines += _figures(str(subject.about.get("result", "")))
        if subject.command:
            lines += [*fenced(visible(subject.command), "sh"), ""]
        lines += [f"*{visible(note.created)}*", ""]
    return "\n".join(lines)


def facts(about: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What is known of a subject beside its title, without what is empty; numbers of a token by name."""
    for name, value in about.items():
        if isinstance(value, Mapping):
            yield from facts(value)
        elif name in IN_TITLE:
            continue
        elif value not in (None, "", []):
            yield name, value


def _told(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def code(text: str) -> str:
    """A text as Markdown code, whatever backticks are in it."""
    shown = visible(text)
    marks = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return f"{marks} {shown} {marks}" if "`" in shown or shown != shown.strip() else f"{marks}{shown}{marks}"


def fenced(text: str, language: str = "") -> list[str]:
    """Lines of a block of code, whatever backticks are in it."""
    marks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return [f"{marks}{language}", *text.split("\n"), marks]


def _figures(result_id: str) -> list[str]:
    """The first figures of a stored result as text; why there are none, where it is gone or damaged."""
    from inspector.drawing.lines import text_of
    from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
    from inspector.drawing.terminal_figures import render_figure
    from inspector.experiments import find
    from inspector.reports.result import figures_of, reading
    from inspector.store.results import load

    try:
        stored = load(result_id)
        figures = figures_of(find(stored.record.experiment), stored.result)
        palette = build_palette(DEFAULT_ENDPOINTS, "none")
        with reading(stored.result):
            drawn = [text_of(render_figure(figure, WIDTH, HEIGHT, palette)) for figure in figures[:FIGURES]]
    except InspectorError as error:
        return [f"Its figures cannot be drawn: {visible(str(error))}", ""]
    return [line for text in drawn for line in (*fenced("\n".join(map(str.rstrip, text.split("\n")))), "")]
