"""What a step is given: data, and noise and times that were drawn for a block of steps at once.

Drawing in blocks costs a fraction of drawing step by step. Blocks are aligned (block b begins at step b*K), so
that a run resumed inside of one draws it whole again, with the same bits.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from ..core import Cond, Draw, Objective, Order, Rng, Stream, drop
from ..core.tree import leaves, transform
from ..data import Ahead, Batches, Blocks, Dataset, Read
from .settings import Training

BLOCK_NUMBERS = 1 << 19
"""Numbers of noise in a block at most: 2 MiB, so that a block is still in the cache when it is used."""
LONGEST_BLOCK = 64
"""Steps in a block at most."""


class Rows(NamedTuple):
    """One part of a step: data, condition, keys, global rows, noise and times, B rows each."""

    x1: Any
    cond: Cond | None
    keys: Tensor
    rows: Tensor
    x0: Any
    t: Tensor


class Block(NamedTuple):
    """The random part of K steps, cut into what each part of a step needs.

    Attributes:
        data: which data are read, one tensor a step.
        keys, rows, dropped: one tensor a part, on the device: keys, global rows, which conditions to drop.
        x0, t: noise and times, one a part; ``None`` for states of varying size, whose shape is not known yet.
    """

    data: Sequence[Tensor]
    keys: Sequence[Tensor]
    rows: Sequence[Tensor]
    dropped: Sequence[Tensor]
    x0: Sequence[Any] | None
    t: Sequence[Tensor] | None


@final
@dataclass(frozen=True, eq=False)
class Feed:
    """The parts of every step from ``start`` on.

    Args:
        dataset: what is read.
        order: which datum and which noise key stand in which row.
        objective: draws noise and times.
        settings: the run's numbers.
        seed: the run's seed.
        device: where the parts are needed.
        rank, world: this process among all.
        read: raw data to states, on the device; as they are when left out. Augmentation is a function of the keys.
    """

    dataset: Dataset
    order: Order
    objective: Objective[Any]
    settings: Training
    seed: int
    device: torch.device
    rank: int = 0
    world: int = 1
    read: Read | None = None

    def steps(self, start: int) -> Generator[list[Rows]]:
        """The parts of steps ``start`` to the last."""
        s, share = self.settings, self.settings.share(self.world)
        order = self.order
        if isinstance(order, Blocks):
            reads = partial(_reads, batch=s.batch, share=share, rank=self.rank)
            order = Ahead(order, self.seed, start * s.batch, s.couplers, reads)
        batches = Batches(
            self.dataset, order, self.seed, s.batch, start, s.steps, self.rank, self.world, workers=s.workers
        )
        ahead = iter(batches) if s.workers else None
        draw = order(self.seed, batches.rows(start)[:1])
        row = self._state(self._placed(self.dataset.take(draw.index)[0]), self._placed(draw.key))
        length = self._length(row, share)
        block: Block | None = None
        for step in range(start, s.steps):
            number, place = divmod(step, length)
            if block is None or place == 0:
                rows = torch.cat([batches.rows(number * length + i) for i in range(length)])
                block = self._block(rows, order(self.seed, rows), row)
            # In this process the block's draws serve the reading too.
            x, cond = self.dataset.take(block.data[place]) if ahead is None else next(ahead)[1:3]
            yield self._parts(block, place, self._placed(x), self._placed(cond))

    def _parts(self, block: Block, place: int, x: Any, cond: Cond | None) -> list[Rows]:
        """The parts of the step at ``place`` of the block."""
        accumulate = self.settings.accumulate
        size = self.settings.share(self.world) // accumulate
        parts = []
        for m in range(accumulate):
            n = place * accumulate + m
            keys, rows = block.keys[n], block.rows[n]
            own = slice(m * size, (m + 1) * size)
            x1, known = (x, cond) if accumulate == 1 else (_cut(x, own), _cut(cond, own))
            if known is not None and self.settings.drop:
                known = drop(known, block.dropped[n])
            x1 = self._state(x1, keys)
            if block.x0 is None or block.t is None:
                x0, t = self.objective.draw(Rng(keys, rows), x1)
            else:
                x0, t = block.x0[n], block.t[n]
            parts.append(Rows(x1, known, keys, rows, x0, t))
        return parts

    def _state(self, x: Any, keys: Tensor) -> Any:
        return x if self.read is None else self.read(x, Rng(keys))

    def _block(self, rows: Tensor, draw: Draw, row: Any) -> Block:
        share = self.settings.share(self.world)
        size = share // self.settings.accumulate
        keys, rows = self._placed(draw.key), self._placed(rows)
        rng = Rng(keys, rows)
        dropped = rng.fold(Stream.CONDITION).uniform() < self.settings.drop
        known = draw.index.split(share), keys.split(size), rows.split(size), dropped.split(size)
        if not _fixed(row):
            return Block(*known, None, None)
        x0, t = self.objective.draw(rng, transform(lambda v: v.expand(len(rows), *v.shape[1:]), row))
        return Block(*known, _split(transform(self._laid_out, x0), size), t.split(size))

    def _length(self, row: Any, share: int) -> int:
        """Steps in a block: a function of the shapes alone. States of varying size are drawn step by step."""
        numbers = sum(leaf.numel() for leaf in leaves(row)) * share
        return max(1, min(LONGEST_BLOCK, BLOCK_NUMBERS // max(1, numbers))) if _fixed(row) else 1

    def _placed(self, value: Any) -> Any:
        """On the device, without making the host wait for what the device is doing."""
        if isinstance(value, tuple):
            return transform(self._placed, value)
        if isinstance(value, Mapping):
            return {name: self._placed(part) for name, part in value.items()}
        if not isinstance(value, Tensor):
            return value
        if self.device.type == "cuda" and value.device.type == "cpu":
            value = value.pin_memory().to(self.device, non_blocking=True)
        elif value.device != self.device:
            value = value.to(self.device)
        return self._laid_out(value)

    def _laid_out(self, value: Any) -> Any:
        if self.settings.channels_last and isinstance(value, Tensor) and value.dim() == 4:
            return value.contiguous(memory_format=torch.channels_last)
        return value


def _reads(rows: Tensor, batch: int, share: int, rank: int) -> Tensor:
    """Whether a process reads each of the global rows."""
    return rows % batch // share == rank


def _fixed(tree: Any) -> bool:
    """Whether a state is made of tensors only, so that one row has the shape of any other batch's rows."""
    return all(_fixed(part) for part in tree) if isinstance(tree, tuple) else isinstance(tree, Tensor)


def _split(tree: Any, size: int) -> Sequence[Any]:
    """A state in parts of ``size`` rows."""
    if isinstance(tree, tuple):
        return list(zip(*(_split(part, size) for part in tree), strict=True))
    return tree.split(size)


def _cut(tree: Any, rows: slice) -> Any:
    """Some rows of a state or of a condition."""
    if isinstance(tree, Mapping):
        return {name: _cut(value, rows) for name, value in tree.items()}
    return None if tree is None else transform(lambda value: value[rows], tree)
