"""torchdiffeq: solutions on one grid, step by step, and to a tolerance."""

from __future__ import annotations

import itertools
from types import ModuleType

import pytest
import torch
from torch import Tensor

from rheos import dynamics, solvers
from rheos.core import Rng
from rheos.solvers.dopri5 import Control

GRIDS = {
    "forward": torch.linspace(0, 1, 9, dtype=torch.float64),
    "backward": torch.linspace(1, 0, 6, dtype=torch.float64),
    "uneven": torch.tensor([0.0, 0.01, 0.1, 0.4, 0.45, 1.0], dtype=torch.float64),
}
STEPPERS = {"euler": solvers.Euler(), "midpoint": solvers.Midpoint(), "heun2": solvers.Heun()}


def bent(x: Tensor, t: Tensor) -> Tensor:
    """A velocity that is nonlinear in the state and depends on time."""
    return torch.sin(3 * x.flip(1) + 2 * t) - x * torch.cos(t)


def bent_rows(x: Tensor, t: Tensor) -> Tensor:
    """The same with a clock a sample."""
    return bent(x, t.reshape(-1, 1))


def turned(x: Tensor, t: Tensor) -> Tensor:
    """A linear velocity that does not depend on time: a damped rotation."""
    return torch.stack([-0.2 * x[:, 0] - 2 * x[:, 1], 2 * x[:, 0] - 0.2 * x[:, 1]], 1)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("method", STEPPERS)
def test_trajectory_on_a_grid(torchdiffeq: ModuleType, rng: Rng, method: str, grid: str) -> None:
    x, times = rng.normal(4, 2, dtype=torch.float64), GRIDS[grid]
    peer = torchdiffeq.odeint(lambda t, y: bent(y, t), x, times, method=method)
    ours = solvers.integrate(STEPPERS[method], dynamics.Flow(bent), x, times, trajectory=True)
    assert ours.trajectory is not None
    torch.testing.assert_close(torch.stack(ours.trajectory), peer, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
def test_fourth_order_on_a_linear_velocity(torchdiffeq: ModuleType, rng: Rng, grid: str) -> None:
    # The peer's rk4 is the 3/8 rule. On a linear velocity without time all methods of four stages and order four agree.
    x, times = rng.normal(4, 2, dtype=torch.float64), GRIDS[grid]
    peer = torchdiffeq.odeint(lambda t, y: turned(y, t), x, times, method="rk4")
    ours = solvers.integrate(solvers.RK4(), dynamics.Flow(turned), x, times, trajectory=True)
    assert ours.trajectory is not None
    torch.testing.assert_close(torch.stack(ours.trajectory), peer, rtol=1e-12, atol=1e-12)


def test_fourth_order_limit(torchdiffeq: ModuleType, rng: Rng) -> None:
    x, times = rng.normal(4, 2, dtype=torch.float64), torch.linspace(0, 1, 1001, dtype=torch.float64)
    peer = torchdiffeq.odeint(lambda t, y: bent(y, t), x, times, method="rk4")[-1]
    ours = solvers.integrate(solvers.RK4(), dynamics.Flow(bent), x, times)
    torch.testing.assert_close(ours.x, peer, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("grid", GRIDS)
def test_dopri5_on_a_grid(torchdiffeq: ModuleType, rng: Rng, grid: str) -> None:
    # Both are made to take each gap in one step: the peer by its limits, ours by a tolerance that nothing misses.
    x, times = rng.normal(4, 2, dtype=torch.float64), GRIDS[grid]
    limits = {"min_step": 9.0, "max_step": 9.0, "first_step": 9.0, "step_t": times[1:]}
    peer = torchdiffeq.odeint(lambda t, y: bent(y, t), x, times, method="dopri5", options=limits)
    flow, states = dynamics.Flow(bent_rows), [x]
    for t, s in itertools.pairwise(times):
        clocks = t.expand(4)
        wide = Control(flow.rate(states[-1], clocks), torch.full_like(clocks, 9.0), torch.ones_like(clocks))
        step = solvers.Dopri5(rtol=1e6, atol=1e6).step(flow, states[-1], clocks, s, wide)
        assert (step.t == s).all()
        states.append(step.x)
    torch.testing.assert_close(torch.stack(states), peer, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
def test_dopri5_to_a_tolerance(torchdiffeq: ModuleType, rng: Rng, grid: str) -> None:
    x, times = rng.normal(4, 2, dtype=torch.float64), GRIDS[grid]
    # Made to stop at the grid's times, for between its steps the peer only interpolates.
    stops = {"step_t": times[1:]}
    peer = torchdiffeq.odeint(lambda t, y: bent(y, t), x, times, method="dopri8", rtol=1e-12, atol=1e-13, options=stops)
    ours = solvers.integrate(
        solvers.Dopri5(rtol=1e-11, atol=1e-12), dynamics.Flow(bent_rows), x, times, trajectory=True
    )
    assert ours.trajectory is not None
    torch.testing.assert_close(torch.stack(ours.trajectory), peer, rtol=1e-9, atol=1e-9)
