r"""Stochastic ascent on the dual of semidiscrete transport.

The potentials maximise the concave ``E min_j (|x0 - x_j|**2 - g_j) + sum_j w_j g_j``, whose gradient in g_j is
``w_j - p_j``: what a point weighs, less the mass of its cell (Genevay et al. 2016). With ``h_j = (g_j - |x_j|**2)/2``
the cell of j is where ``x0 . x_j + h_j`` is largest. Each step counts the cells that fresh noise falls into, and lowers
h where too much fell.

- The start is the best of several. Three are closed forms for centred points: Voronoi cells; the potential between two
  normal distributions, ``-x^T S^(-1/2) x / 2`` for points of covariance S; and the level at which points that compete
  as strangers are met equally often, ``-z |x|`` with the normal quantile z of 1/n. Many dimensions want the last one.
  In three dimensions or fewer, where stochastic steps take very long to move mass far, another is the entropic plan
  between some thousand noises and the means of cells of the points, continued to all of them.
- Steps are long at first and shrink while the chi-squared of the iterates no longer falls by itself, until it is below
  1. Their unit is the median distance between the best and the second score, which is how far a potential may move
  before its cell changes by its own size.
- From then on the iterates are averaged (Polyak and Juditsky 1992). After T noises the average has a chi-squared of
  about n/T, whatever the dimension, and no other use of T counts does better. So T is about n/target.
- If the average does not come down like that, it began too soon and begins again; the second time the steps had shrunk
  too soon, and they grow again and shrink half as fast.

``chi**2 = sum_j (p_j - w_j)**2 / w_j`` is estimated without bias from M fresh noises by ``sum_j n_j (n_j - 1) / (w_j M
(M - 1)) - 1``, with a standard error of about ``sqrt(2 n)/M``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from scipy.stats import norm
from torch import Tensor

from ...core.errors import UndeterminedError
from ..sinkhorn.anneal import Nats
from ..sinkhorn.cells import means, ordered
from ..sinkhorn.gibbs import BLOCK, Gibbs
from ..sinkhorn.levels import spread, transport
from .blocks import NOWHERE
from .dense import Lookup
from .measure import PRECISION, Measured, Noise, chi_squared, visited

READY = 1.0
"""The chi-squared of the iterates at which averaging begins."""

SHRINK = 0.7
"""By what a step shrinks after a stage in which chi-squared fell by less."""

FEW = 3
"""Dimensions in which far points hardly compete, so that errors over long distances take long to vanish."""

SOUNDED, CELLS = 1 << 15, 11
"""Noises that the start sees, and in few dimensions the depth of the cells of points that it sees."""


class Search(Protocol):
    """A way to find the point with the largest score."""

    def at(self, h: Tensor) -> Lookup:
        """The search with h, float64 (n,)."""
        ...


@dataclass(frozen=True)
class Limits:
    """When to stop: at a chi-squared of ``target``, or after ``steps`` of at most ``batch`` noises."""

    target: float
    steps: int
    batch: int


class Ascent:
    """The state of an ascent.

    Args:
        points: (n, d).
        weights: of the points, float64 (n,).
        search: finds the best of the points.
        noise: what the steps draw.
        limits: when to stop.
    """

    def __init__(self, points: Tensor, weights: Tensor, search: Search, noise: Noise, limits: Limits) -> None:
        self.points, self.weights, self.search, self.noise, self.limits = points, weights, search, noise, limits
        self.batch = max(2, min(limits.batch, max(64, len(points) // 8)))
        # A batch moves no potential by more than it would if it were an eighth of the points.
        self.move = min(1 / 8, self.batch / len(points))
        self.left, self.drawn = limits.steps, 0
        self.h = torch.zeros_like(weights)

    def run(self, measure: Callable[[Tensor], Measured]) -> tuple[Tensor, Measured]:
        """Potentials h (n,) and what they measure."""
        count = len(self.points)
        if count == 1:
            return self.h, measure(self.h)
        self.h = self._start()
        step = 2 * gap(self.points, self.h, self._draw(256))
        pace = 8 if self.points.shape[1] <= FEW else 1
        again = False
        while True:
            step = self._anneal(step, pace)
            mean, found, step = self._average(step, pace, measure)
            if found.chi_squared <= self.limits.target or self.left <= 0:
                return mean, found
            if again:
                self.h, step, pace = mean, 8 * step, 2 * pace
            again = not again

    def _anneal(self, step: float, pace: int) -> float:
        """Shrink the step until chi-squared is small; gives the last step."""
        last = math.inf
        while self.left > 0:
            found, _ = self._stage(step, pace)
            if found < READY:
                break
            if found > SHRINK * last:
                step *= SHRINK
            last = found
        return step

    def _average(self, step: float, pace: int, measure: Callable[[Tensor], Measured]) -> tuple[Tensor, Measured, float]:
        """Average the iterates until they meet the target, or are seen not to; gives the last step too."""
        count, goal = len(self.points), (1 - PRECISION) * self.limits.target
        mean, seen, due, start = self.h, 0, 1.05 * count / goal, self.left
        while True:
            before, length = self.left, step / math.sqrt(1 + (start - self.left) * self.move / 4)
            _, stage = self._stage(length, pace)
            fresh = (before - self.left) * self.batch
            seen += fresh
            mean = mean + (stage - mean) * (fresh / max(1, seen))
            if seen < due and self.left > 0:
                continue
            found = measure(mean)
            if found.chi_squared <= goal or self.left <= 0 or found.chi_squared > 2.5 * count / seen:
                return mean, found, length
            due = 1.1 * seen

    def _stage(self, step: float, pace: int) -> tuple[float, Tensor]:
        """Steps of one length, ``pace`` noises a point if these are many; gives the mean chi-squared of the iterates,
        and their mean."""
        count = len(self.points)
        steps = min(self.left, math.ceil(pace / self.move))
        length = step * self.move * count / self.batch
        found, total = 0.0, torch.zeros_like(self.h)
        for _ in range(steps):
            visits = visited(self.search.at(self.h)(self._draw(self.batch)), count)
            found += chi_squared(visits, self.weights)
            total += self.h
            self.h = self.h + length * (self.batch * self.weights - visits)
        self.left -= steps
        if not bool(torch.isfinite(self.h).all()):
            raise UndeterminedError(
                "the potentials are no longer finite: the noise is not, or the data are too large; scale them to about "
                "-1 ... 1."
            )
        return found / max(1, steps), total / max(1, steps)

    def _start(self) -> Tensor:
        # The closed forms take the mean and the spread of the noise from it, and steps are slow to mend these.
        noise = self._draw(max(2 * self.batch, SOUNDED))
        found, noise = starts(self.points, noise), noise[: 2 * self.batch]
        if self.points.shape[1] <= FEW:
            found.append(smooth(self.points, self.weights, self._draw(min(SOUNDED, 32 * len(self.points)))))
        return min(found, key=lambda h: chi_squared(self._visits(h, noise), self.weights))

    def _visits(self, h: Tensor, noise: Tensor) -> Tensor:
        return visited(self.search.at(h)(noise), len(self.points))

    def _draw(self, count: int) -> Tensor:
        self.drawn += count
        return self.noise(self.drawn - count, count)


def starts(points: Tensor, noise: Tensor) -> list[Tensor]:
    """Potentials h (n,) in closed form, which take noise (B, d) for normal and alike in all directions."""
    x, middle = points - points.mean(0), noise.mean(0)
    spread = float((noise - middle).square().mean().sqrt())
    squares = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64).square()
    found = [-squares / 2, -spread * float(norm.isf(1 / len(x))) * squares.sqrt()]
    if x.shape[1] <= 64:
        wide = x.double()
        variance, axes = torch.linalg.eigh(wide.T @ wide / len(x))
        roots = variance.clamp_min(1e-12 * float(variance[-1])).sqrt()
        # Along an axis on which all points are one there is nothing to transport.
        roots = roots.where(roots > 0, torch.ones_like(roots))
        found.append(-spread * ((wide @ axes).square() / roots).sum(1) / 2)
    return [h - (x @ middle).double() for h in found]


def smooth(points: Tensor, weights: Tensor, noise: Tensor) -> Tensor:
    """Potentials h (n,) that spread noise (B, d) evenly over cells of neighbours, in few dimensions."""
    points, noise = points.double(), noise.double()
    # Cells hold equally many rows, so a point counts as often as it weighs.
    rows = points.repeat_interleave((weights / weights.min()).round().long(), 0)
    if len(rows) > 1 << CELLS:
        rows = means(rows[ordered(rows, CELLS)], CELLS)
    if spread(noise, rows) == 0.0:
        return torch.zeros_like(weights)
    found = transport(noise, rows, Nats(1.0, 0.2), 0.02, 100, BLOCK, None)
    g = Gibbs(points, noise).soft(found.f, found.epsilon)
    return (g - points.square().sum(1)) / 2


def gap(points: Tensor, h: Tensor, noise: Tensor) -> float:
    """The median distance between the best and the second score of noise (B, d)."""
    first = torch.full((len(noise),), NOWHERE, dtype=points.dtype, device=points.device)
    second = first.clone()
    for x, level in zip(points.split(1 << 14), h.to(points.dtype).split(1 << 14), strict=True):
        top = torch.addmm(level, noise, x.T).topk(min(2, len(x)), 1).values
        both = torch.cat([first[:, None], second[:, None], top], 1).topk(2, 1).values
        first, second = both.unbind(1)
    return float((first - second).median())
