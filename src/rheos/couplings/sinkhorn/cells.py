"""Points in an order that keeps neighbours together, and the means of cells of neighbours.

Cells are halved at the median along the axis on which they are widest, again and again (a k-d tree, Bentley 1975). All
cells of one depth hold equally many points but for one, so that their means, all of one weight, stand for the points:
their mass is where that of the points is to within a cell, while a random subsample moves mass by the square root of
its size. This is how coarse levels of transport are made (Schmitzer 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor


def ordered(x: Tensor, depth: int) -> Tensor:
    """An order of points (n, d), int64 (n,), in which each of the ``2**depth`` cells stands together, halves before
    halves; ``2**depth`` is at most n."""
    order = torch.arange(len(x), device=x.device)
    for level in range(depth):
        cell = _cell(len(x), level, x.device)
        points = x[order].double()
        means = _means(points, cell, 1 << level)
        spread = _means((points - means[cell]).square_(), cell, 1 << level)
        value = points.gather(1, spread.argmax(1)[cell, None])[:, 0]
        within = value.argsort(stable=True)
        order = order[within[cell[within].argsort(stable=True)]]
    return order


def means(x: Tensor, depth: int) -> Tensor:
    """The means of the cells (2**depth, d) of points (n, d) that are ordered at least as deep."""
    return _means(x.double(), _cell(len(x), depth, x.device), 1 << depth).to(x.dtype)


def _cell(count: int, depth: int, device: torch.device) -> Tensor:
    """The cell of each place (count,): bounds are those of halves of halves, in integers."""
    bounds = torch.tensor([0, count])
    for _ in range(depth):
        middle = (bounds[:-1] + bounds[1:]) // 2
        bounds = torch.cat([torch.stack([bounds[:-1], middle], 1).reshape(-1), bounds[-1:]])
    return torch.repeat_interleave(torch.arange(1 << depth), bounds.diff()).to(device)


def _means(x: Tensor, cell: Tensor, count: int) -> Tensor:
    sums = x.new_zeros(count, x.shape[1]).index_add_(0, cell, x)
    return sums / torch.bincount(cell, minlength=count)[:, None]
