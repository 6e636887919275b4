"""UniPC, the unified predictor-corrector (Zhao et al. 2023, arXiv 2302.04867): multistep, data prediction, B(h)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from ..core.protocols import Dynamics, Step
from ..core.rng import Rng
from ..core.tree import combine
from ..paths import Affine
from .base import require_flow
from .exponential import DATA, Ladder
from .multistep import Multistep, Past


@final
@dataclass(frozen=True)
class UniPC(Multistep[Tensor]):
    """UniPC-p for a :class:`Flow` on an affine path, one evaluation a step.

    Each step evaluates at the predicted state, uses that value to correct the state, and predicts the next from the
    corrected one. The state after a step is therefore a prediction; the last one is never corrected, which would take
    another evaluation. The predictor is that of :class:`DPMSolver` of the same order, B(h) = 1 - exp(-h).

    The corrector has one order more than the predictor, so that UniPC-p converges with order p + 1 given exact states
    at the first points, and from a single state with order min(p + 1, 3). In the first steps and where the log
    signal-to-noise ratio is infinite (alpha = 0, sigma = 0) both are lowered, and the step to sigma = 0 is DDIM's, of
    local order 2.

    Args:
        path: the path that the flow was learned on; straight lines when left out.
        order: the paper's p: 1, 2 or 3.
    """

    path: Affine = field(default_factory=Affine)
    order: int = 2

    def __post_init__(self) -> None:
        self.check_order(3)

    @property
    def kept(self) -> int:
        return self.order

    def table(self, dynamics: Dynamics[Tensor], grid: Tensor) -> list[list[float]]:
        """Columns: velocity and state in the data; then twice, for the corrected state and for the effective rate, the
        weights of the state, the velocity, the last corrected state and the earlier data."""
        require_flow(self, dynamics, DATA)
        ladder = Ladder.of(self.path, dynamics, grid)
        rows = []
        for n in range(len(grid) - 1):
            corrected = self._corrected(n, ladder)
            rows.append([*ladder.data[n], *corrected, *self._rate(n, corrected, ladder)])
        return rows

    def start(self, dynamics: Dynamics[Tensor], x: Tensor, grid: Tensor) -> Past:
        return super().start(dynamics, x, grid)._replace(corrected=x.clone())

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
        width = 3 + self.kept
        velocity = dynamics.rate(x, t, s)
        basis = (x, velocity, memory.corrected, *memory.values)
        rate = combine(row[2 + width :], basis)
        values = (combine(row[:2], (velocity, x)), *memory.values[:-1])
        past = Past(memory.table, memory.place + 1, values, combine(row[2 : 2 + width], basis))
        return Step(dynamics.move(x, rate, t, s, rng), s, past)

    def _basis(self, n: int, weights: dict[int, float], ladder: Ladder) -> list[float]:
        """``sum_j weights[j]*D_j`` at step n over (state, velocity, last corrected state, D_{n-1}, D_{n-2}, ...)."""
        out = [0.0] * (3 + self.kept)
        for j, weight in weights.items():
            if j == n:
                of_velocity, of_state = ladder.data[n]
                out[0], out[1] = weight * of_state, weight * of_velocity
            else:
                out[2 + n - j] = weight
        return out

    def _corrected(self, n: int, ladder: Ladder) -> list[float]:
        """The corrected state at point n over the same basis; the state itself where nothing can correct it."""
        nodes = ladder.corrector(n, self.order)
        if not nodes:
            return [1.0] + [0.0] * (2 + self.kept)
        ratio = ladder.sigma[n] / ladder.sigma[n - 1]
        weights = dict(zip(nodes, ladder.weights(n - 1, n, nodes), strict=True))
        weights[n - 1] += ladder.alpha[n] - ratio * ladder.alpha[n - 1]
        out = self._basis(n, weights, ladder)
        out[2] = ratio
        return out

    def _rate(self, n: int, corrected: list[float], ladder: Ladder) -> list[float]:
        """The effective rate of the step from n to n + 1 over the same basis."""
        nodes = ladder.predictor(n, self.order)
        weights = dict(zip(nodes, ladder.weights(n, n + 1, nodes), strict=True))
        if ladder.sigma[n] == 0:
            # At sigma = 0 the noise is in the velocity only; DDIM from there is written in velocity and state.
            of_velocity, of_state = ladder.ddim(n)
            target = [of_state, of_velocity] + [0.0] * (1 + self.kept)
        else:
            ratio = ladder.sigma[n + 1] / ladder.sigma[n]
            target = [ratio * c for c in corrected]
            weights[n] += ladder.alpha[n + 1] - ratio * ladder.alpha[n]
        gap = ladder.times[n + 1] - ladder.times[n]
        out = [(a + b) / gap for a, b in zip(target, self._basis(n, weights, ladder), strict=True)]
        out[0] -= 1 / gap
        return out
