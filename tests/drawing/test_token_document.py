from __future__ import annotations

import pytest

from inspector.drawing.token_document import TokenDocument
from tests.drawing.documents import columns, document, floats


def test_scalars_are_those_of_the_token_and_the_sae() -> None:
    doc = document(["a", "b"], linear=[3.0, 6.0], nonlinear=[4.0, 8.0], excluded=1, n_saes=2)
    token = doc.scalars(1, 1)
    assert token == (1.5, 10.0, 16.0, 10.0, 6.0, 8.0)
    assert not doc.is_included(0)
    assert list(doc.included()) == [1]
    assert len(doc) == 2


def test_columns_of_different_lengths_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="SAE 0, column 0 has 3 values but there are 1 token_ids"):
        TokenDocument(
            source="context",
            token_ids=[1],
            tokens=["a"],
            split=["h"],
            loss=floats([1]),
            x_norm=floats([1]),
            saes=(columns(3),),
        )


def test_extending_appends_every_column_and_repairs_the_loss_before() -> None:
    doc = document(["a", "b"], linear=[3.0, 3.0], nonlinear=[4.0, 4.0], source="generated")
    doc.extend(
        start=2,
        token_ids=[9],
        tokens=["c"],
        split=["h"],
        loss=floats([float("nan")]),
        x_norm=floats([7.0]),
        saes=[columns(1, linear=[6.0], nonlinear=[8.0])],
        loss_before=0.25,
    )
    assert doc.tokens == ["a", "b", "c"]
    assert doc.loss[1] == 0.25
    assert doc.scalars(2, 0).sae_error_norm == 10.0


@pytest.mark.parametrize(("start", "n_saes"), [(1, 1), (3, 1), (2, 0)])
def test_tokens_that_do_not_follow_are_refused(start: int, n_saes: int) -> None:
    doc = document(["a", "b"])
    with pytest.raises(ValueError, match="but 2 tokens for 1 are there"):
        doc.extend(
            start=start,
            token_ids=[9],
            tokens=["c"],
            split=["h"],
            loss=floats([0]),
            x_norm=floats([0]),
            saes=[columns(1)] * n_saes,
        )
    assert len(doc) == 2
