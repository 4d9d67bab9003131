"""The list in the paper's order, parameters as fields, the command: for every experiment there is."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields

import pytest

from inspector.cli.run import as_pairs, check
from inspector.events import Cost
from inspector.experiment import Experiment, FitParams
from inspector.experiments import discover
from inspector.session.protocol import Costs
from inspector.tui import experiment_list
from inspector.tui.experiment_list import Request, param_fields
from inspector.tui.lines import text_of, width_of

ALL = discover()


@dataclass(frozen=True, kw_only=True)
class Odd(FitParams):
    """Other defaults than its neighbours."""

    resamples: int = 7
    fast: bool = False
    """Skip the slow half;
    numbers stay the same."""


def some(**changes: object) -> Experiment:
    model = ALL["error-vector"]
    values = {field.name: getattr(model, field.name) for field in fields(Experiment)}
    return Experiment(**{**values, **changes})  # type: ignore[arg-type]


def test_sections_come_before_appendices_and_each_by_its_number() -> None:
    references = ["App. C.2, Fig. 14", "Sec. 6.1", "beyond the paper", "App. A.1", "Sec. 4.2, Eq. 11", "Sec. 4.10"]
    found = experiment_list.in_paper_order(some(reference=reference) for reference in references)
    assert [experiment_list.element(each) for each in found] == [
        "Sec. 4.2", "Sec. 4.10", "Sec. 6.1", "App. A.1", "App. C.2", "beyond",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [56, 66, 100])
def test_every_experiment_fits_its_line_and_says_what_would_contradict_it(width: int) -> None:
    for experiment in ALL.values():
        line = experiment_list.row(experiment, None, True, True, width)
        assert width_of(line) <= width
        lines = [text_of(each) for each in experiment_list.detail_lines(experiment, None, width)]
        assert all(len(each) <= width for each in lines)
        joined = " ".join(lines)
        assert experiment.contradicted_by.split()[-1] in joined
        assert experiment.question.split()[0] in joined


def test_costs() -> None:
    assert experiment_list.cost(None, True) == ("…", "muted")
    assert experiment_list.cost(None, False) == ("-", "muted")
    assert experiment_list.cost(Cost(experiment="a", seconds=75.0), False) == ("1 min 15 s", "")
    assert experiment_list.cost(Cost(experiment="a", seconds=0.1), False)[0] == "< 1 s"
    assert experiment_list.cost(Cost(experiment="a", seconds=0.0, alone=75.0), False)[0] == "1 min 15 s"
    assert experiment_list.cost(Cost(experiment="a", seconds=None), False)[0] == "?"
    assert experiment_list.cost(Cost(experiment="a", seconds=None, why_not="no hook"), False)[0] == "cannot"


def test_several_cost_what_each_adds_and_the_shared_passes_once() -> None:
    chosen = [ALL["error-vector"], ALL["norm-prediction"]]
    each = [Cost(experiment=experiment.id, seconds=5.0) for experiment in chosen]
    told = experiment_list.together(chosen, Costs(costs=each, shared_seconds=30.0))
    assert told == "about 40 s, 30 s of it for passes that they share"
    unknown = [each[0], Cost(experiment="norm-prediction", seconds=None)]
    told = experiment_list.together(chosen, Costs(costs=unknown, shared_seconds=30.0))
    assert told == "at least 35 s, 1 not known yet, 30 s of it for passes that they share"
    assert experiment_list.together(chosen[1:], Costs(costs=unknown, shared_seconds=30.0)) == ""


@pytest.mark.parametrize("experiment", ALL.values(), ids=lambda experiment: experiment.id)
def test_every_parameter_is_a_field_with_its_line_of_explanation(experiment: Experiment) -> None:
    form = param_fields([experiment])
    own = [field.name for field in fields(experiment.params)]
    assert [field.key for field in form] == [*own, "profile", "null", "ray"]
    for field in form:
        assert field.doc, field.key
        assert not field.choices or field.default in field.choices
    untouched = Request.of([experiment], form, {field.key: field.default for field in form})
    assert untouched == Request(experiments=(experiment.id,))
    assert untouched.problem([experiment]) == ""


def test_a_parameter_of_several_experiments_is_one_field_and_says_whose_it_is() -> None:
    odd = some(id="odd", params=Odd)
    by_key = {field.key: field for field in param_fields([ALL["error-vector"], odd])}
    assert by_key["intercept"].used_by == ()
    assert by_key["fast"].used_by == ("odd",)
    assert (by_key["fast"].choices, by_key["fast"].default) == (("on", "off"), "off")
    assert by_key["fast"].doc == "Skip the slow half; numbers stay the same."
    assert by_key["intercept"].choices == ("default", "on", "off")
    assert by_key["resamples"].default == "", "1000 of one and 7 of the other: nobody's default is everybody's"


def test_the_command_is_what_the_command_line_takes() -> None:
    chosen = [ALL["error-vector"], ALL["pursuit"]]
    values = {"resamples": " 50 ", "variant": "refit", "intercept": "off", "null": "shuffle", "profile": "paper-code"}
    request = Request.of(chosen, param_fields(chosen), values)
    words = shlex.split(request.command(["--widths", "256,512", "--text", "a b.txt"]))
    assert words[:4] == ["dm-inspect", "run", "error-vector", "pursuit"]
    assert words[4:8] == ["--widths", "256,512", "--text", "a b.txt"]
    given = tuple(words[index + 1] for index, word in enumerate(words) if word == "-p")
    assert as_pairs(given) == {"intercept": "off", "resamples": "50", "variant": "refit"}
    assert check(("error-vector", "pursuit"), given) == chosen
    assert words[-4:] == ["--profile", "paper-code", "--null", "shuffle"]
    on_workers = Request.of(chosen, param_fields(chosen), values | {"ray": "auto"})
    assert shlex.split(on_workers.command([]))[-2:] == ["--ray", "auto"]


def test_a_value_that_would_be_refused_says_why() -> None:
    chosen = [ALL["error-vector"]]
    request = Request.of(chosen, param_fields(chosen), {"resamples": "many"})
    assert request.problem(chosen) == "'resamples=many' is not a number. Write for example -p resamples=100."
