"""What every test gets: no network, folders of its own, and few threads.

Tests run beside each other on small machines; more threads than cores make small tensors slower, not faster.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

# No example is too slow: a busy machine is no finding.
hypothesis.settings.register_profile(
    "busy machine", deadline=None, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")

# A shell lets what it runs in the background ignore Ctrl-C, and with it every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["WANDB_MODE"] = "disabled"

# The app that is started without a target shows the demo here, whatever else is installed.
os.environ["DM_INSPECT_MODEL"] = "demo"

# Results that tests measure are nobody's: they never reach the checkout's own store.
os.environ["DM_INSPECT_RESULTS_DIR"] = tempfile.mkdtemp(prefix="dm-inspect-results-")
atexit.register(shutil.rmtree, os.environ["DM_INSPECT_RESULTS_DIR"], ignore_errors=True)
# Nor do their jobs.
os.environ["DM_INSPECT_JOBS_DIR"] = tempfile.mkdtemp(prefix="dm-inspect-jobs-")
atexit.register(shutil.rmtree, os.environ["DM_INSPECT_JOBS_DIR"], ignore_errors=True)


LONGEST = (
    "test_real_terminal.py", "cluster/test_driver.py", "sources/test_gate.py", "experiments/test_error_saes.py",
    "training/test_trainer.py", "faults/test_killed_sessions.py", "faults/test_views.py", "test_resuming.py",
    "test_runner.py", "experiments/test_own.py", "interp/test_command.py", "test_command_line_contract.py",
    "cli/test_run_and_train.py", "tui/screens/test_stream.py", "test_published_suites.py", "session/test_jobs.py",
    "experiments/test_seeds.py", "sources/test_registry.py", "session/test_latents.py", "test_pretended_device.py",
    "tui/test_matrix.py",
)  # fmt: skip
"""The files that take longest come first, so that no worker is left with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


Say = Callable[[str, int, str], None]
"""What was tried, how often, and what came of it: a row of the table at the end of `make soak`."""
ROW = "soak"


@pytest.fixture
def say(record_property: Callable[[str, object], None]) -> Say:
    return lambda what, tried, outcome: record_property(ROW, [what, f"{tried:,}", outcome])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """All that tests said, as one table."""
    reports = [each for outcome in ("passed", "failed") for each in terminalreporter.stats.get(outcome, [])]
    rows = [value for each in reports if each.when == "call" for name, value in each.user_properties if name == ROW]
    if rows:
        terminalreporter.section("what was tried")
        rows = [["what", "tried", "came of it"], *rows]
        first, second = (max(len(row[i]) for row in rows) for i in (0, 1))
        for what, tried, outcome in rows:
            terminalreporter.write_line(f"{what:<{first}}  {tried:>{second}}  {outcome}")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name and fits on a line, however deep pytest's own folders are."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        yield Path(folder)
