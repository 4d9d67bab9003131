"""The table of jobs: what is read is what was written, the dead are found, damage costs a row and never tells a lie."""

from __future__ import annotations

import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from inspector.disk.locks import born, is_running
from inspector.errors import InspectorError, ResourceError, UsageError
from inspector.events import JobState
from inspector.spec import RunSpec, TargetSpec
from inspector.store import jobs as table
from inspector.store.jobs import Job, JobStore, Owner


def job(job_id: str, *, created: float = 1.0, state: JobState = "queued", owner: Owner | None = None) -> Job:
    return Job(
        id=job_id,
        spec=RunSpec(target=TargetSpec(model="m", layers=(3,), positions=(4, None)), experiments=("a", "b")),
        command="dm-inspect run a b",
        session="0123456789ab",
        log="log",
        owner=owner or Owner.me(),
        created=created,
        beat=created,
        state=state,
    )


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "jobs")


def test_what_was_written_is_read_newest_first(store: JobStore) -> None:
    assert store.all() == table.Jobs(jobs=())
    assert not store.table.path.exists()  # looking makes nothing
    first, second = store.add(job("aa01", created=1.0)), store.add(job("bb02", created=2.0))
    assert store.all().jobs == (second, first)
    changed = store.update("aa01", lambda found: replace(found, state="running", done=3, seconds={"": 1.5}))
    assert changed.done == 3
    assert JobStore(store.folder).find("aa") == changed
    assert (store.folder.stat().st_mode & 0o777) == 0o700


def test_a_job_that_is_not_there_has_a_nearest(store: JobStore) -> None:
    with pytest.raises(UsageError, match=r"There is no job 'x'\. `dm-inspect run --detach` starts one"):
        store.find("x")
    store.add(job("aa01"))
    store.add(job("aa02"))
    with pytest.raises(UsageError, match=r"'aa' is the beginning of 2 jobs: aa0[12], aa0[12]\. Write more of it\."):
        store.find("aa")
    with pytest.raises(UsageError, match=r"There is no job 'ab01'\. Nearest: aa01"):
        store.update("ab01", lambda found: found)


def test_the_job_of_a_dead_process_is_interrupted_for_everybody(store: JobStore) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    gone = Owner(pid=process.pid, host=socket.gethostname())
    reused = replace(Owner.me(), born="1")  # this number was another process's
    elsewhere = Owner(pid=process.pid, host="another.machine")
    store.add(job("01", owner=gone, state="running"))
    store.add(job("02", owner=reused))
    store.add(replace(job("03", owner=elsewhere, state="running"), beat=time.time()))
    store.add(replace(job("04", owner=elsewhere, state="running"), beat=time.time() - 2 * table.BEAT_SECONDS))
    store.add(job("05", owner=Owner.me(), state="running"))
    store.add(job("06", owner=gone, state="done"))
    states = {found.id: found.state for found in store.all().jobs}
    wanted = {"01": "interrupted", "03": "running", "04": "interrupted", "05": "running", "06": "done"}
    if born(os.getpid()):  # where the kernel tells when a process began
        wanted["02"] = "interrupted"
    assert {key: states[key] for key in wanted} == wanted
    assert is_running(os.getpid())
    assert not is_running(process.pid)


def test_only_one_of_many_writers_wins_and_none_is_lost(store: JobStore) -> None:
    store.add(job("01"))

    def count() -> None:
        for _ in range(25):
            store.update("01", lambda found: replace(found, done=found.done + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.find("01").done == 100


def test_old_jobs_and_their_logs_go_live_ones_stay(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "KEPT", 3)
    store.add(job("live", created=0.0))
    for number in range(5):
        path = store.log(f"{number}").path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        store.add(job(f"{number}", created=1.0 + number, state="done"))
    assert [found.id for found in store.all().jobs] == ["4", "3", "2", "live"]
    assert sorted(path.stem for path in (store.folder / "logs").iterdir()) == ["2", "3", "4"]


def test_a_table_of_a_newer_program_is_left_alone(store: JobStore) -> None:
    store.add(job("01"))
    with sqlite3.connect(store.table.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = store.table.path.read_bytes()
    with pytest.raises(InspectorError, match=r"has version 99 and this program knows 1\. Update dm-inspect"):
        store.all()
    assert store.table.path.read_bytes() == before


def test_a_row_that_says_another_thing_than_was_written_is_not_believed(store: JobStore) -> None:
    store.add(job("01"))
    store.add(job("02"))
    with sqlite3.connect(store.table.path) as connection:
        body = connection.execute("SELECT body FROM jobs WHERE id = '01'").fetchone()[0]
        told = json.dumps({**json.loads(body), "state": "done"}).encode()
        connection.execute("UPDATE jobs SET body = ? WHERE id = '01'", (told,))
    connection.close()
    listed = store.all()
    assert [found.id for found in listed.jobs] == ["02"]
    (problem,) = listed.problems
    assert "job '01'" in problem
    assert store.all().problems == ()


def test_flipped_bits_never_make_a_wrong_job(store: JobStore) -> None:
    """Every job that is read is one that was written, whatever bit of the file was flipped; writing goes on."""
    written = {name: job(name, created=float(number)) for number, name in enumerate(("01", "02", "03", "04"))}
    for each in written.values():
        store.add(each)
    with sqlite3.connect(store.table.path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    good = store.table.path.read_bytes()
    chosen = random.Random(0)
    n_lost = 0
    for _ in range(150):
        damaged = bytearray(good)
        damaged[chosen.randrange(len(damaged))] ^= 1 << chosen.randrange(8)
        for leftover in store.folder.glob(f"{table.JOBS_FILE}*"):
            leftover.unlink()
        store.table.path.write_bytes(damaged)
        try:
            found = store.all().jobs
        except InspectorError:  # refused with a reason: as good
            continue
        assert all(written[each.id] == each for each in found)
        n_lost += len(written) - len(found)
        try:
            store.add(job("05", created=9.0))
        except InspectorError:
            continue
        assert store.all().jobs[0].id == "05"
    print(f"150 flipped bits: {n_lost} of 600 rows not read, none wrong")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "no").mkdir(mode=0o500)
    with pytest.raises(ResourceError, match=r"Set DM_INSPECT_JOBS_DIR"):
        JobStore(tmp_path / "no" / "jobs").add(job("01"))


def test_a_file_in_the_folders_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("x")
    with pytest.raises(ResourceError, match=r"The folder of jobs .* cannot be made"):
        JobStore(tmp_path / "jobs").add(job("01"))


def test_a_table_that_another_process_holds_is_said_to_be_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspector.disk.table.LOCK_SECONDS", 0.0)
    store = JobStore(tmp_path)
    store.add(job("aa01"))
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ResourceError, match="Another process has held the list of jobs"):
            store.add(job("bb02"))
    assert [each.id for each in store.all().jobs] == ["aa01"]
