"""Toys written and loaded once for the whole folder: loading the libraries is what these tests spend their time on."""

from pathlib import Path

import pytest
import torch

from inspector.sources.loading import load_model
from inspector.sources.model import LanguageModel
from inspector.spec import TargetSpec
from tests.toy import write_toy_model


@pytest.fixture(scope="session")
def toy_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the toy models by kind."""
    root = tmp_path_factory.mktemp("models")
    return {kind: write_toy_model(root / kind, kind) for kind in ("gemma2", "llama")}  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def toys(toy_dirs: dict[str, Path]) -> dict[str, LanguageModel]:
    """The toy models, loaded, by kind."""
    torch.set_num_threads(1)
    return {kind: load_model(TargetSpec(model=str(path), device="cpu")) for kind, path in toy_dirs.items()}


@pytest.fixture(params=["gemma2", "llama"])
def model(request: pytest.FixtureRequest, toys: dict[str, LanguageModel]) -> LanguageModel:
    """Each toy in turn."""
    return toys[request.param]


@pytest.fixture
def tokens() -> torch.Tensor:
    """[4, 24] token ids of the toys, BOS first; longer than half the Gemma toy's window is not needed by every test."""
    ids = torch.randint(3, 300, (4, 24), generator=torch.Generator().manual_seed(5))
    ids[:, 0] = 1
    return ids
