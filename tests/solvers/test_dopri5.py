"""The adaptive solver: its tolerance, its clocks, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rheos.core import InputError, RheosError
from rheos.dynamics import Diffusion, Flow
from rheos.paths import Affine
from rheos.solvers import Dopri5, integrate

ENDS = torch.tensor([0.0, 1.0], dtype=torch.float64)
START = torch.tensor([[1.0, 0.1], [2.0, -0.3], [0.5, 4.0], [30.0, 0.0]], dtype=torch.float64)


def decaying(x: Tensor, t: Tensor) -> Tensor:
    """``x' = -2 t x**2``: very different speeds in the rows of START."""
    return -2 * t[:, None] * x.square()


def decayed(t: float) -> Tensor:
    return START / (1 + t * t * START)


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_the_tolerance_controls_the_error(beta):
    errors, costs = [], []
    for tolerance in (1e-4, 1e-6, 1e-8, 1e-10):
        solution = integrate(Dopri5(tolerance, tolerance, beta=beta), Flow(decaying), START, ENDS)
        errors.append(float((solution.x - decayed(1.0)).abs().max()))
        costs.append(solution.evaluations)
        assert errors[-1] < 20 * tolerance
        assert solution.error is not None
        assert solution.error.shape == (4,)
        assert bool((solution.error <= 1).all())
    assert errors[0] > 1e4 * errors[-1], "a tolerance that changes nothing is not used"
    # Order 5: a hundredth of the tolerance costs 100**(1/5) = 2.5 times the evaluations.
    assert 1.8 < costs[-1] / costs[-2] < 3.2


def test_rtol_and_atol_are_the_tolerances_of_large_and_small_values():
    large = integrate(Dopri5(1e-6, 1e-30), Flow(decaying), 1e3 + 0 * START, ENDS).evaluations
    flat = Flow(lambda x, t: torch.cos(20 * t)[:, None].expand_as(x) * 1e-9)
    assert integrate(Dopri5(0.0, 1e-6), flat, START, ENDS).evaluations < 30 < large


def test_a_sample_is_what_it_would_be_alone():
    solver, grid = Dopri5(1e-6, 1e-6), torch.tensor([0.0, 0.3, 0.35, 1.0], dtype=torch.float64)
    together = integrate(solver, Flow(decaying), START, grid, trajectory=True)
    for row in range(len(START)):
        alone = integrate(solver, Flow(decaying), START[row : row + 1], grid, trajectory=True)
        assert together.trajectory is not None
        assert alone.trajectory is not None
        for a, b in zip(together.trajectory, alone.trajectory, strict=True):
            assert torch.equal(a[row : row + 1], b)


def test_it_passes_through_every_grid_point_and_back():
    solver, grid = Dopri5(1e-9, 1e-9), torch.tensor([0.0, 0.2, 0.25, 0.9, 1.0], dtype=torch.float64)
    there = integrate(solver, Flow(decaying), START, grid, trajectory=True)
    assert there.trajectory is not None
    for t, x in zip(grid.tolist(), there.trajectory, strict=True):
        assert torch.allclose(x, decayed(t), rtol=1e-7, atol=1e-8)
    back = integrate(solver, Flow(decaying), there.x, grid.flip(0))
    assert torch.allclose(back.x, START, rtol=1e-5)


def test_clocks_are_per_sample_and_those_who_arrived_stay():
    solver, flow = Dopri5(1e-8, 1e-8), Flow(decaying)
    x, t, memory, target = START, ENDS[0], solver.start(flow, START, ENDS), ENDS[1]
    spread, stayed = False, False
    for _ in range(500):
        before, arrived = x, (t == target).expand(len(x))
        x, t, memory, _ = solver.step(flow, x, t, target, memory)
        assert t.shape == (4,)
        spread |= bool(t.unique().numel() > 1)
        if bool(arrived.any()):
            stayed = True
            assert torch.equal(x[arrived], before[arrived])
            assert bool((t[arrived] == target).all())
        if bool((t == target).all()):
            break
    assert spread
    assert stayed
    assert bool((t == target).all())


def test_rejected_attempts_leave_the_state():
    solver, flow = Dopri5(1e-10, 1e-10), Flow(decaying)
    memory = solver.start(flow, START, ENDS)
    memory = memory._replace(size=torch.ones(4, dtype=torch.float64))
    step = solver.step(flow, START, ENDS[0], ENDS[1], memory)
    assert torch.equal(step.x, START)
    assert bool((step.t == 0).all())
    assert bool((step.memory.size < 1).all())
    assert torch.equal(step.memory.rate, memory.rate)


