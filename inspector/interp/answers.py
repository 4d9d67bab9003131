"""What a judge said, read strictly: the form that was asked for, or nothing. Nothing is guessed from what is near it.

Two habits are forgiven because they add nothing: a fence of code around the answer, and thoughts before it in <think>.
"""

from __future__ import annotations

import json
import re

MOST_CHARACTERS = 1000
"""Of an explanation; 40 words were asked for."""
_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)
_SPACE = re.compile(r"\s+")


def explanation_in(answer: str | None) -> str | None:
    """The explanation of {"explanation": "..."}, on one line without characters that cannot be printed; else None."""
    found = _json_in(answer)
    if not isinstance(found, dict) or set(found) != {"explanation"} or not isinstance(found["explanation"], str):
        return None
    printable = "".join(letter if letter.isprintable() else " " for letter in found["explanation"])
    text = _SPACE.sub(" ", printable).strip()
    return text if 0 < len(text) <= MOST_CHARACTERS else None


def verdicts_in(answer: str | None, n: int) -> list[bool] | None:
    """The n verdicts of [1, 0, ...]; None if it is no list of exactly n numbers 0 and 1."""
    found = _json_in(answer)
    if not isinstance(found, list) or len(found) != n:
        return None
    if any(type(each) is not int or each not in (0, 1) for each in found):  # True is an int too, and was not asked for
        return None
    return [each == 1 for each in found]


def _json_in(answer: str | None) -> object:
    if answer is None:
        return None
    text = _THOUGHTS.sub("", answer, count=1).strip()
    fenced = _FENCE.match(text)
    try:
        found: object = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return None
    return found
