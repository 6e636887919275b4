"""Orders that join noise and data before they are read, so that a training step pays nothing for its coupling.

What a coupling finds is written down as 16 bytes a row: a noise key and the index of a datum. The noise of a row is a
function of its key, so whoever reads the row draws the noise that was joined with its datum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from ..core import Cond, Coupling, Draw, InputError, Objective, Order, Rng, Stream, fits
from .blocks import Blocks
from .tensors import Dataset

Read = Callable[[Any, Rng], Any]
"""Turns what a dataset holds into states, by the key of each row."""

ROWS = 4096
"""Data that are turned into states at once where a whole dataset is."""


@final
@dataclass(frozen=True, eq=False)
class States:
    """A dataset as the states that a network sees.

    Args:
        dataset: the data.
        read: raw values to states; as they are when left out.
    """

    dataset: Dataset
    read: Read | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def take(self, index: Tensor, keys: Tensor) -> tuple[Any, Cond | None]:
        """The data ``index`` read by ``keys``, int64 (n,) each: states (n, ...), and their condition."""
        values, cond = self.dataset.take(index)
        return (values if self.read is None else self.read(values, Rng(keys))), cond

    def all(self) -> tuple[Tensor, Cond | None]:
        """All data, each read by a key of its own: states (N, ...), and their condition."""
        parts = [self.take(index, Rng(0).rows(index).key) for index in torch.arange(len(self)).split(ROWS)]
        return torch.cat([x for x, _ in parts]), _chained([cond for _, cond in parts])


@final
@dataclass(frozen=True, eq=False)
class Coupled(Blocks):
    """An order whose noise and data are joined ``pairs`` rows at a time: the keys stay in their rows, and the datum
    that goes with each noise comes to stand there.

    A block is a function of (seed, number): the same on every process, for every size of the batch, after a resume.

    Args:
        order: which data and which keys stand in a block before they are joined.
        objective: draws the noise of a row.
        coupling: joins them. One of a whole dataset is fitted.
        states: the data.
        pairs: rows of a block.

    Raises:
        InputError: if a block is empty or larger than the data, or the order joins already.
    """

    order: Order
    objective: Objective[Any]
    coupling: Coupling[Any]
    states: States
    pairs: int

    def __post_init__(self) -> None:
        if not 1 <= self.pairs <= len(self.states):
            raise InputError(
                f"a coupling joins from 1 to as many pairs as there are data, {len(self.states)}, got "
                f"pairs = {self.pairs}."
            )
        if self.order.joined:
            raise InputError(f"{type(self.order).__name__} joins noise and data already; train with that order alone.")

    @property
    def size(self) -> int:
        return self.pairs

    @property
    def portable(self) -> bool:
        return not fits(self.coupling) or all(v.device.type == "cpu" for v in self.coupling.tensors().values())

    @property
    def alone(self) -> bool:
        return fits(self.coupling)

    def __call__(self, seed: int, rows: Tensor) -> Draw:
        return self._joined(seed, rows, None) if self.alone else super().__call__(seed, rows)

    def block(self, seed: int, number: int) -> Draw:
        rows = torch.arange(number * self.pairs, (number + 1) * self.pairs)
        return self._joined(seed, rows, Rng(seed).fold(Stream.COUPLING).fold(number))

    def _joined(self, seed: int, rows: Tensor, rng: Rng | None) -> Draw:
        """The rows joined together, or each by itself, which takes no rng."""
        draw = self.order(seed, rows)
        x1, cond = self.states.take(draw.index, draw.key)
        x0, _ = self.objective.draw(Rng(draw.key, rows), x1)
        if fits(self.coupling):
            # Each noise is joined within the condition of the datum it arrived with, of which it knows nothing.
            return Draw(self.coupling.assign(x0, cond), draw.key)
        pairs = self.coupling(x0, x1, cond, rng)
        return Draw(draw.index[_partner(pairs.i, pairs.j)], draw.key)


@final
class Paired(Blocks):
    """Pairs that are kept: datum and noise key i stay together, and each epoch joins them better than the one before.

    Before every epoch (or every so many) all data with their keys are shuffled and cut into blocks, and each block is
    joined anew; where the coupling is an assignment, the cost of all pairs never rises. The noise is a fixed set of N,
    so that the network meets the same noise every epoch. A block of this order is an epoch.

    Args:
        count: the number of data.
        objective: draws the noise of a key.
        coupling: joins them.
        states: the data.
        pairs: pairs that are joined at once.
        rounds: times that all pairs are joined before the first epoch.
        every: epochs from one joining to the next; 0 joins no more after the first rounds.
        store: keeps the keys of an epoch, ``store(epoch)`` giving those that were kept or ``None``, and
            ``store(epoch, keys)`` keeping them; only memory does when left out.

    Raises:
        InputError: if the numbers make no sense, or the coupling is one of a whole dataset.
    """

    def __init__(
        self,
        count: int,
        objective: Objective[Any],
        coupling: Coupling[Any],
        states: States,
        pairs: int,
        rounds: int = 1,
        every: int = 1,
        store: Callable[..., Tensor | None] | None = None,
    ) -> None:
        if not 1 <= pairs <= count or rounds < 0 or every < 0:
            raise InputError(
                f"kept pairs are joined from 1 to {count} (the number of data) at a time, in 0 or more rounds and "
                f"every 0 or more epochs; got pairs = {pairs}, rounds = {rounds} and every = {every}."
            )
        if fits(coupling):
            raise InputError(
                f"{type(coupling).__name__} gives every noise its datum, so there are no pairs to keep; train with it "
                "directly."
            )
        self._count, self._objective, self._coupling, self._states = count, objective, coupling, states
        self._pairs, self._rounds, self._every, self._store = pairs, rounds, every, store
        self._latest: tuple[int, int, Tensor] | None = None

    @property
    def size(self) -> int:
        return self._count

    def block(self, seed: int, number: int) -> Draw:
        index = Rng(seed).fold(Stream.ORDER).fold(number).permutation(self._count)
        return Draw(index, self.keys(seed, number)[index])

    def keys(self, seed: int, epoch: int) -> Tensor:
        """The noise key of each datum in an epoch, int64 (N,)."""
        version = self._rounds + (epoch // self._every if self._every else 0)
        found = self._kept(seed, version)
        if found is None:
            start, keys = self._before(seed, version)
            for number in range(start + 1, version + 1):
                keys = self._improved(seed, number, keys)
            found = keys
            if self._store is not None:
                self._store(version, found)
        self._latest = seed, version, found
        return found

    def _kept(self, seed: int, version: int) -> Tensor | None:
        if self._latest is not None and self._latest[:2] == (seed, version):
            return self._latest[2]
        return None if self._store is None else self._store(version)

    def _before(self, seed: int, version: int) -> tuple[int, Tensor]:
        """The latest version before this one that is known, and its keys."""
        for number in range(version - 1, 0, -1):
            keys = self._kept(seed, number)
            if keys is not None:
                return number, keys
        return 0, Rng(seed).fold(Stream.COUPLING).rows(torch.arange(self._count)).key

    def _improved(self, seed: int, version: int, keys: Tensor) -> Tensor:
        """All pairs joined once more."""
        rng = Rng(seed).fold(Stream.COUPLING).fold(version)
        out = keys.clone()
        for number, index in enumerate(rng.permutation(self._count).split(self._pairs)):
            x1, cond = self._states.take(index, Rng(seed).rows(index).key)
            x0, _ = self._objective.draw(Rng(keys[index], index), x1)
            pairs = self._coupling(x0, x1, cond, rng.fold(number))
            if len(pairs.j.unique()) < len(index):
                raise InputError(
                    f"kept pairs need every datum once, and {type(self._coupling).__name__} drew some twice; keep the "
                    "pairs of an assignment, such as couplings.BatchOT()."
                )
            out[index[pairs.j]] = keys[index[pairs.i]]
        return out


def _partner(i: Tensor, j: Tensor) -> Tensor:
    """The datum of each noise, in the order of the noise."""
    partner = torch.empty_like(j)
    partner[i] = j
    return partner


def _chained(parts: list[Any]) -> Any:
    """Conditions of consecutive rows as one."""
    if parts[0] is None:
        return None
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
