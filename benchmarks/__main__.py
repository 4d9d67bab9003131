"""`make bench`: measure what the design promises and print one table; exit 1 when a budget is missed.

python -m benchmarks [--only GROUP]... [--quick] [--json] [--out FILE] [TARGET options for dm-inspect]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import busy, jobs, lag, memory, pursuit, real, start, sweep, switch, traffic
from benchmarks.measures import Measure, as_data, as_markdown, as_table, unmeasured

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RESULTS = Path(__file__).parent / "RESULTS.md"
RUNS = 7
QUICK_RUNS = 3

GROUPS: dict[str, Callable[[Sequence[str], int], list[Measure]]] = {
    module.GROUP: module.measure for module in (start, traffic, switch, lag, sweep, memory, pursuit, real, jobs, busy)
}


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=sorted(GROUPS), help="only this group; repeatable")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_RUNS} runs of what is timed instead of {RUNS}")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the table is written as Markdown")
    asked, target = parser.parse_known_args()
    measures: list[Measure] = []
    for name in asked.only or GROUPS:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        measures += _group(name, target, QUICK_RUNS if asked.quick else RUNS)
    print(json.dumps(as_data(measures), indent=1) if asked.json else as_table(measures))
    if not asked.only:
        asked.out.write_text(as_markdown(measures), encoding="utf-8")
    return 1 if any(m.failed for m in measures) else 0


def _group(name: str, target: Sequence[str], runs: int) -> list[Measure]:
    """One group; a failure of the benchmark itself is a line of the table, so that the other groups still speak."""
    try:
        return GROUPS[name](target, runs)
    except Exception as error:  # whatever a measured program does, the table is printed
        why = " ".join(f"{type(error).__name__}: {error}".split())
        return [unmeasured(name, f"the group '{name}'", "-", why[:200])]


if __name__ == "__main__":
    sys.exit(main())
