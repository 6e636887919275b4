r"""Curves through more than two states: what a path is to two ends, a curve is to K snapshots at given times.

A curve is linear in the states it passes, ``x(t) = sum_k w_k(t)*x_k``, with weights that depend on time alone and are 1
at the state's own time and 0 at the others'; its velocity is ``sum_k w_k'(t)*x_k``. The natural cubic spline has the
least mean squared acceleration of all curves through its states (Holladay 1957): where a chain of straight lines turns
a corner at every snapshot, it bends no more than it must (Rohbeck et al. 2025, "Modeling complex system dynamics with
flow matching across time and conditions").
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import final

import torch
from torch import Tensor

from ..core.errors import InputError, ShapeError
from ..core.protocols import PathSample
from ..core.time import expand


@dataclass(frozen=True)
class Curve(ABC):
    """A curve through states at K times. To add one, write :meth:`weights`.

    Args:
        times: the times of the states, at least two, from 0 for the first to 1 for the last.

    Raises:
        InputError: if the times do not rise from 0 to 1.
    """

    times: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in itertools.pairwise(self.times))
        if len(self.times) < 2 or not rising or self.times[0] != 0 or self.times[-1] != 1:
            raise InputError(
                f"the times of a curve rise from 0 for the first state to 1 for the last, got {self.times}."
            )

    @abstractmethod
    def weights(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The weight of each state at the times ``t`` (...), and its derivative: (..., K) each."""

    def sample(self, x: Tensor, t: Tensor) -> PathSample[Tensor]:
        """The point of each row's curve at its own time, with the curve's velocity there as the target.

        Args:
            x: the states that each curve passes (B, K, ...).
            t: times, of a shape that is a prefix of the shape (B, ...) of one state a row.

        Raises:
            ShapeError: if there is not one state a time, or the shape of ``t`` does not fit.
        """
        if x.dim() < 2 or x.shape[1] != len(self.times):
            raise ShapeError(
                f"this curve passes {len(self.times)} states, (B, {len(self.times)}, ...), got {tuple(x.shape)}."
            )
        states = x.unbind(1)
        value, slope = self.weights(t)
        return PathSample(_mixed(value, states), t, _mixed(slope, states))

    def places(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For each time the number of the piece it lies in, the length of that piece, and the share of it that is
        behind."""
        knots = torch.tensor(self.times, dtype=t.dtype, device=t.device)
        piece = torch.bucketize(t.detach().contiguous(), knots[1:-1], right=True)
        length = knots.diff()[piece]
        return piece, length, (t - knots[piece]) / length


@final
@dataclass(frozen=True)
class Chain(Curve):
    """Straight lines between neighbours: each pair of snapshots by itself. The velocity jumps at the snapshots; there
    the later line counts."""

    def weights(self, t: Tensor) -> tuple[Tensor, Tensor]:
        piece, length, share = self.places(t)
        first, second = _both(piece, len(self.times), t.dtype)
        share, length = share[..., None], length[..., None]
        return first * (1 - share) + second * share, (second - first) / length


@final
@dataclass(frozen=True)
class Spline(Curve):
    """The natural cubic spline: twice continuously differentiable, with no acceleration at its ends. Through two states
    it is a straight line."""

    @cached_property
    def accelerations(self) -> tuple[tuple[float, ...], ...]:
        """The matrix (K, K) from the states to the second derivatives at their times."""
        count = len(self.times)
        gaps = torch.tensor(self.times, dtype=torch.float64).diff()
        # h_(k-1)*a_(k-1) + 2*(h_(k-1) + h_k)*a_k + h_k*a_(k+1) = 6 times the jump of the slope of the chain at k.
        left, right = torch.eye(count, dtype=torch.float64), torch.zeros(count, count, dtype=torch.float64)
        for k in range(1, count - 1):
            before, after = gaps[k - 1], gaps[k]
            left[k, k - 1 : k + 2] = torch.stack([before, 2 * (before + after), after])
            right[k, k - 1 : k + 2] = 6 * torch.stack([1 / before, -1 / before - 1 / after, 1 / after])
        return tuple(map(tuple, torch.linalg.solve(left, right).tolist()))

    def weights(self, t: Tensor) -> tuple[Tensor, Tensor]:
        piece, length, b = self.places(t)
        first, second = _both(piece, len(self.times), t.dtype)
        bends = torch.tensor(self.accelerations, dtype=t.dtype, device=t.device)
        bend, next_bend = bends[piece], bends[piece + 1]
        length, b = length[..., None], b[..., None]
        a = 1 - b
        value = a * first + b * second + length**2 / 6 * ((a**3 - a) * bend + (b**3 - b) * next_bend)
        slope = (second - first) / length + length / 6 * ((3 * b**2 - 1) * next_bend - (3 * a**2 - 1) * bend)
        return value, slope


def _both(piece: Tensor, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The states at the two ends of each piece, as unit vectors (..., K)."""
    units = torch.eye(count, dtype=dtype, device=piece.device)
    return units[piece], units[piece + 1]


def _mixed(weights: Tensor, states: tuple[Tensor, ...]) -> Tensor:
    """``sum_k weights[..., k]*states[k]``."""
    pairs = zip(weights.unbind(-1), states, strict=True)
    return reduce(torch.add, (expand(weight, x).to(x.dtype) * x for weight, x in pairs))
