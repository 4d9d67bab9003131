"""How a job is written: its state, its bar, its rate, what is left of it; for every screen that shows jobs."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from inspector.drawing.safe_text import visible
from inspector.tui.lines import Line, cut, fit, joined, left, part, spread, wrapped

if TYPE_CHECKING:
    from inspector.events import JobInfo, JobState, WorkerInfo

MARKS: dict[JobState, tuple[str, str]] = {
    "queued": ("○", "muted"),
    "running": ("▶", "accent"),
    "done": ("✓", "good"),
    "failed": ("✗", "error"),
    "cancelled": ("■", "muted"),
    "interrupted": ("!", "warning"),
}
"""Sign and look of each state; the word stands beside it, so that neither has to be known."""
WORKER_LOOKS = {"starting": "muted", "running": "accent", "done": "good", "died": "error"}
BAR_FULL, BAR_HALF, BAR_EMPTY = "━", "╸", "─"


def bar(done: float, total: float, width: int, look: str = "accent") -> Line:
    """A bar of exactly `width` columns, filled in half columns; all empty if nothing can be counted."""
    share = min(max(done / total, 0.0), 1.0) if total > 0 else 0.0
    halves = int(share * width * 2)
    full, half = divmod(halves, 2)
    filled = BAR_FULL * full + BAR_HALF * half
    return [(filled, look), (BAR_EMPTY * (width - len(filled)), "muted")] if filled else [(BAR_EMPTY * width, "muted")]


def percent(done: float, total: float) -> str:
    """' 43%', four columns, rounded down: 100% is only what is done."""
    return f"{int(100 * min(max(done / total, 0.0), 1.0)):3d}%" if total > 0 else "   …"


def duration(seconds: float | None) -> str:
    """As people say it: '8 s', '2 min 05 s', '1 h 02 min', '3 days'; '-' if it is not known."""
    if seconds is None or seconds != seconds or seconds == float("inf"):
        return "-"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} days"


def rate(tokens_per_second: float) -> str:
    """'12,300 tokens/s', three digits, so that it does not flicker; '' if it is not known."""
    if tokens_per_second <= 0:
        return ""
    if tokens_per_second < 100:
        return f"{tokens_per_second:.1f} tokens/s"
    unit = 10 ** (len(str(int(tokens_per_second))) - 3)
    return f"{round(tokens_per_second / unit) * unit:,} tokens/s"


def name_of(job: JobInfo) -> str:
    """Its experiments in short: 'error-vector', 'error-vector +2'."""
    first = job.experiments[0] if job.experiments else job.id
    return visible(first if len(job.experiments) < 2 else f"{first} +{len(job.experiments) - 1}")


def changed(job: JobInfo) -> str:
    """What differs from the defaults: 'resamples=50, null=shuffle'; '' if nothing does.

    Read from its command, whose words `spec.command_of` writes: that is what is run, whatever a form once held.
    """
    import shlex

    try:
        words = shlex.split(job.command)
    except ValueError:  # a name that is not UTF-8
        return ""
    named = {"-p": "{}", "--profile": "profile={}", "--null": "null={}", "--ray": "ray={}"}
    return ", ".join(named[word].format(value) for word, value in pairwise(words) if word in named)


def indicator(job: JobInfo, waiting: int, width: int) -> Line:
    """The one line of a running job: name, stage, bar, per cent, rate, time left, and how many wait behind it.

    Args:
        job: the one that runs, or that is next.
        waiting: jobs behind it.
        width: columns.
    """
    mark, look = MARKS[job.state]
    head: Line = [(f"{mark} ", look), (name_of(job), "strong")]
    if job.state == "queued":
        head.append((" queued", "muted"))
    stage = visible(job.stage) if job.stage else ""
    name: list[Line] = [head, [(f"{mark} ", look), (cut(name_of(job), 16), "strong")]]
    parts = [part(9, *name)]
    if job.state == "running":
        parts.append(part(6, *(bar(job.done, job.total, size) for size in (24, 16, 10))))
        parts.append(part(8, [(percent(job.done, job.total), "")]))
    if stage and stage != name_of(job):
        parts.append(part(3, [(cut(stage, 28), "muted")], []))
    parts.append(part(2, [(rate(job.tokens_per_second), "muted")] if job.tokens_per_second > 0 else [], []))
    if job.state == "running" and job.seconds_left is not None:
        parts.append(part(7, [(f"{duration(job.seconds_left)} left", "")], []))
    if len(job.experiments) > 1:
        parts.append(part(4, [(results_of(job), "muted")], []))
    if waiting:
        parts.append(part(5, [(f"+{waiting} waiting", "muted")], []))
    return spread(joined(fit(parts, width - 8)), [("J", "key"), (" jobs", "muted")], width)


def results_of(job: JobInfo) -> str:
    """'1/3 results'."""
    return f"{len(job.results)}/{len(job.experiments)} results"


def row(job: JobInfo, width: int, now: float) -> Line:
    """A job as one line of a list: state, name, bar or what became of it, when.

    Args:
        job: any.
        width: columns.
        now: clock time, seconds since the epoch, for how long ago it ended.
    """
    mark, look = MARKS[job.state]
    state: Line = [(f"{mark} ", look), (left(job.state, 12), look)]
    names = ", ".join(job.experiments) or job.id
    names += f" ({told})" if (told := changed(job)) else ""
    ago = f"{duration(max(0.0, now - job.ended))} ago" if job.ended else duration_since(job, now)
    name_width = max(12, min(34, width - 14 - 36))
    line: Line = [*state, (left(visible(names), name_width), "" if job.state == "running" else "muted"), ("  ", "")]
    room = width - 14 - name_width - 2
    if job.state == "running":
        bar_width = max(6, min(20, room - 24))
        line += [*bar(job.done, job.total, bar_width), (f" {percent(job.done, job.total)}", "")]
        rest = [f"{duration(job.seconds_left)} left"] if job.seconds_left is not None else []
        rest += [results_of(job)] if len(job.experiments) > 1 else []
        free = room - bar_width - 5
        for text in rest:
            if len(text) + 2 <= free:
                line.append((f"  {text}", "muted"))
                free -= len(text) + 2
    elif job.state == "failed":
        line.append((cut(visible(job.error), max(0, room)), "error"))
    elif job.state == "done":
        results = f"{len(job.results)} result{'s' if len(job.results) != 1 else ''}"
        line += [(left(results, 12), ""), (ago, "muted")]
    else:
        what = results_of(job) if job.results else ""
        line += [(left(what, 12), "muted"), (ago, "muted")]
    return line


def duration_since(job: JobInfo, now: float) -> str:
    """How long ago it was queued."""
    return f"{duration(max(0.0, now - job.created))} ago" if job.created else ""


def detail(job: JobInfo, width: int) -> list[Line]:
    """What is known of one job, above its log: the command, the stage, the rate, the results, the error."""
    mark, look = MARKS[job.state]
    lines: list[Line] = [[(f"{mark} {job.state}", look), (f"  {visible(job.id)}", "muted")]]
    if job.state == "running":
        counted = f"{job.done:,}/{job.total:,}" if job.total else ""
        told = " · ".join(part for part in (visible(job.stage) if job.stage else "", counted) if part)
        pieces = [told, rate(job.tokens_per_second)]
        if job.seconds_left is not None:
            pieces.append(f"{duration(job.seconds_left)} left")
        lines.append([("now      ", "muted"), (cut("  ·  ".join(piece for piece in pieces if piece), width - 9), "")])
    lines += [worker_line(each, width) for each in job.workers]
    if told := changed(job):
        lines.append([("changed  ", "muted"), (cut(visible(told), width - 9), "accent")])
    if job.started and job.ended:
        lines.append([("took     ", "muted"), (duration(job.ended - job.started), "")])
    if job.error:
        lines += wrapped(visible(job.error), width, "error", least=20)
    if job.results:
        counted = f"{len(job.results)} of {len(job.experiments)}  " if len(job.results) < len(job.experiments) else ""
        lines.append([("results  ", "muted"), (cut(counted + visible(", ".join(job.results)), width - 9), "")])
    lines += command_lines(job.command, width)
    return lines


def worker_line(worker: WorkerInfo, width: int) -> Line:
    """One worker of a job on a cluster: its state, where it is, the memory of that device, what it is at."""
    head: Line = [(left(f"worker {worker.number}", 10), "muted"), (left(worker.state, 9), WORKER_LOOKS[worker.state])]
    return [*head, (cut(visible(worker.told), max(0, width - 19)), "")]


def command_lines(command: str, width: int) -> list[Line]:
    """`$ dm-inspect run ...`, broken between words, continued lines indented; to read, and to copy by its key."""
    from textwrap import wrap

    parts = wrap(visible(command), max(20, width - 2), break_long_words=True, break_on_hyphens=False)
    return [[("$ " if index == 0 else "  ", "accent"), (part, "")] for index, part in enumerate(parts)]
