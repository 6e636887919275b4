"""Multistep solvers: coefficients, memory, ends, and laws that hold exactly."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from rheos.core import InputError
from rheos.dynamics import Diffusion, Flow
from rheos.paths import Affine, Rescheduled
from rheos.schedules import Cosine, Linear, Polynomial, VarianceExploding, VariancePreserving
from rheos.solvers import AdamsBashforth, DPMSolver, Euler, MeanCache, Stork, UniPC, integrate, walk
from rheos.solvers.grids import Cosine as CosineGrid
from rheos.solvers.grids import Shifted, Uniform

EXPONENTIAL = [kind(order=k) for kind in (DPMSolver, UniPC) for k in (1, 2, 3)]
ALL = [AdamsBashforth(1), AdamsBashforth(2), AdamsBashforth(4), Stork(2, 2), MeanCache(), *EXPONENTIAL]
NOISE = torch.linspace(-2.5, 2.5, 10, dtype=torch.float64).reshape(5, 2)


def swirl(x: Tensor, t: Tensor) -> Tensor:
    return torch.sin(3 * x.flip(-1) + 2 * t) + x


def one_point(path: Affine, point: float) -> Flow:
    """All data at one point: the exact velocity on ``path``, whose data prediction is constant."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return path.convert(torch.full_like(x, point), x, t, given="data", want="velocity")

    return Flow(velocity, known=lambda t: path.determined(t, "data"))


def test_classical_coefficients_on_an_even_grid():
    table = AdamsBashforth(4).start(Flow(swirl), NOISE, Uniform()(8, torch.float64)).table
    expected = [
        [1, 0, 0, 0],
        [3 / 2, -1 / 2, 0, 0],
        [23 / 12, -16 / 12, 5 / 12, 0],
        [55 / 24, -59 / 24, 37 / 24, -9 / 24],
    ]
    torch.testing.assert_close(table[:4], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-13)
    torch.testing.assert_close(table[4:], table[3].expand(4, 4), rtol=0, atol=1e-13)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_adams_bashforth_integrates_polynomials_in_time_exactly(order):
    power = order - 1
    grid = CosineGrid()(9, torch.float64)
    flow = Flow(lambda x, t: (power + 1) * t**power * torch.ones_like(x))
    memory = AdamsBashforth(order).start(flow, NOISE, grid)
    for n in range(9):
        x = NOISE + grid[n] ** (power + 1)
        x, _, memory, _ = AdamsBashforth(order).step(flow, x, grid[n], grid[n + 1], memory)
        if n >= power:
            torch.testing.assert_close(x, NOISE + grid[n + 1] ** (power + 1), rtol=0, atol=1e-13)


