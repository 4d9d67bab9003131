"""Published SAEs by model: what they are called, where they lie, what they read. Offline, without torch or sae-lens.

The registry gives ids, folders and, for most, an L0. Layer, site and width are read from the names as the publishers
form them. A Neuronpedia id is passed on only where its layer, width and L0 are the SAE's own: some are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from inspector.errors import TargetError, nearest
from inspector.sources.model_names import aliases, hub_id
from inspector.sources.registry_index import Index, load_index
from inspector.spec import SITE_HOOKS, SaeFormat, Site, hook_name_of, width_label

KINDS: dict[str | None, SaeFormat] = {
    None: "sae-lens",
    "gemma_2": "gemma-scope",
    "gemma_3": "gemma-scope-2",
    "llama_scope": "llama-scope",
    "dictionary_learning_1": "dictionary-learning",
}
"""sae-lens' name of a conversion to the layout; what is missing here cannot be loaded, and transcoders need not be."""
FAMILIES = ("gemma-scope-", "llama_scope_")
"""Suites of many widths and L0s: for their models these are the default, all releases of a site together."""
_LABELS = {width_label(2**n): 2**n for n in range(8, 24)}
_L0_IN_PATH = re.compile(r"average_l0_(\d+)")
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
    format: SaeFormat | None
    """None: of a layout that is not read here, or no SAE that reconstructs its input."""
    layer: int | None
    hook_name: str | None
    """None: only its configuration says."""
    d_sae: int | None
    """None: only its configuration says."""
    nominal_l0: float | None
    """None: unknown, never 0."""
    norm_factor: float | None
    neuronpedia: str | None
    """Checked against layer, width and L0."""


