"""The tables of every published SAE in docs/suites.md are what their script makes, and what they name is there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from inspector.formats import LAYOUTS
from inspector.sources.registry import Index, Registry, load_index

ROOT = Path(__file__).parents[1]


def load_script(name: str) -> ModuleType:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("make_suites")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return load_index(folder=tmp_path_factory.mktemp("index"))


def test_the_page_is_what_the_script_makes(script: ModuleType, index: Index) -> None:
    text = script.PAGE.read_text(encoding="utf-8")
    assert script.page(text, script.tables(Registry(index), index)) == text, "run: python docs/make_suites.py"
    assert script.page(text, "other\n") != text


def test_9900_of_the_registrys_saes_load_and_each_of_the_rest_says_why(script: ModuleType, index: Index) -> None:
    registry = Registry(index)
    found = script.count([entry for release in registry.releases() for entry in registry.entries(release)])
    assert (found.total, found.saes) == (13_857, 10_021)
    assert found.loads >= 9_900
    assert found.total - found.loads == sum(found.reasons.values())
    assert all(len(reason) > 10 for reason in found.reasons)


def test_all_14_loaders_are_read_or_refused(script: ModuleType, index: Index) -> None:
    loaders = {kind: script.count(entries) for kind, entries in script.by_loader(Registry(index), index).items()}
    assert len(loaders) == 14
    refused = {kind for kind, found in loaders.items() if not found.loads}
    assert refused == {"gemma_2_transcoder", "mwhanna_transcoder", "mntss_clt_layer_transcoder", "temporal"}


def test_every_layout_that_is_read_is_held_by_tests(script: ModuleType, index: Index) -> None:
    registry = Registry(index)
    used = {
        layout for entries in script.by_loader(registry, index).values() for layout in script.count(entries).layouts
    }
    assert used == set(script.checks()) < {layout.name for layout in LAYOUTS}


def test_what_does_not_load_is_counted_with_its_reason(script: ModuleType, index: Index) -> None:
    """The counting can fail: a loader and a model that nobody knows."""
    (release,) = (name for name, about in index.items() if about["kind"] == "goodfire" and "70B" in about["repo"])
    about = index[release]
    for change, reason in (
        ({"kind": "new_trick"}, "of a kind that is not known here"),
        ({"model": "nobody/knows"}, "the model nobody/knows does not load: its architecture is not known here"),
    ):
        registry = Registry({release: {**about, **change}})
        found = script.count(registry.entries(release))
        assert (found.loads, found.total) == (0, 1)
        assert reason in next(iter(found.reasons))
