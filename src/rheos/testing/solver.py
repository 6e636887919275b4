r"""The laws of a solver, and a measurement of its order.

The test problem is the Stuart-Landau oscillator with a drifting frequency: for a plane state of size r and angle theta,

    r' = r*(1 - r**2)/2,    theta' = t + r**2,

which is nonlinear, coupled and non-autonomous, and has the closed form ``r**2 = 1/(1 + c*exp(-t))`` with
``c = r(0)**-2 - 1`` and ``theta = theta(0) + t**2/2 + log((exp(t) + c)/(1 + c))``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..core.loop import integrate
from ..core.protocols import Solver
from ..core.tree import transform
from ..dynamics import Flow
from .law import agree, lawful, require

_ENDS = (0.1, 0.9)
_STEPS = {1: 64, 2: 64, 3: 64, 4: 48, 5: 36}


def check_solver(
    solver: Solver[Any], *, order: int | None = None, tolerance: float = 0.15, tuples: bool = True
) -> None:
    """Hold a solver of ordinary differential equations against its laws.

    Its order, measured forward and backward on even and uneven grids, is ``order``; the last time is exactly the
    grid's; rows do not depend on one another; float32 stays float32; and a tuple of states goes part by part.

    Args:
        solver: the solver.
        order: the order that it should have; ``solver.order`` when left out.
        tolerance: of the measured order.
        tuples: whether it must carry tuples of states (a log-density beside its point).

    Raises:
        AssertionError: if a law is broken.
    """
    order = solver.order if order is None else order
    for backward in (False, True):
        way = "backward" if backward else "forward"
        for uneven in (False, True):
            with lawful(f"the solver integrates the test problem {way}"):
                measured = measured_order(solver, backward=backward, uneven=uneven)
            grid = "an uneven" if uneven else "an even"
            require(
                abs(measured - order) <= tolerance,
                f"the order on {grid} grid {way} is {order} to {tolerance}: {measured:.3f} was measured.",
            )
    _check_rows(solver)
    _check_dtype(solver)
    if tuples:
        _check_tuples(solver)


def measured_order(
    solver: Solver[Any], *, backward: bool = False, uneven: bool = False, steps: int | None = None
) -> float:
    """The order of a solver: the rate at which its error falls when the steps of its grid are halved, in float64.

    The rates of two halvings are extrapolated to the limit of small steps, ``2*second - first``.

    Multistep solvers get an exact start: their first states are set to the exact ones, so that their memory is filled
    with exact rates.

    Args:
        solver: the solver.
        backward: whether to integrate from late to early.
        uneven: whether neighbouring steps differ, in a smooth way.
        steps: steps of the coarsest grid; by the order when left out.
    """
    steps = steps or _STEPS.get(solver.order, 16)
    coarse, middle, fine = (_error(solver, k * steps, backward, uneven) for k in (1, 2, 4))
    return 2 * math.log2(middle / fine) - math.log2(coarse / middle)


def oscillator(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    """The velocity of the test problem at states (B, 2) and times () or (B,)."""
    square = x.square().sum(-1, keepdim=True)
    turn = (t[:, None] if t.dim() else t) + square
    return 0.5 * (1 - square) * x + turn * torch.stack([-x[..., 1], x[..., 0]], -1)


def solution(t: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """The exact states (4, 2) of the test problem at the time ``t`` of shape ()."""
    size = torch.tensor([0.6, 0.8, 1.0, 1.2], dtype=torch.float64)
    angle = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    c, t = size**-2 - 1, t.double()
    radius = (1 + c * torch.exp(-t)) ** -0.5
    theta = angle + t**2 / 2 + torch.log((torch.exp(t) + c) / (1 + c))
    return torch.stack([radius * theta.cos(), radius * theta.sin()], -1).to(dtype)


def _grid(steps: int, backward: bool, uneven: bool, dtype: torch.dtype = torch.float64) -> Tensor:
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    if uneven:
        u = u + 0.05 * torch.sin(2 * math.pi * u)
    grid = _ENDS[0] + (_ENDS[1] - _ENDS[0]) * u
    grid[0], grid[-1] = _ENDS
    return (grid.flip(0) if backward else grid).to(dtype)


def _error(solver: Solver[Any], steps: int, backward: bool, uneven: bool) -> float:
    """The error at the end of a grid, root mean square over the rows, from an exact start."""
    grid = _grid(steps, backward, uneven)
    flow, x = Flow(oscillator), solution(grid[0])
    memory: Any = solver.start(flow, x, grid)
    for n, s in enumerate(grid[1:]):
        reached = False
        t = grid[n]
        while not reached:
            step = solver.step(flow, x, t, s, memory)
            x, t, memory = step.x, step.t, step.memory
            reached = bool((t == s).all())
            require(
                reached or solver.adaptive,
                f"a solver of fixed steps ends its step at the time {float(s)} it was given.",
            )
        if n < solver.order:
            x = solution(s)
    return float((x - solution(grid[-1])).square().mean().sqrt())


def _check_rows(solver: Solver[Any]) -> None:
    grid = _grid(12, False, True)
    x = solution(grid[0])
    whole = integrate(solver, Flow(oscillator), x, grid).x
    for row in range(len(x)):
        alone = integrate(solver, Flow(oscillator), x[row : row + 1], grid).x
        agree(f"row {row} does not depend on the others", whole[row : row + 1], alone, 1e-12)


def _check_dtype(solver: Solver[Any]) -> None:
    grid = _grid(12, False, False, torch.float32)
    x = integrate(solver, Flow(oscillator), solution(grid[0], torch.float32), grid).x
    require(x.dtype == torch.float32, f"float32 stays float32: {x.dtype} came back.")
    agree("float32 and float64 agree", x.double(), integrate(solver, Flow(oscillator), *_double(grid)).x, 1e-4)


def _double(grid: Tensor) -> tuple[Tensor, Tensor]:
    return solution(grid[0]), grid.double()


class _Both:
    """Two copies of the test problem as a pair: the tuple states that likelihoods are made of."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    def over(self, wrap: Any) -> _Both:
        return _Both(self.flow.over(wrap))

    def rate(self, x: Any, t: Tensor, s: Tensor | None = None) -> Any:
        return transform(lambda part: self.flow.rate(part, t, s), x)

    def move(self, x: Any, rate: Any, t: Tensor, s: Tensor, rng: Any = None) -> Any:
        return transform(lambda part, along: self.flow.move(part, along, t, s), x, rate)

    def determined(self, t: Tensor) -> Tensor | None:
        return None


def _check_tuples(solver: Solver[Any]) -> None:
    grid = _grid(12, False, False)
    x = solution(grid[0])
    alone = integrate(solver, Flow(oscillator), x, grid).x
    with lawful("a solver carries tuples of states"):
        pair = integrate(solver, _Both(Flow(oscillator)), (x, x.clone()), grid).x
    for part in pair:
        agree("a tuple of states goes part by part", part, alone, 1e-12)
