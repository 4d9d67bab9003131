"""The guide keeps up with the program: keys, commands, options, experiments, themes, links and examples."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from inspector.cli.main import COMMANDS, dm_inspect
from inspector.drawing.tokens import MODES
from inspector.experiments import ids
from inspector.tui.actions import ACTIONS, shown_keys
from tests.cli.test_help import parse

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_every_key_of_the_screen_is_in_the_guide() -> None:
    keys = " ".join(line.split("|")[1] for line in text("docs/stream.md").splitlines() if line.startswith("| "))
    missing = [
        f"{key} ({action.title})"
        for action in ACTIONS
        for key in shown_keys(action).split()
        if f"`{key}`" not in keys and key != "Esc" and not (key.isdigit() and "`1` to `9`" in keys)
    ]
    assert missing == []


def test_every_colour_mode_is_in_the_guide() -> None:
    assert [mode.title for mode in MODES if f"| {mode.title} |" not in text("docs/stream.md")] == []


@pytest.mark.parametrize("page", ["README.md", "docs/commands.md"])
def test_every_command_is_listed(page: str) -> None:
    assert [name for name in COMMANDS if f"dm-inspect {name}" not in text(page) and f"`{name}`" not in text(page)] == []


def test_every_option_of_a_target_is_explained() -> None:
    table = text("docs/commands.md").split("## TARGET")[1].split("\n## ")[0]
    own = {"--theme", "--prompt-file", "--new-session", "--in-process", "--debug", "--version", "--accept-gate"}
    options = {param.opts[0] for param in dm_inspect.params if isinstance(param, click.Option)} - own
    assert {option for option in options if f"`{option}" not in table} == set()


def test_every_experiment_has_a_page_with_its_formula_and_an_example() -> None:
    for experiment in ids():
        page = text(f"docs/experiments/{experiment}.md")
        assert page.startswith(f"# {experiment}\n")
        assert f"dm-inspect run {experiment}" in page
        assert "What would contradict it" in page
        assert f"experiments/{experiment}.md" in text("docs/index.md")


def test_every_file_of_the_map_is_there() -> None:
    """A path is one below `inspector/` or the checkout; a bare name is a file of any room."""
    there = {str(path.relative_to(ROOT)) for path in ROOT.glob("inspector/**/*.py")} | {"cli.py"}
    bare = {path.rpartition("/")[2] for path in there}
    named = [name for name in re.findall(r"`([\w/]+\.py)`", text("docs/design.md"))]
    assert len(named) > 30
    assert [name for name in named if f"inspector/{name}" not in there and name not in (there | bare)] == []


def test_every_theme_is_listed() -> None:
    for path in (ROOT / "themes").glob("*.toml"):
        assert f"| `{path.stem}` |" in text("docs/themes.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def commands_in(page: Path) -> list[str]:
    """Every command line in a block of code, and what `make run ARGS=` passes on."""
    body = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", body, re.DOTALL) + re.findall(r"(?:^    .*\n)+", body, re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    found = [line.partition("dm-inspect ")[2] for line in lines if re.match(r"(\.venv/bin/)?dm-inspect ", line)]
    return found + [match[1] for line in lines if (match := re.search(r'make run ARGS="(.*)"', line))]


@pytest.mark.parametrize("page", [page for page in PAGES if commands_in(page)], ids=lambda path: path.name)
def test_commands_in_the_pages_parse(page: Path) -> None:
    for line in commands_in(page):
        parse(dm_inspect, shlex.split(re.split(r"\s+[|>#]", line)[0]))
