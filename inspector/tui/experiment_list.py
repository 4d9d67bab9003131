"""What the Experiments screen shows, as plain data: the list in the paper's order, parameters as fields, the command.

Nothing here imports the experiments by itself: the screen does that in a thread, after it has painted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, get_args

from inspector.cluster import check_address
from inspector.reports.sentences import footnotes
from inspector.spec import Null, Profile, RunSpec, command_of, target_of
from inspector.tui.job_lines import duration
from inspector.tui.lines import Line, cut, left, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from inspector.events import Cost
    from inspector.experiment import Experiment
    from inspector.session.protocol import Costs

PROFILES: tuple[str, ...] = get_args(Profile)
NULLS: tuple[str, ...] = ("none", *get_args(Null))
ON_OFF = ("on", "off")
PRICE = 11
"""Columns of a cost: 59 min 59 s is as long as they get."""
DEFAULT = "default"
"""Of a choice that has a third state: as the profile says."""
CHOICE_DOCS = {
    "profile": "How tokens are split, fitted and scored: careful, or as the paper's text or its published code does.",
    "null": "Measure a control instead: shuffled targets, a Gaussian with the same moments, an affine map.",
}

RAY = "ray"
RAY_DOC = (
    "The Ray cluster whose workers share the work, with the same results: local:N is N of them on the session's "
    "machine, auto the cluster that it belongs to, or an address such as HOST:6379. Empty: the session alone."
)


@dataclass(frozen=True, kw_only=True)
class ParamField:
    """One parameter as a form shows it."""

    key: str
    kind: str
    """'int', 'float', 'str', 'bool'."""
    default: str
    """As it would be typed."""
    doc: str
    choices: tuple[str, ...] = ()
    """Empty: anything may be typed."""
    used_by: tuple[str, ...] = ()
    """Ids of the experiments that take it; empty: all."""
    least: float | None = None
    most: float | None = None
    """Bounds of a number; None: as the experiment declares none."""

    @property
    def range(self) -> str:
        """'0 to 10,000'; '' without bounds."""
        return "" if self.least is None else f"{self.least:,g} to {self.most:,.12g}"

    def refused(self, value: str) -> bool:
        """Whether a number lies outside its bounds, or is none."""
        if self.least is None or self.most is None or value == self.default:
            return False
        try:
            return not self.least <= (int(value) if self.kind == "int" else float(value)) <= self.most
        except ValueError:
            return True


def paper_order(experiment: Experiment) -> tuple[int, list[tuple[int, str]], str]:
    """Where it stands in the paper: sections before appendices, each by its number; the title breaks ties."""
    match = re.search(r"(Sec|App)\. ([A-Z0-9]+(?:\.[0-9]+)*)", experiment.reference)
    if match is None:
        return 2, [], experiment.title
    parts = [(int(part), "") if part.isdigit() else (0, part) for part in match[2].split(".")]
    return (0 if match[1] == "Sec" else 1), parts, experiment.title


def element(experiment: Experiment) -> str:
    """The first paper element of its reference: 'Sec. 4.2'; 'beyond' of what the paper does not have."""
    if not re.match(r"(Sec|App|Fig|Eq|Table)s?\. ?|Table ", experiment.reference):
        return "beyond"
    return experiment.reference.replace(";", ",").split(",")[0].strip()


def in_paper_order(experiments: Iterable[Experiment]) -> list[Experiment]:
    """As the list shows them."""
    return sorted(experiments, key=paper_order)


def cost(estimate: Cost | None, asked: bool) -> tuple[str, str]:
    """What the list says of an experiment's cost over all its passes, and its look.

    Args:
        estimate: the session's; None: it gave none.
        asked: whether its answer is still awaited.
    """
    if estimate is None:
        return ("…" if asked else "-"), "muted"
    if estimate.why_not:
        return "cannot", "warning"
    seconds = estimate.seconds if estimate.alone is None else estimate.alone
    if seconds is None:
        return "?", "muted"
    return (f"{duration(seconds)}" if seconds >= 0.5 else "< 1 s"), ""


def row(experiment: Experiment, estimate: Cost | None, asked: bool, marked: bool, width: int) -> Line:
    """One experiment of the list: mark, paper element, title, cost."""
    told, look = cost(estimate, asked)
    where = 9 if width < 60 else 10
    price = PRICE
    name = max(8, width - 2 - where - price - 2)
    return [
        ("● " if marked else "  ", "accent"),
        (left(element(experiment), where), "muted"),
        (" ", ""),
        (left(experiment.title, name), "strong" if marked else ""),
        (f"{told:>{price}}", look),
    ]


def head(width: int, *, asked: bool) -> Line:
    """Above the list."""
    where = 9 if width < 60 else 10
    price = "cost here" if not asked else "cost …"
    return [
        (" " * 4, "muted"),
        (left("paper", where), "muted"),
        (" ", ""),
        (left("experiment", max(8, width - 2 - where - PRICE - 2 - 2)), "muted"),
        (f"{price:>{PRICE}}", "muted"),
    ]


def together(marked: Sequence[Experiment], estimates: Costs | None) -> str:
    """What the chosen ones cost: 'about 42 s, 30 s of it for passes that they share'; '' if unknown."""
    if estimates is None or not marked:
        return ""
    known = {estimate.experiment: estimate for estimate in estimates.costs}
    each = [known[e.id].seconds for e in marked if e.id in known]
    own = [seconds for seconds in each if seconds is not None]
    shared = estimates.shared_seconds or 0.0
    unknown = len(marked) - len(own)
    if unknown == len(marked):
        return ""
    total = duration(sum(own) + shared)
    told = f"at least {total}, {unknown} not known yet" if unknown else f"about {total}"
    if shared < 0.5:
        return told
    whose = "passes that they share" if len(marked) > 1 else "passes over the tokens"
    return f"{told}, {duration(shared)} of it for {whose}"


def detail_lines(experiment: Experiment, estimate: Cost | None, width: int) -> list[Line]:
    """All that is said about one experiment."""
    room = max(20, width - 1)
    lines: list[Line] = [[(cut(experiment.title, room), "strong")], [(cut(experiment.reference, room), "muted")], []]
    lines += wrapped(experiment.question, room)
    if estimate is not None and estimate.seconds is None and not estimate.why_not:
        lines += [[], [("what it costs is known once it has run on this target", "muted")]]
    if estimate is not None and estimate.why_not:
        lines += [[], [("cannot run here", "warning")]]
        lines += wrapped(estimate.why_not, room)
    blocks = (
        ("would contradict the paper's claim", experiment.contradicted_by),
        ("measured", experiment.defined()),
        ("needs", needs_text(experiment)),
    )
    for name, text in (*blocks, *footnotes(*(text for _, text in blocks))):
        lines += [[], [(name, "accent")]]
        lines += wrapped(text, room)
    return lines


def needs_text(experiment: Experiment) -> str:
    """What it asks of a run, in words."""
    if not experiment.needs_target:
        return "No model: a simulation."
    parts = [str(need) for need in experiment.needs]
    if experiment.measure is not None:
        parts.append("a measurement of its own over the tokens")
    return f"{', '.join(parts)}." if parts else "The shared pass over the tokens."


# ---- parameters as fields -------------------------------------------------------------------------------------------


def field_docs(params: type) -> dict[str, str]:
    """The line below each field of a dataclass and of those it is made from; '' where the source is not at hand.

    Parses their files, some milliseconds each the first time: the screen does that in a thread.
    """
    import inspect

    docs: dict[str, str] = {}
    for each in reversed(params.__mro__[:-1]):
        try:
            path = inspect.getsourcefile(each)
        except TypeError:
            continue
        docs |= _docs_in(path or "", each.__name__)
    return docs


@cache
def _docs_in(path: str, class_name: str) -> dict[str, str]:
    """What stands below each field of one class of a file."""
    import ast

    try:
        with open(path, encoding="utf-8") as file:
            tree = ast.parse(file.read())
    except (OSError, ValueError, SyntaxError):
        return {}
    docs: dict[str, str] = {}
    found = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    for statement, following in pairwise(next((node.body for node in found), [])):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            docs[statement.target.id] = " ".join(str(following.value.value).split())
    return docs


def param_fields(experiments: Sequence[Experiment]) -> list[ParamField]:
    """The parameters of these experiments, each once, in the order of their declaration; then profile, null and ray."""
    found: dict[str, ParamField] = {}
    users: dict[str, list[str]] = {}
    for experiment in experiments:
        docs = field_docs(experiment.params)
        for each in fields(experiment.params):
            users.setdefault(each.name, []).append(experiment.id)
            kind = str(each.type).split("|")[0].strip()
            default = typed(each.default)
            choices: tuple[str, ...] = ()
            if kind == "bool":
                choices = (DEFAULT, *ON_OFF) if each.default is None else ON_OFF
                default = DEFAULT if each.default is None else default
            elif "among" in each.metadata and not each.metadata["several"]:
                choices = tuple(dict.fromkeys((default, *each.metadata["among"])))
            new = ParamField(
                key=each.name,
                kind=kind,
                default=default,
                doc=docs.get(each.name, ""),
                choices=choices,
                least=each.metadata.get("least"),
                most=each.metadata.get("most"),
            )
            known = found.setdefault(each.name, new)
            if known.default != default:  # no default is common to all: an empty field leaves each its own
                found[each.name] = replace(known, default="", doc=f"{known.doc} Empty: each experiment's own default.")
    made = [
        field if len(users[key]) == len(experiments) else replace(field, used_by=tuple(users[key]))
        for key, field in found.items()
    ]
    return [
        *made,
        ParamField(key="profile", kind="choice", default="careful", doc=CHOICE_DOCS["profile"], choices=PROFILES),
        ParamField(key="null", kind="choice", default="none", doc=CHOICE_DOCS["null"], choices=NULLS),
        ParamField(key=RAY, kind="str", default="", doc=RAY_DOC),
    ]


def typed(value: object) -> str:
    """A default as it would be typed."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What would be started."""

    experiments: tuple[str, ...]
    params: tuple[tuple[str, str], ...] = ()
    profile: Profile = "careful"
    null: Null | None = None
    ray: str | None = None

    @classmethod
    def of(cls, experiments: Sequence[Experiment], form: Sequence[ParamField], values: Mapping[str, str]) -> Request:
        """From a form: only what differs from the defaults is named."""
        changed = {
            field.key: values[field.key].strip()
            for field in form
            if field.key in values and values[field.key].strip() not in (field.default, DEFAULT)
        }
        profile, null = changed.pop("profile", "careful"), changed.pop("null", None)
        ray = changed.pop(RAY, None)
        return cls(
            experiments=tuple(experiment.id for experiment in experiments),
            params=tuple(changed.items()),
            profile=next(each for each in get_args(Profile) if each == profile),
            null=next((each for each in get_args(Null) if each == null), None),
            ray=ray,
        )

    def problem(self, experiments: Sequence[Experiment]) -> str:
        """Why it would be refused; '' if it would not."""
        from inspector.errors import InspectorError
        from inspector.experiment import parse_params

        try:
            parse_params(experiments, dict(self.params))
            if self.ray is not None:
                check_address(self.ray)
        except InspectorError as error:
            return str(error)
        return ""

    def command(self, target: Sequence[str]) -> str:
        """The same without a screen: `dm-inspect run ...`.

        Args:
            target: options that name the target, as Ready tells them.
        """
        run = RunSpec(
            target=target_of(target),
            experiments=self.experiments,
            params=dict(self.params),
            profile=self.profile,
            null=self.null,
            ray=self.ray,
        )
        return command_of(run, *self.experiments, ray=True)
