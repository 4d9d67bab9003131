"""From TARGET as typed to everything loaded: one door for commands, session and tests.

Whatever can be refused without the heavy imports is refused before them: a wrong name is then answered in a blink and
not after ten seconds. So nothing here imports torch at module level.
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from inspector.errors import TargetError, UsageError
from inspector.events import Event, Loading, MemoryPlanned
from inspector.formats.hooks import hook_on, lacks
from inspector.sources import quiet_libraries, suites
from inspector.sources.built_in import DEMO, built_in, weights_of
from inspector.sources.contexts import check_length, default_context_length, default_positions
from inspector.sources.dequantising import provide
from inspector.sources.hub import fetch_model
from inspector.sources.memory_sizes import refuse_float16_gemma, require_plausible
from inspector.sources.model_files import ModelFiles, find_model, require_same
from inspector.sources.model_shapes import expected_model
from inspector.sources.published import DEFAULT_L0, fetched
from inspector.sources.readers import check_text
from inspector.spec import DEFAULT_TEXT, LlamaGate, SaeRef, TargetSpec

if TYPE_CHECKING:
    from inspector.engine.plan import Outliers, Plan
    from inspector.sources.contexts import Contexts
    from inspector.sources.gate import GateReport
    from inspector.sources.memory_plan import MemoryPlan
    from inspector.sources.memory_sizes import Planned
    from inspector.sources.model import LanguageModel
    from inspector.sources.precision import Effect
    from inspector.sources.sae import LoadedSae


_OF_D_MODEL = re.compile(r"\.hook_(resid_pre|resid_mid|resid_post|mlp_out|attn_out)$")
"""Hooks whose width is the residual stream's, in every architecture."""
COMPARED = (2, 256)
"""Contexts, and tokens of them that count, on which bfloat16 is compared with float32."""
HASH_STEP_SECONDS = 0.1
HASH_QUIET_SECONDS = 0.5
"""Before the first word: small weights are hashed in a blink, which is no news."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A target, ready to be computed on."""

    target: TargetSpec
    """As asked, with every default decided: layers (unless the hook has none), text, context_length, positions."""
    model: LanguageModel
    hook_name: str
    layer: int | None
    saes: tuple[LoadedSae, ...]
    """At least one, sorted by d_sae, then nominal L0."""
    contexts: Contexts
    plan: Plan
    warnings: tuple[str, ...]
    """What the user should know that is not an error, in the order it was found."""
    gate: GateReport | None = None
    """What the load gate found."""
    memory: MemoryPlan | None = None
    """What was planned to be on the device."""
    effect: Effect | None = None
    """What bfloat16 changes, where nobody asked for it; None: the dtype was asked for, or is float32."""
    outliers: Outliers | None = None
    """Which tokens count as outliers; None: none does."""

    def at_once(self, batch_size: int) -> int:
        """So many contexts in a batch, or fewer if memory says so."""
        return batch_size if self.memory is None else min(batch_size, self.memory.contexts_at_once)


@dataclass(frozen=True, kw_only=True)
class ResolvedTarget:
    """What a target means, known from names and small files alone."""

    target: TargetSpec
    """With layers and text decided."""
    files: ModelFiles
    hook_name: str
    layer: int | None
    refs: tuple[SaeRef, ...]
    notes: tuple[str, ...] = ()
    """What was decided that the user may not expect."""


