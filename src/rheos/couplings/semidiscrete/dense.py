"""Every score of every pair, block by block: exact, for any law of the noise, on any device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .blocks import LANES, NOWHERE, Block, Exact, best, longest, rounding

Lookup = Callable[[Tensor], Tensor]
"""The point of each noise (B, d), int64 (B,)."""

ROWS = 256
"""Noises that are looked up at once; on a GPU, whose matrix products want more, eight times as many."""


@final
@dataclass(frozen=True)
class Dense:
    """Search among points (n, d) with at most ``block`` scores in memory."""

    points: Tensor
    block: int

    def at(self, h: Tensor) -> Lookup:
        """The search with h, float64 (n,)."""
        rough, length = h.to(self.points.dtype), longest(self.points)

        def look(x0: Tensor) -> Tensor:
            rows = ROWS * 8 if x0.is_cuda else ROWS
            found = []
            for z in x0.split(max(1, min(rows, self.block // LANES))):
                slack = rounding(length, h, z)
                found.append(best(self._blocks(z, rough), Exact(self.points, h, z), slack, promising=1))
            return torch.cat(found)

        return look

    def _blocks(self, z: Tensor, h: Tensor) -> Iterator[Block]:
        count, rows = len(self.points), len(z)
        places = min(max(1, self.block // (LANES * rows)) * LANES, -(-count // LANES) * LANES)
        scores = z.new_empty(places, rows)
        offset, spare = z.new_zeros(1, rows), z.new_zeros(1, 1, LANES)
        for start in range(0, count, places):
            size = min(places, count - start)
            used = -(-size // LANES) * LANES
            part = slice(start, start + size)
            torch.addmm(h[part, None], self.points[part], z.T, out=scores[:size])
            scores[size:used] = NOWHERE
            number = torch.arange(start, start + used, device=z.device).clamp_(max=count - 1)
            grouped = scores[:used].view(1, -1, LANES, rows)
            yield Block(grouped, offset, spare.expand(1, used // LANES, LANES), number.view(1, -1, LANES), 0.0)
