r"""The plan of entropic transport, a block of rows at a time.

For n points x, m points y, a potential g of y and ``c[i, j] = |x[i] - y[j]|**2``, the conditional law of y given x is

``Q[i, j] = exp((f[i] + g[j] - c[i, j])/epsilon)/m``, ``f[i] = -epsilon*log mean_j exp((g[j] - c[i, j])/epsilon)``

so that rows sum to 1 whatever g is; ``Q/n`` is the optimal plan when all columns sum to n/m (Cuturi 2013). The squared
norms of x and y are constants of rows and columns, which f and g absorb, so that ``2 <x, y>`` stands for -c. Neither c
nor Q is ever whole in memory: a block of rows is met in tiles of columns, and each row of a tile has its own maximum,
so that nothing overflows and no row is empty (an online logsumexp).

Exponentials are taken in base 2, which is three times as quick, and of numbers above a floor: a result that underflows
costs twenty times as much as one that does not. Products are of float64 where those of float32 would be too coarse.

Tiles whose share is nothing are skipped. What a tile holds at most follows from what it held in the sweep before, since
a soft minimum moves by no more than what it is taken of. This saves most of a sweep where x and y are in an order that
keeps neighbours together, epsilon is small and the dimension low.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

BLOCK = 1 << 23
"""Entries of the plan that are held at once."""

ROWS, COLUMNS = 128, 2048
"""Of a tile on a processor, at most: what fits the cache."""

ROWS_ON_GPU, COLUMNS_ON_GPU = 1 << 12, 1 << 14

FLOOR = {torch.float32: -100.0, torch.float64: -960.0}
"""Exponents of 2 below which an entry is none, relative to the largest of its row in the tile."""

NOTHING = {torch.float32: 30.0, torch.float64: 46.0}
"""Nats below a row's sum at which a whole tile is skipped."""

SMALLEST = 1e-4
"""Entries of Q that are kept, unless that were too many."""

COARSE = 1e-4
"""Bits by which an exponent may be wrong."""

_OUTSIDE = -1e30
"""The exponent of what fills up the last tile."""


@dataclass(frozen=True)
class Sweep:
    """What one pass over the plan of a potential g tells.

    Attributes:
        f: the potential of x, float64 (n,).
        column: the sums of the columns, as shares of what they should be, float64 (m,).
        entropy: of a row of Q, in nats, in the mean.
        cost: the mean squared distance under the plan.
        bound: what no plan between x and y costs less than, by duality, whatever g is.
        entries: the large entries of Q, where they were asked for.
    """

    f: Tensor
    column: Tensor
    entropy: float
    cost: float
    bound: float
    entries: sparse.csr_matrix | None

    @property
    def error(self) -> float:
        """The L1 norm of the column sums minus 1/m. Row sums are exact."""
        return float((self.column - 1).abs().mean())


@dataclass(frozen=True)
class _Rows:
    """A block of rows. With ``top`` the maxima by tile in bits (q, K), a tile k of it is ``2**top[:, k]*tiles[k]``."""

    rows: slice
    tiles: dict[int, Tensor]
    top: Tensor
    mass: Tensor
    moment: Tensor

    def normaliser(self) -> Tensor:
        """Base-2 logarithms of the sums of the rows (q,)."""
        peak = self.top.amax(1, keepdim=True)
        return (peak + ((self.top - peak).exp2() * self.mass).sum(1, keepdim=True).log2())[:, 0]

    def share(self, normaliser: Tensor) -> Tensor:
        """What makes of a tile its part of Q (q, K)."""
        return (self.top - normaliser[:, None]).exp2()


