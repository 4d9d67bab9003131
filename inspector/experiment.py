"""What an experiment is, and what its result looks like when it leaves the program.

An experiment is a file in `inspector/experiments` that declares one `Experiment`. Its `compute` is pure: the same
statistics and parameters give the same outcome; no model, no disk, no clock. Its `draw` starts from the result as
it is stored and sent, so that a screen, a terminal and a file all draw the same thing without computing anything.
No torch and no numpy: listing experiments must cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypedDict

from inspector.errors import UsageError, nearest

if TYPE_CHECKING:
    # Types only: defining the dataclasses behind these names costs more than listing every experiment may.
    from inspector.drawing.figures import Figure
    from inspector.events import Event
    from inspector.statistics.costs import Pass, Workload
    from inspector.statistics.measured import Statistics
    from inspector.statistics.pipeline import Measuring
    from inspector.statistics.profiles import Need, Protocol

Interval = tuple[float, float] | None
Json = Any
"""A number, string, None, or lists and string-keyed dictionaries of them: read back as it was written."""


SAE_KEYS = ("sae", "layer", "hook_name", "d_sae", "nominal_l0", "l0", "n_train", "n_test")
"""What every entry of a result's `saes` has; the rest was measured."""
SPREAD_KEYS = ("n_eff", "top_share")
"""How many tokens a squared error is of; beside the scores, and no score."""
ALL_TOKENS = "_all_tokens"
"""Behind the name of a number: the same with outliers fitted and scored like the other tokens."""


class ResultObject(TypedDict):
    """One result as `--json` prints it; scripts depend on these keys."""

    experiment: str
    profile: str
    definition: str
    provenance: dict[str, Json]
    saes: list[dict[str, Json]]
    """Per SAE: sae, layer, hook_name, d_sae, nominal_l0, l0, n_train, n_test, then what was measured, nothing else."""
    result: dict[str, Json]
    intervals: dict[str, dict[str, list[float] | None]]
    """By sae and score: [low, high]."""
    controls: dict[str, Json]
    warnings: list[str]


def bounded(default: Any, least: float, most: float) -> Any:
    """A parameter that is a number, with the least and the most a command line may ask for.

    Args:
        default: where it is not given.
        least: and smaller is refused.
        most: and larger is refused: beyond, memory or time would end the run.
    """
    return field(default=default, metadata={"least": least, "most": most})


def chosen(default: str, among: Sequence[str], *, several: bool = False) -> Any:
    """A parameter that is one of some words.

    Args:
        default: where it is not given; need not be among them.
        among: what a command line may say.
        several: it may be more than one, with commas between; see `words_of`.
    """
    return field(default=default, metadata={"among": tuple(among), "several": several})


def words_of(value: str) -> list[str]:
    """The words of a parameter that may be several, each once."""
    return list(dict.fromkeys(word for word in value.replace(" ", "").split(",") if word))


@dataclass(frozen=True, kw_only=True)
class FitParams:
    """Parameters of every experiment that fits affine maps."""

    intercept: bool | None = None
    """Fit with an intercept; None: as the profile says."""
    resamples: int = bounded(1000, 0, 10_000)
    """Bootstrap draws of held-out contexts; 0 gives no intervals. Below a few hundred, intervals jump with the seed."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What `compute` returns."""

    rows: tuple[object, ...]
    """One dataclass per SAE, in the order of the statistics: the fields are the keys of the result's `saes`. None for
    an SAE that was not looked at; empty if nothing is per SAE."""
    result: object
    """A dataclass: the fields are the keys of `result`."""
    intervals: Mapping[str, Mapping[str, Interval]]
    controls: Mapping[str, Json] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One measurement of the paper, with all that is said about it."""

    id: str
    """The file's name with dashes."""
    title: str
    question: str
    """One sentence, ending in a question mark."""
    reference: str
    """Where in the paper: section, equation, figures."""
    definition: str | Callable[[Protocol, Any], str]
    """What exactly is measured; printed with every number. Where profile or parameters decide, it is made from them:
    (protocol as it was followed, params) to text. See `defined`."""
    contradicted_by: str
    """What would contradict the paper's claim."""
    params: type[FitParams]
    draw: Callable[[ResultObject], Sequence[Figure]]
    compute: Callable[[Statistics, Any], Outcome] | None = None
    """(statistics, params) to outcome; None: a simulation, or another command makes its results."""
    needs: tuple[Need, ...] = ()
    """What it takes from the shared passes beyond the SAEs' variances."""
    measure: Callable[[Measuring, Any], Generator[Event, None, object]] | None = None
    """(what there is, params) to what the shared passes do not collect; `compute` finds it in `statistics.own` under
    the experiment's id. Experiments with the same function and equal params are measured once."""
    writes: bool = False
    """Its own measurement leaves files: of several processes that run the same program one does all of it."""
    simulate: Callable[[int, Any], Generator[Event, None, Outcome]] | None = None
    """(seed, params) to an outcome without rows: it looks at no model, and runs without one."""
    passes: Callable[[Workload, Any], Iterable[Pass]] | None = None
    """(the target's sizes, params) to the passes of `measure` or `simulate`, from which their time is told before they
    run; None: it is known once they have."""

    @property
    def needs_target(self) -> bool:
        """False: a simulation."""
        return self.simulate is None

    @property
    def own_work(self) -> Callable[..., Generator[Event, None, object]] | None:
        """What it does beside the passes that experiments share; None: nothing."""
        return self.measure or self.simulate

    def defined(self, protocol: Protocol | None = None, params: FitParams | None = None) -> str:
        """What a run measures that follows the protocol with these parameters; None: the careful one, and defaults."""
        if isinstance(self.definition, str):
            return self.definition
        if protocol is None:
            from inspector.statistics.profiles import PROTOCOLS

            protocol = PROTOCOLS["careful"]
        return self.definition(protocol, params or self.params())


