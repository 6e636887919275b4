r"""Explicit Runge-Kutta rules: a tableau and a citation each.

    k_1 = rate(x, t),    k_i = rate(move(x, sum_j a_ij/c_i k_j, t, t_i), t_i),    x' = move(x, sum_j b_j k_j, t, s),

with ``t_i = t + c_i*(s - t)``.

Each stage's state is one move along an average of the rates so far, from the start of the step, with the same
randomness. So on a diffusion Euler is Euler-Maruyama and Heun is stochastic Heun.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, final

from torch import Tensor

from ..core.errors import InputError
from ..core.protocols import Dynamics, Memory, S, Step
from ..core.rng import Rng
from ..core.tree import Tree, combine
from .base import FixedStep, hold, require_rates


@final
@dataclass(frozen=True)
class Tableau:
    """The Butcher tableau of an explicit rule.

    Args:
        nodes: c, the times of the stages after the first, as shares of the step; none is 0.
        matrix: a, one row a stage after the first; row i sums to ``nodes[i]``.
        weights: b, one a stage; they sum to 1.
        error: weights minus those of the embedded rule, one a stage; empty where there is none.
    """

    nodes: tuple[float, ...] = ()
    matrix: tuple[tuple[float, ...], ...] = ()
    weights: tuple[float, ...] = (1.0,)
    error: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        rows = zip(self.nodes, self.matrix, strict=True)
        if any(abs(sum(row) - node) > 1e-12 for node, row in rows) or abs(sum(self.weights) - 1) > 1e-12:
            raise InputError("a tableau's rows must sum to its nodes and its weights to 1.")

    @cached_property
    def averages(self) -> tuple[tuple[float, tuple[float, ...]], ...]:
        """For each stage after the first, its node c and the weights a/c of the average rate that leads to it."""
        return tuple((c, tuple(a / c for a in row)) for c, row in zip(self.nodes, self.matrix, strict=True))


@dataclass(frozen=True)
class RungeKutta(FixedStep[S]):
    """A fixed-step explicit Runge-Kutta rule. To add one, set ``order``, ``stages`` and ``tableau``.

    Where a stage's rate is not determined, its neighbour's is held instead (:func:`evaluate`), so that the last step of
    Heun becomes one of Euler when a network that predicts data stands at the data.
    """

    tableau: ClassVar[Tableau] = Tableau()

    def start(self, dynamics: Dynamics[S], x: S, grid: Tensor) -> Memory:
        if self.stages > 1:
            require_rates(self, dynamics, x)
        return ()

    def step(
        self, dynamics: Dynamics[S], x: S, t: Tensor, s: Tensor, memory: Memory = (), rng: Rng | None = None
    ) -> Step[S]:
        rates, _ = evaluate(self.tableau, dynamics, x, t, s, dynamics.rate(x, t, s), rng)
        return Step(dynamics.move(x, combine(self.tableau.weights, rates), t, s, rng), s)


def evaluate(
    tableau: Tableau, dynamics: Dynamics[S], x: S, t: Tensor, s: Tensor, first: Tree, rng: Rng | None = None
) -> tuple[list[Tree], S]:
    """The rates of all stages of one step, and the state of the last stage.

    A rate that is not determined is replaced by that of the stage before; the first one, which has none before it, by
    that of the second, once that is there.

    Args:
        tableau: the rule.
        dynamics: what is integrated.
        x: the state at ``t``.
        t: the start of the step, ``()`` or ``(B,)``.
        s: its end, of the same shape or ``()``.
        first: the rate at (x, t), the first stage.
        rng: the noise of the step, the same in every move.
    """
    rates, point = [first], x
    for node, average in tableau.averages:
        # t + (s - t) need not be s in floating point, and the end of a schedule must be met exactly.
        time = s if node == 1.0 else t + node * (s - t)
        point = dynamics.move(x, combine(average, rates), t, time, rng)
        # A stage at the end belongs to a step beyond it: a diffusion reads the direction off the end it is given.
        rate = dynamics.rate(point, time, s + (s - t) if node == 1.0 else s)
        rates.append(hold(dynamics.determined(time), rate, rates[-1]))
    if len(rates) > 1:
        rates[0] = hold(dynamics.determined(t), rates[0], rates[1])
    return rates, point
