"""Weights are hashed beside everything else, and what is wrong with them is raised where it was asked for."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any

import pytest

from inspector.errors import TargetError
from inspector.events import Loading
from inspector.sources import target
from inspector.sources.target import hashed


class Slow:
    """Hashed once somebody has looked three times."""

    def __init__(self, looked: threading.Event) -> None:
        self.looked = looked
        self.thread = ""

    @cached_property
    def weights_hash(self) -> str:
        assert self.looked.wait(60)
        self.thread = threading.current_thread().name
        return "abc"


class Changed:
    @property
    def weights_hash(self) -> str:
        raise TargetError("w changed. Start again.")


class FakeLoaded:
    def __init__(self, model: Any, *saes: Any) -> None:
        self.model, self.saes = model, saes


def test_whoever_waits_is_asked_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "HASH_QUIET_SECONDS", 0.01)
    monkeypatch.setattr(target, "HASH_STEP_SECONDS", 0.01)
    looked = threading.Event()
    slow = Slow(looked)
    work = hashed(FakeLoaded(slow, Slow(looked)))  # type: ignore[arg-type]
    told = [next(work) for _ in range(3)]
    assert told == [Loading(what="checksums of the weights", done=0, total=2)] * 3
    looked.set()
    for event in work:
        assert isinstance(event, Loading) and event.total == 2
    assert vars(slow)["weights_hash"] == "abc" and slow.thread.startswith("hash")


def test_what_is_hashed_already_says_nothing() -> None:
    looked = threading.Event()
    looked.set()
    slow = Slow(looked)
    assert slow.weights_hash == "abc"
    assert list(hashed(FakeLoaded(slow))) == []  # type: ignore[arg-type]


def test_changed_weights_are_told() -> None:
    with pytest.raises(TargetError, match="w changed"):
        list(hashed(FakeLoaded(Changed())))  # type: ignore[arg-type]
