"""Every command, found by walking the tree: it has a help, a sentence, an example, and the example parses."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from inspector.cli.main import COMMANDS, dm_inspect
from tests.cli.conftest import Run

Found = tuple[tuple[str, ...], click.Command]


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[Found]:
    yield path, group
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            if isinstance(command, click.Group):
                yield from commands(command, (*path, name))
            else:
                yield (*path, name), command


ALL = list(commands(dm_inspect))
IDS = [" ".join(path) or "dm-inspect" for path, _ in ALL]


def examples(command: click.Command) -> list[list[str]]:
    """The example lines of an epilog as words, without the program and without the remark behind two spaces or more."""
    lines = [line.strip() for line in (command.epilog or "").splitlines()]
    shown = [re.split(r"\s{3,}|\s+[|>]\s", line)[0] for line in lines if line.startswith("dm-inspect")]
    return [shlex.split(line)[1:] for line in shown]


@pytest.mark.parametrize(("path", "command"), ALL, ids=IDS)
def test_a_command_has_a_help_with_an_example(path: tuple[str, ...], command: click.Command, run: Run) -> None:
    outcome = run(*path, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"Usage: {' '.join(('dm-inspect', *path))} ")
    assert re.search(r"^  Examples?:\n    dm-inspect", outcome.out, re.MULTILINE)
    assert all(len(line) <= 110 for line in outcome.out.splitlines())


@pytest.mark.parametrize(("path", "command"), ALL, ids=IDS)
def test_the_examples_parse(path: tuple[str, ...], command: click.Command) -> None:
    found = examples(command)
    assert found
    for words in found:
        parse(dm_inspect, words)


def parse(command: click.Command, words: list[str], parent: click.Context | None = None) -> None:
    """Parse without running anything, down to the last subcommand."""
    context = command.make_context(command.name, list(words), parent=parent)
    with context:
        if isinstance(command, click.Group):
            name, *_ = [*context._protected_args, *context.args, ""]
            if name:
                _, chosen, rest = command.resolve_command(context, [*context._protected_args, *context.args])
                assert chosen is not None
                parse(chosen, rest, context)


def test_an_example_that_is_wrong_would_be_noticed() -> None:
    with pytest.raises(click.NoSuchOption):
        parse(dm_inspect, ["run", "all", "--jsno"])


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_the_command_says(name: str) -> None:
    command = dict(ALL)[(name,)]
    assert command.help is not None
    assert command.help.split("\n")[0] == COMMANDS[name]


@pytest.mark.parametrize(("path", "command"), ALL, ids=IDS)
def test_every_option_says_what_it_does(path: tuple[str, ...], command: click.Command) -> None:
    silent = [
        param.opts[0]
        for param in command.params
        if isinstance(param, click.Option) and not param.help and not param.hidden
    ]
    assert silent == []


def test_the_version_is_one_line(run: Run) -> None:
    from inspector import __version__

    outcome = run("--version")
    assert (outcome.code, outcome.out, outcome.err) == (0, f"dm-inspect {__version__}\n", "")


def test_a_group_without_a_command_shows_its_help_on_stderr(run: Run) -> None:
    outcome = run("sessions")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("Usage: dm-inspect sessions ")


@pytest.mark.parametrize(
    "args",
    [
        ("run", "error-vector", "--text", ""),
        ("run", "error-vector", "--text="),
        ("tokens", "--out", ""),
        ("suites", "--suite", ""),
        ("run", "error-vector", "--sae", "a", "--sae", ""),
        ("--cache-dir", ""),
        ("results", "report", "--out", ""),
    ],
    ids=" ".join,
)
def test_a_variable_that_is_not_set_is_a_mistake_and_no_default(run: Run, args: tuple[str, ...]) -> None:
    """`--text "$TEXT"` measured the demo's text, and `--suite ""` what lies in the current folder."""
    outcome = run(*args)
    option = [arg for arg in args if arg.startswith("--")][-1].rstrip("=")
    said = f"error: {option} is empty, as a variable is that was not set. Give it a value, or leave it out.\n"
    assert (outcome.code, outcome.out, outcome.err) == (2, "", said)
