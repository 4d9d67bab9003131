"""A program in a pseudo-terminal of its own: what it writes, when, and what the screen then shows.

A byte count is exact, a wall time is as noisy as the machine; measures that need a time therefore compare two programs
in one run. Nothing here knows the program that is measured, but for the variable that says where its sockets are.
Linux and macOS.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyte

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

COLUMNS, ROWS = 120, 40
PASSED_ON = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "OMP_NUM_THREADS", "LD_LIBRARY_PATH")
"""What a measured program inherits. All else, HOME above all, is made for it: no user setting may move a number."""

ANSWERS: tuple[tuple[bytes, bytes], ...] = (
    (b"\x1b[?2026$p", b"\x1b[?2026;2$y"),  # synchronised output: known, off
    (b"\x1b[?2048$p", b"\x1b[?2048;0$y"),  # resize reports in band: unknown
    (b"\x1b[c", b"\x1b[?62;22c"),  # a VT220 with colour
    (b"\x1b[6n", b"\x1b[1;1R"),
)
"""What Textual asks its terminal, and what a common terminal answers."""

_WHOLE_SEQUENCE = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]+[0-~]|[0-OQ-WYZ\\`-~])"
)
_BEGUN_SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[PX^_][^\x1b]*\x1b?|[ -/]*)")
_UNKNOWN_TO_PYTE = re.compile(
    rb"\x1b\[[<>=][0-?]*[ -/]*[@-~]|\x1b\[[0-?]*[ -/]+[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[PX^_][^\x1b]*\x1b\\"
)
_LONGEST_SEQUENCE = 4096
"""Bytes. An escape that is still open after so many was never a sequence."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What one read returned."""

    at: float
    """Seconds, `time.perf_counter`, which all processes of a machine share."""
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Burst:
    """What a program wrote between a moment and the silence after it."""

    n_bytes: int
    seconds: float
    """From that moment to the last byte; 0 if nothing came."""


class Screen:
    """The cells a terminal would show, fed with raw bytes in any cuts."""

    def __init__(self, columns: int = COLUMNS, rows: int = ROWS) -> None:
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._open = b""

    def feed(self, data: bytes) -> None:
        """Take more bytes; a sequence cut in two waits for its second half."""
        data = self._open + data
        cut = _open_sequence(data)
        self._open = data[cut:]
        self._stream.feed(_UNKNOWN_TO_PYTE.sub(b"", data[:cut]))

    def resize(self, columns: int, rows: int) -> None:
        """Change the size; the program is told by its terminal, not here."""
        self._screen.resize(rows, columns)

    @property
    def lines(self) -> list[str]:
        """Each row as text, trailing blanks kept."""
        return list(self._screen.display)

    @property
    def n_visible(self) -> int:
        """Cells that show something."""
        return sum(not character.isspace() for line in self._screen.display for character in line)

    def styles(self, row: int) -> list[tuple[str, str, str]]:
        """Character, foreground and background of each cell of a row."""
        cells = self._screen.buffer[row]
        return [(cells[c].data, cells[c].fg, cells[c].bg) for c in range(self._screen.columns)]


def _open_sequence(data: bytes) -> int:
    """Where a control sequence starts that `data` does not finish; len(data) if there is none."""
    at = data.find(b"\x1b")
    while at >= 0:
        whole = _WHOLE_SEQUENCE.match(data, at)
        if whole is None and _BEGUN_SEQUENCE.fullmatch(data, at) and len(data) - at <= _LONGEST_SEQUENCE:
            return at
        at = data.find(b"\x1b", whole.end() if whole else at + 1)
    return len(data)


