"""Closed forms, symmetry and independence of order and blocks for the distances between clouds."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from rheos.core import InputError, Rng, ShapeError
from rheos.metrics import energy_distance, median_distance, mmd, nearest_distance, sliced_wasserstein


def sliced(x: torch.Tensor, y: torch.Tensor) -> float:
    return sliced_wasserstein(x, y, 32, rng=3)


def mmd_at_one(x: torch.Tensor, y: torch.Tensor) -> float:
    return mmd(x, y, [1.0])


DISTANCES = [sliced, energy_distance, mmd_at_one, mmd]


def cloud(n: int, d: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return Rng(seed).normal(n, d, dtype=torch.float64) + shift


def test_energy_of_point_masses_is_twice_their_distance() -> None:
    x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    assert energy_distance(x, y) == pytest.approx(10.0, abs=1e-12)
    # With (0, 0) twice on one side nothing changes: V-statistics see distributions, not counts.
    assert energy_distance(x.expand(2, 2), y) == pytest.approx(10.0, abs=1e-12)


def test_energy_between_gaussians_meets_the_closed_form() -> None:
    # X - Y ~ N(1, 2), X - X' ~ N(0, 2): E|N(m, s^2)| is the mean of a folded normal.
    mean_abs = math.sqrt(4 / math.pi) * math.exp(-1 / 4) + math.erf(1 / 2)
    truth = 2 * mean_abs - 2 * math.sqrt(4 / math.pi)
    # Midpoint quantiles stand in for the distributions: no sampling error, N^-1 from the diagonal of V.
    level = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    x = torch.special.ndtri(level)[:, None]
    assert energy_distance(x, x + 1.0) == pytest.approx(truth, abs=2e-3)


def test_unbiased_estimates_are_unbiased_and_biased_ones_are_above() -> None:
    unbiased, biased = [], []
    for seed in range(200):
        x, y = cloud(10, 2, 2 * seed), cloud(10, 2, 2 * seed + 1)
        unbiased.append([energy_distance(x, y, unbiased=True), mmd(x, y, [1.0], unbiased=True)])
        biased.append([energy_distance(x, y), mmd(x, y, [1.0])])
    values = torch.tensor(unbiased)
    assert bool((values.mean(0).abs() < 4 * values.std(0) / 200**0.5).all())
    assert bool((torch.tensor(biased).mean(0) > 10 * values.std(0) / 200**0.5).all())
    assert bool((torch.tensor(biased) > 0).all())


def test_unbiased_on_two_points_by_hand() -> None:
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [3.0]])
    # Between: 0, 3, 1, 2; within: 1 and 3.
    assert energy_distance(x, y, unbiased=True) == pytest.approx(2 * 1.5 - 1 - 3, abs=1e-12)
    assert energy_distance(x, y) == pytest.approx(2 * 1.5 - 0.5 - 1.5, abs=1e-12)


def test_mmd_between_gaussians_meets_the_closed_form() -> None:
    # E exp(-(X-Y)^2/2) for X - Y ~ N(m, 2) is exp(-m^2/6)/sqrt(3).
    level = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    x = torch.special.ndtri(level)[:, None]
    truth = 2 * (1 - math.exp(-4 / 6)) / math.sqrt(3)
    assert mmd(x, x + 2.0, [1.0]) == pytest.approx(truth, abs=1e-3)


def test_mmd_of_point_masses_and_of_several_bandwidths() -> None:
    x, y = torch.zeros(1, 3), torch.tensor([[0.0, 2.0, 0.0]])
    assert mmd(x, y, [2.0]) == pytest.approx(2 - 2 * math.exp(-0.5), abs=1e-12)
    assert mmd(x, y, [1.0, 2.0]) == pytest.approx((mmd(x, y, [1.0]) + mmd(x, y, [2.0])) / 2, abs=1e-12)


def test_median_distance_of_known_points() -> None:
    # 0, 1, 3, 7 have the gaps 1, 2, 3, 4, 6, 7: torch's median is the lower of the middle two.
    assert median_distance(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [7.0]])) == pytest.approx(3.0)
    with pytest.raises(InputError, match="bandwidths"):
        median_distance(torch.ones(5, 2), torch.ones(5, 2))


def test_mmd_default_follows_the_unit_of_the_data() -> None:
    x, y = cloud(50, 3, 0), cloud(60, 3, 1, 0.5)
    assert mmd(1000 * x, 1000 * y) == pytest.approx(mmd(x, y), rel=1e-9)


def test_sliced_wasserstein_of_a_shift() -> None:
    x = cloud(200, 1, 0)
    assert sliced_wasserstein(x, x + 2.5, 4, rng=1) == pytest.approx(2.5, abs=1e-12)
    assert sliced_wasserstein(x, x - 2.5, 4, rng=1, order=1.0) == pytest.approx(2.5, abs=1e-12)
    wide = cloud(20, 16, 0)
    shift = torch.full((16,), 3.0, dtype=torch.float64)
    # |c| = 12 and sqrt(D) = 4; the mean of u_c^2 over 20,000 directions has a relative error of about 1 %.
    assert sliced_wasserstein(wide, wide + shift, 20_000, rng=1) == pytest.approx(3.0, rel=0.02)


def test_sliced_wasserstein_of_unequal_sizes_is_exact() -> None:
    x, y = torch.tensor([[0.0]]), torch.tensor([[1.0], [3.0]])
    assert sliced_wasserstein(x, y, 1, rng=0) == pytest.approx(math.sqrt(5.0), abs=1e-12)
    # Thirds against halves: [0,1/3] 0->0, [1/3,1/2] 1->0, [1/2,2/3] 1->6, [2/3,1] 2->6.
    x, y = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0], [6.0]])
    assert sliced_wasserstein(x, y, 1, rng=0, order=1.0) == pytest.approx(1 / 6 + 5 / 6 + 4 / 3, abs=1e-12)
    many, other = cloud(30, 4, 1), cloud(7, 4, 2)
    assert sliced(many.repeat(3, 1), other.repeat(2, 1)) == pytest.approx(sliced(many, other), rel=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
def test_zero_on_equal_clouds_symmetric_and_blind_to_order(
    distance: Callable[[torch.Tensor, torch.Tensor], float],
) -> None:
    x, y = cloud(60, 5, 0), cloud(45, 5, 1, 0.7)
    shuffled = x[Rng(9).permutation(60)]
    assert distance(x, shuffled) == pytest.approx(0.0, abs=1e-6)
    assert distance(x, y) > 0.05
    assert distance(y, x) == pytest.approx(distance(x, y), rel=1e-12)
    assert distance(shuffled, y) == pytest.approx(distance(x, y), rel=1e-12)
    # Images are points too, whatever their axes.
    assert distance(x.reshape(60, 1, 5), y.reshape(45, 5, 1).reshape(45, 1, 5)) == distance(x, y)


@pytest.mark.parametrize("distance", DISTANCES)
def test_grows_with_the_shift(distance: Callable[[torch.Tensor, torch.Tensor], float]) -> None:
    x = cloud(100, 3, 0)
    values = [distance(x, cloud(100, 3, 1, shift)) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert values == sorted(values)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("block", [1, 64, 1000])
def test_blocks_change_nothing(block: int, unbiased: bool) -> None:
    x, y = cloud(50, 4, 0), cloud(37, 4, 1)
    whole = energy_distance(x, y, unbiased=unbiased), mmd(x, y, [1.0], unbiased=unbiased)
    parts = (
        energy_distance(x, y, unbiased=unbiased, block=block),
        mmd(x, y, [1.0], unbiased=unbiased, block=block),
    )
    assert parts == pytest.approx(whole, abs=1e-12)
    assert torch.equal(nearest_distance(x, y, block), nearest_distance(x, y))


def test_a_far_origin_costs_no_digits() -> None:
    x, y = cloud(50, 4, 0), cloud(50, 4, 1, 0.3)
    assert energy_distance(x + 1e6, y + 1e6) == pytest.approx(energy_distance(x, y), abs=1e-8)


def test_nearest_distance_is_exactly_zero_on_copies() -> None:
    reference = cloud(100, 20, 0, 5.0)
    x = torch.cat([reference[40:45], reference[:1] + 1.0])
    distance = nearest_distance(x, reference)
    assert distance[:5].tolist() == [0.0] * 5
    assert float(distance[5]) == pytest.approx(math.sqrt(20), rel=1e-12)


def test_bad_clouds_are_refused() -> None:
    x = cloud(5, 3, 0)
    with pytest.raises(ShapeError, match="same shape"):
        energy_distance(x, cloud(5, 2, 0))
    with pytest.raises(InputError, match="1 of 5 rows"):
        mmd(x, torch.where(torch.arange(5)[:, None] == 2, torch.nan, x), [1.0])
    with pytest.raises(ShapeError, match="at least 2"):
        energy_distance(x[:1], x, unbiased=True)
    with pytest.raises(InputError, match="bandwidths"):
        mmd(x, x, [0.0])
    with pytest.raises(InputError, match="projections"):
        sliced_wasserstein(x, x, 0, rng=0)
