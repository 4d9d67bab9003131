"""The command that repeats a run, spelled from what was asked for; only what differs from the defaults is named."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from inspector.spec import RunSpec, TargetSpec

_DEFAULTS = TargetSpec()
_PLAIN = {
    "--model": "model",
    "--site": "site",
    "--hook": "hook",
    "--suite": "suite",
    "--l0": "l0",
    "--text": "text",
    "--text-field": "text_field",
    "--contexts": "contexts",
    "--context-length": "context_length",
    "--train-tokens": "train_tokens",
    "--split": "split",
    "--seed": "seed",
    "--device": "device",
    "--dtype": "dtype",
    "--cache-dir": "cache_dir",
    "--max-memory": "max_memory",
    "--llama-gate": "llama_gate",
}
"""Option by field of the target, for those that are written as they are."""
_NUMBERS: dict[str, Callable[[str], Any]] = {
    "l0": float, "contexts": int, "context_length": int, "train_tokens": int, "seed": int, "max_memory": int,
}  # fmt: skip
_SWITCHES = {"--offline": "offline", "--accept-gate": "accept_gate", "--include-special": "include_special"}


def command_of(spec: RunSpec, *experiments: str) -> str:
    """`dm-inspect run EXPERIMENT ...` that gives the same numbers; batch size and shards change none and are left out.

    Args:
        spec: of the run; its target's layers should be those of one result.
        experiments: ids of one or more experiments.
    """
    words = ["dm-inspect", "run", *experiments, *target_words(spec.target)]
    for key, value in spec.params.items():
        words += ["-p", f"{key}={value}"]
    if spec.profile != "careful":
        words += ["--profile", spec.profile]
    if spec.null is not None:
        words += ["--null", spec.null]
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """The word for a shell. A name that is not UTF-8 comes as halves of surrogate pairs; it is spelled byte by byte."""
    try:
        word.encode()
    except UnicodeEncodeError:
        bytes_ = word.encode("utf-8", "surrogateescape")
        plain = frozenset(range(32, 127)) - {*b"\\'"}
        return "$'" + "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in bytes_) + "'"
    return shlex.quote(word)


def target_words(target: TargetSpec) -> list[str]:
    """The options of TARGET that differ from the defaults."""
    words: list[str] = []
    for option, field in _PLAIN.items():
        value = getattr(target, field)
        if value != getattr(_DEFAULTS, field):
            words += [option, f"{value:g}" if isinstance(value, float) else str(value)]
    if target.layers_from is not None:
        words += ["--layers", f"{target.layers_from}:"]
    if target.layers is not None:
        first, last = target.layers[0], target.layers[-1]
        words += ["--layer", str(first)] if first == last else ["--layers", f"{first}:{last + 1}"]
    if target.positions is not None:
        start, stop = target.positions
        words += ["--positions", f"{start}:{'' if stop is None else stop}"]
    if target.widths is not None:
        words += ["--widths", ",".join(map(str, target.widths))]
    for sae in target.saes:
        words += ["--sae", sae]
    words += ["--offline"] if target.offline else []
    words += ["--accept-gate"] if target.accept_gate else []
    words += ["--include-special"] if target.include_special else []
    if target.outliers != _DEFAULTS.outliers:
        words += ["--outliers", "off" if target.outliers is None else f"{target.outliers:g}"]
    return words


def target_of(words: Sequence[str]) -> TargetSpec:
    """The target that `target_words` spelled; options it does not know are passed over."""
    values: dict[str, Any] = {}  # as typed as the words are; each is made what its field holds
    saes: list[str] = []
    given = list(words)
    while given:
        word = given.pop(0)
        if word in _SWITCHES:
            values[_SWITCHES[word]] = True
        elif not given:
            break
        elif word in _PLAIN:
            values[_PLAIN[word]] = _NUMBERS.get(_PLAIN[word], str)(given.pop(0))
        elif word == "--sae":
            saes.append(given.pop(0))
        elif word == "--layer":
            values["layers"] = (int(given.pop(0)),)
        elif word == "--layers":
            first, _, stop = given.pop(0).partition(":")
            values |= {"layers": tuple(range(int(first), int(stop)))} if stop else {"layers_from": int(first)}
        elif word == "--positions":
            start, _, stop = given.pop(0).partition(":")
            values["positions"] = (int(start), int(stop) if stop else None)
        elif word == "--outliers":
            factor = given.pop(0)
            values["outliers"] = None if factor == "off" else float(factor)
        elif word == "--widths":
            values["widths"] = tuple(map(int, given.pop(0).split(",")))
    return TargetSpec(**values, saes=tuple(saes))
