r"""Stabilised Runge-Kutta rules, and STORK, which puts expansions of the velocity in place of their stages.

The second-order rule of Runge, Kutta and Gegenbauer (Skaras et al. 2021) with s stages has the stability polynomial
``P_s(z) = a_s + b_s*C_s(1 + w*z)``, with Gegenbauer's polynomials C_j of index 3/2 and

    w = 6/((s + 4)*(s - 1)),   b_j = 4*(j - 1)*(j + 4)/(3*j*(j + 1)*(j + 2)*(j + 3)),   a_j = 1 - b_j*(j + 1)*(j + 2)/2.

It agrees with exp(z) to second order, and its modulus is at most 1 on ``[-(s + 4)*(s - 1)/3, 0]``, for many stages s/6
times what as many steps of Euler's rule stand. The three-term recurrence of C_j gives the stages.

STORK (Tan et al. 2025, arXiv 2505.24210) evaluates at the first stage alone. Elsewhere it takes ``v + c*h*v' +
(c*h)**2*v''/2 + ...`` with derivatives in time from differences of earlier velocities. These do not depend on the
states of the stages, so of the rule only its weights at its nodes remain: **a flow is carried by the rule's quadrature
of the polynomial through the last velocities**. That is known from the grid, and costs nothing in a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, final

from torch import Tensor

from ..core.errors import InputError
from ..core.protocols import Dynamics, S
from .adams_bashforth import coefficients
from .multistep import RateMultistep, known_points
from .runge_kutta import RungeKutta, Tableau


@lru_cache
def gegenbauer(stages: int) -> Tableau:
    """The tableau of the second-order rule with so many stages, at least two."""
    if isinstance(stages, bool) or not isinstance(stages, int) or stages < 2:
        raise InputError(f"a stabilised rule has at least two stages, got {stages!r}.")
    first = 6 / ((stages + 4) * (stages - 1))
    # Row j holds the weights of the rates in the state of stage j.
    rows = [[0.0] * stages, [first, *[0.0] * (stages - 1)]]
    for j in range(2, stages + 1):
        mu = (2 * j + 1) / j * _scale(j) / _scale(j - 1)
        nu = -(j + 1) / j * _scale(j) / _scale(j - 2)
        row = [mu * a + nu * b for a, b in zip(rows[j - 1], rows[j - 2], strict=True)]
        row[j - 1] += mu * first
        row[0] -= mu * first * (1 - _scale(j - 1) * j * (j + 1) / 2)
        rows.append(row)
    inner = rows[1:-1]
    return Tableau(
        tuple(sum(row) for row in inner), tuple(tuple(row[: j + 1]) for j, row in enumerate(inner)), tuple(rows[-1])
    )


def _scale(j: int) -> float:
    """b_j; those of the first two stages are free."""
    return (1.0, 1 / 3)[j] if j < 2 else 4 * (j - 1) * (j + 4) / (3 * j * (j + 1) * (j + 2) * (j + 3))


@final
@dataclass(frozen=True)
class Stabilised(RungeKutta[S]):
    """The rule with Gegenbauer's polynomials, of order 2, all its stages evaluated: for stiff flows and long steps.

    Args:
        stages: evaluations a step; the steps that it stands grow with their square.
    """

    stages: int = 8  # pyright: ignore[reportIncompatibleVariableOverride]

    order = 2

    def __post_init__(self) -> None:
        gegenbauer(self.stages)

    @property
    def tableau(self) -> Tableau:  # pyright: ignore[reportIncompatibleVariableOverride]
        return gegenbauer(self.stages)


@final
@dataclass(frozen=True)
class Stork(RateMultistep[S]):
    """STORK for velocities, one evaluation a step.

    STORK-2 stands on the rule above. Its nodes are the rule's own; with those of the Runge-Kutta-Legendre rule instead
    it would be of order 1. STORK-4 stands on ROCK4 (Abdulle 2002), which like every rule of order 4 integrates
    polynomials up to the third power exactly, so that its own coefficients cancel.

    Limiting cases: STORK-2 with one derivative is Adams-Bashforth 2 for any number of stages, STORK-4 with d
    derivatives is Adams-Bashforth d + 1. STORK-2 with two derivatives is a rule of order 2 between Adams-Bashforth 2
    and 3. On ``x' = -lambda*x`` none stands longer steps than Adams-Bashforth 2: an expansion in time does not answer
    to the state, and that answer is what stabilises :class:`Stabilised`.

    From a single state it ramps up as Adams-Bashforth does, with Euler's step first, as in the paper.

    Args:
        order: of the stabilised rule, 2 or 4. The solver converges with order min(order, derivatives + 1) from an exact
            start.
        derivatives: in time, 1 to 3: how many earlier velocities are remembered.
        virtual: stages of STORK-2.
    """

    order: Literal[2, 4] = 4  # pyright: ignore[reportIncompatibleVariableOverride]
    derivatives: int = 2
    virtual: int = 50

    def __post_init__(self) -> None:
        gegenbauer(self.virtual)
        if self.order not in (2, 4):
            raise InputError(f"STORK has the orders 2 and 4, got {self.order!r}.")
        if self.derivatives not in (1, 2, 3):
            raise InputError(f"STORK expands to 1, 2 or 3 derivatives, got {self.derivatives!r}.")

    @property
    def kept(self) -> int:
        return self.derivatives

    def table(self, dynamics: Dynamics[S], grid: Tensor) -> list[list[float]]:
        return coefficients(grid.tolist(), known_points(dynamics, grid), self.derivatives + 1, self._moments())

    def _moments(self) -> list[float]:
        """What the rule makes of the integrals of u**m from 0 to 1."""
        powers = range(self.derivatives + 1)
        if self.order == 4:
            return [1 / (m + 1) for m in powers]
        rule = gegenbauer(self.virtual)
        return [sum(w * c**m for w, c in zip(rule.weights, (0.0, *rule.nodes), strict=True)) for m in powers]
