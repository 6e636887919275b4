"""Guidance at some times only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.protocols import Guidance, Model, over
from ..core.time import expand


@final
@dataclass(frozen=True)
class Interval:
    """Another guidance inside ``low <= t <= high``, and none outside (Kynkaanniemi et al. 2024).

    A clock on the CPU is read, and outside the interval only the plain model is evaluated. A clock on an
    accelerator, or one a sample, is not read: both are evaluated, and each sample takes its own.

    Args:
        guidance: what guides inside the interval.
        low: its first time.
        high: its last time.
    """

    guidance: Guidance
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InputError(f"a guidance interval needs low < high, got [{self.low}, {self.high}].")

    def __call__(self, model: Model) -> Model:
        return Sometimes(model, self.guidance(model), self.low, self.high)


@final
@dataclass(frozen=True)
class Sometimes:
    """One model inside an interval of time, another outside."""

    plain: Model
    guided: Model
    low: float
    high: float

    def __call__(self, x: Tensor, t: Tensor, *cond: Any, **end: Tensor) -> Tensor:
        inside = (t >= self.low) & (t <= self.high)
        if t.dim() == 0 and t.device.type == "cpu":
            return self.guided(x, t, *cond, **end) if bool(inside) else self.plain(x, t, *cond, **end)
        return torch.where(expand(inside, x), self.guided(x, t, *cond, **end), self.plain(x, t, *cond, **end))

    def over(self, wrap: Callable[[Model], Model]) -> Sometimes:
        return Sometimes(over(self.plain, wrap), over(self.guided, wrap), self.low, self.high)