class Home:
    """An empty home directory for one measured program and everything it starts.

    Short on purpose: a Unix socket's path has room for about a hundred bytes.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="dm-"))

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """A true-colour xterm in UTF-8, private directories, then `extra`; an empty value removes the name."""
        run_dir = self.path / "run"
        run_dir.mkdir(mode=0o700, exist_ok=True)
        found = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        found |= {"HOME": str(self.path), "TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"}
        found |= {"LC_ALL": "C.UTF-8", "XDG_RUNTIME_DIR": str(run_dir), "DM_INSPECT_RUNTIME_DIR": str(run_dir)}
        for name in ("CONFIG", "DATA", "STATE", "CACHE"):
            found[f"XDG_{name}_HOME"] = str(self.path / name.lower())
        # What is shown once, on the first start, is no part of what is measured.
        seen = self.path / "state" / "dm-inspect" / "view.json"
        seen.parent.mkdir(parents=True, exist_ok=True)
        if not seen.exists():
            seen.write_text('{"version": 1, "tour": true}')
        found |= dict(extra or {})
        return {name: value for name, value in found.items() if value}

    def processes(self) -> list[int]:
        """Process ids that live in this home: a detached session, if one was started. Empty without /proc."""
        mine = f"HOME={self.path}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mine in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return [pid for pid in found if pid != os.getpid()]

    def close(self) -> None:
        """End what still lives in this home, then remove it."""
        for how, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 2.0)):
            for pid in self.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, how)
            until = time.perf_counter() + patience
            while self.processes() and time.perf_counter() < until:
                time.sleep(0.05)
        shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> Home:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Terminal:
    """One program started in a pseudo-terminal; every byte it writes is kept with its time."""

    def __init__(
        self,
        command: Sequence[str],
        home: Home,
        *,
        columns: int = COLUMNS,
        rows: int = ROWS,
        extra: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        self.chunks: list[Chunk] = []
        self.columns, self.rows = columns, rows
        self._screen = Screen(columns, rows)
        self._shown = 0
        self._home = home
        self._master, slave = os.openpty()
        self._set_size(slave, columns, rows)
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            list(command),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=home.environment(extra),
            cwd=directory,
            close_fds=True,
            start_new_session=True,
            preexec_fn=_own_terminal,  # noqa: PLW1509 - this harness has one thread
        )
        os.close(slave)

    @property
    def pid(self) -> int:
        """Process id of the program."""
        return self.process.pid

    def send(self, keys: bytes | str) -> None:
        """Type."""
        os.write(self._master, keys.encode() if isinstance(keys, str) else keys)

    def resize(self, columns: int, rows: int) -> None:
        """Change the window's size, as a window manager does."""
        self._feed()
        self.columns, self.rows = columns, rows
        self._screen.resize(columns, rows)
        self._set_size(self._master, columns, rows)

    def read(self, wait: float) -> bool:
        """One read of at most `wait` seconds; False if nothing came."""
        ready, _, _ = select.select([self._master], [], [], max(wait, 0.0))
        if not ready:
            return False
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # Linux says EIO when the last program on the slave side is gone
            data = b""
        if not data:
            time.sleep(min(wait, 0.02))
            return False
        self.chunks.append(Chunk(at=time.perf_counter(), data=data))
        for question, answer in ANSWERS:
            for _ in range(data.count(question)):
                os.write(self._master, answer)
        return True

    def read_for(self, seconds: float) -> Burst:
        """Read for so long."""
        start = time.perf_counter()
        while (left := start + seconds - time.perf_counter()) > 0:
            self.read(left)
        return self._burst(start)

    def read_until_silent(self, silence: float = 0.3, limit: float = 5.0, first: float = 1.0) -> Burst:
        """Read until nothing came for `silence` seconds; wait up to `first` seconds for the first byte.

        A process that has work and no core to do it on is not silent: on a busy machine it may be kept from its next
        byte for longer than `silence`.
        """
        start = last = time.perf_counter()
        came, processes = False, self._home.processes()
        while (now := time.perf_counter()) - start < limit and now - last < (silence if came else first):
            if self.read(min(silence, 0.02)):
                came, last = True, time.perf_counter()
            elif any(is_at_work(pid) for pid in processes):
                last = time.perf_counter()
        return self._burst(start)

    def press(self, keys: bytes | str, silence: float = 0.3, limit: float = 5.0) -> Burst:
        """Type, and say what that made the program write."""
        self.send(keys)
        return self.read_until_silent(silence, limit)

    def wait_until(self, holds: Callable[[list[str]], bool], limit: float = 60.0) -> bool:
        """Read until the screen's lines satisfy `holds`; False if they did not in time or the program ended."""
        until = time.perf_counter() + limit
        while time.perf_counter() < until:
            came = self.read(0.05)
            while came and self.read(0.005):
                pass
            if holds(self.lines):
                return True
            if not came and self.process.poll() is not None:
                return False
        return False

    def wait_for(self, text: str, limit: float = 60.0) -> bool:
        """Read until the screen shows `text`."""
        return self.wait_until(lambda lines: any(text in line for line in lines), limit)

    @property
    def lines(self) -> list[str]:
        """The screen as it is now."""
        self._feed()
        return self._screen.lines

    @property
    def screen(self) -> Screen:
        """The screen with its colours."""
        self._feed()
        return self._screen

    @property
    def raw(self) -> bytes:
        """All bytes so far."""
        return b"".join(chunk.data for chunk in self.chunks)

    def first_painted(self, visible: int = 20) -> float | None:
        """Seconds from the start to the first screen with at least so many visible cells; None if there was none."""
        screen = Screen(self.columns, self.rows)
        for chunk in self.chunks:
            screen.feed(chunk.data)
            if screen.n_visible >= visible:
                return chunk.at - self.started
        return None

    def close(self) -> int:
        """End the program the way a closed window does, and return its exit status."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                self.process.send_signal(how)
            until = time.perf_counter() + 3.0
            while self.process.poll() is None and time.perf_counter() < until:
                self.read(0.05)
        with suppress(OSError):
            os.close(self._master)
        return self.process.wait()

    def hang_up(self) -> None:
        """Lose the connection: the terminal goes away under the program, which has five seconds to notice."""
        os.close(self._master)
        try:
            self.process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _feed(self) -> None:
        for chunk in self.chunks[self._shown :]:
            self._screen.feed(chunk.data)
        self._shown = len(self.chunks)

    def _burst(self, start: float) -> Burst:
        since = [chunk for chunk in self.chunks if chunk.at >= start]
        return Burst(n_bytes=sum(len(c.data) for c in since), seconds=since[-1].at - start if since else 0.0)

    @staticmethod
    def _set_size(descriptor: int, columns: int, rows: int) -> None:
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _own_terminal() -> None:
    """In the child: make standard input the controlling terminal, so that a resize and a hang-up reach it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def is_at_work(pid: int) -> bool:
    """Whether a thread of a process computes or waits for a core. False without /proc."""
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):  # it ended meanwhile
            if task.read_text().rpartition(")")[2].split()[0] == "R":
                return True
    return False


def python(*arguments: str) -> list[str]:
    """This interpreter with arguments."""
    return [sys.executable, *arguments]