@pytest.mark.parametrize("solver", [DPMSolver(order=1), AdamsBashforth(1)])
@pytest.mark.parametrize("backward", [False, True])
def test_ddim_on_the_linear_path_is_euler(solver, backward):
    grid = Shifted(2.0)(12, torch.float64)
    grid = grid.flip(0) if backward else grid
    ours = integrate(solver, Flow(swirl), NOISE, grid, trajectory=True)
    euler = integrate(Euler(), Flow(swirl), NOISE, grid, trajectory=True)
    assert ours.trajectory is not None
    assert euler.trajectory is not None
    for a, b in zip(ours.trajectory, euler.trajectory, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver", EXPONENTIAL)
@pytest.mark.parametrize("schedule", [Linear(), Cosine(), VariancePreserving(), VarianceExploding(), Polynomial(2.0)])
def test_a_constant_data_prediction_is_integrated_exactly(solver, schedule):
    """Then the noise is constant too: every step lands on the straight mixture, ends included."""
    path = Affine(schedule)
    solver = type(solver)(path, order=solver.order)
    # A velocity says nothing about the data where the path stands still, at t = 0 of the polynomial.
    grid = Uniform()(8, torch.float64)[int(isinstance(schedule, Polynomial)) :]
    alpha, sigma = schedule(grid[0])
    start = alpha * 1.5 + sigma * NOISE
    for step in walk(solver, one_point(path, 1.5), start, grid):
        alpha, sigma = schedule(step.t)
        torch.testing.assert_close(step.x, alpha * 1.5 + sigma * NOISE, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("solver", EXPONENTIAL)
def test_the_schedule_does_not_matter(solver):
    """They act in the signal-to-noise ratio alone: on another schedule, at times of the same ratio, the samples are the
    same but for the scale; from alpha = 0 to sigma = 0."""
    own, new = Linear(), Cosine()
    times = Uniform()(9, torch.float64)
    other = new.time_of(*own(times))
    on_own = integrate(solver, Flow(swirl), NOISE, times, trajectory=True)
    solver = type(solver)(Affine(new), order=solver.order)
    on_new = integrate(solver, Flow(Rescheduled(swirl, own, new)), NOISE, other, trajectory=True)
    assert on_own.trajectory is not None
    assert on_new.trajectory is not None
    for t, a, b in zip(times, on_own.trajectory, on_new.trajectory, strict=True):
        scale = torch.hypot(*own(t))
        torch.testing.assert_close(a / scale, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", EXPONENTIAL)
@pytest.mark.parametrize("backward", [False, True])
def test_ends_are_finite(solver, backward):
    for schedule in (Linear(), Cosine(), Polynomial(2.0)):
        grid = Uniform()(6, torch.float64)
        solver = type(solver)(Affine(schedule), order=solver.order)
        x = integrate(solver, Flow(swirl), NOISE, grid.flip(0) if backward else grid).x
        assert torch.isfinite(x).all()
        assert x.abs().max() < 100


@pytest.mark.parametrize("solver", ALL)
def test_a_walk_goes_on_from_its_memory_along_the_rest_of_its_grid(solver):
    grid = CosineGrid()(8, torch.float64)
    whole = integrate(solver, Flow(swirl), NOISE, grid).x
    steps = list(walk(solver, Flow(swirl), NOISE, grid))
    rest = integrate(solver, Flow(swirl), steps[3].x, grid[3:], memory=steps[3].memory).x
    assert torch.equal(rest, whole)


@pytest.mark.parametrize("solver", ALL)
def test_memory_has_one_shape_and_step_one_graph(solver):
    def shapes(tree) -> object:
        return tuple(shapes(part) for part in tree) if isinstance(tree, tuple) else (tree.shape, tree.dtype)

    grid = Uniform()(7)
    seen = {shapes(step.memory) for step in walk(solver, Flow(swirl), NOISE.float(), grid)}
    assert len(seen) == 1


@pytest.mark.parametrize("solver", [AdamsBashforth(3), UniPC(order=2), MeanCache()])
def test_one_compiled_graph_serves_every_step(solver):
    frames = []

    def backend(graph, inputs):
        frames.append(graph)
        return graph.forward

    flow, grid = Flow(swirl), Uniform()(6)
    step = torch.compile(lambda x, t, s, memory: solver.step(flow, x, t, s, memory), backend=backend, fullgraph=True)
    x, memory = NOISE.float(), solver.start(flow, NOISE.float(), grid)
    for t, s in pairwise(grid):
        x, _, memory, _ = step(x, t, s, memory)
    assert len(frames) == 1
    torch.testing.assert_close(x, integrate(solver, flow, NOISE.float(), grid).x)


@pytest.mark.parametrize("order", [2, 4])
def test_an_undetermined_start_has_no_weight_in_later_steps(order):
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(t == 0, 1e6, swirl(x, t))

    grid = Uniform()(6, torch.float64)
    first = integrate(AdamsBashforth(order), Flow(velocity, known=lambda t: t != 0), NOISE, grid[:2]).x
    steps = list(walk(AdamsBashforth(order), Flow(velocity, known=lambda t: t != 0), NOISE, grid))
    assert torch.equal(steps[1].x, first)
    # From the second point on it is the walk that begins there.
    begun = integrate(AdamsBashforth(order), Flow(velocity), first, grid[1:]).x
    torch.testing.assert_close(steps[-1].x, begun, rtol=1e-12, atol=1e-12 * float(begun.abs().max()))


def test_unipc_gives_a_velocity_that_stands_still_no_weight_in_its_corrector():
    path, grid = Affine(Polynomial(2.0)), Uniform()(5, torch.float64)
    second = list(walk(UniPC(path, order=2), one_point(path, 1.5), NOISE, grid))[2]
    alpha, sigma = path.schedule(grid[1])
    torch.testing.assert_close(second.memory.corrected, alpha * 1.5 + sigma * NOISE, rtol=0, atol=1e-12)


def test_unipc_gives_an_undetermined_start_no_weight_in_its_corrector():
    path = Affine()
    exact = one_point(path, 1.5)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(t == 0, path.convert(x, x, t, given="noise", want="velocity"), exact.velocity(x, t))

    flow = Flow(velocity, known=lambda t: path.determined(t, "noise") & path.determined(t, "data"))
    grid = Uniform()(5, torch.float64)
    second = list(walk(UniPC(order=2), flow, NOISE, grid))[2]
    # The first step takes the data for 0; the corrector, which knows better, puts the state back on the mixture.
    torch.testing.assert_close(second.memory.corrected, grid[1] * 1.5 + (1 - grid[1]) * NOISE, rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", ALL)
def test_precision_of_states_and_grids(solver):
    double = integrate(solver, Flow(swirl), NOISE, Uniform()(10, torch.float64)).x
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.3)):
        for grid in (Uniform()(10), Uniform()(10, torch.float64)):
            x = integrate(solver, Flow(lambda x, t: swirl(x, t.to(x.dtype))), NOISE.to(dtype), grid)
            assert x.x.dtype == dtype
            assert all(value.dtype == dtype for value in x.memory.values)
            assert (x.x.double() - double).abs().max() < tolerance * double.abs().max()


def test_what_they_refuse():
    diffusion = Diffusion(Flow(swirl), Affine(), torch.ones_like)
    grid = Uniform()(4)
    for solver in EXPONENTIAL:
        with pytest.raises(InputError, match="Diffusion"):
            integrate(solver, diffusion, NOISE.float(), grid, rng=0)
    for kind, orders in ((AdamsBashforth, (0, 5, True, 1.5)), (DPMSolver, (0, 4)), (UniPC, (0, 4))):
        for order in orders:
            with pytest.raises(InputError, match="orders 1 to"):
                kind(order=order)
    for solver in ALL:
        with pytest.raises(InputError, match="start"):
            solver.step(Flow(swirl), NOISE, grid[0], grid[1])
