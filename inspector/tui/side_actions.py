"""What footers and helps of the screens beside the Stream are made of: keys in words a person reads."""

from __future__ import annotations

from collections.abc import Iterable

from inspector.tui.actions import Action

KEY_NAMES = {"space": "Space", "escape": "Esc", "enter": "Enter", "left": "←", "right": "→", "tab": "Tab"}


def keys_text(action: Action) -> str:
    """Keys as footer and help show them."""
    return " ".join(KEY_NAMES.get(key, key) for key in action.keys if key != "shift+tab")


def help_rows(moves: Iterable[tuple[str, str]], actions: Iterable[Action]) -> tuple[tuple[str, str], ...]:
    """(keys, what they do) of a screen: moves, then its actions that have keys, but for the palette's."""
    return (
        *moves,
        *((keys, action.title) for action in actions if (keys := keys_text(action)) and action.call != "commands"),
    )
