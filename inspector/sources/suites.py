"""Which SAEs there are, known from their cfg.json and file sizes alone.

The command line lists thousands of them while the user waits, so nothing here imports torch or numpy and no weight is
read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from inspector.disk.files import is_directory, nearest_siblings, shown
from inspector.errors import InspectorError, TargetError, UsageError, nearest
from inspector.formats import LAYOUTS, Layout, layer_of, read_ref, recognise
from inspector.options import width_label
from inspector.sources.built_in import BUILT_IN, built_in, suite_folder
from inspector.sources.gguf_files import gguf_of
from inspector.sources.published import RefusedSae, published_refs, published_refused
from inspector.sources.registry import load_registry
from inspector.spec import SITE_HOOKS, SaeRef, Site, TargetSpec, hook_name_of, hooks_of

FAR_L0 = 0.2
"""A pick whose nominal L0 is farther than this share from the one asked for is reported."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """Everything that a place holds."""

    refs: list[SaeRef]
    """Ordered by layer, hook, width and L0."""
    refused: list[RefusedSae]
    """Ordered by id."""


def list_suite(directory: Path, *, said_hook: str | None = None) -> list[SaeRef]:
    """Every SAE of a known layout at or below a directory that can be measured; see `survey`.

    Raises:
        TargetError: when the directory is not there, holds no SAE, or none that can be measured; with the reason.
    """
    found = survey(directory, said_hook=said_hook)
    if not found.refs:
        more = f" So are {len(found.refused) - 1} others below it." if len(found.refused) > 1 else ""
        raise TargetError(f"{found.refused[0].reason}{more}")
    return found.refs


def survey(directory: Path, *, said_hook: str | None = None) -> Listed:
    """What is at or below a directory: the SAEs, and what looks like one and is refused, each with its reason.

    A folder that lacks a file is passed over: training and downloads leave such behind when they are interrupted.

    Args:
        directory: of the suite, or of one SAE.
        said_hook: of the one SAE that is there and does not say it itself.

    Raises:
        TargetError: when the directory is not there, or holds nothing of a known layout.
    """
    directory = directory.expanduser()
    if not is_directory(directory):
        raise TargetError(f"There is no SAE directory {shown(directory)}.{nearest_siblings(directory)}")
    folders = _folders(directory)
    if not folders:
        known = "; ".join(f"{layout.name}: {', '.join(layout.files)}" for layout in LAYOUTS if layout.files)
        raise TargetError(f"{directory} holds no SAE of a known layout. Each is a folder with its files, of {known}.")
    refs, refused = [], []
    for folder, layout in folders:
        try:
            refs.append(read_ref(layout, Path(folder), directory, said_hook=said_hook if len(folders) == 1 else None))
        except TargetError as error:
            name = Path(folder).relative_to(directory).as_posix()
            sae_id = directory.name if name == "." else name
            refused.append(RefusedSae(sae_id=sae_id, release=str(directory), reason=str(error)))
    refs.sort(key=lambda ref: (-1 if ref.layer is None else ref.layer, ref.hook_name, *_by_size(ref)))
    return Listed(refs=refs, refused=sorted(refused, key=lambda each: each.sae_id))


def known_saes(target: TargetSpec) -> list[SaeRef]:
    """The suite's SAEs, or those the registry lists for the model, and those given as directories after --sae.

    Raises:
        TargetError: when there is neither, or one of them cannot be read.
    """
    refs: list[SaeRef] = []
    if (model := registry_model(target)) is not None:
        refs += _published(target, model)
    elif target.suite is not None:
        refs += list_suite(Path(target.suite), said_hook=target.hook)
    elif (own := suite_folder(target.model)) is not None:
        refs += list_suite(own)
    ids = {ref.sae_id for ref in refs}
    for given in target.saes:
        if given not in ids and _is_folder(given):
            refs.append(_single(given, target.hook))
    if not refs:
        if target.saes:
            raise TargetError(
                f"{shown(target.saes[0])} is not an SAE directory, and there is no suite to look it up in. "
                "Give --suite DIR as well, or the SAE's own directory."
            )
        raise TargetError(f"No SAEs are known for model {target.model!r}. Give --suite DIR or --sae DIR.")
    return refs


def every_sae(target: TargetSpec) -> list[SaeRef]:
    """Those known for the target's model at every site, whichever layer, hook or width it asks for.

    Raises:
        TargetError: none is known, with what to do.
    """
    wide = replace(target, layers=None, layers_from=None, hook=None, widths=None, l0=None)
    found: dict[tuple[str, str], SaeRef] = {}
    failure: TargetError | None = None
    for site in SITE_HOOKS:
        try:
            for ref in known_saes(replace(wide, site=site)):
                found.setdefault((ref.release, ref.sae_id), ref)
        except TargetError as error:  # the model may have SAEs at another site
            failure = failure or error
    if not found and failure is not None:
        raise failure
    return list(found.values())


def model_names() -> list[str]:
    """Models that have a short name: the built-in ones, then those with published SAEs."""
    return [*BUILT_IN, *(name for name in load_registry().names() if "/" not in name)]


def releases(target: TargetSpec) -> list[str]:
    """Published suites of the target's model; none for a model of the user's own."""
    model = model_id(target)
    return [] if model is None else load_registry().releases(model)


def suite_of(target: TargetSpec, refs: Iterable[SaeRef]) -> list[SaeRef]:
    """Every SAE that the suite of a target, or of these SAEs of its, is known to have at any hook."""
    try:
        found = known_saes(target)
    except InspectorError:
        found = []
    for root in sorted({ref.release for ref in refs if Path(ref.release).is_dir()}):
        found += [ref for ref in list_suite(Path(root)) if ref not in found]
    return found


def registry_model(target: TargetSpec) -> str | None:
    """The Hugging Face id of the target's model, if its SAEs are to be looked up in the registry.

    They are unless the suite is a directory, the model is built in, a directory or a file, or no published SAE is of
    it. With SAEs given as directories alone, the registry is not asked either.
    """
    if target.suite is not None and _is_folder(target.suite):
        return None
    if target.suite is None and target.saes and all(map(_is_folder, target.saes)):
        return None
    if target.model in BUILT_IN or (_is_here(target.model) and target.suite is None):
        return None
    registry = load_registry()
    if target.suite is not None and target.suite in registry.releases():
        return registry.model_id(target.model) or target.model
    return registry.model_id(target.model) if target.suite is None else None


def model_id(target: TargetSpec) -> str | None:
    """The Hugging Face id that --model names, whatever SAEs it is to be used with; None: on disk, or not known."""
    if target.model in BUILT_IN or _is_here(target.model):
        return None
    return load_registry().model_id(target.model)


def _is_folder(name: str) -> bool:
    return is_directory(Path(name).expanduser())


def _is_here(model: str) -> bool:
    """Whether a model's name is that of a folder or of a GGUF."""
    return _is_folder(model) or gguf_of(model) is not None


