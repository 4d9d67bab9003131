"""Keys and help of the Results screen, and of what it opens."""

from __future__ import annotations

from inspector.tui.actions import Action
from inspector.tui.help_texts import PaneHelp
from inspector.tui.side_actions import help_rows

ACTIONS: tuple[Action, ...] = (
    Action(id="results.figure-next", keys=("]", "right", "l"), call="figure(1)", title="Next figure", hint="figure"),
    Action(id="results.figure-back", keys=("[", "left", "h"), call="figure(-1)", title="Previous figure"),
    Action(id="results.mark", keys=("space",), call="mark", title="Mark this result, or not any more", hint="mark"),
    Action(id="results.compare", keys=("c",), call="compare", title="Compare the two marked results", hint="compare"),
    Action(id="results.export", keys=("x",), call="export", title="Export this or the marked", hint="export"),
    Action(id="results.copy", keys=("y",), call="copy", title="Copy the command that repeats it", hint="copy command"),
    Action(id="results.claims", keys=("p",), call="claims", title="The paper's claims, or back", hint="claims"),
    Action(id="results.large", keys=("f",), call="large", title="Hide or show the list", hint="large"),
    Action(id="results.pane", keys=("tab",), call="pane(1)", title="Next pane", hint="pane"),
    Action(id="results.pane-back", keys=("shift+tab",), call="pane(-1)", title="Previous pane"),
    Action(id="results.theme", keys=("t",), call="app.next_theme", title="Next theme"),
    Action(id="results.palette", keys=(":",), call="commands", title="All commands"),
    Action(id="results.help", keys=("?",), call="help", title="Help for the results", hint="help"),
    Action(id="results.back", keys=("escape", "q", "r"), call="back", title="Back to the stream", hint="back"),
)  # fmt: skip

MOVES = (
    ("↑ ↓ k j", "the next result; in a figure or text, a line"),
    ("PgUp PgDn { }", "a page"),
    ("Home End g G", "the first, the last"),
    ("Enter", "on a result: hide the list and give its figure the window"),
)

HELP = PaneHelp(
    title="Results",
    paragraphs=(
        "Every result that `dm-inspect run`, the Experiments screen or a job has stored, newest first. The same "
        "measurement again replaces the older result. The screen reads the files themselves: it needs no session, and "
        "a result that is stored while you look appears by itself.",
        "On the left the figures, then the tables, one at a time; [ and ] step through them. × stands for a number "
        "that is not defined; it is never drawn as zero and never left out.",
        "On the right: the question; the paper's claims that rest on this result, with the paper's number, ours, its "
        "interval and why it is consistent with the paper, contradicts it, or cannot tell; the table; the definition; "
        "how many tokens stand behind it; controls; what would contradict the paper; and the command that repeats it.",
        "A measured control (null) is never evidence for or against a claim.",
        "Space marks results for comparing (c), exporting (x), and judging the claims (p).",
    ),
    actions=(),
    keys=help_rows(MOVES, ACTIONS),
)

CLAIMS_HELP = PaneHelp(
    title="The paper's claims",
    paragraphs=(
        "The paper's claims C1 to C19, judged by code from the newest result of each experiment, or from the marked "
        "ones: ✓ consistent with the paper, ✗ contradicts it, ? cannot tell. Under each: the paper's number, this "
        "run's number with its interval, why, and the results it rests on.",
        "The rules are strict about ignorance: a missing experiment, results of different targets, an interval that "
        "reaches both sides, or a fit that is not identified all mean 'cannot tell'.",
        "A small model is not the paper's: a claim that is contradicted on the demo is contradicted there.",
    ),
    actions=(),
    keys=(("↑ ↓ k j", "a line"), ("p Esc", "back to the results"), ("y", "copy the command that prints them")),
)
