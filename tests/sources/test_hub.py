"""Fetching from a hub on the loopback interface: what arrives, what is said, and each of its faults."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub_server import Hub, hub_server

ROOT = Path(__file__).parents[2]
TOKEN = "hf_SecretSecretSecretSecretSecretSe"
FETCH = """
import json, os, sys
from inspector.errors import InspectorError
from inspector.sources import hub, hub_files
for name, value in json.loads(os.environ.get("SETTINGS", "{}")).items():
    setattr(hub_files, name, value)
used = lambda: int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) * 1024
before = used()
work = getattr(hub, sys.argv[1])(*json.loads(sys.argv[2]), **json.loads(sys.argv[3]))
events = []
try:
    while True:
        events.append(next(work))
        if len(sys.argv) > 4 and type(events[-1]).__name__ == "Downloading" and events[-1].done_bytes > 0:
            work.close()
            print(json.dumps({"events": [], "result": "closed", "error": None, "code": 0}))
            sys.exit()
except StopIteration as done:
    value = done.value
    result = {k: str(v) for k, v in value.items()} if isinstance(value, dict) else str(value)
    error, code = None, 0
except InspectorError as failure:
    result, error, code = None, str(failure), int(failure.exit_code)
told = [[type(e).__name__, getattr(e, "done_bytes", None), getattr(e, "total_bytes", None)] for e in events]
print(json.dumps({"events": told, "result": result, "error": error, "code": code, "used": used() - before}))
"""
"""In a process of its own: the hub's client reads its settings as it is imported."""


@pytest.fixture
def hub(tmp_path: Path):
    folder = tmp_path / "published"
    (folder / "layer_1").mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "gemma2"}')
    (folder / "layer_1" / "params.npz").write_bytes(os.urandom(300_000))
    with hub_server() as server:
        server.publish("google/some", folder)
        yield server


def run(tmp_path: Path, hub: Hub | None, call: str, *arguments: object, stop: bool = False, **options: object) -> dict:
    """What `call` of hub.py told, returned and raised; `settings` are put in place of constants of hub_files.py."""
    settings = options.pop("settings", {})
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))},
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": hub.url if hub is not None else "http://127.0.0.1:9",
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "SETTINGS": json.dumps(settings),
    }
    options = {"cache_dir": str(tmp_path / "cache"), "offline": False, **options}
    command = [sys.executable, "-c", FETCH, call, json.dumps(arguments), json.dumps(options), *(["stop"] * stop)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=500)
    assert TOKEN not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def fetch(tmp_path: Path, hub: Hub | None, files: list[str], repo: str = "google/some", **options: object) -> dict:
    return run(tmp_path, hub, "fetch", repo, files, what="SAE some", **options)


BOTH = ["config.json", "layer_1/params.npz"]


def test_files_arrive_after_their_size_was_announced_and_are_found_again_without_a_hub(
    tmp_path: Path, hub: Hub
) -> None:
    got = fetch(tmp_path, hub, BOTH)
    total = 24 + 300_000
    downloads = [event for event in got["events"] if event[0] == "Downloading"]
    assert downloads[0] == ["Downloading", 0, total]
    assert downloads[-1] == ["Downloading", total, total]
    for name in BOTH:
        assert Path(got["result"][name]).read_bytes() == hub.files["google/some"][name].read_bytes()
    assert hub.tokens  # it is sent to the hub, and nowhere else: `run` looked

    again = fetch(tmp_path, None, BOTH)
    assert (again["events"], again["result"]) == ([], got["result"])
    assert fetch(tmp_path, None, BOTH, offline=True)["result"] == got["result"]


def test_a_file_that_may_be_missing_is_asked_for_once_and_done_without(tmp_path: Path, hub: Hub) -> None:
    files = ["layer_1/config.json", BOTH[1]]
    got = fetch(tmp_path, hub, files, optional=files[:1])
    assert list(got["result"]) == [BOTH[1]]
    assert len([path for _, path, _ in hub.asked if path.endswith("layer_1/config.json")]) == 1
    assert fetch(tmp_path, None, files, optional=files[:1])["result"] == got["result"]
    assert "does not have the file" in fetch(tmp_path / "other", hub, files)["error"]
    there = fetch(tmp_path / "third", hub, BOTH, optional=BOTH[:1])
    assert list(there["result"]) == BOTH


def test_a_download_that_breaks_off_goes_on_where_it_stopped(tmp_path: Path, hub: Hub) -> None:
    big = tmp_path / "published" / "big.bin"
    big.write_bytes(os.urandom(30_000_000))
    hub.publish("google/some", tmp_path / "published")
    hub.cut["big.bin"] = 1
    got = fetch(tmp_path, hub, ["big.bin"])
    assert Path(got["result"]["big.bin"]).read_bytes() == big.read_bytes()
    ranges = [wanted for method, path, wanted in hub.asked if method == "GET" and path.startswith("/large") and wanted]
    assert len(ranges) == 1
    assert 0 < int(ranges[0].removeprefix("bytes=").removesuffix("-")) <= 15_000_000


