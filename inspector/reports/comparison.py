"""Two stored results side by side: what made them differ, their figures, and their numbers with the difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from inspector.drawing.figures import Cell, Column, Table
from inspector.drawing.lines import cut, prose
from inspector.drawing.palette import FigurePalette, Line, Run, TokenPalette, figure_palette
from inspector.drawing.safe_text import cell_width, visible
from inspector.drawing.terminal_figures import render_figure
from inspector.experiment import SAE_KEYS
from inspector.reports.result import Opened, figure_lines, in_short, kind, verdict_lines, when

NARROWEST = 40
"""Columns of a side below which the two stand one after the other."""
GAP = 3
"""Columns between the two sides."""
NOT_SCORES = frozenset(SAE_KEYS) - {"l0"}
"""Keys of a row that say which SAE it is, not what was measured; its L0 was."""
NOT_SAID = ("fingerprint", "saes", "versions", "program_version")
"""Entries of the provenance that differ whenever anything does, or are too long to be read."""
SHORT_HASH = 12


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two results that were read back."""

    one: Opened
    other: Opened

    @property
    def both(self) -> tuple[Opened, Opened]:
        """The left one and the right one."""
        return self.one, self.other

    @property
    def same_experiment(self) -> bool:
        """Whether their numbers mean the same."""
        return self.one.record.experiment == self.other.record.experiment

    @property
    def differences(self) -> list[tuple[str, str, str]]:
        """(name, left, right) of what made them differ."""
        one, other = (each.stored.result["provenance"] if each.stored else {} for each in self.both)
        return list(differing(one, other))


def pair_lines(pair: Pair, index: int, width: int, height: int, palette: TokenPalette) -> list[Line]:
    """The whole comparison: side by side, or one after the other where two figures find no room beside each other.

    Args:
        pair: what is compared.
        index: of the figure drawn of each.
        width: columns.
        height: lines for a figure.
        palette: of the theme.
    """
    styles = figure_palette(palette)
    half = (width - GAP) // 2
    side = half if half >= NARROWEST else width
    heads = [head_lines(each, side, palette) for each in pair.both]
    drawn = [figure_lines(each, index, side, height, palette) for each in pair.both]
    said = [[line for verdict in each.verdicts for line in ([], *verdict_lines(verdict, side, palette))]
            for each in pair.both]  # fmt: skip
    told = "; ".join(f"{name} {left} | {right}" for name, left, right in pair.differences)
    differences = prose(f"they differ in: {told or 'nothing but what was measured'}", width, styles.plain)
    if side == width:
        blocks = [line for head, figure in zip(heads, drawn, strict=True) for line in (*head, *figure, [])]
        return [*blocks, *differences, *_numbers(pair, width, palette), *said[0], *said[1]]
    lines = [*beside(heads[0], heads[1], half, styles), [], *differences, []]
    lines += [*beside(drawn[0], drawn[1], half, styles), *_numbers(pair, width, palette)]
    return lines + beside(said[0], said[1], half, styles)


def _numbers(pair: Pair, width: int, palette: TokenPalette) -> list[Line]:
    """The table of both, or why there is none."""
    table = score_table(pair)
    if table is not None:
        return [[], *render_figure(table, width, 0, palette)]
    if pair.same_experiment:
        return []
    said = "They are of different experiments: their numbers have no difference."
    return [[], *prose(said, width, figure_palette(palette).plain)]


def compared(pair: Pair) -> dict[str, Any]:
    """The comparison as data: ids, what made them differ by name, and a row per SAE or number, as in the table."""
    what, scores = _scores(pair)
    rows: list[dict[str, Any]] = []
    for name, cells in scores:
        values = {key: list(triple) for key, triple in cells.items()}
        rows.append({"sae": name, **values} if what == "SAE" else {"number": name, "values": values["left"]})
    differs = {name: [first, second] for name, first, second in pair.differences}
    return {"one": pair.one.record.id, "other": pair.other.record.id, "differs": differs, "scores": rows}


