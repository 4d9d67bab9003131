"""The registry of published SAEs that comes with sae-lens, read without importing it, and kept in a compact form.

Parsing 1.5 MB of YAML takes one to three seconds; the index made from it is read in a few hundredths. It is made once
per version of sae-lens. An index that is damaged, or cannot be written, costs the time of making it and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from importlib import metadata, util
from pathlib import Path
from typing import Any

from inspector.disk.files import parse_json, read_text
from inspector.disk.folders import user_folder
from inspector.errors import TargetError

INDEX_VERSION = 2
"""Of the form below; another one is made anew."""
FILE = "pretrained_saes.yaml"
Index = dict[str, dict[str, Any]]
"""By release: model, repo, kind (how sae-lens converts it), overrides (what the configurations say wrongly), saes ([id,
path, l0, neuronpedia, norm factor] each)."""


def load_index(tell: Callable[[str], None] = lambda _: None, folder: Path | None = None) -> Index:
    """The index, made now if there is none for this version of sae-lens.

    Args:
        tell: hears a sentence before something that takes seconds.
        folder: where it is kept; the user's cache folder if None.

    Raises:
        TargetError: sae-lens or its registry is not installed.
    """
    version = metadata.version("sae-lens")
    path = (cache_folder() if folder is None else folder) / f"registry-{version}-{INDEX_VERSION}.json"
    found = _read(path)
    if found is None:
        tell(f"reading the registry of sae-lens {version} (once)")
        found = parse(registry_file().read_bytes())
        _write(path, found)
    return found


def cache_folder() -> Path:
    """Where indices are kept."""
    return user_folder("cache")


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
    """Keep it, if that is possible; beside and then over, so that nobody reads a half."""
    body = json.dumps(index, separators=(",", ":"))
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}", encoding="utf-8")
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
