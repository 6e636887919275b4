"""How unequally points are met, and at what cost, told by noise that a fit has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.protocols import Source
from ...core.rng import Rng
from ..sides import rows_of
from .dense import Lookup
from .points import Points

Noise = Callable[[int, int], Tensor]
"""Rows ``start .. start + count - 1`` of a stream of noise, (count, d)."""

PRECISION = 0.1
"""The standard error of a measured chi-squared, in units of the target."""

_AT_ONCE = 1 << 13
"""Noises of a measurement that are held at once."""


@dataclass(frozen=True)
class Measured:
    """Chi-squared, the mean squared distance of the pairs, and that of independent pairs."""

    chi_squared: float
    cost: float
    independent_cost: float


def measure(points: Points, look: Lookup, noise: Noise, target: float) -> Measured:
    """What fresh noise says, enough of it that chi-squared is known to a tenth of the target."""
    count, flat = len(points.flat), points.flat
    drawn = max(1 << 12, math.ceil(math.sqrt(2 * count) / (PRECISION * target)))
    visits, total = (
        torch.zeros_like(points.weights),
        torch.zeros(flat.shape[1], dtype=torch.float64, device=flat.device),
    )
    inner, squares = 0.0, 0.0
    for start in range(0, drawn, _AT_ONCE):
        z = noise(start, min(_AT_ONCE, drawn - start))
        found = look(z)
        visits += visited(found, count)
        inner += float((z * flat[found]).sum(dtype=torch.float64))
        squares += float(z.square().sum(dtype=torch.float64))
        total += z.sum(0, dtype=torch.float64)
    mean = (flat.T @ points.weights.to(flat.dtype)).double()
    cost = (squares + float(visits @ points.squares) - 2 * inner) / drawn
    apart = (squares - 2 * float(total @ mean)) / drawn + float(points.weights @ points.squares)
    return Measured(chi_squared(visits, points.weights), cost, apart)


def stream(source: Source[Tensor] | None, points: Points, rng: Rng) -> Noise:
    """The noise of a source, standard normal where there is none, shaped and typed like the points."""
    like, flat = points.data[:1], points.flat

    def noise(start: int, count: int) -> Tensor:
        keys = rng.rows(torch.arange(start, start + count, device=flat.device))
        if source is None:
            return keys.normal(flat.shape[1], dtype=flat.dtype)
        drawn = rows_of(source(keys, like.expand(count, *like.shape[1:]))).to(flat.dtype)
        if not bool(torch.isfinite(drawn).all()):
            raise InputError("the source gives numbers that are not finite; nothing can be joined with them.")
        return drawn

    return noise


def visited(point: Tensor, count: int) -> Tensor:
    """How often each of ``count`` points was found, float64."""
    return torch.bincount(point, minlength=count).double()


def chi_squared(visits: Tensor, weights: Tensor) -> float:
    """The estimate of ``sum_j (p_j - w_j)**2 / w_j`` from the visits (n,) of points that weigh w (n,), without bias."""
    drawn = float(visits.sum())
    return float((visits * (visits - 1) / weights).sum()) / (drawn * (drawn - 1)) - 1
