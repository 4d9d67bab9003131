"""What is said about a result beside its figures, as labels and sentences: for commands, screens and pages alike.

Texts may hold what somebody else named (models, SAEs, warnings); whoever draws them makes it visible first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inspector.drawing.safe_text import visible
from inspector.drawing.text import format_cell

if TYPE_CHECKING:
    from inspector.experiment import Experiment

PAPER = "paper_"
"""Fields of a result that begin so are the paper's own numbers."""
READINGS = ("reading", "interpretation")
"""Fields of a result that say how its numbers are to be read."""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One sentence or two about a result."""

    label: str
    """tokens, the paper, control NAME, warning, contradicted by, made by."""
    text: str


def facts(experiment: Experiment, result: Mapping[str, Any]) -> Iterator[Fact]:
    """How many tokens stand behind it, the paper's own numbers, its controls, its warnings, what would contradict it
    and what made it, in this order.

    Args:
        experiment: says what would contradict it.
        result: as it was measured or read back.
    """
    made = result["provenance"]
    if result["saes"]:
        first = result["saes"][0]
        ratio = f", {made['n_train_per_d']:.0f} per dimension" if "n_train_per_d" in made else ""
        tokens = f"{first['n_train']:,} fitted{ratio}; {first['n_test']:,} held out; split by {made['split']}"
        yield Fact(label="tokens", text=tokens)
    paper = paper_numbers(result)
    if paper:
        yield Fact(label="the paper", text=", ".join(f"{name} {listed(value)}" for name, value in paper.items()))
    for name, control in result["controls"].items():
        shown = ", ".join(f"{key} {in_short(value)}" for key, value in control.items() if key != "definition")
        text = f"{shown}. {control.get('definition', '')}".rstrip()
        yield Fact(label=f"control {name.replace('_', ' ')}", text=text)
    for warning in result["warnings"]:
        yield Fact(label="warning", text=visible(warning))
    yield Fact(label="contradicted by", text=experiment.contradicted_by)
    yield Fact(
        label="made by",
        text=f"dm-inspect {made['program_version']}, profile {result['profile']}, seed {made.get('seed', 'none')}, "
        f"fingerprint {str(made['fingerprint'])[:12]}",
    )


def paper_numbers(result: Mapping[str, Any]) -> dict[str, Any]:
    """The paper's own numbers that an experiment puts beside its own, by name."""
    found = result["result"]
    return {key.removeprefix(PAPER).replace("_", " "): found[key] for key in found if key.startswith(PAPER)}


def readings(result: Mapping[str, Any]) -> list[str]:
    """What the experiment says about how its numbers are to be read."""
    found = result["result"]
    return [found[key] for key in READINGS if isinstance(found.get(key), str)]


def in_short(value: Any) -> str:
    """A number, or the smallest and largest of one per SAE."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        return _number(value)
    leaves = list(_leaves(value))
    names = [leaf for leaf in leaves if isinstance(leaf, str)]
    numbers = [leaf for leaf in leaves if isinstance(leaf, int | float)]
    if names:
        return ", ".join(map(_number, dict.fromkeys(names)))
    if not numbers:
        return "undefined" if leaves else "none"
    low, high = _number(min(numbers)), _number(max(numbers))
    return low if low == high else f"{low} to {high}"


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def listed(value: Any) -> str:
    """Plain data in words; two numbers are a range."""
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(item, int | float) for item in value):
        return f"{value[0]:g} to {value[1]:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{visible(str(key))} {listed(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(listed, value))
    return f"{value:g}" if isinstance(value, int | float) else visible(str(value))


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format_cell(value, 4) if isinstance(value, int | float | str | None) else visible(str(value))
