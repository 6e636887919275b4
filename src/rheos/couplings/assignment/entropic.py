r"""Dual potentials of two batches, from entropic transport that is annealed.

The plan of entropic transport between n data and n noises is ``P[j, i] = 2**((f[j] + g[i] - c[j, i])/eps)`` with rows
and columns that sum to 1. Sinkhorn's iteration scales the rows and the columns in turn (Cuturi 2013); as eps -> 0 the
potentials f and g become those of the assignment. Three things make it quick:

- P at eps/2 is the elementwise square of P at eps, but for its scaling. One exponential is enough for all eps.
- A scaling is applied with a power ``omega > 1``: successive over-relaxation (Thibault et al. 2021).
- In three dimensions or fewer, where smooth differences of density take the most iterations, the start is that of the
  means of small cells (Schmitzer 2019), continued to all points by ``f[j] = -eps log2 sum_i 2**((g[i] - c[j,
  i])/eps)``.

Annealing ends when a datum shares its row with few noises: ``sum_i P[j, i]**2`` is one over that number. What comes out
are estimates. Whoever uses them bounds their error by duality.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SHARED = 10.0
"""Noises that a datum shares its row with when annealing ends, in the mean."""

ITERATIONS = 6
"""Scalings at each eps."""

OMEGA = 1.7
"""The power of a scaling; 1 is Sinkhorn's, 2 would never settle."""

START = 1 / 12
"""The first eps, in standard deviations of the cost."""

CELLED = 512
"""Rows from which on the start is that of cells, in three dimensions or fewer."""

CELLS = 1024
"""Cells at most."""

FEW = 3
"""Dimensions in which cells of neighbours say much."""

_FLOOR = 1e-18
"""No entry of P is less, so that its square is a number, and no row or column is empty."""

_EXPONENT = 58.0
"""The base-2 logarithm of what is beyond the floor."""

_HALVINGS = 30


def potentials(x1: Tensor, x0: Tensor, cost: Tensor) -> Tensor:
    """Estimates of the potentials g (n,) of the noise.

    Args:
        x1: data (n, d), centred, in float32.
        x0: noise (n, d), centred.
        cost: ``-2 <x1[j], x0[i]>``, (n, n).
    """
    return _annealed(x1, x0, cost)[1]


def smooth(x1: Tensor, x0: Tensor) -> tuple[Tensor, Tensor, float]:
    """Potentials f of the data and g of the noise, both (n, d) with d at most 3, that see cells of neighbours only, and
    the eps that they are of. No matrix of all pairs is made."""
    data, noise = cells(x1), cells(x0)
    while len(data) > CELLS:
        data, noise = cells(data), cells(noise)
    f, g, eps = _annealed(data, noise, (data @ noise.T).mul_(-2))
    return _continued(x1, noise, g, eps), _continued(x0, data, f, eps), eps


def cells(x: Tensor) -> Tensor:
    """Means of cells of ``2**d`` neighbours each, by sorting along one axis after the other; a few points are left out
    where their number does not fit."""
    n, d = x.shape
    side = max(1, int((n / 2**d) ** (1 / d) + 1e-9))
    kept = min(n, (2 * side) ** d)
    order = x[:, 0].argsort(stable=True)[torch.arange(kept, device=x.device) * n // kept]
    for axis in range(1, d):
        order = order.reshape(side**axis, -1)
        order = order.gather(1, x[order, axis].argsort(stable=True, dim=1))
    return x[order.reshape(side**d, -1)].mean(1)


def _annealed(x1: Tensor, x0: Tensor, cost: Tensor) -> tuple[Tensor, Tensor, float]:
    f, g, eps = _start(x1, x0, cost)
    plan = torch.add(cost, f[:, None], alpha=-1).sub_(g).mul_(-1 / eps).clamp_(-_EXPONENT, _EXPONENT).exp2_()
    for _ in range(_HALVINGS):
        rows, columns = _scalings(plan)
        f, g = f + eps * rows.log2(), g + eps * columns.log2()
        plan.mul_(rows[:, None]).mul_(columns).square_()
        if float(plan.sum()) * SHARED > len(plan):
            break
        plan.clamp_(min=_FLOOR)
        eps /= 2
    return f, g, eps


def _scalings(plan: Tensor) -> tuple[Tensor, Tensor]:
    """What makes the rows sum to 1, and the columns nearly."""
    # NumPy multiplies a matrix by a vector in two thirds of the time.
    matrix: Any = plan if plan.is_cuda else plan.numpy()
    columns = 0 * matrix[0] + 1
    for _ in range(ITERATIONS):
        # Without bounds a column that nothing reaches overflows under the power.
        sums = ((1 / (matrix @ columns)) @ matrix).clip(1e-12, 1e12)
        columns = columns * (columns * sums) ** -OMEGA
    return torch.as_tensor(1 / (matrix @ columns)), torch.as_tensor(columns)


def _start(x1: Tensor, x0: Tensor, cost: Tensor) -> tuple[Tensor, Tensor, float]:
    """Potentials and eps to begin with."""
    n, d = x1.shape
    if d > FEW or n < CELLED:
        eps = START * float(cost[:: max(1, n // 64)].std()) or 1.0
        return cost.amin(1), torch.zeros_like(cost[0]), eps
    f, g, eps = smooth(x1, x0)
    return f, g, eps / 2


def _continued(x: Tensor, cell: Tensor, potential: Tensor, eps: float) -> Tensor:
    """The potential at points (n, d), from that of the other side's cells (m, d)."""
    score = torch.addmm(potential, x, cell.T, alpha=2.0)
    # torch.logsumexp takes five times as long.
    top = score.amax(1)
    return score.sub_(top[:, None]).mul_(1 / eps).clamp_(min=-_EXPONENT).exp2_().sum(1).log2_().mul_(-eps).sub_(top)
