"""How far a prediction is from its target: one number a row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, final

from torch import Tensor

from ..core.errors import InputError


class Distance(Protocol):
    """A distance between prediction and target, ``(B, ...)`` each, to ``(B,)``."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor: ...


@final
@dataclass(frozen=True)
class Squared:
    """The mean squared error over a row's entries. Its minimiser is the conditional mean, which every theorem needs."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).square().flatten(1).mean(1)


@final
@dataclass(frozen=True)
class PseudoHuber:
    """``sqrt(|e|**2 + c**2) - c`` with ``c = scale*sqrt(d)`` for d entries a row (Song and Dhariwal 2024), over
    sqrt(d).

    Grows like the squared error for small errors and like their size for large ones; its minimiser is no conditional
    mean.
    """

    scale: float = 0.00054

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise InputError(f"the scale of the pseudo-Huber loss must be positive, got {self.scale}.")

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        error = (prediction - target).flatten(1)
        c = self.scale * math.sqrt(error.shape[1])
        return ((error.square().sum(1) + c * c).sqrt() - c) / math.sqrt(error.shape[1])
