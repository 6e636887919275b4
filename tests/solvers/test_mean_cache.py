"""MeanCache: the correction, its order, and the path that spends a budget."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from rheos.core import InputError, Rng
from rheos.dynamics import Diffusion, Flow
from rheos.guidance import ClassifierFree
from rheos.paths import Affine
from rheos.solvers import Euler, MeanCache, integrate, walk
from rheos.solvers.grids import Cosine, Uniform
from rheos.solvers.mean_cache import schedule, shortest, stability
from rheos.testing import check_solver

NOISE = torch.linspace(-2, 2, 6, dtype=torch.float64).reshape(3, 2)


def bent(x: Tensor, t: Tensor) -> Tensor:
    """Straight on the first half, a turn on the second."""
    turn = 40 * (t - 0.5).clamp(min=0)
    return torch.ones_like(x) + turn * torch.stack([-x[:, 1], x[:, 0]], 1)


def test_it_keeps_the_laws_of_a_solver():
    check_solver(MeanCache(), tuples=False)


def test_from_a_single_state_it_converges_with_order_two():
    flow = Flow(lambda x, t: torch.cos(3 * t) * x)
    exact = NOISE * math.exp(math.sin(3.0) / 3)
    coarse, fine = (
        float((integrate(MeanCache(), flow, NOISE, Uniform()(n, torch.float64)).x - exact).abs().max())
        for n in (160, 320)
    )
    assert math.log2(coarse / fine) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("grid", [Uniform()(8, torch.float64), Cosine()(8, torch.float64)])
def test_a_step_is_the_papers_formula_in_states(grid):
    """``z_s = z_t + (s - t)*u`` with u from the states z_r and z_t, which the coefficients never see."""
    flow = Flow(lambda x, t: torch.sin(3 * x.flip(-1) + 2 * t) + x)
    steps = list(walk(MeanCache(), flow, NOISE, grid))
    for (r, t, s), (z_r, z_t, z_s) in zip(
        zip(grid, grid[2:], grid[3:], strict=False),
        zip(*([step.x for step in steps][k:] for k in (0, 2, 3)), strict=False),
        strict=True,
    ):
        product = (z_t - z_r - (t - r) * flow.rate(z_r, r)) / (t - r) ** 2
        expected = z_t + (s - t) * (flow.rate(z_t, t) + (s - t) * product)
        torch.testing.assert_close(z_s, expected, rtol=1e-11, atol=1e-11)


def test_an_undetermined_start_corrects_nothing():
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(t == 0, 1e6, torch.cos(t) * x)

    grid = Uniform()(6, torch.float64)
    flow = Flow(velocity, known=lambda t: t != 0)
    table = MeanCache().start(flow, NOISE, grid).table
    assert table[2].tolist() == [1, 0, 0, 0, 0]
    assert bool((table[3:, 1:] != 0).any(1).all())


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_a_shortest_path_is_the_best_of_all(seed):
    draw = torch.Generator().manual_seed(seed)
    size = 7
    costs = torch.rand(size, size, size, generator=draw, dtype=torch.float64).numpy()
    first = torch.rand(size, size, generator=draw, dtype=torch.float64).numpy()
    # Long steps cost more, so that the best ways have many.
    gap = np.subtract.outer(np.arange(size), np.arange(size)) ** 2
    first, costs = (0.3 + first) * gap, (0.3 + costs) * gap
    later = np.triu(np.ones((size, size), dtype=bool), 1)
    first[~later], costs[:, ~later] = np.inf, np.inf

    def cost(points: tuple[int, ...]) -> float:
        return sum(
            first[t, s] if n < 2 else costs[points[n - 2], t, s] for n, (t, s) in enumerate(itertools.pairwise(points))
        )

    for most in range(1, size):
        ways = [
            (0, *inner, size - 1)
            for count in range(most)
            for inner in itertools.combinations(range(1, size - 1), count)
        ]
        found = shortest(costs, first, most)
        assert cost(tuple(found)) == pytest.approx(min(map(cost, ways)))
        assert len(found) > min(most, 3)


def test_costs_are_what_single_steps_err_by():
    """On ``x' = 2*t``, whose Euler trajectories are known, plain and corrected steps err by hand-computed amounts."""
    grid = Uniform()(10, torch.float64)
    plain, corrected = stability(Flow(lambda x, t: 2 * t * torch.ones_like(x)), NOISE, grid)
    h = 0.1
    for t, s in ((0, 3), (4, 9)):
        n = s - t
        # Along the trajectory of Euler's rule the velocity grows by 2*h a step; a plain step holds the first.
        assert plain[t, s] == pytest.approx(h * h * n * (n - 1))
    # z_t - z_r - (t - r)*v_r is h**2*k*(k - 1) over k steps, so its u' is 1 - 1/k, and that of the step 1 - 1/n.
    assert corrected[2, 6, 9] == pytest.approx((3 * h) ** 2 * abs(1 / 4 - 1 / 3))
    assert np.isinf(corrected[5, 6, 9])
    assert np.isinf(plain[4, 4])


def test_a_schedule_spends_its_budget_where_the_flow_bends():
    flow, noise = Flow(bent), Rng(0).rows(torch.arange(24)).normal(2, dtype=torch.float64)
    fine = Uniform()(40, torch.float64)
    grid = schedule(flow, noise[:8], fine, 14)
    assert len(grid.at) == 15
    assert sum(t < 0.5 for t in grid.at) <= 4
    exact = integrate(Euler(), flow, noise, fine).x
    chosen = integrate(MeanCache(), flow, noise, grid(14, torch.float64))
    even = integrate(MeanCache(), flow, noise, Uniform()(14, torch.float64))
    assert chosen.evaluations == even.evaluations == 14
    assert (chosen.x - exact).abs().mean() < 0.5 * (even.x - exact).abs().mean()


def test_guidance_and_conditions_go_through():
    def model(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return torch.where(cond[:, None] < 0, torch.zeros_like(x), cond[:, None] * torch.ones_like(x))

    flow = Flow(model).over(ClassifierFree(3.0))
    labels = torch.tensor([0, 1, 2])
    found = integrate(MeanCache(), flow, NOISE, Uniform()(5, torch.float64), labels)
    torch.testing.assert_close(found.x, NOISE + 3.0 * labels[:, None])
    assert (found.evaluations, found.passes) == (5, 10)


def test_what_they_refuse():
    grid = Uniform()(4, torch.float64)
    with pytest.raises(InputError, match="Diffusion"):
        integrate(MeanCache(), Diffusion(Flow(bent), Affine(), torch.ones_like), NOISE, grid, rng=0)
    with pytest.raises(InputError, match="budget of 0"):
        schedule(Flow(bent), NOISE, grid, 0)
