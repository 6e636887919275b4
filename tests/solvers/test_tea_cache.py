"""TeaCache, and the walk that it shares with FastFlow: what is evaluated, what is held, what rows see."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rheos.core import InputError, Rng
from rheos.dynamics import Diffusion, Flow
from rheos.guidance import ClassifierFree
from rheos.paths import Affine
from rheos.solvers import Euler, TeaCache, integrate, walk
from rheos.solvers.grids import Cosine, Uniform
from rheos.solvers.tea_cache import sparse_grid, within
from rheos.testing import check_solver

NOISE = Rng(0).rows(torch.arange(12)).normal(2, dtype=torch.float64)
FINE = Uniform()(40, torch.float64)


def swirl(x: Tensor, t: Tensor) -> Tensor:
    return torch.sin(3 * x.flip(-1) + 2 * t) + x


def late(x: Tensor, t: Tensor) -> Tensor:
    """Straight on the first half, bent on the second."""
    return torch.ones_like(x) + (20 * (t - 0.5).clamp(min=0)) ** 2 * torch.cos(x)


def test_without_a_threshold_it_is_euler_and_keeps_the_laws_of_a_solver():
    check_solver(TeaCache(0.0), tuples=False)
    assert torch.equal(
        integrate(TeaCache(0.0), Flow(swirl), NOISE, FINE).x, integrate(Euler(), Flow(swirl), NOISE, FINE).x
    )


@pytest.mark.parametrize("grid", [FINE, Cosine()(30, torch.float64)])
def test_with_shared_points_it_is_euler_on_their_grid(grid):
    flow = Flow(swirl)
    found = integrate(TeaCache(0.3, each=False), flow, NOISE, grid)
    sparse = sparse_grid(found.memory, grid)
    steps = len(sparse.at) - 1
    assert found.evaluations == steps < len(grid) // 2
    frozen = integrate(Euler(), flow, NOISE, sparse(steps, torch.float64))
    assert frozen.evaluations == steps
    torch.testing.assert_close(found.x, frozen.x, rtol=0, atol=1e-12)


def test_the_predicted_change_adds_up_to_the_threshold():
    """A velocity ``1 + t``: the change from 0 to 0.1 is .1 over 1.1, so .0909 a step; the threshold is passed at 3."""
    flow = Flow(lambda x, t: (1 + t) * torch.ones_like(x))
    grid = Uniform()(10, torch.float64)
    for threshold, first in ((0.18, 3), (0.182, 4), (0.27, 4)):
        memory = integrate(TeaCache(threshold), flow, NOISE[:1], grid).memory
        points = memory.points[0].nonzero()[:, 0].tolist()
        assert points[:3] == [0, 1, first]
        assert points[-1] == 9
    # A polynomial 2*x - .05 makes .1318 of it; with x**2/.0909 the step counts as it was.
    for rescale, first in (((-0.05, 2.0), 3), ((0.0, 0.0, 1 / 0.0909), 3), ((0.0, 0.5), 5)):
        points = integrate(TeaCache(0.18, rescale), flow, NOISE[:1], grid).memory.points[0]
        assert points.nonzero()[2] == first


def test_it_evaluates_where_the_flow_bends():
    memory = integrate(TeaCache(0.3, longest=8), Flow(late), NOISE, FINE).memory
    # On the straight half it looks as often as it must.
    assert memory.points[0, :20].nonzero()[:, 0].tolist() == [0, 1, 9, 17]
    assert bool((memory.points[:, 20:].sum(1) >= 7).all())


class Counting:
    """A conditional model that writes down the rows that it is given."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        assert len(x) == len(cond["label"]) == len(cond["scale"])
        self.rows.append(len(x))
        unknown = (cond["label"] < 0)[:, None]
        turned = torch.sin(3 * x * cond["scale"][:, None].nan_to_num(1.0) + cond["label"][:, None] * t)
        return torch.where(unknown, torch.ones_like(x), turned)


def test_rows_that_are_due_take_their_own_condition_and_are_counted():
    model, cond = Counting(), {"label": torch.arange(12), "scale": torch.linspace(0.5, 4, 12).double()}
    found = integrate(TeaCache(0.5), Flow(model), NOISE, FINE, cond)
    points = found.memory.points
    assert found.evaluations == len(model.rows) == int(points.any(0).sum())
    assert sum(model.rows) == int(points.sum())
    assert model.rows[0] == 12
    assert min(model.rows) < 12
    assert points.sum(1).unique().numel() > 1


@pytest.mark.parametrize("guided", [False, True])
def test_a_sample_with_points_of_its_own_does_not_depend_on_its_batch(guided):
    flow: Any = Flow(Counting())
    flow = flow.over(ClassifierFree(2.0)) if guided else flow
    cond = {"label": torch.arange(12), "scale": torch.linspace(0.5, 4, 12).double()}
    whole = integrate(TeaCache(0.4), flow, NOISE, FINE, cond)
    for row in (0, 5, 11):
        mine = {name: value[row : row + 1] for name, value in cond.items()}
        alone = integrate(TeaCache(0.4), flow, NOISE[row : row + 1], FINE, mine)
        assert torch.equal(alone.memory.points[0], whole.memory.points[row])
        torch.testing.assert_close(alone.x[0], whole.x[row], rtol=0, atol=1e-12)


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("budget", [8, 15])
def test_a_threshold_keeps_to_a_budget_and_hardly_below(budget, each):
    flow = Flow(swirl)
    solver = within(budget, flow, NOISE, FINE, each=each)
    spent = integrate(solver, flow, NOISE, FINE).memory.points.sum(1).double().mean()
    assert budget - 2 <= spent <= budget
    assert within(40, flow, NOISE, FINE).threshold == 0


def test_a_first_velocity_that_says_nothing_predicts_nothing():
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(t == 0, 1e6, torch.ones_like(x) + 0.01 * t)

    flow = Flow(velocity, known=lambda t: t != 0)
    memory = integrate(TeaCache(0.5), flow, NOISE, FINE).memory
    assert memory.points[0].nonzero()[:, 0].tolist() == [0, 1, 2, 12, 22, 32, 39]


def test_it_runs_backward():
    there = integrate(TeaCache(0.05), Flow(swirl), NOISE, FINE)
    back = integrate(TeaCache(0.05), Flow(swirl), there.x, FINE.flip(0))
    assert back.memory.points.sum() < back.memory.points.numel()
    assert (back.x - NOISE).abs().mean() < 0.1


def test_what_they_refuse():
    with pytest.raises(InputError, match="longest = 0"):
        TeaCache(longest=0)
    for options in ({"threshold": -1.0}, {"rescale": ()}, {"rescale": (float("nan"),)}):
        with pytest.raises(InputError, match="threshold"):
            TeaCache(**options)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="Diffusion"):
        integrate(TeaCache(), Diffusion(Flow(swirl), Affine(), torch.ones_like), NOISE, FINE, rng=0)
    with pytest.raises(InputError, match="start"):
        TeaCache().step(Flow(swirl), NOISE, FINE[0], FINE[1])
    with pytest.raises(InputError, match="more than 2 times"):
        within(2, Flow(swirl), NOISE, FINE)
    found = list(walk(TeaCache(0.5), Flow(swirl), NOISE, FINE))
    for memory in (found[20].memory, found[-1].memory):
        with pytest.raises(InputError, match="one set of points"):
            sparse_grid(memory, FINE)
