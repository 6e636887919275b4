"""Sequences of different lengths in one batch, whose elements are born at different moments."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .errors import ShapeError
from .time import expand


@dataclass(frozen=True)
class Ragged:
    """A batch of sequences, padded to one width.

    Attributes:
        values: elements, ``(B, L, ...)``; what stands behind a sequence's length has no meaning.
        lengths: number of elements of each sequence, int64 ``(B,)``.
        born: the global clock at which each element came into being, ``(B, L)``. An element's own time is
            ``clip(clock - born, 0, 1)``.
    """

    values: Tensor
    lengths: Tensor
    born: Tensor

    def __post_init__(self) -> None:
        shape = self.values.shape
        if self.values.dim() < 2 or self.lengths.shape != shape[:1] or self.born.shape != shape[:2]:
            raise ShapeError(
                f"a Ragged holds values (B, L, ...), lengths (B,) and born (B, L); got {tuple(shape)}, "
                f"{tuple(self.lengths.shape)} and {tuple(self.born.shape)}."
            )

    @property
    def mask(self) -> Tensor:
        """True where an element exists, ``(B, L)``."""
        return torch.arange(self.values.shape[1], device=self.values.device) < self.lengths[:, None]

    def times(self, clock: Tensor) -> Tensor:
        """Each element's own time at the global ``clock`` (of shape ``()`` or ``(B,)``), ``(B, L)``."""
        return (expand(clock, self.born) - self.born).clamp(0, 1)

    def insert(self, after: Tensor, values: Tensor, born: Tensor) -> Ragged:
        """Put one new element to the right of each marked one.

        Args:
            after: bool ``(B, L)``; marks behind a sequence's length are ignored.
            values: the new elements, ``(B, L, ...)``; entry ``(b, i)`` goes to the right of element ``i``.
            born: the global clock of their birth, ``()`` or ``(B,)``.
        """
        after = after & self.mask
        added = after.sum(1)
        # Element i moves right by the number of marks before it; the new one stands just right of it.
        place = torch.arange(after.shape[1], device=after.device) + after.cumsum(1) - after.long()
        lengths = self.lengths + added
        width = max(int(lengths.max()), 1)
        row = torch.arange(len(lengths), device=after.device)[:, None].expand_as(place)
        out = self.values.new_zeros(len(lengths), width, *self.values.shape[2:])
        clock = self.born.new_zeros(len(lengths), width)
        old = self.mask
        out[row[old], place[old]] = self.values[old]
        clock[row[old], place[old]] = self.born[old]
        out[row[after], place[after] + 1] = values[after]
        clock[row[after], place[after] + 1] = expand(born, self.born).expand_as(self.born)[after].to(clock.dtype)
        return replace(self, values=out, lengths=lengths, born=clock)
