"""One process: a sweep over so many tokens of the demo; prints the peak memory of the sweep alone.

python -m benchmarks.memory_worker --tokens 500000
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace

import numpy as np

from benchmarks.sweep_worker import EXPERIMENTS, _finish, _forget_peak, _peak_mib
from inspector.engine.plan import make_plan
from inspector.runner import run
from inspector.sources.contexts import contexts_from
from inspector.sources.target import Loaded, open_target
from inspector.spec import RunSpec, TargetSpec
from inspector.statistics.grouping import groups_of

CONTEXTS = 100
WIDTHS = (256,)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, required=True)
    asked = parser.parse_args()
    loaded = lengthened(_finish(open_target(TargetSpec(contexts=CONTEXTS, widths=WIDTHS))), asked.tokens)
    spec = RunSpec(target=loaded.target, experiments=EXPERIMENTS)
    _forget_peak()
    loaded_mib = _peak_mib()
    began = time.perf_counter()
    _finish(run(spec, loaded))
    measured = {
        "n_tokens": loaded.contexts.token_ids.numel(),
        "n_contexts": len(loaded.contexts.token_ids),
        "n_groups": len(groups_of(loaded.plan.test).first),
        "seconds": time.perf_counter() - began,
        "loaded_mib": loaded_mib,
        "peak_mib": _peak_mib(),
    }
    print(json.dumps(measured))


def lengthened(loaded: Loaded, n_tokens: int) -> Loaded:
    """The target on at least so many tokens: its contexts again and again, in seeded order."""
    token_ids = loaded.contexts.token_ids
    n_contexts = -(-n_tokens // token_ids.shape[1])
    order = np.random.default_rng(0).integers(len(token_ids), size=n_contexts)
    rows = [token_ids[int(place)].tolist() for place in order]
    contexts = contexts_from(rows, [loaded.contexts.names[int(place)] for place in order])
    target = loaded.target
    assert target.positions is not None, "open_target decides positions"
    plan = make_plan(
        contexts.token_ids,
        loaded.model.special_ids,
        target.positions,
        target.train_tokens,
        target.split,
        target.seed,
    )
    return replace(loaded, contexts=contexts, plan=plan)


if __name__ == "__main__":
    main()
