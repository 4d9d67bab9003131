"""What stored results say of one latent: its explanation, and how well that was borne out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from inspector.errors import InspectorError
from inspector.experiments._interpretability import ID
from inspector.store.index import list_results
from inspector.store.results import load, results_folder

if TYPE_CHECKING:
    from inspector.spec import SaeRef

Said = tuple[str, float | None]
"""Explanation, and balanced accuracy if it was scored."""


class KnownLatents:
    """Looks latents up in the stored results of one model; reads each file once.

    Args:
        model: name of the model, as results have it.
        hook_name: of its SAEs.
        folder: of the results; None: `results_folder()`.
    """

    def __init__(self, model: str, hook_name: str, folder: Path | None = None) -> None:
        self._model, self._hook_name, self._folder = model, hook_name, folder or results_folder()
        self._read: dict[tuple[str, str], dict[tuple[str, str, int], Said]] = {}
        """By id and time of a result: what it says by sae, release and latent."""

    def find(self, ref: SaeRef, index: int) -> Said | None:
        """Of the newest scoring that explains this latent of this SAE; damaged results are passed over."""
        for record in list_results(self._folder).records:  # newest first
            if record.experiment != ID or (record.model, record.hook_name) != (self._model, self._hook_name):
                continue
            key = record.id, record.created
            if key not in self._read:
                self._read[key] = self._said(record.id)
            found = self._read[key].get((ref.sae_id, ref.release, index))
            if found is not None:
                return found
        return None

    def _said(self, result_id: str) -> dict[tuple[str, str, int], Said]:
        try:
            result = load(result_id, folder=self._folder).result
            releases = {row["sae"]: row["release"] for row in result["saes"]}
            return {
                (each["sae"], releases[each["sae"]], each["latent"]): (each["explanation"], each["balanced_accuracy"])
                for each in result["result"]["latents"]
                if each["explanation"] is not None
            }
        except (InspectorError, KeyError, TypeError):  # damaged, or of another version: it says nothing
            return {}
