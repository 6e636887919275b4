"""How much each time counts in the loss.

A loss on one predicted quantity is a loss on another with another weight, because the errors are proportional: an
error e in the data is an error ``-(alpha/sigma)*e`` in the noise, ``(D/sigma)*e`` in the velocity (D the schedule's
speed) and ``-(alpha**2 + sigma**2)/sigma * e`` in v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.protocols import Quantity
from ..paths import Affine


class Weight(Protocol):
    """A weight (B,) for times (B,), for a loss on the quantity ``predict``."""

    def __call__(self, path: Affine, t: Tensor, predict: Quantity) -> Tensor: ...


@final
@dataclass(frozen=True)
class MinSNR:
    """The loss on data weighted by ``min(snr, gamma)``, whatever is predicted (Hang et al. 2023); snr =
    (alpha/sigma)**2."""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise InputError(f"gamma of the min-SNR weight must be positive, got {self.gamma}.")

    def __call__(self, path: Affine, t: Tensor, predict: Quantity) -> Tensor:
        alpha, sigma = path.schedule(t)
        snr = torch.where(sigma == 0, torch.inf, (alpha / sigma).square())
        return snr.clamp(max=self.gamma) * data_error(path, t, predict).square()


@final
@dataclass(frozen=True)
class VelocityWeight:
    """The loss on the velocity, whatever is predicted: ``|u_hat - u|**2``, at most ``ceiling`` times the loss as it is.

    Predicting data with this loss suits patches of many dimensions (Li and He 2025).
    """

    ceiling: float = 400.0

    def __post_init__(self) -> None:
        if not self.ceiling > 0:
            raise InputError(f"the ceiling of a weight must be positive, got {self.ceiling}.")

    def __call__(self, path: Affine, t: Tensor, predict: Quantity) -> Tensor:
        if predict == "velocity":
            return torch.ones_like(t)
        gain = path.schedule.frame(t).speed * _relative_error(path, t, predict)
        return torch.nan_to_num(gain.square(), nan=self.ceiling, posinf=self.ceiling).clamp(max=self.ceiling)


@final
@dataclass(frozen=True)
class EDMWeight:
    """The loss on data weighted by ``(alpha**2*s**2 + sigma**2)/(sigma*s)**2``, whatever is predicted, for data of
    standard deviation s: for a preconditioned network the plain loss on its own output (Karras et al. 2022)."""

    data_std: float = 0.5

    def __post_init__(self) -> None:
        if not self.data_std > 0:
            raise InputError(f"the standard deviation of the data must be positive, got {self.data_std}.")

    def __call__(self, path: Affine, t: Tensor, predict: Quantity) -> Tensor:
        alpha, sigma = path.schedule(t)
        gain = (alpha.square() * self.data_std**2 + sigma.square()).sqrt() / self.data_std
        return (gain * _relative_error(path, t, predict)).square()


def data_error(path: Affine, t: Tensor, predict: Quantity) -> Tensor:
    """The size of the error in the data that an error of 1 in the predicted quantity makes, (B,)."""
    if predict == "data":
        return torch.ones_like(t)
    return path.schedule(t)[1] * _relative_error(path, t, predict)


def _relative_error(path: Affine, t: Tensor, predict: Quantity) -> Tensor:
    """:func:`data_error` over sigma, which has a limit where both are 0."""
    frame = path.schedule.frame(t)
    if predict == "data":
        return 1 / frame.sigma
    if predict == "noise":
        return 1 / frame.alpha
    if predict == "score":
        return frame.sigma / frame.alpha
    if predict == "v":
        return 1 / (frame.alpha.square() + frame.sigma.square())
    return 1 / torch.as_tensor(frame.speed, dtype=t.dtype, device=t.device).expand_as(t)
