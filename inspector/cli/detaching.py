"""`dm-inspect run --detach`: the same run as a job of the target's background session, which goes on without us."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from inspector.cli.narration import say
from inspector.cli.output import print_json, print_text
from inspector.errors import UsageError

if TYPE_CHECKING:
    from inspector.experiment import Experiment
    from inspector.spec import TargetSpec


def start_job(
    targets: Sequence[TargetSpec],
    experiments: Sequence[Experiment],
    params: Mapping[str, str],
    profile: str,
    null: str | None,
    *,
    as_json: bool,
) -> None:
    """Queue the run in the target's session, which is started if there is none, and print the job's id.

    Raises:
        UsageError: several targets; each would need a session, and a model's memory, of its own.
        InspectorError: the session could not be started, or the target cannot be loaded.
    """
    from inspector.session.asking import ask_target
    from inspector.session.protocol import JobTold, StartJob

    if len(targets) != 1:
        raise UsageError(
            f"--detach works on one hook and {len(targets)} were asked for. "
            "Start a job for each, or leave --detach away to measure them one after the other."
        )
    say("asking the session of this target ...")
    message = StartJob(
        experiments=[experiment.id for experiment in experiments], params=dict(params), profile=profile, null=null
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