def test_closing_the_work_ends_the_download_and_the_next_one_goes_on(tmp_path: Path, hub: Hub) -> None:
    big = tmp_path / "published" / "big.bin"
    big.write_bytes(os.urandom(30_000_000))
    hub.publish("google/some", tmp_path / "published")
    hub.hold["big.bin"] = 12_000_000
    stopped = run(tmp_path, hub, "fetch", "google/some", ["big.bin"], what="big", stop=True)
    assert stopped["result"] == "closed"
    (part,) = (tmp_path / "cache").rglob("*.part")
    assert 0 < part.stat().st_size < 30_000_000
    hub.released.set()
    got = fetch(tmp_path, hub, ["big.bin"])
    assert Path(got["result"]["big.bin"]).read_bytes() == big.read_bytes()


@pytest.mark.parametrize(("status", "after"), [(503, None), (429, "0.1")])
def test_a_passing_failure_is_waited_out(tmp_path: Path, hub: Hub, status: int, after: str | None) -> None:
    hub.failing["config.json"], hub.fail_status, hub.retry_after = 1, status, after
    assert fetch(tmp_path, hub, ["config.json"])["error"] is None


def error_of(got: dict) -> str:
    assert got["result"] is None
    assert got["code"] == 3
    return str(got["error"])


def test_a_gated_model_names_its_licence_page_and_how_to_log_in(tmp_path: Path, hub: Hub) -> None:
    hub.gated.add("google/some")
    error = error_of(fetch(tmp_path, hub, BOTH))
    assert "https://huggingface.co/google/some" in error
    assert "`hf auth login`" in error


def test_an_unknown_repository_and_an_unknown_file_are_named(tmp_path: Path, hub: Hub) -> None:
    assert "no repository google/other" in error_of(fetch(tmp_path, hub, BOTH, repo="google/other"))
    assert "google/some does not have the file" in error_of(fetch(tmp_path, hub, ["absent.npz"]))


def test_a_long_pause_is_not_waited_for(tmp_path: Path, hub: Hub) -> None:
    hub.failing["config.json"], hub.fail_status, hub.retry_after = 100, 429, "3600"
    assert "asks for a pause" in error_of(fetch(tmp_path, hub, ["config.json"]))


def test_an_unreachable_hub_is_said_at_once(tmp_path: Path) -> None:
    error = error_of(fetch(tmp_path, None, BOTH))
    assert "cannot be reached" in error
    assert "--offline" in error


def test_offline_names_what_is_missing_and_asks_nobody(tmp_path: Path, hub: Hub) -> None:
    error = error_of(fetch(tmp_path, hub, BOTH, offline=True))
    assert "config.json and 1 more files of google/some" in error
    assert "hf download google/some" in error
    assert hub.asked == []


def test_a_model_is_fetched_without_pickles_or_code(tmp_path: Path, hub: Hub) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gemma2"}')
    for name in ("model.safetensors", "tokenizer.json", "pytorch_model.bin", "modeling_evil.py", "README.md"):
        (folder / name).write_bytes(b"x" * 100)
    hub.publish("google/model", folder)
    got = run(tmp_path, hub, "fetch_model", "google/model")
    assert sorted(path.name for path in Path(got["result"]).iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    (folder / "model.safetensors").unlink()
    hub.publish("google/pickled", folder)
    assert "no safetensors" in error_of(run(tmp_path, hub, "fetch_model", "google/pickled"))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "does not predict the next token"),
        (
            {
                "model_type": "llama",
                "architectures": ["LlamaForCausalLM"],
                "quantization_config": {"quant_method": "gptq"},
            },
            "'gptq'",
        ),
    ],
)
def test_a_model_that_cannot_be_measured_is_refused_before_its_weights_are_fetched(
    tmp_path: Path, hub: Hub, config: dict[str, object], says: str
) -> None:
    folder = tmp_path / "no"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(os.urandom(300_000))
    hub.publish("google/no", folder)
    got = run(tmp_path, hub, "fetch_model", "google/no")
    assert got["code"] == 3 and says in error_of(got)
    fetched = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in fetched) < 10_000


def test_a_name_that_leaves_the_repository_is_never_in_the_cache(tmp_path: Path) -> None:
    from inspector.sources.hub import cached

    cache = tmp_path / "cache"
    snapshot = cache / "models--a--b" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (cache / "models--a--b" / "refs").mkdir()
    (cache / "models--a--b" / "refs" / "main").write_text("c0ffee")
    (tmp_path / "secret").write_text("s")
    (snapshot / "config.json").write_text("{}")
    (snapshot / "link").symlink_to(tmp_path / "secret")
    assert cached("a/b", "config.json", cache_dir=str(cache)) == snapshot / "config.json"
    for name in ("../../../../secret", "/etc/passwd", "link", ""):
        assert cached("a/b", name, cache_dir=str(cache)) is None
    (cache / "models--a--b" / "refs" / "main").write_text("../../..")
    assert cached("a/b", "config.json", cache_dir=str(cache)) is None


def test_the_cache_is_looked_at_without_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inspector.sources.hub import cached

    def refuse(*_: object) -> None:
        raise AssertionError("a socket was made")

    monkeypatch.setattr(socket, "socket", refuse)
    assert cached("google/gemma-2-9b", "config.json", cache_dir=str(tmp_path)) is None
