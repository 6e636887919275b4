"""Batches by step: row ``step * batch + place`` of a run is the same datum with the same key wherever it is read.

A batch is a function of (seed, step) and of nothing that happened before. So reading in workers, on several processes,
or again after a kill gives what reading in one go would have given, bit by bit, and there is no state to save.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from ..core import Cond, Draw, InputError, Order
from .ahead import counted, read_ahead
from .tensors import Dataset


class Batch(NamedTuple):
    """What one process reads for one step: B = batch / world rows.

    Attributes:
        step: the step.
        x: the data ``(B, ...)``.
        cond: their condition, or ``None``.
        draw: their indices and keys, int64 ``(B,)`` each.
        rows: the global row numbers, int64 ``(B,)``.
    """

    step: int
    x: Tensor
    cond: Cond | None
    draw: Draw
    rows: Tensor


@final
@dataclass(frozen=True, eq=False)
class Batches:
    """The batches of steps ``start, start + 1, ...``, without end unless ``stop`` is given.

    Args:
        dataset: what is read.
        order: which datum stands in which row.
        seed: the run's seed.
        batch: rows of the global batch.
        start: the first step; a resumed run gives its own.
        stop: the step before which to end.
        rank: this process, which takes the ``rank``-th of ``world`` equal slices of each batch.
        world: the number of processes; it divides ``batch``.
        workers: processes that read ahead; 0 reads in this one. The result is the same.

    Raises:
        InputError: if a number is out of range, or ``world`` does not divide ``batch``.
    """

    dataset: Dataset
    order: Order
    seed: int
    batch: int
    start: int = 0
    stop: int | None = None
    rank: int = 0
    world: int = 1
    workers: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1 or self.start < 0 or self.workers < 0:
            raise InputError(
                f"expected batch >= 1, start >= 0 and workers >= 0, got {self.batch}, {self.start} and {self.workers}."
            )
        if not 0 <= self.rank < self.world:
            raise InputError(f"the rank lies in 0 .. world - 1, got rank {self.rank} of {self.world}.")
        if self.batch % self.world:
            raise InputError(f"a batch of {self.batch} cannot be shared equally by {self.world} processes.")

    def rows(self, step: int) -> Tensor:
        """The global rows that this process reads for a step, int64 ``(batch / world,)``."""
        share = self.batch // self.world
        first = step * self.batch + self.rank * share
        return torch.arange(first, first + share)

    def at(self, step: int, draw: Draw | None = None) -> Batch:
        """The batch of any step, read here and now; ``draw`` is that of its rows where it is known already."""
        rows = self.rows(step)
        draw = self.order(self.seed, rows) if draw is None else draw
        return Batch(step, *self.dataset.take(draw.index), draw, rows)

    def __iter__(self) -> Iterator[Batch]:
        steps = counted(self.start, self.stop)
        if not self.workers:
            return map(self.at, steps)
        # The order is asked in this process: what it computes ahead, it computes once.
        tasks = ((step, self.order(self.seed, self.rows(step))) for step in steps)
        return read_ahead(self._read, tasks, self.workers, "data")

    def _read(self, task: tuple[int, Draw]) -> Batch:
        return self.at(*task)