def resolve(target: TargetSpec, *, unseen: bool = False) -> ResolvedTarget:
    """Find the target's files and decide its layer, hook and SAEs, without importing torch.

    Args:
        target: as asked for.
        unseen: the model need not be here, if its published sizes are known.

    Raises:
        TargetError: when model, layer, hook or SAEs do not exist; the nearest names are given.
        UsageError: when values contradict each other or are out of range.
        DataError: when the text's file cannot be used.
    """
    _check_values(target)
    published = suites.registry_model(target)
    target = replace(target, model=suites.model_id(target) or target.model)
    known = suites.known_saes(target)
    files = (expected_model if unseen else find_model)(target.model, target.cache_dir)
    model_type = str(files.config["model_type"])
    known = [_on(ref, model_type) for ref in known]
    hook_name, layer = suites.resolve_hook(known, target, files.n_layers)
    if layer is not None and files.n_layers is not None and layer >= files.n_layers:
        raise TargetError(
            f"{hook_name} is at layer {layer}, but model {target.model!r} has layers 0 to {files.n_layers - 1}. "
            "Choose a layer the model has, or the SAE's own model."
        )
    decided = replace(_with_its_own(target), layers=None if layer is None else (layer,))
    notes: tuple[str, ...] = ()
    if published is not None and target.suite is None and target.l0 is None and not target.saes:
        decided = replace(decided, l0=DEFAULT_L0)
        notes = (
            f"Of the published SAEs the one nearest to L0 {DEFAULT_L0:g} is taken per width; choose with --l0, or name "
            "the release with --suite for all of them.",
        )
    # By hook, because the site alone would lose a hook that --sae or --hook named.
    refs = suites.select(known, replace(decided, hook=hook_name))
    for ref in refs:
        if ref.module is not None and (missing := lacks(ref.module, model_type)):
            raise TargetError(
                f"SAE {ref.sae_id!r} reads the output of {missing}, which {target.model!r} ({model_type}) does not "
                "have. Name the model it was trained on."
            )
        # The registry's d_in is that of the published model; the file's own is checked when it is read.
        is_known = ref.repo is None and files.d_model is not None
        if is_known and _OF_D_MODEL.search(hook_name) and ref.d_in != files.d_model:
            raise suites.mismatch(ref, files.d_model or 0)
    _check_text(decided, files)
    if files.expected is None:
        require_plausible(files)
    if (
        target.dtype == "auto" and target.model != DEMO and files.expected is None
    ):  # the demo was trained here; its numbers fit into float16
        refuse_float16_gemma(files)
    return ResolvedTarget(target=decided, files=files, hook_name=hook_name, layer=layer, refs=tuple(refs), notes=notes)


def _with_its_own(target: TargetSpec) -> TargetSpec:
    """The target with a text; of a built-in model its own, in contexts that suit both it and its SAEs."""
    known = built_in(target.model)
    length = None if known is None or target.suite is not None or target.saes else known.context_length
    text = DEFAULT_TEXT if known is None else known.text
    return replace(target, text=target.text or text, context_length=target.context_length or length)


def _on(ref: SaeRef, model_type: str) -> SaeRef:
    """The reference of an SAE on a module's output, at the hook that holds it in this kind of model."""
    if ref.module is None or ref.repo is not None:
        return ref
    hook_name = hook_on(ref.module, ref.hook_name, model_type)
    return ref if hook_name == ref.hook_name else replace(ref, hook_name=hook_name)


def open_target(
    target: TargetSpec, *, session: bool = False, model: LanguageModel | None = None
) -> Generator[Event, None, Loaded]:
    """Load everything the target names, telling what is being loaded.

    Args:
        target: as asked for.
        session: whether texts will be looked at and kept; the memory plan counts them then.
        model: the target's, if it is loaded already; see `serves`.

    Raises:
        InspectorError: of the kind and exit code that fits; see `resolve`, `load_model`, `load_sae`, `load_contexts`.
    """
    yield from _provide_model(target)
    resolved = resolve(target)
    refs = yield from fetched(resolved.refs, target)
    quiet_libraries(offline=target.offline)
    yield from _importing("torch", "torch")
    yield from _importing("transformers and transformer-lens", "transformer_lens.model_bridge")

    from inspector.engine.plan import make_plan, outliers_of, with_everything
    from inspector.sources.contexts import load_contexts
    from inspector.sources.loading import load_model
    from inspector.sources.precision import effect_of

    plan_of_memory = _planned(resolved, refs, session=session, held=model)
    memory = plan_of_memory.memory
    yield MemoryPlanned(
        rows=memory.rows, needed=memory.needed, budget=memory.budget, device=memory.device, slices=memory.slices
    )
    started = time.perf_counter()
    yield Loading(what="model", detail=target.model)
    decided = replace(resolved.target, dtype=plan_of_memory.dtype) if plan_of_memory.why else resolved.target
    model = model or load_model(decided)
    d_in = model.check_hook(resolved.hook_name)
    yield Loading(what="model", detail=target.model, seconds=time.perf_counter() - started)

    started = time.perf_counter()
    yield Loading(what="text", detail=resolved.target.text or "")
    contexts = load_contexts(resolved.target, model)
    length = contexts.token_ids.shape[1]
    positions = default_positions(length) if target.positions is None else target.positions
    decided = replace(decided, context_length=length, positions=positions)
    plan = make_plan(
        contexts.token_ids,
        model.special_ids,
        positions,
        decided.train_tokens,
        decided.split,
        decided.seed,
        contexts.documents,
    )
    yield Loading(
        what="text",
        detail=f"{len(contexts.names):,} contexts of {length:,} tokens{_of_field(contexts)}",
        seconds=time.perf_counter() - started,
    )

    yield from _importing("sae-lens", "sae_lens")
    saes = yield from _load_saes(refs, model, d_in, target.llama_gate, memory)
    from inspector.sources.gate import check_gate

    gate = yield from check_gate(
        model, contexts, plan, resolved.hook_name, resolved.layer, saes, accepted=target.accept_gate
    )
    if not gate.passed and not target.accept_gate:
        raise TargetError(
            f"The load gate failed on {gate.n_tokens:,} tokens: {gate.sentences()}. "
            "Check model, hook and SAEs; --accept-gate shows numbers all the same, marked in every result."
        )
    effect = None
    if plan_of_memory.why:
        first = contexts.token_ids[: COMPARED[0]]
        rows = plan.included[: COMPARED[0]].flatten().nonzero()[: COMPARED[1], 0].to(model.device)
        effect = effect_of(
            model.activations(first, resolved.hook_name).flatten(0, 1)[rows],
            lambda: model.in_float32(first, resolved.hook_name).flatten(0, 1)[rows],
            saes,
            plan_of_memory.why,
        )
    counted: tuple[str, ...] = ()
    if target.include_special:  # after the gate, which asks about the tokens that an SAE is meant for
        usual, plan = plan, with_everything(plan, decided.split, decided.seed)
        n_added = plan.n_train + plan.n_test - usual.n_train - usual.n_test
        counted = (
            f"Special tokens and every position are counted (--include-special): {n_added:,} tokens more than the "
            f"usual {usual.n_train + usual.n_test:,}.",
        )
    warnings = (
        *([] if gate.passed else [f"The load gate failed and was accepted: {gate.sentences()}."]),
        *resolved.notes,
        *([] if effect is None else [effect.note]),
        *memory.notes,
        *model.warnings,
        *suites.l0_notes(refs, resolved.target.l0),
        *(note for sae in saes for note in sae.notes),
        *_beyond_training(saes, length, decided.include_special),
        *contexts.notes,
        *plan.notes,
        *counted,
    )
    return Loaded(
        target=decided,
        model=model,
        hook_name=resolved.hook_name,
        layer=resolved.layer,
        saes=saes,
        contexts=contexts,
        plan=plan,
        warnings=warnings,
        gate=gate,
        memory=memory,
        effect=effect,
        outliers=outliers_of(target.outliers, gate.median_norm),
    )


