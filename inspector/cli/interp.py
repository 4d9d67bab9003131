"""`dm-inspect interp`: explain latents with a language model, and score the explanations on text it has not seen."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.cli.lazy import Command
from inspector.cli.narration import batch_size_option, follow, quiet_option, say
from inspector.cli.output import output_folder, print_json, print_text, stored, to_json, whole_file
from inspector.cli.target_options import target_options
from inspector.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inspector.events import Event
    from inspector.interp.asking import Asker
    from inspector.interp.examples import Gathered, Settings
    from inspector.interp.judge import Judge
    from inspector.interp.readers import Reader
    from inspector.interp.scoring import Cost
    from inspector.interp.windows import Windows
    from inspector.sources.target import Loaded
    from inspector.spec import TargetSpec

LOCAL = "local:"
NO_JUDGE = "none"
"""Name of the judge of an estimate for which none was named."""


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  dm-inspect interp --sae layer_3/resid/width_4k/l0_16 --estimate
  dm-inspect interp --sae layer_3/resid/width_4k/l0_16 --judge-url http://localhost:8000 --judge-model llama
  dm-inspect interp --error-saes ~/error-saes --judge local:models/llama-8b-instruct --scorer fuzzing --json

The key of a judge, if it wants one, is read from the environment variable DM_INSPECT_JUDGE_KEY and written nowhere.
""",
)
@click.option("--latents", type=click.IntRange(min=1), default=100, show_default=True, metavar="N", help="Of each SAE.")
@click.option(
    "--scorer",
    type=click.Choice(["detection", "fuzzing"]),
    default="detection",
    show_default=True,
    help="What is asked.",
)
@click.option("--judge-url", metavar="URL", help="An OpenAI-style endpoint: vLLM, llama.cpp, Ollama, hosted ones.")
@click.option("--judge-model", metavar="NAME", help="The model there.")
@click.option("--judge", "local", metavar="local:DIR", help="A Hugging Face model from disk instead, in this process.")
@click.option(
    "--parallel", type=click.IntRange(1, 1024), default=8, show_default=True, metavar="N", help="Questions at a time."
)
@click.option(
    "--window", type=click.IntRange(min=2), default=32, show_default=True, metavar="N", help="Tokens of an excerpt."
)
@click.option(
    "--shown", type=click.IntRange(1, 120), default=4, show_default=True, metavar="N", help="Excerpts to a question."
)
@click.option(
    "--thinking",
    type=click.IntRange(0, 100_000),
    default=0,
    show_default=True,
    metavar="N",
    help="Tokens a judge may think in <think> before an answer.",
)
@click.option("--control", is_flag=True, help="Also judge each latent by another's explanation; asks twice as much.")
@click.option(
    "--error-saes",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Compare the SAEs that `run error-saes` trained on the parts of an error, as Fig. 7.",
)
@click.option("--estimate", is_flag=True, help="Say what it would cost, and ask no judge.")
@click.option("--json", "as_json", is_flag=True, help="The result, or the estimate, as one JSON object.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also write the result, the examples, and all activations as delphi caches them.",
)
@batch_size_option
@quiet_option
@target_options
def interp(
    latents: int,
    scorer: str,
    judge_url: str | None,
    judge_model: str | None,
    local: str | None,
    parallel: int,
    window: int,
    shown: int,
    thinking: int,
    control: bool,
    error_saes: Path | None,
    estimate: bool,
    as_json: bool,
    out: Path | None,
    batch_size: int,
    quiet: bool,
    target: TargetSpec,
) -> None:
    """Explain latents with a language model and score the explanations.

    Of each SAE some latents are drawn; a judge explains each from its strongest excerpts, and then decides for other
    excerpts whether the latent is active there. Answers are kept, so the same command goes on where it was stopped.
    """
    check_judge(judge_url, judge_model, local, needed=not estimate)
    if out is not None:
        output_folder(out)
    words = {"latents": latents, "scorer": scorer, "window": window, "shown": shown, "control": control}
    words |= {"thinking": thinking}
    work = _gathered(target, error_saes, words, batch_size, for_export=out is not None)
    loaded, settings, windows, gathered, more = follow(work, quiet=quiet)
    with _asker(judge_url, judge_model, local, parallel, target) as asker:
        from inspector.interp.scoring import cost_of

        cost = cost_of(gathered, asker, loaded.model.tokenizer.text, settings)
        if estimate:
            _print_estimate(cost, gathered, as_json=as_json)
            return
        if not quiet:
            say(cost_text(cost))
        from inspector.cli.opening import interruptible
        from inspector.interp.outcome import result_of
        from inspector.interp.scoring import score

        with interruptible() as should_stop:
            scored = follow(
                score(gathered, asker, loaded.model.tokenizer.text, settings), quiet=quiet, should_stop=should_stop
            )
        result = dict(
            result_of(
                loaded,
                gathered,
                scored,
                windows,
                settings,
                judge=asker.judge.name,
                judge_url=getattr(asker.judge, "url", "") or str(local),
                more=more,
            )
        )
    command = command_line(target, words, judge_url, judge_model, local, error_saes)
    _finish(result, command, as_json=as_json, quiet=quiet)
    if out is not None:
        _export(out, result, loaded, windows, gathered)


