"""Every action of the Stream screen, once: key bindings, command palette, footer and help are all made from this table.

Keys come only from what arrives through every terminal, tmux and editor console: letters, digits, arrows, Enter,
Escape, Tab, Space and plain punctuation. Ids are stable; a later keymap refers to them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Action:
    """Something the user can do."""

    id: str
    keys: tuple[str, ...]
    """As typed; () for what only the palette offers."""
    call: str
    """Textual's action string, run on the screen."""
    title: str
    """What the palette and the help say."""
    hint: str = ""
    """The word in the footer; '' if it is not shown there."""


COMMON = (
    ("notes", "B", "app.open_screen('notes')", "Bookmarks and notes"),
    ("theme", "t", "app.next_theme", "Next theme"),
    ("palette", ":", "app.command_palette", "All commands"),
    ("switch", "S", "app.switch", "Switch: model, hook, suite, session, text", "switch"),
)


def actions_of(screen: str, *rows: tuple[str, ...]) -> tuple[Action, ...]:
    """A table of actions; what every screen offers stands before its help.

    Args:
        screen: first word of their ids.
        rows: (last word of the id, keys with spaces between, call, title) and, for the footer, a hint.
    """
    at = next((index for index, row in enumerate(rows) if row[0] == "help"), len(rows))
    return tuple(
        Action(id=f"{screen}.{name}", keys=tuple(keys.split()), call=call, title=title, hint=hint[0] if hint else "")
        for name, keys, call, title, *hint in (*rows[:at], *COMMON, *rows[at:])
    )


ACTIONS = actions_of(
    "stream",
    ("mode", "m", "do('step_mode', 1)", "Next colour mode", "mode"),
    ("mode-back", "M", "do('step_mode', -1)", "Previous colour mode"),
    ("relative", "v", "do('toggle_relative')", "Colours relative to this context, or the same everywhere"),
    *(
        (f"width-{n}", str(n), f"do('press_width', {n - 1})", f"Width {n}: enable and colour by it; again: disable it")
        for n in range(1, 10)
    ),
    ("l0-less", "[", "do('step_l0', -1)", "Sparser SAE: next smaller L0", "L0"),
    ("l0-more", "]", "do('step_l0', 1)", "Denser SAE: next larger L0"),
    ("worst", "n", "do('walk', 1)", "Next worst token, or next place found", "worst"),
    ("worst-back", "N", "do('walk', -1)", "Previous worst token, or previous place found"),
    ("outliers", "o", "do('toggle_outliers')", "Worst tokens: outliers too, or without them"),
    ("find", "/", "find", "Find text in all contexts", "find"),
    ("page-down", "}", "page(1)", "One page down in the tokens"),
    ("page-up", "{", "page(-1)", "One page up in the tokens"),
    ("context-next", "> .", "do('step_context', 1)", "Next context", "context"),
    ("context-back", "< ,", "do('step_context', -1)", "Previous context"),
    ("prompt", "p", "over('texts', 'write')", "Analyse a text of yours, of any number of lines", "prompt"),
    ("texts", "P", "over('texts', 'choose')", "Texts: the contexts, yours, and generated ones", "texts"),
    ("generate", "g", "do('generate')", "Generate from here", "generate"),
    ("escape", "escape", "escape", "Stop generating, end search, back to contexts"),
    ("detail", "d", "detail", "Show or hide the detail", "detail"),
    ("marks", "u", "marks", "Marks, for reading without colour"),
    ("zoom-in", "+", "zoom(-1)", "Plot: fewer tokens, wider", "zoom"),
    ("zoom-out", "-", "zoom(1)", "Plot: more tokens, narrower"),
    ("enlarge", "z", "enlarge", "Plot on the whole screen", "enlarge"),
    ("policy", "x", "do('toggle_policy')", "Special tokens: count them, or leave them out"),
    ("copy-token", "c", "copy_token", "Copy this token's numbers", "copy"),
    ("copy-context", "C", "copy_context", "Copy the numbers of all tokens"),
    ("help", "?", "help", "Help for this pane", "help"),
    ("tour", "i", "over('questions', 'tour')", "Tour: linear and nonlinear error in three sentences"),
    # Capitals where the small letter moves the cursor: j and l are down and right in every pane.
    ("experiments", "e", "app.open_screen('experiments')", "Experiments", "experiments"),
    ("jobs", "J", "app.open_screen('jobs')", "Jobs: what runs and what ran", "jobs"),
    ("beside", "D", "over('beside', 'compare')", "Two SAEs side by side, token by token", "two SAEs"),
    ("latent", "L", "latent", "The strongest latent here", "latent"),
    ("anatomy", "a", "anatomy", "Why the SAE fails on this token: anatomy of its error", "why"),
    ("worst-tokens", "w", "app.open_screen('worst')", "Worst tokens: which ones the SAE fails on", "worst tokens"),
    ("note", "*", "note", "Bookmark or note on this token", "note"),
    ("suites", "s", "app.open_screen('suites')", "Suites: which SAEs there are", "suites"),
    ("results", "", "app.open_screen('results')", "Results"),
    ("retry", "r", "results", "Results; with no session: reconnect", "results"),
    ("quit", "q", "app.quit", "Quit; the session stays a while", "quit"),
)  # fmt: skip

