"""Weights never become non-finite: a bad step is skipped, and too many in a row end the attempt.

A bad step is known by the norm of its gradient. A loss that is not finite poisons its own gradient
(:func:`seed_gradient`), so that every process of a distributed run sees it without another message; a single process on
a CPU reads the loss as it is, which costs less.

On a GPU nothing waits: the verdict is a tensor that the fused optimiser reads, and once the row of bad steps is long
enough it *latches*, so that nothing moves any more until the host looks. What the host then does (go back to a
checkpoint) does not depend on when it looked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

PATIENCE = 3
"""Bad steps in a row after which the run goes back to its last good checkpoint."""


@final
class Guard:
    """Judges every step by the norm of its gradient.

    Args:
        device: where the norms live.
        patience: bad steps in a row that trip the guard.
    """

    def __init__(self, device: torch.device, patience: int = PATIENCE) -> None:
        self.deferred = device.type == "cuda"
        self._device, self._patience = device, patience
        self.reset()

    def reset(self) -> None:
        """Forget the bad steps."""
        self._row: int | Tensor = torch.zeros((), device=self._device) if self.deferred else 0

    @property
    def row(self) -> int:
        """Bad steps in a row so far. On a GPU the host waits for it."""
        return int(self._row)

    @property
    def tripped(self) -> bool:
        """Whether the row is too long, and nothing moves any more. On a GPU the host waits for it."""
        return self.row >= self._patience

    def resume(self, row: int) -> None:
        """Go on with a row of bad steps that a checkpoint recorded."""
        self._row = torch.full((), float(row), device=self._device) if self.deferred else row

    def admits(self, norm: Tensor, losses: Sequence[Tensor] = ()) -> bool:
        """Whether this step may move the weights; for devices on which reading a number costs nothing."""
        good = math.isfinite(norm) and all(map(math.isfinite, losses)) and not self.tripped
        if not good:
            self._row = self.row + 1
        elif self._row:
            self._row = 0
        return good

    def verdict(self, norm: Tensor) -> Tensor:
        """1 where this step may not move the weights, else 0; a tensor on the device, for which nobody waits."""
        row = torch.as_tensor(self._row, device=self._device)
        bad = norm.isfinite().logical_not_().logical_or_(row >= self._patience).float()
        self._row = (row + 1) * bad
        return bad


def seed_gradient(loss: Tensor, share: float) -> Tensor:
    """What to start the backward pass from: ``share``, or NaN when the loss is not finite, so that all gradients tell
    of it."""
    return loss.detach().mul(0.0).add_(share)
