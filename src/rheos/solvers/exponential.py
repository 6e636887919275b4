r"""Exponential integration in the half log signal-to-noise ratio, ``lam = log(alpha/sigma)``.

With D(lam) the data prediction along the way, the flow of an affine path satisfies exactly (Lu et al. 2022)

    x_s = (sigma_s/sigma_t)*x_t + sigma_s * int_{lam_t}^{lam_s} exp(lam) D(lam) dlam.

Holding D gives DDIM: ``alpha_s*data + sigma_s*noise``, which needs no lam and holds at every end. Interpolating it
through more nodes adds ``sum_j w_j D_j`` with ``sum_j w_j = 0``. In ``u = (lam - lam_t)/h``, ``h = lam_s - lam_t``, the
moments are

    M_m = h * int_0^1 exp(h*(u - 1)) u**m du,    M_0 = 1 - exp(-h),    M_m = 1 - m*M_{m-1}/h,

and ``exp(-h) = alpha_t*sigma_s/(alpha_s*sigma_t)`` without logarithms. Where alpha or sigma is 0, lam is infinite and
no interpolation in it is possible; there the order is lowered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from ..core.protocols import Dynamics, Quantity
from ..paths import Affine
from .multistep import interpolant, known_points

DATA = "integrates the data prediction of a Flow on an affine path"
"""What these solvers do with a dynamics, for those that refuse another."""


@final
@dataclass(frozen=True)
class Ladder:
    """An affine path read at the points of a grid; every list has one entry a point.

    Attributes:
        times: the grid.
        alpha: weight of the data.
        sigma: weight of the noise.
        lam: half the log signal-to-noise ratio, infinite at the ends of a path that reaches them.
        data: (of the velocity, of the state) in the data, which is linear in both.
        noise: the same for the noise.
        known: whether the data prediction is determined.
    """

    times: list[float]
    alpha: list[float]
    sigma: list[float]
    lam: list[float]
    data: list[tuple[float, float]]
    noise: list[tuple[float, float]]
    known: list[bool]

    @staticmethod
    def of(path: Affine, dynamics: Dynamics[Any], grid: Tensor) -> Ladder:
        """Read ``path`` on a float64 ``grid``."""
        alpha, sigma = path.schedule(grid)
        data, noise = _linear(path, grid, "data"), _linear(path, grid, "noise")
        # A velocity that does not depend on the data, as at the start of a slow path, says nothing about it.
        told = [of_velocity != 0 or s == 0 for (of_velocity, _), s in zip(data, sigma.tolist(), strict=True)]
        known = [a and b for a, b in zip(told, known_points(dynamics, grid), strict=True)]
        lam = alpha.log() - sigma.log()
        return Ladder(grid.tolist(), alpha.tolist(), sigma.tolist(), lam.tolist(), data, noise, known)

    def ddim(self, n: int) -> tuple[float, float]:
        """(of the velocity, of the state) in ``alpha*data + sigma*noise`` at point n + 1, both ends predicted at n."""
        alpha, sigma = self.alpha[n + 1], self.sigma[n + 1]
        of_velocity, of_state = (alpha * d + sigma * e for d, e in zip(self.data[n], self.noise[n], strict=True))
        return of_velocity, of_state

    def weights(self, start: int, end: int, nodes: Sequence[int]) -> list[float]:
        """What interpolation through ``nodes``, the first of which is ``start``, adds to DDIM from ``start`` to
        ``end``.

        Two nodes use half the difference instead of the exact moment, as the 2M rule of Lu et al. and B(h) of Zhao et
        al. do. The difference is of third order, and it is the trapezoidal rule in alpha/sigma, so it holds from alpha
        = 0.
        """
        if len(nodes) == 1:
            return [0.0]
        ratio = self.sigma[end] / self.sigma[start]
        first = self.alpha[end] - self.alpha[start] * ratio
        if len(nodes) == 2:
            r = 1.0 if nodes[1] == end else (self.lam[nodes[1]] - self.lam[start]) / (self.lam[end] - self.lam[start])
            # The whole weight goes to the other node where the start itself is not known.
            weight = first * (0.5 / r if self.known[start] else 1.0)
            return [-weight, weight]
        h = self.lam[end] - self.lam[start]
        moments = [first / self.alpha[end]]
        for m in range(1, len(nodes)):
            moments.append(1 - m * moments[-1] / h)
        out = interpolant([(self.lam[j] - self.lam[start]) / h for j in nodes], moments)
        return [self.alpha[end] * w - (first if j == 0 else 0.0) for j, w in enumerate(out)]

    def predictor(self, n: int, order: int) -> list[int]:
        """The nodes for the step from n to n + 1, ``n`` first: at most ``order``, one where lam ends infinite."""
        return [n, *(self._earlier(n, order - 1) if self._finite(n + 1) else ())]

    def corrector(self, n: int, order: int) -> list[int]:
        """The nodes for the step from n - 1 to n once n is known, ``n - 1`` first and ``n`` second; none where there
        are none."""
        if n == 0 or self.sigma[n - 1] == 0 or not self._finite(n):
            return []
        return [n - 1, n, *(self._earlier(n - 1, order - 1) if self._finite(n - 1) else ())]

    def _earlier(self, n: int, count: int) -> list[int]:
        return [j for j in range(n - 1, max(-1, n - 1 - count), -1) if self._finite(j)]

    def _finite(self, n: int) -> bool:
        return math.isfinite(self.lam[n]) and self.known[n]


def _linear(path: Affine, grid: Tensor, want: Quantity) -> list[tuple[float, float]]:
    """The coefficients of velocity and state in a quantity, by asking for it at (1, 0) and at (0, 1)."""
    one, zero = torch.ones_like(grid), torch.zeros_like(grid)
    velocity, state = torch.stack([one, zero], 1), torch.stack([zero, one], 1)
    return [(a, b) for a, b in path.convert(velocity, state, grid, given="velocity", want=want).tolist()]
