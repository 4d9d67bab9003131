"""Themes: one TOML per theme, from the package, and from the user's own folder.

A file says what the screen's colours are and where the token palette ends; levels and contrast are derived from that
(`inspector.drawing.palette_build`), so a theme cannot make a level unreadable. A file that is wrong is reported with
its name, the key and the nearest known one, and left out; it never stops the program.

    title = "Okabe"                     shown in lists
    summary = "Dark, safe for ..."      one line
    dark = true
    ansi = false                        true: only the names ansi_black ... ansi_bright_white, never #rrggbb

    [colours]                           the ten keys of COLOURS
    [variables]                         optional: any Textual theme variable, such as border-blurred
    [tokens]                            muted; and, unless ansi: linear middle nonlinear loss

Beside Textual's own colours a theme has the two parts of the error and a run of nine for the widths
(`inspector.drawing.palette`): kept apart by every common colour blindness, and none of them the hue of linear or
nonlinear error. Line styles say the same without colour. The accent, which keys and focus have, is no hue at all.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.theme import Theme as TextualTheme

import inspector
from inspector.disk.files import read_text
from inspector.disk.folders import user_folder
from inspector.drawing.palette import (
    CONSOLE_MARKS,
    N_SERIES,
    WIDTHS_ANSI,
    WIDTHS_DARK,
    WIDTHS_LIGHT,
    Depth,
    Endpoints,
    TokenPalette,
)
from inspector.drawing.palette_build import build_palette
from inspector.errors import UsageError, nearest

if TYPE_CHECKING:
    from textual.app import App

DEFAULT_THEME = "okabe"
SIXTEEN_THEME = "sixteen"
COLOURS = ("background", "surface", "panel", "foreground", "primary", "secondary", "accent", "success", "warning",
           "error")  # fmt: skip
TOKEN_COLOURS = ("muted", "linear", "middle", "nonlinear", "loss")
_TOP = ("title", "summary", "dark", "ansi", "colours", "variables", "tokens")
LARGEST = 1 << 20
"""Bytes of a theme; ours have two thousand."""
_HEX = re.compile(r"#[0-9a-fA-F]{6}")
ANSI_NAMES = tuple(
    f"ansi_{bright}{name}"
    for bright in ("", "bright_")
    for name in ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
)


def _variables(linear: str, nonlinear: str, series: tuple[str, ...]) -> dict[str, str]:
    return {
        "linear-error": linear,
        "nonlinear-error": nonlinear,
        **{f"series-{number}": colour for number, colour in enumerate(series, 1)},
    }


DEFAULTS = _variables("#5fb4f5", "#f5a623", WIDTHS_DARK)
"""For a theme that is none of ours."""


@dataclass(kw_only=True)
class Theme(TextualTheme):
    """A theme file, checked: Textual's theme, with the colours of tokens."""

    title: str
    summary: str
    colours: Mapping[str, str]
    """The keys of COLOURS."""
    tokens: Mapping[str, str]
    """The keys of TOKEN_COLOURS; with `ansi`, which uses only the terminal's 16 colours, 'muted' alone."""

    def palette(self, depth: Depth) -> TokenPalette:
        """The token palette at a colour depth; a theme of 16 colours has no other but none."""
        palette = _palette(self._endpoints(), "16" if self.ansi and depth != "none" else depth)
        # The font of the Linux console has no braille.
        return replace(palette, marks=CONSOLE_MARKS) if os.environ.get("TERM") == "linux" else palette

    def _endpoints(self) -> Endpoints:
        ground, text = self.colours["surface"], self.colours["foreground"]
        return Endpoints(
            background=ground,
            foreground=text,
            muted=self.tokens["muted"],
            linear=self.tokens.get("linear", text),
            middle=self.tokens.get("middle", text),
            nonlinear=self.tokens.get("nonlinear", text),
            loss=self.tokens.get("loss", text),
            widths=tuple(self.variables[f"series-{number}"] for number in range(1, N_SERIES + 1)),
        )


@lru_cache(maxsize=32)
def _palette(endpoints: Endpoints, depth: Depth) -> TokenPalette:
    return build_palette(endpoints, depth)


