"""An assignment of many points in few dimensions by binary space partitions (BSP-OT, Genest et al. 2025), of POT.

Both sides are halved by the same random planes until one point is left, several times over, and the assignments are
merged. That takes n log n, keeps no matrix, and costs some 5 % above the optimum. How much it is at most says a lower
bound that takes n log n too: potentials of the means of cells, continued to the data, and completed for each noise by
``min_j |x0 - x1[j]|**2 - w[j]``, which is the distance to the nearest of the points ``(x1[j], sqrt(max(w) - w[j]))``.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor

from .entropic import smooth
from .installed import pot

PLANS = 8
"""Assignments that are merged. Twice as many take twice the time and cost 1 or 2 % less."""

_SEEDED = Lock()


def partition(x1: Tensor, x0: Tensor, seed: int) -> tuple[Tensor, float] | None:
    """The noise of each datum and a bound of what it costs above the optimum; ``None`` without POT.

    Args:
        x1: data (n, d), d at most 3.
        x0: noise (n, d).
        seed: of the planes, from 0 to 2**31 - 1.
    """
    solver = pot()
    if solver is None:
        return None
    w = smooth(x1, x0)[0] + x1.square().sum(1)
    data, noise = x1.double().cpu().numpy(), x0.double().cpu().numpy()
    order = _seeded(solver, data, noise, seed)
    cost = float(np.square(data - noise[order]).sum())
    bound = _bound(data, noise, w.double().cpu().numpy())
    return torch.from_numpy(order).to(x1.device), max(0.0, cost - bound)


def _seeded(solver: ModuleType, data: NDArray[np.float64], noise: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """POT reads the seed when a thread first draws a number and never again, so that every call has its own thread."""
    with _SEEDED, ThreadPoolExecutor(1) as thread:
        solve = thread.submit(solver.bsp.compute_bspot_bijection, data, noise, n_plans=PLANS, seed=seed)
        return solve.result()[1].astype(np.int64)


def _bound(data: NDArray[np.float64], noise: NDArray[np.float64], w: NDArray[np.float64]) -> float:
    """``sum_j w[j] + sum_i min_j |x0[i] - x1[j]|**2 - w[j]``, which no assignment costs less than."""
    top = w.max()
    lifted = np.column_stack([data, np.sqrt(top - w)])
    nearest = KDTree(lifted).query(np.column_stack([noise, np.zeros(len(noise))]))[0]
    return float((np.square(nearest) - top).sum() + w.sum())
