"""One owner at a time, and the operating system takes the lock back from whoever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from inspector.disk.locks import FolderLock, alone, unused
from inspector.store.checkpoints import remove_folder

ROOT = Path(__file__).parents[2]


def test_a_lock_has_one_owner(tmp_path: Path) -> None:
    mine, other = FolderLock(tmp_path / "run"), FolderLock(tmp_path / "run")
    assert mine.take() and mine.is_held and not other.take() and not other.is_held
    with unused(tmp_path / "run") as free:
        assert not free
    mine.release()
    mine.release()
    with unused(tmp_path / "run") as free:
        assert free and not other.take()
    assert other.take()


def test_who_waited_for_a_folder_that_was_removed_gets_the_new_one(tmp_path: Path) -> None:
    mine, other = FolderLock(tmp_path / "run"), FolderLock(tmp_path / "run")
    assert mine.take()
    remove_folder(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert other.take() and other.path.exists()  # a new file: the old owner does not keep it
    mine.release()
    third = FolderLock(tmp_path / "run")
    assert not third.take()


def test_a_killed_owner_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\n"
        "from inspector.disk.locks import FolderLock\n"
        "lock = FolderLock(pathlib.Path(sys.argv[1])); assert lock.take()\n"
        "print('held', flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == b"held\n"
        mine = FolderLock(tmp_path)
        assert not mine.take()
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    assert mine.take()


def test_two_processes_do_not_write_into_one_folder(tmp_path: Path) -> None:
    """And nothing is left of it: the lock is the folder's own."""
    code = (
        f"from pathlib import Path; from inspector.disk.locks import alone\nwith alone(Path({str(tmp_path)!r})): pass"
    )
    with alone(tmp_path):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
        assert f"Another process writes into {tmp_path}. Wait for it" in done.stderr
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert list(tmp_path.iterdir()) == []
