"""How a target introduces itself to a view: its failed gate, and a download on the way."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from inspector.events import Downloading, GateLine
from inspector.session.loading import download_progress, gate_lines, ready_message
from inspector.session.protocol import LoadProgress
from inspector.sources.gate import GateCheck, GateReport

if TYPE_CHECKING:
    from inspector.sources.target import Loaded

FAILED = GateCheck(name="L0", sae="16k", passed=False, measured=12.3456, expected="60 within 25%", why="too few fire")
MODEL = GateCheck(name="same model", sae="16k", passed=False, measured="a/b-it", expected="a/b", why="another model")
PASSED = GateCheck(name="FVU", sae="16k", passed=True, measured=0.2, expected="below 1")
UNKNOWN = GateCheck(name="L0", sae="1m", passed=None, measured=None, expected="-", why="not known")


def test_an_accepted_gate_tells_every_check_that_failed_and_no_other(loaded: Loaded) -> None:
    report = GateReport(checks=(PASSED, FAILED, UNKNOWN, MODEL), n_tokens=4000, accepted=True)
    assert ready_message(replace(loaded, gate=report), [], loaded.target).gate_failures == [
        GateLine(name="L0", sae_id="16k", measured="12.3", expected="60 within 25%", why="too few fire"),
        GateLine(name="same model", sae_id="16k", measured="a/b-it", expected="a/b", why="another model"),
    ]


def test_a_gate_that_passed_tells_nothing(loaded: Loaded) -> None:
    assert loaded.gate is not None and loaded.gate.passed
    assert ready_message(loaded, [], loaded.target).gate_failures == []
    assert gate_lines(None) == []


def test_a_download_tells_its_bytes() -> None:
    event = Downloading(what="SAE 16k", file="a", done_bytes=3, total_bytes=10, bytes_per_second=2.0)
    assert download_progress(event, None) == LoadProgress(
        what="downloading SAE 16k", detail=event.amount, done_bytes=3, total_bytes=10, bytes_per_second=2.0
    )
    assert download_progress(event, 1.5).seconds == 1.5
