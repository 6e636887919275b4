"""A plan of entropic transport as its potentials: what it joins, and where it carries a point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ...core.errors import InputError, ShapeError
from ...core.rng import Rng
from ..sides import rows_of
from .gibbs import Gibbs


@final
@dataclass(frozen=True)
class Plan:
    """The optimal entropic plan between noise and data, kept as potentials; its n times m entries are made in blocks.

    Attributes:
        x0: noise (n, ...).
        x1: data (m, ...).
        f: the potential of the noise, float64 (n,).
        g: that of the data, float64 (m,): the plan is ``exp((f[i] + g[j] - |x0[i] - x1[j]|**2)/epsilon)/(n m)``.
        epsilon: how much entropy counts, in units of the cost.
        entropy: that of the plan, ``(H - log n)/log m``: 0 joins each noise with one datum, 1 is independent.
        error: the L1 norm of the data's marginal minus 1/m; the noise's marginal is exact.
        cost: the mean squared distance under the plan.
        bound: what no plan costs less than, by duality.
        sweeps: passes over the plan that it took at the last, finest level.
        block: entries that are held at once.
    """

    x0: Tensor
    x1: Tensor
    f: Tensor
    g: Tensor
    epsilon: float
    entropy: float
    error: float
    cost: float
    bound: float
    sweeps: int
    block: int

    @property
    def gap(self) -> float:
        """An upper bound of ``(cost - optimum)/cost``: what the entropy costs, and what is left to converge."""
        return max(0.0, 1 - self.bound / self.cost) if self.cost > 0 else 0.0

    def sample(self, rng: Rng, *draws: int) -> Tensor:
        """A datum for each noise from the plan's conditional law, int64 (n, *draws). Many draws at once cost little
        more than one."""
        uniform = rng.per_row(len(self.x0), self.x0.device).uniform(*draws, dtype=torch.float64)
        found = self._gibbs(self.x0).sample(self.g, self.epsilon, uniform.reshape(len(uniform), -1))
        return found.reshape(uniform.shape)

    def barycentric(self, x: Tensor | None = None) -> Tensor:
        """The mean of the data given x, shaped like x and of its type: where the plan carries it, between data.

        It estimates the optimal map between the laws behind noise and data (Pooladian and Niles-Weed 2021), contracted
        towards the mean of the data by about epsilon. ``x + plan.barycentric(x) - own.barycentric(x)``, with the plan
        ``own`` between two draws of the noise at the same epsilon, is the estimate without that bias to first order.

        Args:
            x: points (k, ...) shaped like the noise; the noise itself when left out.

        Raises:
            ShapeError: if a point is shaped otherwise.
            InputError: if one is not finite.
        """
        x = self.x0 if x is None else x
        if x.shape[1:] != self.x0.shape[1:] or x.dim() == 0:
            raise ShapeError(
                f"points are shaped like the noise, (k, *{tuple(self.x0.shape[1:])}), got {tuple(x.shape)}."
            )
        if not bool(torch.isfinite(x).all()):
            raise InputError("a point to carry is not finite; look for NaN or infinity.")
        means = self._gibbs(x).means(self.g, self.epsilon)
        return means.reshape(len(x), *self.x1.shape[1:]).to(x.dtype)

    def _gibbs(self, x: Tensor) -> Gibbs:
        return Gibbs(rows_of(x), rows_of(self.x1), self.block)