@final
class Gibbs:
    """The conditional laws of y given x.

    Args:
        x: points (n, d), float32 or float64; entries of the plan are computed in that type.
        y: points (m, d), of the same type and on the same device.
        block: entries that are held at once.
    """

    def __init__(self, x: Tensor, y: Tensor, block: int = BLOCK) -> None:
        self.x, self.y = x, y
        mean_x, self._mean_y = x.double().mean(0), y.double().mean(0)
        self._x, self._y = (x - mean_x).to(x.dtype), (y - self._mean_y).to(y.dtype)
        # Of the centred points that products are of, so that rounding them matters to nothing.
        apart = mean_x - self._mean_y
        self._square_x = (self._x + apart).square().sum(1)
        self._square_y = (self._y - apart).square().sum(1) - apart.square().sum()
        self._reach = float(self._x.norm(dim=1).max() * self._y.norm(dim=1).max())
        high, wide = (ROWS, COLUMNS) if x.device.type == "cpu" else (ROWS_ON_GPU, COLUMNS_ON_GPU)
        self._tiles = -(-len(y) // wide)
        self._tile = -(-len(y) // self._tiles)
        self._rows = max(1, min(len(x), high, block // (self._tiles * self._tile)))
        self._depth: Tensor | None = None
        self._last: tuple[Tensor, float] | None = None

    def soft(self, g: Tensor, epsilon: float) -> Tensor:
        """The potential f that belongs to g, float64 (n,)."""
        out = torch.empty(len(self.x), dtype=torch.float64, device=self.x.device)
        for block in self._stream(g, epsilon):
            out[block.rows] = block.normaliser()
        return self._potential(out, epsilon)

    def sweep(self, g: Tensor, epsilon: float, keep: int = 0) -> Sweep:
        """One pass over the plan, with its large entries, ``keep`` of them at most."""
        n, m = len(self.x), len(self.y)
        skip = self._skipped(g, epsilon)
        normaliser, peak, entropy = self._square_x.new_empty(3, n)
        column = g.new_zeros(self._tiles, self._tile)
        large = _Large(m, self._tile, keep / n)
        for number, block in enumerate(self._stream(g, epsilon, skip, moment=True)):
            sums = block.normaliser()
            share = block.share(sums)
            normaliser[block.rows], peak[block.rows] = sums, block.top.amax(1)
            entropy[block.rows] = (share * (block.mass * (sums[:, None] - block.top) - block.moment)).nansum(1)
            narrow = share.to(self.x.dtype)
            for k, tile in block.tiles.items():
                column[k] += narrow[:, k] @ tile
            if keep:
                large.add(block.tiles, narrow)
            self._remember(number, block, sums, epsilon, skip)
        self._last = g, epsilon
        column = column.reshape(-1)[:m] * (m / n)
        f = self._potential(normaliser, epsilon)
        nats = float(entropy.mean()) * math.log(2)
        hard = self._square_x - epsilon * math.log(2) * peak
        return Sweep(
            f,
            column,
            nats,
            float(f.mean() + (column * g).mean()) + epsilon * (nats - math.log(m)),
            float(hard.mean() + g.mean()),
            large.matrix() if keep else None,
        )

    def sample(self, g: Tensor, epsilon: float, uniform: Tensor) -> Tensor:
        """Draws from each row of Q, int64 (n, k), by the inverse of its distribution function at ``uniform`` (n, k)."""
        out = torch.empty(uniform.shape, dtype=torch.int64, device=self.x.device)
        for block in self._stream(g, epsilon):
            cumulated = (block.share(block.normaliser()) * block.mass).cumsum(1)
            level = uniform[block.rows] * cumulated[:, -1:]
            tile = torch.searchsorted(cumulated, level).clamp_(max=self._tiles - 1)
            # What is left for the tile, in the units in which its entries stand.
            below = torch.nn.functional.pad(cumulated, (1, 0)).gather(1, tile)
            mass = block.mass.gather(1, tile)
            left = (level - below) / (cumulated.gather(1, tile) - below) * mass
            tiles, row = torch.stack([block.tiles[k] for k in range(self._tiles)]), torch.arange(len(tile))
            for draw in range(uniform.shape[1]):
                inside = tiles[tile[:, draw], row].double().cumsum(1)
                # Above 0, and not above what the entries add up to: an entry without mass is never met.
                level = left[:, draw, None].clamp(min=torch.finfo(left.dtype).tiny).minimum(inside[:, -1:])
                place = torch.searchsorted(inside, level)[:, 0]
                out[block.rows, draw] = tile[:, draw] * self._tile + place
        return out

    def means(self, g: Tensor, epsilon: float) -> Tensor:
        """The means of y under the rows of Q, float64 (n, d)."""
        out = torch.zeros(self.x.shape, dtype=torch.float64, device=self.x.device)
        for block in self._stream(g, epsilon):
            share = block.share(block.normaliser())
            for k, tile in block.tiles.items():
                points = self._y[k * self._tile : (k + 1) * self._tile]
                out[block.rows] += share[:, k, None] * (tile[:, : len(points)] @ points)
        return out + self._mean_y

    def _potential(self, normaliser: Tensor, epsilon: float) -> Tensor:
        return self._square_x - epsilon * (math.log(2) * normaliser - math.log(len(self.y)))

    def _stream(self, g: Tensor, epsilon: float, skip: Tensor | None = None, moment: bool = False) -> Iterator[_Rows]:
        """The blocks of rows. A block is overwritten by the next."""
        bit = epsilon * math.log(2)
        bits = (g - self._square_y) / bit
        dtype = self._product(2 / bit, bits)
        bits = torch.nn.functional.pad(bits.to(dtype), (0, self._tiles * self._tile - len(bits)), value=_OUTSIDE)
        bits = bits.reshape(self._tiles, 1, self._tile)
        x, y = self._x.to(dtype), torch.nn.functional.pad(self._y.to(dtype), (0, 0, 0, bits.numel() - len(self._y)))
        y = y.reshape(self._tiles, self._tile, -1)
        exponent = x.new_empty(self._rows, self._tile)
        fall = exponent if dtype == self.x.dtype else exponent.to(self.x.dtype)
        held = self.x.new_empty(self._tiles, self._rows, self._tile)
        skipped = None if skip is None else skip.tolist()
        for number, start in enumerate(range(0, len(x), self._rows)):
            left = x[start : start + self._rows] * (2 / bit)
            q = len(left)
            top = g.new_full((q, self._tiles), -math.inf)
            mass, second = g.new_zeros(2, q, self._tiles)
            tiles = {}
            for k in range(self._tiles):
                if skipped is not None and skipped[number][k]:
                    continue
                z, t, e = exponent[:q], fall[:q], held[k, :q]
                torch.addmm(bits[k], left, y[k].T, out=z)
                peak = z.amax(1, keepdim=True)
                torch.sub(z, peak, out=t).clamp_(min=FLOOR[t.dtype])
                torch.exp2(t, out=e)
                top[:, k], mass[:, k] = peak[:, 0], e.sum(1)
                if moment:
                    second[:, k] = torch.linalg.vecdot(t, e)
                tiles[k] = e
            yield _Rows(slice(start, start + q), tiles, top, mass, second)

    def _product(self, scale: float, bits: Tensor) -> torch.dtype:
        """The type in which exponents are computed."""
        size = scale * self._reach + float(bits.abs().max())
        return self.x.dtype if size * torch.finfo(self.x.dtype).eps < COARSE else torch.float64

    def _skipped(self, g: Tensor, epsilon: float) -> Tensor | None:
        """Which tiles hold nothing (blocks, K)."""
        if self._last is None or self._depth is None:
            return None
        before, last = self._last
        moved = torch.nn.functional.pad(g - before, (0, self._tiles * self._tile - len(g)), value=-math.inf)
        rise = moved.reshape(self._tiles, -1).amax(1)
        self._depth = self._depth + float((g - before).min()) - rise
        if epsilon != last:
            self._depth -= max(last, epsilon) * math.log(len(g))
        return self._depth > NOTHING[self.x.dtype] * epsilon

    def _remember(self, number: int, block: _Rows, sums: Tensor, epsilon: float, skip: Tensor | None) -> None:
        if self._depth is None:
            blocks = -(-len(self.x) // self._rows)
            self._depth = sums.new_zeros(blocks, self._tiles)
        depth = (sums[:, None] - block.top).amin(0) * (epsilon * math.log(2))
        self._depth[number] = depth if skip is None else torch.where(skip[number], self._depth[number], depth)


class _Large:
    """Collects the large entries of Q.

    Args:
        columns: of Q.
        tile: columns of a tile.
        most: entries to keep a row, in the mean over a block.
    """

    def __init__(self, columns: int, tile: int, most: float) -> None:
        self._shape, self._tile, self._most, self._least = [0, columns], tile, most, SMALLEST
        self._rows: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
        self._columns: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
        self._values: list[NDArray[np.float64]] = [np.zeros(0)]

    def add(self, tiles: dict[int, Tensor], share: Tensor) -> None:
        """Add a block of rows."""
        most = share.amax(0).tolist()
        while True:
            places = {k: self._large(tile, share[:, k]) for k, tile in tiles.items() if most[k] > self._least}
            if sum(len(place) for place in places.values()) <= self._most * len(share):
                break
            self._least *= 2
        for k, place in places.items():
            row, column = np.divmod(place, self._tile)
            values = tiles[k].cpu().numpy().ravel()[place] * share[:, k].cpu().numpy()[row]
            self._rows.append((row + self._shape[0]).astype(np.int32))
            self._columns.append((column + k * self._tile).astype(np.int32))
            self._values.append(values.astype(np.float64))
        self._shape[0] += len(share)
        self._least = max(self._least / 2, SMALLEST)

    def _large(self, tile: Tensor, share: Tensor) -> NDArray[np.int64]:
        """The places of large entries in a tile. On a processor this takes a seventh of the time of torch.nonzero."""
        floor = self._least / share.clamp(min=torch.finfo(share.dtype).tiny)
        return np.flatnonzero((tile > floor[:, None]).cpu().numpy())

    def matrix(self) -> sparse.csr_matrix:
        """All of them."""
        rows, columns = np.concatenate(self._rows), np.concatenate(self._columns)
        return sparse.csr_matrix((np.concatenate(self._values), (rows, columns)), shape=tuple(self._shape))
