"""`dm-inspect plan`: memory, downloads and time of a TARGET before anything is loaded, from names and headers alone.

The memory is that of `planned`, which loading obeys; the time that of `costs.estimate`, which the app's screen of
experiments shows. With --device and --max-memory the device need not be there, nor the model on the disk.
"""

from __future__ import annotations

import re
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

import click

from inspector.cli.lazy import Command
from inspector.cli.narration import duration, say
from inspector.cli.output import print_json, print_text
from inspector.cli.run import as_pairs, check
from inspector.cli.target_options import Written, target_options
from inspector.errors import UsageError
from inspector.options import SIZE, Notation, parse_size, width_label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from inspector.experiment import Experiment
    from inspector.sources.memory_sizes import Planned
    from inspector.sources.target import ResolvedTarget
    from inspector.spec import SaeRef, TargetSpec
    from inspector.statistics.costs import Estimate, Pass, Rates, Workload


def _counts(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d{0,3}(,[1-9]\d{0,3})*", text):
        raise ValueError(f"{text!r} is no list of numbers of workers. Write them with commas, as 1,8,64.")
    return tuple(map(int, text.split(",")))


WORKERS = Written(Notation(_counts, str, "N[,N..]"))
Json = dict[str, Any]
"""Plain data, as `--json` prints it."""
TIMED = ("model", "sae", "sums", "numbers")
LINKS = ("network", "merging")
RATES = (*TIMED, "host", "disk", *LINKS)
"""As the fields of `costs.Rates`, which costs a longer import, and of `scaling.Links`. Those that are not TIMED have
defaults."""


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  dm-inspect plan
  dm-inspect plan --model gemma-2-9b --layer 20 --device cuda --max-memory 24G --offline
  dm-inspect plan --run --experiment all --json
  dm-inspect plan --model gemma-2-2b --layer 12 --device cuda --max-memory 80G --rate model=400T
""",
)
@click.option("--run", "headless", is_flag=True, help="As `run` needs it, which keeps no texts to be looked at.")
@click.option("--experiment", "experiments", multiple=True, metavar="ID|all", help="Its passes and time; repeat.")
@click.option("-p", "--param", "params", multiple=True, metavar="KEY=VALUE", help="Parameter of an experiment; repeat.")
@click.option(
    "--rate",
    "rates",
    multiple=True,
    metavar="NAME=N",
    help="Per second, instead of timing this machine; repeat: operations of the model's products (model), of SAEs in "
    "float32 (sae), of sums in float64 (sums), numbers touched (numbers), bytes of sliced SAEs that come from the "
    "host's memory (host) and from disk (disk), bytes of sums between workers (network) and merged (merging), as 40T.",
)
@click.option("--ray", "workers", type=WORKERS, metavar="N[,N..]", help="Also the time on so many workers, as 1,8,64.")
@click.option(
    "--host-memory",
    type=Written(SIZE),
    metavar="SIZE",
    help="Beside a GPU, for what finds no room there. Default: what is free here.",
)
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"plan": {...}}, per layer.')
@target_options
def plan(
    headless: bool,
    experiments: tuple[str, ...],
    params: tuple[str, ...],
    rates: tuple[str, ...],
    workers: tuple[int, ...] | None,
    host_memory: int | None,
    as_json: bool,
    target: TargetSpec,
) -> None:
    """Tell what a target needs before anything is loaded.

    Memory on the device, what is to be fetched, and how long the passes over the tokens take. Nothing is loaded or
    fetched. With --device and --max-memory for a machine that is not here; models need not be on the disk.
    """
    from inspector.sources.suites import layer_by_layer
    from inspector.sources.target import resolve

    chosen = check(experiments, params) if experiments else []
    given = _given(rates)
    for place, each in enumerate(layer_by_layer(target)):
        found = plan_of(
            resolve(each, unseen=True),
            session=not headless,
            host_memory=host_memory,
            experiments=chosen,
            params=as_pairs(params),
            given=given,
            workers=workers or (),
        )
        if as_json:
            print_json({"plan": found})
        else:
            print_text(("\n" if place else "") + text_of(found), end="")
            for note in (*found["notes"], *found["time"]["assumptions"]):
                say(f"note: {note}")


def _given(rates: Sequence[str]) -> dict[str, float]:
    """By name, per second."""
    found = {}
    for text in rates:
        name, _, value = text.partition("=")
        if name not in RATES:
            raise UsageError(f"--rate {text!r} names no rate. Write one of {', '.join(RATES)}, as --rate sae=40T.")
        try:
            found[name] = float(parse_size(value))
        except ValueError as error:
            raise UsageError(f"--rate {text!r} is no number per second. Write 40T, 900G or 1e12 in full.") from error
    return found


def plan_of(
    resolved: ResolvedTarget,
    *,
    session: bool,
    host_memory: int | None = None,
    experiments: Sequence[Experiment] = (),
    params: Mapping[str, str] | None = None,
    given: Mapping[str, float] | None = None,
    workers: Sequence[int] = (),
) -> Json:
    """Everything the plan tells of one hook, as JSON prints it.

    Args:
        resolved: the target; its model need not be here.
        session: as the app needs it, which keeps texts.
        host_memory: bytes beside the device; None: what is free here.
        experiments: whose passes are told.
        params: of the experiments, as typed.
        given: rates that are not to be timed.
        workers: numbers of them that share the run.

    Raises:
        TargetError: there is no such device.
        ResourceError: it does not fit.
    """
    from inspector.sources.contexts import default_positions
    from inspector.sources.memory_sizes import planned
    from inspector.statistics.costs import Workload

    device, budget = _device(resolved.target)
    found = planned(
        resolved.files,
        resolved.refs,
        resolved.target,
        device=device,
        budget=budget,
        session=session,
        host_memory=host_memory,
    )
    asked = resolved.target
    positions = asked.positions or default_positions(found.sizes.length)
    work = Workload.expected(
        found.sizes,
        layer=resolved.layer,
        n_layers=resolved.files.n_layers,
        start=0 if asked.include_special else positions[0],
        train_tokens=asked.train_tokens,
    )
    work = replace(work, memory=found.memory)
    to_fetch = list(_downloads(resolved))
    links = {name: value for name, value in (given or {}).items() if name in LINKS}
    own = {name: value for name, value in (given or {}).items() if name not in LINKS}
    rates = _rates(work, found, device, own)
    time = _time(work, found, rates, own, experiments, params or {})
    if workers:
        from inspector.cluster.scaling import Links, on_workers

        between = Links(**links)
        time["workers"] = on_workers(workers, experiments, params or {}, work, rates, between)
        time["assumptions"].append(between.assumed)
    return {
        "model": resolved.files.name,
        "hook_name": resolved.hook_name,
        "layer": resolved.layer,
        "for": "app" if session else "run",
        "device": device,
        "dtype": found.dtype,
        "memory": _memory(found),
        "saes": [_sae(ref, found) for ref in resolved.refs],
        "downloads": to_fetch,
        "download_bytes": sum(each["bytes"] for each in to_fetch if not each["on_disk"]),
        "time": time,
        "notes": [*resolved.notes, *([found.why] if found.why else []), *found.memory.notes, *_unknown(resolved.refs)],
    }


def _device(target: TargetSpec) -> tuple[str, int]:
    """Its name, and what may be used of it. One that is named with an amount of memory is not looked for."""
    if target.max_memory is not None and target.device != "auto":
        return target.device, target.max_memory
    from inspector.sources.loading import pick_device
    from inspector.sources.memory_sizes import free_bytes

    device = pick_device(target.device)
    return str(device), target.max_memory or free_bytes(device)


def _memory(found: Planned) -> Json:
    memory = found.memory
    return {
        "rows": [{"what": what, "bytes": n_bytes} for what, n_bytes in memory.rows],
        "needed": memory.needed,
        "budget": memory.budget,
        "contexts_at_once": memory.contexts_at_once,
        "chunk_tokens": memory.chunk_tokens,
        "slice_bytes": memory.slice_bytes,
        "page_from_host": memory.page_from_host,
        "page_from_disk": memory.page_from_disk,
    }


def _sae(ref: SaeRef, found: Planned) -> Json:
    from inspector.sources.memory_sums import sae_bytes

    return {
        "sae": ref.sae_id,
        "d_sae": ref.d_sae or None,
        "nominal_l0": ref.nominal_l0,
        "bytes": sae_bytes(ref) if ref.d_sae else None,
        "where": found.memory.place_of(ref.sae_id),
    }


def _downloads(resolved: ResolvedTarget) -> Iterator[Json]:
    """What is read from the hub, and whether it is here already."""
    from inspector.sources.model_shapes import shape_of

    files = resolved.files
    shape = shape_of(files.name)
    if shape is not None:
        yield {"what": f"model {files.name}", "bytes": shape.stored, "on_disk": files.expected is None}
    for ref in resolved.refs:
        if ref.repo is not None:
            yield {"what": f"SAE {ref.sae_id}", "bytes": ref.n_bytes, "on_disk": ref.on_disk}


def _unknown(refs: Sequence[SaeRef]) -> list[str]:
    """What no name tells."""
    n = sum(not ref.d_sae for ref in refs)
    return [f"{n} of {len(refs)} SAEs say their width in their own files alone: they are not counted."] if n else []


# ---- time -----------------------------------------------------------------------------------------------------------


def _rates(work: Workload, found: Planned, device: str, given: Mapping[str, float]) -> Rates | None:
    """As given, the rest timed on the device; None: it is not here, and not all are given."""
    from inspector.statistics.costs import Rates, measured_rates

    if given.keys() >= set(TIMED):
        return Rates(**given)
    import torch

    from inspector.errors import TargetError
    from inspector.sources.loading import pick_device

    try:
        there = pick_device(device)
    except TargetError:
        return None
    dtype = torch.float32 if found.dtype == "float32" else torch.bfloat16
    return Rates(**{**asdict(measured_rates(work, there, dtype)), **given})


def _time(
    work: Workload,
    found: Planned,
    rates: Rates | None,
    given: Mapping[str, float],
    experiments: Sequence[Experiment],
    params: Mapping[str, str],
) -> Json:
    from inspector.experiment import parse_params
    from inspector.statistics.costs import Rates, estimate, passes_of, shared_passes

    parsed = parse_params(experiments, params) if experiments else {}
    told: Json = {
        "rates": None if rates is None else asdict(rates),
        "given": sorted(given),
        "assumptions": _assumptions(work, found),
    }
    if not experiments:
        return told | _run(shared_passes(work, ()), rates)
    whole = _run(passes_of(experiments, parsed, work), rates)
    counted, _ = estimate(experiments, parsed, work, rates or Rates(**dict.fromkeys(TIMED, 1.0)))
    return told | whole | {"experiments": [_experiment(each, rates) for each in counted]}


def _run(passes: Sequence[Pass], rates: Rates | None) -> Json:
    rows = [_pass(each, rates) for each in passes]
    return {"passes": rows, "seconds": None if rates is None else sum(row["seconds"] for row in rows)}


def _pass(found: Pass, rates: Rates | None) -> Json:
    amounts = {each.name: getattr(found, each.name) for each in fields(found)}
    return {"pass": amounts.pop("name"), **amounts, "seconds": None if rates is None else found.seconds(rates)}


def _experiment(found: Estimate, rates: Rates | None) -> Json:
    return {
        "experiment": found.experiment,
        "passes": None if found.passes is None else [each.name for each in found.passes],
        "own_seconds": None if rates is None else found.own_seconds,
        "seconds": None if rates is None else found.seconds,
    }


def _assumptions(work: Workload, found: Planned) -> list[str]:
    sizes = found.sizes
    return [
        f"{sizes.n_contexts:,} full contexts of {sizes.length:,} tokens, none of them special: {work.n_train:,} tokens "
        f"fitted, {work.n_test:,} held out.",
        "Products, elementwise work on their results and slices of SAEs that are moved are counted; launches, loading "
        "and the load gate are not. Small models take several times as long as counted.",
    ]


# ---- for people -----------------------------------------------------------------------------------------------------


def text_of(found: Json) -> str:
    """The plan as tables."""
    from inspector.drawing.figures import Column, Table
    from inspector.drawing.terminal_figures import render_table

    memory, time = found["memory"], found["time"]
    many = memory["contexts_at_once"] != 1
    at_once = f"{memory['contexts_at_once']} context{'s' * many} at once"
    tables = [
        Table(
            title=f"memory on {found['device']}, model in {found['dtype']}, for the {found['for']}",
            columns=(Column(title="what"), Column(title="size", unit="GB", digits=2)),
            rows=tuple((row["what"], row["bytes"] / 1e9) for row in memory["rows"]),
            note=f"together {memory['needed'] / 1e9:.2f} of {memory['budget'] / 1e9:.2f} GB; {at_once}",
        ),
        Table(
            title=found["hook_name"],
            columns=(
                Column(title="SAE"),
                Column(title="width"),
                Column(title="nominal L0"),
                Column(title="weights", unit="GB", digits=2),
                Column(title="where"),
            ),
            rows=tuple(
                (
                    sae["sae"],
                    width_label(sae["d_sae"]) if sae["d_sae"] else "?",
                    "?" if sae["nominal_l0"] is None else f"{sae['nominal_l0']:g}",
                    "?" if sae["bytes"] is None else sae["bytes"] / 1e9,
                    sae["where"],
                )
                for sae in found["saes"]
            ),
        ),
    ]
    if found["downloads"]:
        tables.append(
            Table(
                title="downloads",
                columns=(Column(title="what"), Column(title="size", unit="GB", digits=2), Column(title="on disk")),
                rows=tuple(
                    (row["what"], row["bytes"] / 1e9, "yes" if row["on_disk"] else "no") for row in found["downloads"]
                ),
                note=f"{found['download_bytes'] / 1e9:,.2f} GB to fetch",
            )
        )
    tables += _times(time)
    return "\n".join(map(render_table, tables))


def _times(time: Json) -> Iterator[Any]:
    from inspector.drawing.figures import Column, Table

    def told(seconds: float | None) -> str:
        if seconds is None:
            return "?"
        return duration(seconds) if seconds >= 1 else "< 1 s"

    rates = time["rates"]
    where = "no rates: the device is not here, and --rate gives none"
    if rates is not None:
        own = ", ".join(f"{name} {rates[name]:.2g}" for name in TIMED)
        where = f"per second: {own} ({'as given' if len(time['given']) >= len(TIMED) else 'timed here'})"
    yield Table(
        title="time",
        columns=(Column(title="pass"), Column(title="contexts"), Column(title="takes about")),
        rows=tuple((row["pass"], f"{row['contexts']:,}", told(row["seconds"])) for row in time["passes"]),
        note=f"together {told(time['seconds'])}; {where}",
    )
    if "workers" in time:
        yield _workers_table(time["workers"], told)
    if "experiments" in time:
        yield Table(
            title="experiments, each alone",
            columns=(Column(title="experiment"), Column(title="takes about"), Column(title="passes")),
            rows=tuple(
                (row["experiment"], told(row["seconds"]), len(row["passes"]) if row["passes"] else "?")
                for row in time["experiments"]
            ),
        )


def _workers_table(rows: Sequence[Json], told: Callable[[float | None], str]) -> Any:
    """What more of them gain, and what it goes into."""
    from inspector.drawing.figures import Column, Table

    parts = ("loading", "computing", "waiting", "merging", "alone")
    lines = []
    for row in rows:
        faster = "?" if row["seconds"] is None else f"{rows[0]['seconds'] / row['seconds']:.1f}"
        lines.append((row["workers"], row["shards"] or "?", *(told(row[name]) for name in ("seconds", *parts)), faster))
    titles = ("workers", "shards", "takes about", *parts, "times as fast")
    return Table(
        title="on workers of a cluster",
        columns=tuple(Column(title=title) for title in titles),
        rows=tuple(lines),
        note="waiting: for the slowest shard; alone: what each does for itself, or one while the others wait",
    )
