"""Batches by step: row ``step * batch + place`` of a run is the same datum with the same key wherever it is read.

A batch is a function of (seed, step) and of nothing that happened before. So reading in workers, on several processes,
or again after a kill gives what reading in one go would have given, bit by bit, and there is no state to save.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ..core import Cond, Draw, InputError, Order, RheosError
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

    def at(self, step: int) -> Batch:
        """The batch of any step, read here and now."""
        rows = self.rows(step)
        draw = self.order(self.seed, rows)
        return Batch(step, *self.dataset.take(draw.index), draw, rows)

    def __iter__(self) -> Iterator[Batch]:
        steps = itertools.count(self.start) if self.stop is None else range(self.start, self.stop)
        return self._from_workers() if self.workers else map(self.at, steps)

    def _from_workers(self) -> Iterator[Batch]:
        loader = DataLoader(
            _Steps(self),
            batch_size=None,
            sampler=_Sampler(self.start, self.stop),
            num_workers=self.workers,
            collate_fn=_as_it_is,
            worker_init_fn=_apart,
            # Without one the loader would draw its seed from the global generator.
            generator=torch.Generator().manual_seed(0),
        )
        batches = _start(loader)
        try:
            while (batch := _next(batches)) is not None:
                if isinstance(batch, RheosError):
                    raise batch
                yield batch
        finally:
            # Its last reference keeps the workers running, and a traceback may hold this frame for long.
            del batches


@final
class _Steps(TorchDataset[Any]):
    """Batches by step, as PyTorch's workers ask for them."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, index: int) -> Batch | RheosError:
        # Raised in a worker, an error would arrive with the worker's traceback for a message.
        try:
            return self.batches.at(index)
        except RheosError as error:
            return error


@final
@dataclass(frozen=True)
class _Sampler:
    start: int
    stop: int | None

    def __iter__(self) -> Iterator[int]:
        return iter(itertools.count(self.start) if self.stop is None else range(self.start, self.stop))


def _start(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start the workers, without PyTorch's SIGCHLD handler: it raises a worker's death wherever the program stands."""
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, handler)


def _next(batches: Iterator[Any]) -> Batch | RheosError | None:
    """The next batch, or what went wrong, or ``None`` at the end."""
    try:
        return next(batches, None)
    except RuntimeError as error:
        return RheosError(
            f"a data worker died ({str(error).splitlines()[0]}); memory or /dev/shm may be full: use fewer workers, "
            f"or 0 to read in the training process. Nothing that was saved is lost."
        )


def _apart(worker: int) -> None:
    """Leave Ctrl-C, and signals to the process group, to the process that trains: it saves and stops its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


def _as_it_is(batch: Any) -> Any:
    return batch
