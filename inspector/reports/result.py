"""A stored result with all that is drawn and said of it: for commands, the Results screen and pages.

Another version or another program may have written it. Texts may hold what was named elsewhere (models, SAEs,
warnings); what draws them makes it visible first. Reading and drawing take a moment, so the screen calls this in a
thread. Nothing imports torch or numpy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from inspector.claims import CLAIMS, Verdict, evaluate
from inspector.claims.drawing import SIGNS
from inspector.drawing.figures import Figure, Table
from inspector.drawing.lines import prose
from inspector.drawing.palette import FigurePalette, Line, TokenPalette, figure_palette
from inspector.drawing.safe_text import visible
from inspector.drawing.scales import format_cell
from inspector.drawing.terminal_figures import render_figure
from inspector.errors import DataError, InspectorError
from inspector.experiment import Experiment, ResultObject
from inspector.experiments import find
from inspector.reports.sentences import footnotes
from inspector.store.results import Listing, Record, Stored, load, newest_of_each

PAPER = "paper_"
"""Fields of a result that begin so are the paper's own numbers."""
READINGS = ("reading", "interpretation")
"""Fields of a result that say how its numbers are to be read."""
INDENT = "  "
MANY_TABLES = 1
"""Tables of a result that stand beside its plots; the others are among the figures."""


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


