"""The distinct rows of a dataset, and what tells it from another.

Rows that are equal share one cell: no potentials could tell them apart, and whichever had the larger one would take
all. They are one point that weighs as much as its rows, and each noise that finds it takes one of them, by a hash of
the noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ...core.errors import InputError, ShapeError
from ...core.rng import Rng, Stream
from ..sides import rows_of

_CHUNK = 1 << 22
"""Numbers that are hashed at once."""

_WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@final
@dataclass(frozen=True)
class Points:
    """The distinct rows of data.

    Attributes:
        data: the data as given, (N, ...).
        flat: the distinct rows (n, d), in float32 or float64.
        weights: the share of the data that each is, float64 (n,); they sum to 1.
        order: the data (N,), sorted by their point; ``None`` when all differ and the points are the data.
        start: where each point's data begin in ``order``, (n,).
        mark: a hash of all rows in their order, int64 ``()``.
    """

    data: Tensor
    flat: Tensor
    weights: Tensor
    order: Tensor | None
    start: Tensor
    mark: Tensor

    @staticmethod
    def of(data: Tensor) -> Points:
        """The points of data (N, ...).

        Raises:
            ShapeError: if there are no data.
            InputError: if they are no floating numbers, or not finite.
        """
        if data.dim() == 0 or data.numel() == 0:
            raise ShapeError(f"a coupling is fitted to data (N, ...) with N > 0, got the shape {tuple(data.shape)}.")
        if not data.is_floating_point():
            raise InputError(f"data are floating numbers, got {data.dtype}; scale them to about -1 ... 1 first.")
        rows = rows_of(data)
        if not bool(torch.isfinite(rows).all()):
            raise InputError("the data are not finite; look for NaN or infinity in them.")
        keys = hashes(rows)
        mark = Rng(keys).joint().key.to(data.device)
        order, new = _sorted(rows, keys)
        count = len(rows)
        if bool(new.all()):
            weights = torch.full((count,), 1 / count, dtype=torch.float64, device=data.device)
            return Points(data, rows, weights, None, torch.arange(count, device=data.device), mark)
        start = new.nonzero()[:, 0]
        sizes = torch.diff(start, append=start.new_tensor([count]))
        return Points(data, rows[order[start]], sizes.double() / count, order, start, mark)

    @property
    def squares(self) -> Tensor:
        """The squared lengths of the points, float64 (n,)."""
        return torch.linalg.vector_norm(self.flat, dim=1, dtype=torch.float64).square()

    def datum(self, point: Tensor, x0: Tensor) -> Tensor:
        """A datum of each point (B,) for the noise x0 (B, d)."""
        if self.order is None:
            return point
        sizes = (self.weights[point] * len(self.data)).round()
        place = (Rng(hashes(x0)).fold(Stream.COUPLING).uniform(dtype=torch.float64) * sizes).long()
        return self.order[self.start[point] + place]

    def spread(self, values: Tensor) -> Tensor:
        """The value of each datum (N,), given one a point (n,)."""
        if self.order is None:
            return values
        sizes = (self.weights * len(self.data)).round().long()
        out = torch.empty(len(self.data), dtype=values.dtype, device=values.device)
        out[self.order] = values.repeat_interleave(sizes)
        return out

    def gathered(self, values: Tensor) -> Tensor:
        """The value of each point (n,), given one a datum (N,)."""
        return values if self.order is None else values[self.order[self.start]]

    def same(self, data: Tensor) -> bool:
        """Whether these are the data, number by number. The memory itself is recognised without a look at it."""
        known = self.data
        if (data.shape, data.dtype, data.device) != (known.shape, known.dtype, known.device):
            return False
        return (data.data_ptr(), data.stride()) == (known.data_ptr(), known.stride()) or torch.equal(data, known)


def hashes(rows: Tensor) -> Tensor:
    """A word a row (B, d), int64 (B,), equal for rows that are equal."""
    weights = Rng(0).bits(rows.shape[1]).to(rows.device) | 1
    chunk = max(1, _CHUNK // rows.shape[1])
    words = []
    for part in rows.split(chunk):
        # Adding 0 makes -0 the 0 that it equals.
        bits = (part + 0.0).view(_WORDS[rows.element_size()]).to(torch.int64)
        words.append((bits * weights).sum(1))
    return torch.cat(words)


def _sorted(rows: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """An order (N,) in which equal rows stand together, and where a row differs from the one before it."""
    keys, order = keys.sort(stable=True)
    new = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    new[1:] = keys[1:] != keys[:-1]
    alike = (~new).nonzero()[:, 0]
    new[alike] = (rows[order[alike]] != rows[order[alike - 1]]).any(1)
    return order, new
