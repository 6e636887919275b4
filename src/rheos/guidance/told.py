"""Guidance that is built into the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from ..core.condition import Cond, known
from ..core.errors import InputError
from ..core.protocols import Model, over


@final
@dataclass(frozen=True)
class Told:
    """Classifier-free guidance of a network that learned it for a range of scales: it is told the scale, one pass an
    evaluation (Meng et al. 2023). Rows without a condition are told 1, as they were when it learned.

    Args:
        scale: 1 is no guidance, and is told where the range has it.
        low: the least scale that the network learned.
        high: the greatest.

    Raises:
        InputError: if the scale is none of these.
    """

    scale: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.scale <= self.high:
            raise InputError(
                f"this network learned guidance of scales from {self.low:g} to {self.high:g}, and was asked for "
                f"{self.scale:g}; take a scale between, or distil the run anew with a wider range."
            )

    def __call__(self, model: Model) -> Model:
        return Telling(model, self.scale)


@final
@dataclass(frozen=True)
class Telling:
    """A model that is told a scale of guidance."""

    model: Model
    scale: float

    def __call__(self, x: Tensor, t: Tensor, cond: Cond | None = None, **end: Tensor) -> Tensor:
        if cond is None:
            return self.model(x, t, **end)
        return self.model(x, t, cond, scale=torch.where(known(cond, len(x)), self.scale, 1.0), **end)

    def over(self, wrap: Callable[[Model], Model]) -> Telling:
        return replace(self, model=over(self.model, wrap))
