"""Distances between two distributions, each known by a cloud of points ``(N, ...)`` and ``(M, ...)``.

All three are zero when the distributions are equal and only then; they differ in what they see first. Sliced
Wasserstein sees mass in the wrong place and has the unit of the data; the energy distance sees the same without any
parameter; MMD sees structure at the scale of its bandwidths. Everything is computed in float64. None of them depends
on the order of the points, and each is symmetric in its arguments.

A *V-statistic* averages over all pairs, a point with itself included: it is never negative, is zero for two equal
clouds, and lies above the truth by something of order 1/N. A *U-statistic* leaves these pairs out: its expectation is
the truth, and so it may be negative. The V-statistic is the default, because its bias is the floor that stands beside
every figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..core import InputError, Rng
from .pairwise import BLOCK, mean_between, mean_within, pair, squared_blocks

SCALES = (0.5, 1.0, 2.0)
"""The default bandwidths of :func:`mmd`, in units of the median distance."""

MEDIAN_POINTS = 2048
"""Points of each cloud from which the median distance is taken."""


def sliced_wasserstein(
    x: Tensor,
    y: Tensor,
    projections: int = 128,
    *,
    rng: Rng | torch.Generator | int,
    order: float = 2.0,
) -> float:
    """The sliced Wasserstein distance (Rabin et al. 2012; Bonneel et al. 2015), in the unit of the data.

    ``SW_p = (mean over directions u of W_p(u.x, u.y)^p)^(1/p)``, directions uniform on the sphere. In one dimension
    ``W_p^p`` is the integral of ``|F^-1 - G^-1|^p`` over the levels, exact for clouds of unequal sizes too. A shift by
    ``c`` in D dimensions gives ``|c| / sqrt(D)`` for p = 2, in expectation over the directions; in one dimension it
    gives ``|c|`` exactly.

    Args:
        x: points ``(N, ...)``.
        y: points ``(M, ...)``.
        projections: the number of directions; their sampling error falls as its square root.
        rng: draws the directions; figures that are compared should share it.
        order: p, at least 1.

    Raises:
        ShapeError: if the shapes differ after the first axis.
        InputError: if a number is not finite, there is no direction, or p < 1.
    """
    if projections < 1 or order < 1.0:
        raise InputError(f"sliced Wasserstein needs projections >= 1 and order >= 1, got {projections} and {order}.")
    x, y = pair(x, y, ("x", "y"))
    direction = Rng.of(rng).normal(x.shape[1], projections, dtype=torch.float64).to(x.device)
    direction = direction / direction.norm(dim=0)
    i, j, weight = _levels(len(x), len(y), x.device)
    per_block = max(1, BLOCK // (len(x) + len(y)))
    total = 0.0
    for part in direction.split(per_block, dim=1):
        gap = (x @ part).sort(0).values[i] - (y @ part).sort(0).values[j]
        total += float((gap.abs() ** order * weight[:, None]).sum())
    return (total / projections) ** (1.0 / order)


def _levels(n: int, m: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The pieces of [0, 1] on which both empirical quantile functions are constant: order statistics and lengths."""
    # In units of 1/(n*m) the ends of the pieces are integers, so equal ends meet exactly.
    ends = torch.cat([torch.arange(1, n + 1, device=device) * m, torch.arange(1, m + 1, device=device) * n]).unique()
    length = torch.diff(ends, prepend=ends.new_zeros(1)).to(torch.float64) / (n * m)
    return (ends - 1) // m, (ends - 1) // n, length


def energy_distance(x: Tensor, y: Tensor, *, unbiased: bool = False, block: int = BLOCK) -> float:
    """The energy distance ``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` (Szekely and Rizzo 2013), in the unit of the data.

    Args:
        x: points ``(N, ...)``.
        y: points ``(M, ...)``.
        unbiased: the U-statistic, which may be negative, in place of the V-statistic.
        block: distances held at once; the result does not depend on it beyond rounding.

    Raises:
        ShapeError: if the shapes differ after the first axis, or an unbiased estimate has fewer than two points.
        InputError: if a number is not finite.
    """
    x, y = pair(x, y, ("x", "y"), least=2 if unbiased else 1)
    between = mean_between(torch.sqrt, x, y, block)
    return 2.0 * between - sum(mean_within(torch.sqrt, cloud, unbiased, block) for cloud in (x, y))


def median_distance(x: Tensor, y: Tensor) -> float:
    """The median distance between different points of the two clouds put together (Gretton et al. 2012, section 8).

    It is taken from :data:`MEDIAN_POINTS` points of each cloud at equal strides, all of them where there are no more.

    Raises:
        ShapeError: if the shapes differ after the first axis.
        InputError: if all points are equal, so that the data have no scale.
    """
    x, y = pair(x, y, ("x", "y"))
    pooled = torch.cat([cloud[:: math.ceil(len(cloud) / MEDIAN_POINTS)] for cloud in (x, y)])
    distance = torch.cat([squared for _, squared in squared_blocks(pooled, pooled)])
    row, column = torch.triu_indices(len(pooled), len(pooled), offset=1, device=x.device)
    median = float(distance[row, column].median().sqrt())
    if median <= 1e-7 * float(pooled.std(0, correction=0).norm()) or median == 0.0:
        raise InputError("more than half of the points are equal: the median distance is 0; give the bandwidths.")
    return median


def mmd(
    x: Tensor,
    y: Tensor,
    bandwidths: Sequence[float] | None = None,
    *,
    unbiased: bool = False,
    block: int = BLOCK,
) -> float:
    """The *squared* maximum mean discrepancy ``E k(X,X') + E k(Y,Y') - 2 E k(X,Y)`` (Gretton et al. 2012).

    The kernel is the mean of the Gaussians ``exp(-|x - y|^2 / (2 s^2))`` over the bandwidths ``s``, so the value has no
    unit and lies in [0, 2] (the V-statistic).

    Args:
        x: points ``(N, ...)``.
        y: points ``(M, ...)``.
        bandwidths: the standard deviations ``s``, in the unit of the data. Left out, they are :data:`SCALES` times
            :func:`median_distance`, which depends on both clouds: fix them where figures are to be compared.
        unbiased: the U-statistic, which may be negative, in place of the V-statistic.
        block: distances held at once; the result does not depend on it beyond rounding.

    Raises:
        ShapeError: if the shapes differ after the first axis, or an unbiased estimate has fewer than two points.
        InputError: if a number is not finite or a bandwidth is not positive.
    """
    x, y = pair(x, y, ("x", "y"), least=2 if unbiased else 1)
    widths = [scale * median_distance(x, y) for scale in SCALES] if bandwidths is None else list(bandwidths)
    if not widths or not all(0.0 < width < math.inf for width in widths):
        raise InputError(f"bandwidths must be positive and finite, got {widths}.")

    def kernel(squared: Tensor) -> Tensor:
        values = torch.zeros_like(squared)
        for width in widths:
            values += (squared * (-0.5 / width**2)).exp_()
        return values.div_(len(widths))

    within = sum(mean_within(kernel, cloud, unbiased, block) for cloud in (x, y))
    return within - 2.0 * mean_between(kernel, x, y, block)
