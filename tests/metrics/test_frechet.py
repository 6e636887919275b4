"""The Frechet distance against closed forms on clouds whose moments are known exactly."""

from __future__ import annotations

import itertools

import pytest
import scipy.linalg
import torch

from rheos.core import Rng, ShapeError
from rheos.metrics import Moments, frechet_distance


def whitened(n: int, d: int, seed: int) -> torch.Tensor:
    """A cloud with mean 0 and unbiased covariance 1, to rounding."""
    x = Rng(seed).normal(n, d, dtype=torch.float64)
    x = x - x.mean(0)
    return torch.linalg.qr(x).Q * (n - 1) ** 0.5


def test_diagonal_gaussians() -> None:
    x, y = whitened(200, 3, 0), whitened(300, 3, 1)
    scale_x, scale_y = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 2.0, 0.5])
    shift = torch.tensor([1.0, -2.0, 2.0])
    # Commuting covariances: |shift|^2 plus the squared gaps of the standard deviations.
    assert frechet_distance(x * scale_x, y * scale_y + shift) == pytest.approx(9 + 9 + 0 + 6.25, rel=1e-12)


def test_one_dimension() -> None:
    x = whitened(50, 1, 0)
    assert frechet_distance(3 * x + 1, 5 * x - 1) == pytest.approx(8.0, rel=1e-12)


def test_general_covariances_against_scipys_square_root() -> None:
    x, y = (Rng(s).normal(100, 6, dtype=torch.float64) @ Rng(s + 9).normal(6, 6, dtype=torch.float64) for s in (0, 1))
    a, b = torch.cov(x.T).numpy(), torch.cov(y.T).numpy()
    gap = float((x.mean(0) - y.mean(0)).square().sum())
    truth = gap + (a + b - 2 * scipy.linalg.sqrtm(a @ b).real).trace()
    assert frechet_distance(x, y) == pytest.approx(truth, rel=1e-9)


def test_rank_deficient_clouds() -> None:
    # Two points each in 50 dimensions: variance 2 along the first axis against 2 along the second.
    x, y = torch.zeros(2, 50), torch.zeros(2, 50)
    x[:, 0] = torch.tensor([-1.0, 1.0])
    y[:, 1] = torch.tensor([-1.0, 1.0])
    assert frechet_distance(x, y) == pytest.approx(4.0, abs=1e-12)
    assert frechet_distance(x, 2 * x) == pytest.approx(2.0, abs=1e-12)
    few = Rng(0).normal(10, 200, dtype=torch.float64)
    assert frechet_distance(few, few) == pytest.approx(0.0, abs=1e-9)
    # Constant features have no covariance at all.
    assert frechet_distance(torch.ones(3, 4), torch.zeros(3, 4)) == pytest.approx(4.0, abs=1e-12)


def test_symmetric_and_invariant_under_rotation_and_order() -> None:
    x, y = Rng(0).normal(80, 5, dtype=torch.float64), Rng(1).normal(60, 5, dtype=torch.float64) * 2 + 1
    value = frechet_distance(x, y)
    turn = torch.linalg.qr(Rng(2).normal(5, 5, dtype=torch.float64)).Q
    assert frechet_distance(y, x) == pytest.approx(value, rel=1e-12)
    assert frechet_distance(x @ turn, y @ turn) == pytest.approx(value, rel=1e-12)
    assert frechet_distance(x.flip(0), y) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_streamed_moments_equal_those_of_the_whole(size: int) -> None:
    x = Rng(0).normal(100, 4) + 1e4
    whole, parts = Moments.of(x), Moments.stream(x.split(size))
    assert parts.count == 100
    torch.testing.assert_close(parts.mean, whole.mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(parts.covariance, torch.cov(x.double().T), rtol=1e-9, atol=1e-9)
    assert parts.distance(whole) == pytest.approx(0.0, abs=1e-8)


def test_triangle_inequality_of_the_root() -> None:
    clouds = [Rng(s).normal(40, 3, dtype=torch.float64) * (1 + s) + s for s in range(4)]
    for a, b, c in itertools.permutations(clouds, 3):
        assert frechet_distance(a, c) ** 0.5 <= frechet_distance(a, b) ** 0.5 + frechet_distance(b, c) ** 0.5 + 1e-9


def test_refusals() -> None:
    x = torch.zeros(4, 3)
    with pytest.raises(ShapeError, match="same extractor"):
        frechet_distance(x, torch.zeros(4, 2))
    with pytest.raises(ShapeError, match="two points"):
        frechet_distance(x, x[:1])
    with pytest.raises(ShapeError, match="at least one batch"):
        Moments.stream([])
