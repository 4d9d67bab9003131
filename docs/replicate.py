"""Measures the paper's claims on real models and keeps the numbers: `make replicate` gives both steps.

    python docs/replicate.py measure NAME...   give the commands of `MODELS`; gemma3-270m: --gguf FILE --corpus FILE
    python docs/replicate.py keep NAME...      put their stored results, without curves, into docs/replication/

Killed, the same command goes on: a run at its checkpoint, and commands that are done are not given again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from inspector.claims import CLAIMS, evaluate  # noqa: E402
from inspector.disk.folders import RESULTS  # noqa: E402

KEPT = ROOT / "docs" / "replication"
WORK = ROOT / "cache" / "replication"
LONGEST = 40
"""Items of a list that is kept; longer ones are curves and tables of tokens, of which the page takes no number."""
DIGITS = 5
"""Significant, of what is kept."""
KEPT_EXPERIMENTS = {each for claim in CLAIMS for each in (*claim.needs, *claim.also)} | {"per-token-trace"}
"""What claims are judged by, and Fig. 5."""
DEPTH = "depth"
"""The results of the layers, which are kept beside those of one layer."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model that the paper is held against."""

    title: str
    commands: Mapping[str, tuple[str, ...]]
    """By set of results: what is typed behind `dm-inspect`. {gguf}, {corpus} and {saes} stand for paths."""
    like: str
    """The SAE that stands for the others where one number is given."""


MODELS = {
    "smollm2": Model(
        title="SmolLM2-135M",
        commands={
            "": (
                "run all --model smollm2 --contexts 120 --dtype bfloat16 -p contexts=10 -p expansion=2 "
                "-p sae_tokens=60000 -p damage=off",
            ),
            DEPTH: (
                "run norm-prediction error-vector fvu-nonlinear --model smollm2 --layers 0: --widths 2k --l0 32 "
                "--contexts 120 --dtype bfloat16",
            ),
        },
        like="layer_12/resid/width_2k/l0_32",
    ),
    "gemma3-270m": Model(
        title="Gemma 3 270M",
        commands={
            "": (
                "train --model {gguf} --layer 9 --text {corpus} --context-length 256 --dtype bfloat16 "
                "--widths 256,512,1k,2k --l0 32,64 --tokens 61440 --checkpoint-minutes 3 --out {saes}",
                "run norm-prediction error-vector fvu-nonlinear norm-test per-token-scaling per-token-split "
                "per-token-trace norm-baselines scaling-with-nonlinear shrinkage --model {gguf} --layer 9 "
                "--suite {saes} --text pydoc --context-length 256 --contexts 100 --dtype bfloat16",
            ),
        },
        like="layer_9/resid/width_1k/l0_32",
    ),
    "demo": Model(
        title="the demo, a toy",
        commands={"": ("run all --model demo --contexts 100 -p contexts=10 -p sae_tokens=40000 -p damage=off",)},
        like="layer_3/resid/width_1k/l0_16",
    ),
}
Result = dict[str, Any]
Results = dict[str, Result]
"""By experiment."""


def measure(name: str, paths: Mapping[str, str]) -> None:
    """Give a model's commands, each once; the results of each set go into a folder of their own."""
    for kind, commands in MODELS[name].commands.items():
        folder = results_of(name, kind)
        folder.mkdir(parents=True, exist_ok=True)
        for number, command in enumerate(commands):
            done = folder / f"done-{number}"
            words = shlex.split(command.format_map({"saes": str(WORK / f"{name}-saes"), **paths}))
            if done.exists() and done.read_text(encoding="utf-8") == command:
                continue
            print(f"dm-inspect {shlex.join(words)}", file=sys.stderr, flush=True)
            where = {**os.environ, RESULTS.variable: str(folder)}
            subprocess.run(
                [sys.executable, "-m", "inspector", *words], check=True, cwd=ROOT, env=where, stdout=sys.stderr
            )
            done.write_text(command, encoding="utf-8")


def results_of(name: str, kind: str = "") -> Path:
    """Where the results of a set of commands are stored."""
    return WORK / (f"{name}-{kind}" if kind else name)


def keep(name: str) -> None:
    """Write docs/replication/NAME.json: the newest result of each experiment without its curves.

    Raises:
        SystemExit: nothing is stored, or a verdict would be another one without what is left out.
    """
    kept: dict[str, list[Result]] = {}
    for kind in MODELS[name].commands:
        kept[kind] = [short(result) for result in newest(results_of(name, kind), by_layer=kind == DEPTH)]
    if not kept[""]:
        raise SystemExit(f"{results_of(name)} holds no result. Give `make replicate` first.")
    whole = {each["experiment"]: each for each in newest(results_of(name), by_layer=False)}
    for full, own in zip(evaluate(whole), evaluate(by_experiment(kept[""])), strict=True):
        if full.verdict != own.verdict:
            raise SystemExit(
                f"{full.id} is '{full.verdict}' with all that was measured and '{own.verdict}' without curves."
            )
    KEPT.mkdir(exist_ok=True)
    lines = {
        kind: "[\n" + ",\n".join(json.dumps(each, ensure_ascii=True) for each in own) + "\n]"
        for kind, own in kept.items()
    }
    text = ",\n".join(f"{json.dumps(kind)}: {own}" for kind, own in lines.items())
    (KEPT / f"{name}.json").write_text(f"{{{text}}}\n", encoding="utf-8")


def newest(folder: Path, *, by_layer: bool) -> list[Result]:
    """The newest result of each experiment, or of each and layer, in a fixed order."""
    from inspector.store.results import list_results, load

    found: dict[tuple[str, str], Result] = {}
    for record in list_results(folder).records if folder.is_dir() else ():
        if not record.null and record.experiment in KEPT_EXPERIMENTS:
            key = (record.experiment, record.hook_name if by_layer else "")
            if key not in found:
                found[key] = load(record.id, folder=folder).result
    return [found[key] for key in sorted(found)]


def short(value: Any) -> Any:
    """The same without long lists, with numbers as short as they are good for, and files without their folders."""
    if isinstance(value, Mapping):
        return {key: short(item) for key, item in value.items() if not (isinstance(item, list) and len(item) > LONGEST)}
    if isinstance(value, list):
        return [short(item) for item in value]
    if isinstance(value, str) and value.startswith("/"):
        return Path(value).name
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def by_experiment(results: Sequence[Result]) -> Results:
    """The results of one layer."""
    return {each["experiment"]: each for each in results}


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["measure", "keep"])
    parser.add_argument("names", nargs="+", metavar="NAME", choices=MODELS, help=", ".join(MODELS))
    parser.add_argument("--gguf", default="", metavar="FILE", help="of Gemma 3 270M")
    parser.add_argument("--corpus", default="", metavar="FILE", help="that its SAEs learn from")
    given = parser.parse_args()
    for name in given.names:
        if given.step == "measure":
            measure(name, {"gguf": given.gguf, "corpus": given.corpus})
        else:
            keep(name)


if __name__ == "__main__":
    main()
