"""How a value of TARGET is written as words and read from them: the command line and repeated commands share it.

No click here: a notation raises `ValueError` with a whole sentence, and the reader of the words adds which option it
was.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_POWER = {None: 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SUFFIX = {"": 1, "k": 1000, "m": 1_000_000}
_BINARY = {"k": 1024, "m": 1024 * 1024}
_DTYPES = ("auto", "float32", "bfloat16")


def width_label(d_sae: int) -> str:
    """The field's short name of a width: 256, 1k, 16k, 131k, 1m."""
    if d_sae < 1000:
        return str(d_sae)
    return f"{d_sae // 1000}k" if d_sae < 1_000_000 else f"{d_sae // 1_000_000}m"


WIDTH_OF_LABEL = {width_label(2**n): 2**n for n in range(8, 24)}
"""The power of two that a label stands for, as suites name their widths."""


def parse_width(text: str) -> int:
    """The number of latents a label denotes: 256, 16k = 16384, 65k = 65536, 1m = 1048576; 24000 is itself.

    Raises:
        ValueError: if it is no positive number with at most a `k` or `m` behind it; holds the text.
    """
    match = re.fullmatch(r"(\d+)([km]?)", text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise ValueError(text)
    number, suffix = int(match[1]), match[2]
    if not suffix:
        return number
    label = f"{number}{suffix}"
    powers = [2**k for k in range(8, 31) if width_label(2**k) == label]
    binary = number * _BINARY[suffix]
    return powers[0] if powers else binary if width_label(binary) == label else number * _SUFFIX[suffix]


def parse_widths(text: str) -> tuple[int, ...]:
    """Numbers of latents, without repetitions, in the order given: 16k,65k,1m.

    Raises:
        ValueError: if a part of it is no width.
    """
    try:
        return tuple(dict.fromkeys(parse_width(part) for part in text.split(",")))
    except ValueError as error:
        raise ValueError(
            f"{str(error)!r} is not a width. Write numbers or labels with commas, such as 256,1k,16k."
        ) from None


def parse_span(text: str) -> tuple[int, int | None]:
    """The two ends of a half-open range A:B; the second is None for an open end.

    Raises:
        ValueError: if it is no range, or an empty one.
    """
    match = re.fullmatch(r"(\d*):(\d*)", text)
    if match is None:
        raise ValueError(f"{text!r} is not a range. Write 10:14, whose end is not included, or 10: for all from 10 on.")
    start, stop = int(match[1] or 0), int(match[2]) if match[2] else None
    if stop is not None and stop <= start:
        raise ValueError(f"{text!r} is empty. The end is not included, so it must be larger than the start.")
    return start, stop


def parse_size(text: str) -> int:
    """Bytes of an amount of memory or disk: 20G, 800M, 1.5GiB, or a number.

    Raises:
        ValueError: if it is none, or less than a byte.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)?", text.strip().lower())
    n_bytes = 0 if match is None else int(float(match[1]) * (1024 if match[3] else 1000) ** _POWER[match[2]])
    if not n_bytes:
        raise ValueError(f"{text!r} is not an amount of bytes. Write 20G, 800M, or 16GiB.")
    return n_bytes


def _parse_dtype(text: str) -> str:
    if text.lower() in ("float16", "fp16", "half"):
        raise ValueError(
            "float16 ends at 65,504, which activations of Gemma pass, and its steps of a thousandth hide what SAEs "
            "leave over. Use bfloat16, which is as small, or float32."
        )
    if text not in _DTYPES:
        raise ValueError(f"{text!r} is not one of {', '.join(map(repr, _DTYPES))}.")
    return text


def _parse_device(text: str) -> str:
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text) is None:
        raise ValueError(f"{text!r} is not a device. Write auto, cpu, mps, cuda or cuda:1.")
    return text


def _parse_factor(text: str) -> float | None:
    if text.strip().lower() == "off":
        return None
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 1 < factor < float("inf"):
        raise ValueError(f"{text!r} is no factor. Write a number above 1, such as 4, or off.")
    return factor


def _parse_field_name(text: str) -> str:
    if not text.strip():  # a variable that was not set
        raise ValueError("the name is empty. Name a field of the records, or leave the option out.")
    return text


def _write_span(span: tuple[int, int | None]) -> str:
    start, stop = span
    return f"{start}:{'' if stop is None else stop}"


@dataclass(frozen=True, eq=False)  # TEXT, SWITCH and EACH have the same fields and are three notations
class Notation:
    """How a type of value is written as text, and read."""

    read: Callable[[str], Any] = str
    """Raises ValueError with a sentence."""
    write: Callable[[Any], str] = str
    metavar: str | None = None


TEXT = Notation()
WHOLE = Notation(int, str, "N")
NUMBER = Notation(float, lambda value: f"{value:g}", "X")
SWITCH = Notation()
"""Takes no value: it is there or not."""
EACH = Notation()
"""Text that may be given several times."""
WIDTHS = Notation(parse_widths, lambda widths: ",".join(map(str, widths)), "LIST")
SPAN = Notation(parse_span, _write_span, "A:B")
SIZE = Notation(parse_size, str, "SIZE")
FACTOR = Notation(_parse_factor, lambda factor: "off" if factor is None else f"{factor:g}", "K|off")
DTYPE = Notation(_parse_dtype, str, f"[{'|'.join(_DTYPES)}]")
DEVICE = Notation(_parse_device, str, "DEVICE")
FIELD_NAME = Notation(_parse_field_name, str, "NAME")


@dataclass(frozen=True, kw_only=True)
class Option:
    """How one field of TARGET is asked for. Stands in the field's metadata; everything that lists options reads it."""

    flag: str
    """With its dashes."""
    help: str
    notation: Notation = TEXT
    metavar: str | None = None
    """None: the notation's."""
    least: int | None = None
    """Of a number."""
    choices: tuple[str, ...] = ()
    shows_default: bool = False
    is_path: bool = False
    """May name a file or folder: a session takes it as an absolute path."""
    built_in: tuple[str, ...] = ()
    """Names that no file of the same name hides."""
    of_session: bool = True
    """False: says how to fetch and not what, or is chosen by each view for itself; it makes no other session."""