def check_judge(url: str | None, model: str | None, local: str | None, *, needed: bool) -> None:
    """Refuse a judge that cannot be one, before anything is loaded.

    Raises:
        UsageError: none is named, two are, or the address or the key cannot be right.
    """
    from inspector.interp.chat import completions_url, key_from_environment

    if local is not None and (url is not None or model is not None):
        raise UsageError(
            "--judge names a model on disk, and --judge-url or --judge-model one behind an address. Use one."
        )
    if local is not None:
        if not local.startswith(LOCAL) or local == LOCAL:
            raise UsageError(f"--judge {local!r} is not of the form local:DIR. For an endpoint use --judge-url.")
        from inspector.sources.dequantising import check_model

        check_model(local.removeprefix(LOCAL))
        return
    if url is not None:
        completions_url(url)
        key_from_environment()
    if needed and (url is None or not model):
        raise UsageError(
            "No judge is named. Give --judge-url and --judge-model, or --judge local:DIR; --estimate asks none."
        )


def _gathered(
    target: TargetSpec, error_saes: Path | None, words: dict[str, Any], batch_size: int, *, for_export: bool
) -> Generator[Event, None, tuple[Loaded, Settings, Windows, list[Gathered], dict[str, Any]]]:
    """Load the target and find the examples of its latents."""
    from inspector.cli.opening import opened

    found = None
    if error_saes is not None:
        from inspector.interp.readers import with_base
        from inspector.training.error_saes import read_error_saes

        found = read_error_saes(error_saes)
        target = with_base(target, found)
    loaded = yield from opened(target)
    from inspector.interp.examples import Settings, gather
    from inspector.interp.readers import Reader

    readers: Sequence[Reader] = [Reader(name=sae.ref.sae_id, sae=sae) for sae in loaded.saes]
    more: dict[str, Any] = {}
    if found is not None:
        from inspector.interp.readers import error_readers

        readers, more = error_readers(found, loaded)
    elif len(readers) > 1 and not (target.saes or target.widths or target.l0 is not None):
        raise UsageError(
            f"The target has {len(readers)} SAEs, and judging all of them is a lot of asking. Choose with --sae, "
            "--widths or --l0."
        )
    settings = Settings(**words, seed=target.seed)
    windows, gathered = yield from gather(loaded, readers, settings, batch_size=batch_size, for_export=for_export)
    return loaded, settings, windows, gathered, more


@contextmanager
def _asker(url: str | None, model: str | None, local: str | None, parallel: int, target: TargetSpec) -> Iterator[Asker]:
    """The judge, with the store of its answers."""
    from inspector.interp import prompts
    from inspector.interp.asking import AnswerStore, Asker

    store = AnswerStore()
    if store.table.was_damaged:
        say(f"warning: {store.table.path} was damaged and put aside; what cannot be read of it is asked again.")
    with Asker(_judge(url, model, local, parallel, target), store, prompts.VERSION) as asker:
        yield asker


