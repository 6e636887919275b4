"""Schedules that leave the data alone and add ever more noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..core.errors import InputError
from .base import Frame, Number, Schedule


@final
@dataclass(frozen=True)
class VarianceExploding(Schedule):
    """``alpha = 1, sigma = sigma_max * (sigma_min/sigma_max)**t`` (Song et al. 2021, geometric), from noise to data.

    The data are never quite reached (sigma(1) = sigma_min) nor quite drowned (alpha(0) = 1): the start of a sample is
    ``sigma_max * x0``, which leaves out data of a scale far below ``sigma_max``.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise InputError(f"0 < sigma_min < sigma_max is needed, got {self.sigma_min} and {self.sigma_max}.")

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), self.sigma_max * torch.exp(-self._fall * t)

    def derivative(self, t: Tensor) -> tuple[Number, Number]:
        return 0.0, -self._fall * self(t)[1]

    def frame(self, t: Tensor) -> Frame:
        alpha, sigma = self(t)
        speed = self._fall * sigma
        return Frame(alpha, sigma, 0.0, -speed, 0.0, -1.0, speed, speed * sigma)

    def time_of(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (torch.log(self.sigma_max * alpha / sigma) / self._fall).clamp(0, 1)

    @property
    def _fall(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)


@final
@dataclass(frozen=True)
class EDM(Schedule):
    """``alpha = 1, sigma = sigma_max*(1 - t)``: the curve of Karras et al. 2022, whose time is the noise level itself,
    from noise to data. The data are reached, but not quite drowned (alpha(0) = 1).
    """

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_max < math.inf:
            raise InputError(f"sigma_max must be positive and finite, got {self.sigma_max}.")

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), self.sigma_max * (1 - t)

    def derivative(self, t: Tensor) -> tuple[Number, Number]:
        return 0.0, -self.sigma_max

    def frame(self, t: Tensor) -> Frame:
        alpha, sigma = self(t)
        return Frame(alpha, sigma, 0.0, -self.sigma_max, 0.0, -1.0, self.sigma_max, self.sigma_max * sigma)

    def time_of(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (1 - sigma / (alpha * self.sigma_max)).clamp(0, 1)
