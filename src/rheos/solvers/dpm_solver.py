"""DPM-Solver++, multistep, in data prediction (Lu et al. 2022, "DPM-Solver++", arXiv 2211.01095)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from ..core.errors import InputError
from ..core.protocols import Dynamics, Step
from ..core.rng import Rng
from ..core.tree import combine
from ..dynamics import Ancestral
from ..paths import Affine
from .base import require_flow
from .exponential import DATA, Ladder
from .multistep import Multistep, Past


@final
@dataclass(frozen=True)
class DPMSolver(Multistep[Tensor]):
    """DPM-Solver++ multistep, one evaluation a step, for a :class:`Flow` or an :class:`Ancestral` on an affine path.

    Order 1 is DDIM, which on the linear path is Euler. Order 2 is the paper's 2M. Order 3 integrates the quadratic
    through three data predictions exactly. On an ancestral dynamics order 1 is that of Euler's rule, DDPM for eta = 1,
    and order 2 the paper's SDE-DPM-Solver++(2M).

    The order is lowered to 1 in the first step, and in steps from alpha = 0 or to sigma = 0, where the log
    signal-to-noise ratio is infinite; to what the remaining nodes allow in the steps after. From a single state it
    therefore converges with order min(order, 2), given exact states at the first points with its order.

    Args:
        path: the path that the flow was learned on; straight lines when left out.
        order: 1, 2 or 3.
    """

    path: Affine = field(default_factory=Affine)
    order: int = 2

    def __post_init__(self) -> None:
        self.check_order(3)

    def table(self, dynamics: Dynamics[Tensor], grid: Tensor) -> list[list[float]]:
        """Columns: velocity and state in the data; state, velocity and earlier data in the effective rate. On an
        ancestral dynamics, whose rate is the data: the data, the latest first."""
        if isinstance(dynamics, Ancestral):
            return self._extrapolated(dynamics, grid)
        require_flow(self, dynamics, DATA)
        ladder = Ladder.of(self.path, dynamics, grid)
        table = [[0.0] * (4 + self.kept) for _ in ladder.times[1:]]
        for n, row in enumerate(table):
            gap = ladder.times[n + 1] - ladder.times[n]
            nodes = ladder.predictor(n, self.order)
            weights = ladder.weights(n, n + 1, nodes)
            (data_u, data_x), (ddim_u, ddim_x) = ladder.data[n], ladder.ddim(n)
            row[0], row[1] = data_u, data_x
            row[2] = (ddim_x + weights[0] * data_x - 1) / gap
            row[3] = (ddim_u + weights[0] * data_u) / gap
            for j, weight in zip(nodes[1:], weights[1:], strict=True):
                row[3 + n - j] = weight / gap
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
        found = dynamics.rate(x, t, s)
        if isinstance(dynamics, Ancestral):
            data, rate = found, combine(row, (found, *memory.values))
        else:
            data, rate = combine(row[:2], (found, x)), combine(row[2:], (x, found, *memory.values))
        values = (data, *memory.values)[: self.kept] if self.kept else ()
        return Step(dynamics.move(x, rate, t, s, rng), s, Past(memory.table, memory.place + 1, values))

    def _extrapolated(self, dynamics: Ancestral, grid: Tensor) -> list[list[float]]:
        if dynamics.path != self.path:
            raise InputError(f"this solver is for {self.path}, and the dynamics is on {dynamics.path}; give both one.")
        if self.order > 2 and dynamics.eta:
            raise InputError(f"DPMSolver of order {self.order} draws no noise; take order 2, or eta = 0.")
        ladder = Ladder.of(self.path, dynamics, grid)
        table = [[0.0] * self.order for _ in ladder.times[1:]]
        for n, row in enumerate(table):
            nodes = ladder.predictor(n, self.order)
            weights = ladder.weights(n, n + 1, nodes)
            # The weight of the data in DDIM's step, to which the weights above are added.
            whole = ladder.alpha[n + 1] - ladder.alpha[n] * ladder.sigma[n + 1] / ladder.sigma[n]
            row[0] = 1.0
            for j, weight in zip(nodes, weights, strict=True):
                row[n - j] += weight / whole
        return table
