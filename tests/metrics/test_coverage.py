"""Precision, recall, density and coverage on sets whose answer is known."""

from __future__ import annotations

import pytest
import torch

from rheos.core import InputError, Rng
from rheos.metrics import manifold


def normal(n: int, seed: int, d: int = 2) -> torch.Tensor:
    return Rng(seed).normal(n, d, dtype=torch.float64)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_identical_sets(k: int) -> None:
    x = normal(100, 0)
    found = manifold(x, x[Rng(1).permutation(100)], k)
    assert (found.precision, found.recall, found.coverage) == (1.0, 1.0, 1.0)
    # Each closed ball holds its centre and its k neighbours.
    assert found.density == pytest.approx((k + 1) / k)


def test_disjoint_sets() -> None:
    assert set(manifold(normal(60, 0), normal(60, 1) + 100).asdict().values()) == {0.0}


def test_fresh_samples_of_one_law() -> None:
    found = manifold(normal(2000, 0), normal(2000, 1))
    assert found.precision > 0.95
    assert found.recall > 0.95
    assert found.density == pytest.approx(1.0, abs=0.05)
    assert found.coverage == pytest.approx(1 - 2**-5, abs=0.015)


def test_a_missing_mode_lowers_recall_and_coverage_alone() -> None:
    real = torch.cat([normal(300, 0), normal(300, 1) + 50])
    found = manifold(real, normal(600, 2))
    assert found.precision > 0.95
    assert found.recall == pytest.approx(0.5, abs=0.03)
    assert found.coverage == pytest.approx(0.5, abs=0.03)


def test_an_invented_mode_lowers_precision_and_density_alone() -> None:
    fake = torch.cat([normal(300, 0), normal(300, 1) + 50])
    found = manifold(normal(600, 2), fake)
    assert found.precision == pytest.approx(0.5, abs=0.03)
    assert found.density == pytest.approx(0.5, abs=0.05)
    assert found.recall > 0.95
    assert found.coverage > 0.8


def test_an_outlier_wins_precision_and_not_density() -> None:
    # One real outlier's ball reaches back over everything between it and the cloud.
    real = torch.cat([normal(200, 0), torch.tensor([[100.0, 0.0]])])
    between = torch.tensor([[60.0, 0.0]]) + 0.1 * normal(200, 1)
    found = manifold(real, between)
    assert found.precision == 1.0
    assert found.density == pytest.approx(1 / 5)


def test_a_line_by_hand() -> None:
    # Reals 0, 1, 3 with radii 1, 1, 2 (k = 1); fakes 1.5, 5.5 with radii 4, 4.
    found = manifold(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[1.5], [5.5]]), k=1)
    assert found.precision == 1 / 2
    assert found.density == 2 / 2
    assert found.coverage == pytest.approx(2 / 3)
    assert found.recall == 1.0


def test_more_neighbours_make_larger_balls() -> None:
    real, fake = normal(100, 0, 8), normal(100, 1, 8)
    values = [manifold(real, fake, k).coverage for k in (1, 3, 5, 9)]
    assert values == sorted(values)
    assert values[0] < values[-1]


@pytest.mark.parametrize("block", [1, 300, 5000])
def test_blocks_order_and_scale_change_nothing(block: int) -> None:
    real = normal(120, 0, 3)
    fake = torch.cat([normal(60, 1, 3), real[:30]])
    whole = manifold(real, fake)
    assert manifold(real, fake, block=block) == whole
    assert manifold(real.flip(0), fake.flip(0)) == whole
    assert manifold(100 * real + 7, 100 * fake + 7) == whole


def test_exchanging_the_sides_exchanges_precision_and_recall() -> None:
    real, fake = normal(80, 0), 2 * normal(90, 1)
    forward, back = manifold(real, fake), manifold(fake, real)
    assert (forward.precision, forward.recall) == (back.recall, back.precision)


def test_too_few_points_are_refused() -> None:
    with pytest.raises(InputError, match="lower k"):
        manifold(normal(5, 0), normal(50, 1), k=5)
