"""`dm-inspect run`: experiments without a screen; results as tables, as JSON, as files."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.cli.lazy import Command
from inspector.cli.narration import batch_size_option, follow, quiet_option, ray_option, say
from inspector.cli.opening import opened
from inspector.cli.output import output_folder, print_json, print_text, stored, to_json, whole_file
from inspector.cli.target_options import several_target_options
from inspector.cluster import SHARDS, check_address
from inspector.errors import UsageError
from inspector.events import Measured
from inspector.experiments import find
from inspector.spec import RunSpec, command_of
from inspector.store.results import save_measured

if TYPE_CHECKING:
    from inspector.events import Event
    from inspector.experiment import Experiment
    from inspector.spec import Null, Profile, TargetSpec


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  dm-inspect run all
  dm-inspect run norm-prediction error-vector --widths 256,4k --json > results.jsonl
  dm-inspect run error-vector -p intercept=off --profile paper-code --out results
  dm-inspect run all --detach
""",
)
@click.argument("experiments", nargs=-1, metavar="EXPERIMENT...|all")
@click.option("-p", "--param", "params", multiple=True, metavar="KEY=VALUE", help="Parameter of an experiment; repeat.")
@click.option(
    "--profile",
    type=click.Choice(["careful", "paper-text", "paper-code"]),
    default="careful",
    show_default=True,
    help="How tokens are split, fitted and scored.",
)
@click.option("--null", type=click.Choice(["shuffle", "gaussian", "affine"]), help="Measure a control instead.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line and experiment.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Also write each result there as JSON.")
@batch_size_option
@click.option(
    "--shards",
    type=click.IntRange(min=1),
    metavar="N",
    help="Add up in N parts and merge; changes no number.  [default: 1; with --ray 16]",
)
@ray_option
@click.option("--detach", is_flag=True, help="As a job of the target's background session; prints its id.")
@quiet_option
@several_target_options
def run(
    experiments: tuple[str, ...],
    params: tuple[str, ...],
    profile: Profile,
    null: Null | None,
    as_json: bool,
    out: Path | None,
    batch_size: int,
    shards: int | None,
    ray: str | None,
    detach: bool,
    quiet: bool,
    targets: tuple[TargetSpec, ...],
) -> None:
    """Measure experiments on a model and its SAEs, without a screen.

    All experiments share one pass over the tokens, for all SAEs of the hook. `dm-inspect experiments` lists them.
    Several layers or models are measured one after the other, and stand in one table at the end. A run that was killed
    goes on where it was when the same command is given again.
    """
    from inspector.sources.suites import layer_by_layer

    chosen = check(experiments, params)
    if detach and out is not None:
        raise UsageError(
            "--out and --detach were both given, but a job writes no files there. "
            "Leave --out away and use `dm-inspect results export` when the job is done."
        )
    if ray is not None:
        check_address(ray)
        shards = shards or SHARDS
    if out is not None:
        output_folder(out)
    hooks = [each for target in targets for each in layer_by_layer(target)]
    if detach:
        start_job(hooks, chosen, as_pairs(params), profile, null, ray, as_json=as_json)
        return
    found: dict[str, list[dict[str, Any]]] = {experiment.id: [] for experiment in chosen}
    for each in hooks:
        spec = RunSpec(
            target=each,
            experiments=tuple(experiment.id for experiment in chosen),
            params=as_pairs(params),
            profile=profile,
            null=null,
            batch_size=batch_size,
            shards=shards or RunSpec.shards,
            ray=ray,
        )
        results = followed(spec, quiet=quiet)
        for experiment, result in zip(chosen, results, strict=True):
            command = command_of(spec, experiment.id)
            found[experiment.id].append(result)
            if out is not None:
                _write(out / file_name(result, several_layers=len(hooks) > 1, several_models=len(targets) > 1), result)
            if as_json:
                print_json(result)
            else:
                from inspector.cli.report import look_of_stdout, report

                print_text(report(experiment, result, look_of_stdout(), command), end="", coloured=True)
    if len(hooks) > 1 and not as_json:
        for experiment in chosen:
            _together(experiment, found[experiment.id])


def check(experiments: tuple[str, ...], params: tuple[str, ...]) -> list[Experiment]:
    """The experiments, after everything that can be wrong about them was looked at; loads nothing heavy.

    Raises:
        UsageError: an experiment or a parameter that there is not.
    """
    from inspector.experiment import parse_params
    from inspector.experiments import choose

    chosen = choose(experiments)
    parse_params(chosen, as_pairs(params))
    return chosen


