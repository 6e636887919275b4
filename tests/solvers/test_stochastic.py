"""Euler-Maruyama and stochastic Heun: weak orders without sampling error, and one honest sample."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rheos.dynamics import Diffusion, Flow
from rheos.paths import Affine
from rheos.solvers import Euler, Heun, Solver, integrate
from rheos.solvers.grids import Uniform

PATH = Affine()
MEAN, VARIANCE = 1.5, 0.25


def moments(t: float) -> tuple[float, float]:
    """Mean and variance at time t of the path from N(0, 1) to N(MEAN, VARIANCE)."""
    return t * MEAN, t * t * VARIANCE + (1 - t) ** 2


def velocity(x: Tensor, t: Tensor) -> Tensor:
    variance = t**2 * VARIANCE + (1 - t) ** 2
    data = MEAN + t * VARIANCE / variance * (x - t * MEAN)
    return PATH.convert(data, x, t, given="data", want="velocity")


def diffusion(g: float) -> Diffusion:
    return Diffusion(Flow(velocity), PATH, lambda t: torch.full_like(t, g))


class Impulse:
    """Not random: the 'noise' of step n is 1 in row n + 2 and 0 elsewhere."""

    def __init__(self, step: int) -> None:
        self.step = step

    def per_row(self, count: int, device: object = None) -> Impulse:
        self.count = count
        return self

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        out = torch.zeros(self.count, *shape, dtype=dtype)
        out[self.step + 2] = 1.0
        return out


def weak_errors(solver: Solver, steps: int, g: float, ends: tuple[float, float]) -> tuple[float, float]:
    """Errors of mean and variance. The drift is linear, so the end is ``c + a*z + sum_n b_n*N_n``, and responses to
    unit impulses give c, a and all b exactly."""
    grid = torch.linspace(*ends, steps + 1, dtype=torch.float64)
    mean, variance = moments(ends[0])
    x = torch.full((steps + 2, 1), mean, dtype=torch.float64)
    x[1] += math.sqrt(variance)
    dynamics = diffusion(g)
    for n in range(steps):
        x = solver.step(dynamics, x, grid[n], grid[n + 1], (), Impulse(n)).x  # pyright: ignore[reportArgumentType]
    response = x[1:, 0] - x[0, 0]
    mean, variance = moments(ends[1])
    return abs(float(x[0, 0]) - mean), abs(float(response.square().sum()) - variance)


@pytest.mark.parametrize(("solver", "order"), [(Euler(), 1), (Heun(), 2)])
@pytest.mark.parametrize("g", [0.5, 1.5, 2.0])
@pytest.mark.parametrize("ends", [(0.1, 0.8), (0.8, 0.1)])
def test_weak_orders_with_additive_noise(solver, order, g, ends):
    coarse, fine = (weak_errors(solver, steps, g, ends) for steps in (80, 160))
    assert math.log2(coarse[1] / fine[1]) == pytest.approx(order, abs=0.15)
    # The mean moves on a straight line, which every rule follows.
    assert fine[0] < 1e-12


@pytest.mark.parametrize("g", [0.0, 1.0])
def test_marginals_are_kept_from_noise_to_data(g):
    count = 5_000
    noise = torch.randn(count, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = integrate(Heun(), diffusion(g), noise, Uniform()(60, torch.float64), rng=5).x
    mean, variance = moments(1.0)
    assert abs(float(x.mean()) - mean) < 5 * math.sqrt(variance / count) + 0.01
    assert abs(float(x.var()) / variance - 1) < 5 * math.sqrt(2 / count) + 0.02


def test_the_predictor_and_the_step_of_heun_share_their_noise():
    """A drift of zero: both moves are the noise alone, so one step is one normal number of variance g**2*h."""

    class Still:
        def over(self, wrap):
            return self

        def rate(self, x, t, s=None):
            seen.append(x)
            return torch.zeros_like(x)

        def move(self, x, rate, t, s, rng=None):
            assert rng is not None
            return x + rng.per_row(len(x)).normal(1, dtype=torch.float64)

        def determined(self, t):
            return None

    seen: list[Tensor] = []
    end = integrate(Heun(), Still(), torch.zeros(50, 1, dtype=torch.float64), Uniform()(1), rng=3).x
    assert torch.equal(end, seen[1])
    assert float(end.std()) > 0.5
