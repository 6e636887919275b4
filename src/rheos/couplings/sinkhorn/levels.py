"""Entropic transport between two clouds, from coarse to fine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .anneal import Goal, Level
from .cells import means, ordered
from .gibbs import Gibbs, Sweep

SMALL = 1024
"""Points that need no coarser level."""

CELL = 4
"""Points of a cell, at least; a coarse level has this share of the finer one's points."""

AXES = 8
"""Principal axes by which neighbours are told in more dimensions than that."""

PROBED = 1024
"""Points that these axes are found from."""

COARSE_ERROR = 1e-2
"""The marginal error of a coarse level."""

COARSE_SWEEPS = 200

INDEPENDENT = 2.0
"""The first epsilon, in standard deviations of the scalar products."""


@dataclass(frozen=True)
class Start:
    """A potential f of points x (n, d) at an epsilon."""

    x: Tensor
    f: Tensor
    epsilon: float


@dataclass(frozen=True)
class Found:
    """Potentials of two clouds, float64, in the order of their points, and the sweep that found them, if it did."""

    f: Tensor
    g: Tensor
    epsilon: float
    error: float
    sweeps: int
    sweep: Sweep | None


def spread(x: Tensor, y: Tensor) -> float:
    """The standard deviation of ``2 <x, y>`` over all pairs of x (n, d) and y (m, d)."""
    one, other = (side.double() - side.double().mean(0) for side in (x, y))
    if x.shape[1] <= min(len(x), len(y)):
        squares = (one.T @ one).mul_(other.T @ other)
    else:
        squares = (one @ other.T).square_()
    return 2 * math.sqrt(max(float(squares.sum()), 0.0) / (len(x) * len(y)))


def transport(
    x: Tensor, y: Tensor, goal: Goal, tolerance: float, sweeps: int, block: int, start: Start | None
) -> Found:
    """Potentials of x (n, d) and y (m, d), float32 or float64, at a goal.

    Args:
        x: points (n, d), not all alike.
        y: points (m, d), not all alike.
        goal: where epsilon is to end.
        tolerance: of the marginal error.
        sweeps: passes over the whole plan, at most.
        block: entries of the plan that are held at once.
        start: from where to go; from where the plan is nearly independent when left out.
    """
    orders = [ordered(_axes(side), _deepest(len(side))) for side in (x, y)]
    x, y = x[orders[0]], y[orders[1]]
    if start is None:
        # As if all of x were at its mean: the plan is then independent.
        start = Start(x.mean(0, keepdim=True), x.new_zeros(1, dtype=torch.float64), INDEPENDENT * spread(x, y))
        for depth in _depths(max(len(x), len(y))):
            cells = _cells(y, depth)
            level = _level(_cells(x, depth), cells, start, block)
            level.anneal(goal.coarse(len(y) / len(cells)), COARSE_ERROR, COARSE_SWEEPS)
            start = Start(level.gibbs.x, level.gibbs.soft(level.g, level.epsilon), level.epsilon)
    level = _level(x, y, start, block)
    sweep = level.anneal(goal, tolerance, sweeps)
    f = level.gibbs.soft(level.g, level.epsilon) if sweep is None else sweep.f
    back = [order.argsort() for order in orders]
    return Found(f[back[0]], level.g[back[1]], level.epsilon, level.error, level.sweeps, sweep)


def _level(x: Tensor, y: Tensor, start: Start, block: int) -> Level:
    """The potential of y begins as the soft minimum of what is known of x."""
    return Level(Gibbs(x, y, block), Gibbs(y, start.x, block).soft(start.f, start.epsilon), start.epsilon)


def _deepest(count: int) -> int:
    """The depth of the smallest cells; 0 for points that need none."""
    return int(math.log2(count / CELL)) if count > SMALL else 0


def _depths(count: int) -> list[int]:
    """Of coarse levels, the coarsest first."""
    depths, size = [], count
    while size > SMALL:
        depths.append(int(math.log2(size / CELL)))
        size = 1 << depths[-1]
    return depths[::-1]


def _cells(x: Tensor, depth: int) -> Tensor:
    return means(x, depth) if depth <= _deepest(len(x)) else x


def _axes(x: Tensor) -> Tensor:
    """Coordinates by which neighbours are told: principal axes of some of the points."""
    if x.shape[1] <= AXES:
        return x
    centred = x - x.mean(0)
    some = centred[:: -(-len(x) // PROBED)]
    return centred @ (some.T @ torch.linalg.eigh(some @ some.T).eigenvectors[:, -AXES:])
