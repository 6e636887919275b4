"""Time grids: where the steps end. Each begins exactly at 0, ends exactly at 1, and is a value that a recipe can hold.

    grid = Shifted(3.0)(10)        # eleven times, float32

A grid for the way back is ``grid.flip(0)``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from ..core.errors import InputError
from ..schedules import Linear, Schedule


@dataclass(frozen=True)
class Grid(ABC):
    """A rule for any number of steps. To add one, write ``times``."""

    @abstractmethod
    def times(self, share: Tensor) -> Tensor:
        """The times at the given shares of the steps, float64 ``0, 1/n, ... 1``; both ends are put right later."""

    def __call__(
        self, steps: int, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
    ) -> Tensor:
        """The ``(steps + 1,)`` times from 0 to 1.

        Raises:
            InputError: if ``steps`` is not a positive integer, or if the times are not distinct and in order.
        """
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise InputError(f"a grid has at least one step, got steps = {steps!r}.")
        times = self.times(torch.arange(steps + 1, dtype=torch.float64) / steps)
        times[0], times[-1] = 0.0, 1.0
        times = times.to(dtype)
        if not bool((times.diff() > 0).all()):
            raise InputError(
                f"{self} has no {steps} distinct steps in {dtype}: {times.tolist()}; take fewer, or wider ends."
            )
        return times.to(device)


@final
@dataclass(frozen=True)
class Uniform(Grid):
    """Even steps."""

    def times(self, share: Tensor) -> Tensor:
        return share.clone()


@final
@dataclass(frozen=True)
class Shifted(Grid):
    """Even steps shifted in the noise level: with ``sigma = 1 - t``, ``sigma' = shift*sigma/(1 + (shift - 1)*sigma)``
    (Esser et al. 2024, Stable Diffusion 3). A shift above 1 puts more steps at the noise end, 1 is :class:`Uniform`.

    Args:
        shift: the factor by which the ratio sigma/(1 - sigma) grows.
    """

    shift: float = 3.0

    def __post_init__(self) -> None:
        if not (self.shift > 0 and math.isfinite(self.shift)):
            raise InputError(f"a shift must be positive and finite, got {self.shift}.")

    def times(self, share: Tensor) -> Tensor:
        return share / (self.shift - (self.shift - 1) * share)


@final
@dataclass(frozen=True)
class Cosine(Grid):
    """``t = (1 - cos(pi*u))/2``: short steps at both ends, as in Chebyshev's points."""

    def times(self, share: Tensor) -> Tensor:
        return torch.sin(0.5 * math.pi * share) ** 2


@final
@dataclass(frozen=True)
class EDM(Grid):
    """The noise levels of Karras et al. 2022 (eq. 5), read as the ratio sigma/alpha of a schedule.

    The n levels before the end are ``(sigma_max**(1/rho) + i/(n-1)*(sigma_min**(1/rho) - sigma_max**(1/rho)))**rho``,
    and the last step goes to the data. The first level is taken for pure noise: its time is set to 0, where sampling
    starts.

    Args:
        schedule: the schedule on which one samples.
        rho: 7 spends more steps at low noise; 1 spaces the levels evenly.
        sigma_min: the lowest level before the data.
        sigma_max: the highest.
    """

    schedule: Schedule = field(default_factory=Linear)
    rho: float = 7.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not (0 < self.sigma_min < self.sigma_max < math.inf and 0 < self.rho < math.inf):
            raise InputError(
                f"0 < sigma_min < sigma_max and rho > 0 are needed, got {self.sigma_min}, {self.sigma_max}, {self.rho}."
            )

    def times(self, share: Tensor) -> Tensor:
        steps = len(share) - 1
        place = torch.arange(steps + 1, dtype=torch.float64) / max(steps - 1, 1)
        high, low = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        # The last entry lies beyond the lowest level; the end of the grid replaces it.
        levels = (high + place.clamp(max=1) * (low - high)) ** self.rho
        return self.schedule.time_of(torch.ones_like(levels), levels)


@final
@dataclass(frozen=True)
class Given(Grid):
    """These times, for their own number of steps.

    Args:
        at: (N+1,), from 0 to 1.
    """

    at: tuple[float, ...]

    def times(self, share: Tensor) -> Tensor:
        if len(share) != len(self.at):
            raise InputError(f"this grid has {len(self.at) - 1} steps, {len(share) - 1} were asked for.")
        return torch.tensor(self.at, dtype=torch.float64)
