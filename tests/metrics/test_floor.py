"""Value and floor are measured at equal sizes, against one reference, between disjoint halves."""

from __future__ import annotations

import pytest
import torch

from rheos.core import Rng, ShapeError
from rheos.metrics import Figure, energy_distance, with_floor, with_floors


def test_sizes_match_and_the_halves_are_disjoint() -> None:
    calls = []

    def measure(real: torch.Tensor, other: torch.Tensor) -> float:
        calls.append((real.flatten().tolist(), other.flatten().tolist()))
        return float(len(calls))

    real, fake = torch.arange(101.0)[:, None], -torch.arange(1.0, 31.0)[:, None]
    figure = with_floor(measure, fake=fake, real=real, rng=0, name="count")
    (reference, fakes), (again, reals) = calls
    assert reference == again
    assert len(fakes) == len(reals) == figure.samples == 30
    assert len(reference) == figure.reference == 50
    assert not set(reference) & set(reals)
    assert len(set(fakes)) == 30
    assert max(fakes) < 0 <= min(reals)
    assert reference != sorted(reference)
    assert (figure.value, figure.floor) == (1.0, 2.0)


def test_more_fakes_than_reals_are_thinned() -> None:
    sizes = with_floors(lambda a, b: {"n": len(b)}, fake=torch.zeros(500, 2), real=torch.zeros(21, 2), rng=0)
    assert (sizes["n"].value, sizes["n"].floor) == (11, 11)


def test_a_perfect_generator_stands_at_its_floor_and_a_bad_one_above() -> None:
    real, same = Rng(0).normal(2000, 2), Rng(1).normal(700, 2)
    honest = with_floor(energy_distance, fake=same, real=real, rng=3, name="energy")
    shifted = with_floor(energy_distance, fake=same + 0.5, real=real, rng=3, name="energy")
    assert 0.2 < honest.ratio < 5
    assert shifted.ratio > 20
    assert shifted.floor == honest.floor


def test_the_rng_alone_decides_the_halves() -> None:
    real, fake = Rng(0).normal(50, 2), Rng(1).normal(50, 2)
    first, second, third = (with_floor(energy_distance, fake=fake, real=real, rng=s, name="e") for s in (1, 1, 2))
    assert first == second
    assert first.floor != third.floor


def test_ratio_of_zeros_and_text() -> None:
    assert Figure("a", 0.0, 0.0, 1, 1).ratio == 1.0
    assert Figure("a", 1.0, 0.0, 1, 1).ratio == float("inf")
    assert str(Figure("energy", 0.25, 0.125, 1, 1)) == "energy 0.25 (floor 0.125)"


def test_too_few_are_refused() -> None:
    with pytest.raises(ShapeError, match="at least two real"):
        with_floor(energy_distance, fake=torch.zeros(5, 1), real=torch.zeros(1, 1), rng=0, name="e")