def _published(target: TargetSpec, model: str) -> list[SaeRef]:
    refs = published_refs(load_registry(), model, target)
    others = {ref.model for ref in refs} - {model}
    if others and not _is_here(target.model):
        raise TargetError(
            f"Release {target.suite!r} is of {others.pop()}, not of {model}. Name that model, or leave --suite out."
        )
    return refs


def resolve_hook(refs: Sequence[SaeRef], target: TargetSpec, n_layers: int | None = None) -> tuple[str, int | None]:
    """The hook that the target means and its layer, every default decided.

    --hook wins; then --layer with the site; then the hook of the SAEs named by --sae; then a built-in model's
    own layer or the only layer that has SAEs at the site.

    Args:
        refs: all SAEs known.
        target: as asked.
        n_layers: of the model, if known already, to say that a layer does not exist.

    Raises:
        TargetError: when the layer does not exist, or none can be chosen.
        UsageError: when several are asked for.
    """
    if target.hook is not None:
        return target.hook, layer_of(target.hook)
    if target.layers_from is not None:
        raise UsageError(f"All layers from {target.layers_from} on were asked for. Take one, with --layer N.")
    if target.layers is not None:
        if len(target.layers) != 1:
            raise UsageError(f"{len(target.layers)} layers were asked for at once. Take one, with --layer N.")
        layer = target.layers[0]
        if layer < 0 or (n_layers is not None and layer >= n_layers):
            last = f" Its layers are 0 to {n_layers - 1}." if n_layers is not None else " Layers count from 0."
            raise TargetError(f"Model {target.model!r} has no layer {layer}.{last}")
        return _hook_at(refs, target.site, layer), layer
    if target.saes:
        hooks = sorted({ref.hook_name for ref in _exact(refs, target.saes)})
        if len(hooks) > 1:
            raise TargetError(f"The SAEs given read different hooks: {', '.join(hooks[:3])}. Give SAEs of one hook.")
        return hooks[0], layer_of(hooks[0])
    layers = sorted({ref.layer for ref in refs if ref.layer is not None and _at_site(ref, target)})
    known = built_in(target.model)
    if known is not None and target.suite is None and known.layer in layers:
        return hook_name_of(target.site, known.layer), known.layer
    if len(layers) == 1:
        return _hook_at(refs, target.site, layers[0]), layers[0]
    if not layers and target.site == TargetSpec.site and len(everywhere := {ref.hook_name for ref in refs}) == 1:
        (only,) = everywhere  # the site is what --site says when it is not given, and there is one hook to choose from
        return only, layer_of(only)
    if not layers:
        sites = ", ".join(sorted({ref.hook_name for ref in refs})[:3])
        raise TargetError(f"The suite has no SAE at site {target.site!r}. It has: {sites}; choose with --hook.")
    listed = ", ".join(map(str, layers[:12])) + (", ..." if len(layers) > 12 else "")
    raise TargetError(f"The suite has SAEs at {len(layers)} layers. Choose one with --layer: {listed}.")


