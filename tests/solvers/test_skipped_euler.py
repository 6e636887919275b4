"""Skipped steps, held against the small steps themselves."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from rheos.core import InputError, Rng, integrate
from rheos.dynamics import Flow
from rheos.solvers import Euler
from rheos.solvers.skipped_euler import SkippedEuler

X = Rng(1).normal(4, 3, dtype=torch.float64)
FINE = tuple((torch.arange(21, dtype=torch.float64) / 20).pow(1.4).tolist())


def velocity(x: Tensor, t: Tensor) -> Tensor:
    return torch.tanh(x) * (1.5 - t * t) + x.flip(1)


def by_small_steps(points: tuple[int, ...]) -> Tensor:
    x, last, before = X, None, None
    for n, (t, s) in enumerate(pairwise(FINE)):
        if n in points:
            before, last = last, (t, velocity(x, torch.tensor(t, dtype=torch.float64)))
        assert last is not None
        rate = last[1]
        if before is not None:
            rate = rate + (t - last[0]) * (last[1] - before[1]) / (last[0] - before[0])
        x = x + (s - t) * rate
    return x


@pytest.mark.parametrize("points", [(0, 1, 2, 5, 6, 13), (0, 4, 19), (0,), tuple(range(20))])
def test_the_sum_of_the_small_steps(points: tuple[int, ...]) -> None:
    solver: SkippedEuler[Tensor] = SkippedEuler(FINE, points)
    found = integrate(solver, Flow(velocity), X, solver.grid)
    torch.testing.assert_close(found.x, by_small_steps(points), rtol=1e-12, atol=1e-12)
    assert found.evaluations == len(points)


def test_nothing_skipped_is_euler() -> None:
    solver: SkippedEuler[Tensor] = SkippedEuler(FINE, tuple(range(20)))
    euler = integrate(Euler(), Flow(velocity), X, torch.tensor(FINE, dtype=torch.float64)).x
    torch.testing.assert_close(integrate(solver, Flow(velocity), X, solver.grid).x, euler, rtol=1e-12, atol=1e-12)


def test_the_rest_begins_anew() -> None:
    solver: SkippedEuler[Tensor] = SkippedEuler(FINE, (0, 3, 8, 15))
    assert solver.rest(2) == SkippedEuler(FINE[8:], (0, 7))
    assert solver.rest(2).grid.tolist() == solver.grid[2:].tolist()


def test_points_and_grids_that_do_not_fit_are_refused() -> None:
    for points in ((), (1, 2), (0, 2, 2), (0, 20)):
        with pytest.raises(InputError, match="go upward from 0 and stay below the 20 steps"):
            SkippedEuler(FINE, points)
    with pytest.raises(InputError, match=r"integrate along `solver.grid`"):
        integrate(SkippedEuler(FINE, (0, 5)), Flow(velocity), X, torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
