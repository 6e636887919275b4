"""What stands at t = 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..core.errors import InputError, ShapeError
from ..core.rng import Rng


@final
@dataclass(frozen=True)
class Normal:
    """Standard normal noise, a key a row."""

    def __call__(self, rng: Rng, like: Tensor) -> Tensor:
        """Noise with one row a key of ``rng``, each shaped and typed like a row of ``like``."""
        return rng.normal(*like.shape[1:], dtype=like.dtype)


@final
@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of another distribution, drawn with replacement, a key a row: a flow from data to data.

    Args:
        states: (N, ...), shaped like the data.
        in_turn: row i gets state ``i % N`` instead: for carrying given states, in their order.

    Raises:
        InputError: if there are none.
    """

    states: Tensor
    in_turn: bool = False

    def __post_init__(self) -> None:
        if len(self.states) < 1:
            raise InputError("a source needs at least one state to start from.")

    def __call__(self, rng: Rng, like: Tensor) -> Tensor:
        """States with one row a key of ``rng``, on the device and in the type of ``like``.

        Raises:
            ShapeError: if the states are of another shape than the data.
        """
        if self.states.shape[1:] != like.shape[1:]:
            raise ShapeError(
                f"source and data must have one shape, got {tuple(self.states.shape[1:])} and {tuple(like.shape[1:])}."
            )
        if self.in_turn:
            if rng.row is None:
                raise InputError("states in turn need an Rng with rows: call rng.rows(torch.arange(batch)).")
            index = rng.row % len(self.states)
        else:
            index = (rng.uniform(dtype=torch.float64) * len(self.states)).long()
        return self.states[index.to(self.states.device)].to(like)
