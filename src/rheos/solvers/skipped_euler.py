r"""Euler's rule on a fine grid of which the dynamics is evaluated at some points only.

In between, the rate is continued along the line through the last two that were evaluated,

    v(t) = v_k + (t - t_k)*(v_k - v_p)/(t_k - t_p),

as FastFlow does (arXiv 2602.11105, equation of its skipped steps). The sum of the small steps is linear in the two
rates, so it is taken at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.protocols import Dynamics, S
from .base import require_grid
from .multistep import RateMultistep


@final
@dataclass(frozen=True)
class SkippedEuler(RateMultistep[S]):
    """Euler on ``fine``, evaluated at ``points``. The first step has one rate, which it holds.

    Args:
        fine: times (T+1,) in order.
        points: which of the T beginnings of its steps are evaluated, in order, the first of them 0.

    Raises:
        InputError: if the points are not such; from ``start``, if the grid is another than ``grid``.
    """

    fine: tuple[float, ...]
    points: tuple[int, ...]

    order = 2

    def __post_init__(self) -> None:
        steps = len(self.fine) - 1
        rising = all(a < b for a, b in zip(self.points, self.points[1:], strict=False))
        if not self.points or self.points[0] != 0 or not rising or self.points[-1] >= steps:
            raise InputError(
                f"the points that are evaluated go upward from 0 and stay below the {steps} steps, got {self.points}."
            )

    @property
    def grid(self) -> Tensor:
        """The times at which the dynamics is evaluated, and the end: float64 (N+1,)."""
        return torch.tensor([self.fine[k] for k in (*self.points, -1)], dtype=torch.float64)

    def rest(self, step: int) -> SkippedEuler[S]:
        """The solver from its ``step`` on, which begins anew there."""
        first = self.points[step]
        return SkippedEuler(self.fine[first:], tuple(point - first for point in self.points[step:]))

    def table(self, dynamics: Dynamics[S], grid: Tensor) -> list[list[float]]:
        require_grid("a solver of chosen points", self.grid.tolist(), grid)
        rows = [[1.0, 0.0]]
        ends = (*self.points[1:], len(self.fine) - 1)
        for before, k, end in zip(self.points, self.points[1:], ends[1:], strict=False):
            at, gap = self.fine[k], self.fine[end] - self.fine[k]
            lever = sum((self.fine[i] - at) * (self.fine[i + 1] - self.fine[i]) for i in range(k, end))
            slope = lever / gap / (at - self.fine[before])
            rows.append([1 + slope, -slope])
        return rows
