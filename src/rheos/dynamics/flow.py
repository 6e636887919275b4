"""A velocity field, integrated as an ordinary differential equation: ``dx = u(x, t) dt``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

from torch import Tensor

from ..core.protocols import Model
from ..core.rng import Rng
from ..core.time import expand


@final
@dataclass(frozen=True)
class Flow:
    """The flow of a velocity field on R^d.

    Args:
        velocity: the model, ``velocity(x, t, cond)``, like ``x``; or ``velocity(x, t)`` when nothing conditions it.
        independent: whether the noise is Gaussian and independent of the data, so that the velocity determines a score.
            ``Matching.dynamics`` says so; a flow of one's own is taken to be.
        known: the times at which the network's output determines the velocity, as a function from times to bools (see
            :mod:`rheos.paths.affine`); all when left out.
    """

    velocity: Model
    independent: bool = True
    known: Callable[[Tensor], Tensor] | None = None

    def over(self, wrap: Callable[[Model], Model]) -> Flow:
        """The same flow with ``wrap`` around its velocity."""
        return replace(self, velocity=wrap(self.velocity))

    def rate(self, x: Tensor, t: Tensor, s: Tensor | None = None) -> Tensor:
        """The velocity at (x, t): one evaluation."""
        return self.velocity(x, t)

    def move(self, x: Tensor, rate: Tensor, t: Tensor, s: Tensor, rng: Rng | None = None) -> Tensor:
        """``x + (s - t)*rate``."""
        gap = s - t
        return x + rate * (expand(gap, x).to(x.dtype) if gap.dim() else gap)

    def determined(self, t: Tensor) -> Tensor | None:
        """Where the rate is determined, of the shape of ``t``; ``None`` when it is everywhere."""
        return None if self.known is None else self.known(t)
