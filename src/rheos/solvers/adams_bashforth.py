r"""The explicit multistep rules of Adams and Bashforth (1883) on uneven grids.

The rates at the last k grid points are interpolated by a polynomial and that is integrated exactly over the step. On an
even grid these are the classical rules, 3/2 and -1/2 for k = 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor

from ..core.protocols import Dynamics, S
from .multistep import RateMultistep, interpolant, known_points


@final
@dataclass(frozen=True)
class AdamsBashforth(RateMultistep[S]):
    """Adams-Bashforth, one evaluation a step.

    Ramp: the first steps use the rates there are, orders 1, 2, ... The first of them is Euler's, with an error of order
    h**2 that stays, so from a single state the result converges with order min(order, 2), with a far smaller constant
    than Euler's. Given exact states at the first points it converges with its order.

    A grid point at which the rate is not determined is left out of the interpolation, unless it is the first.

    Args:
        order: 1 (Euler), 2, 3 or 4.
    """

    order: int = 2

    def __post_init__(self) -> None:
        self.check_order(4)

    def table(self, dynamics: Dynamics[S], grid: Tensor) -> list[list[float]]:
        return coefficients(grid.tolist(), known_points(dynamics, grid), self.order)


def coefficients(
    times: list[float], known: list[bool], order: int, moments: Sequence[float] | None = None
) -> list[list[float]]:
    """The weights of the latest ``order`` rates in every step of a grid, the own one first; points at which the rate is
    not ``known`` have none, unless there is no other.

    Args:
        times: of the grid.
        known: at each of them.
        order: rates that are interpolated.
        moments: in place of the integrals of ``u**m`` from 0 to 1, the step; the integrals themselves when left out.
    """
    moments = [1 / (m + 1) for m in range(order)] if moments is None else moments
    table = [[0.0] * order for _ in times[1:]]
    for n, row in enumerate(table):
        nodes = [j for j in range(n, max(-1, n - order), -1) if known[j]] or [n]
        gap = times[n + 1] - times[n]
        weights = interpolant([(times[j] - times[n]) / gap for j in nodes], moments[: len(nodes)])
        for j, weight in zip(nodes, weights, strict=True):
            row[n - j] = weight
    return table
