r"""MeanCache (Gao et al. 2026, arXiv 2601.19961): steps along average velocities, from velocities that are at hand.

The average velocity u(t, s) of a trajectory z between t and s satisfies ``(s - t)*u = z_s - z_t``, and differentiating
by t gives ``u = v_t + (s - t)*u'``, where u' is a Jacobian-vector product. Between an earlier time r and t the average
is known, and so is ``u' = [z_t - z_r - (t - r)*v_r]/(t - r)**2``. Taken for the u' of the step ahead,

    u(t, s) = v_t + (s - t)*[z_t - z_r - (t - r)*v_r]/(t - r)**2,

with an error of ``(s - t)*((s - t)/6 + (t - r)/3)*v''``: order 2.

Where z came from r to t in one step along such an average, the formula gives back the u' of that step and learns
nothing. So r is the evaluation *before* the last. (The paper counts r in points of the fine grid, at which the velocity
may itself have been predicted.) Every move being along an average, ``z_t - z_r`` is a sum of averages at hand, and the
whole is a multistep rule whose coefficients the grid fixes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from ..core.condition import Cond
from ..core.errors import InputError
from ..core.loop import check_grid, walk
from ..core.protocols import Dynamics, Step
from ..core.rng import Rng
from ..core.tree import combine
from ..dynamics import Flow
from .base import require_flow
from .euler import Euler
from .grids import Given
from .multistep import Multistep, Past, known_points

PEAKS = 5.0
"""The power to which costs are raised before they are summed, so that peaks weigh more; the paper's best."""


@final
@dataclass(frozen=True)
class MeanCache(Multistep[Tensor]):
    """MeanCache, one evaluation a step, of order 2.

    The first two steps, and one whose r is a point at which the rate is not determined, go along v_t. So from a single
    state two of Euler's steps stay in the error. :func:`schedule` chooses a grid.
    """

    order = 2

    @property
    def kept(self) -> int:
        """Two averages, then two velocities, each the latest first."""
        return 4

    def table(self, dynamics: Dynamics[Tensor], grid: Tensor) -> list[list[float]]:
        require_flow(self, dynamics, "averages the velocity of a Flow")
        times, known = grid.tolist(), known_points(dynamics, grid)
        table = []
        for n in range(len(times) - 1):
            row = [1.0, 0.0, 0.0, 0.0, 0.0]
            if n > 1 and known[n - 2]:
                r, m, t, s = times[n - 2 : n + 2]
                share = (s - t) / (t - r) ** 2
                row[1], row[2], row[4] = share * (t - m), share * (m - r), -share * (t - r)
            table.append(row)
        return table

    def step(
        self,
        dynamics: Dynamics[Tensor],
        x: Tensor,
        t: Tensor,
        s: Tensor,
        memory: Past | tuple[()] = (),
        rng: Rng | None = None,
    ) -> Step[Tensor]:
        memory, row = self.row(memory)
        velocity = dynamics.rate(x, t, s)
        average = combine(row, (velocity, *memory.values))
        values = (average, memory.values[0], velocity, memory.values[2])
        return Step(dynamics.move(x, average, t, s, rng), s, Past(memory.table, memory.place + 1, values))


def schedule(
    flow: Flow, noise: Tensor, grid: Tensor, budget: int, cond: Cond | None = None, power: float = PEAKS
) -> Given:
    """Choose for MeanCache, among the points of a fine grid, those at which to evaluate.

    Euler's trajectories of some draws along the fine grid tell what any step of the solver would err by. Of all ways of
    at most so many steps that with the least sum of powers of these errors is taken: a shortest path, in which a step
    knows the two evaluations before it.

    The paper also lets the path choose where not to correct. The error of a plain step is smaller at times, but such
    errors are of one sign and add up; here every step is corrected that can be.

    Args:
        flow: what is sampled, under its guidance.
        noise: (B, ...): the draws.
        grid: the fine grid, from 0 to 1, of up to a hundred steps.
        budget: evaluations a sample.
        cond: the condition of each draw.
        power: of the errors; larger ones suppress peaks.

    Raises:
        InputError: if the budget is not positive.
    """
    if budget < 1:
        raise InputError(f"a schedule takes at least one evaluation, got a budget of {budget}.")
    check_grid(grid)
    plain, corrected = stability(flow, noise, grid, cond)
    points = shortest(corrected**power, plain**power, min(budget, len(grid) - 1))
    return Given(tuple(grid[points].tolist()))


def stability(flow: Flow, noise: Tensor, grid: Tensor, cond: Cond | None = None) -> tuple[np.ndarray, np.ndarray]:
    """What steps err by on the trajectories of Euler's rule, root mean square over draws and coordinates.

    Returns:
        Of steps along v_t, (N+1, N+1) by start and end; of corrected steps, (N+1, N+1, N+1) by r, start and end.
        Infinite where there is no such step.
    """
    times, size = grid.detach().cpu().double(), len(grid)
    plain, corrected = np.full((size, size), np.inf), np.full((size, size, size), np.inf)
    with torch.no_grad():
        states = torch.stack([step.x for step in walk(Euler(), flow, noise, grid, cond)]).flatten(1)
    gaps = times.diff().to(states)
    rates = states.diff(dim=0) / gaps[:, None]
    known = known_points(flow, grid)
    for t in range(size - 1):
        ahead = (times[t + 1 :] - times[t]).to(states)[:, None]
        miss = states[t + 1 :] - states[t] - ahead * rates[t]
        plain[t, t + 1 :] = miss.square().mean(1).sqrt().cpu()
        for r in range(t - 1):
            back = float(times[t] - times[r])
            product = (states[t] - states[r] - back * rates[r]) / back**2
            bent = miss - ahead.square() * product if known[r] else miss
            corrected[r, t, t + 1 :] = bent.square().mean(1).sqrt().cpu()
    return plain, corrected


def shortest(costs: np.ndarray, first: np.ndarray, most: int) -> list[int]:
    """The points of the cheapest way from the first point to the last in at most so many steps.

    Args:
        costs: of all later steps, (N+1, N+1, N+1) by the evaluation before the last, start and end.
        first: of the first two steps, (N+1, N+1) by start and end.
        most: steps.
    """
    end = len(first) - 1
    ways = [(float(first[0, end]), [0, end])]
    # best[q, m, t]: the least cost of a way whose last three points are these; before: which point came before q.
    best = np.full((end + 1,) * 3, np.inf)
    best[0] = first[0, :, None] + first
    before: list[np.ndarray] = []
    for steps in range(2, most + 1):
        if steps > 2:
            onward, origin = np.full_like(best, np.inf), np.zeros(best.shape, dtype=np.int64)
            for t in range(2, end):
                # (q, m, s): a way that ends in q, m, t goes on to s.
                total = best[:, :, t, None] + costs[:, None, t, :]
                origin[:, t], onward[:, t] = total.argmin(0), total.min(0)
            best = onward
            before.append(origin)
        q, m = divmod(int(best[:, :, end].argmin()), end + 1)
        ways.append((float(best[q, m, end]), _back(before, [end, m, q])))
    return min(ways, key=lambda way: way[0])[1]


def _back(before: list[np.ndarray], points: list[int]) -> list[int]:
    """The points of a way in order, from its last three in reverse."""
    for origin in reversed(before):
        points = [*points, int(origin[points[-1], points[-2], points[-3]])]
    return points[::-1]
