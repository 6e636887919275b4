r"""How straight the trajectories of a flow are, from the states at the times of a fine grid.

A trajectory X goes from t = 0 to t = 1 with the velocity v; D = X(1) - X(0). Between the times of the grid it is taken
to be straight, so all figures are those of a polygon, right to second order in the steps, and need no derivative.

- *kinetic energy*: ``E integral |v|^2 dt``. Optimal transport has the least of it (Benamou and Brenier 2000).
- *displacement*: ``E |D|^2``. No flow that joins the same ends has less kinetic energy.
- *straightness* (Liu et al. 2023): ``E integral |D - v|^2 dt``, which is the kinetic energy less the displacement. It
  is 0 where every trajectory is straight and of constant speed: then one step of Euler is exact.
- *curvature*: straightness over displacement, so that data of any scale compare. The integral is what Lee, Kim and
  Ye (2023) call curvature, and what the error of few steps comes from.
- *length excess*: ``E length / E |D| - 1``; 0 where trajectories are straight, whatever their speed.
- *turning*: ``E integral |dT/ds| ds``, T the unit tangent and s the length: the total curvature of a curve, in radians,
  the angle by which its direction turns on the way. It sees neither scale nor speed. The others converge as the grid
  gets finer; this one goes on growing for a network that trembles in time, so compare it on equal grids.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from ..core import Cond, Dynamics, InputError, ShapeError, Solver, walk
from ..core.condition import take
from ..core.loop import check_grid

ROUNDING = 16
"""A segment shorter than this many roundings of its ends has a length, but no direction."""


@final
@dataclass(frozen=True)
class TrajectoryFigures:
    """How straight trajectories are; see :mod:`rheos.metrics.trajectories` for the laws.

    Attributes:
        kinetic_energy: in squared units of the data, summed over the entries of a state.
        displacement: likewise.
        straightness: likewise; 0 is straight at constant speed.
        curvature: straightness over displacement; infinite where all that moves comes back.
        length_excess: as a share of the distance between the ends.
        turning: in radians.
    """

    kinetic_energy: float
    displacement: float
    straightness: float
    curvature: float
    length_excess: float
    turning: float

    def asdict(self) -> dict[str, float]:
        """The six figures by name."""
        return asdict(self)


def trajectory_figures(states: Iterable[Tensor], grid: Tensor) -> TrajectoryFigures:
    """The figures of trajectories whose states are known.

    Args:
        states: the states ``(B, ...)`` at each time of the grid, such as the trajectory of
            :func:`~rheos.core.integrate`.
        grid: times ``(N+1,)``, N at least 2, rising or falling.

    Raises:
        ShapeError: if there are not as many states as times, or they differ in shape.
        InputError: if there are fewer than two steps, or a state is not finite.
    """
    return _figures([_measured(states, grid)])


def flow_figures(
    dynamics: Dynamics[Tensor],
    x0: Tensor,
    *,
    solver: Solver[Tensor],
    grid: Tensor,
    cond: Cond | None = None,
    batch: int = 1_000,
) -> TrajectoryFigures:
    """The figures of the trajectories of a flow, which are followed by a solver.

    Args:
        dynamics: the flow.
        x0: where the trajectories begin, (B, ...).
        solver: what follows them; its error should be small beside their curvature.
        grid: times ``(N+1,)``; 64 even steps are enough for three digits of a smooth flow.
        cond: the condition of each row.
        batch: trajectories that are followed together; memory grows with it, the figures do not change.

    Raises:
        InputError: if there are fewer than two steps or no trajectory, or a state is not finite.
    """
    if batch < 1 or not len(x0):
        raise InputError(f"at least one trajectory is followed at a time, got {len(x0)} in batches of {batch}.")

    def follow(rows: Tensor) -> Iterator[Tensor]:
        return (step.x for step in walk(solver, dynamics, x0[rows], grid, take(cond, rows)))

    with torch.no_grad():
        return _figures(_measured(follow(rows), grid) for rows in torch.arange(len(x0), device=x0.device).split(batch))


class _Rows(NamedTuple):
    """What each trajectory amounts to, float64 (B,): the last but one is its length, the last its total curvature."""

    energy: Tensor
    displacement: Tensor
    distance: Tensor
    length: Tensor
    turned: Tensor


def _measured(states: Iterable[Tensor], grid: Tensor) -> _Rows:
    """One pass along the polygons, which holds a few states at a time."""
    check_grid(grid)
    steps = grid.to(torch.float64).diff().abs().tolist()
    if len(steps) < 2:
        raise InputError("a trajectory can bend between two steps at least, got a grid of one; give it more times.")
    stream = map(_points, states)
    first = last = next(stream, torch.empty(0, 1))
    if not len(first):
        raise InputError("there is no trajectory to measure; give states of one row at least.")
    energy, length, turned = (first.new_zeros(len(first)) for _ in range(3))
    ahead, count = torch.zeros_like(first), 0
    for step, share, x in zip(steps, _shares(steps), stream, strict=False):
        if x.shape != first.shape:
            raise ShapeError(
                f"the states of trajectories are equally many and long, got {tuple(first.shape)} first and "
                f"{tuple(x.shape)} after {count + 1} steps."
            )
        segment = x - last
        size = segment.norm(dim=1)
        energy += size.square() / step
        length += size
        behind, ahead = ahead, _direction(segment, size, x, ahead)
        turned += share * _angle(behind, ahead)
        last, count = x, count + 1
    if count < len(steps) or next(stream, None) is not None:
        raise ShapeError(
            f"trajectories have a state at each of the {len(grid)} times of their grid, no more, no fewer."
        )
    moved = (last - first).norm(dim=1)
    if not bool((energy + moved).isfinite().all()):
        raise InputError("a trajectory is not finite; the flow diverges, or the solver's steps are too long for it.")
    return _Rows(energy, moved.square() / sum(steps), moved, length, turned)


def _points(state: Tensor) -> Tensor:
    return state.detach().flatten(1).to(torch.float64)


def _shares(steps: list[float]) -> list[float]:
    """For each segment, the weight of the corner at its beginning. A corner stands for the curve from the middle of one
    segment to the middle of the next; the first and the last corner also stand for the half segments at the ends."""
    shares = [0.0, *([1.0] * (len(steps) - 1))]
    shares[1] += steps[0] / (steps[0] + steps[1])
    shares[-1] += steps[-1] / (steps[-2] + steps[-1])
    return shares


def _direction(segment: Tensor, size: Tensor, x: Tensor, former: Tensor) -> Tensor:
    """The unit vector of each segment; what stands still keeps the direction it had."""
    # States come from single precision more often than not, whatever they are held in here.
    still = size <= ROUNDING * torch.finfo(torch.float32).eps * x.abs().amax(1)
    return torch.where(still[:, None], former, segment / torch.where(still, 1.0, size)[:, None])


def _angle(one: Tensor, other: Tensor) -> Tensor:
    """The angle between unit vectors, exact for small ones too (Kahan 2006); 0 where one is 0."""
    angle = 2 * torch.atan2((one - other).norm(dim=1), (one + other).norm(dim=1))
    return torch.where(one.any(1) & other.any(1), angle, 0.0)


def _figures(parts: Iterable[_Rows]) -> TrajectoryFigures:
    """The means over all trajectories."""
    columns = (torch.cat(rows).mean() for rows in zip(*parts, strict=True))
    energy, displacement, distance, length, turned = (float(mean) for mean in columns)
    straightness = max(0.0, energy - displacement)
    excess = max(0.0, length - distance)
    return TrajectoryFigures(
        energy, displacement, straightness, _ratio(straightness, displacement), _ratio(excess, distance), turned
    )


def _ratio(excess: float, whole: float) -> float:
    """The quotient; 0 where nothing moved at all."""
    if whole == 0.0:
        return 0.0 if excess == 0.0 else math.inf
    return excess / whole