def require_unchanged(loaded: Loaded) -> None:
    """Raise if a file of the target's model or of one of its SAEs is not the one that was loaded.

    Raises:
        TargetError: with its name.
    """
    for each in (loaded.model, *loaded.saes):
        require_same(getattr(each, "files", ()))  # what is made in memory has none


def hashed(loaded: Loaded) -> Generator[Event, None, None]:
    """Hash the model and every SAE that was not hashed yet, in a thread, with an event per step: 30 GB take a minute.

    Raises:
        TargetError: files changed since they were loaded.
    """
    parts = [loaded.model, *loaded.saes]
    with ThreadPoolExecutor(1, thread_name_prefix="hash") as pool:
        for number, part in enumerate(parts):
            future = pool.submit(getattr, part, "weights_hash")
            patience = HASH_QUIET_SECONDS
            while not future.done():
                wait([future], timeout=patience)
                patience = HASH_STEP_SECONDS
                if not future.done():
                    yield Loading(what="checksums of the weights", done=number, total=len(parts))
            future.result()


def _beyond_training(saes: Sequence[LoadedSae], length: int, include_special: bool) -> list[str]:
    """A note for each way in which the tokens are others than the SAEs were trained on."""
    notes = []
    sizes = sorted({sae.context_size for sae in saes if sae.context_size is not None and sae.context_size < length})
    if sizes:
        n = sum(sae.context_size in sizes for sae in saes)
        notes.append(
            f"{n} of {len(saes)} SAEs were trained on contexts of {', '.join(f'{size:,}' for size in sizes)} tokens "
            f"and these have {length:,}: later positions are none that they saw. --context-length {sizes[0]} keeps to "
            "theirs."
        )
    if include_special and (n := sum(sae.never_saw_special for sae in saes)):
        notes.append(
            f"{n} of {len(saes)} SAEs were trained without special tokens (exclude_special_tokens), which are counted "
            "here: their errors there say nothing about them. Leave out --include-special to measure what they saw."
        )
    return notes


def _provide_model(target: TargetSpec) -> Generator[Event, None, None]:
    """Fetch a published model that is not in the cache, or dequantise a GGUF. Whatever else is wrong with the target
    is said first.
    """
    _check_values(target)
    model = suites.model_id(target)
    if model is None and weights_of(target.model) is None:
        return
    known = suites.known_saes(replace(target, model=model or target.model))
    hook_name, _ = suites.resolve_hook(known, target)
    suites.select(known, replace(target, hook=hook_name))
    if model is None:
        yield from provide(target.model)
    else:
        yield from fetch_model(model, cache_dir=target.cache_dir, offline=target.offline)


