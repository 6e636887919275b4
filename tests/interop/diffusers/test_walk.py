"""A solver that is fed its rates goes where the loop goes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rheos.core import InputError, Rng, integrate
from rheos.dynamics import Flow
from rheos.interop.diffusers.walk import Walk, evaluated
from rheos.paths import Affine
from rheos.solvers import RK4, AdamsBashforth, Dopri5, DPMSolver, Euler, FixedStep, Heun, UniPC
from rheos.solvers.plans import Fitted, Rule

X = Rng(1).normal(4, 3, dtype=torch.float64)
GRID = torch.tensor([0.0, 0.1, 0.4, 0.75, 1.0], dtype=torch.float64)
ROWS = ((0.1, 0.9, 0, 0, 0), (0.0, 1.3, -0.2, 0, 0), (0.02, 1.6, -0.8, 0.2, 0), (0.0, 2.0, -1.3, 0.5, -0.1))


def velocity(x: Tensor, t: Tensor) -> Tensor:
    return torch.tanh(2 * x) * (1.5 - t) + x.flip(1)


def walked(walk: Walk) -> Tensor:
    while not walk.ended:
        walk.feed(velocity(walk.point, walk.time))
    return walk.point


@pytest.mark.parametrize(
    "solver",
    [
        Euler(),
        Heun(),
        RK4(),
        AdamsBashforth(3),
        DPMSolver(Affine()),
        UniPC(Affine()),
        Fitted(Rule(tuple(GRID.tolist()), ROWS)),
    ],
)
def test_every_solver_ends_where_the_loop_ends(solver: FixedStep[Tensor]) -> None:
    seen: list[float] = []

    def noted(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t))
        return velocity(x, t)

    end = integrate(solver, Flow(noted), X, GRID).x
    assert torch.equal(walked(Walk(solver, X, GRID)), end)
    times, starts = evaluated(solver, GRID)
    assert times.tolist() == seen
    assert times[starts].tolist() == GRID[:-1].tolist()


def test_what_is_added_on_the_way_is_kept() -> None:
    for solver, fed in ((Heun(), 3), (AdamsBashforth(2), 2), (RK4(), 6)):
        # A rate that does not see the state carries what was added to the end as it is.
        plain, moved = Walk(solver, X, GRID), Walk(solver, X, GRID)
        for n in range(len(evaluated(solver, GRID)[0])):
            if n == fed:
                moved.nudge(torch.full_like(X, 0.25))
                torch.testing.assert_close(moved.point, plain.point + 0.25)
            for walk in (plain, moved):
                walk.feed(torch.cos(9 * walk.time) * torch.ones_like(X))
        torch.testing.assert_close(moved.point, plain.point + 0.25)


def test_a_solver_that_chooses_its_steps_is_refused() -> None:
    with pytest.raises(InputError, match="which Dopri5 does not know; take a solver of fixed steps"):
        Walk(Dopri5(), X, GRID)  # pyright: ignore[reportArgumentType]