class Registry:
    """All releases of an index.

    Args:
        index: see `registry_index`.
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

    def default_releases(self, model: str, site: Site) -> list[str]:
        """The suite of a model at a site: its whole family, else the first release with SAEs there."""
        able = [
            release
            for release in self.releases(model)
            if not release.endswith("-canonical") and any(_is_at(entry, site) for entry in self.entries(release))
        ]
        family = [release for release in able if release.startswith(FAMILIES)]
        return family or able[:1]

    def _model(self, release: str) -> str:
        about = self._index[release]
        model = hub_id(about["model"])
        # gemma-scope-9b-it-res names the base model, but its repository and its canonical twin the instruct one.
        if about["kind"] == "gemma_2" and "-it-" in about["repo"] and not model.endswith("-it"):
            model += "-it"
        return model

    def _entry(self, release: str, one: Sequence[object]) -> RegistryEntry | None:
        """One line of the index; None if its names cannot be file names."""
        about = self._index[release]
        sae_id, path, l0, _, factor = one
        repo = str(about["repo"])
        if not (_is_clean(str(path)) and _is_clean(repo) and repo.count("/") == 1) or _CONTROL.search(str(sae_id)):
            return None
        kind = KINDS.get(about["kind"])
        hook_name = _HOOKS[kind](repo, str(path), str(sae_id)) if kind is not None else None
        match = re.match(r"blocks\.(\d+)\.", hook_name or "")
        layer = int(match[1]) if match else None
        d_sae = _d_sae(kind, str(path), str(sae_id), release)
        in_path = _L0_IN_PATH.findall(str(path))
        nominal = float(in_path[-1]) if in_path else float(l0) if isinstance(l0, int | float) and l0 > 0 else None
        links = self._neuronpedia.get((repo, str(path)), [])
        return RegistryEntry(
            release=release,
            sae_id=str(sae_id),
            repo=repo,
            file=str(path),
            model=self._model(release),
            # An SAE at a hook that is not known from its names may still be one; a transcoder never is.
            format=None if kind in _NAMED and hook_name is None else kind,
            layer=layer,
            hook_name=hook_name,
            d_sae=d_sae,
            nominal_l0=nominal,
            norm_factor=float(factor) if isinstance(factor, int | float) and factor > 0 else None,
            neuronpedia=next((link for link in links if _is_of(link, layer, d_sae, nominal)), None),
        )


def load_registry(tell: Callable[[str], None] = lambda _: None) -> Registry:
    """The registry of the installed sae-lens. `tell` hears a sentence if its index must be made first."""
    return Registry(load_index(tell))


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


def _is_at(entry: RegistryEntry, site: Site) -> bool:
    return (
        entry.format is not None
        and entry.layer is not None
        and entry.hook_name == SITE_HOOKS[site].format(layer=entry.layer)
    )


# ---- names, as each publisher forms them ----------------------------------------------------------------------------


def _gemma_scope(repo: str, path: str, _sae_id: str) -> str | None:
    sites: tuple[tuple[str, Site], ...] = (("-res", "resid"), ("-mlp", "mlp"), ("-att", "attn"))
    site = next((site for end, site in sites if repo.endswith(end)), None)
    if path.startswith("embedding"):
        return "hook_embed"
    match = re.match(r"layer_(\d+)/", path)
    return hook_name_of(site, int(match[1])) if match and site else None


def _gemma_scope_2(_repo: str, path: str, _sae_id: str) -> str | None:
    sites: dict[str, Site] = {"resid_post": "resid", "mlp_out": "mlp", "attn_out": "attn"}
    match = re.match(r"(resid_post|mlp_out|attn_out)(?:_all)?/layer_(\d+)_", path)
    return hook_name_of(sites[match[1]], int(match[2])) if match else None


def _llama_scope(_repo: str, path: str, _sae_id: str) -> str | None:
    match = re.search(r"-L(\d+)([RMA])-\d+x$", path)
    if match is None:
        return None
    ends = {"R": "hook_resid_post", "M": "hook_mlp_out", "A": "hook_attn_out"}
    return f"blocks.{match[1]}.{ends[match[2]]}"


def _sae_lens(_repo: str, _path: str, sae_id: str) -> str | None:
    match = re.match(r"blocks\.(\d+)\.(?:attn\.)?(hook_(?:resid_pre|resid_mid|resid_post|mlp_out|attn_out|z))", sae_id)
    if match is None:
        return None
    return f"blocks.{match[1]}.{'attn.' if match[2] == 'hook_z' else ''}{match[2]}"


def _dictionary_learning(_repo: str, path: str, sae_id: str) -> str | None:
    match = re.search(r"resid_post_layer_(\d+)", path) or re.match(r"blocks\.(\d+)\.hook_resid_post", sae_id)
    return hook_name_of("resid", int(match[1])) if match else None


_HOOKS: dict[SaeFormat, Callable[[str, str, str], str | None]] = {
    "gemma-scope": _gemma_scope,
    "gemma-scope-2": _gemma_scope_2,
    "llama-scope": _llama_scope,
    "sae-lens": _sae_lens,
    "dictionary-learning": _dictionary_learning,
}
_NAMED: tuple[SaeFormat, ...] = ("gemma-scope", "gemma-scope-2", "llama-scope")
"""Layouts whose SAEs all have their hook in their name; what has none there is a transcoder."""


def _d_sae(kind: SaeFormat | None, path: str, sae_id: str, release: str) -> int | None:
    if kind == "llama-scope" and (match := re.search(r"-(\d+)x$", path)):
        return int(match[1]) * 4096
    if match := re.search(r"width_(\d+[km]?)(?=$|[/_])", path):
        return _LABELS.get(match[1])
    if match := re.search(r"width-2pow(\d+)", f"{release} {path} {sae_id}"):
        return 2 ** int(match[1])
    return None


def _is_of(link: str, layer: int | None, d_sae: int | None, nominal_l0: float | None) -> bool:
    """Whether a Neuronpedia id speaks of this layer, width and L0, as far as it says."""
    match = re.fullmatch(r"[\w.\-]+/(\d+)-([\w.\-]+?)(?:__l0-(\d+))?", link)
    if match is None or layer is None or int(match[1]) != layer:
        return False
    label = re.search(r"-(\d+[km])$", match[2])
    if label is not None and d_sae is not None and label[1] != width_label(d_sae):
        return False
    return match[3] is None or nominal_l0 is None or float(match[3]) == nominal_l0


def by_hook(entries: Iterable[RegistryEntry]) -> dict[str, list[RegistryEntry]]:
    """Entries that can be loaded, by the hook they read."""
    found: dict[str, list[RegistryEntry]] = {}
    for entry in entries:
        if entry.format is not None and entry.hook_name is not None:
            found.setdefault(entry.hook_name, []).append(entry)
    return found
