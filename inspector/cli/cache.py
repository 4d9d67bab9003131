"""`dm-inspect cache`: what the program keeps on disk by itself, whether it is whole, and what may go."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inspector.cli import experiments
from inspector.cli.lazy import Command
from inspector.cli.narration import say
from inspector.cli.output import print_json, print_json_list, print_text
from inspector.cli.target_options import Written
from inspector.disk.files import HALF, is_own_folder
from inspector.disk.folders import ANSWERS, DEQUANTISED
from inspector.errors import DataError, InspectorError
from inspector.interp.asking import answers_table
from inspector.options import Notation, parse_size
from inspector.store.cache import Kind, kinds, remove_folder, table_kind

if TYPE_CHECKING:
    from inspector.store.cache import Entry

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def _age(text: str) -> float:
    """Seconds of `30d`, `12h`, `90m`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is no age. Write for example 30d, 12h or 90m.")
    return float(found[1]) * _SECONDS[found[2]]


AGE = Notation(_age, str, "age")
LIMIT = Notation(lambda text: 0 if text.strip() == "0" else parse_size(text), str, "size")
"""As SIZE of TARGET; nothing may be a limit here."""


@click.group(epilog="\b\nExample:\n  dm-inspect cache info")
def cache() -> None:
    """Show, verify and shrink what the program keeps on disk.

    Results and jobs are shown and verified but never removed. Models and SAEs from the Hugging Face hub are in the
    hub's own cache, which other tools share: `hf cache` looks after it.
    """


@cache.command("info", cls=Command, epilog="\b\nExample:\n  dm-inspect cache info --json")
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"cache": [...]}.')
def info(as_json: bool) -> None:
    """List what is kept: where, how much, since when, and what for."""
    found = [(kind, kind.entries()) for kind in all_kinds()]
    if as_json:
        print_json_list("cache", [_row(kind, entries) for kind, entries in found])
        return
    from inspector.drawing.figures import Column, Table
    from inspector.drawing.terminal_figures import render_table

    columns = tuple(Column(title=title) for title in ("kind", "items", "size", "in use", "what it is", "folder"))
    cells = tuple(
        (
            kind.name,
            len(entries),
            amount(sum(entry.n_bytes for entry in entries)),
            sum(entry.in_use for entry in entries),
            kind.what,
            str(kind.folder),
        )
        for kind, entries in found
    )
    print_text(render_table(Table(title="", columns=columns, rows=cells)), end="")


@cache.command("verify", cls=Command, epilog="\b\nExample:\n  dm-inspect cache verify --json")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def verify(as_json: bool) -> None:
    """Read every byte that is kept and compare it with its checksum.

    Ends with exit code 4 if anything is damaged, and says of each what to do. Damaged files are never used: what can be
    made again is made again by the next command that wants it.
    """
    from inspector.store import cache as store

    found = store.verify(all_kinds())
    if as_json:
        damaged = [
            {"kind": each.kind.name, "path": str(each.path), "problem": each.problem, "rebuild": each.kind.rebuild}
            for each in found.damaged
        ]
        print_json(
            {
                "verified": found.n_entries,
                "bytes": found.n_bytes,
                "skipped": list(map(str, found.skipped)),
                "damaged": damaged,
            }
        )
    for path in found.skipped:
        say(f"{path} is in use by a running process and was left out")
    if not found.damaged:
        say(f"{found.n_entries:,} items, {amount(found.n_bytes)}: all as they were written")
        return
    if not as_json:
        for each in found.damaged:
            print_text(each.sentences)
    n = len({each.path for each in found.damaged})
    raise DataError(
        f"{n:,} of {found.n_entries:,} items {'is' if n == 1 else 'are'} damaged. "
        "What was printed says how to make each of them again."
    )


