"""`dm-inspect tour`: what linear and nonlinear error are, and what each number on the screens is."""

from __future__ import annotations

import click

from inspector.cli.lazy import Command
from inspector.cli.output import print_json_list, print_text
from inspector.errors import UsageError, nearest


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  dm-inspect tour
  dm-inspect tour nonlinear fvu-nonlinear
  dm-inspect tour --json
""",
)
@click.argument("names", nargs=-1, metavar="[NUMBER...]")
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"numbers": [...], "tour": [...]}.')
def tour(names: tuple[str, ...], as_json: bool) -> None:
    """Explain linear and nonlinear error, and each number on the screens.

    Of a NUMBER its formula and what would mislead; without one of all, after the three sentences that the app shows at
    its first start. In the app i and ? say the same, and so does resting the mouse on a number.
    """
    from inspector.drawing.glossary import NUMBERS, TOUR

    for name in names:
        if name not in NUMBERS:
            raise UsageError(f"No number is called {name!r}.{nearest(name, NUMBERS, n=len(NUMBERS))}")
    chosen = dict.fromkeys(names or NUMBERS)
    if as_json:
        rows = ({"number": name, "name": NUMBERS[name][0], "formula": NUMBERS[name][1], "misleading": NUMBERS[name][2]}
                for name in chosen)  # fmt: skip
        print_json_list("numbers", rows, tour=TOUR)
        return
    sentences = [] if names else ["\n".join(TOUR)]
    told = [f"{name}: {NUMBERS[name][0]}\n  {NUMBERS[name][1]}\n  {NUMBERS[name][2]}" for name in chosen]
    print_text("\n\n".join([*sentences, *told]))
