r"""What a flow map fulfils, as regression targets.

Let ``X(x, t, s) = x + (s - t)*u(x, t, s)`` carry a state from t to s along a velocity v. Three identities each
determine u, given v (Boffi, Albergo and Vanden-Eijnden 2025, "How to build a consistency model"):

==============  ===============================================================  ============================
Eulerian        the end does not change with the start:
                ``u = v(x, t) + (s - t)*d/dt u(x_t, t, s)`` along ``dx = v dt``  MeanFlow (Geng et al. 2025)
Lagrangian      the end moves with the velocity there:
                ``u = v(X, s) - (s - t)*d/ds u(x, t, s)``                        Lagrangian self-distillation
Compositional   two steps are one: with m between t and s,
                ``(s - t)*u(x, t, s) = (m - t)*u(x, t, m) + (s - m)*u(X, m, s)`` shortcut models (Frans et al. 2024)
==============  ===============================================================  ============================

The right sides, held without a gradient, are what the network is to give. :class:`Consistency` is the Eulerian identity
over a gap instead of its derivative. To add one, write ``__call__``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.time import factor
from .derivative import Derivative, derivative

Map = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The average velocity ``u(x, t, s)`` of states (B, ...) and times (B,)."""


@final
@dataclass(frozen=True)
class Known:
    """What an identity may ask.

    Args:
        own: the map of the network.
        target: the map of its average, which moves slowly, or of the network itself.
        velocity: ``v(x, t)`` of a teacher, or on the diagonal of the target.
        how: derivatives are taken.
        seen: rows of training before each of these, int64 (B,).
    """

    own: Map
    target: Map
    velocity: Callable[[Tensor, Tensor], Tensor]
    how: Derivative
    seen: Tensor


class Identity(ABC):
    """An identity of flow maps."""

    @abstractmethod
    def __call__(self, known: Known, x: Tensor, t: Tensor, s: Tensor, v: Tensor) -> Tensor:
        """What ``u(x, t, s)`` should be.

        Args:
            known: the maps and the velocity.
            x: states (B, ...).
            t: where a step starts (B,).
            s: where it ends (B,).
            v: the velocity at (x, t), or a sample of which it is the mean.
        """


@final
@dataclass(frozen=True)
class Eulerian(Identity):
    """The end of a step does not change with its start.

    Args:
        improved: follow the network's own velocity instead of ``v``, whose samples are noisy (Geng et al. 2025,
            "Improved mean flows").
        evened: c of a target that lies in the identity's direction e from what the network gives, but no further than
            ``e/(|e| + c)`` by root mean square (Lu and Song 2024, sCM, with .1); the whole way when 0.
        warm: rows of training over which the derivative comes in (likewise); at once when 0.

    Raises:
        InputError: if a number is negative.
    """

    improved: bool = False
    evened: float = 0.0
    warm: int = 0

    def __post_init__(self) -> None:
        if not (self.evened >= 0 and self.warm >= 0):
            raise InputError(f"evened and warm are 0 or more, got {self.evened} and {self.warm}.")

    def __call__(self, known: Known, x: Tensor, t: Tensor, s: Tensor, v: Tensor) -> Tensor:
        along = known.own(x, t, t) if self.improved else v
        change = derivative(lambda time: known.own(x + factor(time - t, x) * along, time, s), t, known.how)
        gap = s - t
        if self.warm:
            gap = gap * ((known.seen + 1) / self.warm).clamp(max=1.0).to(gap.dtype)
        target = v + factor(gap, x) * change
        if not self.evened:
            return target
        now = known.own(x, t, s)
        error = target - now
        size = error.square().flatten(1).mean(1).sqrt()
        return now + error / factor(size + self.evened, x)


@final
@dataclass(frozen=True)
class Lagrangian(Identity):
    """The end of a step moves with the velocity there."""

    def __call__(self, known: Known, x: Tensor, t: Tensor, s: Tensor, v: Tensor) -> Tensor:
        gap = factor(s - t, x)
        change = derivative(lambda time: known.own(x, t, time), s, known.how)
        return known.velocity(x + gap * known.own(x, t, s), s) - gap * change


@final
@dataclass(frozen=True)
class Consistency(Identity):
    """A little later on the way, the end is the same: the rule of consistency models (Song et al. 2023).

    With r between t and s the target is ``(X(x + (r - t)*v, r, s) - x)/(s - t)``. On straight paths ``x + (r - t)*v``
    is the point of the same noise and data at r; under a teacher it is a step of Euler's rule, which is consistency
    distillation. Gaps are halved by stages (Geng et al. 2025, "Consistency models made easy").

    Args:
        share: of the way from t to s, by which r lies ahead of t at first.
        halved: rows of training after which the share is halved, again and again; never when 0.
        least: where halving ends.
        straight: weight, in ``straight*|u(x, t, s) - u(there, r, s)|**2`` beside ``|X(x, t, s) - X(there, r, s)|**2``,
            of an average velocity that stays the same along the way (Yang et al. 2024, "Consistency flow matching").

    Raises:
        InputError: if the shares are none, or the least is not the least, or the weight is negative.
    """

    share: float = 0.5
    halved: int = 0
    least: float = 1 / 64
    straight: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.least <= self.share <= 1 and self.halved >= 0):
            raise InputError(
                f"0 < least <= share <= 1 and halved >= 0 are needed, got {self.least}, {self.share} and {self.halved}."
            )
        if not self.straight >= 0:
            raise InputError(f"a weight straight >= 0 is needed, got {self.straight}.")

    def __call__(self, known: Known, x: Tensor, t: Tensor, s: Tensor, v: Tensor) -> Tensor:
        stage = known.seen // self.halved if self.halved else torch.zeros_like(known.seen)
        share = (self.share * 0.5 ** stage.to(t.dtype)).clamp(min=self.least)
        ahead = t + share * (s - t)
        there = x + factor(ahead - t, x) * v
        # The mean of both targets by their weights is one target, nearer to the velocity ahead.
        share = share * (s - t).square() / ((s - t).square() + self.straight)
        # (X(there) - x)/(s - t), without the division of a small difference.
        return factor(share, x) * v + factor(1 - share, x) * known.target(there, ahead, s)


@final
@dataclass(frozen=True)
class Compositional(Identity):
    """Two half steps are one step."""

    def __call__(self, known: Known, x: Tensor, t: Tensor, s: Tensor, v: Tensor) -> Tensor:
        middle = (t + s) / 2
        first = known.target(x, t, middle)
        second = known.target(x + factor(middle - t, x) * first, middle, s)
        return (first + second) / 2
