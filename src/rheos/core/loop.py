"""The one loop: every solver, on every dynamics, walks through here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, final

import torch
from torch import Tensor

from .condition import Cond
from .errors import InputError, RheosError
from .protocols import Dynamics, Memory, Model, S, Solver, Step, over
from .rng import Rng, Stream
from .tree import batch, leaves

MAX_ATTEMPTS = 10_000
"""Attempts an adaptive solver may make between two grid points before the loop gives up."""

MAX_STALLED = 100
"""Attempts in a row that may bring the slowest sample no further. A step shrinks tenfold in a few, so this is not
patience but the sign of a dynamics that is not finite."""


@final
@dataclass(frozen=True)
class Conditioned:
    """A model whose condition is fixed, so that solvers need not carry it."""

    model: Model
    cond: Cond

    def __call__(self, x: Any, *args: Any, **end: Any) -> Any:
        return self.model(x, *args, self.cond, **end)

    def over(self, wrap: Callable[[Model], Model]) -> Model:
        return Conditioned(over(self.model, wrap), self.cond)


@final
class Counted:
    """A model that counts its calls."""

    def __init__(self, model: Model, tally: list[int]) -> None:
        self.model, self.tally = model, tally

    def __call__(self, x: Any, *args: Any, **end: Any) -> Any:
        self.tally[0] += 1
        return self.model(x, *args, **end)

    def over(self, wrap: Callable[[Model], Model]) -> Model:
        return Counted(over(self.model, wrap), self.tally)


@dataclass(frozen=True)
class Solution(Generic[S]):
    """Where an integration ended.

    Attributes:
        x: the state at the last grid point.
        evaluations: calls of the (guided) model.
        passes: passes through a network; guidance makes two or more of one evaluation.
        memory: the solver's memory, from which a walk can go on.
        trajectory: the states at every grid point, the first included, when asked for.
        error: the solver's last error estimate a sample, where it has one.
    """

    x: S
    evaluations: int
    passes: int
    memory: Memory
    trajectory: tuple[S, ...] | None = None
    error: Tensor | None = None


def walk(
    solver: Solver[S],
    dynamics: Dynamics[S],
    x: S,
    grid: Tensor,
    cond: Cond | None = None,
    rng: Rng | torch.Generator | int | None = None,
    memory: Memory | None = None,
) -> Iterator[Step[S]]:
    """Yield a :class:`Step` at every grid point, the first included.

    Args:
        solver: the rule for one step.
        dynamics: what is integrated.
        x: the state at ``grid[0]``.
        grid: times ``(N+1,)``, strictly increasing or strictly decreasing.
        cond: the condition, fixed for the whole walk.
        rng: noise, for dynamics that need it. Step ``n`` uses the key folded with ``n``.
        memory: a solver's memory to go on from; ``solver.start`` makes one when left out.

    Raises:
        InputError: if the grid is not one of distinct times in order.
        RheosError: if an adaptive solver makes no way.
    """
    check_grid(grid)
    if cond is not None:
        dynamics = dynamics.over(lambda model: Conditioned(model, cond))
    keys = None if rng is None else Rng.of(rng).per_row(batch(x), leaves(x)[0].device).fold(Stream.STEP)
    step = Step(x, grid[0], solver.start(dynamics, x, grid) if memory is None else memory)
    yield step
    for n, target in enumerate(grid.unbind()[1:]):
        noise = None if keys is None else keys.fold(n)
        step = solver.step(dynamics, step.x, step.t, target, step.memory, noise)
        if solver.adaptive:
            attempts, stalled, left = 1, 0, _left(step, target)
            while left:
                if attempts == MAX_ATTEMPTS or stalled == MAX_STALLED:
                    raise RheosError(
                        f"the adaptive solver made {attempts} attempts and still lacks {left:.6g} of the way to t = "
                        f"{float(target):.6g}; the dynamics is too stiff for its tolerances, or not finite."
                    )
                step = solver.step(dynamics, step.x, step.t, target, step.memory, noise)
                attempts, before, left = attempts + 1, left, _left(step, target)
                stalled = stalled + 1 if left == before else 0
        yield step


def integrate(
    solver: Solver[S],
    dynamics: Dynamics[S],
    x: S,
    grid: Tensor,
    cond: Cond | None = None,
    rng: Rng | torch.Generator | int | None = None,
    memory: Memory | None = None,
    *,
    trajectory: bool = False,
) -> Solution[S]:
    """Drain :func:`walk` into a :class:`Solution`. The grid may run backward. Grad mode is left as it is."""
    evaluations, passes = [0], [0]
    counted = dynamics.over(lambda model: Counted(over(model, lambda inner: Counted(inner, passes)), evaluations))
    steps = walk(solver, counted, x, grid, cond, rng, memory)
    step = next(steps)
    states = [step.x]
    for step in steps:
        if trajectory:
            states.append(step.x)
    return Solution(step.x, evaluations[0], passes[0], step.memory, tuple(states) if trajectory else None, step.error)


def _left(step: Step[Any], target: Tensor) -> float:
    """How much time the slowest sample still lacks. This is where the host waits, once an attempt."""
    return float((target - step.t).abs().max())


def check_grid(grid: Tensor) -> None:
    """Refuse a grid that is not at least two distinct times in order."""
    if not isinstance(grid, Tensor) or grid.dim() != 1 or len(grid) < 2 or not grid.is_floating_point():
        shape = tuple(grid.shape) if isinstance(grid, Tensor) else type(grid).__name__
        raise InputError(f"a grid is a floating tensor of at least two times (N+1,), got {shape}.")
    if grid.dtype in (torch.float16, torch.bfloat16):
        raise InputError(f"times are float32 or wider, got a grid in {grid.dtype}.")
    gaps = grid.diff()
    if not bool((gaps > 0).all() or (gaps < 0).all()):
        raise InputError(f"a grid must be strictly increasing or strictly decreasing, got {grid.tolist()}.")
