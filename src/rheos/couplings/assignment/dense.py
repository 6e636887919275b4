"""The assignment of a dense matrix, by shortest augmenting paths (Jonker and Volgenant 1987): lapx where it is
installed, and SciPy otherwise (Crouse 2016), which takes up to twice as long."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .installed import lapx


def dense(cost: Tensor) -> Tensor:
    """The column of each row, int64 (n,), by costs (n, n)."""
    matrix, solver = cost.contiguous().cpu().numpy(), lapx()
    columns = linear_sum_assignment(matrix)[1] if solver is None else solver.lapjvr(matrix, return_cost=False)[1]
    return torch.from_numpy(columns).to(cost.device)
