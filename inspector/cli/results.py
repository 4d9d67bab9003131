"""`dm-inspect results`: what was measured before, as text, tables, pictures and one page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inspector.cli.lazy import Command
from inspector.cli.narration import say
from inspector.cli.output import (
    check_file_place,
    print_data,
    print_json,
    print_json_list,
    print_rows,
    print_text,
    whole_file,
)
from inspector.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from inspector.drawing.palette import Line, TokenPalette
    from inspector.store.results import Record, Stored

TEXT_FORMATS = ("csv", "json")
PICTURES = ("svg", "png", "pdf")
FORMATS = (*TEXT_FORMATS, "parquet", *PICTURES, "html")


@click.group(epilog="\b\nExample:\n  dm-inspect results list")
def results() -> None:
    """List, show and export what was measured.

    Every `dm-inspect run` keeps its results; the same measurement again replaces the older one. An ID may be shortened
    as long as it stays the only one.
    """


@results.command("list", cls=Command, epilog="\b\nExample:\n  dm-inspect results list --json")
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"results": [...]}.')
def list_(as_json: bool) -> None:
    """List the stored results, newest first."""
    from inspector.store.results import list_results

    listing = list_results()
    for problem in listing.problems:
        say(f"warning: {problem}")
    if as_json:
        print_json_list("results", map(_row, listing.records))
    elif not listing.records:
        say("No result is stored. `dm-inspect run` measures and keeps them.")
    else:
        print_rows(
            ("id", "measured", "model", "hook", "profile"),
            (
                (
                    each.id,
                    each.created.replace("T", " ").removesuffix("+00:00"),
                    each.model,
                    each.hook_name,
                    each.profile + (f", null {each.null}" if each.null else ""),
                )
                for each in listing.records
            ),
        )


@results.command("show", cls=Command, epilog="\b\nExample:\n  dm-inspect results show error-vector-39162c75fa")
@click.argument("result_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="The object, as `run --json` printed it.")
def show(result_id: str, as_json: bool) -> None:
    """Show one result: question, figures, numbers, controls, and the command that repeats it."""
    from inspector.store.results import load

    stored = load(result_id)
    if as_json:
        print_json(stored.result)
        return
    from inspector.cli.report import look_of_stdout, report
    from inspector.experiments import find
    from inspector.reports.result import reading

    look = look_of_stdout()
    with reading(stored.result):
        shown = report(find(stored.record.experiment), stored.result, look, stored.record.command)
    print_text(f"result {stored.record.id} · measured {stored.record.created}")
    print_text(shown, end="", coloured=True)


@results.command(
    "export",
    cls=Command,
    epilog="""\b
Examples:
  dm-inspect results export error-vector-39162c75fa --format csv > error-vector.csv
  dm-inspect results export error-vector-39162c75fa --format pdf --out figure.pdf
