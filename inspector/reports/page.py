"""One page about a set of results: figures, tables, controls, what made them, and the paper's claims.

Everything that was measured or named elsewhere passes `text_of`: names of models and tokens are hostile until
they are escaped. The page loads nothing; it even forbids itself to.
"""

from __future__ import annotations

import hashlib
import html
import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from inspector import __version__
from inspector.claims import CANNOT_TELL, CONSISTENT, CONTRADICTS, Verdict, counted
from inspector.drawing.figures import Cell, Figure, Table
from inspector.drawing.safe_text import visible
from inspector.drawing.scales import format_cell
from inspector.drawing.vector_figures import svg_of
from inspector.errors import DataError
from inspector.experiment import Experiment
from inspector.experiments import find
from inspector.reports.result import all_verdicts, figures_of, paper_numbers, reading
from inspector.store.fingerprint import versions
from inspector.store.results import Stored

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
CLASSES = {CONSISTENT: "good", CONTRADICTS: "bad", CANNOT_TELL: "open"}
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_SHORT_HASH = 16
MANY = 4
"""Numbers above which a control shows their range; all of them are in the JSON."""


def page(stored: Sequence[Stored]) -> str:
    """The whole document.

    Args:
        stored: results in the order of their sections.

    Raises:
        UsageError: matplotlib is not installed, or a result is of an experiment that this program does not have.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>dm-inspect: {len(stored)} results</title><style>{STYLE}</style></head><body>",
        *_head(stored),
        *_claims(all_verdicts(stored)),
    ]
    for each in stored:
        try:
            with reading(each.result):
                parts += list(_section(each, find(each.record.experiment)))
        except DataError as error:  # one that cannot be shown hides no other
            said = f'<p class="warning">{text_of(error)}</p>'
            parts.append(f"<section><h2>{text_of(each.record.id)}</h2>{said}</section>")
    parts.append("</body></html>")
    return "\n".join(parts) + "\n"


def text_of(value: object) -> str:
    """Any text as the page may hold it: what a reader cannot see is made visible, what HTML would obey is escaped."""
    return html.escape(visible(str(value))) if str(value) else ""


def _head(stored: Sequence[Stored]) -> Iterator[str]:
    targets = dict.fromkeys(f"{each.record.model} · {each.record.hook_name}" for each in stored if each.record.model)
    newest = max((each.record.created for each in stored), default="")
    yield "<h1>What sparse autoencoders leave unexplained</h1>"
    yield f'<p class="quiet">{text_of(", ".join(targets))} · {len(stored)} results, the newest of {text_of(newest)}</p>'
    yield '<nav><ol><li><a href="#claims">The paper\'s claims</a></li>'
    for each in stored:
        yield f'<li><a href="#{text_of(each.record.id)}">{text_of(find(each.record.experiment).title)}</a></li>'
    yield "</ol></nav><h3>Environment</h3>"
    made: dict[str, set[str]] = {}
    for each in stored:
        about = each.result["provenance"]
        for name, value in {"dm-inspect": about.get("program_version"), **about.get("versions", {})}.items():
            made.setdefault(str(name), set()).add(str(value))
    rows = [(name, ", ".join(sorted(values))) for name, values in made.items()]
    rows.append(("profiles", ", ".join(sorted({each.record.profile for each in stored}))))
    now = {"dm-inspect": __version__, **versions(), "python": platform.python_version()}
    rows.append(("this page", ", ".join(f"{name} {value}" for name, value in now.items())))
    yield _table(("measured with", "version"), rows)


def _claims(verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield '<section id="claims"><h2>The paper\'s claims</h2>'
    yield f'<p class="quiet">{counted(verdicts)}</p>'
    rows = []
    for each in verdicts:
        number = text_of(each.number) + text_of(each.said_of).replace(", ", ",&nbsp;")
        sources = ", ".join(f'<a href="#{text_of(found)}">{text_of(found)}</a>' for found in each.results)
        why = text_of(each.why) + (f' <span class="quiet">From {sources}.</span>' if sources else "")
        why += f" {text_of(each.said_of_all_tokens)}" if each.all_tokens else ""
        verdict = f'<span class="verdict {CLASSES[each.verdict]}">{each.verdict}</span>'
        cells = (each.id, text_of(each.claim), text_of(each.paper), number, verdict, why)
        rows.append([f"<td>{cell}</td>" for cell in cells])
    head = ("", "claim", "the paper", "here", "verdict", "why")
    yield _wide([f"<th>{title}</th>" for title in head], rows) + "</section>"


def _section(stored: Stored, experiment: Experiment) -> Iterator[str]:
    record, result = stored.record, stored.result
    yield f'<section id="{text_of(record.id)}"><h2>{text_of(experiment.title)}</h2>'
    where = " · ".join(part for part in (record.model, record.hook_name, f"profile {record.profile}") if part)
    yield f'<p class="quiet">{text_of(record.id)} · {text_of(where)} · paper: {text_of(experiment.reference)}</p>'
    yield f"<p><strong>{text_of(experiment.question)}</strong></p><p>{text_of(result['definition'])}</p>"
    paper = ", ".join(f"{name}: {_short(value)}" for name, value in paper_numbers(result).items())
    if paper:
        yield f"<p>The paper: {text_of(paper)}</p>"
    try:
        figures = figures_of(experiment, result)
    except DataError as error:
        figures = ()
        yield f'<p class="warning">{text_of(error)}</p>'
    yield '<div class="figures">'
    for index, figure in enumerate(figures):
        if not isinstance(figure, Table):
            yield _figure(figure, f"{record.id}-{index}", result["definition"])
    yield "</div>"
    for figure in figures:
        if isinstance(figure, Table):
            yield f"<h3>{text_of(figure.title)}</h3>" + _drawn_table(figure)
            yield _notes(figure.note, result["definition"])
    if result["controls"]:
        yield "<h3>Controls</h3>" + _table(("control", "definition", "numbers"), list(_controls(result["controls"])))
    for warning in result["warnings"]:
        yield f'<p class="warning">{text_of(warning)}</p>'
    yield f"<p>It would be contradicted by: {text_of(experiment.contradicted_by)}</p>"
    yield f"<h3>Repeat</h3><pre>{text_of(record.command)}</pre>"
    yield "<details><summary>What made it: hashes, split, versions</summary>"
    yield _table((), [(key, _short(value)) for key, value in result["provenance"].items()]) + "</details></section>"


def _figure(figure: Figure, salt: str, definition: str) -> str:
    svg = _METADATA.sub("", svg_of(figure, salt))
    # Ids that stand in many pictures of one page would otherwise be looked up in the first of them.
    prefix = "f" + hashlib.sha256(salt.encode()).hexdigest()[:8]
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{prefix}-", svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{text_of(figure.title)}" ', 1)
    heading = f"<figcaption><strong>{text_of(figure.title)}</strong></figcaption>"
    notes = _notes(figure.note, definition)
    caption = f"<figcaption>{notes}</figcaption>" if notes else ""
    return f"<figure>{heading}{svg}{caption}</figure>"


def _notes(note: str, definition: str) -> str:
    """Lines of a note, without the definition, which the section has said."""
    return "".join(f"<p>{text_of(line)}</p>" for line in note.splitlines() if line and line != definition)


def _drawn_table(table: Table) -> str:
    """A table of a figure; the two ends of an interval stand behind their score, which saves a third of the width."""
    columns = table.columns
    lows = {i for i in range(1, len(columns)) if [each.title for each in columns[i : i + 2]] == ["95% low", "high"]}
    shown = [i for i in range(len(columns)) if i not in lows and i - 1 not in lows]
    numeric = {i for i in shown if any(isinstance(row[i], int | float) for row in table.rows)}

    def cell(row: Sequence[Cell], i: int) -> str:
        digits = columns[i].digits
        text = html.escape(format_cell(row[i], digits))
        if i + 1 in lows and row[i + 1] is not None and row[i + 2] is not None:
            low, high = (format_cell(end, digits) for end in row[i + 1 : i + 3])
            text += f' <span class="quiet">[{low}, {high}]</span>'
        return f"<td{' class=n' if i in numeric else ' class=name' if i == 0 else ''}>{text}</td>"

    head = [f"<th{' class=n' if i in numeric else ''}>{text_of(columns[i].heading)}{' [95%]' * (i + 1 in lows)}</th>"
            for i in shown]  # fmt: skip
    return _wide(head, ([cell(row, i) for i in shown] for row in table.rows))


def _wide(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of finished cells; without a heading if there is nothing to head it."""
    top = f"<thead><tr>{''.join(head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="wide"><table>{top}<tbody>{body}</tbody></table></div>'


