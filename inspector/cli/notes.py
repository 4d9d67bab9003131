"""`dm-inspect notes`: bookmarks and notes on tokens, latents and results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.cli.lazy import Command
from inspector.cli.narration import say
from inspector.cli.output import check_file_place, print_data, print_json, print_json_list, print_rows, whole_file
from inspector.cli.target_options import target_options
from inspector.errors import UsageError
from inspector.spec import target_words

if TYPE_CHECKING:
    from inspector.spec import TargetSpec
    from inspector.store.notes import Note, Subject


class Place(click.ParamType[tuple[int, int]]):
    """CONTEXT:POSITION."""

    name = "CONTEXT:POSITION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Both as numbers from 0, of a context as the screen counts it, from 1."""
        if isinstance(value, tuple):
            return value
        context, _, position = str(value).partition(":")
        if not (context.isdecimal() and position.isdecimal() and int(context)):
            self.fail(f"{value!r} is no place. Write CONTEXT:POSITION, as the screen shows them: 12:45.")
        return int(context) - 1, int(position)


@click.group(epilog="\b\nExample:\n  dm-inspect notes list")
def notes() -> None:
    """Keep bookmarks and notes on tokens, latents and results.

    The key * takes one in the app; * on the same thing changes it.
    """


@notes.command("list", cls=Command, epilog="\b\nExample:\n  dm-inspect notes list --json")
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"notes": [...]}.')
def list_(as_json: bool) -> None:
    """List all notes, oldest first."""
    from inspector.store.notes import Notes

    found = Notes().all()
    if as_json:
        print_json_list("notes", map(_row, found))
    elif not found:
        say("There is no note. The key * takes one in the app, and `dm-inspect notes add` does.")
    else:
        print_rows(
            ("note", "taken", "kind", "about", "words"),
            (
                (note.number, note.created[:16].replace("T", " "), note.subject.kind, note.subject.title, note.words)
                for note in found
            ),
        )


@notes.command(
    "add",
    cls=Command,
    epilog="""\b
Examples:
  dm-inspect notes add 'dense, and nobody knows why' --latent 37 --sae layer_3/resid/width_1k/l0_16
  dm-inspect notes add 'an import' --token 12:45
  dm-inspect notes add 'for the talk' --result error-vector-39162c75fa
""",
)
@click.argument("words", default="", metavar="[TEXT]")
@click.option("--token", "place", type=Place(), help="On this token of TARGET's text, as on the screen.")
@click.option("--latent", type=click.IntRange(min=0), metavar="N", help="On this latent of --sae.")
@click.option("--result", "result_id", metavar="ID", help="On this stored result.")
@click.option("--json", "as_json", is_flag=True, help="The note as one JSON object.")
@target_options
def add(
    words: str,
    place: tuple[int, int] | None,
    latent: int | None,
    result_id: str | None,
    as_json: bool,
    target: TargetSpec,
) -> None:
    """Take a note, or change the one on the same thing; without a TEXT it is a bookmark."""
    from inspector.store.notes import Notes

    if sum(each is not None for each in (place, latent, result_id)) != 1:
        raise UsageError("A note is on one thing. Give one of --token, --latent and --result.")
    note = Notes().put(_subject(place, latent, result_id, target), words)
    if as_json:
        print_json(_row(note))
    else:
        say(f"kept as note {note.number}")


@notes.command("remove", cls=Command, epilog="\b\nExample:\n  dm-inspect notes remove 3 4")
@click.argument("numbers", nargs=-1, required=True, type=click.IntRange(min=1), metavar="NOTE...")
@click.option("--json", "as_json", is_flag=True, help='What was removed, {"removed": [...]}.')
def remove(numbers: tuple[int, ...], as_json: bool) -> None:
    """Remove notes by their numbers."""
    from inspector.store.notes import Notes

    gone = Notes().remove(numbers)
    if as_json:
        print_json_list("removed", map(_row, gone))
    else:
        say(f"removed {len(gone)} {'note' if len(gone) == 1 else 'notes'}")


@notes.command("export", cls=Command, epilog="\b\nExample:\n  dm-inspect notes export --out notes.md")
@click.argument("numbers", nargs=-1, type=click.IntRange(min=1), metavar="[NOTE...]")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.md", help="Where.  [default: stdout]")
@click.option("--json", "as_json", is_flag=True, help='The same as data, {"notes": [...]}.')
def export(numbers: tuple[int, ...], out: Path | None, as_json: bool) -> None:
    """Write notes as one Markdown page, with the figures of results as text, and commands; by default all of them."""
    from inspector.reports.notes import markdown
    from inspector.store.notes import Notes

    if out is not None:
        check_file_place(out)
    known = {note.number: note for note in Notes().all()}
    missing = [number for number in numbers if number not in known]
    if missing:
        raise UsageError(f"There is no note {missing[0]}. `dm-inspect notes list` shows those that there are.")
    chosen = [known[number] for number in dict.fromkeys(numbers)] or list(known.values())
    if as_json and out is None:
        print_json_list("notes", map(_row, chosen))
        return
    if as_json:
        raise UsageError("--json and --out were both given. Leave one out.")
    text = markdown(chosen)
    if out is None:
        print_data(text)
        return
    with whole_file(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    say(f"wrote {out}: {len(chosen)} {'note' if len(chosen) == 1 else 'notes'}")


def _subject(place: tuple[int, int] | None, latent: int | None, result_id: str | None, target: TargetSpec) -> Subject:
    """What is meant, as far as it is known without loading anything."""
    from inspector.store import notes as store

    if result_id is not None:
        from inspector.store.results import load

        return store.of_result(load(result_id).record)
    words = target_words(target)
    if latent is not None:
        if len(target.saes) != 1:
            raise UsageError(f"--latent {latent} is of one SAE, and {len(target.saes)} were named. Add --sae ID.")
        return store.of_latent(target.model, target.saes[0], latent, words)
    assert place is not None, "one of the three"
    return store.of_token(target.model, target.text or "", "context", *place, words)


def _row(note: Note) -> dict[str, Any]:
    subject = note.subject
    return {"note": note.number, "created": note.created, "kind": subject.kind, "title": subject.title,
            "words": note.words, "command": subject.command, "about": subject.about}  # fmt: skip
