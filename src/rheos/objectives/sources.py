"""What stands at t = 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from ..core.rng import Rng


@final
@dataclass(frozen=True)
class Normal:
    """Standard normal noise, a key a row."""

    def __call__(self, rng: Rng, like: Tensor) -> Tensor:
        """Noise with one row a key of ``rng``, each shaped and typed like a row of ``like``."""
        return rng.normal(*like.shape[1:], dtype=like.dtype)
