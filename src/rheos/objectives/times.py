"""At which times a model is trained: densities on (0, 1), sampled a row at a time.

Noise is at t = 0. Where a paper writes sigma or t for the amount of noise, its law is stated here for 1 - t.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..core.errors import InputError, ShapeError
from ..core.rng import Rng

# The fractional part of row * (golden ratio) fills (0, 1) more evenly than any other rotation (Weyl 1916).
_ROTATION = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Times(ABC):
    """A density of times. To add one, write :meth:`warp`, its quantile function.

    Args:
        stratified: spread the times of consecutive rows evenly instead of drawing them independently, which lowers the
            variance of the loss. A row's time still depends on the row alone, whatever the batch.
    """

    stratified: bool = False

    @abstractmethod
    def warp(self, u: Tensor) -> Tensor:
        """The quantile function: uniform ``u`` in (0, 1) to times."""

    def __call__(self, rng: Rng) -> Tensor:
        """A time a row, float32 (B,)."""
        if not self.stratified:
            u = rng.uniform(dtype=torch.float32)
        elif rng.row is None:
            raise ShapeError("stratified times need an Rng with rows: call rng.rows(torch.arange(batch)).")
        else:
            u = torch.frac(rng.row.to(torch.float64) * _ROTATION + 0.5 * _ROTATION).to(torch.float32)
        # Rounding may reach an end, where some targets are infinite; in float32 the last time before 1 is 1 - 2**-24.
        return self.warp(u).clamp(2.0**-24, 1 - 2.0**-24)


@final
@dataclass(frozen=True)
class Uniform(Times):
    """Every time alike."""

    def warp(self, u: Tensor) -> Tensor:
        return u


@final
@dataclass(frozen=True)
class LogitNormal(Times):
    """``logit(1 - t)`` is normal(mean, std): the middle of the path more often (Esser et al. 2024).

    The same density in other words: EDM's lognormal noise levels with the same parameters, (-1.2, 1.2); EDM2 (-0.4, 1);
    SD3 (0, 1).
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise InputError(f"the standard deviation of logit-normal times must be positive, got {self.std}.")

    def warp(self, u: Tensor) -> Tensor:
        return torch.sigmoid(self.std * torch.special.ndtri(u) - self.mean)


@final
@dataclass(frozen=True)
class LogNormal(Times):
    """``log sigma`` is normal(mean, std) for the noise level ``sigma = sigma_max*(1 - t)`` of
    :class:`rheos.schedules.EDM` (Karras et al. 2022); a level beyond sigma_max is taken there."""

    mean: float = -1.2
    std: float = 1.2
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not (self.std > 0 and self.sigma_max > 0):
            raise InputError(
                f"the standard deviation and sigma_max of lognormal noise must be positive, got {self.std} and "
                f"{self.sigma_max}."
            )

    def warp(self, u: Tensor) -> Tensor:
        # Noise falls with t, so that the quantile u of the time is the quantile 1 - u of the noise.
        return 1 - torch.exp(self.mean - self.std * torch.special.ndtri(u)) / self.sigma_max


@final
@dataclass(frozen=True)
class Mode(Times):
    """SD3's density with a mode (Esser et al. 2024, eq. 20): for the amount of noise
    ``f(u) = 1 - u - scale*(cos(pi*u/2)**2 - 1 + u)``, and t = 1 - f(u). Scale 0 is uniform; it must lie in [-1,
    2/(pi - 2)]."""

    scale: float = 1.29

    def __post_init__(self) -> None:
        if not -1 <= self.scale <= 2 / (math.pi - 2):
            raise InputError(f"the scale of mode times lies in [-1, {2 / (math.pi - 2):.3f}], got {self.scale}.")

    def warp(self, u: Tensor) -> Tensor:
        # cos**2 - 1 would cancel where t is small.
        return (1 + self.scale) * u - self.scale * torch.sin(0.5 * math.pi * u) ** 2


@final
@dataclass(frozen=True)
class Shifted(Times):
    """Uniform times shifted towards noise, ``1 - t = s*n/(1 + (s - 1)*n)`` for uniform n: s = 3 for latents of 1024
    pixels (Esser et al. 2024). s = 1 is uniform."""

    shift: float = 3.0

    def __post_init__(self) -> None:
        if not self.shift > 0:
            raise InputError(f"the shift of times must be positive, got {self.shift}.")

    def warp(self, u: Tensor) -> Tensor:
        return u / (u + self.shift * (1 - u))


@final
@dataclass(frozen=True)
class Steps(Times):
    """The K steps of a discrete diffusion model alike, step k at ``t = 1 - (k + 1)/K`` (Ho et al. 2020); see
    :class:`rheos.schedules.Discrete`."""

    count: int = 1000

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or self.count < 1:
            raise InputError(f"a discrete diffusion has at least one step, got {self.count!r}.")

    def warp(self, u: Tensor) -> Tensor:
        return (u * self.count).floor().clamp(max=self.count - 1) / self.count
