"""`dm-inspect info`: what a bug report needs, and nothing secret. Everything but the devices comes at once."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import click

from inspector import __version__
from inspector.cli.lazy import Command
from inspector.cli.output import print_json, print_text
from inspector.disk.folders import VARIABLES as FOLDERS

PACKAGES = (
    "torch", "transformer-lens", "sae-lens", "transformers", "numpy", "scipy", "safetensors", "pyarrow", "datasets",
    "huggingface-hub", "gguf", "textual", "rich", "plotext", "click", "msgspec", "platformdirs",
)  # fmt: skip
VARIABLES = (
    "TERM", "COLORTERM", "NO_COLOR", "LANG", "LC_ALL", "TMUX", "STY", "SSH_CONNECTION", "HF_HOME", "HF_HUB_OFFLINE",
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "DM_INSPECT_DEBUG", "DM_INSPECT_MODEL", *FOLDERS,
    "DM_INSPECT_IDLE_MINUTES", "DM_INSPECT_CHECKPOINT_SECONDS",
)  # fmt: skip
"""Shown if set. SSH_CONNECTION and TMUX only as `set`: addresses and paths are private."""
_PRIVATE = frozenset({"SSH_CONNECTION", "TMUX", "STY"})

Section = dict[str, str]


@click.command(cls=Command, epilog="\b\nExample:\n  dm-inspect info > report.txt")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def info(as_json: bool) -> None:
    """Show versions, devices, folders and limits, for a bug report."""
    if as_json:
        print_json(dict(sections()))
        return
    for title, section in sections():
        print_text(title)
        width = max(map(len, section), default=0)
        for name, value in section.items():
            print_text(f"  {name.ljust(width)}  {value}".rstrip())
        sys.stdout.flush()  # the devices take seconds; what is known already shall be readable meanwhile


def sections() -> Iterator[tuple[str, Section]]:
    """Title and content of each part, the slow one last."""
    yield "program", {"dm-inspect": __version__, "python": platform.python_version(), "system": platform.platform()}
    yield "packages", {name: version_of(name) for name in PACKAGES}
    yield "folders", folders()
    yield "terminal", terminal()
    yield (
        "environment",
        {name: "set" if name in _PRIVATE else os.environ[name] for name in VARIABLES if name in os.environ},
    )
    yield "limits", limits()
    yield "devices", devices()


def version_of(distribution: str) -> str:
    """Installed version, read without importing the package."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def folders() -> Section:
    """Where things are and go."""
    from inspector.disk.folders import DEQUANTISED, RESULTS, user_folder
    from inspector.errors import InspectorError
    from inspector.session import discovery

    try:
        sessions = str(discovery.runtime_dir())
    except (InspectorError, OSError) as error:
        sessions = f"unusable: {error}"
    package = Path(__file__).parents[1]
    hub = os.environ.get("HF_HOME") or str(Path("~/.cache/huggingface").expanduser())
    return {
        "package": str(package),
        "demo": "complete" if (package / "demo" / "model" / "config.json").is_file() else "missing",
        "smollm2": _smollm2(),
        "cache": str(user_folder("cache")),
        "dequantised": str(DEQUANTISED.path()),
        "results": str(RESULTS.path()),
        "logs": str(discovery.log_dir()),
        "sessions": sessions,
        "themes": str(user_folder("config") / "themes"),
        "hugging face": hub,
    }


def _smollm2() -> str:
    """Whether the real model can be opened, and how its weights are stored."""
    from inspector.errors import TargetError
    from inspector.sources.built_in import SMOLLM2, suite_folder, weights_of
    from inspector.sources.gguf_files import read_header

    try:
        suite_folder(SMOLLM2)
        path = weights_of(SMOLLM2)
        return "missing" if path is None else f"complete, {read_header(path).label}"
    except TargetError as error:
        return str(error)


def terminal() -> Section:
    """Size and colours of the terminal this runs in."""
    size = shutil.get_terminal_size()
    return {
        "size": f"{size.columns}x{size.lines}",
        "colours": colour_depth(),
        "stdin, stdout, stderr": ", ".join(
            "terminal" if stream.isatty() else "not a terminal" for stream in (sys.stdin, sys.stdout, sys.stderr)
        ),
        "encoding": sys.stdout.encoding,
    }


def colour_depth() -> str:
    """What the environment promises; the same reading as Rich's and Textual's."""
    term = os.environ.get("TERM", "").lower()
    if os.environ.get("NO_COLOR"):
        return "none (NO_COLOR)"
    if os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit"):
        return "24-bit"
    if term in ("", "dumb", "unknown"):
        return "none (TERM)"
    return "256" if term.endswith("256color") else "16"


def limits() -> Section:
    """How much of everything there is."""
    import resource

    available = getattr(os, "sched_getaffinity", None)
    cpus = len(available(0)) if available else os.cpu_count()
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = shutil.disk_usage(Path.home() if Path.home().exists() else "/").free
    return {
        "cpus": str(cpus),
        "memory": _gib(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "free disk": f"{_gib(free)} in the home directory",
        "open files": str(soft),
    }


def devices() -> Section:
    """What torch can compute on. Imports torch."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return {"torch": f"cannot be imported: {error}"}
    found = {"cpu": f"{torch.get_num_threads()} threads"}
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            found[f"cuda:{index}"] = f"{properties.name}, {_gib(properties.total_memory)}"
    if torch.backends.mps.is_available():
        found["mps"] = "available"
    return found


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB"
