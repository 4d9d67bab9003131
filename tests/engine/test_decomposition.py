"""The identities of the decomposition, token by token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inspector.engine.decomposition import decompose, sae_error
from inspector.engine.moments import Moments
from inspector.engine.regression import Factorisation, LinearMap
from tests.engine.toy import least_squares, toy


def error_map(x: torch.Tensor, x_hat: torch.Tensor) -> LinearMap:
    moments = Moments(x.shape[1])
    moments.update(x, {"error": x - x_hat})
    return Factorisation(moments).fit("error")


def test_the_sign_is_x_minus_x_hat() -> None:
    assert sae_error(torch.tensor([[3.0]]), torch.tensor([[1.0]])).item() == 2.0


def test_s01_parts_sum_to_x_at_every_token_in_float32() -> None:
    """S-01, with outlier dimensions; 1e-4 relative is the promise, float32 leaves about 1e-7."""
    data = toy()
    scale = torch.ones(12)
    scale[:2] = 2000.0
    x, x_hat = data.x.float() * scale, data.x_hat.float() * scale
    parts = decompose(x, x_hat, error_map(x, x_hat))
    gap = (parts.x_hat + parts.linear_error + parts.nonlinear_error - x).norm(dim=1) / x.norm(dim=1)
    assert float(gap.max()) < 1e-5
    assert parts.sae_error.dtype == torch.float32


def test_parts_are_those_of_numpy() -> None:
    data = toy()
    parts = decompose(data.x, data.x_hat, error_map(data.x, data.x_hat))
    weight, bias = least_squares(data.x, data.error)
    linear = data.x.numpy() @ weight.T + bias
    np.testing.assert_allclose(parts.linear_error, linear, atol=1e-9)
    rest = data.error.numpy() - linear
    np.testing.assert_allclose(parts.nonlinear_error_norm, np.linalg.norm(rest, axis=1), rtol=1e-9)
    np.testing.assert_allclose(parts.linear_error_norm, np.linalg.norm(linear, axis=1), rtol=1e-9)
    np.testing.assert_allclose(parts.sae_error_norm, np.linalg.norm(data.error.numpy(), axis=1), rtol=1e-12)


def test_s09_the_nonlinear_error_is_minus_the_nonlinear_part_of_x_hat() -> None:
    data = toy()
    parts = decompose(data.x, data.x_hat, error_map(data.x, data.x_hat))
    weight, bias = least_squares(data.x, data.x_hat)
    of_x_hat = data.x_hat - torch.from_numpy(data.x.numpy() @ weight.T + bias)
    torch.testing.assert_close(parts.nonlinear_error, -of_x_hat, rtol=1e-9, atol=1e-9)


def test_s11_x_hat_plus_nonlinear_error_is_affine_in_x() -> None:
    data = toy()
    fitted = error_map(data.x, data.x_hat)
    parts = decompose(data.x, data.x_hat, fitted)
    affine = data.x @ (torch.eye(12).double() - fitted.weight).T - fitted.bias
    torch.testing.assert_close(parts.x_hat + parts.nonlinear_error, affine, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(parts.x_hat + parts.linear_error, data.x - parts.nonlinear_error, rtol=1e-10, atol=1e-10)


def test_shapes_that_differ_are_named() -> None:
    with pytest.raises(ValueError, match=r"x has shape \[2, 3\] but x_hat has shape \[2, 4\]"):
        sae_error(torch.zeros(2, 3), torch.zeros(2, 4))
