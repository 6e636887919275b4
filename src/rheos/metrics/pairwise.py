"""Distances between all pairs of two clouds, a block of rows at a time.

``|x - y|^2 = |x|^2 + |y|^2 - 2 x.y`` turns all pairs into one matrix product. It cancels where ``x`` and ``y`` are
close, so it runs in float64 on clouds whose common centre was moved to the origin: the error of a squared distance is
then some 1e-16 of the squared spread, whatever the data's offset. Where a small distance itself is the answer
(:func:`nearest_distance`), the neighbour is found so and its distance is then computed by subtraction.

Memory is bounded by :data:`BLOCK` numbers, so 10,000 by 10,000 points need no 800 MB matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..core import InputError, ShapeError

BLOCK = 1 << 22
"""Distances held at once (32 MiB in float64)."""


def as_points(x: Tensor, name: str, least: int = 1) -> Tensor:
    """``x`` as float64 points ``(N, D)``: every axis after the first is flattened.

    Raises:
        ShapeError: if there is no batch axis, or fewer than ``least`` points.
        InputError: if a number is not finite.
    """
    if x.dim() == 0 or x.shape[0] < least or x.numel() == 0:
        raise ShapeError(f"{name} must be at least {least} points (N, ...), got a tensor of shape {tuple(x.shape)}.")
    flat = x.detach().reshape(x.shape[0], -1).to(torch.float64)
    if not bool(flat.isfinite().all()):
        bad = int((~flat.isfinite().all(1)).sum())
        raise InputError(f"{name} must be finite; {bad} of {len(flat)} rows hold NaN or infinity: remove them first.")
    return flat


def pair(x: Tensor, y: Tensor, names: tuple[str, str], least: int = 1) -> tuple[Tensor, Tensor]:
    """Two clouds as points of one dimension, on the device of the first.

    Raises:
        ShapeError: if their dimensions differ.
    """
    first, second = as_points(x, names[0], least), as_points(y, names[1], least)
    if first.shape[1] != second.shape[1]:
        raise ShapeError(
            f"{names[0]} and {names[1]} must have the same shape after the first axis, got {tuple(x.shape)} "
            f"and {tuple(y.shape)}."
        )
    return first, second.to(first.device)


def squared_blocks(x: Tensor, y: Tensor, block: int = BLOCK) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances ``(rows, M)`` of blocks of rows of ``x`` (N, D) to all of ``y`` (M, D), and which rows."""
    centre = y.mean(0)
    x, y = x - centre, y - centre
    y_norm = y.square().sum(1)
    rows = max(1, block // len(y))
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        squared = torch.addmm(y_norm, part, y.T, alpha=-2.0).add_(part.square().sum(1, keepdim=True)).clamp_(min=0.0)
        yield slice(start, start + len(part)), squared


def mean_between(function: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, block: int = BLOCK) -> float:
    """The mean of ``function(squared distance)`` over all N*M pairs of ``x`` and ``y``."""
    total = sum(float(function(squared).sum()) for _, squared in squared_blocks(x, y, block))
    return total / (len(x) * len(y))


def mean_within(function: Callable[[Tensor], Tensor], x: Tensor, unbiased: bool, block: int = BLOCK) -> float:
    """The mean of ``function(squared distance)`` over pairs of points of one cloud.

    ``unbiased`` leaves out the N pairs of a point with itself (a U-statistic); with them it is a V-statistic. Each pair
    of different points is computed once and counted twice.
    """
    count, total = len(x), 0.0
    x = x - x.mean(0)
    rows = max(1, block // count)
    for start in range(0, count, rows):
        part, rest = x[start : start + rows], x[start:]
        _, squared = next(squared_blocks(part, rest, len(part) * len(rest)))
        own = function(squared[:, : len(part)].clone().fill_diagonal_(0.0))
        total += float(own.sum()) + 2.0 * float(function(squared[:, len(part) :]).sum())
        total -= float(own.diagonal().sum()) if unbiased else 0.0
    return total / (count * (count - 1) if unbiased else count * count)


def nearest_distance(x: Tensor, reference: Tensor, block: int = BLOCK) -> Tensor:
    """The Euclidean distance ``(N,)`` of every point of ``x`` to its nearest point of ``reference``; 0 for a copy.

    Args:
        x: points ``(N, ...)``.
        reference: points ``(M, ...)`` of the same shape after the first axis.
        block: distances held at once.

    Raises:
        ShapeError: if the shapes differ after the first axis.
        InputError: if a number is not finite.
    """
    x, reference = pair(x, reference, ("x", "reference"))
    nearest = torch.cat([squared.argmin(1) for _, squared in squared_blocks(x, reference, block)])
    return (x - reference[nearest]).norm(dim=1)


def neighbour_radius(x: Tensor, k: int, block: int = BLOCK) -> Tensor:
    """The squared distance ``(N,)`` of every point of ``x`` (N, D) to its ``k``-th nearest other point."""
    if not 1 <= k < len(x):
        raise InputError(f"the {k}-th neighbour needs 1 <= k < number of points, got {len(x)} points; lower k.")
    radii = []
    for rows, squared in squared_blocks(x, x, block):
        index = torch.arange(rows.start, rows.stop, device=x.device)
        # A point is not its own neighbour, but an exact copy of it elsewhere is.
        squared[index - rows.start, index] = torch.inf
        radii.append(squared.kthvalue(k, dim=1).values)
    return torch.cat(radii)
