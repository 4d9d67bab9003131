"""The registry of the installed sae-lens: all of it, the picks that are known, the slips that must not get through."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inspector.errors import TargetError
from inspector.sources import registry as registry_module
from inspector.sources.published import published_refs
from inspector.sources.registry import Registry, load_index, load_registry, parse
from inspector.sources.suites import select
from inspector.spec import SaeRef, TargetSpec

NINE, TWO = "google/gemma-2-9b", "google/gemma-2-2b"


@pytest.fixture(scope="module", autouse=True)
def parsed_once() -> Iterator[None]:
    """The same bytes are the same index: reading them takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry_module, "parse", functools.cache(parse))
        yield


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(load_index(folder=tmp_path_factory.mktemp("index")))


def refs(registry: Registry, model: str, layer: int, **fields: object) -> list[SaeRef]:
    target = TargetSpec(model=model, layers=(layer,), cache_dir="/nowhere", **fields)  # type: ignore[arg-type]
    return select(published_refs(registry, model, target), target)


def test_every_release_and_every_sae_is_there(registry: Registry) -> None:
    """Counts of the pinned version, 6.54.12."""
    assert len(registry.releases()) == 170
    assert sum(len(registry.entries(release)) for release in registry.releases()) == 13_857


@pytest.mark.parametrize(
    ("model", "layer", "n", "picks"),
    [(NINE, 20, 34, [58, 57, 55, 62, 50, 48, 57]), (TWO, 12, 40, [41, 76, 72, 67, 67, 65, 58])],
)
def test_the_suites_of_the_paper_and_their_picks_nearest_l0_60(
    registry: Registry, model: str, layer: int, n: int, picks: list[int]
) -> None:
    everything = refs(registry, model, layer)
    assert len(everything) == n
    assert sorted({ref.d_sae for ref in everything}) == [2**k for k in range(14, 21)]
    assert [ref.nominal_l0 for ref in refs(registry, model, layer, l0=60.0)] == picks


# Nominal L0s nearest to 50, layer 0 upward, of spec section 12.
DEPTH = {
    (TWO, 2**14): [46, 40, 53, 59, 60, 34, 36, 36, 37, 37, 39, 41, 41],
    (NINE, 2**14): [35, 31, 67, 37, 37, 37, 47, 46, 51, 51, 57, 60, 64, 65, 35, 65, 39, 38, 37, 35, 58, 36, 35, 63],
    (NINE, 2**17): [41, 56, 36, 46, 51, 51, 36, 38, 41, 42, 47, 49, 52, 54, 56, 55, 35, 64, 62, 60, 53, 58, 58, 56],
}


@pytest.mark.parametrize(("model", "width"), DEPTH)
def test_the_depth_series(registry: Registry, model: str, width: int) -> None:
    found = [refs(registry, model, layer, l0=50.0, widths=(width,))[0].nominal_l0 for layer in range(10)]
    assert found == DEPTH[model, width][:10]


@pytest.mark.parametrize(
    ("typed", "model"),
    [
        ("gemma-2-9b", NINE),
        ("GEMMA-2-2B", TWO),
        ("google/gemma-2-9b-it", "google/gemma-2-9b-it"),
        ("llama-3.1-8b", "meta-llama/Llama-3.1-8B"),
        ("gpt2", "openai-community/gpt2"),
        ("gpt2-small", "openai-community/gpt2"),
        ("pythia-70m-deduped", "EleutherAI/pythia-70m-deduped"),
        ("gemma-3-1b-pt", "google/gemma-3-1b-pt"),
        ("no-such-model", None),
    ],
)
def test_names_of_models(registry: Registry, typed: str, model: str | None) -> None:
    assert registry.model_id(typed) == model


@pytest.mark.parametrize(
    ("model", "site", "releases"),
    [
        (NINE, "resid", ["gemma-scope-9b-pt-res"]),
        (NINE, "mlp", ["gemma-scope-9b-pt-mlp"]),
        (TWO, "attn", ["gemma-scope-2b-pt-att"]),
        ("google/gemma-2-9b-it", "resid", ["gemma-scope-9b-it-res"]),  # which names the base model
        ("meta-llama/Llama-3.1-8B", "resid", ["llama_scope_lxr_32x", "llama_scope_lxr_8x"]),
    ],
)
def test_the_default_suite_of_a_model(registry: Registry, model: str, site: str, releases: list[str]) -> None:
    assert registry.default_releases(model, site) == releases  # type: ignore[arg-type]


def test_llama_scope_entries_have_width_l0_hook_and_norm_factor(registry: Registry) -> None:
    (ref,) = refs(registry, "meta-llama/Llama-3.1-8B", 15, widths=(2**15,))
    assert (ref.hook_name, ref.d_in, ref.nominal_l0, ref.format) == (
        "blocks.15.hook_resid_post",
        4096,
        50,
        "llama-scope",
    )
    assert ref.norm_factor == pytest.approx(5.919, abs=5e-4)


def test_a_missing_l0_is_unknown_and_never_zero(registry: Registry) -> None:
    nominal = [entry.nominal_l0 for release in registry.releases() for entry in registry.entries(release)]
    assert None in nominal
    assert min(l0 for l0 in nominal if l0 is not None) > 0


def test_transcoders_are_never_offered_as_saes(registry: Registry) -> None:
    for release in registry.releases():
        if "transcoder" in release or "clt" in release.split("-"):
            assert all(entry.refused and "transcoder" in entry.refused for entry in registry.entries(release)), release