def _table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table of texts."""
    cells = ([f"<td>{text_of(cell)}</td>" for cell in row] for row in rows)
    return _wide([f"<th>{text_of(title)}</th>" for title in titles], cells)


def _controls(controls: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, control in controls.items():
        numbers = "; ".join(f"{key} {_ranges(value)}" for key, value in control.items() if key != "definition")
        yield name.replace("_", " "), str(control.get("definition", "")), numbers


def _ranges(value: Any) -> str:
    """A number per SAE as the smallest and largest of them, and so for each of several numbers per SAE."""
    if not isinstance(value, Mapping) or len(value) < MANY:
        return _short(value)
    if all(isinstance(item, Mapping) for item in value.values()):
        keys = dict.fromkeys(key for item in value.values() for key in item)
        return "; ".join(f"{key} {_ranges({name: item.get(key) for name, item in value.items()})}" for key in keys)
    numbers = [item for item in value.values() if isinstance(item, int | float)]
    if len(numbers) < MANY:
        return _short(value)
    missing = len(value) - len(numbers)
    return f"{_short(min(numbers))} to {_short(max(numbers))}" + (f" ({missing} undefined)" if missing else "")


def _short(value: Any, *, depth: int = 0) -> str:
    """Plain data in words: numbers to four digits, hashes cut, long lists counted."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return f"{value[:_SHORT_HASH]}…" if re.fullmatch(r"[0-9a-f]{64}", value) else value
    if isinstance(value, Mapping):
        words = [f"{key} {_short(item, depth=depth + 1)}" for key, item in value.items()]
    elif isinstance(value, list | tuple):
        words = [_short(item, depth=depth + 1) for item in value]
    else:
        return str(value)
    inside = ", ".join(words[:24]) + (f", … {len(words) - 24} more" if len(words) > 24 else "")
    return f"[{inside}]" if depth else inside


