"""`dm-inspect sessions`: the background processes that hold models, seen from outside."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from inspector.cli.lazy import Command
from inspector.cli.narration import duration, say
from inspector.cli.output import print_json_list, print_rows
from inspector.disk.locks import resident_bytes
from inspector.errors import UsageError
from inspector.spec import AppRequest, OpenApp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspector.session.discovery import SessionRecord


@click.group(epilog="\b\nExample:\n  dm-inspect sessions list")
def sessions() -> None:
    """List, attach to or stop background sessions.

    A session holds one model on one device. The app starts it and it stays when the app is closed or the connection is
    lost, so that the next start is quick and nothing is computed twice.
    """


@sessions.command("list", cls=Command, epilog="\b\nExample:\n  dm-inspect sessions list --json")
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"sessions": [...]}.')
def list_sessions(as_json: bool) -> None:
    """List the sessions of this user on this machine."""
    from inspector.session import discovery

    records = discovery.list_sessions()
    if as_json:
        print_json_list("sessions", map(_row, records))
    elif not records:
        say("No session is running. `dm-inspect` starts one.")
    else:
        _print(records)


@sessions.command("attach", cls=Command, epilog="\b\nExample:\n  dm-inspect sessions attach 0123456789ab")
@click.argument("session_id", metavar="[ID]", required=False)
@click.option("--theme", metavar="NAME", help="Colours of the app.")
@click.pass_context
def attach(context: click.Context, session_id: str | None, theme: str | None) -> None:
    """Open the app on a running session; without ID on the only one."""
    from inspector.cli.main import has_terminal
    from inspector.session import discovery

    record = discovery.find_session(session_id)
    if not has_terminal():
        raise UsageError(
            "There is no terminal to open the app in. Use `dm-inspect run` or `dm-inspect tokens` instead."
        )
    open_app: OpenApp = context.obj
    target = record.target
    context.exit(open_app(AppRequest(target=target, theme=theme, session_id=record.id)))


@sessions.command("stop", cls=Command, epilog="\b\nExample:\n  dm-inspect sessions stop --all")
@click.argument("session_id", metavar="[ID]", required=False)
@click.option("--all", "stop_all", is_flag=True, help="Stop every session of this user on this machine.")
def stop(session_id: str | None, stop_all: bool) -> None:
    """End a session and free its memory; without ID the only one."""
    from inspector.session import discovery

    if stop_all and session_id is not None:
        raise UsageError(f"--all and {session_id} were both given. Leave one out.")
    ids = [record.id for record in discovery.list_sessions()] if stop_all else [session_id]
    if not ids:
        say("No session is running.")
    for each in ids:
        record = discovery.stop_session(each)
        say(f"stopped {record.id} ({record.model})")


def _print(records: Sequence[SessionRecord]) -> None:
    titles = ("session", "pid", "model", "hook", "device", "memory", "state", "age")
    print_rows(
        titles,
        (
            (each.id, str(each.pid), each.model, each.hook, each.device, memory_text(each), each.state, _age(each))
            for each in records
        ),
    )


def _row(record: SessionRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "pid": record.pid,
        "model": record.model,
        "hook": record.hook,
        "device": record.device,
        "memory_bytes": resident_bytes(record.pid),
        "device_bytes": record.device_bytes,
        "state": record.state,
        "started": record.started,
        "log": record.log,
    }


def memory_text(record: SessionRecord) -> str:
    """`1.4 GB`; with a GPU `1.4 GB + 18.2 GB`, the second on the device."""
    parts = [f"{n / 1e9:.1f} GB" for n in (resident_bytes(record.pid), record.device_bytes) if n is not None]
    return " + ".join(parts)


def _age(record: SessionRecord) -> str:
    return duration(time.time() - record.started)
