"""Published SAEs of a model as references: what the registry says, what can be computed from it, what is on disk."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from inspector.errors import TargetError
from inspector.events import Event
from inspector.formats import Folder, layout_of, read_facts
from inspector.sources import hub
from inspector.sources.model_shapes import width_at
from inspector.sources.registry import Registry, RegistryEntry
from inspector.spec import SaeRef, TargetSpec

DEFAULT_L0 = 60.0
"""Of a published suite, as in the paper: all of a layer may be hundreds of gigabytes."""


@dataclass(frozen=True, kw_only=True)
class RefusedSae:
    """An SAE that is there and cannot be measured."""

    sae_id: str
    release: str
    reason: str


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
        releases = registry.default_releases(model, target.site, target.layers)
        releases = releases or registry.default_releases(model, target.site)
    refs: dict[tuple[str, str], SaeRef] = {}
    for release in releases:
        for entry in registry.entries(release):
            if entry.refused is None:
                refs.setdefault((entry.repo, entry.file), ref_of(entry, target.cache_dir))
    if not refs:
        why = next((entry.refused for name in releases for entry in registry.entries(name)), None)
        if target.suite is not None and why is not None:
            raise TargetError(
                f"Release {target.suite!r} has nothing that can be measured: each is {why}. Choose another."
            )
        others = ", ".join(registry.releases(model)[:3]) or "none"
        raise TargetError(
            f"The registry has no SAEs of {model} at site {target.site!r} that can be loaded (releases: {others}). "
            "Choose another --site or --suite RELEASE, or give --suite DIR."
        )
    return _unique(list(refs.values()))


def published_refused(registry: Registry, model: str, target: TargetSpec) -> list[RefusedSae]:
    """What the registry lists for the model, or in the target's release, and is refused."""
    releases = [target.suite] if target.suite is not None else registry.releases(model)
    return [
        RefusedSae(sae_id=entry.sae_id, release=release, reason=entry.refused)
        for release in releases
        for entry in registry.entries(release)
        if entry.refused is not None and (target.layers is None or entry.layer is None or entry.layer in target.layers)
    ]


def ref_of(entry: RegistryEntry, cache_dir: str | None) -> SaeRef:
    """One SAE; sizes that only its configuration says are 0 until it is on disk."""
    assert entry.refused is None and entry.hook_name is not None
    d_in = entry.d_in or width_at(entry.model, entry.hook_name)
    d_sae = entry.d_sae or 0
    layout = layout_of(entry.format)
    ref = SaeRef(
        sae_id=entry.sae_id,
        release=entry.release,
        layer=entry.layer,
        hook_name=entry.hook_name,
        d_in=d_in,
        d_sae=d_sae,
        nominal_l0=entry.nominal_l0,
        n_bytes=layout.stored_bytes * (2 * d_in * d_sae + 2 * d_sae + d_in) * bool(d_in and d_sae),
        on_disk=False,
        format=entry.format,
        repo=entry.repo,
        file=entry.file,
        model=entry.model,
        neuronpedia=entry.neuronpedia,
        norm_factor=entry.norm_factor,
        overrides=entry.overrides,
    )
    optional = layout.may_lack(entry.file)
    paths = [hub.cached(entry.repo, file, cache_dir=cache_dir) for file in files_of(ref) if file not in optional]
    if any(path is None for path in paths):
        return ref
    weights = paths[-1]
    assert weights is not None
    return replace(ref, on_disk=True, path=str(_folder(weights, ref)), n_bytes=weights.stat().st_size)


def files_of(ref: SaeRef) -> list[str]:
    """Paths in its repository."""
    return list(layout_of(ref.format).paths(ref.file or ""))


def localised(ref: SaeRef) -> SaeRef:
    """A reference on disk with its sizes as its own files say, under its published name.

    Raises:
        TargetError: the files are not what the registry says.
    """
    layout = layout_of(ref.format)
    if layout.facts is None:
        return ref
    path = Path(ref.path or "")
    folder = (
        Folder(path=path.parent, root=path.parent, stem=path.name) if layout.is_file else Folder(path=path, root=path)
    )
    found = read_facts(layout, folder)
    # d_in is held against the model's own when both are known.
    if ref.d_sae and ref.d_sae != found.d_sae:
        raise TargetError(
            f"SAE {ref.sae_id!r} should have {ref.d_sae:,} latents but its files have {found.d_sae:,}. Fetch it again."
        )
    if found.hook_name not in (None, ref.hook_name) and "hook_name" not in ref.overrides:
        raise TargetError(
            f"SAE {ref.sae_id!r} is listed at {ref.hook_name}, but its files say {found.hook_name}. "
            "The registry and the files are not of the same SAE."
        )
    return replace(
        ref,
        d_in=found.d_in,
        d_sae=found.d_sae,
        nominal_l0=ref.nominal_l0 or found.l0,
        notes=tuple(dict.fromkeys((*ref.notes, *found.notes))),
    )


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
        paths = yield from fetch_files(ref, target)
        weights = paths[files_of(ref)[-1]]
        local = replace(ref, path=str(_folder(weights, ref)), on_disk=True, n_bytes=weights.stat().st_size)
        done.append(localised(local))
    return tuple(done)


def fetch_files(ref: SaeRef, target: TargetSpec) -> Generator[Event, None, dict[str, Path]]:
    """The files of a published SAE by their names in its repository; see `hub.fetch`."""
    assert ref.repo is not None
    return hub.fetch(
        ref.repo,
        files_of(ref),
        cache_dir=target.cache_dir,
        offline=target.offline,
        what=f"SAE {ref.sae_id}",
        optional=layout_of(ref.format).may_lack(ref.file or ""),
    )


def _folder(weights: Path, ref: SaeRef) -> Path:
    """The SAE's folder, from the path of its last file; that file itself where it is the whole SAE."""
    layout = layout_of(ref.format)
    return weights if layout.is_file else Path(str(weights)[: -len(layout.files[-1]) - 1])


def _unique(refs: list[SaeRef]) -> list[SaeRef]:
    """Ids made unique across releases: an id is what a user types after --sae."""
    seen: dict[str, int] = {}
    for ref in refs:
        seen[ref.sae_id] = seen.get(ref.sae_id, 0) + 1
    return [replace(ref, sae_id=f"{ref.release}/{ref.sae_id}") if seen[ref.sae_id] > 1 else ref for ref in refs]