def facts(experiment: Experiment, result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(label, a sentence or two): how many tokens stand behind it, the paper's own numbers, its controls, its warnings,
    what would contradict it and what made it, in this order.

    Args:
        experiment: says what would contradict it.
        result: as it was measured or read back.
    """
    made = result["provenance"]
    if result["saes"]:
        first = result["saes"][0]
        ratio = f", {made['n_train_per_d']:.0f} per dimension" if "n_train_per_d" in made else ""
        yield "tokens", f"{first['n_train']:,} fitted{ratio}; {first['n_test']:,} held out; split by {made['split']}"
    paper = paper_numbers(result)
    if paper:
        yield "the paper", ", ".join(f"{name} {listed(value)}" for name, value in paper.items())
    for name, control in result["controls"].items():
        shown = ", ".join(f"{key} {in_short(value)}" for key, value in control.items() if key != "definition")
        yield f"control {name.replace('_', ' ')}", f"{shown}. {control.get('definition', '')}".rstrip()
    for warning in result["warnings"]:
        yield "warning", visible(warning)
    yield "contradicted by", experiment.contradicted_by
    by = f"dm-inspect {made['program_version']}, profile {result['profile']}, seed {made.get('seed', 'none')}"
    yield "made by", f"{by}, fingerprint {str(made['fingerprint'])[:12]}"


def paper_numbers(result: Mapping[str, Any]) -> dict[str, Any]:
    """The paper's own numbers that an experiment puts beside its own, by name."""
    found = result["result"]
    return {key.removeprefix(PAPER).replace("_", " "): found[key] for key in found if key.startswith(PAPER)}


def in_short(value: Any) -> str:
    """A number, or the smallest and largest of one per SAE."""
    if not isinstance(value, Mapping | list | tuple):
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
    if isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
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


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A result that was read back, and all that is drawn of it."""

    record: Record
    stored: Stored | None
    """None: it could not be read; see `problem`."""
    experiment: Experiment | None = None
    figures: tuple[Figure, ...] = ()
    """Plots first, then tables."""
    verdicts: tuple[Verdict, ...] = ()
    """Of the claims that rest on it."""
    problem: str = ""
    """Why it cannot be read or drawn, in two sentences; '' if it can."""

    @property
    def tables(self) -> tuple[Table, ...]:
        """Those that stand beside the plots: the first ones; none if there is no plot."""
        tables = tuple(figure for figure in self.figures if isinstance(figure, Table))
        return tables[:MANY_TABLES] if len(tables) < len(self.figures) else ()


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """What is stored, with the results read so far: the newest of each experiment, which claims are judged by."""

    listing: Listing
    stored: Mapping[str, Stored] = field(default_factory=dict)
    """By id."""


def read_newest(listing: Listing) -> Shelf:
    """The newest of each experiment, read; damaged ones are left out, as the listing has said it already."""
    found: dict[str, Stored] = {}
    for record in newest_of_each(listing):
        with contextlib.suppress(InspectorError):
            found[record.id] = load(record.id)
    return Shelf(listing=listing, stored=found)


def open_result(record: Record, shelf: Shelf) -> Opened:
    """Read a result and prepare what is drawn of it; what goes wrong is said in `problem`.

    Args:
        record: of the list.
        shelf: whose results stand beside it when claims are judged.
    """
    try:
        stored = load(record.id)
        experiment = find(record.experiment)
    except InspectorError as error:
        return Opened(record=record, stored=None, problem=str(error))
    verdicts = judged(stored, shelf)
    try:
        figures = figures_of(experiment, stored.result)
        with reading(stored.result):
            _ = tuple(facts(experiment, stored.result))
    except InspectorError as error:
        return Opened(record=record, stored=stored, experiment=experiment, verdicts=verdicts, problem=str(error))
    figures = tuple(sorted(figures, key=lambda figure: isinstance(figure, Table)))
    return Opened(record=record, stored=stored, experiment=experiment, figures=figures, verdicts=verdicts)


def judged(stored: Stored, shelf: Shelf) -> tuple[Verdict, ...]:
    """The claims that rest on this result, with the newest results of other experiments where they need those."""
    experiment = stored.record.experiment
    about = {claim.id for claim in CLAIMS if experiment in claim.needs}
    if not about or stored.record.null:
        return ()
    others = {each: other.result for each, other in shelf.stored.items() if other.record.experiment != experiment}
    return tuple(each for each in evaluate({stored.record.id: stored.result, **others}) if each.id in about)


def all_verdicts(chosen: Iterable[Stored]) -> tuple[Verdict, ...]:
    """Every claim, judged by these results."""
    return evaluate({each.record.id: each.result for each in chosen})


def figure_lines(opened: Opened, index: int, width: int, height: int, palette: TokenPalette) -> list[Line]:
    """One of its figures, or why there is none."""
    styles = figure_palette(palette)
    if opened.problem:
        return [[("cannot be shown", styles.strong)], [], *prose(opened.problem, width, styles.plain)]
    if not opened.figures:
        return [[("This experiment draws no figure; its numbers are beside.", styles.quiet)]]
    return render_figure(opened.figures[index % len(opened.figures)], width, height, palette)


def fact_lines(opened: Opened, width: int, palette: TokenPalette) -> list[Line]:
    """What stands beside the figure: question, claims, table, definition, controls, warnings, command."""
    styles = figure_palette(palette)
    if opened.experiment is None or opened.stored is None:
        return [*prose(opened.problem, width, styles.plain), [], *_command(opened.record, width, styles)]
    result, experiment = opened.stored.result, opened.experiment
    lines = prose(experiment.question, width, styles.strong)
    lines += prose(f"In the paper: {experiment.reference}", width, styles.plain)
    for warning in result["warnings"]:
        lines += _said("warning", warning, width, styles)
    for verdict in opened.verdicts:
        lines += [[], *verdict_lines(verdict, width, palette)]
    for table in opened.tables:
        lines += [[], *render_figure(table, width, 0, palette, notes=False)]
    lines += [[], *_said("definition", result["definition"], width, styles)]
    for key in READINGS:
        if isinstance(text := result["result"].get(key), str):
            lines += _said("reading", text, width, styles)
    for label, text in facts(experiment, result):
        if label != "warning":
            lines += _said(label, text, width, styles)
    for label, text in footnotes(result["definition"], *(text for _, text in facts(experiment, result))):
        lines += _said(label, text, width, styles)
    return [*lines, [], *_command(opened.record, width, styles)]


def verdict_lines(verdict: Verdict, width: int, palette: TokenPalette) -> list[Line]:
    """A claim with the paper's number beside ours."""
    styles = figure_palette(palette)
    head = f"{SIGNS[verdict.verdict]} {verdict.id} {verdict.verdict}: {verdict.claim}"
    lines = prose(head, width, styles.strong)
    here = (verdict.number or "no number") + verdict.said_of
    for label, text in (("paper", verdict.paper), ("here ", here), ("why  ", verdict.why)):
        said = prose(f"{label}  {text}", width - 2 * len(INDENT), styles.plain)
        lines += [[(INDENT * (2 if i else 1), styles.plain), *line] for i, line in enumerate(said)]
    return lines


def _said(label: str, text: str, width: int, styles: FigurePalette) -> list[Line]:
    """'label: text', the label strong."""
    lines = prose(f"{label}: {text}", width, styles.plain)
    head = visible(f"{label}:")
    first = lines[0][0][0] if lines else ""
    if first.startswith(head):
        lines[0] = [(head, styles.strong), (first[len(head) :], styles.plain)]
    return lines


def _command(record: Record, width: int, styles: FigurePalette) -> list[Line]:
    return [[("repeat with, y copies it:", styles.quiet)], *prose(record.command, width, styles.plain)]


def when(record: Record, *, short: bool) -> str:
    """'2026-11-21 07:41', or without the year."""
    text = record.created.replace("T", " ")[:16]
    return text[5:] if short else text


def kind(record: Record) -> str:
    """'careful', or 'careful, null shuffle'."""
    return record.profile + (f", null {record.null}" if record.null else "")