def _judge(url: str | None, model: str | None, local: str | None, parallel: int, target: TargetSpec) -> Judge:
    from inspector.interp.chat import ChatJudge, is_this_machine, key_from_environment

    if local is not None:
        from inspector.interp.judge import LocalJudge
        from inspector.sources.writer import load_writer

        return LocalJudge(load_writer(local.removeprefix(LOCAL), target.device))
    key = key_from_environment()
    judge = ChatJudge(url or "http://localhost", model or NO_JUDGE, key, parallel=parallel)
    if key is not None and judge.url.startswith("http:") and not is_this_machine(judge.url):
        say("warning: the key travels unencrypted over http. Use an https address.")
    return judge


def cost_text(cost: Cost) -> str:
    """`3,100 questions, 512 known already; about 2.4 million tokens to read and 0.03 million to write`."""
    known = f", {cost.known:,} known already" if cost.known else ""
    return (
        f"{cost.questions:,} questions{known}; about {cost.prompt_tokens / 1e6:.2f} million tokens to read and "
        f"{cost.answer_tokens / 1e6:.2f} million to write"
    )


def _print_estimate(cost: Cost, gathered: Sequence[Gathered], *, as_json: bool) -> None:
    coverage = [
        {
            "sae": one.reader.name,
            "n_drawn": len(one.drawn),
            "n_judged": len(one.latents),
            "skipped": {reason: len(found) for reason, found in one.skipped.items()},
        }
        for one in gathered
    ]
    if as_json:
        print_json({**asdict(cost), "saes": coverage})
        return
    for row in coverage:
        skipped = ", ".join(f"{n} {reason}" for reason, n in row["skipped"].items() if n)  # type: ignore[attr-defined]
        print_text(f"{row['sae']}: {row['n_judged']} of {row['n_drawn']} latents{f' ({skipped})' if skipped else ''}")
    print_text(cost_text(cost))


def command_line(
    target: TargetSpec,
    words: dict[str, Any],
    url: str | None,
    model: str | None,
    local: str | None,
    error_saes: Path | None,
) -> str:
    """The command that repeats it; no key is in it, because none can be typed."""
    import shlex

    from inspector.spec import target_words

    usual = {"latents": 100, "scorer": "detection", "window": 32, "shown": 4, "control": False, "thinking": 0}
    parts = ["dm-inspect", "interp", *target_words(target)]
    parts += [] if error_saes is None else ["--error-saes", str(error_saes)]
    for name, value in words.items():
        if value != usual[name]:
            parts += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    parts += ["--judge", local] if local is not None else ["--judge-url", str(url), "--judge-model", str(model)]
    return shlex.join(parts)


def _finish(result: dict[str, Any], command: str, *, as_json: bool, quiet: bool) -> None:
    """Keep the result and print it."""
    from inspector.store.results import save

    for note in stored(lambda: save(result, command), quiet=quiet):
        say(note)
    if as_json:
        print_json(result)
        return
    from inspector.cli.report import look_of_stdout, report
    from inspector.experiments import find

    print_text(report(find(result["experiment"]), result, look_of_stdout(), command), end="", coloured=True)


def _export(out: Path, result: dict[str, Any], loaded: Loaded, windows: Windows, gathered: Sequence[Gathered]) -> None:
    """The result, the examples and delphi's cache below a folder."""
    from inspector.interp.export import examples_json, file_name, write_delphi

    with whole_file(out / f"{result['experiment']}.json") as temporary:
        temporary.write_text(to_json(result) + "\n", encoding="ascii")
    for one in gathered:
        path = out / "examples" / f"{file_name(one.reader.name)}.json"
        output_folder(path.parent)
        with whole_file(path) as temporary:
            temporary.write_text(to_json(examples_json(one, loaded)) + "\n", encoding="ascii")
        write_delphi(out / "delphi", one, windows, loaded)
    say(f"wrote the result, examples and delphi caches below {out}")
