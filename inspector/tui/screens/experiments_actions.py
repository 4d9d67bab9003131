"""Keys and help of the Experiments screen, of the form it opens, and of the Jobs screen."""

from __future__ import annotations

from inspector.tui.actions import Action
from inspector.tui.help_texts import PaneHelp
from inspector.tui.side_actions import help_rows

COMMON = (
    Action(id="side.theme", keys=("t",), call="app.next_theme", title="Next theme"),
    Action(id="side.palette", keys=(":",), call="commands", title="All commands"),
)

ACTIONS: tuple[Action, ...] = (
    Action(id="experiments.mark", keys=("space",), call="mark", title="Mark it, to run several together", hint="mark"),
    Action(id="experiments.mark-all", keys=("a",), call="mark_all", title="Mark all, or none", hint="all"),
    Action(id="experiments.open", keys=("enter",), call="open", title="Parameters, then start", hint="parameters"),
    Action(id="experiments.start", keys=("s",), call="start", title="Start with the defaults", hint="start"),
    Action(id="experiments.cancel", keys=("x",), call="cancel", title="Cancel the running job", hint="cancel job"),
    Action(id="experiments.jobs", keys=("J",), call="jobs", title="Jobs and their logs", hint="jobs"),
    Action(id="experiments.results", keys=("r",), call="results", title="Results", hint="results"),
    Action(id="experiments.copy", keys=("y",), call="copy", title="Copy the command", hint="copy command"),
    Action(id="experiments.pane", keys=("tab", "shift+tab"), call="pane", title="Between list and text", hint="pane"),
    *COMMON,
    Action(id="experiments.help", keys=("?",), call="help", title="Help for the experiments", hint="help"),
    Action(id="experiments.back", keys=("escape", "q", "e"), call="back", title="Back to the stream", hint="back"),
)

MOVES = (("↑ ↓ k j", "the next experiment; in the text, a line"), ("PgUp PgDn { }", "a page"), ("Home End", "the ends"))

HELP = PaneHelp(
    title="Experiments",
    paragraphs=(
        "The paper's measurements, in its order. The cost is the session's estimate for this model, these SAEs and "
        "these tokens: what an experiment adds to the passes over the tokens that all of them share. So several marked "
        "experiments run together in little more time than the most expensive one.",
        "On the right: what is asked, what is measured, what it needs, and what would contradict the paper's claim.",
        "A job runs in the session, one at a time, between what you do on the screen. It goes on when you leave. Each "
        "result is stored as soon as it is there, and shown by r.",
        "The line with $ is the same as a command; y copies it.",
    ),
    actions=(),
    keys=help_rows(MOVES, ACTIONS),
)

FORM_ACTIONS: tuple[Action, ...] = (
    Action(id="form.start", keys=("s",), call="start", title="Start the job", hint="start"),
    Action(id="form.reset", keys=("z",), call="reset", title="All parameters as they were", hint="reset"),
    Action(id="form.copy", keys=("y",), call="copy", title="Copy the command", hint="copy command"),
    *COMMON,
    Action(id="form.help", keys=("?",), call="help", title="Help for the parameters", hint="help"),
    Action(id="form.back", keys=("escape", "q"), call="back", title="Back to the experiments", hint="back"),
)

FORM_MOVES = (
    ("↑ ↓ k j Tab", "the next parameter"),
    ("Enter", "edit a value, take what was typed, or start"),
    ("Esc", "while a value is edited: as it was"),
    ("← → h l Space", "another choice"),
    ("Backspace", "the default again"),
)

FORM_HELP = PaneHelp(
    title="Parameters",
    paragraphs=(
        "What the experiment, or each of the marked ones, can be told. A parameter that several know is one field; "
        "one that only some know says which. A value that differs from its default is coloured.",
        "profile: how tokens are split, fitted and scored. null: measure a control instead of the thing itself; such "
        "a result is never evidence for or against a claim.",
        "The line with $ is the command that does the same; it changes as you change a value.",
    ),
    actions=(),
    keys=help_rows(FORM_MOVES, FORM_ACTIONS),
)

JOB_ACTIONS: tuple[Action, ...] = (
    Action(id="jobs.open", keys=("enter",), call="open", title="Results of this job", hint="results"),
    Action(id="jobs.cancel", keys=("x",), call="cancel", title="Cancel this job", hint="cancel"),
    Action(id="jobs.resume", keys=("r",), call="resume", title="Resume from its checkpoints", hint="resume"),
    Action(id="jobs.copy", keys=("y",), call="copy", title="Copy its command", hint="copy command"),
    Action(id="jobs.experiments", keys=("e",), call="experiments", title="Experiments", hint="experiments"),
    Action(id="jobs.pane", keys=("tab", "shift+tab"), call="pane", title="Between list and log", hint="pane"),
    *COMMON,
    Action(id="jobs.help", keys=("?",), call="help", title="Help for the jobs", hint="help"),
    Action(id="jobs.back", keys=("escape", "q", "J"), call="back", title="Back", hint="back"),
)

JOB_MOVES = (("↑ ↓ k j", "the next job; in the log, a line"), ("PgUp PgDn { }", "a page"), ("Home End", "the ends"))

JOBS_HELP = PaneHelp(
    title="Jobs",
    paragraphs=(
        "Every job of this session, newest first. One runs at a time, the others wait in the order in which they were "
        "started. A job belongs to the session and not to this view: it goes on when you leave, and this list is "
        "there again when you come back. `dm-inspect jobs list` shows the same, and the jobs of all other sessions.",
        "queued: waits · running · done: its results are stored, Enter shows them · failed: why stands beside it · "
        "cancelled: by somebody · interrupted: its session died.",
        "Cancel stops a job after the step under way. What is finished is kept: resuming goes on from there and ends "
        "in the very same numbers.",
        "Below the list: where it is, its rate, how long it will take, the command that does the same, and its log.",
    ),
    actions=(),
    keys=help_rows(JOB_MOVES, JOB_ACTIONS),
)