@cache.command("prune", cls=Command, epilog="\b\nExample:\n  dm-inspect cache prune --older-than 30d --max-size 5G")
@click.option("--older-than", type=Written(AGE), metavar="D", help="Remove what was not used for so long: 30d, 12h.")
@click.option(
    "--max-size", type=Written(LIMIT), metavar="S", help="Remove the oldest until so much is left: 10G, 500M."
)
@click.option("--dry-run", is_flag=True, help="Remove nothing; say what would be.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def prune(older_than: float | None, max_size: int | None, dry_run: bool, as_json: bool) -> None:
    """Remove what dead processes left behind; with options, what is old or too much.

    Checkpoints, tokens and lists that can be made again go by age and size; answers of judges and SAEs of the
    experiment error-saes by age alone. Results and jobs stay, and so does what a running process uses.
    """
    from inspector.store import cache as store

    done = store.prune(all_kinds(), older_than=older_than, max_size=max_size, dry_run=dry_run)
    if as_json:
        print_json(
            {
                "removed": list(map(str, done.removed)),
                "bytes": done.n_bytes,
                "in_use": list(map(str, done.in_use)),
                "left_bytes": done.left_bytes,
                "dry_run": dry_run,
            }
        )
    else:
        for path in done.removed:
            print_text(str(path))
    for path in done.in_use:
        say(f"{path} is in use by a running process and stays")
    verb = "would be removed" if dry_run else "removed"
    say(f"{len(done.removed):,} items, {amount(done.n_bytes)} {verb}; {amount(done.left_bytes)} may be pruned still")


def all_kinds() -> list[Kind]:
    """The store's kinds, and those of the layers above it."""
    return [*kinds(), dequantised_kind(DEQUANTISED.path()), answers_kind(ANSWERS.path()), experiments_kind()]


def amount(n_bytes: int) -> str:
    """`512 B`, `14.2 kB`, `1.3 GB`."""
    size = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _row(kind: Kind, entries: list[Entry]) -> dict[str, object]:
    times = [entry.used for entry in entries]
    return {
        "kind": kind.name,
        "items": len(entries),
        "bytes": sum(entry.n_bytes for entry in entries),
        "in_use": sum(entry.in_use for entry in entries),
        "oldest": _when(min(times, default=None)),
        "newest": _when(max(times, default=None)),
        "pruned": kind.prunable,
        "what": kind.what,
        "folder": str(kind.folder),
    }


def _when(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    import datetime

    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def dequantised_kind(folder: Path) -> Kind:
    """One folder per GGUF; a half made one is another process's, or was left by it."""
    from inspector.sources import gguf_files

    return Kind(
        name="dequantised",
        what="models made from GGUF files",
        rebuild="Remove it; what opens the GGUF makes it again, which takes a minute.",
        folder=folder,
        find=lambda: filter(gguf_files.is_ours, filter(is_own_folder, folder.iterdir())),
        damage=gguf_files.damage_of,
        prunable="by age",
        remove=remove_folder,
    )


def answers_kind(folder: Path) -> Kind:
    """Answers of judges, in one table; they cost money or hours, so only an age removes them, one by one."""
    table = answers_table(folder)

    def remove_older(path: Path, than: float) -> int:
        """Answers from before this time; other processes may go on reading and writing."""
        before = path.stat().st_size
        query = "DELETE FROM answers WHERE created < ?"
        try:
            n_gone: int = table.transact(lambda connection: connection.execute(query, (than,)).rowcount)
            if n_gone:
                table.give_room_back()
        except (InspectorError, sqlite3.Error):  # in use, or no room to make it smaller
            return 0
        return max(1, before - path.stat().st_size) if n_gone else 0

    return table_kind(
        table,
        name="judge",
        what="answers of judges",
        rebuild="Damaged answers are asked for again when they are wanted.",
        prunable="by age",
        remove=lambda path: False,  # never as a whole: a process may be about to write into it
        remove_older=remove_older,
    )


def experiments_kind() -> Kind:
    """What `dm-inspect experiments` says; its first line is the checksum of the rest."""
    path = Path(experiments.kept_in())
    return Kind(
        name="experiments",
        what="the list that `dm-inspect experiments` prints",
        rebuild="The next `dm-inspect experiments` makes it again.",
        folder=path.parent,
        find=lambda: filter(Path.is_file, [path]),
        damage=lambda path: [] if experiments.is_whole(str(path)) else ["its checksum does not fit"],
        leftover=rf"\.experiments\.json{HALF}|experiments\.json\.\d+\.tmp",
    )
