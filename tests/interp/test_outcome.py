"""What the latent view is told about a latent: of the newest scoring that explains it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from inspector.interp.outcome import KnownLatents
from inspector.spec import SaeRef
from inspector.store.results import save


def ref(sae_id: str = "s", release: str = "r") -> SaeRef:
    return SaeRef(sae_id=sae_id, release=release, layer=1, hook_name="h", d_in=4, d_sae=9)


def scoring(fingerprint: str, latents: list[dict[str, Any]], **made: Any) -> dict[str, Any]:
    return {
        "experiment": "interp", "profile": "careful", "definition": "", "saes": [{"sae": "s", "release": "r"}],
        "provenance": {"fingerprint": fingerprint, "model": "m", "hook_name": "h", **made},
        "result": {"latents": latents}, "intervals": {}, "controls": {}, "warnings": [],
    }  # fmt: skip


def latent(index: int, explanation: str | None, score: float | None) -> dict[str, Any]:
    return {"sae": "s", "latent": index, "explanation": explanation, "balanced_accuracy": score}


def test_nothing_stored_says_nothing(tmp_path: Path) -> None:
    assert KnownLatents("m", "h", tmp_path / "none").find(ref(), 3) is None


def test_the_newest_scoring_that_explains_it_counts(tmp_path: Path) -> None:
    save(scoring("a" * 64, [latent(3, "old", 0.5), latent(4, "only", None)]), "c", folder=tmp_path)
    path = next(tmp_path.glob("interp-a*.json"))
    older = json.loads(path.read_text())
    assert older["result"]["result"]["latents"][0]["explanation"] == "old"
    time.sleep(1.1)  # results are dated to the second
    save(scoring("b" * 64, [latent(3, "new", 0.9), latent(4, None, None)]), "c", folder=tmp_path)
    known = KnownLatents("m", "h", tmp_path)
    assert known.find(ref(), 3) == ("new", 0.9)
    assert known.find(ref(), 4) == ("only", None)
    assert known.find(ref(), 5) is None


def test_another_model_hook_sae_or_release_says_nothing(tmp_path: Path) -> None:
    save(scoring("a" * 64, [latent(3, "it", 0.5)]), "c", folder=tmp_path)
    assert KnownLatents("m", "h", tmp_path).find(ref(), 3) == ("it", 0.5)
    assert KnownLatents("m2", "h", tmp_path).find(ref(), 3) is None
    assert KnownLatents("m", "h2", tmp_path).find(ref(), 3) is None
    assert KnownLatents("m", "h", tmp_path).find(ref(sae_id="other"), 3) is None
    assert KnownLatents("m", "h", tmp_path).find(ref(release="other"), 3) is None


def test_a_damaged_result_is_passed_over_and_a_new_one_is_seen(tmp_path: Path) -> None:
    (tmp_path / "interp-dddddddddd.json").write_text("{")
    save(scoring("c" * 64, [{"sae": "s"}]), "c", folder=tmp_path)
    known = KnownLatents("m", "h", tmp_path)
    assert known.find(ref(), 3) is None
    save(scoring("e" * 64, [latent(3, "it", 0.5)]), "c", folder=tmp_path)
    assert known.find(ref(), 3) == ("it", 0.5)
