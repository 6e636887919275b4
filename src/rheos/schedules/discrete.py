r"""The schedules of discrete diffusion models: K steps of noise, each with a share beta_k of new noise.

``alpha_k**2 = (1 - beta_0)*...*(1 - beta_k)`` and ``sigma**2 = 1 - alpha**2`` (Ho et al. 2020, DDPM). Step k, counted
as the papers do from the data, stands at ``t = 1 - (k + 1)/K``: the last step K - 1 at t = 0, the data themselves at
t = 1. Between the steps ``log alpha`` is a monotone cubic (Fritsch and Carlson 1980), so that a model of these steps
has a velocity at all times, and any solver may sample it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import final

import numpy as np
import torch
from scipy.interpolate import CubicHermiteSpline
from torch import Tensor

from ..core.errors import InputError
from .circular import Damped


@dataclass(frozen=True)
class Betas(ABC):
    """The share of new noise in each of K steps. To add one, write ``values``.

    Args:
        steps: K.
    """

    steps: int = 1000

    @abstractmethod
    def values(self) -> Tensor:
        """beta_0 ... beta_(K-1), float64 (K,), in (0, 1)."""


@final
@dataclass(frozen=True)
class LinearBetas(Betas):
    """Evenly spaced (Ho et al. 2020)."""

    first: float = 1e-4
    last: float = 2e-2

    def values(self) -> Tensor:
        return torch.linspace(self.first, self.last, self.steps, dtype=torch.float64)


@final
@dataclass(frozen=True)
class ScaledBetas(Betas):
    """Squares of evenly spaced numbers (Rombach et al. 2022, latent diffusion)."""

    first: float = 0.00085
    last: float = 0.012

    def values(self) -> Tensor:
        return torch.linspace(self.first**0.5, self.last**0.5, self.steps, dtype=torch.float64).square()


@final
@dataclass(frozen=True)
class CosineBetas(Betas):
    """Those of ``alpha**2 = cos(pi/2 * (k/K + offset)/(1 + offset))**2``, at most ``ceiling`` (Nichol and Dhariwal
    2021)."""

    offset: float = 0.008
    ceiling: float = 0.999

    def values(self) -> Tensor:
        share = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
        kept = torch.cos((share + self.offset) / (1 + self.offset) * math.pi / 2).square()
        return (1 - kept[1:] / kept[:-1]).clamp(max=self.ceiling)


@final
@dataclass(frozen=True)
class Discrete(Damped):
    """The schedule of a discrete diffusion model.

    Args:
        betas: the share of new noise in each step.

    Raises:
        InputError: if there are fewer than two, or one is not in (0, 1).
    """

    betas: Betas = LinearBetas()
    _pieces: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        betas = self.betas.values()
        if len(betas) < 2 or not bool(((betas > 0) & (betas < 1)).all()):
            raise InputError(f"a discrete diffusion has two steps or more, with betas in (0, 1); {self.betas} has not.")
        falls = 0.5 * np.log1p(-betas.numpy())
        # The harmonic mean of two slopes keeps the curve monotone. SciPy's own rule may let it start flat, where sigma
        # would be straight and not a square root.
        slopes = np.concatenate([falls[:1], 2 / (1 / falls[:-1] + 1 / falls[1:]), falls[-1:]])
        logs = np.concatenate([[0.0], np.cumsum(falls)])
        curve = CubicHermiteSpline(np.arange(len(logs)), logs, slopes)
        # The coefficients (K, 4) of each piece, the highest power first, of the place within it.
        object.__setattr__(self, "_pieces", torch.from_numpy(curve.c.T.copy()))

    @property
    def steps(self) -> int:
        """K."""
        return self.betas.steps

    def time(self, step: Tensor) -> Tensor:
        """The time at which a step 0 ... K - 1 stands, in float64; -1 is the data."""
        return 1 - (step.double() + 1) / self.steps

    def step(self, t: Tensor) -> Tensor:
        """The step, a real number, that stands at a time."""
        return (1 - t) * self.steps - 1

    def log_alpha(self, t: Tensor) -> tuple[Tensor, Tensor]:
        place = (1 - t) * self.steps
        piece = place.detach().floor().clamp(0, self.steps - 1)
        a, b, c, d = self._pieces.to(t)[piece.long()].unbind(-1)
        u = place - piece
        return ((a * u + b) * u + c) * u + d, -self.steps * ((3 * a * u + 2 * b) * u + c)
