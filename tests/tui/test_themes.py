from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from textual.app import App
from textual.widgets import Static

from inspector.drawing.palette import CONSOLE_MARKS, N_SERIES, SIDE_MARKS, WIDTHS_ANSI, figure_palette, place_in_run
from inspector.drawing.palette_build import contrast, distance, paper_colour, parse_hex, to_oklab
from inspector.errors import UsageError
from inspector.tui.themes import (
    ANSI_NAMES,
    DEFAULT_THEME,
    SIXTEEN_THEME,
    Theme,
    depth_of,
    find_themes,
    load_theme,
    own_folder,
    shipped_folder,
    theme_for,
    theme_named,
)
from tests.drawing.colour_vision import MACHADO_2009, seen_with

FILES = sorted(shipped_folder().glob("*.toml"))
GOOD = (shipped_folder() / f"{DEFAULT_THEME}.toml").read_text(encoding="utf-8")


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_themes_are_a_default_a_dark_a_light_and_a_16_colour_one() -> None:
    themes, problems = find_themes([shipped_folder()])
    assert not problems
    assert {DEFAULT_THEME, "dark", "light", SIXTEEN_THEME} <= set(themes)
    assert [theme.name for theme in themes.values() if not theme.dark] == ["light"]
    assert [theme.name for theme in themes.values() if theme.ansi] == [SIXTEEN_THEME]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_each_theme_paints(path: Path) -> None:
    class Bare(App[None]):
        def compose(self):  # type: ignore[no-untyped-def]
            yield Static("text")

    theme = load_theme(path)
    assert theme.summary
    app = Bare()
    async with app.run_test() as pilot:
        app.register_theme(theme)
        app.theme = theme.name
        await pilot.pause()
        assert app.current_theme.dark is theme.dark
        assert app.native_ansi_color is theme.ansi


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_text_can_be_read_on_background_surface_and_panel(path: Path) -> None:
    from inspector.drawing.palette_build import contrast, parse_hex

    theme = load_theme(path)
    if theme.ansi:
        assert theme.colours["foreground"] != theme.colours["background"]
        return
    text = parse_hex(theme.colours["foreground"])
    for ground in ("background", "surface", "panel"):
        assert contrast(text, parse_hex(theme.colours[ground])) >= 7.0  # WCAG AAA: it is read all day.
    for name in ("primary", "accent", "success", "warning", "error"):
        assert contrast(parse_hex(theme.colours[name]), parse_hex(theme.colours["surface"])) >= 4.5, name
    assert contrast(parse_hex(theme.tokens["muted"]), parse_hex(theme.colours["surface"])) >= 3.0  # Excluded tokens.


def test_an_ansi_theme_has_the_16_colour_palette_at_every_depth_but_none() -> None:
    theme = load_theme(shipped_folder() / "sixteen.toml")
    assert [theme.palette(depth).depth for depth in ("truecolor", "256", "16", "none")] == ["16", "16", "16", "none"]
    names = {cell.foreground for row in theme.palette("16").mixed for cell in row}
    assert names <= set(ANSI_NAMES)


def test_the_linux_console_gets_marks_of_its_font(monkeypatch: pytest.MonkeyPatch) -> None:
    theme = load_theme(shipped_folder() / "okabe.toml")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert theme.palette("16").marks == SIDE_MARKS
    monkeypatch.setenv("TERM", "linux")
    assert theme.palette("16").marks == CONSOLE_MARKS


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "Okabe"', 'titel = "Okabe"', r"has no key 'titel'\. Nearest: title"),
        ('title = "Okabe"', "title = 3", r"'title' is 3\. It must be text in quotes"),
        ("dark = true", 'dark = "yes"', r"'dark' is 'yes'\. It must be true or false"),
        ("dark = true", "", r"lacks the key 'dark'"),
        ("surface =", "surfaces =", r"\[colours\] has no key 'surfaces'\. Nearest: surface"),
        ('muted = "#66707c"', 'muted = "grey"', r"\[tokens\] muted is 'grey'\. Write a colour as '#rrggbb'"),
        ('loss = "#7fc9a8"', "", r"\[tokens\] lacks the key 'loss'"),
        ("[tokens]", "tokens = 1\n[tokken]", "cannot be read|has no key|must be a table"),
        ("dark = true", "dark = true\nansi = true", r"says ansi = true\. Known: ansi_black|says ansi = true"),
        ('border = "#9db0c3"', "border = 7", r"\[variables\] must hold names with text"),
        ("dark = true", "dark = = true", r"cannot be read: .*Mend the file"),
    ],
)
def test_a_wrong_file_is_reported_with_file_key_and_nearest(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(UsageError, match=message) as caught:
        load_theme(path)
    assert str(path) in str(caught.value)


def test_the_users_themes_come_last_and_broken_ones_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace('"Okabe"', '"My own"'), "okabe.toml")
    write(tmp_path, "title =", "broken.toml")
    themes, problems = find_themes([shipped_folder(), tmp_path])
    assert themes["okabe"].title == "My own"
    assert "broken" not in themes
    assert len(problems) == 1
    assert "broken.toml" in problems[0]


