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


def _width(index: int) -> Action:
    return Action(
        id=f"stream.width-{index + 1}",
        keys=(str(index + 1),),
        call=f"press_width({index})",
        title=f"Width {index + 1}: enable and colour by it; again: disable it",
    )


ACTIONS: tuple[Action, ...] = (
    Action(id="stream.mode", keys=("m",), call="mode(1)", title="Next colour mode", hint="mode"),
    Action(id="stream.mode-back", keys=("M",), call="mode(-1)", title="Previous colour mode"),
    *(_width(index) for index in range(9)),
    Action(id="stream.l0-less", keys=("[",), call="step_l0(-1)", title="Sparser SAE: next smaller L0", hint="L0"),
    Action(id="stream.l0-more", keys=("]",), call="step_l0(1)", title="Denser SAE: next larger L0"),
    Action(id="stream.worst", keys=("n",), call="walk(1)", title="Next worst token, or next place found", hint="worst"),
    Action(id="stream.worst-back", keys=("N",), call="walk(-1)", title="Previous worst token, or previous place found"),
    Action(id="stream.outliers", keys=("o",), call="outliers", title="Worst tokens: outliers too, or without them"),
    Action(id="stream.find", keys=("/",), call="find", title="Find text in all contexts", hint="find"),
    Action(id="stream.page-down", keys=("}",), call="page(1)", title="One page down in the tokens"),
    Action(id="stream.page-up", keys=("{",), call="page(-1)", title="One page up in the tokens"),
    Action(id="stream.context-next", keys=(">", "."), call="context(1)", title="Next context", hint="context"),
    Action(id="stream.context-back", keys=("<", ","), call="context(-1)", title="Previous context"),
    Action(id="stream.prompt", keys=("p",), call="prompt", title="Analyse a text of yours", hint="prompt"),
    Action(id="stream.generate", keys=("g",), call="generate", title="Generate from here", hint="generate"),
    Action(id="stream.escape", keys=("escape",), call="leave", title="Stop generating, end search, back to contexts"),
    Action(id="stream.detail", keys=("d",), call="detail", title="Show or hide the detail", hint="detail"),
    Action(id="stream.marks", keys=("u",), call="marks", title="Marks, for reading without colour"),
    Action(id="stream.zoom-in", keys=("+",), call="zoom(-1)", title="Plot: fewer tokens, wider", hint="zoom"),
    Action(id="stream.zoom-out", keys=("-",), call="zoom(1)", title="Plot: more tokens, narrower"),
    Action(id="stream.enlarge", keys=("z",), call="enlarge", title="Plot on the whole screen", hint="enlarge"),
    Action(id="stream.policy", keys=("x",), call="policy", title="Special tokens: count them, or leave them out"),
    Action(id="stream.copy-token", keys=("c",), call="copy_token", title="Copy this token's numbers", hint="copy"),
    Action(id="stream.copy-context", keys=("C",), call="copy_context", title="Copy the numbers of all tokens"),
    Action(id="stream.theme", keys=("t",), call="app.next_theme", title="Next theme", hint="theme"),
    Action(id="stream.palette", keys=(":",), call="commands", title="All commands"),
    Action(id="stream.help", keys=("?",), call="help", title="Help for this pane", hint="help"),
    # Capitals where the small letter moves the cursor: j and l are down and right in every pane.
    Action(id="stream.experiments", keys=("e",), call="experiments", title="Experiments", hint="experiments"),
    Action(id="stream.jobs", keys=("J",), call="jobs", title="Jobs: what runs and what ran", hint="jobs"),
    Action(id="stream.latent", keys=("L",), call="latent", title="The strongest latent here", hint="latent"),
    Action(id="stream.suites", keys=("s",), call="suites", title="Suites: which SAEs there are", hint="suites"),
    Action(id="stream.results", keys=(), call="open_results", title="Results"),
    Action(id="stream.retry", keys=("r",), call="results", title="Results; with no session: reconnect", hint="results"),
    Action(id="stream.quit", keys=("q",), call="quit", title="Quit; the session stays a while", hint="quit"),
    Action(id="stream.screenshot", keys=(), call="app.screenshot", title="Save the screen as an SVG picture"),
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
        *((keys, action.title) for action in actions if (keys := shown_keys(action)) and action.call != "commands"),
    )


def footer_hints(pane: str, n_widths: int) -> list[tuple[str, str]]:
    """Keys and words for the footer of a pane, the most useful first.

    Args:
        pane: 'tokens', 'detail', 'trace', 'load' or 'failed'.
        n_widths: How many number keys do something.
    """
    widths = (f"1-{min(n_widths, 9)}" if n_widths > 1 else "1", "width")
    tokens = [
        ("←→", "token"),
        _hint("mode"),
        widths,
        ("[ ]", "L0"),
        _hint("worst"),
        _hint("find"),
        _hint("prompt"),
        _hint("generate"),
        _hint("experiments"),
        ("< >", "context"),
    ]
    hints = {
        "tokens": tokens,
        "detail": [
            widths,
            ("[ ]", "L0"),
            _hint("latent"),
            _hint("detail"),
            _hint("copy-token"),
            _hint("worst"),
            ("Tab", "pane"),
        ],
        "trace": [
            ("+ -", "zoom"),
            _hint("enlarge"),
            _hint("mode"),
            widths,
            ("[ ]", "L0"),
            _hint("detail"),
            ("Tab", "pane"),
        ],
        "load": [("q", "quit")],
        "failed": [("r", "try again"), ("q", "quit")],
    }
    return hints.get(pane, tokens)


def _hint(action_id: str) -> tuple[str, str]:
    action = by_id(action_id)
    return action.keys[0], action.hint
