"""What a job says while it runs, in a file beside the table of jobs: one line per thing that happened."""

from __future__ import annotations

import datetime
import logging
import time
from pathlib import Path

from inspector.disk.files import at_once, open_file

LARGEST_READ = 512 * 1024
"""Bytes looked at for the last lines."""
MOST_LINES = 2000
SECONDS_BETWEEN = 10.0
"""Between two lines about progress; an hour's job stays readable."""

log = logging.getLogger(__name__)


class JobLogFile:
    """Appends lines. A disk that is full costs the line, never the job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._said_at = float("-inf")
        self._about = ""

    def say(self, text: str) -> None:
        """One line, with the time before it."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        line = f"{now} {' '.join(text.split())}\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8", errors="backslashreplace", opener=at_once) as file:
                file.write(line)
        except OSError as error:
            log.warning("the job's log could not be written: %s", error)

    def progress(self, about: str, text: str) -> None:
        """A line about progress, unless one about the same was written a moment ago."""
        now = time.monotonic()
        if about != self._about or now - self._said_at >= SECONDS_BETWEEN:
            self._about, self._said_at = about, now
            self.say(text)


def last_lines(path: Path, n_lines: int) -> list[str]:
    """The last lines of a log, at most MOST_LINES; none if there is no such file."""
    try:
        with open_file(path) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - LARGEST_READ))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = text.split("\n")
    if size > LARGEST_READ:
        del lines[0]  # its beginning was cut off
    if lines and not lines[-1]:
        lines.pop()
    return lines[-min(max(n_lines, 1), MOST_LINES) :]
