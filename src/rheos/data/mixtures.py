r"""Mixtures of Gaussians, whose density, score and velocity are exact on every affine path.

If x1 is normal(m, S) and x0 standard normal, then ``x = alpha*x1 + sigma*x0`` is normal(alpha*m, C) with
``C = alpha**2*S + sigma**2*I``, and given x the expectations are ``x1 = m + alpha*S*C^-1*(x - alpha*m)`` and
``x0 = sigma*C^-1*(x - alpha*m)``. A mixture averages them by the posterior weight of each component. In the
eigenbasis of S all of it is diagonal, at every time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from ..core.errors import InputError, ShapeError
from ..core.rng import Rng, Stream
from ..core.time import as_time
from ..paths import Affine


@final
class GaussianMixture:
    """A mixture of K Gaussians in d dimensions.

    Args:
        weights: positive weights (K,); their sum does not matter.
        means: (K, d).
        covariances: symmetric and positive definite, (K, d, d).

    Raises:
        InputError: if a weight is not positive or a covariance not positive definite.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        if means.dim() != 2 or weights.shape != means.shape[:1] or covariances.shape != (*means.shape, means.shape[1]):
            raise ShapeError(
                "a mixture takes weights (K,), means (K, d) and covariances (K, d, d), got "
                f"{tuple(weights.shape)}, {tuple(means.shape)} and {tuple(covariances.shape)}."
            )
        if not bool((weights > 0).all()):
            raise InputError(f"the weights of a mixture must be positive, got {weights.tolist()}.")
        self.weights = weights / weights.sum()
        self.means = means
        self.covariances = covariances
        self.variances, self.axes = torch.linalg.eigh(covariances)
        if not bool((self.variances > 0).all()):
            raise InputError("the covariances of a mixture must be positive definite.")

    def sample(self, n: int, rng: Rng | torch.Generator | int) -> Tensor:
        """``n`` points (n, d); point i depends on the rng and i alone."""
        rows = Rng.of(rng).per_row(n, self.means.device)
        levels = self.weights.cumsum(0)[:-1]
        which = torch.bucketize(rows.fold(Stream.CONDITION).uniform(dtype=self.means.dtype), levels)
        z = rows.fold(Stream.SOURCE).normal(self.means.shape[1], dtype=self.means.dtype)
        spread = torch.einsum("nij,nj->ni", self.axes[which], self.variances[which].sqrt() * z)
        return self.means[which] + spread

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density in nats (B,) at the points (B, d)."""
        one = torch.ones((), dtype=x.dtype, device=x.device)
        offset, variance = self._in_axes(x, one, torch.zeros_like(one))
        return torch.logsumexp(self._joint(offset, variance), -1)

    def velocity(self, path: Affine) -> Callable[..., Tensor]:
        """The exact velocity of the path from standard normal noise to this mixture, as ``velocity(x, t,
        cond=None)``."""

        def field(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
            frame = path.schedule.frame(as_time(t, x).to(x.dtype))
            d_alpha, q, flux = (self._column(torch.as_tensor(e), x) for e in (frame.d_alpha, frame.q, frame.flux))
            offset, variance = self._in_axes(x, frame.alpha, frame.sigma)
            # d_sigma*sigma, which stays finite where d_sigma does not.
            pull = (d_alpha * self._column(frame.alpha, x) * self.variances + q * flux) / variance
            moved = d_alpha * self.means + torch.einsum("kij,nkj->nki", self.axes, pull * offset)
            return torch.einsum("nk,nki->ni", self._joint(offset, variance).softmax(-1), moved)

        return field

    def score(self, path: Affine) -> Callable[..., Tensor]:
        """The exact score of the distribution at each time of the path, as ``score(x, t, cond=None)``."""

        def field(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
            alpha, sigma = path.schedule(as_time(t, x).to(x.dtype))
            offset, variance = self._in_axes(x, alpha, sigma)
            pull = torch.einsum("kij,nkj->nki", self.axes, -offset / variance)
            return torch.einsum("nk,nki->ni", self._joint(offset, variance).softmax(-1), pull)

        return field

    def _in_axes(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """``x - alpha*m`` in each component's axes and its variance there, both (B, K, d)."""
        if x.dim() != 2 or x.shape[1] != self.means.shape[1]:
            raise ShapeError(f"points of this mixture are (B, {self.means.shape[1]}), got {tuple(x.shape)}.")
        alpha, sigma = self._column(alpha, x), self._column(sigma, x)
        offset = torch.einsum("kij,nki->nkj", self.axes, x[:, None] - alpha * self.means)
        return offset, (alpha * alpha * self.variances + sigma * sigma).expand_as(offset)

    def _column(self, value: Tensor, x: Tensor) -> Tensor:
        """A number a row (or one number) ready to multiply (B, K, d)."""
        return value.to(x)[:, None, None] if value.dim() else value.to(x)

    def _joint(self, offset: Tensor, variance: Tensor) -> Tensor:
        """Log of weight times density of each component (B, K)."""
        square = (offset.square() / variance + variance.log()).sum(-1)
        return self.weights.log() - 0.5 * square - 0.5 * offset.shape[-1] * math.log(2 * math.pi)
