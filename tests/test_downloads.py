"""Downloads as a user meets them: interrupted, two at once, into a cache that cannot be written, and not at all.

What is fetched is never loaded: the text that is asked for is missing, which is said once the model is there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inspector.errors import ExitCode
from tests.commands import ROOT
from tests.hub_server import Hub, hub_server

REPO = "google/gemma-2-2b"
TOKEN = "hf_SecretSecretSecretSecretSecretSe"
SECONDS = 120.0
"""For anything to happen on a busy machine; nothing here takes five."""
WEIGHTS = "model.safetensors"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """With a model of 24 MB."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gemma2", "num_hidden_layers": 26}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / WEIGHTS).write_bytes(os.urandom(24_000_000))
    with hub_server() as made:
        made.publish(REPO, folder)
        yield made


class Command:
    """dm-inspect in a process of its own, its stderr in a file that can be looked at while it runs."""

    def __init__(self, folder: Path, name: str, *words: str, **variables: str) -> None:
        self.log = folder / f"{name}.log"
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))}
        environment |= {"HOME": str(folder), "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "inspector", "tokens", "--layer", "1", *words],
                env=environment | variables,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=folder,
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert self.process.poll() is None and time.monotonic() < deadline, self.said
            time.sleep(0.02)

    def end(self) -> int:
        code = self.process.wait(SECONDS)
        assert "Traceback" not in self.said
        assert TOKEN not in self.said
        return code

    @property
    def errors(self) -> list[str]:
        return [line for line in self.said.splitlines() if line.startswith("error: ")]


def fetching(folder: Path, name: str, hub: Hub) -> Command:
    words = ("--model", "gemma-2-2b", "--l0", "60", "--cache-dir", str(folder / "cache"), "--text", "missing.txt")
    return Command(folder, name, *words, HF_ENDPOINT=hub.url)


def bodies(hub: Hub) -> list[str | None]:
    """Ranges with which the weights were asked for."""
    return [wanted for method, path, wanted in hub.asked if method == "GET" and path == f"/large/{REPO}/{WEIGHTS}"]


def test_an_interrupt_ends_a_download_with_exit_code_6_and_the_next_goes_on(tmp_path: Path, hub: Hub) -> None:
    """And it says what stays; the hub sends the rest only when the first is gone, however long that takes."""
    hub.hold[WEIGHTS] = 12_000_000
    first = fetching(tmp_path, "first", hub)
    first.until(lambda: any(path.stat().st_size > 11_000_000 for path in tmp_path.rglob("*.part")))
    first.process.send_signal(signal.SIGINT)
    assert first.end() == ExitCode.CANCELLED
    (part,) = tmp_path.rglob("*.part")
    assert first.errors == [
        f"error: Cancelled at your request; {part.stat().st_size:,} bytes of {WEIGHTS} stay in {part}. "
        "The same command goes on from there; remove that file to have the room back."
    ]
    hub.released.set()
    hub.asked.clear()
    second = fetching(tmp_path, "second", hub)
    assert second.end() == ExitCode.DATA, second.said
    assert "There is no text file 'missing.txt'" in second.errors[0]
    (wanted,) = bodies(hub)
    assert wanted is not None and int(wanted.removeprefix("bytes=").removesuffix("-")) >= 10_000_000
    (weights,) = tmp_path.glob(f"cache/models--*/snapshots/*/{WEIGHTS}")
    assert weights.read_bytes() == (tmp_path / "published" / WEIGHTS).read_bytes()
    assert not list(tmp_path.rglob("*.part"))


def test_two_at_once_fetch_each_file_once(tmp_path: Path, hub: Hub) -> None:
    hub.hold[WEIGHTS] = 12_000_000
    first = fetching(tmp_path, "first", hub)
    first.until(lambda: bool(bodies(hub)))
    second = fetching(tmp_path, "second", hub)
    second.until(lambda: "waiting for another download" in second.said)
    hub.released.set()
    assert (first.end(), second.end()) == (ExitCode.DATA, ExitCode.DATA), first.said + second.said
    assert len(bodies(hub)) == 1
    (weights,) = tmp_path.glob(f"cache/models--*/snapshots/*/{WEIGHTS}")
    assert weights.read_bytes() == (tmp_path / "published" / WEIGHTS).read_bytes()


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, hub: Hub) -> None:
    """Below a file nobody can make a folder, root neither."""
    (tmp_path / "file").write_text("")
    words = ("--model", "gemma-2-2b", "--l0", "60", "--cache-dir", str(tmp_path / "file" / "cache"))
    done = Command(tmp_path, "unwritable", *words, HF_ENDPOINT=hub.url)
    assert done.end() == ExitCode.RESOURCE
    assert "cannot be written" in done.errors[0] and "--cache-dir" in done.errors[0]
    assert bodies(hub) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--model", "gemma-2-2b"), f"Model {REPO} is not complete in the cache"),
        (("--model", "llama-3.1-8b"), "Model meta-llama/Llama-3.1-8B is not complete in the cache"),
        (("--model", "nobody/nothing", "--sae", "sae"), "'nobody/nothing' is neither a directory nor in the"),
    ],
)
def test_offline_with_nothing_on_disk_is_said_at_once(
    tmp_path: Path, hub: Hub, words: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "sae").mkdir()
    (tmp_path / "sae" / "cfg.json").write_text('{"d_in": 8, "d_sae": 16, "hook_name": "blocks.1.hook_resid_post"}')
    (tmp_path / "sae" / "sae_weights.safetensors").write_bytes(b"")
    done = Command(tmp_path, "offline", *words, "--offline", "--cache-dir", "cache", HF_ENDPOINT=hub.url)
    assert done.end() == ExitCode.TARGET, done.said
    assert len(done.errors) == 1 and sentence in done.errors[0]
    assert hub.asked == []
    assert "importing torch" not in done.said
