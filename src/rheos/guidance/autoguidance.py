"""Guidance by a worse version of the model itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from ..core.protocols import Model, over


@final
@dataclass(frozen=True)
class Autoguidance:
    """``u = u_weak + scale*(u - u_weak)`` (Karras et al. 2024): away from the errors that a smaller or less trained
    model makes in the same places. Needs no condition, and keeps one where there is one.

    Args:
        weak: a velocity like the guided one, from a worse network.
        scale: 1 is no guidance.
    """

    weak: Model
    scale: float

    def __call__(self, model: Model) -> Model:
        return model if self.scale == 1.0 else Extrapolated(model, self.weak, self.scale)


@final
@dataclass(frozen=True)
class Extrapolated:
    """A model pushed away from a weaker one."""

    model: Model
    weak: Model
    scale: float

    def __call__(self, x: Tensor, t: Tensor, *cond: Any, **end: Tensor) -> Tensor:
        return torch.lerp(self.weak(x, t, *cond, **end), self.model(x, t, *cond, **end), self.scale)

    def over(self, wrap: Callable[[Model], Model]) -> Extrapolated:
        return Extrapolated(over(self.model, wrap), over(self.weak, wrap), self.scale)
