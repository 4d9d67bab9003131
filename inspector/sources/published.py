"""Published SAEs of a model as references: what the registry says, what can be computed from it, what is on disk."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

from inspector.errors import TargetError
from inspector.events import Event
from inspector.sources import hub
from inspector.sources.layouts import FILES
from inspector.sources.model_names import WIDTHS
from inspector.sources.registry import Registry, RegistryEntry
from inspector.spec import SaeFormat, SaeRef, TargetSpec

DEFAULT_L0 = 60.0
"""Of a published suite, as in the paper: all of a layer may be hundreds of gigabytes."""
_BYTES: dict[SaeFormat, int] = {"gemma-scope": 4, "gemma-scope-2": 4, "llama-scope": 2, "dictionary-learning": 4}
"""Per stored number, where the layout always has it so."""


def published_refs(registry: Registry, model: str, target: TargetSpec) -> list[SaeRef]:
    """References of the SAEs that a target could mean: its release's, or those of the model's suite at the site.

    Args:
        registry: see `registry`.
        model: Hugging Face id.
        target: `suite` may name a release; `hook` widens the search to every release of the model.

    Raises:
        TargetError: an unknown release, or none for the model.
    """
    if target.suite is not None:
        releases = [target.suite]
    elif target.hook is not None or target.saes:
        releases = [name for name in registry.releases(model) if not name.endswith("-canonical")]
    else:
        releases = registry.default_releases(model, target.site)
    refs: dict[tuple[str, str], SaeRef] = {}
    for release in releases:
        for entry in registry.entries(release):
            if entry.format is not None and entry.hook_name is not None:
                refs.setdefault((entry.repo, entry.file), ref_of(entry, target.cache_dir))
    if not refs:
        others = ", ".join(registry.releases(model)[:3]) or "none"
        raise TargetError(
            f"The registry has no SAEs of {model} at site {target.site!r} that can be loaded (releases: {others}). "
            "Choose another --site or --suite RELEASE, or give --suite DIR."
        )
    return _unique(list(refs.values()))


def ref_of(entry: RegistryEntry, cache_dir: str | None) -> SaeRef:
    """One SAE; sizes that only its configuration says are 0 until it is on disk."""
    assert entry.format is not None and entry.hook_name is not None
    wide = entry.hook_name.endswith("hook_z")
    d_in = WIDTHS.get(entry.model, (0, 0))[wide]
    d_sae = entry.d_sae or 0
    ref = SaeRef(
        sae_id=entry.sae_id,
        release=entry.release,
        layer=entry.layer,
        hook_name=entry.hook_name,
        d_in=d_in,
        d_sae=d_sae,
        nominal_l0=entry.nominal_l0,
        n_bytes=_BYTES.get(entry.format, 0) * (2 * d_in * d_sae + 2 * d_sae + d_in) * bool(d_in and d_sae),
        on_disk=False,
        format=entry.format,
        repo=entry.repo,
        file=entry.file,
        model=entry.model,
        neuronpedia=entry.neuronpedia,
        norm_factor=entry.norm_factor,
    )
    paths = [hub.cached(entry.repo, file, cache_dir=cache_dir) for file in files_of(ref)]
    if any(path is None for path in paths):
        return ref
    weights = paths[-1]
    assert weights is not None
    return replace(ref, on_disk=True, path=str(_folder(weights, ref)), n_bytes=weights.stat().st_size)


def files_of(ref: SaeRef) -> list[str]:
    """Paths in its repository."""
    return [f"{ref.file}/{name}" for name in FILES[ref.format]]


def localised(ref: SaeRef) -> SaeRef:
    """A reference on disk with its sizes as its own files say, under its published name.

    Raises:
        TargetError: the files are not what the registry says.
    """
    from inspector.sources.suites import read_folder

    folder = Path(ref.path or "")
    found = read_folder(folder, folder, ref.format)
    # d_in is held against the model's own when both are known.
    if ref.d_sae and ref.d_sae != found.d_sae:
        raise TargetError(
            f"SAE {ref.sae_id!r} should have {ref.d_sae:,} latents but its files have {found.d_sae:,}. Fetch it again."
        )
    return replace(ref, d_in=found.d_in, d_sae=found.d_sae, nominal_l0=ref.nominal_l0 or found.nominal_l0)


def fetched(refs: Sequence[SaeRef], target: TargetSpec) -> Generator[Event, None, tuple[SaeRef, ...]]:
    """The same SAEs, on disk, with their sizes.

    Raises:
        TargetError: one cannot be had, or is not what the registry says.
    """
    done = []
    for ref in refs:
        if ref.repo is None:
            done.append(ref)
            continue
        paths = yield from hub.fetch(
            ref.repo, files_of(ref), cache_dir=target.cache_dir, offline=target.offline, what=f"SAE {ref.sae_id}"
        )
        weights = paths[files_of(ref)[-1]]
        local = replace(ref, path=str(_folder(weights, ref)), on_disk=True, n_bytes=weights.stat().st_size)
        done.append(localised(local))
    return tuple(done)


def _folder(weights: Path, ref: SaeRef) -> Path:
    """The SAE's folder, from the path of its last file."""
    return Path(str(weights)[: -len(FILES[ref.format][-1]) - 1])


def _unique(refs: list[SaeRef]) -> list[SaeRef]:
    """Ids made unique across releases: an id is what a user types after --sae."""
    seen: dict[str, int] = {}
    for ref in refs:
        seen[ref.sae_id] = seen.get(ref.sae_id, 0) + 1
    return [replace(ref, sae_id=f"{ref.release}/{ref.sae_id}") if seen[ref.sae_id] > 1 else ref for ref in refs]
