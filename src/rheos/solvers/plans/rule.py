"""The rule that a plan compiles: a grid of times, and the coefficients of every step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from torch import Tensor

from ...core.errors import InputError
from ...core.protocols import Dynamics, S, Step
from ...core.rng import Rng
from ...core.tree import combine
from ...dynamics import Flow
from ..base import require_grid
from ..multistep import Multistep, Past

HISTORY = 4
"""Velocities that a step combines: its own and three earlier ones."""


@final
@dataclass(frozen=True)
class Rule:
    """``x[n+1] = (1 + d[n])*x[n] + h[n]*sum_j c[n, j]*v[n-j]`` for j = 0 .. 3, with ``h`` the gaps of the times.

    Args:
        times: (N+1,), from 0 to 1.
        rows: for each of the N steps d, c0, c1, c2, c3; zeros for velocities that there are not yet.

    Raises:
        InputError: if the times are not in order from 0 to 1, or rows are missing, not finite, or ask for velocities
            that there are not yet.
    """

    times: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        gaps = [b - a for a, b in pairwise(self.times)]
        if not gaps or self.times[0] != 0.0 or self.times[-1] != 1.0 or not all(gap > 0 for gap in gaps):
            raise InputError(f"the times of a plan go from 0 to 1 in order, got {self.times}.")
        if len(self.rows) != len(gaps) or any(len(row) != 1 + HISTORY for row in self.rows):
            raise InputError(f"a plan has {1 + HISTORY} coefficients for each of its {len(gaps)} steps.")
        for n, row in enumerate(self.rows):
            if not all(map(math.isfinite, row)) or any(row[n + 2 :]):
                raise InputError(f"step {n} of a plan has coefficients that are not finite or of no velocity: {row}.")

    @property
    def steps(self) -> int:
        return len(self.rows)


@final
@dataclass(frozen=True)
class Fitted(Multistep[S]):
    """The steps of a rule, one evaluation each, on the grid that it was fitted with.

    Args:
        rule: the grid and the coefficients.

    Raises:
        InputError: from ``start``, on another grid, or on a dynamics that is no flow: what a rule was fitted to is
            deterministic.
    """

    rule: Rule

    order = HISTORY

    def table(self, dynamics: Dynamics[S], grid: Tensor) -> list[list[float]]:
        if not isinstance(dynamics, Flow):
            raise InputError(
                f"a plan was fitted to a flow, and {type(dynamics).__name__} is none; use it without noise on the way."
            )
        require_grid("a plan", self.rule.times, grid)
        # The state itself stands among the rates, which moves it by a share of its own.
        gaps = [b - a for a, b in pairwise(self.rule.times)]
        return [[row[0] / gap, *row[1:]] for row, gap in zip(self.rule.rows, gaps, strict=True)]

    def step(
        self, dynamics: Dynamics[S], x: S, t: Tensor, s: Tensor, memory: Past | tuple[()] = (), rng: Rng | None = None
    ) -> Step[S]:
        memory, row = self.row(memory)
        rates = (dynamics.rate(x, t, s), *memory.values)
        x = dynamics.move(x, combine(row, (x, *rates)), t, s, rng)
        return Step(x, s, Past(memory.table, memory.place + 1, rates[: self.kept]))
