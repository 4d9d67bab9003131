"""Writes the tables of plans into docs/gpu.md and docs/cluster.md: `python docs/make_gpu.py`

Each cell is what `dm-inspect plan` says of a command on a card of so much memory, or on so many cards: from names,
without a card, weights or network. A test makes them again and compares.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from inspector.cli.plan import plan_of  # noqa: E402
from inspector.errors import ResourceError  # noqa: E402
from inspector.experiments import choose  # noqa: E402
from inspector.sources.target import ResolvedTarget, resolve  # noqa: E402
from inspector.spec import target_of  # noqa: E402

PAGE = ROOT / "docs" / "gpu.md"
BEGIN, END = "<!-- made by docs/make_gpu.py -->", "<!-- made until here -->"
CARDS = (16, 24, 48, 80, 141)
"""GB."""
COMMANDS = (
    ("dm-inspect --model gemma-2-9b --layer 20", 128),
    ("dm-inspect --model gemma-2-9b --layer 20", 32),
    ("dm-inspect run all --model gemma-2-9b --layer 20", 128),
    ("dm-inspect run all --model gemma-2-9b --layer 20 --suite gemma-scope-9b-pt-res", 128),
    ("dm-inspect --model gemma-2-2b --layer 12", 128),
    ("dm-inspect run all --model gemma-2-2b --layer 12", 128),
    ("dm-inspect --model llama-3.1-8b --layer 15", 128),
    ("dm-inspect --model gemma-3-27b-pt --layer 31", 128),
)
"""And GB of the host's memory."""
RATES = dict.fromkeys(("model", "sae", "sums", "numbers"), 1.0)
"""No time is told here, so none is taken."""


@cache
def named(command: str) -> ResolvedTarget:
    """The target of a command, from names alone."""
    return resolve(replace(target_of(shlex.split(command)), offline=True, cache_dir="/nowhere"), unseen=True)


def cell(command: str, host: int, card: int) -> str:
    """What becomes of a command on a card."""
    words = shlex.split(command)
    resolved = named(command)
    resolved = replace(resolved, target=replace(resolved.target, device="cuda", max_memory=card * 10**9))
    try:
        found = plan_of(resolved, session="run" not in words, host_memory=host * 10**9, given=RATES)
    except ResourceError as error:
        return str(error).split(" are needed")[0].replace("At least", "refused:") + " needed"
    places, memory = [sae["where"] for sae in found["saes"]], found["memory"]
    told = [found["dtype"]]
    if sliced := len(places) - places.count("device"):
        disk = f" ({places.count('disk')} from disk)" if "disk" in places else ""
        moved = memory["page_from_host"] + memory["page_from_disk"]
        told.append(f"{sliced} of {len(places)} sliced{disk}, {moved / 1e9:.0f} GB a page")
    if found["for"] == "run":
        told.append(f"{memory['contexts_at_once']} at once")
    return ", ".join(told)


def table() -> Iterator[str]:
    """Line by line."""
    yield f"| command, and the host's memory | {' | '.join(f'{card} GB' for card in CARDS)} |"
    yield "| --- |" + " --- |" * len(CARDS)
    for command, host in COMMANDS:
        cells = " | ".join(cell(command, host, card) for card in CARDS)
        yield f"| `{command}`, {host} GB | {cells} |"


WORKERS = (1, 8, 64)
HOOKS = (
    ("dm-inspect run all --model gemma-2-2b --layer 12", ""),
    ("dm-inspect run all --model gemma-2-9b --layer 20", ""),
    ("dm-inspect run all --model llama-3.1-8b --layer 15", ""),
    ("dm-inspect run all --model gemma-2-9b --layer 20 --contexts 10000 --train-tokens 5000000", "fast"),
)
"""And which links."""
LINKS: dict[str, dict[str, float]] = {"": {}, "fast": {"network": 12.5e9, "merging": 4e9}}
CARD = {"model": 400e12, "sae": 50e12, "sums": 30e12, "numbers": 1e12}
"""Per second, of one with 80 GB; see docs/gpu.md."""


def shared(command: str, links: str) -> str:
    """What becomes of a command on one, eight and 64 cards."""
    resolved = named(command)
    resolved = replace(resolved, target=replace(resolved.target, device="cuda", max_memory=80 * 10**9))
    found = plan_of(
        resolved,
        session=False,
        host_memory=128 * 10**9,
        experiments=choose(["all"]),
        given={**CARD, **LINKS[links]},
        workers=WORKERS,
    )
    cells = []
    for row in found["time"]["workers"]:
        parts = ("computing", "waiting", "merging", "alone", "loading")
        most = max(parts, key=lambda part: float(row[part]))
        cells.append(f"{row['seconds'] / 3600:.2f} h, {row[most] / row['seconds']:.0%} {most}")
    return f"| `{command}`{', fast links' if links else ''} | {' | '.join(cells)} |"


def cluster_table() -> Iterator[str]:
    """Line by line."""
    yield f"| command | {' | '.join(f'GPUs: {n}' for n in WORKERS)} |"
    yield "| --- |" + " --- |" * len(WORKERS)
    for command, links in HOOKS:
        yield shared(command, links)


def page(text: str, made: str) -> str:
    """The page with the table made anew."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{made}{END}{tail}"


PAGES = {PAGE: table, ROOT / "docs" / "cluster.md": cluster_table}


def made_anew(path: Path) -> str:
    """A page with its table as it is now."""
    return page(path.read_text(encoding="utf-8"), "\n".join([*PAGES[path](), ""]))


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(made_anew(path), encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
