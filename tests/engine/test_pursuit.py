"""The pursuit against a plain dense one in numpy, and against scipy's non-negative least squares."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.optimize import nnls
from torch import Tensor

from inspector.engine import pursuit as engine
from inspector.engine.pursuit import Codes, Pursuit, Variant
from inspector.engine.screening import Screen, exact_integer_product

Array = npt.NDArray[np.float64]


@pytest.fixture(params=["weights in a matrix", "active sets"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of narrow decoders, as all of these are, and that of wide ones."""
    if request.param == "active sets":
        monkeypatch.setattr(engine, "NARROW", 0)


def dictionary(m: int = 300, d: int = 24, n: int = 60, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unit rows [m, d], bias [d], tokens [n, d], targets [n] from 0 to 8."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(m, d))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    bias = rng.normal(size=d)
    codes = (rng.random((n, m)) < 6 / m) * rng.exponential(size=(n, m))
    x = codes @ rows + bias + 0.1 * rng.normal(size=(n, d))
    as_torch = [torch.from_numpy(each).float() for each in (rows, bias, x)]
    return as_torch[0], as_torch[1], as_torch[2], torch.from_numpy(rng.integers(0, 9, size=n))


def dense(rows: Array, u: Array, target: int, *, paper_code: bool) -> Array:
    """One token, with a dense code, as the specification writes the algorithm."""
    w = np.zeros(len(rows))
    for _ in range(target):
        rest = u - w @ rows
        g = rows @ rest
        active = w > 0
        pick = int(np.argmax(g if paper_code else np.where(active, -np.inf, g)))
        active[pick] = True
        g = np.where(active, g, 0.0)
        direction = g @ rows
        w = np.maximum(w + (direction @ rest) / (direction @ direction) * g, 0.0)
    return w


def as_dense(codes: Codes, m: int) -> Array:
    found = np.zeros((len(codes.indices), m))
    for token, (places, values) in enumerate(zip(codes.indices.tolist(), codes.coefficients.tolist(), strict=True)):
        for place, value in zip(places, values, strict=True):
            if place >= 0:
                found[token, place] += value
    return found


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("variant", ["careful", "paper-code"])
@pytest.mark.parametrize(("m", "d"), [(300, 24), (48, 96)])
def test_it_is_the_dense_algorithm(m: int, d: int, variant: Variant) -> None:
    """Same supports, coefficients to 1e-4: float32 against float64, through up to eight steps."""
    rows, bias, x, targets = dictionary(m, d)
    pursuit = Pursuit(rows, bias, variant=variant)
    codes = pursuit.encode(x, targets)
    wide, u = rows.double().numpy(), (x - bias).double().numpy()
    expected = np.stack(
        [dense(wide, u[i], int(k), paper_code=variant == "paper-code") for i, k in enumerate(targets.tolist())]
    )
    ours = as_dense(codes, len(rows))
    assert ((ours > 0) == (expected > 0)).all()
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    np.testing.assert_allclose(pursuit.decode(codes), expected @ wide + bias.double().numpy(), atol=1e-4)
    assert (codes.l0.numpy() == (expected > 0).sum(axis=1)).all()


@pytest.mark.usefixtures("way")
def test_the_published_variant_uses_fewer_latents_than_it_may() -> None:
    """D-17: it picks active latents again."""
    rows, bias, x, targets = dictionary(n=300)
    careful, published = (
        Pursuit(rows, bias, variant=variant).encode(x, targets).l0.float().mean()
        for variant in ("careful", "paper-code")
    )
    assert published < careful <= targets.float().mean()


@pytest.mark.usefixtures("way")
def test_rows_of_other_lengths_are_rescaled_unless_as_published() -> None:
    rows, bias, x, targets = dictionary()
    lengths = torch.rand(len(rows), generator=torch.Generator().manual_seed(1)) + 0.5
    plain = Pursuit(rows, bias)
    scaled = Pursuit(rows * lengths[:, None], bias)
    assert plain.unit_norm and not scaled.unit_norm
    torch.testing.assert_close(
        scaled.decode(scaled.encode(x, targets)), plain.decode(plain.encode(x, targets)), atol=1e-4, rtol=0
    )
    published = Pursuit(rows * lengths[:, None], bias, variant="paper-code")
    wide = (rows * lengths[:, None]).double().numpy()
    expected = dense(wide, (x - bias).double().numpy()[3], int(targets[3]), paper_code=True)
    np.testing.assert_allclose(as_dense(published.encode(x[3:4], targets[3:4]), len(rows))[0], expected, atol=1e-4)


@pytest.mark.usefixtures("way")
def test_a_refit_is_scipys_non_negative_least_squares_on_the_support() -> None:
    rows, bias, x, targets = dictionary()
    careful, refit = (Pursuit(rows, bias, variant=variant).encode(x, targets) for variant in ("careful", "refit"))
    ours, before = as_dense(refit, len(rows)), as_dense(careful, len(rows))
    for i in range(len(x)):
        support = before[i].nonzero()[0]
        expected = np.zeros(len(rows))
        if len(support):
            expected[support] = nnls(rows[support].double().numpy().T, (x[i] - bias).double().numpy())[0]
        np.testing.assert_allclose(ours[i], expected, atol=1e-4)


@pytest.mark.usefixtures("way")
def test_an_explained_token_is_guarded_and_published_as_undefined() -> None:
    rows, bias = torch.eye(4), torch.zeros(4)
    x, targets = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]), torch.tensor([3, 1])
    careful = Pursuit(rows, bias).encode(x, targets)
    assert careful.l0.tolist() == [1, 1] and not careful.undefined.any()
    published = Pursuit(rows, bias, variant="paper-code").encode(x, targets)
    assert published.undefined.tolist() == [True, False]


