"""The house in figures: files, lines, import circles, shared lines, packages. `make house` prints them.

A figure out of its bound ends with exit 1, so that the list cannot be read past. What one change touches is not counted
here: it stands in docs/design.md.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "inspector"
SHARED_LINES = 6
"""So many equal lines one after the other, in two places, are one rule in two places."""
NAMED = ("textual", "rich", "torch", "transformer_lens", "sae_lens", "numpy", "plotext", "click")
"""Packages that the program is asked to be built on."""
MOST_FILES, MOST_LINES, LONGEST = 250, 45_000, 450


def sources() -> list[Path]:
    """Every module of the package."""
    return sorted((ROOT / PACKAGE).rglob("*.py"))


def code_lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of the lines that do something: no imports, docstrings, comments, blank lines or data.

    A line of data is one without a name that is called or assigned: rows of a table may repeat themselves.
    """
    text = path.read_text(encoding="utf-8")
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text or isinstance(node, ast.Import | ast.ImportFrom):
            assert isinstance(node, ast.stmt) and node.end_lineno is not None
            skipped.update(range(node.lineno, node.end_lineno + 1))
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        plain = line.strip()
        if number in skipped or not re.search(r"\w", plain) or plain.startswith(("#", "@")):
            continue
        lines.append((number, plain))
    return lines


def shared_places() -> list[tuple[str, str]]:
    """Pairs of places whose next SHARED_LINES lines of code are equal; only the first of a longer run."""
    at: dict[tuple[str, ...], list[tuple[Path, int, int]]] = defaultdict(list)
    for path in sources():
        lines = code_lines(path)
        for start in range(len(lines) - SHARED_LINES + 1):
            window = tuple(text for _, text in lines[start : start + SHARED_LINES])
            if sum("(" in text or "=" in text for text in window) >= SHARED_LINES // 2:
                at[window].append((path, start, lines[start][0]))
    pairs, continued = [], set()
    for places in at.values():
        for (one, i, line), (other, j, line_there) in pairwise(places):
            if (one, i - 1, other, j - 1) not in continued:
                pairs.append((f"{one.relative_to(ROOT)}:{line}", f"{other.relative_to(ROOT)}:{line_there}"))
            continued.add((one, i, other, j))
    return pairs


def circles() -> list[list[str]]:
    """Groups of modules that import each other, directly or not; imports for types count."""
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=False, cache_dir=None)
    imported = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    reached = {module: _reached(module, imported) for module in imported}
    found = {
        tuple(sorted(other for other in reached[module] if module in reached[other]))
        for module in imported
        if module in reached[module]
    }
    return [list(group) for group in sorted(found)]


def _reached(start: str, imported: dict[str, set[str]]) -> set[str]:
    """Every module that `start` imports, directly or not; itself only if it is in a circle."""
    seen: set[str] = set()
    ahead = [*imported[start]]
    while ahead:
        module = ahead.pop()
        if module not in seen:
            seen.add(module)
            ahead += imported[module]
    return seen


def used_packages() -> list[str]:
    """Those of NAMED that some module imports."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources())
    return [name for name in NAMED if re.search(rf"^\s*(import|from) {name}\b", text, re.MULTILINE)]


def rows() -> Iterator[tuple[str, str, bool, list[str]]]:
    """Figure, its value beside its bound, whether it holds, and what there is to see."""
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    long = [f"{path.relative_to(ROOT)} {n}" for path, n in lengths.items() if n > LONGEST]
    total = sum(lengths.values())
    yield "files", f"{len(lengths)} of {MOST_FILES}", len(lengths) <= MOST_FILES, []
    yield "lines", f"{total:,} of {MOST_LINES:,}", total <= MOST_LINES, []
    yield "longest file", f"{max(lengths.values())} of {LONGEST}", not long, long
    groups = circles()
    yield "import circles", f"{len(groups)} of 0", not groups, [" <-> ".join(group) for group in groups]
    pairs = shared_places()
    yield f"places sharing {SHARED_LINES} lines", f"{len(pairs)} of 0", not pairs, [" = ".join(pair) for pair in pairs]
    used = used_packages()
    missing = [f"{name} is not imported" for name in NAMED if name not in used]
    yield "named packages used", f"{len(used)} of {len(NAMED)}", not missing, missing


def main() -> int:
    """Print the figures; 1 if one is out of its bound."""
    whole = True
    for name, value, holds, seen in rows():
        print(f"{'  ' if holds else '! '}{name:24}{value}")
        for line in seen:
            print(f"      {line}")
        whole &= holds
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