def test_the_first_rate_of_a_step_is_the_last_of_the_one_before():
    calls = []

    def counted(x: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        return decaying(x, t)

    solver = Dopri5()
    memory = solver.start(Flow(counted), START, ENDS)
    assert len(calls) == 2
    step = solver.step(Flow(counted), START, ENDS[0], ENDS[1], memory)
    assert len(calls) == 8
    assert bool((step.t > 0).all())
    torch.testing.assert_close(step.memory.rate, decaying(step.x, step.t), rtol=1e-12, atol=1e-12)


def test_step_works_without_a_memory():
    step = Dopri5().step(Flow(decaying), START, ENDS[0], ENDS[1])
    assert bool((step.t > 0).all())
    torch.testing.assert_close(step.x, START / (1 + step.t[:, None] ** 2 * START), rtol=1e-5, atol=1e-5)


def test_a_grid_point_does_not_shorten_the_steps_after_it():
    near = torch.tensor([0.0, 0.5, 0.5 + 1e-9, 1.0], dtype=torch.float64)
    free = integrate(Dopri5(), Flow(decaying), START, near[[0, 1, 3]]).evaluations
    assert integrate(Dopri5(), Flow(decaying), START, near).evaluations <= free + 6


def test_steps_grow_with_the_fifth_root_of_the_tolerance_and_remember_the_last_norm():
    flow = Flow(lambda x, t: torch.sin(3 * x))
    memory = Dopri5().start(flow, START, ENDS)._replace(size=torch.full((4,), 0.1, dtype=torch.float64))

    def next_size(atol: float, beta: float, norm: float) -> Tensor:
        solver = Dopri5(0.0, atol, beta=beta, grow=1e9)
        before = memory._replace(norm=torch.full((4,), norm, dtype=torch.float64))
        return solver.step(flow, START, ENDS[0], ENDS[1], before).memory.size

    torch.testing.assert_close(next_size(0.32, 0.0, 1.0), 2 * next_size(0.01, 0.0, 1.0))
    # A last norm below this one's says that errors are growing: the next step is more careful.
    torch.testing.assert_close(next_size(0.01, 0.1, 1.0), 10**0.1 * next_size(0.01, 0.1, 0.1))


def test_a_step_too_long_for_the_domain_is_shortened():
    flow = Flow(lambda x, t: torch.where(x < 0, torch.nan, -50 * x))
    x = torch.ones(4, 2, dtype=torch.float64)
    memory = Dopri5().start(flow, x, ENDS)._replace(size=torch.ones(4, dtype=torch.float64))
    end = integrate(Dopri5(1e-6, 1e-9), flow, x, ENDS * 0.2, memory=memory).x
    torch.testing.assert_close(end, torch.exp(-10 * x), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("speed", [1.0, 1e3])
def test_the_first_step_fits_the_speed(speed):
    memory = Dopri5(1e-6, 1e-6).start(Flow(lambda x, t: -speed * x), START, ENDS)
    assert bool((memory.size * speed > 1e-3).all())
    assert bool((memory.size * speed < 1.01).all())


def test_the_first_step_is_short_where_the_first_rate_tells_nothing():
    memory = Dopri5().start(Flow(lambda x, t: (t**8)[:, None].expand_as(x)), START, ENDS)
    assert bool((memory.size <= 1e-4).all())


class Pair:
    """A state (x, its log-volume) as a tuple."""

    def over(self, wrap):
        return self

    def rate(self, x, t, s=None):
        return decaying(x[0], t), -4 * t * x[0].sum(1)

    def move(self, x, rate, t, s, rng=None):
        gap = s - t
        return x[0] + gap[:, None] * rate[0], x[1] + gap * rate[1]

    def determined(self, t):
        return None


def test_every_leaf_of_a_tuple_is_within_the_tolerance():
    x, volume = integrate(Dopri5(1e-8, 1e-8), Pair(), (START, torch.zeros(4, dtype=torch.float64)), ENDS).x
    torch.testing.assert_close(x, decayed(1.0), rtol=1e-6, atol=1e-7)
    # d x1/d x0 = (1 + x0)**-2 for this flow.
    torch.testing.assert_close(volume, -2 * torch.log1p(START).sum(1), rtol=1e-6, atol=1e-7)


def test_a_small_leaf_is_not_drowned_by_a_large_one():
    class Drowned(Pair):
        def rate(self, x, t, s=None):
            return torch.zeros_like(x[0]), torch.cos(9 * t)

    state = torch.zeros(2, 10_000, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    _, small = integrate(Dopri5(0.0, 1e-7), Drowned(), state, ENDS).x
    torch.testing.assert_close(small, torch.full((2,), 9.0, dtype=torch.float64).sin() / 9, rtol=0, atol=1e-7)


def test_an_undetermined_end_is_never_used():
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return torch.where((t == 1)[:, None], 1e9, -x)

    flow = Flow(velocity, known=lambda t: t != 1)
    out = integrate(Dopri5(1e-6, 1e-6), flow, START, ENDS)
    torch.testing.assert_close(out.x, START * torch.exp(torch.tensor(-1.0)), rtol=1e-4, atol=1e-5)


def test_single_precision_states_stay_so():
    x = integrate(Dopri5(1e-4, 1e-4), Flow(lambda x, t: -x), START.float(), ENDS).x
    assert x.dtype == torch.float32
    half = integrate(Dopri5(1e-2, 1e-2), Flow(lambda x, t: -x), START.bfloat16(), ENDS.float()).x
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), START * 0.36788, rtol=0.05, atol=0.02)


def test_gradients_pass_through_the_states():
    x = START.clone().requires_grad_()
    integrate(Dopri5(1e-9, 1e-9), Flow(decaying), x, ENDS).x.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, (1 + START) ** -2, rtol=1e-5, atol=1e-6)


