"""Figures of a stored result, which another version of the program, or anybody, may have written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

from inspector.drawing.figures import Figure
from inspector.errors import DataError
from inspector.experiment import Experiment, ResultObject


@contextlib.contextmanager
def reading(result: Mapping[str, Any]) -> Iterator[None]:
    """Whatever goes wrong within is the result's fault: what an experiment writes itself has no types of its own.

    Raises:
        DataError: the result lacks what is looked at, or holds something else in its place.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        version = result["provenance"].get("program_version", "an unknown version")
        raise DataError(
            f"This result of {result['experiment']}, written by dm-inspect {version}, lacks what its figures need "
            f"({type(error).__name__}: {str(error)[:200]}). Measure it again with its command."
        ) from error


def figures_of(experiment: Experiment, result: Mapping[str, Any]) -> tuple[Figure, ...]:
    """What the experiment draws of it, every cell and point of the type that a figure has.

    Raises:
        DataError: the result lacks what is drawn, or holds something else in its place.
    """
    with reading(result):
        figures = tuple(experiment.draw(cast("ResultObject", result)))
        for figure in figures:
            msgspec.convert(msgspec.to_builtins(figure), type(figure))
    return figures
