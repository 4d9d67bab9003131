"""What makes a number: everything a run needs to be repeated, and one hash of it.

Device, batch size and shards are left out because they change no number (to 1e-6); versions of libraries stand in the
provenance but not in the hash, because a result is not another measurement for having been repeated next year.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from inspector import __version__
from inspector.disk.sealed import digest

if TYPE_CHECKING:
    from inspector.engine.plan import Plan
    from inspector.sources.sae import LoadedSae
    from inspector.sources.target import Loaded
    from inspector.spec import RunSpec, Split

NOT_HASHED = ("model", "text", "text_field")
"""Say where weights and tokens are, not what they are: their hashes do, and a path is no content."""
LIBRARIES = ("torch", "numpy", "transformers", "transformer-lens", "sae-lens")


def identity(loaded: Loaded, spec: RunSpec, *, split: Split, intercept: bool) -> dict[str, Any]:
    """What the numbers of a run follow from, and the names of it that are NOT_HASHED. `Any`: plain JSON data."""
    target, model = loaded.target, loaded.model
    return {
        "model": model.name,
        "weights_hash": model.weights_hash,
        **({"quantised": model.quantised} if getattr(model, "quantised", "") else {}),
        "hook_name": loaded.hook_name,
        "saes": {sae.ref.sae_id: _contents(sae) for sae in loaded.saes},
        "text": target.text,
        **({} if loaded.contexts.field is None else {"text_field": loaded.contexts.field}),
        "tokens_sha256": loaded.contexts.sha256,
        "n_contexts": int(loaded.contexts.token_ids.shape[0]),
        # Only where it decides what is held out with what: other results keep their fingerprint.
        **({} if loaded.plan.documents is None else {"documents": len(set(loaded.contexts.documents))}),
        "context_length": int(loaded.contexts.token_ids.shape[1]),
        "positions": list(target.positions) if target.positions is not None else None,
        "train_tokens": target.train_tokens,
        "split": split,
        "seed": target.seed,
        "dtype": str(getattr(model, "dtype", target.dtype)).removeprefix("torch."),
        "profile": spec.profile,
        "intercept": intercept,
        "null": spec.null,
        # Only where it is so: what was measured without it keeps its fingerprint.
        **({"special_tokens": "included"} if target.include_special else {}),
        **({} if loaded.outliers is None else {"outliers": loaded.outliers.factor}),
    }


def _contents(sae: LoadedSae) -> str:
    """What an SAE computes: its files, and the gate where those leave a choice."""
    return sae.weights_hash if sae.gate is None else f"{sae.weights_hash}, {sae.gate}"


def provenance(made_from: Mapping[str, Any], fit: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The `provenance` of a result: its identity, the hash of that, and what the fit was like.

    Args:
        made_from: of `identity`, with what the experiment adds to it.
        fit: of `fit_facts`; None: nothing was fitted to a model.
    """
    return {
        "fingerprint": digest({key: value for key, value in made_from.items() if key not in NOT_HASHED}),
        **made_from,
        **(fit or {}),
        "program_version": __version__,
        "versions": versions(),
    }


def fit_facts(plan: Plan, *, d: int, fitted: Mapping[str, Any]) -> dict[str, Any]:
    """How many tokens a fit had, and how well conditioned it was.

    Args:
        plan: of the run.
        d: width of x.
        fitted: effective_rank, condition_number and constant_share of the fit.
    """
    return {
        "d": d,
        "n_train": plan.n_train,
        "n_test": plan.n_test,
        "n_train_per_d": plan.n_train / d,
        "effective_rank": fitted["effective_rank"],
        "condition_number": fitted["condition_number"],
        "q": fitted["constant_share"],
    }


def versions() -> dict[str, str]:
    """Installed versions of the libraries that compute, by distribution name; imports none of them."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
