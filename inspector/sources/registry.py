"""Published SAEs by model: what they are called, where they lie, what they read. Offline, without torch or sae-lens.

The registry gives ids, folders and, for most, an L0. Layer, site and width are read from the names as the publishers
form them. A Neuronpedia id is passed on only where its layer, width and L0 are the SAE's own: some are not.

Parsing sae-lens' 1.5 MB of YAML takes one to three seconds; the index made from it once per version of sae-lens is read
in a few hundredths. An index that is damaged, or cannot be written, costs the time of making it and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata, util
from pathlib import Path, PurePosixPath
from typing import Any

from inspector.disk.files import parse_json, read_text, shown, write_if_possible
from inspector.disk.folders import user_folder
from inspector.errors import TargetError, nearest
from inspector.formats import layer_of, layout_of_conversion
from inspector.formats.layout import Named
from inspector.options import width_label
from inspector.sources.model_files import aliases, hub_id
from inspector.spec import Site, hooks_of

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, kw_only=True)
class RegistryEntry:
    """One published SAE."""

    release: str
    sae_id: str
    """Unique within the release."""
    repo: str
    file: str
    """Its folder in the repository."""
    model: str
    """Hugging Face id."""
    format: str
    """Name of its layout; empty: it has none that is known."""
    refused: str | None
    """Why it cannot be measured here; None: it can."""
    layer: int | None
    hook_name: str | None
    """None: only its configuration says."""
    d_sae: int | None
    """None: only its configuration says."""
    nominal_l0: float | None
    """None: unknown, never 0."""
    d_in: int | None
    """None: the model's width at the hook."""
    norm_factor: float | None
    overrides: str
    """JSON object of configuration keys; empty: none."""
    neuronpedia: str | None
    """Checked against layer, width and L0."""


