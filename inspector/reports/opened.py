"""A stored result with all that is drawn and said of it, as lines for a terminal: for the Results screen and commands.

Everything here may take a moment (files, drawing), so the screen calls it in a thread. Nothing imports torch or numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inspector.claims import Verdict, evaluate
from inspector.claims.drawing import SIGNS
from inspector.claims.table import CLAIMS
from inspector.claims.verdict import interval_text
from inspector.drawing.cells import prose
from inspector.drawing.figure_palette import Line, figure_palette
from inspector.drawing.figures import Figure, Table
from inspector.drawing.safe_text import visible
from inspector.drawing.terminal_figures import render_figure
from inspector.errors import InspectorError
from inspector.experiments import find
from inspector.reports.drawn import figures_of, reading
from inspector.reports.facts import facts, readings
from inspector.store.results import Record, Stored, load, newest_of_each

if TYPE_CHECKING:
    from inspector.drawing.palette import TokenPalette
    from inspector.experiment import Experiment
    from inspector.store.results import Listing

INDENT = "  "
MANY_TABLES = 1
"""Tables of a result that stand beside its plots; the others are among the figures."""


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
        try:
            found[record.id] = load(record.id)
        except InspectorError:
            continue
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
    plots = [figure for figure in figures if not isinstance(figure, Table)]
    tables = [figure for figure in figures if isinstance(figure, Table)]
    return Opened(record=record, stored=stored, experiment=experiment, figures=(*plots, *tables), verdicts=verdicts)


def judged(stored: Stored, shelf: Shelf) -> tuple[Verdict, ...]:
    """The claims that rest on this result, with the newest results of other experiments where they need those."""
    experiment = stored.record.experiment
    about = {claim.id for claim in CLAIMS if experiment in claim.needs}
    if not about or stored.record.null:
        return ()
    others = {each: other.result for each, other in shelf.stored.items() if other.record.experiment != experiment}
    verdicts = evaluate({stored.record.id: stored.result, **others})
    return tuple(verdict for verdict in verdicts if verdict.id in about)


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
    lines: list[Line] = []
    if opened.experiment is None or opened.stored is None:
        return [*prose(opened.problem, width, styles.plain), [], *_command(opened.record, width, palette)]
    result, experiment = opened.stored.result, opened.experiment
    lines += prose(experiment.question, width, styles.strong)
    lines += prose(f"In the paper: {experiment.reference}", width, styles.plain)
    for warning in result["warnings"]:
        lines += _said("warning", warning, width, palette)
    for verdict in opened.verdicts:
        lines += [[], *verdict_lines(verdict, width, palette)]
    for table in opened.tables:
        lines += [[], *render_figure(table, width, 0, palette, notes=False)]
    lines += [[], *_said("definition", result["definition"], width, palette)]
    for text in readings(result):
        lines += _said("reading", text, width, palette)
    for fact in facts(experiment, result):
        if fact.label != "warning":
            lines += _said(fact.label, fact.text, width, palette)
    return [*lines, [], *_command(opened.record, width, palette)]


def verdict_lines(verdict: Verdict, width: int, palette: TokenPalette) -> list[Line]:
    """A claim with the paper's number beside ours."""
    styles = figure_palette(palette)
    head = f"{SIGNS[verdict.verdict]} {verdict.id} {verdict.verdict}: {verdict.claim}"
    lines = prose(head, width, styles.strong)
    here = verdict.number or "no number"
    if verdict.interval is not None and verdict.value is not None:
        here += f"; of {verdict.value:.3g}:{interval_text(verdict.interval)}"
    for label, text in (("paper", verdict.paper), ("here ", here), ("why  ", verdict.why)):
        lines += _indented(f"{label}  {text}", width, palette)
    return lines


def _said(label: str, text: str, width: int, palette: TokenPalette) -> list[Line]:
    """'label: text', the label strong."""
    styles = figure_palette(palette)
    lines = prose(f"{label}: {text}", width, styles.plain)
    head = visible(f"{label}:")
    first = lines[0][0][0] if lines else ""
    if first.startswith(head):
        lines[0] = [(head, styles.strong), (first[len(head) :], styles.plain)]
    return lines


def _indented(text: str, width: int, palette: TokenPalette) -> list[Line]:
    styles = figure_palette(palette)
    lines = prose(text, width - 2 * len(INDENT), styles.plain)
    return [[(INDENT if i == 0 else 2 * INDENT, styles.plain), *line] for i, line in enumerate(lines)]


def _command(record: Record, width: int, palette: TokenPalette) -> list[Line]:
    styles = figure_palette(palette)
    head: list[Line] = [[("repeat with, y copies it:", styles.quiet)]]
    return [*head, *prose(record.command, width, styles.plain)]


def when(record: Record, *, short: bool) -> str:
    """'2026-11-21 07:41', or without the year."""
    text = record.created.replace("T", " ")[:16]
    return text[5:] if short else text


def kind(record: Record) -> str:
    """'careful', or 'careful, null shuffle'."""
    return record.profile + (f", null {record.null}" if record.null else "")
