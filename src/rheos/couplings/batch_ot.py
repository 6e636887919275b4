r"""Optimal transport within a batch: the permutation of the noise that is nearest to the data.

The pairs minimise ``sum |x0[i] - x1[j]|**2`` over permutations (Tong et al. 2024; Pooladian et al. 2023). A permutation
uses every row once, where a sampled transport plan would lose a third of them. Noise and data are then dependent: there
is no score any more.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..core.condition import Cond
from ..core.errors import InputError, ShapeError
from ..core.protocols import Pairs
from ..core.rng import Rng


@final
@dataclass(frozen=True)
class BatchOT:
    """Pairs by exact assignment on the squared distance; the data keep their rows, so that conditions stay in place."""

    independent: ClassVar[bool] = False

    def __call__(self, x0: Tensor, x1: Tensor, cond: Cond | None = None, rng: Rng | None = None) -> Pairs[Tensor]:
        """Join noise (B, ...) and data (B, ...); ``gap`` is 0 because the assignment is optimal.

        Raises:
            ShapeError: if the shapes differ.
            InputError: if a distance is not finite.
        """
        if x0.shape != x1.shape:
            raise ShapeError(f"noise and data must have one shape, got {tuple(x0.shape)} and {tuple(x1.shape)}.")
        if cond is not None:
            warnings.warn(
                "optimal transport within a batch ignores the condition: it ties noise to labels, and conditional "
                "samples suffer. Use couplings.Independent(), or train without labels.",
                stacklevel=2,
            )
        cost = torch.cdist(x1.detach().flatten(1).double(), x0.detach().flatten(1).double()).square_()
        if not bool(torch.isfinite(cost).all()):
            raise InputError("a distance between noise and data is not finite; look for NaN or infinity in the data.")
        data, noise = linear_sum_assignment(cost.cpu().numpy())
        i = torch.from_numpy(noise).to(x0.device)
        j = torch.from_numpy(data).to(x0.device)
        return Pairs(x0[i], x1, i, j, gap=0.0)