def serves(model: LanguageModel, one: TargetSpec, other: TargetSpec) -> bool:
    """Whether a model that was loaded for the one target is what the other would load; the rest of both may differ.

    One that is in bfloat16 though nothing was asked for is not: beside other SAEs float32 may fit.
    """
    names = [suites.model_id(target) or target.model for target in (one, other)]
    kept = [(target.device, target.dtype, target.cache_dir) for target in (one, other)]
    as_asked = one.dtype != "auto" or model.dtype.itemsize == 4
    return names[0] == names[1] and kept[0] == kept[1] and as_asked


def _planned(resolved: ResolvedTarget, refs: Sequence[SaeRef], *, session: bool, held: LanguageModel | None) -> Planned:
    """As `planned`, for the device that there is."""
    from inspector.sources.loading import pick_device
    from inspector.sources.memory_sizes import budget_of, planned

    target = resolved.target
    device = pick_device(target.device)
    # A model that is there already is counted among what is needed, and so it is among what may be used.
    budget = budget_of(device, target.max_memory, held.n_bytes if held is not None else 0)
    return planned(resolved.files, refs, target, device=str(device), budget=budget, session=session)


def _load_saes(
    refs: tuple[SaeRef, ...], model: LanguageModel, d_in: int, llama_gate: LlamaGate, memory: MemoryPlan
) -> Generator[Event, None, tuple[LoadedSae, ...]]:
    from inspector.sources.sae_loading import load_sae
    from inspector.sources.slices import Slices

    slices = Slices(model.device, memory.slice_bytes, spare=memory.budget - memory.needed)
    loaded: list[LoadedSae] = []
    for i, ref in enumerate(refs):
        started = time.perf_counter()
        yield Loading(what=f"SAE {i + 1}/{len(refs)}", detail=ref.sae_id, done=i, total=len(refs))
        sae = load_sae(
            ref,
            model.device,
            d_in,
            llama_gate=llama_gate,
            slices=slices if ref.sae_id in memory.sliced else None,
            hold=ref.sae_id in memory.sliced_from_host,
        )
        if sae.is_centred and not model.has_layer_norm:
            raise TargetError(
                f"SAE {ref.sae_id!r} was trained with center_writing_weights, but {model.name} has no LayerNorm, so "
                "centring would change what it computes. Name the model that the SAE is of."
            )
        if memory.chunk_tokens is not None:
            sae.chunk_tokens = min(sae.chunk_tokens, memory.chunk_tokens)
        loaded.append(sae)
        seconds = time.perf_counter() - started
        yield Loading(what=f"SAE {i + 1}/{len(refs)}", detail=ref.sae_id, seconds=seconds, done=i + 1, total=len(refs))
    return tuple(loaded)


def _importing(name: str, module: str) -> Generator[Event, None, None]:
    """Import a module between two events; most of a cold start is this, so the screen says so."""
    import importlib
    import warnings

    started = time.perf_counter()
    yield Loading(what=f"importing {name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries deprecating each other, nothing a user could act on
        importlib.import_module(module)
    yield Loading(what=f"importing {name}", seconds=time.perf_counter() - started)


def _of_field(contexts: Contexts) -> str:
    return "" if contexts.field is None else f", from field {contexts.field!r}"


def _check_values(target: TargetSpec) -> None:
    if target.positions is not None:
        start, end = target.positions
        if start < 0 or (end is not None and end <= start):
            shown = f"{start}:{'' if end is None else end}"
            raise UsageError(f"--positions {shown} holds no position. Use START:END with START below END.")
    if target.seed < 0:
        raise UsageError(f"--seed {target.seed} is negative. Use 0 or more.")
    if target.train_tokens is not None and target.train_tokens < 1:
        raise UsageError(f"--train-tokens {target.train_tokens} leaves nothing to fit. Use 1 or more.")
    if target.l0 is not None and not 0 < target.l0 < float("inf"):
        raise UsageError(f"--l0 {target.l0:g} is not a number of active latents. Use a number above 0.")


def _check_text(target: TargetSpec, files: ModelFiles) -> None:
    """Refuse impossible lengths and unusable files before anything is loaded."""
    n_ctx = files.n_ctx
    length = target.context_length
    if length is None and n_ctx is not None:
        length = default_context_length(n_ctx)
    check_length(3 if length is None else length, target.contexts, n_ctx)
    start = target.positions[0] if target.positions is not None else 0
    if length is not None and start >= length - 1:
        raise UsageError(
            f"--positions {start}: begins after the last token of a context of {length:,}. Use an earlier START."
        )
    check_text(target.text or DEMO, target.text_field)
