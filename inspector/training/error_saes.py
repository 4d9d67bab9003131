"""SAEs on the parts of another SAE's error: what they learn from, and how they lie on disk.

    FOLDER/linear_error/seed_0/cfg.json, sae_weights.safetensors     plain sae-lens folders, one per part and seed
    FOLDER/nonlinear_error/seed_0/...
    FOLDER/linear_map.safetensors                                    the map that splits the error, float64
    FOLDER/error_saes.json                                           which base SAE, how they were trained; written last

With these four the parts can be computed again from activations alone, and the SAEs scored on other text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from inspector.disk.files import parse_json, read_text, require_file, shown, write_whole
from inspector.engine.decomposition import decompose
from inspector.engine.regression import LinearMap
from inspector.errors import DataError, TargetError, UsageError
from inspector.sources.model_files import digest_files
from inspector.training.blocks import LEFT_OUT
from inspector.training.suite_files import CONFIG_FILE, WEIGHTS_FILE, write_json

if TYPE_CHECKING:
    from inspector.engine.plan import Outliers
    from inspector.sources.model import LanguageModel
    from inspector.sources.sae import LoadedSae

__all__ = [
    "ErrorSae", "ErrorSaes", "damage_of", "finished", "load_map", "map_hash", "read_error_saes",
    "sae_folder", "save_map", "write_about",
]  # fmt: skip

ABOUT_FILE = "error_saes.json"
MAP_FILE = "linear_map.safetensors"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class ErrorSae:
    """One SAE on one part of the error."""

    part: str
    """linear_error, nonlinear_error, x, sae_error, gaussian_linear or gaussian_nonlinear."""
    seed: int
    folder: Path
    """In sae-lens' layout; its `hook_name` is the base SAE's with the part behind it, for no hook has these values."""


@dataclass(frozen=True, kw_only=True)
class ErrorSaes:
    """What one run of `error-saes` has left."""

    folder: Path
    about: Mapping[str, Any]
    """The whole of `error_saes.json`."""
    linear_map: LinearMap
    """x to linear_error; nonlinear_error is x - x_hat - linear_error, x_hat from the base SAE."""
    saes: tuple[ErrorSae, ...]
    """By part, then seed."""

    @property
    def base(self) -> Mapping[str, Any]:
        """The SAE whose error it is: sae, release, layer, hook_name, d_sae, nominal_l0, weights_hash."""
        base: Mapping[str, Any] = self.about["base"]
        return base

    def of_part(self, part: str) -> tuple[ErrorSae, ...]:
        """The SAEs of one part, by seed."""
        return tuple(sae for sae in self.saes if sae.part == part)


def read_error_saes(folder: Path | str) -> ErrorSaes:
    """What is below `folder`.

    Raises:
        TargetError: there is no such folder, it holds something else, or a file is missing or damaged.
    """
    folder = Path(folder)
    path = folder / ABOUT_FILE
    if not path.is_file():
        raise TargetError(
            f"{shown(folder)} has no {ABOUT_FILE}. Name the folder that a result of `dm-inspect run error-saes` names."
        )
    try:
        about = parse_json(read_text(path))
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']!r}, not {FORMAT}")
        found = []
        for each in about["saes"]:
            part, seed = str(each["part"]), int(each["seed"])
            if not part.isidentifier():
                raise ValueError(f"{part!r} is no part")
            found.append(ErrorSae(part=part, seed=seed, folder=sae_folder(folder, part, seed)))
        missing = [sae.folder for sae in found if not (sae.folder / WEIGHTS_FILE).is_file()]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        linear_map = load_map(folder / MAP_FILE)
        if map_hash(linear_map) != about["map_sha256"]:
            raise ValueError(f"{MAP_FILE} is not the map it names")
        for key in ("sae", "release", "hook_name", "weights_hash"):
            about["base"][key]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise TargetError(f"{path} cannot be used: {reason.rstrip('.')}. Run error-saes again.") from error
    return ErrorSaes(folder=folder, about=about, linear_map=linear_map, saes=tuple(found))


def sae_folder(folder: Path, part: str, seed: int) -> Path:
    """Where the SAE of a part and seed lies."""
    return folder / part / f"seed_{seed}"


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Write `error_saes.json` with the checksums of all files beside it: from now on the folder is complete."""
    files = {str(path.relative_to(folder)): digest_files([path]) for path in _weights_of(folder)}
    content = {"format": FORMAT, **about, "files": files}
    write_json(folder / ABOUT_FILE, {**content, "sha256": _checksum(content)})


