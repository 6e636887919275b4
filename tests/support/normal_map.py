"""A flow whose map is known: the linear path from standard normal noise to a normal distribution, in every entry."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rheos.core.time import factor


@dataclass(frozen=True)
class NormalMap:
    """The average velocity ``(x, t, cond, s)`` to data of a mean and a standard deviation."""

    mean: float = 0.7
    std: float = 0.4

    def __call__(self, x: Tensor, t: Tensor, cond: object = None, s: Tensor | None = None) -> Tensor:
        s = t if s is None else s
        here, there = self.spread(t), self.spread(s)
        # (std_s - std_t)/(s - t), in a form that holds for s = t.
        slope = ((s + t) * (1 + self.std**2) - 2) / (here + there)
        return self.mean + factor(slope / here, x) * (x - factor(t * self.mean, x))

    def spread(self, t: Tensor) -> Tensor:
        return ((1 - t) ** 2 + (t * self.std) ** 2).sqrt()

    def carried(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Where the flow leads from t to s."""
        moved = (x - factor(t * self.mean, x)) * factor(self.spread(s) / self.spread(t), x)
        return moved + factor(s * self.mean, x)


def bent(amount: Tensor, exact: NormalMap) -> object:
    """The map with an error of some amount, which grows with the gap."""

    def model(x: Tensor, t: Tensor, cond: object = None, s: Tensor | None = None) -> Tensor:
        end = t if s is None else s
        return exact(x, t, None, s) + amount * factor(0.5 + (end - t), x) * torch.tanh(x)

    return model
