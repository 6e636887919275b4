"""The one place where a network's output becomes a velocity, and where a velocity changes its schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from ..core.protocols import Model, Quantity, over
from ..core.time import as_time, expand
from ..schedules import Schedule
from .affine import Affine


@final
@dataclass(frozen=True)
class AsVelocity:
    """A network that predicts a quantity of an affine path, as a velocity: ``path.convert(network(x, t, cond),
    ...)``."""

    network: Model
    path: Affine
    predict: Quantity

    def __call__(self, x: Tensor, t: Tensor, *cond: Any) -> Tensor:
        value = self.network(x, t, *cond)
        return self.path.convert(value, x, t, given=self.predict, want="velocity")

    def over(self, wrap: Callable[[Model], Model]) -> AsVelocity:
        return replace(self, network=over(self.network, wrap))


def as_velocity(network: Model, path: Affine, predict: Quantity) -> Model:
    """The velocity that a network stands for. A network that predicts it is returned as it is."""
    return network if predict == "velocity" else AsVelocity(network, path, predict)


@final
@dataclass(frozen=True)
class Rescheduled:
    r"""A velocity learned on one schedule, to be sampled on another.

    With ``r = sqrt(alpha**2 + sigma**2)``, a bar for the new schedule, and ``tau`` the time at which the own
    schedule has the signal-to-noise ratio that the new one has at ``t``: ``c = r_bar(t)/r(tau)``, and

        u_bar(x, t) = (D_bar/r_bar**2)*(k_bar - k)*x + c*(D_bar/D)*(r/r_bar)**2 * u(x/c, tau),   k = alpha*p + sigma*q.

    The samples at t = 1 are the same, up to the scale of the last state. A ratio that the own schedule never reaches is
    read at its nearer end.

    Args:
        velocity: the model, ``velocity(x, t, cond)`` on ``own``.
        own: the schedule it was trained on.
        new: the schedule it shall be sampled on.
    """

    velocity: Model
    own: Schedule
    new: Schedule

    def __call__(self, x: Tensor, t: Tensor, *cond: Any) -> Tensor:
        t = as_time(t, x)
        bar = self.new.frame(t)
        tau = self.own.time_of(bar.alpha, bar.sigma)
        old = self.own.frame(tau)
        square_bar, square = bar.alpha**2 + bar.sigma**2, old.alpha**2 + old.sigma**2
        scale = torch.sqrt(square_bar / square)
        turn = bar.speed / square_bar
        bend = turn * ((bar.alpha * bar.p + bar.sigma * bar.q) - (old.alpha * old.p + old.sigma * old.q))
        gain = scale * turn * square / old.speed
        scale, bend, gain = (expand(c.to(x.dtype), x) for c in (scale, bend, gain))
        return bend * x + gain * self.velocity(x / scale, tau, *cond)

    def over(self, wrap: Callable[[Model], Model]) -> Rescheduled:
        return replace(self, velocity=over(self.velocity, wrap))
