r"""The best of many scores a row, where scores are cheap within a margin and dear exactly.

A noise x0 is to find the point j with the largest score ``s_j = x0 . x_j + h_j``. A search gives, block by block of
points, a coarse score of every pair and a bound of what it may lack. The exact score of a few promising points is a
floor; points whose coarse score and margin stay below it are left out; what is left is scored exactly. Points are
looked at in groups of :data:`LANES`, by the largest of the group first. What remains within rounding of the best is
compared in float64, and of equal scores the lowest point wins, so that the answer of a row does not depend on the rows
beside it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

LANES = 32
"""Points in a group."""

_GATHERED = 1 << 20
"""Numbers that are gathered at once for exact scores."""

NOWHERE = -1e30
"""The score of a place without a point."""


class Block(NamedTuple):
    """Coarse scores of R noises with C x G groups of points. The score of a point is at most ``scores + offset +
    spare``, where ``|scores|`` is rounded by ``unit`` of itself.

    Attributes:
        scores: (C, G, LANES, R).
        offset: what all points of the same C share, (C, R).
        spare: (C, G, LANES).
        number: the point at each place, (C, G, LANES); at a place without a point the score is hugely negative.
        unit: the relative rounding of the scores.
    """

    scores: Tensor
    offset: Tensor
    spare: Tensor
    number: Tensor
    unit: float


class Exact:
    """Exact scores of pairs.

    Args:
        points: (n, d).
        h: (n,), float64.
        x0: noise (R, d).
    """

    def __init__(self, points: Tensor, h: Tensor, x0: Tensor) -> None:
        self.points, self.h, self.x0 = points, h, x0
        self.rough = h.to(points.dtype)

    def __call__(self, point: Tensor, row: Tensor) -> Tensor:
        """The scores of pairs (P,), rounded as numbers of their type are."""
        if not self.points.is_cpu or len(point) < len(self.x0):
            return self._dots(point, row, self.points.dtype) + self.rough[point]
        order = point.argsort(stable=True)
        out = torch.empty(len(point), dtype=self.points.dtype)
        out[order] = self._sampled(point[order], row[order])
        return out + self.rough[point]

    def precise(self, point: Tensor, row: Tensor) -> Tensor:
        """The scores of pairs (P,) in float64."""
        return self._dots(point, row, torch.float64) + self.h[point]

    def _dots(self, point: Tensor, row: Tensor, dtype: torch.dtype) -> Tensor:
        chunk = max(1, _GATHERED // self.points.shape[1])
        parts = zip(point.split(chunk), row.split(chunk), strict=True)
        dots = [(self.points[p].to(dtype) * self.x0[r].to(dtype)).sum(1) for p, r in parts]
        return torch.cat(dots) if dots else torch.empty(0, dtype=dtype, device=point.device)

    def _sampled(self, point: Tensor, row: Tensor) -> Tensor:
        """Scores of pairs sorted by point: each point is read once, however many rows ask for it."""
        _quiet()
        count, rows = len(self.points), len(self.x0)
        starts = torch.zeros(count + 1, dtype=torch.int64)
        torch.cumsum(torch.bincount(point, minlength=count), 0, out=starts[1:])
        pairs = torch.sparse_csr_tensor(
            starts, row, self.points.new_zeros(len(row)), (count, rows), check_invariants=False
        )
        return torch.sparse.sampled_addmm(pairs, self.points, self.x0.T, beta=0.0).values()


def best(blocks: Iterable[Block], exact: Exact, slack: Tensor, promising: int) -> Tensor:
    """The point with the largest score of each row, int64 (R,).

    Args:
        blocks: all points, in blocks that are used up one after the other.
        exact: the scores.
        slack: by how much the exact scores of a row are rounded, (R,).
        promising: how many points a row make the first floor.
    """
    floor, known = torch.empty(0), torch.empty(0)
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    for block in blocks:
        tops = _wide(block.scores.amax(2))
        rows = torch.arange(tops.shape[-1], device=tops.device)
        if not kept:
            known, floor = _promising(block, tops, exact, promising)
            kept.append((known, rows, floor))
        point, row = _candidates(block, tops, floor - slack)
        new = point != known[row]
        point, row = point[new], row[new]
        score = exact(point, row)
        floor = floor.scatter_reduce(0, row, score, "amax")
        near = score >= (floor - slack)[row]
        kept.append((point[near], row[near], score[near]))
    point, row, score = (torch.cat(parts) for parts in zip(*kept, strict=True))
    return _decided(point, row, score, floor - slack, exact)


def longest(points: Tensor) -> Tensor:
    """The length of the longest of points (n, d)."""
    return torch.linalg.vector_norm(points, dim=1).amax()


def rounding(length: Tensor, h: Tensor, x0: Tensor) -> Tensor:
    """By how much a dot product of noise (R, d) and a point of at most ``length``, plus h (n,), may be rounded; (R,).

    What numbers of less precision lose is a sum of independent errors, each a share of one product.
    """
    unit = torch.finfo(x0.dtype).eps
    slack = 8 * unit * (length * torch.linalg.vector_norm(x0, dim=1) + h.abs().amax())
    if x0.dtype == torch.float32:
        unit = {"highest": 0.0, "high": 2.0**-11, "medium": 2.0**-8}[torch.get_float32_matmul_precision()]
        slack = slack + 8 * unit * length * x0.abs().amax(1)
    return slack.to(x0.dtype)


def _promising(block: Block, tops: Tensor, exact: Exact, count: int) -> tuple[Tensor, Tensor]:
    """The best of a few points with large coarse scores for each row, and its score; (R,) both."""
    rows = torch.arange(tops.shape[-1], device=tops.device)
    whole = (tops + block.offset[:, None]).flatten(0, 1)
    group = whole.topk(min(count, len(whole)), 0).indices
    lane = block.scores.flatten(0, 1)[group, :, rows].argmax(-1)
    point = block.number.flatten(0, 1)[group, lane]
    score = exact(point.flatten(), rows.expand_as(point).flatten()).view(point.shape)
    floor, which = score.max(0)
    return point.gather(0, which[None])[0], floor


def _candidates(block: Block, tops: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs of points and rows whose score may reach the row's floor; (P,) both."""
    least = floor - block.offset
    least = (least - block.unit * least.abs())[:, None]
    c, g, row = (tops + block.spare.amax(2)[..., None] > least).nonzero().unbind(1)
    upper = _wide(block.scores[c, g, :, row]) + block.spare[c, g]
    group, lane = (upper > least[c, 0, row][:, None]).nonzero().unbind(1)
    return block.number[c[group], g[group], lane], row[group]


def _decided(point: Tensor, row: Tensor, score: Tensor, least: Tensor, exact: Exact) -> Tensor:
    """Of pairs the best of each row, in float64 where several are within rounding of it."""
    near = score >= least[row]
    point, row, score = point[near], row[near], score[near].double()
    several = (torch.bincount(row, minlength=len(least)) > 1)[row]
    score[several] = exact.precise(point[several], row[several])
    top = torch.full_like(least, NOWHERE, dtype=torch.float64).scatter_reduce(0, row, score, "amax")
    wins = score == top[row]
    lowest = torch.full_like(least, len(exact.points), dtype=torch.int64)
    return lowest.scatter_reduce(0, row[wins], point[wins], "amin")


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


@cache
def _quiet() -> None:
    """Let PyTorch say once, unheard, that its sparse tensors are new."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 1], [0], [0.0], (1, 1))
