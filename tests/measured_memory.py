"""A process that opens a target, works on it, and prints what was planned and the peak that was measured, as JSON.

    python -m tests.measured_memory SMALL-TARGET TARGET run|session
    python -m tests.measured_memory SMALL-SAE SAE MAX-MEMORY

The second form loads an SAE alone, in slices, and reconstructs tokens. Targets are JSON objects of TargetSpec's fields.
The peak is the kernel's high-water mark of resident memory on the CPU, less what was resident before: libraries are
imported and have allocated what they allocate once, because the small target goes through the same work first.
"""

from __future__ import annotations

import gc
import json
import sys
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

from inspector.events import Event
from inspector.spec import RunSpec, TargetSpec

N_TOKENS = 128
"""Through an SAE in slices; two chunks of a million latents."""


def resident(key: str) -> int:
    """Bytes: 'VmRSS' now, 'VmHWM' at most since `forget`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(key)


def forget() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def finish(work: Generator[Event, None, Any], peaks: dict[str, int], base: int) -> Any:
    """The work's result; the peak of every stage by its name."""
    stage = "start"
    while True:
        forget()
        try:
            event = next(work)
        except StopIteration as done:
            peaks[stage] = max(peaks.get(stage, 0), resident("VmHWM") - base)
            return done.value
        peaks[stage] = max(peaks.get(stage, 0), resident("VmHWM") - base)
        stage = str(getattr(event, "what", getattr(event, "name", type(event).__name__)))


def work(target: TargetSpec, what: str, base: int) -> tuple[Any, dict[str, int]]:
    """Load and do everything; what was loaded, and the peaks."""
    from inspector import runner
    from inspector.session.fitting import Fits
    from inspector.session.protocol import AnalysePrompt, GetContext, GetDetail
    from inspector.session.texts import Texts
    from inspector.sources.target import open_target

    peaks: dict[str, int] = {}
    loaded = finish(open_target(target, session=what == "session"), peaks, base)
    if what == "run":
        spec = RunSpec(target=target, experiments=("error-vector", "norm-prediction"))
        finish(runner.run(spec, loaded), peaks, base)
        return loaded, peaks
    forget()
    browser = Texts(loaded)
    fits = Fits(loaded, browser.fits)
    fits.want("excluded")
    while fits.has_work:
        improved = fits.step({"excluded"})
        if improved is not None:
            browser.fits["excluded"].improve(improved)
    peaks["fit"] = resident("VmHWM") - base
    forget()
    for context in range(len(loaded.contexts.names)):
        browser.context(0, GetContext(context=context))
    browser.prompt(1, AnalysePrompt(text="the token"))
    sae_id = loaded.saes[-1].ref.sae_id
    browser.detail(1, GetDetail(source="context", context=0, position=9, sae_id=sae_id))
    peaks["texts"] = resident("VmHWM") - base
    return loaded, peaks


def sliced(folder: Path, max_memory: int) -> dict[str, Any]:
    """An SAE in slices as the plan has it, on tokens that are always the same; what was planned and what came of it."""
    import torch

    from inspector.sources.memory_plan import plan_memory
    from inspector.sources.memory_sums import Sizes, Way, scratch_of
    from inspector.sources.sae_loading import load_sae
    from inspector.sources.slices import Slices
    from inspector.sources.suites import list_suite

    (ref,) = list_suite(folder)
    sizes = Sizes(
        n_parameters=0, dtype_bytes=4, d_model=ref.d_in, n_heads=1, d_ff=1, vocab_size=1, saes=(ref,), d_in=ref.d_in,
        n_contexts=1, length=N_TOKENS, on_host=True,
    )  # fmt: skip
    plan = plan_memory(sizes, max_memory, device="cpu")
    cpu = torch.device("cpu")
    forget()
    sae = load_sae(ref, cpu, ref.d_in, slices=Slices(cpu, plan.slice_bytes or 1 << 20))
    made = sae.reconstruct(torch.randn(N_TOKENS, ref.d_in, generator=torch.Generator().manual_seed(0)))
    way = Way(contexts=1, sliced=plan.sliced, slice_bytes=plan.slice_bytes)
    x_and_x_hat = 2 * 4 * N_TOKENS * ref.d_in
    return {
        "planned": dict(plan.rows).get("slices of SAEs", 0) + scratch_of(ref, way, N_TOKENS) + x_and_x_hat,
        "peak": resident("VmHWM"),
        "slices": -(-ref.d_sae // getattr(sae, "latents_at_once", ref.d_sae)),
        "l0": made.l0.tolist(),
        "x_hat": made.x_hat.double().tolist(),
    }


def main() -> None:
    """Print one JSON object."""
    warnings.simplefilter("ignore")
    if sys.argv[3].isdigit():
        import sae_lens

        small_sae, large_sae = (Path(text) for text in sys.argv[1:3])
        sliced(small_sae, 1_200_000_000)
        gc.collect()
        base = resident("VmRSS")
        found = sliced(large_sae, int(sys.argv[3]))
        print(json.dumps(found | {"measured": found["peak"] - base}))
        return
    small, target = (
        TargetSpec(**{**json.loads(text), "positions": (0, None)}, device="cpu", accept_gate=True)
        for text in sys.argv[1:3]
    )
    import sae_lens  # noqa: F401
    import torch

    torch.set_num_threads(1)
    work(small, sys.argv[3], 0)
    gc.collect()
    base = resident("VmRSS")
    loaded, peaks = work(target, sys.argv[3], base)
    plan = loaded.memory
    told = {
        "planned": plan.needed,
        "measured": max(peaks.values()),
        "peaks": peaks,
        "rows": plan.rows,
        "sliced": sorted(plan.sliced),
        "chunk": plan.chunk_tokens,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
