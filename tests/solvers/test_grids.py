"""Grids: ends, order, symmetries and the laws that define them."""

from __future__ import annotations

import pytest
import torch

from rheos.core import InputError
from rheos.core.loop import check_grid
from rheos.schedules import Cosine as CosineSchedule
from rheos.schedules import Linear, VarianceExploding, VariancePreserving
from rheos.solvers.grids import EDM, Cosine, Given, Grid, Shifted, Uniform

GRIDS: list[Grid] = [Uniform(), Shifted(3.0), Shifted(0.5), Cosine(), EDM(), EDM(CosineSchedule()), EDM(rho=1.0)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_grid_goes_from_zero_to_one_in_order(grid, steps, dtype):
    times = grid(steps, dtype)
    assert times.shape == (steps + 1,)
    assert times.dtype == dtype
    assert times[0] == 0
    assert times[-1] == 1
    check_grid(times)
    check_grid(times.flip(0))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("steps", [0, -3, 2.0, True, None])
def test_steps_must_be_a_positive_integer(grid, steps):
    with pytest.raises(InputError, match="at least one step"):
        grid(steps)


def test_uniform_and_the_shift_of_one_are_even():
    torch.testing.assert_close(Uniform()(8, torch.float64).diff(), torch.full((8,), 0.125, dtype=torch.float64))
    torch.testing.assert_close(Shifted(1.0)(8, torch.float64), Uniform()(8, torch.float64))


def test_a_shift_multiplies_the_noise_to_data_ratio():
    even, shifted = (g(16, torch.float64)[1:-1] for g in (Uniform(), Shifted(3.0)))
    torch.testing.assert_close((1 - shifted) / shifted, 3 * (1 - even) / even)
    assert bool((shifted < even).all()), "a shift above 1 stays longer at the noise end"
    twice = 1 - Shifted(1 / 3)(16, torch.float64).flip(0)
    torch.testing.assert_close(twice, Shifted(3.0)(16, torch.float64))


def test_cosine_is_symmetric_and_short_at_both_ends():
    times = Cosine()(12, torch.float64)
    torch.testing.assert_close(times, 1 - times.flip(0))
    gaps = times.diff()
    assert gaps.argmax() in (5, 6)
    assert bool((gaps[:5].diff() > 0).all())
    # The half-way point of half of them is the half angle: (1 - cos 60)/2.
    assert float(times[4]) == pytest.approx(0.25, abs=1e-12)


@pytest.mark.parametrize("schedule", [Linear(), CosineSchedule(), VariancePreserving()])
def test_edm_levels_are_even_in_the_root_of_the_noise_level(schedule):
    times = EDM(schedule, rho=7.0, sigma_min=0.02, sigma_max=40.0)(12, torch.float64)
    alpha, sigma = schedule(times[1:-1])
    levels = sigma / alpha
    assert float(levels[-1]) == pytest.approx(0.02, rel=1e-9)
    roots = levels ** (1 / 7)
    gap = (40.0 ** (1 / 7) - 0.02 ** (1 / 7)) / 11
    torch.testing.assert_close(roots.diff(), torch.full_like(roots[1:], -gap), rtol=1e-7, atol=1e-9)
    assert float(roots[0]) == pytest.approx(40.0 ** (1 / 7) - gap, rel=1e-9)


def test_edm_refuses_levels_that_its_schedule_does_not_tell_apart():
    with pytest.raises(InputError, match="distinct"):
        EDM(VarianceExploding(sigma_min=0.01, sigma_max=50.0), sigma_max=500.0)(40)
    EDM(VarianceExploding(0.01, 50.0), sigma_min=0.02, sigma_max=50.0)(40)


def test_arguments_are_checked():
    for make in (
        lambda: Shifted(0.0),
        lambda: Shifted(float("inf")),
        lambda: EDM(sigma_max=float("inf")),
        lambda: EDM(sigma_min=0.0),
        lambda: EDM(sigma_min=2.0, sigma_max=1.0),
        lambda: EDM(rho=0.0),
    ):
        with pytest.raises(InputError):
            make()


def test_given_times_are_for_their_own_number_of_steps() -> None:
    given = Given((0.0, 0.2, 1.0))
    assert given(2).tolist() == pytest.approx([0.0, 0.2, 1.0])
    with pytest.raises(InputError, match="has 2 steps, 3 were asked for"):
        given(3)
    with pytest.raises(InputError, match="no 2 distinct steps"):
        Given((0.0, 1.0, 1.0))(2)
