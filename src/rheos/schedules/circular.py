"""Schedules on the circle alpha**2 + sigma**2 = 1, which keep the variance of data of unit variance."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..core.errors import InputError
from .base import Frame, Number, Schedule


@final
@dataclass(frozen=True)
class Cosine(Schedule):
    """``alpha = sin(pi*t/2), sigma = cos(pi*t/2)``: the circle at constant speed (Nichol and Dhariwal 2021, without
    offset; the trigonometric path of Albergo and Vanden-Eijnden 2023)."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        # sin(pi/2*(1-t)) for the cosine, and both through the nearer end: exact at t = 0 and t = 1.
        return torch.sin(0.5 * math.pi * t), torch.sin(0.5 * math.pi * (1 - t))

    def derivative(self, t: Tensor) -> tuple[Number, Number]:
        alpha, sigma = self(t)
        return 0.5 * math.pi * sigma, -0.5 * math.pi * alpha

    def frame(self, t: Tensor) -> Frame:
        alpha, sigma = self(t)
        half = 0.5 * math.pi
        return Frame(alpha, sigma, half * sigma, -half * alpha, sigma, -alpha, half, half * sigma)

    def time_of(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.atan2(alpha, sigma) * (2 / math.pi)


@dataclass(frozen=True)
class Damped(Schedule):
    """``alpha = exp(L), sigma**2 = 1 - alpha**2`` for an L that rises to 0 at t = 1. There sigma falls like a square
    root, so the derivative is infinite and a velocity cannot be predicted; predict noise, data, score or v. To add one,
    write ``log_alpha``."""

    @abstractmethod
    def log_alpha(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """L and its derivative, both of the shape of ``t``."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha, _ = self.log_alpha(t)
        # Not -expm1: a sigma of -0 at t = 1 would turn round what is divided by it.
        return log_alpha.exp(), (0.0 - torch.expm1(2 * log_alpha)).sqrt()

    def derivative(self, t: Tensor) -> tuple[Number, Number]:
        frame = self.frame(t)
        return frame.d_alpha, frame.d_sigma

    def frame(self, t: Tensor) -> Frame:
        alpha, sigma = self(t)
        d_alpha = alpha * self.log_alpha(t)[1]
        speed = d_alpha / sigma
        return Frame(alpha, sigma, d_alpha, -alpha * speed, sigma, -alpha, speed, d_alpha)


@final
@dataclass(frozen=True)
class VariancePreserving(Damped):
    """The variance-preserving diffusion with linear beta (Song et al. 2021), run from noise to data.

    With ``tau = 1 - t``: ``log alpha = -(beta_max - beta_min)*tau**2/4 - beta_min*tau/2``, ``sigma**2 = 1 - alpha**2``.
    ``alpha(0)`` is small but not 0 (0.0066 at the defaults).

    Args:
        beta_min: noise rate at the data end.
        beta_max: noise rate at the noise end.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max:
            raise InputError(f"0 < beta_min <= beta_max is needed, got {self.beta_min} and {self.beta_max}.")

    def log_alpha(self, t: Tensor) -> tuple[Tensor, Tensor]:
        tau, spread = 1 - t, self.beta_max - self.beta_min
        return -tau * (0.25 * spread * tau + 0.5 * self.beta_min), 0.5 * (self.beta_min + spread * tau)

    def time_of(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        # log(alpha) on the circle, then the root of a quadratic in tau, in the form without cancellation. A ratio below
        # that at t = 0, pure noise included, is held there, for the quadratic has no root at infinity.
        spread = self.beta_max - self.beta_min
        log_alpha = (-0.5 * torch.log1p((sigma / alpha) ** 2)).clamp(min=-0.25 * (self.beta_max + self.beta_min))
        root = (self.beta_min**2 - 4 * spread * log_alpha).sqrt()
        return (1 + 4 * log_alpha / (self.beta_min + root)).clamp(0, 1)
