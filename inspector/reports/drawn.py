"""Figures of a stored result, which another version of the program may have written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from inspector.drawing.figures import Figure
from inspector.errors import DataError
from inspector.experiment import Experiment, ResultObject


def figures_of(experiment: Experiment, result: Mapping[str, Any]) -> tuple[Figure, ...]:
    """What the experiment draws of it.

    Raises:
        DataError: the result lacks what is drawn.
    """
    try:
        return tuple(experiment.draw(cast("ResultObject", result)))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        version = result["provenance"].get("program_version", "an unknown version")
        raise DataError(
            f"This result of {experiment.id}, written by dm-inspect {version}, lacks what its figures need "
            f"({type(error).__name__}: {error}). Measure it again with its command."
        ) from error
