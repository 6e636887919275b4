"""Runge-Kutta stages: what they hold at undetermined times, trees of states, growing states, costs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rheos.core import InputError, Ragged
from rheos.dynamics import Flow
from rheos.paths import Affine, AsVelocity
from rheos.solvers import (
    RK4,
    AdamsBashforth,
    Bandit,
    Dopri5,
    DPMSolver,
    Euler,
    FastFlow,
    Heun,
    MeanCache,
    Midpoint,
    Stabilised,
    Stork,
    Tableau,
    TeaCache,
    UniPC,
    integrate,
)
from rheos.solvers.grids import Uniform

PATH = Affine()
NEWER = [Stabilised(5), Stork(), MeanCache(), TeaCache(), FastFlow(Bandit.fresh(3))]
NOISE = torch.linspace(-2, 2, 6, dtype=torch.float64).reshape(3, 2)
MEAN, VARIANCE = 1.5, 0.25


def data(x: Tensor, t: Tensor) -> Tensor:
    """The exact data prediction of N(MEAN, VARIANCE) on the linear path."""
    variance = t**2 * VARIANCE + (1 - t) ** 2
    return MEAN + t * VARIANCE / variance * (x - t * MEAN)


def noise(x: Tensor, t: Tensor) -> Tensor:
    return (1 - t) / (t**2 * VARIANCE + (1 - t) ** 2) * (x - t * MEAN)


def predicting(quantity) -> Flow:
    network = {"data": data, "noise": noise}[quantity]
    return Flow(AsVelocity(network, PATH, quantity), known=lambda t: PATH.determined(t, quantity))


def test_the_last_step_of_heun_is_euler_for_a_network_that_predicts_data():
    grid = Uniform()(5, torch.float64)
    heun = integrate(Heun(), predicting("data"), NOISE, grid, trajectory=True)
    assert heun.trajectory is not None
    euler = integrate(Euler(), predicting("data"), heun.trajectory[-2], grid[-2:]).x
    torch.testing.assert_close(heun.x, euler, rtol=0, atol=1e-15)


@pytest.mark.parametrize("solver", [Heun(), RK4(), Midpoint()])
@pytest.mark.parametrize("quantity", ["data", "noise"])
def test_undetermined_ends_do_not_cost_the_second_order(solver, quantity):
    """A network that predicts noise knows nothing at t = 0, one that predicts data nothing at t = 1."""
    exact = MEAN + math.sqrt(VARIANCE) * NOISE
    coarse, fine = (
        float((integrate(solver, predicting(quantity), NOISE, Uniform()(n, torch.float64)).x - exact).abs().max())
        for n in (40, 80)
    )
    assert fine < 2e-3
    assert math.log2(coarse / fine) > (1.7 if isinstance(solver, Heun) else 0.9)


class Twice:
    """One flow on two leaves of different shapes, of which the second is minus the first's first column."""

    def over(self, wrap):
        return self

    def rate(self, x, t, s=None):
        return torch.cos(t) * x[0].square(), (-torch.cos(t) * x[1][0].square(),)

    def move(self, x, rate, t, s, rng=None):
        gap = s - t
        return x[0] + (gap[:, None] if gap.dim() else gap) * rate[0], (x[1][0] + gap * rate[1][0],)

    def determined(self, t):
        return t != 1


@pytest.mark.parametrize("solver", [Euler(), Midpoint(), Heun(), RK4(), AdamsBashforth(3)])
def test_states_may_be_trees(solver):
    x = 0.2 * NOISE
    grid = Uniform()(6, torch.float64)
    whole = Flow(lambda x, t: torch.cos(t) * x.square(), known=lambda t: t != 1)
    alone = integrate(solver, whole, x, grid).x
    first, (second,) = integrate(solver, Twice(), (x, (-x[:, 0],)), grid).x
    assert torch.equal(first, alone)
    assert torch.equal(second, -alone[:, 0])


@pytest.mark.parametrize("solver", [Euler(), Midpoint(), Heun(), RK4()])
@pytest.mark.parametrize("times", [torch.float32, torch.float64])
@pytest.mark.parametrize("states", [torch.float32, torch.bfloat16])
def test_states_keep_their_precision(solver, times, states):
    x = integrate(solver, Flow(lambda x, t: -x), NOISE.to(states), Uniform()(8, times)).x
    assert x.dtype == states
    torch.testing.assert_close(x.double(), NOISE * math.exp(-1), rtol=0.1, atol=0.01)


def test_stages_stand_at_the_end_exactly():
    seen: list[float] = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t))
        return x

    # On some of these t + (s - t) is not s.
    grid = torch.logspace(-6, 0, 12)
    assert bool((grid[:-1] + grid.diff() != grid[1:]).any())
    integrate(Heun(), Flow(velocity), NOISE.float(), grid)
    assert set(seen) == set(grid.tolist())


@pytest.mark.parametrize(
    ("solver", "stages"),
    [
        (Euler(), 1),
        (Midpoint(), 2),
        (Heun(), 2),
        (RK4(), 4),
        (AdamsBashforth(4), 1),
        (UniPC(), 1),
        (Stabilised(5), 5),
        (Stork(), 1),
        (MeanCache(), 1),
        (TeaCache(0.0), 1),
    ],
)
def test_costs(solver, stages):
    assert solver.evaluations(5) == 5 * stages
    assert integrate(solver, Flow(lambda x, t: x), NOISE, Uniform()(5)).evaluations == 5 * stages
    assert solver.steps(4 * stages) == solver.steps(5 * stages - 1) == 4
    with pytest.raises(InputError, match="at least"):
        solver.steps(stages - 1)


def test_only_one_stage_carries_a_state_that_grows():
    growing = Ragged(torch.zeros(2, 3, 1), torch.tensor([3, 2]), torch.zeros(2, 3))
    flow, grid = Flow(lambda x, t: x), Uniform()(3)
    Euler().start(flow, growing, grid)
    for solver in (Heun(), RK4(), Midpoint(), AdamsBashforth(2), Dopri5(), DPMSolver(), UniPC(), *NEWER):
        for state in (growing, (growing, torch.zeros(2, 1))):
            with pytest.raises(InputError, match="Euler"):
                solver.start(flow, state, grid)


def test_a_tableau_that_does_not_sum_is_refused():
    with pytest.raises(InputError, match="sum"):
        Tableau((0.5,), ((0.4,),), (0.0, 1.0))
    with pytest.raises(InputError, match="sum"):
        Tableau((0.5,), ((0.5,),), (0.0, 0.9))