class Registry:
    """All releases of an index.

    Args:
        index: see `load_index`.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._entries: dict[str, list[RegistryEntry]] = {}

    @cached_property
    def _aliases(self) -> dict[str, str]:
        return aliases({self._model(release) for release in self._index})

    @cached_property
    def _neuronpedia(self) -> dict[tuple[str, str], list[str]]:
        """Ids by repository and path: they stand mostly with the canonical entries."""
        found: dict[tuple[str, str], list[str]] = {}
        for about in self._index.values():
            for _, path, _, neuronpedia, _ in about["saes"]:
                if isinstance(neuronpedia, str):
                    found.setdefault((about["repo"], path), []).append(neuronpedia)
        return found

    def model_id(self, name: str) -> str | None:
        """The Hugging Face id a name stands for: itself, its last part, or a short name, in any case; None: unknown."""
        return self._aliases.get(name.strip().lower())

    def names(self) -> list[str]:
        """Every name `model_id` knows, short ones first."""
        return sorted(self._aliases, key=lambda name: ("/" in name, name))

    def releases(self, model: str | None = None) -> list[str]:
        """Releases of SAEs of a model, or all."""
        return [release for release in self._index if model is None or self._model(release) == model]

    def entries(self, release: str) -> list[RegistryEntry]:
        """All SAEs of a release, in the registry's order.

        Raises:
            TargetError: there is no such release; with the nearest.
        """
        if release not in self._index:
            raise TargetError(f"The registry has no release {release!r}.{nearest(release, self._index)}")
        if release not in self._entries:
            about = self._index[release]
            self._entries[release] = [
                entry for one in about["saes"] if (entry := self._entry(release, one)) is not None
            ]
        return self._entries[release]

    def default_releases(self, model: str, site: Site, layers: tuple[int, ...] | None = None) -> list[str]:
        """The suite of a model at a site: its whole family, else the first release with SAEs there.

        Args:
            model: Hugging Face id.
            site: of the hooks.
            layers: only releases that have one of these; None: any.
        """
        able = [
            release
            for release in self.releases(model)
            if not release.endswith("-canonical")
            and any(_is_at(entry, site, layers) for entry in self.entries(release))
        ]
        layouts = {release: layout_of_conversion(self._index[release]["kind"]) for release in able}
        family = [release for release, layout in layouts.items() if layout is not None and layout.is_family]
        return family or able[:1]

    def _model(self, release: str) -> str:
        about = self._index[release]
        model, layout = hub_id(about["model"]), layout_of_conversion(about["kind"])
        return model if layout is None else layout.model_of(about["repo"], model)

    def _entry(self, release: str, one: Sequence[object]) -> RegistryEntry | None:
        """One line of the index; None if its names cannot be file names."""
        about = self._index[release]
        sae_id, path, l0, _, factor = one
        repo = str(about["repo"])
        if not (_is_clean(str(path)) and _is_clean(repo) and repo.count("/") == 1) or _CONTROL.search(str(sae_id)):
            return None
        layout = layout_of_conversion(about["kind"])
        if layout is None:
            named = Named(refused=f"of a kind that is not known here ({shown(about['kind'])})")
        else:
            named = layout.named(repo, str(path), str(sae_id), release)
        layer = layer_of(named.hook_name or "")
        nominal = named.nominal_l0 or (float(l0) if isinstance(l0, int | float) and l0 > 0 else None)
        links = self._neuronpedia.get((repo, str(path)), [])
        refused = named.refused
        if refused is None and named.hook_name is None:
            refused = "not called as its publisher's others are, so its hook is not known before its files are there"
        return RegistryEntry(
            release=release,
            sae_id=str(sae_id),
            repo=repo,
            file=str(path),
            model=self._model(release),
            format="" if layout is None else layout.name,
            refused=refused,
            layer=layer,
            hook_name=named.hook_name,
            d_sae=named.d_sae,
            d_in=named.d_in,
            nominal_l0=nominal,
            norm_factor=float(factor) if isinstance(factor, int | float) and factor > 0 else None,
            overrides=json.dumps(about["overrides"], sort_keys=True) if about.get("overrides") else "",
            neuronpedia=next((link for link in links if _is_of(link, layer, named.d_sae, nominal)), None),
        )


def load_registry() -> Registry:
    """The registry of the installed sae-lens."""
    return Registry(load_index())


def _is_clean(path: str) -> bool:
    """Whether it can be a path below a repository, and can be printed."""
    parts = PurePosixPath(path).parts
    return (
        bool(parts)
        and not path.startswith("/")
        and ".." not in parts
        and "\\" not in path
        and not _CONTROL.search(path)
    )


def _is_at(entry: RegistryEntry, site: Site, layers: tuple[int, ...] | None) -> bool:
    here = entry.refused is None and entry.layer is not None and entry.hook_name in hooks_of(site, entry.layer)
    return here and (layers is None or entry.layer in layers)


def _is_of(link: str, layer: int | None, d_sae: int | None, nominal_l0: float | None) -> bool:
    """Whether a Neuronpedia id speaks of this layer, width and L0, as far as it says."""
    match = re.fullmatch(r"[\w.\-]+/(\d+)-([\w.\-]+?)(?:__l0-(\d+))?", link)
    if match is None or layer is None or int(match[1]) != layer:
        return False
    label = re.search(r"-(\d+[km])$", match[2])
    if label is not None and d_sae is not None and label[1] != width_label(d_sae):
        return False
    return match[3] is None or nominal_l0 is None or float(match[3]) == nominal_l0


INDEX_VERSION = 2
"""Of the form below; another one is made anew."""
FILE = "pretrained_saes.yaml"
Index = dict[str, dict[str, Any]]
"""By release: model, repo, kind (how sae-lens converts it), overrides (what the configurations say wrongly), saes ([id,
path, l0, neuronpedia, norm factor] each)."""


def load_index(folder: Path | None = None) -> Index:
    """The index, made now, which takes seconds, if there is none for this version of sae-lens.

    Args:
        folder: where it is kept; the user's cache folder if None.

    Raises:
        TargetError: sae-lens or its registry is not installed.
    """
    version = metadata.version("sae-lens")
    path = (user_folder("cache") if folder is None else folder) / f"registry-{version}-{INDEX_VERSION}.json"
    found = _read(path)
    if found is None:
        found = parse(registry_file().read_bytes())
        _write(path, found)
    return found


def registry_file() -> Path:
    """The YAML file inside the installed package, found without running any of it.

    Raises:
        TargetError: it is not there.
    """
    spec = util.find_spec("sae_lens")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    for folder in folders:
        path = Path(folder) / FILE
        if path.is_file():
            return path
    raise TargetError(f"sae-lens is not installed with its registry {FILE}. Reinstall dm-inspect.")


def parse(raw: bytes) -> Index:
    """The index of a registry's YAML; whatever is not as expected is left out, the rest stays.

    Raises:
        TargetError: it is no YAML mapping at all.
    """
    import yaml  # type: ignore[import-untyped]

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        found = yaml.load(raw, Loader=loader)
    except yaml.YAMLError as error:
        raise TargetError(f"The registry of sae-lens is not readable ({str(error)[:120]}). Reinstall it.") from error
    if not isinstance(found, dict):
        raise TargetError("The registry of sae-lens is not a mapping of releases. Reinstall it.")
    index: Index = {}
    for release, about in found.items():
        if isinstance(about, dict) and isinstance(about.get("saes"), list):
            index[str(release)] = {
                "model": str(about.get("model", "")),
                "repo": str(about.get("repo_id", "")),
                "kind": about.get("conversion_func"),
                "overrides": about.get("config_overrides") or {},
                "saes": [
                    [
                        str(one["id"]),
                        str(one["path"]),
                        one.get("l0"),
                        one.get("neuronpedia"),
                        one.get("norm_scaling_factor"),
                    ]
                    for one in about["saes"]
                    if isinstance(one, dict) and "id" in one and "path" in one
                ],
            }
    return index


def is_whole(path: Path) -> bool:
    """Whether an index that was kept is what was written."""
    return _read(path) is not None


def _read(path: Path) -> Index | None:
    """What was kept; None if it is not there or not what was written."""
    try:
        head, _, body = read_text(path).partition("\n")
        if head != hashlib.sha256(body.encode()).hexdigest():
            return None
        found: Index = parse_json(body)
        return found
    except (OSError, ValueError):
        return None


def _write(path: Path, index: Index) -> None:
    body = json.dumps(index, separators=(",", ":"))
    write_if_possible(path, f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}")
