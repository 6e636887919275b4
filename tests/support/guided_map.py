"""A flow under classifier-free guidance whose map is known for every scale.

Data of class c are normal about a mean of their own, those of no class about another mean, all of one standard
deviation. The velocities then differ by multiples of their means alone, so that the contrast of scale w is the velocity
to normal data whose mean is contrasted so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tests.support.normal_map import NormalMap
from torch import Tensor

from rheos.core.time import factor

CENTRED = NormalMap(0.0, 0.4)
MEANS = torch.tensor([0.9, -0.6, 0.2], dtype=torch.float64)
"""Of the classes 0 and 1, and of none."""


@dataclass(frozen=True)
class GuidedMap:
    """The average velocity ``(x, t, cond, s, scale)``, guided between two times."""

    start: float = 0.0
    end: float = 1.0

    def __call__(
        self, x: Tensor, t: Tensor, cond: Tensor | None = None, s: Tensor | None = None, scale: Tensor | None = None
    ) -> Tensor:
        t = t.expand(len(x))
        s = t if s is None else s.expand(len(x))
        mean = MEANS[-1].expand(len(x)) if cond is None else MEANS[cond]
        guided = mean if scale is None else MEANS[-1] + scale * (mean - MEANS[-1])
        inside = (t >= self.start) & (t <= self.end)
        velocity = straight(x, t, torch.where(inside, guided, mean))
        ahead, low, high = s >= t, torch.minimum(t, s), torch.maximum(t, s)
        first, second = (torch.where(ahead, *ends) for ends in ((self.start, self.end), (self.end, self.start)))
        first, second = first.to(t).clamp(low, high), second.to(t).clamp(low, high)
        there = carried(carried(carried(x, t, first, mean), first, second, guided), second, s, mean)
        gap = torch.where(s == t, 1.0, s - t)
        return torch.where((s == t)[:, None], velocity, (there - x) / factor(gap, x))


def straight(x: Tensor, t: Tensor, mean: Tensor) -> Tensor:
    """The velocity to normal data about a mean a row."""
    return mean[:, None] + CENTRED(x - factor(t * mean, x), t)


def carried(x: Tensor, t: Tensor, s: Tensor, mean: Tensor) -> Tensor:
    """Where that velocity leads from t to s."""
    return CENTRED.carried(x - factor(t * mean, x), t, s) + factor(s * mean, x)