def as_pairs(params: tuple[str, ...]) -> dict[str, str]:
    """`-p KEY=VALUE` as a dictionary; the last of a key counts.

    Raises:
        UsageError: something without an equals sign.
    """
    for param in params:
        if not param.partition("=")[0] or "=" not in param:
            raise UsageError(f"-p {param} is not a parameter. Write -p KEY=VALUE, for example -p intercept=off.")
    return {key: value for key, _, value in (param.partition("=") for param in params)}


def followed(spec: RunSpec, *, quiet: bool) -> list[dict[str, Any]]:
    """Run with progress on stderr; then, when no bar is in the way, what became of the results.

    After a failure too: what was finished is there.
    """
    notes: list[str] = []
    try:
        return follow(_measured(spec, notes, quiet=quiet), quiet=quiet)
    finally:
        for note in notes:
            say(note)


def _measured(spec: RunSpec, notes: list[str], *, quiet: bool) -> Generator[Event, None, list[dict[str, Any]]]:
    """Load the spec's target, unless all are simulations, and run its experiments, from the checkpoints of an earlier
    try if there are any; each result is stored as soon as it is finished, and `notes` receives what to say of that.
    """
    if spec.ray is not None:
        from inspector.cluster.driver import run_on_cluster

        work = run_on_cluster(spec)
    else:
        loaded = None
        if any(find(experiment).needs_target for experiment in spec.experiments):
            loaded = yield from opened(spec.target)
        from inspector import runner  # imports torch, which `opened` has told about

        work = runner.resumed(spec, loaded)
    try:
        while True:
            event = next(work)
            if isinstance(event, Measured):
                notes += stored(partial(save_measured, spec, event.result), quiet=quiet)
            yield event
    except StopIteration as end:
        results: list[dict[str, Any]] = end.value
        return results
    finally:
        work.close()


def file_name(result: dict[str, Any], *, several_layers: bool, several_models: bool = False) -> str:
    """`error-vector.json`; `error-vector.layer_3.json` where one command measures several layers, and
    `error-vector.gemma-2-2b.layer_3.json` where it measures several models.
    """
    layer = f".layer_{result['saes'][0]['layer']}" if several_layers and result["saes"] else ""
    name = str(result["provenance"].get("model", "no-model")).rstrip("/").rpartition("/")[2]
    model = "." + re.sub(r"[^A-Za-z0-9._-]", "_", name) if several_models else ""
    return f"{result['experiment']}{model}{layer}.json"


def _together(experiment: Experiment, results: list[dict[str, Any]]) -> None:
    """One table and one curve of all layers and models."""
    from inspector.cli.report import drawn, look_of_stdout, side_by_side

    for text in drawn(side_by_side(experiment.title, results), look_of_stdout()):
        print_text(text, coloured=True)


def _write(path: Path, result: dict[str, Any]) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(to_json(result) + "\n", encoding="ascii")
    say(f"wrote {path}")


def start_job(
    targets: Sequence[TargetSpec],
    experiments: Sequence[Experiment],
    params: Mapping[str, str],
    profile: str,
    null: str | None,
    ray: str | None = None,
    *,
    as_json: bool,
) -> None:
    """Queue the run in the target's session, which is started if there is none, and print the job's id.

    Raises:
        UsageError: several targets; each would need a session, and a model's memory, of its own.
        InspectorError: the session could not be started, or the target cannot be loaded.
    """
    from inspector.session.client import ask_target
    from inspector.session.protocol import JobTold, StartJob

    if len(targets) != 1:
        raise UsageError(
            f"--detach works on one hook and {len(targets)} were asked for. "
            "Start a job for each, or leave --detach away to measure them one after the other."
        )
    say("asking the session of this target ...")
    message = StartJob(
        experiments=[experiment.id for experiment in experiments],
        params=dict(params),
        profile=profile,
        null=null,
        ray=ray,
    )
    told = ask_target(targets[0], message)
    assert isinstance(told, JobTold), "what StartJob is answered with"
    if as_json:
        from inspector.cli.jobs import row
        from inspector.store.jobs import JobStore

        print_json(row(JobStore().find(told.job.id)))
        return
    print_text(told.job.id)
    say(f"`dm-inspect jobs show {told.job.id}` tells how far it is, and `dm-inspect` opens the app on its session")
