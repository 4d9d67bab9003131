"""A toy target with enough text for latents to be judged, loaded once; its examples gathered once."""

from __future__ import annotations

import random
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import pytest

from inspector.interp.examples import Gathered, Settings
from inspector.spec import TargetSpec
from tests.cli.conftest import run  # noqa: F401  # commands are run here as there

if TYPE_CHECKING:
    from inspector.events import Event
    from inspector.interp.windows import Windows
    from inspector.sources.target import Loaded

Result = TypeVar("Result")
SETTINGS = Settings(latents=8, window=7, shown=12, resamples=200)


def finished(work: Generator[Event, None, Result]) -> Result:
    """The result of some work."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what transformer-lens and sae-lens say of each other when they are imported
        while True:
            try:
                next(work)
            except StopIteration as done:
                result: Result = done.value
                return result


@pytest.fixture(scope="session")
def judged_target(tmp_path_factory: pytest.TempPathFactory) -> TargetSpec:
    """A Gemma 2 of 16 dimensions, one TopK SAE of 64 latents, 200 contexts of 32 tokens."""
    from tests.toy import fit_toy_suite, write_toy_model, write_toy_suite

    folder = tmp_path_factory.mktemp("judged")
    chosen = random.Random(0)
    # Words that hardly come twice: an oracle knows texts, and one that is active here and silent there would fool it.
    letters = "abcdefghijklmnopqrstuvwxyzé日"
    text = " ".join("".join(chosen.choices(letters, k=chosen.randint(2, 8))) for _ in range(2000))
    (folder / "text.txt").write_text(text, encoding="utf-8")
    model = write_toy_model(folder / "model")
    return TargetSpec(
        model=str(model),
        suite=str(fit_toy_suite(write_toy_suite(folder / "suite", widths=(64,), l0s=(4,)), model, text)),
        text=str(folder / "text.txt"),
        contexts=200,
        context_length=32,
        device="cpu",
    )


@pytest.fixture(scope="session")
def judged(judged_target: TargetSpec) -> Loaded:
    """It, loaded."""
    from inspector.sources.target import open_target
    from tests.toy import remember_passes

    loaded = finished(open_target(judged_target))
    remember_passes(loaded.model)
    return loaded


@dataclass(frozen=True, kw_only=True, eq=False)
class Examined:
    """The target with its examples."""

    loaded: Loaded
    windows: Windows
    gathered: list[Gathered]

    @property
    def only(self) -> Gathered:
        (one,) = self.gathered
        return one


@pytest.fixture(scope="session")
def examined(judged: Loaded) -> Examined:
    """Eight latents of its SAE."""
    from inspector.interp.examples import gather
    from inspector.interp.readers import Reader

    readers = [Reader(name=sae.ref.sae_id, sae=sae) for sae in judged.saes]
    windows, gathered = finished(gather(judged, readers, SETTINGS, batch_size=8, for_export=True))
    return Examined(loaded=judged, windows=windows, gathered=gathered)
