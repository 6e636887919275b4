r"""TeaCache for velocities (Liu et al. 2024, arXiv 2411.19108): a velocity is used again until it has changed too much.

The paper adds up relative L1 changes of a cheap signal, the network's input after its time embedding, and evaluates
once the sum passes a threshold. A solver sees no such input. Its signal is the change that the last two true velocities
predict: ``rho = |v_k - v_p|_1/(|v_k|_1*(t_k - t_p))`` a unit of time, so that a step of length h adds
``rescale(rho*h)``, with a polynomial as in the paper.

A velocity that is held along some steps moves the state as one long step does. So where all samples share their points
TeaCache is Euler's rule on the grid of these, and :func:`sparse_grid` gives that grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from ..core.condition import Cond
from ..core.errors import InputError
from ..core.loop import integrate
from ..dynamics import Flow
from .grids import Given
from .skipping import Seen, Skipped, Skipping

HALVINGS = 16
"""Bisections after which a threshold is exact enough."""

MOST = 1e9
"""A threshold that no sum of changes passes."""


class Drift(NamedTuple):
    """What TeaCache remembers of every sample, (B,) on the CPU.

    Attributes:
        total: the predicted changes since the last evaluation.
        rate: the relative change a unit of time.
        held: steps since the last evaluation.
    """

    total: Tensor
    rate: Tensor
    held: Tensor


@final
@dataclass(frozen=True)
class TeaCache(Skipping[Drift]):
    """Euler's steps with velocities that are held until the change that is predicted for them adds up to a threshold.

    Evaluated in any case: the first two points, from which the change is predicted, and the last. A threshold of 0 is
    Euler's rule. The host decides at each step, and waits for the last velocity.

    Args:
        threshold: on the sum of relative changes.
        rescale: coefficients of a polynomial in the relative change of one step, the constant first.
        each: whether every sample has a sum and points of its own; else the batch has one, as in the paper, and the
            samples depend on their batch.
        longest: steps that a velocity is held at most. What is predicted from the past does not see a bend ahead, and
            after a straight stretch would never look again.

    Raises:
        InputError: if the threshold is negative, a number not finite, or nothing to be held.
    """

    threshold: float = 0.1
    rescale: tuple[float, ...] = (0.0, 1.0)
    each: bool = True
    longest: int = 10

    def __post_init__(self) -> None:
        if self.longest < 1:
            raise InputError(f"a velocity is held for at least one step, got longest = {self.longest}.")
        if not (0 <= self.threshold < math.inf) or not self.rescale or not all(map(math.isfinite, self.rescale)):
            raise InputError(
                f"a threshold of at least 0 and finite coefficients are needed, got {self.threshold} and "
                f"{self.rescale}."
            )

    def begin(self, rows: int, steps: int) -> Drift:
        nothing = torch.zeros(rows, dtype=torch.float64)
        return Drift(nothing, nothing, torch.zeros(rows, dtype=torch.int64))

    def due(self, memory: Skipped[Drift], t: Tensor) -> Tensor:
        long = memory.own.held >= self.longest
        return (self._total(memory, t) >= self.threshold) | long | memory.last

    def guess(self, seen: Seen, t: Tensor) -> Tensor:
        return seen.latest

    def after(self, memory: Skipped[Drift], rows: Tensor, guess: Tensor, velocity: Tensor, t: Tensor) -> Drift:
        total = torch.where(rows, 0.0, self._total(memory, t))
        held = torch.where(rows, 1, memory.own.held + 1)
        if not bool(rows.any()):
            return Drift(total, memory.own.rate, held)
        rate = memory.seen.change().double()
        return Drift(total, (rate if self.each else rate.mean().expand_as(rate)).cpu(), held)

    def _total(self, memory: Skipped[Drift], t: Tensor) -> Tensor:
        """The sums with the step to ``t`` added, float64 (B,)."""
        change = memory.own.rate * abs(float(t - memory.then))
        added = torch.zeros_like(change)
        for coefficient in reversed(self.rescale):
            added = added * change + coefficient
        return memory.own.total + added


def within(
    budget: int,
    flow: Flow,
    noise: Tensor,
    grid: Tensor,
    cond: Cond | None = None,
    rescale: tuple[float, ...] = (0.0, 1.0),
    *,
    each: bool = True,
) -> TeaCache:
    """The TeaCache of the least threshold that keeps to a budget, by bisection.

    Args:
        budget: evaluations a sample, in the mean over the noises.
        flow: what is sampled, under its guidance.
        noise: (B, ...), to try thresholds on, about twenty of them.
        grid: the fine grid.
        cond: the condition of each noise.
        rescale: as for :class:`TeaCache`.
        each: as for :class:`TeaCache`.

    Raises:
        InputError: if the budget does not pay for the points that are always evaluated.
    """

    def cost(threshold: float) -> float:
        with torch.no_grad():
            memory = integrate(TeaCache(threshold, rescale, each), flow, noise, grid, cond).memory
        return float(memory.points.sum(1).double().mean())

    if cost(0.0) <= budget:
        return TeaCache(0.0, rescale, each)
    low, high = 0.0, 1.0
    while cost(high) > budget:
        low, high = high, 4 * high
        if high > MOST:
            raise InputError(f"TeaCache evaluates more than {budget} times on this grid, whatever its threshold.")
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if cost(middle) <= budget else (middle, high)
    return TeaCache(high, rescale, each)


def sparse_grid(memory: Skipped[Drift], grid: Tensor) -> Given:
    """The grid on which Euler's rule makes the steps that were made.

    Args:
        memory: of a walk with shared points, ``solution.memory``.
        grid: the fine grid that it went along, from 0 to 1.

    Raises:
        InputError: if the samples have different points, or the walk is not at its end.
    """
    points = memory.points
    if memory.place != points.shape[1] or len(grid) != points.shape[1] + 1 or not bool((points == points[0]).all()):
        raise InputError("a walk that has come to its end, with one set of points for all samples, makes a grid.")
    return Given((*grid[:-1].cpu()[points[0]].tolist(), float(grid[-1])))
