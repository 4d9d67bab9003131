"""Cosines and greedy fits over blocks of rows, against NumPy in float64 on the whole matrix."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TypeVar

import numpy as np
import pytest
import torch

from inspector.engine.directions import Blocks, explained_by, greedy_fit, nearest_rows, random_like

R = TypeVar("R")
ROWS = torch.randn(50, 12, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 9.0, 50)[:, None]
VECTORS = torch.randn(7, 12, generator=torch.Generator().manual_seed(1))


def by(rows: torch.Tensor, size: int) -> Blocks:
    def blocks() -> Iterator[tuple[int, torch.Tensor]]:
        for start in range(0, len(rows), size):
            yield start, rows[start : start + size]

    return blocks


def drained(work: Generator[None, None, R]) -> tuple[R, int]:
    """What it returns, and its steps."""
    steps = 0
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value, steps
        steps += 1


def cosines() -> np.ndarray:
    rows, vectors = (each.double().numpy() for each in (ROWS, VECTORS))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) @ (
        rows / np.linalg.norm(rows, axis=1, keepdims=True)
    ).T


@pytest.mark.parametrize("size", [50, 7, 1])
@pytest.mark.parametrize("signed", [True, False])
def test_nearest_rows_are_those_of_the_whole_matrix_whatever_the_blocks(size: int, signed: bool) -> None:
    (indices, values), steps = drained(nearest_rows(VECTORS, by(ROWS, size), 4, signed=signed))
    expected = cosines()
    order = np.argsort(-(expected if signed else np.abs(expected)), axis=1)[:, :4]
    np.testing.assert_array_equal(indices.numpy(), order)
    np.testing.assert_allclose(values.numpy(), np.take_along_axis(expected, order, axis=1), atol=1e-6)  # float32
    assert steps == -(-50 // size)


def omp(vector: np.ndarray, rows: np.ndarray, k: int) -> tuple[list[int], list[float]]:
    """Orthogonal matching pursuit, with the fit by least squares from scratch at every step."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    rest, chosen, explained = vector, [], []
    for _ in range(k):
        scores = np.abs(unit @ rest)
        scores[chosen] = -1.0
        chosen.append(int(scores.argmax()))
        basis = rows[chosen].T
        rest = vector - basis @ np.linalg.lstsq(basis, vector, rcond=None)[0]
        explained.append(1.0 - rest @ rest / (vector @ vector))
    return chosen, explained


@pytest.mark.parametrize("size", [50, 7])
def test_a_greedy_fit_is_orthogonal_matching_pursuit(size: int) -> None:
    fitted, _ = drained(greedy_fit(VECTORS, by(ROWS, size), 6))
    for i, vector in enumerate(VECTORS.double().numpy()):
        chosen, explained = omp(vector, ROWS.double().numpy(), 6)
        assert fitted.indices[i].tolist() == chosen
        np.testing.assert_allclose(fitted.explained[i].numpy(), explained, atol=1e-12)  # float64 on both sides


def test_what_is_made_of_three_rows_is_explained_by_them_alone() -> None:
    rows = torch.eye(12)
    vector = (2.0 * rows[3] - 1.0 * rows[8] + 0.5 * rows[1])[None]
    fitted, _ = drained(greedy_fit(vector, by(rows, 5), 5))
    assert fitted.indices[0, :3].tolist() == [3, 8, 1]
    np.testing.assert_allclose(fitted.explained[0].numpy(), [4 / 5.25, 5 / 5.25, 1, 1, 1], atol=1e-14)


def test_what_is_orthogonal_to_every_row_is_explained_by_none() -> None:
    rows = torch.cat([ROWS[:, :11], torch.zeros(50, 1)], dim=1)
    vector = torch.eye(12)[11:]
    fitted, _ = drained(greedy_fit(vector, by(rows, 20), 3))
    assert fitted.explained.tolist() == [[0.0, 0.0, 0.0]]
    assert float(explained_by(vector, rows)) == pytest.approx(0.0, abs=1e-12)


def test_rows_that_add_nothing_explain_nothing_more() -> None:
    rows = torch.stack([torch.eye(12)[0], 3.0 * torch.eye(12)[0], torch.zeros(12)])
    fitted, _ = drained(greedy_fit(torch.ones(1, 12), by(rows, 2), 3))
    np.testing.assert_allclose(fitted.explained[0].numpy(), [1 / 12] * 3, atol=1e-14)
    assert fitted.indices[0].tolist() == [0, -1, -1], "nothing left points along it"


def test_the_share_in_a_span_is_that_of_the_projection() -> None:
    few = ROWS[:5].double().numpy()
    projector = few.T @ np.linalg.pinv(few.T)
    for share, vector in zip(explained_by(VECTORS, ROWS[:5]), VECTORS.double().numpy(), strict=True):
        part = projector @ vector
        assert float(share) == pytest.approx(part @ part / (vector @ vector), abs=1e-12)
    # Rows twice span no more, and all of them the whole space.
    torch.testing.assert_close(explained_by(VECTORS, torch.cat([ROWS[:5], ROWS[:5]])), explained_by(VECTORS, ROWS[:5]))
    torch.testing.assert_close(explained_by(VECTORS, ROWS), torch.ones(7, dtype=torch.float64))


def test_random_vectors_are_as_long_the_same_again_and_explained_as_chance_has_it() -> None:
    drawn = random_like(VECTORS[0], 4000, (1, 2))
    torch.testing.assert_close(drawn.norm(dim=1), VECTORS[0].norm().expand(4000))
    assert torch.equal(drawn, random_like(VECTORS[0], 4000, (1, 2)))
    assert not torch.equal(drawn, random_like(VECTORS[0], 4000, (1, 3)))
    # Beta(5/2, 7/2): mean 5/12, deviation 0.19, so the mean of 4000 is within 5 x 0.003.
    assert float(explained_by(drawn, ROWS[:5]).mean()) == pytest.approx(5 / 12, abs=0.015)