def layer_by_layer(target: TargetSpec) -> list[TargetSpec]:
    """A target of several layers as targets of one, in the order of the layers.

    Raises:
        TargetError: from the layer asked for on, none has an SAE.
    """
    layers = target.layers
    if target.layers_from is not None:
        found = {ref.layer for ref in known_saes(target) if ref.layer is not None and _at_site(ref, target)}
        layers = tuple(sorted(layer for layer in found if layer >= target.layers_from))
        if not layers:
            last = f" The last that has is {max(found)}." if found else f" None has at site {target.site!r}."
            raise TargetError(f"No layer from {target.layers_from} on has an SAE in this suite.{last}")
    if layers is None or (len(layers) == 1 and target.layers_from is None):
        return [target]
    return [replace(target, layers=(layer,), layers_from=None) for layer in layers]


def select(refs: list[SaeRef], target: TargetSpec) -> list[SaeRef]:
    """The SAEs that the target means: of its hook, its widths, nearest its L0 per width, or exactly those named.

    Args:
        refs: all SAEs known; see `known_saes`.
        target: with --layer, --hook or --sae given, or a suite that leaves no choice; see `resolve_hook`.

    Returns:
        At least one, sorted by d_sae, then nominal L0 (unknown first).

    Raises:
        TargetError: naming what there is, when nothing fits.
    """
    hook_name, _ = resolve_hook(refs, target)
    if target.saes:
        chosen = _exact(refs, target.saes)
        for ref in chosen:
            if ref.hook_name != hook_name:
                raise TargetError(
                    f"SAE {ref.sae_id!r} reads {ref.hook_name}, but the target is {hook_name}. "
                    "Leave --layer and --hook out, or name an SAE of that hook."
                )
        return _sorted(chosen)
    here = [ref for ref in refs if ref.hook_name == hook_name]
    if not here:
        hooks = {ref.hook_name for ref in refs}
        raise TargetError(f"The suite has no SAE at {hook_name}.{nearest(hook_name, sorted(hooks))}")
    here = _of_widths(here, target.widths)
    return _sorted(here if target.l0 is None else _nearest_l0(here, target.l0))


def l0_notes(refs: Iterable[SaeRef], l0: float | None) -> list[str]:
    """One sentence per pick whose nominal L0 is more than 20% from the one asked for (spec 1.3)."""
    notes = []
    for ref in refs if l0 is not None else ():
        if ref.nominal_l0 is None or l0 is None:
            notes.append(f"The nominal L0 of {ref.sae_id} is not known, so it could not be compared with --l0 {l0:g}.")
        elif abs(ref.nominal_l0 - l0) > FAR_L0 * l0:
            gap = abs(ref.nominal_l0 - l0) / l0
            notes.append(
                f"Nearest to --l0 {l0:g} at width {width_label(ref.d_sae)} is {ref.nominal_l0:g}, {gap:.0%} away."
            )
    return notes


