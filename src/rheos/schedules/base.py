r"""How much data and how much noise stand in the state at each time.

A schedule is a curve ``(alpha(t), sigma(t))`` from noise at t = 0 to data at t = 1, so that ``x = alpha*x1 +
sigma*x0``. Everything else of it follows from one identity. Let ``D = alpha'*sigma - alpha*sigma'`` be the *speed*
at which the curve turns from noise to data, ``p = alpha'/D`` and ``q = sigma'/D`` its direction. Then ``p*sigma -
q*alpha = 1``, and

    velocity  u = D*(p*x1 + q*x0),      data  x1 = (sigma/D)*u - q*x,      noise  x0 = p*x - (alpha/D)*u.

The direction is finite even where the speed is zero or infinite, which is what lets conversions hold at both ends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Number = Tensor | float


class Frame(NamedTuple):
    """A schedule and its first derivative at a time. Each entry has the shape of the time, or is one number.

    Attributes:
        alpha: weight of the data.
        sigma: weight of the noise.
        d_alpha: time derivative of alpha.
        d_sigma: time derivative of sigma.
        p: d_alpha / speed, by its limit where that is 0/0 or inf/inf.
        q: d_sigma / speed, likewise.
        speed: d_alpha*sigma - alpha*d_sigma, not negative.
        flux: speed*sigma, by its limit. ``2*flux/alpha`` is the squared diffusion coefficient of the noising process.
    """

    alpha: Tensor
    sigma: Tensor
    d_alpha: Number
    d_sigma: Number
    p: Number
    q: Number
    speed: Number
    flux: Number


@dataclass(frozen=True)
class Schedule(ABC):
    """A curve (alpha, sigma) over t in [0, 1]; alpha/sigma increases. To add one, write ``__call__``."""

    @abstractmethod
    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) at ``t``, in its shape and dtype."""

    def derivative(self, t: Tensor) -> tuple[Number, Number]:
        """(d_alpha, d_sigma) at ``t``; by forward-mode differentiation unless a subclass knows a closed form."""
        return torch.func.jvp(self.__call__, (t.clone(),), (torch.ones_like(t),))[1]

    def frame(self, t: Tensor) -> Frame:
        """The schedule, its derivative and its direction at ``t``."""
        alpha, sigma = self(t)
        d_alpha, d_sigma = self.derivative(t)
        speed = d_alpha * sigma - alpha * d_sigma
        # Where the speed is no number to divide by, one of alpha and sigma is 0 and the identity p*sigma - q*alpha = 1
        # still gives the entry that multiplies the other; the remaining entry is only used with a weight of zero.
        known = torch.isfinite(speed) & (speed != 0)
        divisor = torch.where(known, speed, 1.0)
        p = torch.where(known, d_alpha / divisor, _inverse(sigma))
        q = torch.where(known, d_sigma / divisor, -_inverse(alpha))
        return Frame(alpha, sigma, d_alpha, d_sigma, p, q, speed, torch.where(sigma == 0, 0.0, speed * sigma))

    def time_of(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The time at which this schedule has the ratio ``alpha : sigma``; the nearest end where it has it nowhere."""
        low, high = torch.zeros_like(alpha), torch.ones_like(alpha)
        halvings = 60 if alpha.dtype == torch.float64 else 30
        for _ in range(halvings):
            middle = (low + high) / 2
            a, s = self(middle)
            early = a * sigma < s * alpha
            low, high = torch.where(early, middle, low), torch.where(early, high, middle)
        return self._followed(((low + high) / 2).detach(), alpha, sigma, 2.0 ** (2 - halvings))

    def _followed(self, t: Tensor, alpha: Tensor, sigma: Tensor, margin: float) -> Tensor:
        """The time ``t`` of the ratio ``alpha : sigma``, with the derivative that a bisection has lost: that of the
        implicit function, and none at an end, where a ratio that is not reached is held."""
        (a, s), (d_a, d_s) = self(t), self.derivative(t)
        slope = (d_a * sigma - d_s * alpha).detach()
        known = torch.isfinite(slope) & (slope != 0) & (t > margin) & (t < 1 - margin)
        step = torch.where(known, (a * sigma - s * alpha) / torch.where(known, slope, 1.0), 0.0)
        return t - (step - step.detach())

    @property
    def bounded(self) -> bool:
        """Whether the derivative is finite at both ends, so that a network can be asked for the velocity."""
        d_alpha, d_sigma = self.derivative(torch.tensor([0.0, 1.0], dtype=torch.float64))
        return all(bool(torch.isfinite(torch.as_tensor(d)).all()) for d in (d_alpha, d_sigma))


def _inverse(value: Tensor) -> Tensor:
    """1/value, and 0 where the value is 0."""
    return torch.where(value == 0, 0.0, 1 / torch.where(value == 0, 1.0, value))
