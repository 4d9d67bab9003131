"""Theme colours that only this program has: the two parts of the error, and a run of nine for the widths.

The widths' colours run from narrow to wide through green, grey and magenta: ordered, kept apart by every common colour
blindness, and none of them the hue of linear or nonlinear error. Line styles say the same without colour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.theme import Theme as TextualTheme

    from inspector.tui.themes import Theme

SERIES_DARK = ("#a6d96a", "#7fbc41", "#b8e186", "#dbe8c8", "#e8e8e8", "#f1d3e6", "#f1a7d6", "#e377b8", "#d6409f")
SERIES_LIGHT = ("#276419", "#3b7d1f", "#4d9221", "#5c7a45", "#444444", "#94597f", "#b0418a", "#c51b7d", "#8e0152")
SERIES_ANSI = (
    "ansi_green",
    "ansi_green",
    "ansi_bright_green",
    "ansi_bright_green",
    "ansi_white",
    "ansi_bright_white",
    "ansi_bright_magenta",
    "ansi_bright_magenta",
    "ansi_magenta",
)


def _variables(linear: str, nonlinear: str, series: tuple[str, ...]) -> dict[str, str]:
    return {
        "linear-error": linear,
        "nonlinear-error": nonlinear,
        **{f"series-{number}": colour for number, colour in enumerate(series, 1)},
    }


DEFAULTS = _variables("#5fb4f5", "#f5a623", SERIES_DARK)
"""For a theme that is none of ours."""


def textual_theme(theme: Theme) -> TextualTheme:
    """The theme as Textual wants it registered, with our own variables; a theme file may set any of them itself."""
    made = theme.textual()
    if theme.ansi:
        ours = _variables("ansi_cyan", "ansi_yellow", SERIES_ANSI)
    else:
        ours = _variables(
            theme.tokens["linear"], theme.tokens["nonlinear"], SERIES_DARK if theme.dark else SERIES_LIGHT
        )
    made.variables = {**ours, **made.variables}
    return made
