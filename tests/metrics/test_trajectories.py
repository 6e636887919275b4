"""The figures of trajectories against curves whose figures are known, and against a flow in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rheos.core import InputError, Rng, ShapeError, integrate
from rheos.dynamics import Flow
from rheos.metrics.trajectories import TrajectoryFigures, flow_figures, trajectory_figures
from rheos.solvers import RK4, Euler

EVEN = torch.linspace(0, 1, 129, dtype=torch.float64)
UNEVEN = EVEN**2 * (3 - 2 * EVEN)
START = Rng(1).normal(5, 3, dtype=torch.float64)
GAP = Rng(2).normal(5, 3, dtype=torch.float64)


def followed(curve: Callable[[Tensor], Tensor], grid: Tensor = EVEN) -> TrajectoryFigures:
    return trajectory_figures([curve(t) for t in grid], grid)


def arc(angle: float, radius: float = 2.0) -> Callable[[Tensor], Tensor]:
    """Two rows on one circle about a point off the origin, at constant speed, in a plane of three dimensions."""

    def curve(t: Tensor) -> Tensor:
        turn = angle * t + torch.tensor([0.3, 2.0], dtype=t.dtype)
        return torch.stack([7 + radius * turn.cos(), radius * turn.sin(), torch.ones_like(turn)], 1)

    return curve


@pytest.mark.parametrize("grid", [EVEN, UNEVEN, EVEN.float()])
def test_straight_at_constant_speed(grid: Tensor) -> None:
    found = followed(lambda t: START + t * GAP, grid)
    squared = float(GAP.square().sum(1).mean())
    assert found.kinetic_energy == pytest.approx(squared, rel=1e-6)
    assert found.displacement == pytest.approx(squared, rel=1e-6)
    assert found.curvature == pytest.approx(0, abs=1e-6)
    assert found.length_excess == pytest.approx(0, abs=1e-6)
    assert found.turning == pytest.approx(0, abs=1e-4)


def test_straight_and_speeding_up() -> None:
    found = followed(lambda t: START + t * t * GAP)
    squared = float(GAP.square().sum(1).mean())
    assert found.kinetic_energy == pytest.approx(4 / 3 * squared, rel=1e-4)
    assert found.straightness == pytest.approx(squared / 3, rel=1e-4)
    assert found.curvature == pytest.approx(1 / 3, rel=1e-4)
    assert found.length_excess == pytest.approx(0, abs=1e-12)
    assert found.turning == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("angle", [0.1, 1.0, math.pi, 5.0])
@pytest.mark.parametrize("grid", [EVEN, UNEVEN])
def test_an_arc_of_a_circle(angle: float, grid: Tensor) -> None:
    found = followed(arc(angle), grid)
    chord = 2 * math.sin(angle / 2)
    assert found.kinetic_energy == pytest.approx((2 * angle) ** 2, rel=1e-3)
    assert found.displacement == pytest.approx((2 * chord) ** 2, rel=1e-9)
    assert found.straightness == pytest.approx((2 * angle) ** 2 - (2 * chord) ** 2, rel=1e-2)
    assert found.curvature == pytest.approx((angle / chord) ** 2 - 1, rel=1e-2)
    assert found.length_excess == pytest.approx(angle / chord - 1, rel=1e-2)
    assert found.turning == pytest.approx(angle, rel=1e-3)


@pytest.mark.parametrize("times", [[0.0, 0.1, 1.0], [0.0, 0.3, 0.4, 0.9, 1.0], [0.0, 0.7, 0.8]])
def test_an_arc_turns_by_its_angle_on_any_grid(times: list[float]) -> None:
    grid = torch.tensor(times, dtype=torch.float64)
    assert followed(arc(2.0), grid).turning == pytest.approx(2.0 * times[-1], rel=1e-9)


def test_the_error_is_of_second_order() -> None:
    def gaps(steps: int) -> tuple[float, float]:
        grid = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        # (t, t^3): the direction turns from that of the axis by atan(3).
        bent = followed(lambda t: torch.stack([t, t**3])[None], grid)
        return abs(followed(arc(2.0), grid).kinetic_energy - 16.0), abs(bent.turning - math.atan(3))

    for steps in (16, 32):
        (energy, turning), (finer_energy, finer_turning) = gaps(steps), gaps(2 * steps)
        assert energy / finer_energy == pytest.approx(4, rel=0.05)
        assert turning / finer_turning == pytest.approx(4, rel=0.3)


def test_scale_and_direction_do_not_matter() -> None:
    once = followed(arc(1.0))
    large = followed(lambda t: 50 * arc(1.0)(t))
    back = trajectory_figures([arc(1.0)(t) for t in EVEN.flip(0)], EVEN.flip(0))
    assert large.kinetic_energy == pytest.approx(2500 * once.kinetic_energy)
    for other in (large, back):
        for name in ("curvature", "length_excess", "turning"):
            assert other.asdict()[name] == pytest.approx(once.asdict()[name], rel=1e-9)


def test_another_duration_is_another_speed() -> None:
    twice = trajectory_figures([arc(1.0)(t) for t in EVEN], 2 * EVEN)
    once = followed(arc(1.0))
    assert twice.kinetic_energy == pytest.approx(once.kinetic_energy / 2)
    assert twice.curvature == pytest.approx(once.curvature, rel=1e-9)


def test_what_comes_back_and_what_stands_still() -> None:
    back = followed(lambda t: torch.sin(torch.pi * t).expand(2, 1))
    assert back.curvature > 1e20
    assert back.turning == pytest.approx(math.pi)
    still = followed(lambda t: START)
    assert set(still.asdict().values()) == {0.0}
    # A pause in the middle is no turn, nor is the rounding of what stands still.
    pause = followed(lambda t: START + (t.clamp(max=0.3) + t.clamp(min=0.7)) * GAP + 1e-9 * torch.sin(1e4 * t))
    assert pause.turning == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_flow_of_a_gaussian(scale: float) -> None:
    # Data N(0, s^2) on the straight path: X(t) = r(t)*x0 with r^2 = s^2 t^2 + (1 - t)^2.
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return (scale**2 * t - (1 - t)) / (scale**2 * t**2 + (1 - t) ** 2) * x

    found = flow_figures(Flow(velocity), START, solver=RK4(), grid=EVEN)
    t = torch.linspace(0, 1, 20001, dtype=torch.float64)
    radius = (scale**2 * t**2 + (1 - t) ** 2).sqrt()
    energy = float(radius.diff().square().sum() * 20000 * START.square().sum(1).mean())
    assert found.kinetic_energy == pytest.approx(energy, rel=1e-3)
    assert found.displacement == pytest.approx(
        (scale - 1) ** 2 * float(START.square().sum(1).mean()), rel=1e-6, abs=1e-9
    )
    if scale == 1.0:
        assert energy == pytest.approx((2 - math.pi / 2) * float(START.square().sum(1).mean()), rel=1e-6)
        assert found.turning == pytest.approx(math.pi)


def test_a_flow_is_followed_in_parts_with_its_conditions() -> None:
    def velocity(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return torch.cos(3 * x.flip(1)) + cond[:, None] * t

    cond = torch.arange(5)
    whole = flow_figures(Flow(velocity), START, solver=Euler(), grid=EVEN, cond=cond)
    parts = flow_figures(Flow(velocity), START, solver=Euler(), grid=EVEN, cond=cond, batch=2)
    assert parts.asdict() == pytest.approx(whole.asdict(), rel=1e-12)
    states = integrate(Euler(), Flow(velocity), START, EVEN, cond, trajectory=True).trajectory
    assert states is not None
    assert trajectory_figures(states, EVEN) == whole
    assert whole.curvature > 0.01


def test_no_gradient_is_kept() -> None:
    gain = torch.ones((), dtype=torch.float64, requires_grad=True)
    seen = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        seen.append((gain * x).requires_grad)
        return gain * x

    flow_figures(Flow(velocity), START, solver=Euler(), grid=EVEN)
    assert not any(seen)


def test_bad_input_is_refused() -> None:
    states = [START, START, START]
    with pytest.raises(ShapeError, match="state at each of the 4 times"):
        trajectory_figures(states, torch.linspace(0, 1, 4))
    with pytest.raises(ShapeError, match="state at each of the 3 times"):
        trajectory_figures([*states, START], torch.linspace(0, 1, 3))
    with pytest.raises(ShapeError, match="equally many and long"):
        trajectory_figures([START, START[:2], START], torch.linspace(0, 1, 3))
    with pytest.raises(InputError, match="two steps"):
        trajectory_figures(states[:2], torch.linspace(0, 1, 2))
    with pytest.raises(InputError, match="strictly"):
        trajectory_figures(states, torch.tensor([0.0, 0.5, 0.5]))
    with pytest.raises(InputError, match="not finite"):
        trajectory_figures([START, START / 0, START], torch.linspace(0, 1, 3))
    with pytest.raises(InputError, match="no trajectory"):
        trajectory_figures([START[:0]] * 3, torch.linspace(0, 1, 3))
    with pytest.raises(InputError, match="at least one trajectory"):
        flow_figures(Flow(lambda x, t: x), START[:0], solver=Euler(), grid=EVEN)