def parse_params(experiments: Sequence[Experiment], given: Mapping[str, str]) -> dict[str, FitParams]:
    """The Params of every experiment, by id, from `-p KEY=VALUE`; each takes the keys it knows.

    Raises:
        UsageError: no experiment knows a key, or a value is not of its type.
    """
    known = {name.name for experiment in experiments for name in fields(experiment.params)}
    for key in given:
        if key not in known:
            ids = ", ".join(experiment.id for experiment in experiments)
            raise UsageError(f"'{key}' is not a parameter of {ids}.{nearest(key, sorted(known))}")
    return {experiment.id: _params(experiment, given) for experiment in experiments}


def _params(experiment: Experiment, given: Mapping[str, str]) -> FitParams:
    values: dict[str, Any] = {}  # as typed as the command line is; `_parsed` makes each what its field says
    for name in fields(experiment.params):
        if name.name in given:
            values[name.name] = _parsed(name.name, given[name.name], str(name.type))
            if "among" in name.metadata and values[name.name] != name.default:
                _check_words(name.name, values[name.name], **name.metadata)
            elif "least" in name.metadata:
                _check_bounds(name.name, values[name.name], **name.metadata)
    return experiment.params(**values)


def _check_words(key: str, value: str, among: Sequence[str], several: bool) -> None:
    """Refuse a word that is not among those that there are, before anything is loaded.

    Raises:
        UsageError: there is no such word, or none was given.
    """
    for word in (words_of(value) or [""]) if several else [value]:
        if word not in among:
            which = f": '{word}'" if several else ""
            raise UsageError(f"'{key}={value}'{which} is not known.{nearest(word, among)}")


def _check_bounds(key: str, value: float, least: float, most: float) -> None:
    """Refuse a number outside its bounds.

    Raises:
        UsageError: it is outside, or no finite number.
    """
    if not least <= value <= most:  # which a NaN is not either
        raise UsageError(
            f"'{key}={value:,}' is outside its bounds. Write a number from {least:,g} to {most:,.12g}, as -p {key}="
            f"{min(max(value, least), most) if value == value else least:g}."
        )


def _parsed(key: str, text: str, kind: str) -> bool | int | float | str:
    """A value from the command line; `kind` is the annotation of the field."""
    if kind.startswith("bool"):
        words = {
            "on": True,
            "true": True,
            "yes": True,
            "1": True,
            "off": False,
            "false": False,
            "no": False,
            "0": False,
        }
        if text.lower() not in words:
            raise UsageError(f"'{key}={text}' is neither on nor off. Write -p {key}=on or -p {key}=off.")
        return words[text.lower()]
    if kind.startswith(("int", "float")):
        try:
            number = int(text) if kind.startswith("int") else float(text)
        except ValueError:
            raise UsageError(f"'{key}={text}' is not a number. Write for example -p {key}=100.") from None
        if not 0 <= number < math.inf:
            raise UsageError(f"'{key}={text}' is negative or no finite number. Write for example -p {key}=100.")
        return number
    return text