def test_a_dynamics_that_is_not_finite_is_reported_soon():
    calls = [0]

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        calls[0] += 1
        return torch.where((t > 0.5)[:, None], torch.nan, -x)

    with pytest.raises(RheosError, match="not finite"):
        integrate(Dopri5(), Flow(velocity), START, ENDS)
    assert calls[0] < 2000


def test_what_it_refuses():
    diffusion = Diffusion(Flow(lambda x, t: -x), Affine(), torch.ones_like)
    with pytest.raises(InputError, match="Euler"):
        integrate(Dopri5(), diffusion, START, ENDS, rng=0)
    for wrong in ({"rtol": 0.0, "atol": 0.0}, {"rtol": -1.0}, {"safety": 1.5}, {"grow": 0.5}, {"beta": 0.3}):
        with pytest.raises(InputError):
            Dopri5(**wrong)


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.0, 0.0), (0.3, 2.0)])
@pytest.mark.parametrize(
    ("x", "slope", "bend"),
    [(2.0, 3.0, 1.0), (0.0, 0.5, 20.0), (2.0, 0.0, 0.0), (1e-3, 1e-9, 5.0), (20.0, 5.0, 3.0), (2.0, 1e-3, 0.0)],
)
def test_the_first_step_is_that_of_hairer(x, slope, bend, start, end):
    """Solving Ordinary Differential Equations I, section II.4, with numbers instead of tensors."""
    rtol, atol = 1e-3, 1e-2

    def rate(x: float, t: float) -> float:
        return slope * math.cos(t) + bend * x

    unit = atol + rtol * abs(x)
    position, speed, way = abs(x) / unit, abs(rate(x, start)) / unit, 1.0 if end > start else -1.0
    trial = 1e-6 if position < 1e-5 or speed < 1e-5 else 0.01 * position / speed
    trial = min(trial, abs(end - start))
    ahead = rate(x + way * trial * rate(x, start), start + way * trial)
    steepest = max(speed, abs(ahead - rate(x, start)) / unit / trial)
    wanted = max(1e-6, 1e-3 * trial) if steepest <= 1e-15 else (0.01 / steepest) ** 0.2
    flow = Flow(lambda x, t: slope * torch.cos(t)[:, None] + bend * x)
    grid = torch.tensor([start, end], dtype=torch.float64)
    control = Dopri5(rtol, atol).start(flow, torch.tensor([[x]], dtype=torch.float64), grid)
    assert float(control.size) == pytest.approx(min(wanted, 100 * trial), rel=1e-9)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)])
def test_a_velocity_of_zero_is_no_reason_to_stall(ends: tuple[float, float]) -> None:
    """A fresh network gives exactly zero; in float32 the first step must not be lost in the rounding of the time."""
    x = torch.ones(3, 2)
    solution = integrate(Dopri5(), Flow(lambda x, t: 0 * x), x, torch.tensor(ends))
    assert torch.equal(solution.x, x)
    assert solution.evaluations < 60
