"""Pairs that are kept and improved from epoch to epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from ..core.condition import Cond
from ..core.errors import InputError
from ..core.protocols import Coupling, Pairs, fits
from ..core.rng import Rng


@final
@dataclass(frozen=True)
class PairStore:
    """A coupling whose pairs a trainer keeps, as (data index, noise key), and joins better before every epoch.

    Each datum is tied to one noise of a fixed set. An epoch costs as many assignments as it has blocks, in another
    process; a step costs no more than looking a key up. On a batch by itself it joins as ``inner`` does. In
    :func:`rheos.training.fit` the pairs stand beside the run, see :class:`rheos.data.Paired`.

    Args:
        inner: an assignment: every datum of a block is used once.
        rounds: times that all pairs are joined before the first epoch.
        every: epochs from one joining to the next; 0 joins no more once training has begun.

    Raises:
        InputError: if a number is negative, or the inner coupling is one of a whole dataset, which leaves no pairs to
            keep.
    """

    inner: Coupling[Tensor]
    rounds: int = 1
    every: int = 1

    independent: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if fits(self.inner):
            raise InputError(
                f"{type(self.inner).__name__} gives every noise its datum, so there are no pairs to keep; use it alone."
            )
        if self.rounds < 0 or self.every < 0:
            raise InputError(
                f"pairs are joined in 0 or more rounds, and every so many epochs or (0) never again; got "
                f"rounds = {self.rounds} and every = {self.every}."
            )

    def __call__(self, x0: Tensor, x1: Tensor, cond: Cond | None = None, rng: Rng | None = None) -> Pairs[Tensor]:
        return self.inner(x0, x1, cond, rng)
