"""A planted memoriser is flagged; an honest resample, of any dimension, is not."""

from __future__ import annotations

import pytest
import torch

from rheos.core import Rng
from rheos.metrics import memorisation


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return Rng(seed).normal(n, d, dtype=torch.float64)


@pytest.mark.parametrize("dimension", [2, 64])
def test_honest_samples_are_not_flagged(dimension: int) -> None:
    train, held = normal(1000, dimension, 0), normal(360, dimension, 1)
    flags = [memorisation(normal(500, dimension, 10 + seed), train, held) for seed in range(40)]
    assert sum(found.memorised for found in flags) <= 1
    medians = torch.tensor([found.median_ratio for found in flags])
    assert float(medians.mean()) == pytest.approx(1.0, abs=0.12)


def test_exact_copies_are_flagged() -> None:
    train, held = normal(1000, 16, 0), normal(360, 16, 1)
    found = memorisation(train[:200], train, held)
    assert found.memorised
    assert (found.median_ratio, found.low_ratio, found.copies) == (0.0, 0.0, 1.0)
    assert found.held_out_copies == 0.0


def test_a_few_copies_among_honest_samples_are_flagged() -> None:
    train, held = normal(1000, 16, 0), normal(360, 16, 1)
    samples = torch.cat([normal(960, 16, 2), train[:40] + 0.01 * normal(40, 16, 3)])
    found = memorisation(samples, train, held)
    assert found.memorised
    assert found.copies == pytest.approx(0.04, abs=0.002)
    assert found.median_ratio > 0.97


def test_samples_drawn_towards_the_training_data_are_flagged() -> None:
    train, held = normal(1000, 16, 0), normal(1000, 16, 1)
    noise = normal(1000, 16, 3)
    honest = memorisation(normal(1000, 16, 2), train, held)
    # 2/3 of the typical nearest distance: no copy, and still too near.
    found = memorisation(train + 0.5 * noise, train, held)
    assert found.copies < 0.01
    assert found.median_ratio < 0.9
    assert found.memorised
    assert not honest.memorised


def test_a_low_ratio_on_few_points_is_chance() -> None:
    train = torch.zeros(1, 1)
    held = torch.tensor([[1.0], [1.1], [1.2], [1.3]])
    found = memorisation(0.9 * held, train, held)
    assert found.median_ratio == pytest.approx(0.9)
    assert not found.memorised
    assert memorisation(0.9 * held.repeat(100, 1), train, held.repeat(100, 1)).memorised


def test_ratios_by_hand() -> None:
    train = torch.zeros(1, 1)
    samples, held = torch.linspace(0, 1, 101)[:, None] + 1, torch.linspace(0, 1, 101)[:, None] + 2
    found = memorisation(samples, train, held)
    assert found.median_ratio == pytest.approx(1.5 / 2.5)
    assert found.low_ratio == pytest.approx(1.05 / 2.05)
    # Half the 5th percentile is 1.025: samples at 1.00, 1.01 and 1.02.
    assert found.copies == pytest.approx(3 / 101)


def test_farther_samples_are_not_memorised_and_duplicated_data_are_no_fault() -> None:
    train, held = normal(500, 8, 0), normal(300, 8, 1)
    assert not memorisation(3 * normal(300, 8, 2), train, held).memorised
    found = memorisation(train[:50], train, train[50:100])
    assert (found.median_ratio, found.copies, found.memorised) == (1.0, 1.0, False)
