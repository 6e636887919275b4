"""The one place where a network's output becomes a velocity, and where a velocity changes its schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

    def __call__(self, x: Tensor, t: Tensor, *cond: Any, **end: Tensor) -> Tensor:
        value = self.network(x, t, *cond, **end)
        return self.path.convert(value, x, t, given=self.predict, want="velocity")

    def over(self, wrap: Callable[[Model], Model]) -> AsVelocity:
        return replace(self, network=over(self.network, wrap))


@final
@dataclass(frozen=True)
class Preconditioned:
    r"""A network as a data prediction whose input and output have unit variance at every noise level (Karras et al.
    2022, EDM). For data of standard deviation s, on any affine path, with ``n = sqrt(alpha**2*s**2 + sigma**2)``,

        data = alpha*s**2/n**2 * x + sigma*s/n * network(x/n, tau, cond),    tau = alpha/(alpha + sigma).

    ``tau`` is the time at which straight lines have that signal-to-noise ratio, so that the network knows no path: it
    may be trained on one and sampled on another.

    Args:
        network: ``network(x, t, cond)``, like ``x``.
        path: where ``x`` and ``t`` are on.
        data_std: s, over all entries of the data.
    """

    network: Model
    path: Affine
    data_std: float

    def __call__(self, x: Tensor, t: Tensor, *cond: Any, **end: Tensor) -> Tensor:
        alpha, sigma = self.path.schedule(as_time(t, x))
        s = self.data_std
        norm = (alpha.square() * s**2 + sigma.square()).sqrt()
        inner, skip, outer = (
            expand(c.to(x.dtype), x) for c in (1 / norm, alpha * s**2 / norm.square(), sigma * s / norm)
        )
        end = _ending(end, lambda s: _straight(*self.path.schedule(as_time(s, x))))
        return skip * x + outer * self.network(inner * x, _straight(alpha, sigma), *cond, **end)

    def over(self, wrap: Callable[[Model], Model]) -> Preconditioned:
        return replace(self, network=over(self.network, wrap))


def _straight(alpha: Tensor, sigma: Tensor) -> Tensor:
    """The time at which straight lines have the signal-to-noise ratio of these."""
    return alpha / (alpha + sigma)


def _ending(told: Mapping[str, Tensor], clock: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """What a model is told by name, with the end of a step on another clock; a scale of guidance is no time."""
    return {name: clock(value) if name == "s" else value for name, value in told.items()}


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

    def __call__(self, x: Tensor, t: Tensor, *cond: Any, **end: Tensor) -> Tensor:
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
        end = _ending(end, lambda s: self.own.time_of(*self.new(as_time(s, x))))
        return bend * x + gain * self.velocity(x / scale, tau, *cond, **end)

    def over(self, wrap: Callable[[Model], Model]) -> Rescheduled:
        return replace(self, velocity=over(self.velocity, wrap))