""",
)
@click.argument("result_id", metavar="ID")
@click.option("--format", "kind", type=click.Choice(FORMATS), required=True, help="What to write.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where. Default: csv and json to stdout, else ID.FORMAT.",
)
def export(result_id: str, kind: str, out: Path | None) -> None:
    """Write one result as a table (csv, parquet, json), a figure (svg, png, pdf) or a page (html).

    Tables have a row per SAE and every number as it was measured. Figures need matplotlib: install dm-inspect[figures].
    """
    from inspector.reports.result import reading
    from inspector.store.results import load

    stored = load(result_id)
    if out is None and kind not in TEXT_FORMATS:
        out = Path(f"{stored.record.id}.{kind}")
    if out is not None:
        check_file_place(out)
    with reading(stored.result):
        content = _exported(stored, kind)
    if out is None:
        assert isinstance(content, str), "only text goes to stdout"
        print_data(content)
        return
    with whole_file(out) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    say(f"wrote {out}")


@results.command(
    "report",
    cls=Command,
    epilog="\b\nExample:\n  dm-inspect results report --out report.html",
)
@click.argument("result_ids", nargs=-1, metavar="[ID...]")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The page: .html or .md.")
def report_(result_ids: tuple[str, ...], out: Path) -> None:
    """Write one page with figures, numbers and the paper's claims; by default of the newest of each experiment.

    The page needs nothing beside it and loads nothing. Its figures need matplotlib: install dm-inspect[figures]. A
    FILE.md has them as `results show` prints them, and needs none.
    """
    from inspector.cli.report import markdown
    from inspector.reports.page import page

    check_file_place(out)
    chosen = _chosen(result_ids)
    text = markdown(chosen) if out.suffix == ".md" else page(chosen)
    with whole_file(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    say(f"wrote {out}: {len(chosen)} {'result' if len(chosen) == 1 else 'results'}")


@results.command(
    "compare",
    cls=Command,
    epilog="\b\nExample:\n  dm-inspect results compare error-vector-39162c75fa error-vector-1386d8c8e2",
)
@click.argument("one", metavar="ID")
@click.argument("other", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"differs": {...}, "scores": [...]}.')
def compare(one: str, other: str, as_json: bool) -> None:
    """Show two results side by side: what made them differ, figures, every score with its change, claims.

    SAEs are matched by name, or, where none is shared, by width and nominal L0. The change is right less left.
    """
    from inspector.reports.comparison import Pair, compared, pair_lines
    from inspector.reports.result import open_result, read_newest, reading
    from inspector.store.results import list_results, load

    stored = [load(each) for each in (one, other)]
    shelf = read_newest(list_results())
    left, right = (open_result(each.record, shelf) for each in stored)
    pair = Pair(one=left, other=right)
    if as_json:
        with reading(stored[0].result):
            row = compared(pair)
        print_json(row)
        return
    with reading(stored[0].result):
        _print_drawn(lambda width, palette: pair_lines(pair, 0, width, 20, palette))


@results.command("claims", cls=Command, epilog="\b\nExample:\n  dm-inspect results claims --json")
@click.argument("result_ids", nargs=-1, metavar="[ID...]")
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"claims": [...]}.')
def claims(result_ids: tuple[str, ...], as_json: bool) -> None:
    """Hold the paper's claims C1-C19 against the stored results; by default the newest of each experiment."""
    from inspector.claims import evaluate

    stored = _chosen(result_ids, none_is_fine=True)
    verdicts = evaluate({each.record.id: each.result for each in stored})
    if as_json:
        print_json_list("claims", map(asdict, verdicts))
        return
    from inspector.claims.drawing import claims_lines

    _print_drawn(lambda width, palette: claims_lines(verdicts, width, palette))


def _print_drawn(draw: Callable[[int, TokenPalette], Sequence[Line]]) -> None:
    """What is drawn for the terminal's width and colours; a file gets neither."""
    from inspector.cli.report import look_of_stdout
    from inspector.drawing.lines import to_ansi
    from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette

    look = look_of_stdout()
    palette = build_palette(DEFAULT_ENDPOINTS, look.depth)
    print_text(to_ansi(draw(look.width or 118, palette), look.depth, palette.plain), end="", coloured=True)


def _chosen(result_ids: tuple[str, ...], *, none_is_fine: bool = False) -> list[Stored]:
    """The results named, or the newest of each experiment; damaged ones among the latter are named and left out."""
    from inspector.store.results import list_results, load, newest_of_each

    if result_ids:
        return [load(each) for each in dict.fromkeys(result_ids)]
    listing = list_results()
    for problem in listing.problems:
        say(f"warning: {problem}")
    records = newest_of_each(listing)
    if not records and not none_is_fine:
        raise UsageError("No result is stored yet. `dm-inspect run all` measures everything on the demo.")
    return [load(record.id) for record in records]


def _exported(stored: Stored, kind: str) -> str | bytes:
    from inspector.disk.sealed import to_json
    from inspector.experiments import find
    from inspector.store import exports

    if kind == "json":
        return to_json(stored.result) + "\n"
    if kind == "csv":
        return exports.to_csv(stored.result)
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(exports.to_arrow(stored.result), sink)
        content: bytes = sink.getvalue().to_pybytes()
        return content
    if kind == "html":
        from inspector.reports.page import page

        return page([stored])
    from inspector.drawing.vector_figures import picture
    from inspector.reports.result import figures_of

    return picture(figures_of(find(stored.record.experiment), stored.result), kind)


def _row(record: Record) -> dict[str, str]:
    return {key: getattr(record, key) for key in ("id", "experiment", "created", "command", "profile")}
