"""How many threads, and that they sleep while they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inspector import threads


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(threads, "CGROUP", tmp_path)
    for name in (threads.COUNT, *threads.ASLEEP):
        monkeypatch.setenv(name, "")  # put back afterwards, whatever is set meanwhile
        monkeypatch.delenv(name)
    return tmp_path


def test_all_usable_cores_but_the_spare_one_compute() -> None:
    assert threads.limit(spare=1) == 7
    assert os.environ[threads.COUNT] == "7"


def test_what_the_user_says_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(threads.COUNT, "3")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert threads.limit() == 3
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 8), ("250000 100000", 3), ("1000 100000", 1), ("9900000 100000", 8), ("nonsense", 8), ("1 0", 8)],
)
def test_a_containers_quota_counts(eight_cores: Path, quota: str, cores: int) -> None:
    (eight_cores / "cpu.max").write_text(quota)
    assert threads.usable_cores() == cores


def test_every_command_waits_asleep_before_torch_is_there() -> None:
    """OpenMP reads the environment once; what is set after torch was imported does nothing."""
    code = (
        "import sys, os, inspector.__main__ as m; sys.argv = ['dm-inspect', '--version']\n"
        "try: m.main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE' and 'torch' not in sys.modules"
    )
    environment = {name: value for name, value in os.environ.items() if name not in threads.ASLEEP}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)