MOVES: tuple[tuple[str, str], ...] = (
    ("← → h l", "previous and next token"),
    ("↑ ↓ k j", "line up and down"),
    ("PgUp PgDn { }", "page up and down"),
    ("Home End", "first and last token"),
    ("Tab", "next pane"),
    ("1 to 9", "that width: enable and colour by it; again: disable it"),
)
"""Keys that the panes bind themselves, for the help."""

KEY_NAMES = {"space": "Space", "escape": "Esc", "enter": "Enter", "left": "←", "right": "→", "tab": "Tab"}


def by_id(action_id: str) -> Action:
    """The action of this id; KeyError if there is none."""
    return _BY_ID[f"stream.{action_id}"]


_BY_ID = {action.id: action for action in ACTIONS}


def shown_keys(action: Action) -> str:
    """Keys as footer, palette and help show them."""
    return " ".join(KEY_NAMES.get(key, key) for key in action.keys if key != "shift+tab")


def help_rows(moves: Iterable[tuple[str, str]], actions: Iterable[Action]) -> tuple[tuple[str, str], ...]:
    """(keys, what they do) of a screen: moves, then its actions that have keys, but for the palette's."""
    return (
        *moves,
        *(
            (keys, action.title)
            for action in actions
            if (keys := shown_keys(action)) and action.call != "app.command_palette"
        ),
    )


WIDTHS, L0, PANE = ("1-9", "width"), ("[ ]", "L0"), ("Tab", "pane")
FOOTERS: dict[str, tuple[str | tuple[str, str], ...]] = {
    "tokens": (("←→", "token"), "mode", WIDTHS, L0, "worst", "find", "prompt", "generate", "anatomy", "experiments",
               ("< >", "context")),
    "detail": (WIDTHS, L0, "latent", "anatomy", "detail", "copy-token", "worst", PANE),
    "trace": (("+ -", "zoom"), "enlarge", "mode", WIDTHS, L0, "detail", PANE),
    "load": ("quit",),
    "failed": (("r", "try again"), ("1-9", "open instead"), "suites", "switch", "quit"),
}  # fmt: skip
"""By pane of the Stream, the most useful first: ids of actions, or keys and what they do."""


def footer_hints(pane: str, n_widths: int) -> list[tuple[str, str]]:
    """Keys and words for the footer of a pane.

    Args:
        pane: of `FOOTERS`.
        n_widths: How many number keys do something.
    """
    widths = (f"1-{min(n_widths, 9)}" if n_widths > 1 else "1", "width")
    hints = [widths if each == WIDTHS else each for each in FOOTERS[pane]]
    return [each if isinstance(each, tuple) else (by_id(each).keys[0], by_id(each).hint) for each in hints]
