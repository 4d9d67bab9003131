"""What is shown before there are tokens: what loads and for how long, or why it failed and what to do."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING

from inspector.drawing.safe_text import visible
from inspector.tui.job_lines import bar, duration, percent
from inspector.tui.lines import Line, Part, cut, fit, left
from inspector.tui.widgets.line_pane import LinePane

if TYPE_CHECKING:
    from inspector.tui.session import LoadStep, SessionView

COLUMN = 44
"""Width of the names before the seconds."""


def load_lines(session: SessionView, model: str, now: float, started: float, width: int, height: int) -> list[Line]:
    """The whole picture of a stage.

    Args:
        session: As known.
        model: What was asked for, for the first line.
        now: Clock time, seconds.
        started: Clock time at which the program began to connect.
        width: Columns.
        height: Lines; with less room the earliest steps go.
    """
    if session.stage in ("failed", "lost"):
        return failed_lines(session, width)
    doing = "starting a session for" if session.stage == "connecting" else "loading"
    head: list[Line] = [[(f"{doing} ", "muted"), (model, "strong"), (f"   {now - started:.0f} s", "muted")], []]
    steps = [line for step in session.steps for line in step_lines(step, now, width)]
    if session.stage == "ready":
        steps.append([("… ", "accent"), ("scoring the first tokens", "")])
    room = max(1, height - len(head))
    return [*head, *steps[-room:]]


def step_lines(step: LoadStep, now: float, width: int) -> list[Line]:
    """A step; below one that fetches files, how far they are."""
    if not step.total_bytes or step.seconds is not None:
        return [step_line(step, now, width)]
    return [step_line(replace(step, detail=""), now, width), [("  ", ""), *download_line(step, width - 2)]]


def download_line(step: LoadStep, width: int) -> Line:
    """Bar, per cent, gigabytes, rate, time left: of all files of the step together."""
    per_second, left_over = step.bytes_per_second, step.total_bytes - step.done_bytes
    bytes_told = f"{size(step.done_bytes)} of {size(step.total_bytes)}" if step.done_bytes else size(step.total_bytes)
    parts = [
        Part(variants=tuple(bar(step.done_bytes, step.total_bytes, columns) for columns in (32, 20, 10)), weight=4),
        Part(variants=([(percent(step.done_bytes, step.total_bytes), "strong")],), weight=9),
        Part(variants=([(bytes_told, "")], []), weight=5),
        Part(variants=([(f"{size(per_second)}/s", "muted")], []) if per_second > 0 else ([],), weight=2),
        Part(variants=([(f"{duration(left_over / per_second)} left", "")], []) if per_second > 0 else ([],), weight=3),
    ]
    return [piece for index, line in enumerate(fit(parts, width)) for piece in ([("  ", "")] * bool(index) + line)]


def size(n_bytes: float) -> str:
    """Bytes as hubs and disks count them, in powers of ten: 35 MB, 1.20 GB."""
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def step_line(step: LoadStep, now: float, width: int) -> Line:
    """A step with its mark, name, detail and seconds."""
    done = step.seconds is not None
    seconds = step.seconds if step.seconds is not None else now - step.started
    name_width = max(8, min(COLUMN, width - 12))
    detail = f"  {step.detail}" if step.detail else ""
    name = cut(step.what, name_width)
    return [
        ("✓ " if done else "… ", "good" if done else "accent"),
        (name, "" if done else "strong"),
        (left(visible(detail) if detail else "", max(0, name_width - len(name))), "muted"),
        (f"{seconds:7.1f} s", "muted"),
    ]


def failed_lines(session: SessionView, width: int) -> list[Line]:
    """The error's sentences, where the log is, and the two ways on."""
    what = "the session could not load its target" if session.log_path else "no session could be started"
    lines: list[Line] = [[(what, "error")], []]
    text = session.error or "No reason was given."
    for part in text.splitlines():
        lines += [[(visible(line), "strong")] for line in textwrap.wrap(part, max(20, min(width, 100)))]
    if session.log_path:
        lines += [[], [("log  ", "muted"), (session.log_path, "")]]
    lines += [[], [("r", "key"), (" try again   ", "muted"), ("q", "key"), (" quit", "muted")]]
    return lines


class LoadPane(LinePane):
    """Told by the screen twice a second while something loads."""

    DEFAULT_CSS = """
    LoadPane { padding: 1 3; }
    """

    def __init__(self, model: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._model = visible(model)
        self.draw(
            lambda _width, _height: [
                [("starting a session for ", "muted"), (self._model, "strong"), ("   0 s", "muted")]
            ]
        )

    def show(self, session: SessionView, now: float, started: float) -> None:
        """Draw a stage."""
        self.draw(lambda width, height: load_lines(session, self._model, now, started, width, height))
