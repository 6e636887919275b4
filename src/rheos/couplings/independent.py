"""No coupling at all: noise and data as they come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..core.condition import Cond
from ..core.protocols import Pairs
from ..core.rng import Rng


@final
@dataclass(frozen=True)
class Independent:
    """Row i of the noise goes with row i of the data."""

    independent: ClassVar[bool] = True

    def __call__(self, x0: Tensor, x1: Tensor, cond: Cond | None = None, rng: Rng | None = None) -> Pairs[Tensor]:
        rows = torch.arange(len(x1), device=x1.device)
        return Pairs(x0, x1, rows, rows)
