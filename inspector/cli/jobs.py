"""`dm-inspect jobs`: what sessions run or have run, seen and steered from anywhere. Looking starts nothing."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from inspector.cli.lazy import Command
from inspector.cli.narration import duration, say
from inspector.cli.output import print_json, print_json_list, print_rows, print_text
from inspector.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspector.store.jobs import Job


@click.group(epilog="\b\nExample:\n  dm-inspect jobs list")
def jobs() -> None:
    """List, show, cancel or resume jobs.

    A job is a run in a background session: `dm-inspect run --detach` starts one, and so does the app. It goes on when
    the terminal is closed. An ID may be shortened as long as it stays the only one.
    """


@jobs.command("list", cls=Command, epilog="\b\nExample:\n  dm-inspect jobs list --json")
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"jobs": [...]}.')
def list_(as_json: bool) -> None:
    """List the jobs of all sessions, newest first."""
    from inspector.store.jobs import JobStore

    listed = JobStore().all()
    for problem in listed.problems:
        say(f"warning: {problem}")
    if as_json:
        print_json_list("jobs", map(row, listed.jobs))
    elif not listed.jobs:
        say("There are no jobs. `dm-inspect run --detach` starts one.")
    else:
        print_rows(
            ("job", "experiments", "state", "progress", "session", "created"),
            (
                (
                    each.id,
                    _first(each.spec.experiments),
                    each.state,
                    progress_text(each),
                    each.session,
                    _when(each.created),
                )
                for each in listed.jobs
            ),
        )


@jobs.command("show", cls=Command, epilog="\b\nExample:\n  dm-inspect jobs show 3f8a2c91 --json")
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(job_id: str, as_json: bool) -> None:
    """Show one job: how far it is, its results, its command, and why it ended."""
    from inspector.disk.folders import RESULTS
    from inspector.store.jobs import JobStore

    job = JobStore().find(job_id)
    if as_json:
        print_json(row(job))
        return
    elsewhere = job.results_folder if job.results and job.results_folder != str(RESULTS.path()) else ""
    facts = [
        ("job", job.id),
        ("experiments", " ".join(job.spec.experiments)),
        ("state", job.state if not job.exit_code else f"{job.state}, exit code {job.exit_code}"),
        ("why", job.error),
        ("progress", progress_text(job)),
        ("workers", "\n".join(f"{each.number} {each.state} {each.told}".rstrip() for each in job.workers)),
        ("created", _when(job.created)),
        ("started", _when(job.started)),
        ("ended", _when(job.ended)),
        ("took", duration(job.ended - job.started) if job.ended and job.started else ""),
        ("session", f"{job.session}, pid {job.owner.pid} on {job.owner.host}"),
        ("results", "\n".join(job.results)),
        ("kept in", elsewhere),
        ("command", job.command),
        ("log", job.log),
    ]
    for name, value in facts:
        for place, line in enumerate(value.splitlines()):
            print_text(f"{name if not place else '':<12} {line}")


@jobs.command("log", cls=Command, epilog="\b\nExample:\n  dm-inspect jobs log 3f8a2c91 --lines 20")
@click.argument("job_id", metavar="ID")
@click.option("--lines", type=click.IntRange(min=1), default=200, show_default=True, metavar="N", help="The last N.")
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"job": ID, "lines": [...]}.')
def show_log(job_id: str, lines: int, as_json: bool) -> None:
    """Print what a job has said; times are UTC."""
    from inspector.store.jobs import JobStore

    store = JobStore()
    job = store.find(job_id)
    said = store.log(job.id).last_lines(lines)
    if as_json:
        print_json({"job": job.id, "lines": said})
        return
    for line in said:
        print_text(line)


@jobs.command("cancel", cls=Command, epilog="\b\nExample:\n  dm-inspect jobs cancel 3f8a2c91")
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def cancel(job_id: str, as_json: bool) -> None:
    """Stop a job after the step under way; what it has finished is kept, and it can be resumed."""
    from inspector.session.client import ask_session
    from inspector.session.protocol import CancelJob
    from inspector.store.jobs import JobStore

    store = JobStore()
    job = store.find(job_id)
    if not job.is_live and job.state != "interrupted":
        raise job.over()
    if job.is_live:
        with contextlib.suppress(OSError):  # the session has just ended; the table says so below
            ask_session(job.session, CancelJob(job=job.id))
        job = store.find(job.id)
    if job.is_live:
        raise UsageError(
            f"The job {job.id} is {job.state} on {job.owner.host}, and its session {job.session} is not found here. "
            "Cancel it there."
        )
    if job.state == "interrupted":
        job = store.update(job.id, lambda found: replace(found, state="cancelled", ended=time.time()))
    if job.state != "cancelled":  # it came to its end meanwhile
        raise job.over()
    if as_json:
        print_json(row(job))
    else:
        say(f"cancelled {job.id} ({' '.join(job.spec.experiments)}); `dm-inspect jobs resume {job.id}` goes on with it")


@jobs.command("resume", cls=Command, epilog="\b\nExample:\n  dm-inspect jobs resume 3f8a2c91")
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def resume(job_id: str, as_json: bool) -> None:
    """Go on with an interrupted, failed or cancelled job; its session is started if it is gone.

    What it has finished is not computed again, and the result is the same as without the interruption.
    """
    from inspector.session.client import ask_session, ask_target
    from inspector.session.protocol import ResumeJob
    from inspector.store.jobs import JobStore

    store = JobStore()
    job = store.find(job_id)
    job.require_resumable()
    message = ResumeJob(job=job.id)
    try:
        ask_session(job.session, message)
    except OSError:
        ask_target(job.spec.target, message)
    job = store.find(job.id)
    if as_json:
        print_json(row(job))
    else:
        say(f"resumed {job.id} in session {job.session}; `dm-inspect jobs show {job.id}` tells how far it is")


def row(job: Job) -> dict[str, object]:
    """One job as `--json` prints it; scripts depend on these keys."""
    return {
        "id": job.id,
        "experiment": " ".join(job.spec.experiments),
        "state": job.state,
        "progress": progress(job),
        "session": job.session,
        "command": job.command,
        "result": job.results[-1] if job.results else None,
        "results": list(job.results),
        "stage": job.stage,
        "done": job.done,
        "total": job.total,
        "tokens_per_second": job.tokens_per_second,
        "seconds_left": job.seconds_left,
        "workers": [asdict(each) for each in job.workers],
        "created": job.created,
        "started": job.started or None,
        "ended": job.ended or None,
        "pid": job.owner.pid,
        "host": job.owner.host,
        "error": job.error or None,
        "exit_code": job.exit_code,
        "log": job.log,
        "results_folder": job.results_folder,
    }


def progress(job: Job) -> float | None:
    """Share of the stage that is done, 1 for a job that is done; None while it cannot be counted."""
    if job.state == "done":
        return 1.0
    return job.done / job.total if job.total else None


def progress_text(job: Job) -> str:
    """`moments 12/300 · 4,100 tokens/s · 2 min 05 s left`, as far as it is known."""
    if job.state not in ("running", "interrupted", "cancelled", "failed") or not job.stage:
        return f"{len(job.results)} of {len(job.spec.experiments)} results" if job.results else ""
    parts = [f"{job.stage} {job.done}/{job.total}" if job.total else job.stage]
    if job.state == "running":
        parts += [f"{job.tokens_per_second:,.0f} tokens/s"] if job.tokens_per_second else []
        parts += [f"{duration(job.seconds_left)} left"] if job.seconds_left is not None else []
    return " · ".join(parts)


def _first(experiments: Sequence[str]) -> str:
    """The first two, and how many more."""
    more = f" and {len(experiments) - 2} more" if len(experiments) > 2 else ""
    return " ".join(experiments[:2]) + more


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""
