"""Loading a session's target, told step by step, and how it introduces itself to a view. No torch before it begins."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from inspector.errors import panics_are_errors
from inspector.events import Downloading, GateLine, Loading, MemoryPlanned, Warned
from inspector.session.protocol import LoadProgress, Ready
from inspector.spec import target_words

if TYPE_CHECKING:
    from inspector.sources.gate import GateReport
    from inspector.sources.model import LanguageModel
    from inspector.sources.target import Loaded
    from inspector.spec import TargetSpec


def first_layer(target: TargetSpec) -> TargetSpec:
    """A session looks at one hook: of several layers, the first. Special tokens are for each view to choose."""
    target = replace(target, include_special=False)
    from inspector.sources.suites import layer_by_layer

    return layer_by_layer(target)[0]


def load(
    target: TargetSpec,
    *,
    tell: Callable[[LoadProgress], None],
    between: Callable[[], None],
    model: LanguageModel | None = None,
) -> tuple[Loaded, list[str]]:
    """The target and the warnings about it.

    Args:
        target: of one hook, see `first_layer`.
        tell: told how far it is.
        between: called after each step but the last; what it raises ends the loading.
        model: the target's, if it is loaded already.

    Raises:
        InspectorError: the target cannot be loaded.
    """
    # No torch before this: a name that does not exist is answered in a blink and not after ten seconds.
    from inspector.sources.target import open_target

    warnings: list[str] = []
    loading = open_target(target, session=True, model=model)
    began = time.monotonic()
    while True:
        try:
            with panics_are_errors():
                event = next(loading)
        except StopIteration as done:
            loaded: Loaded = done.value
            return loaded, warnings
        match event:
            case Loading():
                tell(LoadProgress(**asdict(event)))
            case Downloading():
                began = began if event.file else time.monotonic()
                took = time.monotonic() - began if event.file and event.done_bytes == event.total_bytes else None
                tell(download_progress(event, took))
            case MemoryPlanned():
                amount = f"{event.needed / 1e9:.1f} of {event.budget / 1e9:.1f} GB on {event.device}"
                tell(LoadProgress(what="memory", detail=amount, seconds=0.0))
                if event.slices:
                    tell(LoadProgress(what="slices", detail=event.slices, seconds=0.0))
            case Warned():
                warnings.append(event.message)
        between()


def download_progress(event: Downloading, seconds: float | None) -> LoadProgress:
    """A download as a view gets it: the bytes for its bar, the words for its log; `seconds` once it is complete."""
    return LoadProgress(
        what=f"downloading {event.what}",
        detail=event.amount,
        seconds=seconds,
        done_bytes=event.done_bytes,
        total_bytes=event.total_bytes,
        bytes_per_second=event.bytes_per_second,
    )


def ready_message(loaded: Loaded, warnings: list[str], asked: TargetSpec) -> Ready:
    """What is loaded, as a view gets it; `asked`: as it was asked for."""
    target, contexts = loaded.target, loaded.contexts
    n_contexts, length = contexts.token_ids.shape
    start, stop = target.positions or (0, None)
    return Ready(
        model=loaded.model.name,
        quantised=loaded.model.quantised,
        hook_name=loaded.hook_name,
        layer=loaded.layer,
        device=str(loaded.model.device),
        n_contexts=n_contexts,
        context_length=length,
        positions=(start, length if stop is None else min(stop, length)),
        saes=[replace(sae.ref, path=None) for sae in loaded.saes],  # where it lies is not a view's business
        text=target.text or "",
        in_slices=any(sae.comes_in_slices for sae in loaded.saes),
        median_norm=None if loaded.outliers is None else loaded.outliers.median_norm,
        warnings=list(dict.fromkeys([*loaded.warnings, *warnings, *too_few_tokens(loaded)])),
        gate_failures=gate_lines(loaded.gate),
        target=target_words(asked),
    )


def gate_lines(gate: GateReport | None) -> list[GateLine]:
    """The checks that failed, as a view shows them above everything else; none if the gate passed."""
    if gate is None:
        return []
    return [
        GateLine(
            name=check.name,
            sae_id=check.sae,
            measured=f"{check.measured:.3g}" if isinstance(check.measured, float) else str(check.measured),
            expected=check.expected,
            why=check.why,
        )
        for check in gate.failures
    ]


def too_few_tokens(loaded: Loaded) -> list[str]:
    """What `dm-inspect run` refuses to compute, a view shows with a warning: errors can be looked at all the same."""
    from inspector.statistics.pipeline import TOKENS_PER_DIMENSION

    d, n_train = loaded.model.check_hook(loaded.hook_name), loaded.plan.n_train
    if n_train >= TOKENS_PER_DIMENSION * d:
        return []
    return [
        f"{n_train:,} training tokens are too few to split errors of {d:,} dimensions: linear parts look too large. "
        f"At least {TOKENS_PER_DIMENSION * d:,} are needed; use more --contexts or a longer --text."
    ]
