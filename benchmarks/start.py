"""How soon something is there: the first painted screen, and the commands that load nothing."""

from __future__ import annotations

import statistics
import subprocess
import time
from typing import TYPE_CHECKING

from benchmarks.measures import Measure, ratio_of, unmeasured
from benchmarks.terminal import Home, Terminal, python
from benchmarks.view import open_view, wait_for_colours

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUP = "start"
BARE = python("-m", "benchmarks.bare")
YARDSTICK = python("-c", "import click")
NOT_AT_PAINT = ("torch", "transformers", "transformer_lens", "sae_lens", "plotext", "numpy", "pyarrow")
NOT_FOR_HELP = ("torch", "textual", "transformers", "sae_lens", "numpy", "pyarrow")
QUICK_COMMANDS = (("--help",), ("experiments",))


def measure(target: Sequence[str], runs: int) -> list[Measure]:
    """All measures of this group.

    Args:
        target: TARGET options for the app.
        runs: Runs of each program; one more is made and thrown away.
    """
    app = python("-m", "inspector", *target)
    lines = [_first_paint(app, runs), _imports_at_paint(target), _reattach(target, runs)]
    for arguments in QUICK_COMMANDS:
        lines += [_quick_command(arguments, 2 * runs + 1), _imports_of_command(arguments)]
    return lines


def seconds_to_paint(command: Sequence[str]) -> float:
    """One start in a terminal, to the first screen with twenty visible characters."""
    with Home() as home, Terminal(command, home) as terminal:
        terminal.wait_until(lambda _: terminal.screen.n_visible >= 20, limit=30)
        painted = terminal.first_painted()
        terminal.read_for(0.3)
    if painted is None:
        raise TimeoutError(f"{' '.join(command)} painted nothing in 30 s")
    return painted


def _first_paint(app: Sequence[str], runs: int) -> Measure:
    """The app and the bare program in turn, each in an empty home: no session may work on beside the next run."""
    ours, bare = [], []
    for _ in range(runs + 1):
        bare.append(seconds_to_paint(BARE))
        ours.append(seconds_to_paint(app))
    return ratio_of(GROUP, "first painted screen", ours[1:], bare[1:], 1.5, "a bare Textual app")


def _imports_at_paint(target: Sequence[str]) -> Measure:
    with Home() as home:
        record = home.path / "imports"
        command = python("-m", "benchmarks.launch", "--imports", str(record), "inspector", *target)
        with Terminal(command, home) as terminal:
            terminal.wait_until(lambda _: terminal.screen.n_visible >= 20, limit=30)
            painted = terminal.first_painted()
            terminal.read_for(5.0)
            lines = [line.split() for line in record.read_text(encoding="utf-8").splitlines()]
            mapped = _mapped_libraries(terminal.pid)
        if painted is None:
            return unmeasured(GROUP, "heavy modules imported by then", "none", "nothing was painted")
        until = terminal.started + painted
    early = _heavy([name for at, name in lines if float(at) <= until], NOT_AT_PAINT)
    later = _heavy([name for _, name in lines], ("torch", "transformers", "sae_lens", "numpy"))
    found = sorted({*early, *(f"{name} (later)" for name in later), *mapped})
    return Measure(
        group=GROUP,
        what="torch, transformers, plotext, numpy imported by then",
        budget="none",
        measured=", ".join(found) or f"none of {len(lines)} imports, nor torch or numpy in the five seconds after",
        value=len(found),
        limit=0,
    )


def _reattach(target: Sequence[str], runs: int) -> Measure:
    """From a new start to coloured tokens, after the terminal of the one before was lost; the session has stayed."""
    seconds = []
    with Home() as home:
        for _ in range(runs // 2 + 1):
            with open_view(home, target) as view:
                seconds.append(wait_for_colours(view))
                view.hang_up()
    again = seconds[1:]  # the first start began the session, too
    median = statistics.median(again)
    return Measure(
        group=GROUP,
        what="reattach after the terminal is lost",
        budget="1 s",
        measured=f"{median:.2f} s median of {len(again)}; {seconds[0]:.1f} s when the session starts, too",
        value=median,
        limit=1.0,
    )


def _quick_command(arguments: tuple[str, ...], runs: int) -> Measure:
    command, ours, theirs = python("-m", "inspector", *arguments), [], []
    with Home() as home:
        environment = home.environment()
        for _ in range(runs + 1):
            theirs.append(_seconds(YARDSTICK, environment))
            ours.append(_seconds(command, environment))
    return ratio_of(GROUP, " ".join(("dm-inspect", *arguments)), ours[1:], theirs[1:], 2.0, "python -c 'import click'")


def _imports_of_command(arguments: tuple[str, ...]) -> Measure:
    with Home() as home:
        record = home.path / "imports"
        command = python("-m", "benchmarks.launch", "--imports", str(record), "inspector", *arguments)
        subprocess.run(command, env=home.environment(), check=True, stdout=subprocess.DEVNULL)
        names = [line.split()[1] for line in record.read_text(encoding="utf-8").splitlines()]
    found = _heavy(names, NOT_FOR_HELP)
    return Measure(
        group=GROUP,
        what=" ".join(("torch, Textual, numpy imported by", *arguments)),
        budget="none",
        measured=", ".join(found) or f"none of {len(names)} imports",
        value=len(found),
        limit=0,
    )


def _seconds(command: Sequence[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _heavy(imported: Sequence[str], names: Sequence[str]) -> list[str]:
    """Which of the packages occur among imported module names."""
    return sorted({name.partition(".")[0] for name in imported} & set(names))


def _mapped_libraries(pid: int) -> list[str]:
    """The same question asked of the kernel: is libtorch in that process? Empty where there is no /proc."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
            return ["libtorch mapped"] if any("libtorch" in line for line in maps) else []
    except OSError:
        return []