def damage_of(folder: Path) -> list[str]:
    """What is wrong with a complete folder, each as a part of a sentence; every byte is read.

    Raises:
        OSError: a file cannot be read.
    """
    raw = read_text(folder / ABOUT_FILE, errors="replace")
    try:
        content = parse_json(raw)
        if raw != json.dumps(content, indent=1) + "\n" or content.pop("sha256") != _checksum(content):
            return [f"the checksum of {ABOUT_FILE} does not fit"]
        files: Mapping[str, str] = content["files"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{ABOUT_FILE} is not what was written ({type(error).__name__})"]
    problems = [f"{name} is missing" for name in files if not (folder / name).is_file()]
    there = [folder / name for name in files if (folder / name).is_file()]
    return [
        *problems,
        *(
            f"the checksum of {path.relative_to(folder)} does not fit"
            for path in there
            if digest_files([path]) != files[str(path.relative_to(folder))]
        ),
    ]


def _weights_of(folder: Path) -> list[Path]:
    return sorted([folder / MAP_FILE, *(p for n in (CONFIG_FILE, WEIGHTS_FILE) for p in folder.glob(f"*/seed_*/{n}"))])


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def finished(folder: Path, fingerprint: str) -> bool:
    """Whether `folder` holds the SAEs of the run with this fingerprint, all of them.

    Raises:
        UsageError: it holds those of another run.
        DataError: it cannot be told.
    """
    try:
        about = parse_json(read_text(folder / ABOUT_FILE))
        theirs = about["fingerprint"]
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / ABOUT_FILE} cannot be read: {error}. Remove that folder to train again.") from error
    if theirs != fingerprint:
        raise UsageError(
            f"{folder} holds SAEs that were trained otherwise. Choose another -p folder=DIR, or remove it."
        )
    return all(
        (sae_folder(folder, each["part"], each["seed"]) / name).is_file()
        for each in about["saes"]
        for name in (CONFIG_FILE, WEIGHTS_FILE)
    )


def save_map(path: Path, linear_map: LinearMap) -> None:
    """Write a map; see `load_map`."""
    facts = {
        "effective_rank": linear_map.effective_rank,
        "condition_number": linear_map.condition_number,
        "n_train": linear_map.n_train,
        "intercept": linear_map.intercept,
    }
    write_whole(path, save(_tensors(linear_map), metadata={"facts": json.dumps(facts)}))


def load_map(path: Path) -> LinearMap:
    """Read a map.

    Raises:
        OSError, SafetensorError, ValueError, KeyError: it is not one.
    """
    require_file(path)
    with safe_open(path, framework="pt") as file:
        facts = parse_json((file.metadata() or {})["facts"])
    tensors = load_file(path)
    weight, bias, centre = (tensors[name] for name in ("weight", "bias", "centre"))
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or centre.shape != weight.shape[1:]:
        raise ValueError(f"its shapes {list(weight.shape)}, {list(bias.shape)}, {list(centre.shape)} do not fit")
    return LinearMap(
        weight=weight,
        bias=bias,
        centre=centre,
        effective_rank=int(facts["effective_rank"]),
        condition_number=float(facts["condition_number"]),
        n_train=int(facts["n_train"]),
        intercept=bool(facts["intercept"]),
    )


def map_hash(linear_map: LinearMap) -> str:
    """SHA-256 of the map's numbers."""
    digest = hashlib.sha256()
    for tensor in _tensors(linear_map).values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _tensors(linear_map: LinearMap) -> dict[str, Tensor]:
    found = {"weight": linear_map.weight, "bias": linear_map.bias, "centre": linear_map.centre}
    return {name: tensor.detach().cpu().double().contiguous() for name, tensor in found.items()}


