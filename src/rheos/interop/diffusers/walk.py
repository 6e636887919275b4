"""A solver that is fed its rates, one after the other.

A solver of ours asks the dynamics for rates; a pipeline of diffusers evaluates its network and hands the result over.
So a step is tried with the rates that there are. The first one that is missing stops it, at a state and a time: there
the pipeline evaluates next, and the step is tried again with one rate more. What is repeated is a few sums.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from ...core import InputError
from ...core.loop import check_grid
from ...core.protocols import Memory
from ...dynamics import Flow
from ...solvers import FixedStep


@final
class Missing(Exception):  # noqa: N818
    """A rate that is not there yet, at a state and a time."""

    def __init__(self, x: Tensor, t: Tensor) -> None:
        self.x, self.t = x, t


@final
class Walk:
    """The walk of a solver along a grid.

    Args:
        solver: of fixed steps.
        x: the state at ``grid[0]``, float32 or wider.
        grid: times (N+1,).

    Attributes:
        point: the state at which the next rate is wanted; the end, once there is none.
        time: its time.
        begun: the number of the step that is being taken, N at the end.

    Raises:
        InputError: if the solver chooses its steps itself.
    """

    def __init__(self, solver: FixedStep[Tensor], x: Tensor, grid: Tensor) -> None:
        if not isinstance(solver, FixedStep):
            raise InputError(
                f"a scheduler says beforehand when it evaluates, which {type(solver).__name__} does not know; "
                "take a solver of fixed steps, such as Heun() or AdamsBashforth()."
            )
        check_grid(grid)
        self.solver, self.grid = solver, grid
        self.point, self.time, self.begun = x, grid[0], 0
        self._x = x
        self._given: list[Tensor] = []
        self._flow = Flow(self._rate)
        self._memory: Memory = solver.start(self._flow, x, grid)
        self._go()

    @property
    def ended(self) -> bool:
        """Whether the end is reached."""
        return self.begun == len(self.grid) - 1

    def feed(self, rate: Tensor) -> None:
        """The rate at ``point``."""
        self._given.append(rate)
        self._go()

    def nudge(self, change: Tensor) -> None:
        """What somebody else added to the state meanwhile, as inpainting does."""
        self._x = self._x + change
        self.point = self.point + change

    def _rate(self, x: Tensor, t: Tensor, *cond: Any) -> Tensor:
        if self._asked == len(self._given):
            raise Missing(x, t)
        self._asked += 1
        return self._given[self._asked - 1]

    def _go(self) -> None:
        while not self.ended:
            self._asked = 0
            t, s = self.grid[self.begun], self.grid[self.begun + 1]
            try:
                step = self.solver.step(self._flow, self._x, t, s, self._memory)
            except Missing as wanted:
                self.point, self.time = wanted.x, wanted.t
                return
            self._x, self._memory = step.x, step.memory
            self.begun, self._given = self.begun + 1, []
        self.point, self.time = self._x, self.grid[-1]


def evaluated(solver: FixedStep[Tensor], grid: Tensor) -> tuple[Tensor, list[int]]:
    """The times at which a solver evaluates along a grid, in order, and at which of them each step begins."""
    walk = Walk(solver, torch.zeros(1, dtype=torch.float64), grid)
    times, starts = [], []
    while not walk.ended:
        if len(starts) == walk.begun:
            starts.append(len(times))
        times.append(walk.time)
        walk.feed(torch.zeros(1, dtype=torch.float64))
    return torch.stack(times), starts
