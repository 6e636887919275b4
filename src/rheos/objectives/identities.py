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

The right sides, held without a gradient, are what the network is to give. To add one, write ``__call__``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import Tensor

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
    """

    own: Map
    target: Map
    velocity: Callable[[Tensor, Tensor], Tensor]
    how: Derivative


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
    """

    improved: bool = False

    def __call__(self, known: Known, x: Tensor, t: Tensor, s: Tensor, v: Tensor) -> Tensor:
        along = known.own(x, t, t) if self.improved else v
        change = derivative(lambda time: known.own(x + factor(time - t, x) * along, time, s), t, known.how)
        return v + factor(s - t, x) * change


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
class Compositional(Identity):
    """Two half steps are one step."""

    def __call__(self, known: Known, x: Tensor, t: Tensor, s: Tensor, v: Tensor) -> Tensor:
        middle = (t + s) / 2
        first = known.target(x, t, middle)
        second = known.target(x + factor(middle - t, x) * first, middle, s)
        return (first + second) / 2
