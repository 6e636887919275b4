"""DPM-Solver++, multistep, in data prediction (Lu et al. 2022, "DPM-Solver++", arXiv 2211.01095)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from ..core.protocols import Dynamics, Step
from ..core.rng import Rng
from ..core.tree import combine
from ..paths import Affine
from .exponential import Ladder, require_flow
from .multistep import Multistep, Past


@final
@dataclass(frozen=True)
class DPMSolver(Multistep[Tensor]):
    """DPM-Solver++ multistep, one evaluation a step, for a :class:`Flow` on an affine path.

    Order 1 is DDIM, which on the linear path is Euler. Order 2 is the paper's 2M. Order 3 integrates the quadratic
    through three data predictions exactly.

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
        """Columns: velocity and state in the data; state, velocity and earlier data in the effective rate."""
        require_flow(self, dynamics)
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
        velocity = dynamics.rate(x, t, s)
        rate = combine(row[2:], (x, velocity, *memory.values))
        values = (combine(row[:2], (velocity, x)), *memory.values)[: self.kept] if self.kept else ()
        return Step(dynamics.move(x, rate, t, s, rng), s, Past(memory.table, memory.place + 1, values))