NOISE = {"gaussian_linear": "linear_error", "gaussian_nonlinear": "nonlinear_error"}
"""Noise by name, and the part whose mean and covariance it has."""
PARTS = ("linear_error", "nonlinear_error", "x", "sae_error", *NOISE)


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """A normal distribution."""

    mean: Tensor
    """[d] float32."""
    root: Tensor
    """[d, d] float32; root root' is the covariance."""

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor) -> Gaussian:
        """From float64 moments; directions that rounding has made negative have no variance."""
        values, vectors = torch.linalg.eigh(covariance.double())
        return cls(mean=mean.float(), root=(vectors * values.clamp_min(0.0).sqrt()).float())

    def to(self, device: torch.device) -> Gaussian:
        """The same on a device."""
        return Gaussian(mean=self.mean.to(device), root=self.root.to(device))

    def draw(self, n: int, seed: int) -> Tensor:
        """[n, d] independent draws, the same on every device up to rounding."""
        noise = torch.randn(n, len(self.mean), generator=torch.Generator().manual_seed(seed))
        return noise.to(self.mean.device) @ self.root.T + self.mean


class ErrorParts:
    """Token ids to the parts at one hook, [c, t, d] each: an `ActivationSource` of one model pass.

    Noise is a function of a context's tokens, so that a block, a batch and another epoch see the same numbers; a new
    draw for every token of every context, as if it had been measured there.

    Args:
        model: which runs context by context.
        hook_name: where.
        sae: whose error it is.
        error_map: that splits it.
        parts: which of PARTS are wanted.
        noise: by the names of NOISE, where wanted.
        seed: of the noise.
        outliers: tokens that are marked to be left out; None: none.
    """

    def __init__(
        self,
        model: LanguageModel,
        hook_name: str,
        sae: LoadedSae,
        error_map: LinearMap,
        parts: Sequence[str],
        noise: Mapping[str, Gaussian],
        seed: int,
        outliers: Outliers | None = None,
    ) -> None:
        self._outliers = outliers
        self._model, self._hook_name, self._sae, self._map = model, hook_name, sae, error_map
        self._parts, self._seed = tuple(parts), seed
        self._noise = {name: each.to(model.device) for name, each in noise.items()}

    def __call__(self, ids: Tensor) -> dict[str, Tensor]:
        """Of contexts [c, t] int64."""
        activations = self._model.activations(ids, self._hook_name)
        rows = [self.of_context(row, x) for row, x in zip(ids, activations, strict=True)]
        made = {part: torch.stack([row[part] for row in rows]) for part in self._parts}
        return made if self._outliers is None else {**made, LEFT_OUT: self._outliers.among(activations)}

    @torch.inference_mode()
    def of_context(self, ids: Tensor, x: Tensor) -> dict[str, Tensor]:
        """[t, d] each, of one context's tokens [t] and activations [t, d]."""
        split = decompose(x, self._sae.reconstruct(x).x_hat.to(x), self._map)
        found = {name: getattr(split, name) for name in self._parts if name not in NOISE}
        for name in self._parts:
            if name in NOISE:
                found[name] = self._noise[name].draw(len(x), noise_seed(ids, name, self._seed))
        return found


def noise_seed(ids: Tensor, name: str, seed: int) -> int:
    """A context's own seed."""
    digest = hashlib.sha256(f"{seed}/{name}/".encode() + ids.cpu().numpy().astype("<i8").tobytes()).digest()
    return int.from_bytes(digest[:7], "big")


def geometric_median(points: Tensor, *, iterations: int = 100) -> Tensor:
    """[d] the point whose distances to the points [n, d] sum to the least, by Weiszfeld's iteration in float64."""
    points = points.double() if points.device.type != "mps" else points
    median = points.mean(dim=0)
    for _ in range(iterations):
        weights = 1.0 / (points - median).norm(dim=1).clamp_min(1e-12)
        moved = (weights[:, None] * points).sum(dim=0) / weights.sum()
        step = float((moved - median).norm())
        median = moved
        if step <= 1e-9 * float(median.norm()):
            break
    return median.float()
