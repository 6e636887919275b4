r"""Search in few dimensions by a k-d tree.

The largest ``x0 . x_j + h_j`` is the smallest ``|x0 - x_j|**2 + w_j`` with ``w_j = -|x_j|**2 - 2 h_j``. Up to a
constant that makes all w_j non-negative, it is the squared distance between (x0, 0) and (x_j, sqrt(w_j)): the nearest
neighbour in one dimension more (Aurenhammer 1987).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from .dense import Lookup

DIMENSIONS = 3
"""The most dimensions in which the tree is the faster."""


@final
@dataclass(frozen=True)
class Tree:
    """Search among points (n, d) in float64, on the CPU."""

    points: Tensor

    def at(self, h: Tensor) -> Lookup:
        """The search with h, float64 (n,)."""
        x = self.points.double()
        lift = -x.square().sum(1) - 2 * h
        tree = KDTree(torch.cat([x, (lift - lift.amin()).sqrt()[:, None]], 1).numpy())

        def look(x0: Tensor) -> Tensor:
            z = x0.double().numpy()
            return torch.from_numpy(tree.query(np.pad(z, ((0, 0), (0, 1))))[1])

        return look
