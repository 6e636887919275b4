r"""A stochastic differential equation whose velocity and score were both learned.

Where the velocity does not determine the score, as for any two distributions that are not Gaussian noise and data, a
model gives both. For any coefficient g(t) the processes

    dx = (u + g**2/2 * score) dt + g dW  forward,    dx = (u - g**2/2 * score) dt + g dW  backward in time

have at every time the distribution that ``dx = u dt`` has. For the entropic coupling with epsilon ``2*sigma**2`` and
``g = sigma`` the first is the Schroedinger bridge, and the second is the same process seen backward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, final

import torch
from torch import Tensor

from ..core.protocols import Model
from ..core.rng import Rng
from ..core.time import expand
from .diffusion import kick


class Drift(Protocol):
    """Turns what a model gave at ``t`` into ``velocity + square/2 * score``, like the state. ``square`` is of the shape
    of ``t``: :meth:`rheos.paths.bridge.Bridge.drift`."""

    def __call__(self, output: Tensor, t: Tensor, square: Tensor) -> Tensor: ...


@final
@dataclass(frozen=True)
class ScoredDiffusion:
    """A diffusion along a velocity and a score that one model gives.

    Args:
        model: gives both, ``model(x, t, cond)``.
        drift: reads a drift off what it gives.
        diffusion: the coefficient g(t), not negative, in units of the state per square root of time; of the shape of
            its argument.
        known: the times at which every drift is determined, as a function from times to bools; all when left out.
    """

    model: Model
    drift: Drift
    diffusion: Callable[[Tensor], Tensor]
    known: Callable[[Tensor], Tensor] | None = None

    def over(self, wrap: Callable[[Model], Model]) -> ScoredDiffusion:
        """The same diffusion with ``wrap`` around its model."""
        return replace(self, model=wrap(self.model))

    def rate(self, x: Tensor, t: Tensor, s: Tensor | None = None) -> Tensor:
        """The drift, ``u + g**2/2 * score`` forward in time and ``u - g**2/2 * score`` backward: one evaluation."""
        square = self.diffusion(t) ** 2
        return self.drift(self.model(x, t), t, square if s is None else square * torch.sign(s - t))

    def move(self, x: Tensor, rate: Tensor, t: Tensor, s: Tensor, rng: Rng | None = None) -> Tensor:
        """``x + (s - t)*rate + g*sqrt(|s - t|)*normal``, with g in the middle of the step."""
        return x + expand(s - t, x).to(x.dtype) * rate + kick(self.diffusion, x, t, s, rng)

    def determined(self, t: Tensor) -> Tensor | None:
        """Where the drift is determined, of the shape of ``t``; ``None`` when it is everywhere."""
        return None if self.known is None else self.known(t)
