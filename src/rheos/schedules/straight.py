"""Schedules on the straight segment alpha + sigma = 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..core.errors import InputError
from .base import Frame, Number, Schedule


@final
@dataclass(frozen=True)
class Linear(Schedule):
    """``alpha = t, sigma = 1 - t``: straight paths at constant speed (Lipman et al. 2023; Liu et al. 2023)."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return t, 1 - t

    def derivative(self, t: Tensor) -> tuple[Number, Number]:
        return 1.0, -1.0

    def frame(self, t: Tensor) -> Frame:
        sigma = 1 - t
        return Frame(t, sigma, 1.0, -1.0, 1.0, -1.0, 1.0, sigma)

    def time_of(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha / (alpha + sigma)


@final
@dataclass(frozen=True)
class Polynomial(Schedule):
    """``alpha = t**n, sigma = 1 - t**n``: the straight path, slow at the noise end for n > 1; n = 1 is :class:`Linear`.

    For n < 1 the speed is infinite at t = 0, and a velocity cannot be predicted.
    """

    n: float = 2.0

    def __post_init__(self) -> None:
        if not self.n > 0:
            raise InputError(f"the degree of a polynomial schedule must be positive, got {self.n}.")

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha = t**self.n
        return alpha, 1 - alpha

    def derivative(self, t: Tensor) -> tuple[Number, Number]:
        speed = self.n * t ** (self.n - 1)
        return speed, -speed

    def frame(self, t: Tensor) -> Frame:
        alpha, sigma = self(t)
        speed = self.n * t ** (self.n - 1)
        return Frame(alpha, sigma, speed, -speed, 1.0, -1.0, speed, speed * sigma)

    def time_of(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.pow(alpha / (alpha + sigma), 1 / self.n)