@pytest.mark.parametrize("variant", ["careful", "refit"])  # where the published one divides 0 by 0, rounding decides
def test_narrow_decoders_are_pursued_as_wide_ones(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that overlap, so that coefficients are clamped; one between two others and one of zeros, so that they span
    less than they are; more steps than latents. x_hat to 1e-4 of x: float32 through forty steps.
    """
    rows, bias, x, _ = dictionary(m=32, d=80, n=200)
    rows = rows + 0.2
    rows[5], rows[7] = (rows[6] + rows[8]) / 2, 0.0
    targets = torch.arange(200) % 41
    made = []
    for narrow in (32, 31):
        monkeypatch.setattr(engine, "NARROW", narrow)
        pursuit = Pursuit(rows, bias, variant=variant)
        assert (pursuit._screen is None) == (narrow == 32)
        codes = pursuit.encode(x, targets)
        made.append((as_dense(codes, 32), pursuit.decode(codes)))
    (ours, x_hat), (theirs, expected) = made
    assert ((ours > 0) == (theirs > 0)).all()
    np.testing.assert_allclose(x_hat, expected, atol=1e-4 * float(x.norm(dim=1).mean()))


@pytest.mark.usefixtures("way")
def test_no_tokens_and_no_latents_to_use() -> None:
    rows, bias, x, _ = dictionary()
    pursuit = Pursuit(rows, bias)
    torch.testing.assert_close(pursuit.decode(pursuit.encode(x, torch.zeros(len(x), dtype=torch.int64))), bias + 0 * x)
    assert pursuit.encode(x[:0], torch.zeros(0, dtype=torch.int64)).indices.shape == (0, 0)


@pytest.mark.skipif(not exact_integer_product(torch.device("cpu")), reason="no exact 8-bit product here")
@pytest.mark.parametrize("kind", ["random", "near-copies", "of other lengths"])
def test_the_screen_finds_the_largest_of_all(kind: str) -> None:
    """Against float64 products; near-copies differ by less than 8 bits can tell, so the bound must send them on."""
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(20_000, 64))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    if kind == "near-copies":
        rows = np.repeat(rows[:400], 50, axis=0) + 1e-4 * rng.normal(size=(20_000, 64))
    if kind == "of other lengths":
        rows *= rng.exponential(size=(20_000, 1)) + 1e-3
    vectors = rng.normal(size=(40, 64)) + 3 * rows[:40]
    excluded = rng.integers(-1, 20_000, size=(40, 5))
    excluded[:, 0] = (vectors @ rows.T).argmax(axis=1)
    rows32, vectors32 = torch.from_numpy(rows).float(), torch.from_numpy(vectors).float()
    products = vectors32.double().numpy() @ rows32.double().numpy().T
    for token, places in enumerate(excluded):
        products[token, places[places >= 0]] = -np.inf
    screen = Screen(rows32)
    assert screen.n_bytes > 0
    found = screen.largest(vectors32, torch.from_numpy(excluded)).numpy()
    # Float32 cannot order what differs by less than its rounding: the value is compared, not the place.
    np.testing.assert_allclose(products[np.arange(40), found], products.max(axis=1), atol=1e-5)


def test_a_product_that_overflows_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    def saturating(left: Tensor, right: Tensor) -> Tensor:
        return (left.int() @ right.int()).clamp(-40_000, 40_000)

    exact_integer_product.cache_clear()
    monkeypatch.setattr(torch, "_int_mm", saturating)
    assert not exact_integer_product(torch.device("cpu"))
    assert Screen(torch.eye(16)).n_bytes == 0
    exact_integer_product.cache_clear()
