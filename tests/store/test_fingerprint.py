"""A digest that depends on content alone."""

from __future__ import annotations

import pytest

from inspector.disk.sealed import digest
from inspector.store.fingerprint import versions


def test_the_digest_is_that_of_the_content() -> None:
    assert digest({"a": 1, "b": [1.5, None]}) == digest({"b": [1.5, None], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest([1, 2]) != digest([2, 1])
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_what_json_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        digest({"a": float("nan")})
    with pytest.raises(TypeError):
        digest({"a": object()})


def test_versions_of_what_computes_are_known() -> None:
    assert {"torch", "numpy"} <= set(versions())
