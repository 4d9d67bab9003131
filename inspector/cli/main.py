"""`dm-inspect`: the app without a command, and the list of commands. Imports click and nothing heavier."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import click
from click.core import ParameterSource

from inspector import __version__
from inspector.cli.failures import DEBUG_VARIABLE
from inspector.cli.lazy import LazyGroup
from inspector.cli.opening import prompt_file_option, prompts_of
from inspector.cli.target_options import target_options
from inspector.spec import DEFAULT_TARGET, AppRequest, OpenApp, TargetSpec

COMMANDS = {
    "run": "Measure experiments on a model and its SAEs, without a screen.",
    "tokens": "Print the per-token table behind the stream.",
    "beside": "Compare two SAEs token by token.",
    "worst": "List the tokens that an SAE fails on.",
    "anatomy": "Show why an SAE fails on a token.",
    "latent": "Show one latent: where it is active and how strongly, what it writes, what is like it.",
    "experiments": "List the experiments and what each one asks.",
    "results": "List, show and export what was measured.",
    "notes": "Keep bookmarks and notes on tokens, latents and results.",
    "suites": "List the SAEs of a model's hook.",
    "places": "List what the app can switch to, with the command for each.",
    "tour": "Explain linear and nonlinear error, and each number on the screens.",
    "plan": "Tell what a target needs before anything is loaded.",
    "train": "Train a suite of SAEs on a model.",
    "interp": "Explain latents with a language model and score the explanations.",
    "sessions": "List, attach to or stop background sessions.",
    "jobs": "List, show, cancel or resume jobs.",
    "cache": "Show, verify and shrink what the program keeps on disk.",
    "info": "Show versions, devices, folders and limits, for a bug report.",
}
"""Each command's own first line, by its name: that of its module and of its function too."""

EPILOG = """\b
Examples:
  dm-inspect                                            SmolLM2 if it is installed, else the demo
  dm-inspect --model demo                               the embedded demo, trained on Python
  dm-inspect --model ~/models/llama --layer 3 --suite ~/saes --text notes.txt
  dm-inspect run error-vector --json                    see `dm-inspect run --help`

Exit codes: 0 done, 1 unexpected, 2 usage, 3 target cannot be loaded, 4 data cannot support the request, 5 out of memory
or disk, 6 cancelled.
"""


def set_debug(_context: click.Context, _param: click.Parameter, value: bool) -> None:
    """Through the environment, so that a session started from here is verbose too."""
    if value:
        os.environ[DEBUG_VARIABLE] = "1"


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND ...]",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("--theme", metavar="NAME", help="Colours of the app; ctrl+p inside it lists them.")
@prompt_file_option
@click.option("--new-session", is_flag=True, help="Start a session even if one for this target runs.")
@click.option("--in-process", is_flag=True, help="View and engine in one process, for debugging.")
@click.option(
    "--debug", is_flag=True, expose_value=False, callback=set_debug, help="Show tracebacks; also DM_INSPECT_DEBUG=1."
)
@click.version_option(__version__, message="dm-inspect %(version)s")
@target_options
@click.pass_context
def dm_inspect(
    context: click.Context,
    theme: str | None,
    prompt_files: tuple[Path, ...],
    new_session: bool,
    in_process: bool,
    target: TargetSpec,
) -> None:
    """See what sparse autoencoders fail to explain, token by token.

    Without a command: the app on TARGET. Without TARGET it shows SmolLM2 where its weights are installed, else the
    embedded demo. Where there is no terminal it prints the same numbers as text.
    """
    if context.invoked_subcommand is not None:
        _refuse_misplaced_options(context)
        return
    if new_session and in_process:
        raise click.UsageError("--new-session and --in-process contradict each other. Leave one out.")
    if target == DEFAULT_TARGET and context.get_parameter_source("model") is not ParameterSource.COMMANDLINE:
        from inspector.sources.built_in import first_shown

        target = replace(target, model=first_shown())
    if has_terminal():
        open_app: OpenApp = context.obj
        prompts = prompts_of(None, prompt_files)
        request = AppRequest(
            target=target, theme=theme, new_session=new_session, in_process=in_process, prompts=prompts
        )
        context.exit(open_app(request))
    if prompt_files:
        raise click.UsageError("There is no terminal for the app. `dm-inspect tokens --prompt-file` prints the table.")
    from inspector.cli.plain import print_overview

    print_overview(target)


def has_terminal() -> bool:
    """Whether the app can be shown: keys come in, a picture goes out, and the terminal can move its cursor."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _refuse_misplaced_options(context: click.Context) -> None:
    """Options before the command belong to the app; a target typed there must not be dropped silently."""
    given = [
        param.opts[0]
        for param in context.command.params
        if context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    ]
    given = [name for name in given if name != "--debug"]
    if given:
        command = context.invoked_subcommand
        raise click.UsageError(
            f"{given[0]} stands before `{command}`, where only the app reads it. Write it after `{command}`."
        )
