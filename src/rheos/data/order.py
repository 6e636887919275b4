"""The order in which data are met: row r of a run belongs to epoch ``r // count``, and is its datum ``pi(r % count)``.

``pi`` is the epoch's own permutation, a function of (seed, epoch). So a batch is known from its row numbers alone: on
any process, at any step, with nothing to remember between steps and nothing to save for a resume.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import final

import torch
from torch import Tensor

from ..core import Draw, InputError, Order, Rng, Stream


@final
@dataclass(frozen=True)
class Shuffled(Order):
    """Every datum once an epoch, in a new uniform order each time.

    Args:
        count: the number of data.
    """

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"an order needs at least one datum, got a count of {self.count}.")

    def __call__(self, seed: int, rows: Tensor) -> Draw:
        """The data and the noise keys of global rows.

        Args:
            seed: the run's seed.
            rows: global row numbers, int64 ``(B,)``; they may span any epochs, in any order.

        Returns:
            ``index`` in ``0 .. count-1`` and ``key``, both int64 ``(B,)``. A key is a function of (seed, row) only, so
            a datum meets new noise each epoch.

        Raises:
            InputError: if the rows are not int64, or one is negative.
        """
        if rows.dtype != torch.int64 or (rows.numel() and int(rows.min()) < 0):
            raise InputError(f"rows are int64 numbers from 0 upward, got {rows.dtype}, the least {rows.min().item()}.")
        epochs, place = rows // self.count, rows % self.count
        index = torch.empty_like(rows)
        for epoch in epochs.unique().tolist():
            inside = epochs == epoch
            index[inside] = _permutation(seed, self.count, epoch).to(rows.device)[place[inside]]
        return Draw(index, Rng(seed).rows(rows).key)


# A batch spans two epochs at most unless it is larger than the data; two more serve a second order in the same process.
@lru_cache(maxsize=4)
def _permutation(seed: int, count: int, epoch: int) -> Tensor:
    return Rng(seed).fold(Stream.ORDER).fold(epoch).permutation(count)
