"""Orders that are computed a block of rows at a time, here or ahead by other processes."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import final

import torch
from torch import Tensor

from ..core import Draw, Order
from .ahead import counted, read_ahead

KEPT = 1 << 22
"""Rows whose draws stay in memory (64 MiB); the readers of one run are never further apart."""

LEFT_OUT = -1
"""In place of a datum, in a row that this process does not read."""


class Blocks(Order):
    """An order that joins noise and data, a block of consecutive rows at a time. To add one, write ``size`` and
    ``block``."""

    joined = True

    @property
    def portable(self) -> bool:
        """Whether other processes can compute it; not when what it needs lies on an accelerator."""
        return True

    @property
    def alone(self) -> bool:
        """Whether each row is joined by itself, so that a process has to join no rows but those it reads."""
        return False

    @property
    @abstractmethod
    def size(self) -> int:
        """The rows of a block."""

    @abstractmethod
    def block(self, seed: int, number: int) -> Draw:
        """The draws of rows ``number*size`` to ``(number + 1)*size - 1``."""

    def __call__(self, seed: int, rows: Tensor) -> Draw:
        return _assembled(partial(self.block, seed), self.size, rows)


@final
class Ahead(Order):
    """A block-wise order whose blocks are computed by other processes, in turn, before they are asked for.

    Args:
        order: what is computed.
        seed: the run's seed.
        first: the row at which the run starts or goes on.
        workers: processes; 0 computes each block when it is asked for. The result is the same.
        reads: which rows this process will ask for, as a function from rows to bools; all when left out. Where each row
            is joined by itself the others are left out of its blocks, and joined when they are asked for after all.
    """

    joined = True

    def __init__(
        self, order: Blocks, seed: int, first: int, workers: int, reads: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self._order, self._seed = order, seed
        self._compute = partial(_own, order, seed, reads if order.alone else None)
        self._blocks: OrderedDict[int, Draw] = OrderedDict()
        self._next = first // order.size
        self._most = max(2, KEPT // order.size)
        self._ahead: Iterator[Draw] | None = None
        if workers and order.portable:
            self._ahead = read_ahead(self._compute, counted(self._next, None), workers, "coupling")

    def __call__(self, seed: int, rows: Tensor) -> Draw:
        if seed != self._seed:
            return self._order(seed, rows)
        draw = _assembled(self._block, self._order.size, rows)
        left = draw.index == LEFT_OUT
        if bool(left.any()):
            found = self._order(seed, rows[left])
            draw.index[left], draw.key[left] = found.index, found.key
        return draw

    def close(self) -> None:
        """End the processes."""
        self._ahead = None

    def _block(self, number: int) -> Draw:
        while self._ahead is not None and self._next <= number:
            self._keep(self._next, next(self._ahead))
            self._next += 1
        if number not in self._blocks:
            self._keep(number, self._compute(number))
        return self._blocks[number]

    def _keep(self, number: int, draw: Draw) -> None:
        self._blocks[number] = draw
        if len(self._blocks) > self._most:
            self._blocks.popitem(last=False)


def _own(order: Blocks, seed: int, reads: Callable[[Tensor], Tensor] | None, number: int) -> Draw:
    """A block; where ``reads`` is given of the rows that it names alone."""
    if reads is None:
        return order.block(seed, number)
    rows = torch.arange(number * order.size, (number + 1) * order.size)
    own = reads(rows)
    found = order(seed, rows[own])
    index, key = torch.full_like(rows, LEFT_OUT), torch.zeros_like(rows)
    index[own], key[own] = found.index, found.key
    return Draw(index, key)


def _assembled(block: Callable[[int], Draw], size: int, rows: Tensor) -> Draw:
    """The draws of any rows from blocks of ``size`` rows each."""
    first, last = (int(end) for end in torch.aminmax(rows)) if len(rows) else (0, 0)
    if first // size == last // size and len(rows):
        draw, place = block(first // size), rows % size
        return Draw(draw.index[place], draw.key[place])
    numbers, place = rows // size, rows % size
    index, key = torch.empty_like(rows), torch.empty_like(rows)
    for number in numbers.unique().tolist():
        inside = numbers == number
        draw = block(number)
        index[inside], key[inside] = draw.index[place[inside]], draw.key[place[inside]]
    return Draw(index, key)
