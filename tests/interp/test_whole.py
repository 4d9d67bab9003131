"""The command in a process of its own, on the demo, killed in the middle: it goes on, and the key is nowhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.judge_server import always_yes, judge_server

KEY = "canary-e3b0c442"
SAE = "layer_3/resid/width_1k/l0_16"


@pytest.mark.slow
def test_a_killed_command_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HOME": str(tmp_path / "home"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "DM_INSPECT_RESULTS_DIR": str(tmp_path / "results"),
        "DM_INSPECT_ANSWERS_DIR": str(tmp_path / "answers"),
        "DM_INSPECT_JUDGE_KEY": KEY,
        "DM_INSPECT_DEBUG": "1",
    }
    with judge_server(always_yes(), faults=[None, "429", "cut", "500"]) as server:
        words = [
            sys.executable, "-m", "inspector", "interp", "--sae", SAE, "--latents", "12", "--parallel", "4", "--json",
            "--judge-url", server.url, "--judge-model", "yes", "--out", str(tmp_path / "out"),
        ]  # fmt: skip
        said = b""
        process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        server.on_request = lambda number: os.kill(process.pid, signal.SIGKILL) if number == 60 else None
        out, err = process.communicate(timeout=500)
        assert process.returncode == -signal.SIGKILL, err
        said += out + err
        before = len(server.asked)
        server.on_request = None
        done = subprocess.run(words, env=environment, capture_output=True, timeout=500, check=False)
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
        counts = Counter(json.dumps(body) for body in server.asked)
        assert sum(counts.values()) - len(counts) <= 4, "at most what was on the way is asked again"
        assert before < len(server.asked)
        result = json.loads(done.stdout)
        row = result["saes"][0]
        assert (row["accuracy_q1"], row["accuracy_q10"], row["accuracy_not"]) == (1.0, 1.0, 0.0)
        server.always, server.refusal = "401", {"error": {"message": f"the key {KEY} is wrong"}}
        refused = subprocess.run(
            [*words, "--scorer", "fuzzing"], env=environment, capture_output=True, timeout=500, check=False
        )
        assert refused.returncode == 3, refused.stderr
        said += refused.stdout + refused.stderr
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(path.name == "answers.sqlite" for path in written) and any(path.suffix == ".json" for path in written)
    assert [path for path, content in written.items() if KEY.encode() in content] == []
    assert KEY.encode() not in said
