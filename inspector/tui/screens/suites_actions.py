"""Keys and help of the Suites screen."""

from __future__ import annotations

from inspector.tui.actions import Action
from inspector.tui.help_texts import PaneHelp
from inspector.tui.side_actions import help_rows

ACTIONS: tuple[Action, ...] = (
    Action(id="suites.choose", keys=("space",), call="choose", title="Choose this SAE, or not any more", hint="choose"),
    Action(id="suites.row", keys=("w",), call="row", title="Choose every L0 of this width, or none", hint="width"),
    Action(id="suites.nearest", keys=("n",), call="nearest", title="Choose of each width the L0 nearest to this one's",
           hint="nearest L0"),
    Action(id="suites.all", keys=("a",), call="all", title="Choose every SAE of this hook, or none", hint="all"),
    Action(id="suites.open", keys=("enter", "o"), call="open", title="Open the chosen SAEs, or this one", hint="open"),
    Action(id="suites.download", keys=("d",), call="download", title="Download what is chosen and not on disk",
           hint="download"),
    Action(id="suites.stop", keys=("x",), call="stop", title="Stop the download; what has arrived is kept"),
    Action(id="suites.copy", keys=("y",), call="copy", title="Copy the command that opens them", hint="copy command"),
    Action(id="suites.copy-download", keys=("Y",), call="copy_download", title="Copy the commands that download them"),
    Action(id="suites.pane", keys=("tab",), call="pane", title="Hooks or SAEs", hint="pane"),
    Action(id="suites.pane-back", keys=("shift+tab",), call="pane", title="Hooks or SAEs"),
    Action(id="suites.theme", keys=("t",), call="app.next_theme", title="Next theme"),
    Action(id="suites.palette", keys=(":",), call="commands", title="All commands"),
    Action(id="suites.help", keys=("?",), call="help", title="Help for the suites", hint="help"),
    Action(id="suites.back", keys=("escape", "q", "s"), call="back", title="Back to the stream", hint="back"),
)  # fmt: skip

MOVES = (
    ("↑ ↓ k j", "the next hook; among the SAEs, the width above or below"),
    ("← → h l", "the next L0 of this width"),
    ("PgUp PgDn { }", "a page of hooks"),
)

HELP = PaneHelp(
    title="Suites",
    paragraphs=(
        "Every SAE that is known for the model: the suite's own folder, or what the registry of published SAEs lists, "
        "read without a network. On the left the hooks, layer by layer; on the right the SAEs of one hook, a line per "
        "width, with their nominal L0s.",
        "● is loaded in this session, * is on disk, ■ is chosen. ? is an L0 or width that only the SAE's own "
        "configuration says, and that is not on disk.",
        "Enter opens what is chosen in a session of its own: another set of SAEs is another session, and the one "
        "before goes on for as long as it would with nobody looking at it.",
        "d downloads what is chosen and missing into the Hugging Face cache, one file after the other; x stops, and "
        "the next d goes on where it stopped. What is opened is downloaded as well, if it is not there.",
    ),
    actions=(),
    keys=help_rows(MOVES, ACTIONS),
)