def load_theme(path: Path) -> Theme:
    """Read and check one file; UsageError names the file, the key and the nearest known one."""
    try:
        content = tomllib.loads(read_text(path, LARGEST))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"Theme {path} cannot be read: {error}. Mend the file or remove it.") from error
    _check_keys(path, "", content, _TOP, ("title", "dark", "colours", "tokens"))
    for key, kind in (("title", str), ("summary", str), ("dark", bool), ("ansi", bool)):
        if key in content and not isinstance(content[key], kind):
            word = "true or false" if kind is bool else "text in quotes"
            raise UsageError(f"Theme {path}: '{key}' is {content[key]!r}. It must be {word}.")
    ansi = content.get("ansi", False)
    colours = _table(path, content, "colours", COLOURS, COLOURS, ansi)
    required = TOKEN_COLOURS[:1] if ansi else TOKEN_COLOURS
    tokens = _table(path, content, "tokens", TOKEN_COLOURS, required, ansi)
    variables = content.get("variables", {})
    if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
        raise UsageError(f"Theme {path}: [variables] must hold names with text in quotes. Found {variables!r}.")
    if ansi:
        ours = _variables("ansi_cyan", "ansi_yellow", WIDTHS_ANSI)
        # Textual's own style sheet asks themes of 16 colours for these two.
        ours |= {"ansi-background": colours["background"], "ansi-foreground": colours["foreground"]}
    else:
        ours = _variables(tokens["linear"], tokens["nonlinear"], WIDTHS_DARK if content["dark"] else WIDTHS_LIGHT)
    return Theme(
        name=path.stem,
        title=content["title"],
        summary=content.get("summary", ""),
        dark=content["dark"],
        ansi=ansi,
        variables={**ours, **variables},
        tokens=tokens,
        colours=colours,
        **colours,  # type: ignore[arg-type]  # the keys of COLOURS are checked above
    )


def _table(
    path: Path,
    content: Mapping[str, object],
    name: str,
    known: Iterable[str],
    required: Iterable[str],
    ansi: bool,
) -> dict[str, str]:
    table = content[name]
    if not isinstance(table, dict):
        raise UsageError(f"Theme {path}: '{name}' is {table!r}. It must be a table, [{name}].")
    _check_keys(path, f"[{name}] ", table, known, required)
    for key, value in table.items():
        if ansi and value not in ANSI_NAMES:
            raise UsageError(
                f"Theme {path}: [{name}] {key} is {value!r}, but the theme says ansi = true."
                f"{nearest(str(value), ANSI_NAMES)}"
            )
        if not ansi and not (isinstance(value, str) and _HEX.fullmatch(value)):
            raise UsageError(f"Theme {path}: [{name}] {key} is {value!r}. Write a colour as '#rrggbb'.")
    return {key: value for key, value in table.items() if isinstance(value, str)}


def _check_keys(
    path: Path, where: str, table: Mapping[str, object], known: Iterable[str], required: Iterable[str]
) -> None:
    for key in table:
        if key not in known:
            raise UsageError(f"Theme {path}: {where}has no key '{key}'.{nearest(key, known)}")
    for key in required:
        if key not in table:
            raise UsageError(
                f"Theme {path}: {where}lacks the key '{key}'. Add it, as in {shipped_folder() / 'okabe.toml'}."
            )


def shipped_folder() -> Path:
    """Where the program's own themes are: inside the installed package, or beside it in a checkout."""
    package = Path(inspector.__file__).parent
    inside = package / "themes"
    return inside if inside.is_dir() else package.parent / "themes"


def own_folder() -> Path:
    """Where people put their own."""
    return user_folder("config") / "themes"


def find_themes(folders: Iterable[Path] | None = None) -> tuple[dict[str, Theme], list[str]]:
    """All themes by name, the user's replacing ours, and what was wrong with those left out."""
    themes: dict[str, Theme] = {}
    problems: list[str] = []
    for folder in (shipped_folder(), own_folder()) if folders is None else folders:
        for path in sorted(folder.glob("*.toml")):
            try:
                themes[path.stem] = load_theme(path)
            except UsageError as error:
                problems.append(str(error))
    return themes, problems


def theme_named(name: str, themes: Mapping[str, Theme]) -> Theme:
    """The theme of that name; UsageError with the nearest names otherwise."""
    if name not in themes:
        raise UsageError(f"There is no theme '{name}'.{nearest(name, themes)}")
    return themes[name]


def depth_of(app: App[Any]) -> Depth:
    """How many colours this terminal shows: what Rich found out, or none with NO_COLOR."""
    if app.no_color:
        return "none"
    match app.console.color_system:
        case "truecolor":
            return "truecolor"
        case "256":
            return "256"
        case None:
            return "none"
        case _:
            return "16"


def palette_of(app: App[Any]) -> TokenPalette:
    """Of the theme in use, or of our default where that is not one of ours, at the depth of this terminal."""
    theme = app.current_theme
    known = theme if isinstance(theme, Theme) else load_theme(shipped_folder() / f"{DEFAULT_THEME}.toml")
    return known.palette(depth_of(app))


def theme_for(depth: Depth, wanted: Theme, themes: Mapping[str, Theme]) -> Theme:
    """The wanted theme, or the one of 16 colours where a terminal has no more: rounding to 16 mixes levels up."""
    return themes.get(SIXTEEN_THEME, wanted) if depth == "16" else wanted
