"""Writes the tables of every published SAE into docs/suites.md: `python docs/make_suites.py`

Everything in them comes from the registry of the installed sae-lens, as the program itself reads it, and from the names
of the tests that hold each layout against NumPy. A test makes them again and compares.
"""

from __future__ import annotations

import ast
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from inspector.sources.model_files import published, refusal_of  # noqa: E402
from inspector.sources.registry import Index, Registry, RegistryEntry, load_index  # noqa: E402

PAGE = ROOT / "docs" / "suites.md"
BEGIN, END = "<!-- made by docs/make_suites.py -->", "<!-- made until here -->"


def checks() -> dict[str, list[str]]:
    """Per layout, the tests that hold its numbers against NumPy on files as they are published: `pytest.mark.holds`."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body if "mark.holds(" in text else ():
            for mark in getattr(node, "decorator_list", ()):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.holds":
                    for layout in mark.args:
                        found.setdefault(ast.literal_eval(layout), []).append(node.name)  # type: ignore[attr-defined]
    return found


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What is known of some entries of the registry."""

    total: int
    transcoders: int
    """And cross-layer transcoders: not what this program measures."""
    loads: int
    """Offered, and their model loads as it is published."""
    reasons: dict[str, int]
    """Why the others do not, with how many; transcoders too."""
    layouts: tuple[str, ...]
    """That read those which load."""

    @property
    def saes(self) -> int:
        """Entries that are SAEs."""
        return self.total - self.transcoders


def count(entries: list[RegistryEntry]) -> Counted:
    """Count entries by what becomes of them."""
    why = [entry.refused or _of_the_model(entry.model) for entry in entries]
    reasons = Counter(reason for reason in why if reason is not None)
    return Counted(
        total=len(entries),
        transcoders=sum(n for reason, n in reasons.items() if "transcoder" in reason),
        loads=why.count(None),
        reasons=dict(reasons),
        layouts=tuple(
            dict.fromkeys(entry.format for entry, reason in zip(entries, why, strict=True) if reason is None)
        ),
    )


def _of_the_model(model: str) -> str | None:
    reason = refusal_of(model)
    return None if reason is None else f"the model {model} does not load: {reason}"


def by_loader(registry: Registry, index: Index) -> dict[str, list[RegistryEntry]]:
    """Entries by sae-lens' word for how it converts them."""
    found: dict[str, list[RegistryEntry]] = {}
    for release in registry.releases():
        found.setdefault(index[release]["kind"] or "sae_lens", []).extend(registry.entries(release))
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def tables(registry: Registry, index: Index) -> str:
    """Both tables and what stands between them."""
    everything = count([entry for release in registry.releases() for entry in registry.entries(release)])
    return "\n".join([*_summary(everything), *_loaders(registry, index), *_releases(registry), ""])


def _summary(found: Counted) -> Iterator[str]:
    others = "; ".join(
        f"{n:,} refused: {reason}" for reason, n in sorted(found.reasons.items()) if "transcoder" not in reason
    )
    yield f"The registry of sae-lens names {found.total:,} dictionaries; {found.transcoders:,} of them are transcoders."
    yield f"Of the {found.saes:,} SAEs **{found.loads:,} load** with their model as published ({others or 'all'})."
    yield "What loads has a layout that is read, a hook that its names say, and a model of an architecture that is held"
    yield "against transformers; `suites` lists what is refused with the same reasons. *Checked by* names tests that"
    yield "compare reconstruction and active latents with NumPy in float64, on files made in the published layout."
    yield ""


def _loaders(registry: Registry, index: Index) -> Iterator[str]:
    yield "| loader in sae-lens | entries | load | read as | checked by, or why not |"
    yield "| --- | ---: | ---: | --- | --- |"
    held = checks()
    for kind, entries in by_loader(registry, index).items():
        found = count(entries)
        tests = [f"`{test}`" for layout in found.layouts for test in held.get(layout, ["no test"])]
        told = [*dict.fromkeys(tests), *_told(found)]
        read_as = ", ".join(found.layouts) or "refused"
        yield f"| `{kind}` | {found.total:,} | {found.loads:,} | {read_as} | {'; '.join(told)} |"
    yield ""


def _told(found: Counted) -> list[str]:
    return [reason if n == found.total else f"{n:,}: {reason}" for reason, n in sorted(found.reasons.items())]


def _releases(registry: Registry) -> Iterator[str]:
    yield "<details><summary>Every release</summary>"
    yield ""
    yield "| release | model | architecture | entries | load | read as, or why not |"
    yield "| --- | --- | --- | ---: | ---: | --- |"
    releases = {release: registry.entries(release) for release in registry.releases()}
    for release, entries in sorted(releases.items(), key=lambda item: (item[1][0].model.lower(), item[0])):
        found = count(entries)
        model = entries[0].model
        known = published(model)
        told = "; ".join([*found.layouts, *_told(found)])
        architecture = "" if known is None else known.architecture
        yield f"| {release} | {model} | {architecture} | {found.total:,} | {found.loads:,} | {told} |"
    yield ""
    yield "</details>"


def page(text: str, made: str) -> str:
    """The page with the tables made anew."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{made}{END}{tail}"


def make() -> str:
    """The tables, from an index that is made for them and not kept."""
    with tempfile.TemporaryDirectory() as folder:
        index = load_index(folder=Path(folder))
    return tables(Registry(index), index)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), make()), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