def head_lines(opened: Opened, width: int, palette: TokenPalette) -> list[Line]:
    """Which result it is."""
    styles = figure_palette(palette)
    record = opened.record
    where = " · ".join(visible(part) for part in (record.model, record.hook_name) if part)
    return [
        [(cut(record.id, width), styles.strong)],
        [(cut(where, width), styles.plain)],
        [(cut(f"{kind(record)} · {when(record, short=False)}", width), styles.quiet)],
    ]


def beside(one: Sequence[Line], other: Sequence[Line], half: int, styles: FigurePalette) -> list[Line]:
    """Two blocks of lines next to each other, the second from column `half + GAP` on."""
    lines: list[Line] = []
    for first, second in zip_longest(one, other, fillvalue=list[Run]()):
        used = sum(cell_width(text) for text, _ in first if text)
        space = " " * max(half + GAP - used, 1) if second else ""
        lines.append([*first, (space, styles.plain), *second] if space else list(first))
    return lines


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(name, first, second) of what made them differ; of dictionaries, such as parameters, their entries."""
    for key in dict.fromkeys((*one, *other)):
        first, second = one.get(key), other.get(key)
        if key in NOT_SAID or first == second:
            continue
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            yield from ((f"{key}.{name}", a, b) for name, a, b in differing(first, second))
        else:
            yield key, _short(first), _short(second)


def score_table(pair: Pair) -> Table | None:
    """Every score of the SAEs they share, or every number of the whole; None if there is nothing to compare."""
    what, rows = _scores(pair)
    if not rows:
        return None
    titles = [title for key in rows[0][1] for title in (key, "right", "change")]
    return Table(
        title="Left, right, and right less left",
        columns=(Column(title=what), *(Column(title=title, digits=4) for title in titles)),
        rows=tuple((name, *chain.from_iterable(cells.values())) for name, cells in rows),
    )


def _scores(pair: Pair) -> tuple[str, list[tuple[str, dict[str, tuple[Cell, Cell, Cell]]]]]:
    """What a row is, 'SAE' or 'number', and of every row its name and (left, right, right less left) by score.

    SAEs are matched by name, or, where no name is shared (two layers), by width and nominal L0.
    """
    if not pair.same_experiment or pair.one.stored is None or pair.other.stored is None:
        return "", []
    one, other = pair.one.stored.result, pair.other.stored.result
    rows = _matched(one["saes"], other["saes"])
    if rows:
        found = [key for key in rows[0][1] if key not in NOT_SCORES]
        keys = [key for key in found if _numeric([row.get(key) for _, a, b in rows for row in (a, b)])]
        return "SAE", [(name, {key: _cells(a.get(key), b.get(key)) for key in keys}) for name, a, b in rows]
    both = {name.replace("_", " "): (value, other["result"].get(name)) for name, value in one["result"].items()}
    return "number", [(name, {"left": _cells(*values)}) for name, values in both.items() if _numeric(values)]


def _matched(
    one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]
) -> list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    by_name = {row["sae"]: row for row in other}
    found = [(row["sae"], row, by_name[row["sae"]]) for row in one if row["sae"] in by_name]
    if found:
        return found
    by_size = {(row["d_sae"], row["nominal_l0"]): row for row in other}
    pairs = [(row, by_size.get((row["d_sae"], row["nominal_l0"]))) for row in one if row["nominal_l0"] is not None]
    return [(f"{row['sae']} | {match['sae']}", row, match) for row, match in pairs if match is not None]


def _numeric(values: Sequence[Any]) -> bool:
    """Numbers and undefined ones, not all of them undefined."""
    return any(value is not None for value in values) and all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values
    )


def _cells(one: float | None, other: float | None) -> tuple[Cell, Cell, Cell]:
    return one, other, None if one is None or other is None else float(other) - float(one)


def _short(value: Any) -> str:
    text = "none" if value is None else in_short(value) if isinstance(value, float) else visible(str(value))
    return f"{text[:SHORT_HASH]}…" if len(text) > 4 * SHORT_HASH else text