def mismatch(ref: SaeRef, d_in_expected: int) -> TargetError:
    """The error of an SAE that reads vectors of another size than its hook gives."""
    return TargetError(
        f"SAE {ref.sae_id!r} reads vectors of size {ref.d_in} (d_in {ref.d_in} x d_sae {ref.d_sae}) but "
        f"{ref.hook_name} gives {d_in_expected}. Are model and SAE from the same family?"
    )


def refused_saes(target: TargetSpec) -> list[RefusedSae]:
    """What the target's suite holds beside the SAEs that can be measured; without a suite, what the registry lists."""
    model = registry_model(target)
    if model is not None:
        return published_refused(load_registry(), model, target)
    if target.suite is not None and _is_folder(target.suite):
        return survey(Path(target.suite), said_hook=target.hook).refused
    return []


def _folders(directory: Path) -> list[tuple[str, Layout]]:
    """Folders below `directory` that hold an SAE, and its layout. `os.walk`, as it does not stat each file.

    A link to an SAE's folder elsewhere is one of them. No other link is followed: it may lead to a whole disk, or back.
    """
    found: list[tuple[str, Layout]] = []
    top = directory.resolve()
    for folder, folders, files in os.walk(directory):
        if (layout := recognise({*files, *folders})) is not None:
            found.append((folder, layout))
        for path in (Path(folder, name) for name in folders):
            if path.is_symlink() and not path.resolve().is_relative_to(top) and (layout := _linked(path)) is not None:
                found.append((str(path), layout))
    return found


def _linked(path: Path) -> Layout | None:
    try:
        return recognise(set(os.listdir(path)))
    except OSError:
        return None


def _single(given: str, said_hook: str | None) -> SaeRef:
    """The SAE of a directory named after --sae; its id is the directory as given, so that two do not share a name."""
    refs = list_suite(Path(given), said_hook=said_hook)
    if len(refs) > 1 or Path(refs[0].path or "") != Path(given).expanduser():
        raise TargetError(f"{given} holds {len(refs)} SAEs below it. Name one of them, {refs[0].path}, or use --suite.")
    return replace(refs[0], sae_id=given)


def _exact(refs: Sequence[SaeRef], names: Iterable[str]) -> list[SaeRef]:
    by_id = {ref.sae_id: ref for ref in refs}
    for name in names:
        if name not in by_id:
            where = refs[0].release if refs else "the suite"
            raise TargetError(f"sae_id {shown(name)} is not in {where}, and is no SAE directory.{nearest(name, by_id)}")
    return list({name: by_id[name] for name in names}.values())


def _of_widths(refs: list[SaeRef], widths: Sequence[int] | None) -> list[SaeRef]:
    if widths is None:
        return refs
    known = sorted({ref.d_sae for ref in refs})
    missing = [width for width in widths if width not in known]
    if missing:
        raise TargetError(
            f"There is no SAE of width {missing[0]:,} at {refs[0].hook_name}. "
            f"Widths there: {', '.join(f'{width_label(width)} ({width:,})' for width in known)}."
        )
    return [ref for ref in refs if ref.d_sae in widths]


def _nearest_l0(refs: list[SaeRef], l0: float) -> list[SaeRef]:
    """Per width the SAE nearest in nominal L0; the smaller of a tie, an unknown one only if there is no other."""
    picks = []
    for d_sae in {ref.d_sae for ref in refs}:
        same = [ref for ref in refs if ref.d_sae == d_sae]
        known = [
            (abs(ref.nominal_l0 - l0), ref.nominal_l0, ref.sae_id, ref) for ref in same if ref.nominal_l0 is not None
        ]
        picks.append(min(known)[-1] if known else min(same, key=lambda ref: ref.sae_id))
    return picks


def _at_site(ref: SaeRef, target: TargetSpec) -> bool:
    return ref.layer is not None and ref.hook_name in hooks_of(target.site, ref.layer)


def _hook_at(refs: Iterable[SaeRef], site: Site, layer: int) -> str:
    """The site's usual hook at a layer, or another that counts as the site if the suite has SAEs only there."""
    there = {ref.hook_name for ref in refs}
    return next((hook for hook in hooks_of(site, layer) if hook in there), hook_name_of(site, layer))


def _by_size(ref: SaeRef) -> tuple[int, float, str]:
    return ref.d_sae, -1.0 if ref.nominal_l0 is None else ref.nominal_l0, ref.sae_id


def _sorted(refs: Iterable[SaeRef]) -> list[SaeRef]:
    return sorted(refs, key=_by_size)
