"""The command of a result is the one that asked for it: parsed again, it is the same target."""

from __future__ import annotations

import os
import shlex
import subprocess

import click
import pytest

from inspector.cli.main import dm_inspect
from inspector.spec import RunSpec, TargetSpec, command_of, target_of, target_words


def parsed(words: list[str]) -> TargetSpec:
    """The target that the command line makes of these options."""
    from inspector.cli.target_options import targets_of

    command = dm_inspect.get_command(click.Context(dm_inspect), "run")
    assert command is not None
    with command.make_context("run", ["all", *words]) as context:
        own = {"experiments", "params", "profile", "null", "as_json", "out", "batch_size", "shards", "quiet"}
        own |= {"detach", "ray"}
        (target,) = targets_of({name: value for name, value in context.params.items() if name not in own})
        return target


@pytest.mark.parametrize(
    "target",
    [
        TargetSpec(),
        TargetSpec(model="a b/c", layers=(3,), suite="x'y", widths=(16384, 1024), l0=60.0, positions=(200, None)),
        TargetSpec(hook="blocks.1.hook_mlp_out", saes=("one", "two"), text="f.txt", contexts=7, train_tokens=9),
        TargetSpec(layers=(0, 1, 2), site="mlp", positions=(5, 100), split="token", seed=4, dtype="float32"),
        TargetSpec(layers_from=4, device="cpu", offline=True, cache_dir="/c", context_length=64),
    ],
)
def test_the_words_say_the_same_target(target: TargetSpec) -> None:
    assert parsed(target_words(target)) == target


def test_the_command_names_only_what_differs_and_quotes_it() -> None:
    spec = RunSpec(
        target=TargetSpec(model="a b", layers=(20,)),
        experiments=("pursuit", "error-vector"),
        params={"resamples": "0"},
        profile="paper-code",
        null="shuffle",
        batch_size=99,
    )
    command = command_of(spec, "error-vector")
    assert command == (
        "dm-inspect run error-vector --model 'a b' --layer 20 -p resamples=0 --profile paper-code --null shuffle"
    )
    assert shlex.split(command)[4] == "a b"


@pytest.mark.parametrize(
    "target",
    [
        TargetSpec(),
        TargetSpec(model="a b/c", layers=(3,), suite="x'y", widths=(16384, 1024), l0=60.0, positions=(200, None)),
        TargetSpec(hook="blocks.1.hook_mlp_out", saes=("one", "two"), text="f.txt", contexts=7, train_tokens=9),
        TargetSpec(layers=(0, 1, 2), site="mlp", positions=(5, 100), split="token", seed=4, dtype="float32"),
        TargetSpec(layers_from=4, offline=True, accept_gate=True, include_special=True, max_memory=12345),
        TargetSpec(outliers=None),
        TargetSpec(outliers=6.5),
    ],
)
def test_the_words_are_read_back_without_the_command_line(target: TargetSpec) -> None:
    assert target_of(target_words(target)) == target


def test_words_of_a_later_version_are_passed_over() -> None:
    assert target_of(["--later", "--model", "m", "--layer"]) == TargetSpec(model="m")


def test_a_name_that_is_not_utf8_is_spelled_for_the_shell() -> None:
    """The shell itself gives the bytes back."""
    name = b"caf\xe9 'a'\\b.txt"
    target = TargetSpec(text=os.fsdecode(name))
    command = command_of(RunSpec(target=target, experiments=("error-vector",)), "error-vector")
    command.encode("ascii")
    shown = subprocess.run(["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, check=True).stdout
    assert shown.splitlines() == [b"dm-inspect", b"run", b"error-vector", b"--text", name]