STYLE = """
:root { --ground: #fbfaf7; --text: #1f2328; --quiet: #656b73; --line: #d9d6cc; --card: #ffffff; --accent: #0b5c9c;
  --good: #1e6e4e; --bad: #a93226; --open: #7a5a00; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ground: #12161c; --text: #d7dde4; --quiet: #8f9aa6; --line: #33404d;
  --card: #1b2129; --accent: #56b4e9; --good: #5fc79b; --bad: #f08c7d; --open: #e6c35c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.2rem 4rem; max-width: 74rem; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.3rem; margin: 0; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0; max-width: 62rem; } .quiet { color: var(--quiet); }
section { border-top: 1px solid var(--line); margin-top: 2.2rem; padding-top: 1.4rem; }
nav ol { columns: 3 15rem; padding-left: 1.4rem; margin: .6rem 0; } a { color: var(--accent); }
code, .hash { font: 13px/1.4 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem; margin: .6rem 0;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; margin: .3rem 0; }
th { text-align: left; border-bottom: 2px solid var(--line); padding: .25rem .7rem .25rem 0; vertical-align: bottom; }
td { border-bottom: 1px solid var(--line); padding: .2rem .7rem .2rem 0; vertical-align: top; }
td.name { white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
figure { margin: .8rem 0; background: #ffffff; color: #111111; border: 1px solid var(--line); border-radius: 6px;
  padding: .7rem; max-width: 100%; }
figure svg { display: block; max-width: 100%; height: auto; }
figcaption { font-size: 13px; max-width: 40rem; color: #444; }
.good { color: var(--good); } .bad { color: var(--bad); } .open { color: var(--open); } .verdict { font-weight: 600; }
.warning { border-left: 3px solid var(--open); padding-left: .7rem; }
details > summary { cursor: pointer; color: var(--quiet); margin: .8rem 0 .2rem; }
@media print { body { max-width: none; padding: 0; font-size: 10.5px; } section { break-before: page; }
  #claims { break-before: auto; } h2, h3 { break-after: avoid; } h3 { margin: .7rem 0 .2rem; }
  section { margin-top: 0; padding-top: .4rem; } th, td { padding: .1rem .5rem .1rem 0; } pre { break-inside: avoid; }
  table, pre { font-size: 9px; } figure, tr { break-inside: avoid; } .wide { overflow: visible; } nav { display: none; }
  .figures { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; } figure { margin: .3rem 0; padding: .4rem; }
  figure:only-child { grid-column: 1 / -1; max-width: 4.6in; } figure svg { width: 100%; }
  figcaption { font-size: 9px; } details:not([open]) { display: none; }
  :root { --ground: #ffffff; --text: #000000; --card: #ffffff; } }
"""
"""The page's style sheet: readable in light, dark and on paper."""