def test_all_that_is_no_transcoder_is_offered_but_three_temporal_saes(registry: Registry) -> None:
    entries = [entry for release in registry.releases() for entry in registry.entries(release)]
    others = [entry for entry in entries if entry.refused is None or "transcoder" not in entry.refused]
    refused = [entry.refused for entry in others if entry.refused is not None]
    assert (len(others), len(refused)) == (10_021, 3)
    assert all("temporal" in why for why in refused)
    assert {entry.release: entry.d_sae for entry in others if entry.release.startswith("qwen-scope-3.5-27b")} == {
        "qwen-scope-3.5-27b-w80k-l50": 81_920,
        "qwen-scope-3.5-27b-w80k-l100": 81_920,
    }


def test_the_release_that_has_the_layer_is_found(registry: Registry) -> None:
    model = registry.model_id("gpt2")
    assert model is not None
    (release,) = registry.default_releases(model, "resid", (8,))
    assert any(entry.hook_name == "blocks.8.hook_resid_post" for entry in registry.entries(release))
    (release,) = registry.default_releases(model, "attn", (8,))
    hooks = {entry.hook_name for entry in registry.entries(release)}
    assert hooks & {"blocks.8.attn.hook_z", "blocks.8.hook_attn_out"}


def test_slips_of_the_registry_give_no_link(registry: Registry) -> None:
    """Some ids name another layer, width or L0 than the SAE they stand with."""
    entries = {(e.layer, e.d_sae, e.nominal_l0): e for e in registry.entries("gemma-scope-9b-pt-res")}
    link = entries[20, 2**17, 114].neuronpedia
    assert link is None or not link.endswith("12")
    assert entries[2, 2**14, 8].neuronpedia is None
    assert entries[20, 2**17, 62].neuronpedia == "gemma-2-9b/20-gemmascope-res-131k__l0-62"
    for (layer, _, nominal), entry in entries.items():
        if entry.neuronpedia is not None:
            assert f"/{layer}-" in entry.neuronpedia
            assert "__l0-" not in entry.neuronpedia or entry.neuronpedia.endswith(f"__l0-{nominal:g}")


def test_sizes_are_those_of_the_published_files(registry: Registry) -> None:
    (ref,) = refs(registry, NINE, 20, l0=60.0, widths=(2**14,))
    assert ref.n_bytes == 4 * (2 * 3584 * 2**14 + 2 * 2**14 + 3584)
    assert not ref.on_disk
    assert refs(registry, NINE, 20, site="attn", widths=(2**14,))[0].d_in == 4096


def test_names_that_leave_the_repository_or_obey_a_terminal_are_left_out() -> None:
    saes = "\n".join(f'  - {{id: "{name}", path: "{path}"}}' for name, path in HOSTILE)
    index = parse(f"evil:\n  model: gemma-2-2b\n  repo_id: a/b\n  conversion_func: gemma_2\n  saes:\n{saes}\n".encode())
    assert [entry.sae_id for entry in Registry(index).entries("evil")] == ["good"]


HOSTILE = [
    ("good", "layer_1/width_16k/average_l0_5"),
    ("up", "../../etc"),
    ("inside", "layer_1/../../x"),
    ("root", "/etc/passwd"),
    ("bell", "layer_1/\\x07"),
    ("esc\\x1b[2J", "layer_1/a"),
    ("windows", "..\\\\x"),
]


def test_what_is_no_registry_is_said() -> None:
    for raw in (b"[1, 2]", b"{", b"\xff\xfe"):
        with pytest.raises(TargetError, match="registry of sae-lens"):
            parse(raw)


def test_a_damaged_index_is_made_anew_and_an_unwritable_folder_does_no_harm(tmp_path: Path) -> None:
    first = load_index(tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_text()
    path.write_text(whole.replace("gemma-scope-9b-pt-res", "gemma-scope-9b-pt-rex", 1))
    assert load_index(tmp_path) == first
    assert path.read_text() == whole
    (tmp_path / "file").write_text("")
    assert load_index(folder=tmp_path / "file") == first


def test_the_list_needs_neither_torch_nor_sae_lens_nor_a_socket(tmp_path: Path) -> None:
    code = """
import socket, sys
def refuse(*_): raise AssertionError("a socket was made")
socket.socket = refuse
from inspector.cli.failures import run_command
from inspector.cli.main import dm_inspect
asked = ["suites", "--model", "gemma-2-9b", "--layer", "20", "--l0", "60", "--json"]
code = run_command(dm_inspect, asked, open_app=None)
heavy = {"torch", "sae_lens", "transformers", "numpy", "huggingface_hub"} & set(sys.modules)
assert not heavy, heavy
sys.exit(code)
"""
    root = str(Path(registry_module.__file__).parents[2])
    environment = {"PATH": "/usr/bin", "HOME": str(tmp_path), "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["saes"]
    assert [sae["nominal_l0"] for sae in found] == [58, 57, 55, 62, 50, 48, 57]
    assert {sae["on_disk"] for sae in found} == {False}


def test_an_unknown_release_names_the_nearest(registry: Registry) -> None:
    with pytest.raises(TargetError, match="gemma-scope-9b-pt-res"):
        registry.entries("gemma-scope-9b-pt-rse")


def test_the_registry_is_read_once_per_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry_module, "user_folder", lambda _: tmp_path)
    load_registry()
    monkeypatch.setattr(registry_module, "registry_file", lambda: pytest.fail("the YAML was read again"))
    assert load_registry().model_id("gemma-2-9b") == NINE