def test_missing_folders_are_no_problem(tmp_path: Path) -> None:
    assert find_themes([tmp_path / "nowhere"]) == ({}, [])
    assert own_folder().name == "themes"


def test_an_unknown_theme_gets_the_nearest() -> None:
    themes, _ = find_themes([shipped_folder()])
    assert theme_named("light", themes).name == "light"
    with pytest.raises(UsageError, match=r"no theme 'lihgt'\. Nearest: light"):
        theme_named("lihgt", themes)


def test_a_terminal_of_16_colours_gets_the_theme_made_for_it() -> None:
    themes, _ = find_themes([shipped_folder()])
    okabe = themes["okabe"]
    assert theme_for("16", okabe, themes).name == "sixteen"
    assert [theme_for(depth, okabe, themes).name for depth in ("truecolor", "256", "none")] == ["okabe"] * 3
    assert theme_for("16", okabe, {}) is okabe


@pytest.mark.parametrize(
    ("term", "colorterm", "no_color", "depth"),
    [
        ("xterm-256color", "truecolor", None, "truecolor"),
        ("xterm-256color", "", None, "256"),
        ("xterm", "", None, "16"),
        ("tmux-256color", "", None, "256"),
        ("xterm-256color", "truecolor", "1", "none"),
    ],
)
def test_depth_follows_the_terminal(
    monkeypatch: pytest.MonkeyPatch, term: str, colorterm: str, no_color: str | None, depth: str
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLORTERM", colorterm)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    assert depth_of(App()) == depth


RGB_THEMES = [
    load_theme(path) for path in sorted(shipped_folder().glob("*.toml")) if "ansi = true" not in path.read_text()
]


@pytest.mark.parametrize("theme", RGB_THEMES, ids=lambda theme: theme.name)
@pytest.mark.parametrize("deficiency", [None, *MACHADO_2009])
@pytest.mark.parametrize("n", range(2, 7))
def test_widths_have_colours_that_every_eye_keeps_apart(theme: Theme, deficiency: str | None, n: int) -> None:
    run = [parse_hex(theme.variables[f"series-{place_in_run(index, n) + 1}"]) for index in range(n)]
    shown = [seen_with(deficiency, colour) for colour in run]
    # 0.02 is just seen side by side; words and lines are thin and apart.
    assert min(distance(one, other) for one, other in combinations(shown, 2)) > 0.06


@pytest.mark.parametrize("theme", RGB_THEMES, ids=lambda theme: theme.name)
def test_one_colour_has_one_meaning(theme: Theme) -> None:
    """Linear, nonlinear, every width and the accent are all different colours; figures use the same."""
    palette = theme.palette("truecolor")
    figures = figure_palette(palette)
    linear, nonlinear = parse_hex(theme.tokens["linear"]), parse_hex(theme.tokens["nonlinear"])
    for number in range(1, N_SERIES + 1):
        colour = parse_hex(theme.variables[f"series-{number}"])
        assert min(distance(colour, linear), distance(colour, nonlinear)) > 0.08, number
        assert parse_hex(figures.of_series(number - 1, "512", N_SERIES).foreground) == colour
        assert contrast(colour, parse_hex(theme.colours["surface"])) >= 4.5
    assert distance(parse_hex(theme.colours["accent"]), nonlinear) > 0.2
    assert distance(parse_hex(theme.colours["accent"]), linear) > 0.2
    assert figures.of_series(1, "mean nonlinear") == figures.nonlinear != figures.of_series(1, "512", 5)
    for cell in figures.ramp[1:]:  # any other value, an activation among them, is grey
        _, a, b = to_oklab(parse_hex(cell.background))
        assert abs(a) < 0.01 and abs(b) < 0.01


def test_two_widths_never_share_a_colour_where_there_are_16() -> None:
    for n in range(2, 6):
        run = [WIDTHS_ANSI[place_in_run(index, n)] for index in range(n)]
        assert len(set(run)) == n, run


def test_figures_in_files_have_the_colours_of_the_light_theme() -> None:
    palette = figure_palette(load_theme(shipped_folder() / "light.toml").palette("truecolor"))
    for name in ("nonlinear_error", "linear_error", "512", "8k"):
        assert paper_colour(1, name, 3) == palette.of_series(1, name, 3).foreground
