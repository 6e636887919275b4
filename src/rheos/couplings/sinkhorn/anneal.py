"""Potentials of entropic transport at an epsilon that is given, or at that of an entropy, found by annealing.

Epsilon starts where the plan is nearly independent and falls by as much as the potentials can follow: at each epsilon
they are settled by Newton's steps, and they go on to the next along the line through the last two. The entropy of the
plan is a by-product of every sweep, so that the search for its epsilon is the annealing itself, with a secant at its
end. Where columns are far from their sums a Sinkhorn iteration comes first, which is exact in the logarithm.

Many points begin as the means of cells of a few neighbours, and these as means of such means, so that most sweeps are
of few points. A potential goes on to a finer level as the soft minimum of the other side's, which is defined
everywhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from .gibbs import Gibbs, Sweep
from .newton import Equations, Step

ENTRIES = 1 << 23
"""Entries of the plan that Newton's equations see, at most."""

SETTLED = 2e-3
"""The marginal error at which epsilon may move on."""

FEWEST_NATS = 2.5
"""The entropy of a row at which a coarse level ends; with fewer partners its potentials are those of its cells."""

FIRST_PACE, SLOWEST, FASTEST = 0.7, 0.2, 1.4
"""By how much the logarithm of epsilon moves at a time."""

LEAST_SLOPE = 0.05
"""Nats that a row gains at least when the logarithm of epsilon grows by 1, for the search."""

UNEVEN = 2.5
"""The logarithm of a column's share above which Sinkhorn's iteration comes before Newton's step."""

STARVED = 1e-20
"""The share of a column below which it is lost in rounding."""

FIRST_RADIUS, SMALLEST_RADIUS, LARGEST_RADIUS = 4.0, 0.5, 1e3

KEPT_WELL, KEPT_BADLY = 0.7, 0.25
"""The share of a promised gain above which the radius grows, and below which it shrinks."""

ROUNDING = 1e-7
"""Gains of the dual, in units of epsilon, that rounding can hide."""


class Goal(ABC):
    """Where epsilon is to end."""

    @abstractmethod
    def following(self, known: list[tuple[float, float]], epsilon: float, pace: float) -> float:
        """The next epsilon, which is ``epsilon`` at the goal.

        Args:
            known: the logarithms of past epsilons and the nats of a row there; the last is that of now.
            epsilon: that of now.
            pace: by how much its logarithm may move.
        """

    @abstractmethod
    def coarse(self, cell: float) -> Goal:
        """The goal of a level that is followed by a finer one, of points y that stand for ``cell`` of them each."""


@final
@dataclass(frozen=True)
class Given(Goal):
    """A given epsilon, or one at which a row has but ``least`` nats."""

    epsilon: float
    least: float = 0.0

    def following(self, known: list[tuple[float, float]], epsilon: float, pace: float) -> float:
        move, nats = math.log(self.epsilon / epsilon), known[-1][1]
        if move < 0 and nats <= self.least:
            return epsilon
        if move < 0 and self.least:
            pace = min(pace, max(nats - 0.8 * self.least, 0.0) / _slope(known, self.least))
        return self.epsilon if abs(move) <= pace else epsilon * math.exp(math.copysign(pace, move))

    def coarse(self, cell: float) -> Goal:
        return Given(self.epsilon, FEWEST_NATS)


@final
@dataclass(frozen=True)
class Nats(Goal):
    """The epsilon at which a row has ``nats`` nats, to within a relative ``slack``."""

    nats: float
    slack: float

    def following(self, known: list[tuple[float, float]], epsilon: float, pace: float) -> float:
        missing = self.nats - known[-1][1]
        if abs(missing) <= self.slack * self.nats:
            return epsilon
        return epsilon * math.exp(max(-pace, min(pace, missing / _slope(known, self.nats))))

    def coarse(self, cell: float) -> Goal:
        # A row that is spread over so many points is spread over as many cells less.
        return Nats(max(self.nats - math.log(cell), FEWEST_NATS), 0.1)


def _slope(known: list[tuple[float, float]], nats: float) -> float:
    """The nats that a row gains when the logarithm of epsilon grows by 1, between the last place and the one nearest to
    ``nats`` beyond it, or else the last but one."""
    here, now = known[-1]
    beyond = [place for place in known[:-1] if (place[1] - nats) * (now - nats) < 0]
    there, then = min(beyond, key=lambda place: abs(place[1] - nats)) if beyond else known[-2] if known[1:] else (0, 0)
    if len(known) < 2 or here == there:
        return 1.0
    return max((now - then) / (here - there), LEAST_SLOPE)


@dataclass
class Level:
    """Potentials of two clouds while epsilon anneals.

    Attributes:
        gibbs: the plan.
        g: the potential of y, float64 (m,).
        epsilon: that of now.
        pace: by how much its logarithm moves.
        sweeps: passes over the plan so far.
        error: the marginal error of the last pass.
    """

    gibbs: Gibbs
    g: Tensor
    epsilon: float
    pace: float = FIRST_PACE
    sweeps: int = 0
    error: float = math.inf
    _radius: float = FIRST_RADIUS
    _damping: float = 0.0
    _known: list[tuple[float, float]] = field(default_factory=list)
    _settled: tuple[float, Tensor] | None = None

    def anneal(self, goal: Goal, tolerance: float, sweeps: int) -> Sweep | None:
        """The sweep at the goal with a marginal error below the tolerance; ``None`` when so many sweeps do not do."""
        trial: _Trial | None = None
        moved = evened = False
        while self.sweeps < sweeps:
            sweep = self.gibbs.sweep(self.g, self.epsilon, ENTRIES)
            self.sweeps, self.error = self.sweeps + 1, sweep.error
            if trial is not None:
                again = self._judged(trial, sweep)
                if again is not None:
                    trial = again
                    continue
                trial = None
            if moved:
                self._repace()
            moved = False
            if self.error < max(SETTLED, tolerance):
                known = [*self._known, (math.log(self.epsilon), sweep.entropy)]
                following = goal.following(known, self.epsilon, self.pace)
                if following == self.epsilon and self.error < tolerance:
                    return sweep
                if following != self.epsilon and self.error < SETTLED:
                    self._known, moved, evened = known, True, False
                    self._go_on(following)
                    continue
            uneven = float(sweep.column.clamp(min=STARVED).log().abs().max()) > UNEVEN
            if uneven and not evened:
                self._even_out(sweep)
            else:
                trial = self._tried(_equations(self.gibbs, sweep), sweep, self._damping)
            evened = uneven and not evened
        return None

    def _tried(self, equations: Equations, sweep: Sweep, damping: float) -> _Trial:
        """Take a step of Newton's."""
        step = equations.step(self._radius, damping)
        trial = _Trial(self.g, self._dual(sweep), sweep, equations, step)
        self._damping = step.damping
        self.g = self.g + self.epsilon * torch.from_numpy(step.move).to(self.g)
        return trial

    def _judged(self, trial: _Trial, sweep: Sweep) -> _Trial | None:
        """Widen or narrow the radius by how well a step kept its promise; take a shorter one where it lost."""
        gained = (self._dual(sweep) - trial.dual) / self.epsilon
        kept = gained / trial.step.promise if trial.step.promise > 0 else 0.0
        size = float(abs(trial.step.move).max())
        if kept > KEPT_WELL:
            self._radius = min(max(self._radius, 4 * size), LARGEST_RADIUS)
        elif kept < KEPT_BADLY:
            self._radius = max(size / 4, SMALLEST_RADIUS)
        if gained >= -ROUNDING or sweep.error < trial.sweep.error:
            return None
        self.g = trial.g
        return self._tried(trial.equations, trial.sweep, 9 * self._damping)

    def _even_out(self, sweep: Sweep) -> None:
        """A Sinkhorn iteration; columns that hold too little to be told by take the soft minimum instead."""
        g = self.g - self.epsilon * sweep.column.clamp(min=STARVED).log()
        starved = sweep.column < STARVED
        if bool(starved.any()):
            g[starved] = Gibbs(self.gibbs.y[starved], self.gibbs.x).soft(sweep.f, self.epsilon)
        self.g = g

    def _go_on(self, epsilon: float) -> None:
        """To another epsilon, with the potential on the line through this one and the one before."""
        settled, self._settled = self._settled, (self.epsilon, self.g)
        if settled is not None and abs(settled[0] - self.epsilon) > 0.05 * self.epsilon:
            self.g = self.g + (self.g - settled[1]) * ((epsilon - self.epsilon) / (self.epsilon - settled[0]))
        self.epsilon = epsilon

    def _repace(self) -> None:
        if self.error > 0.35:
            self.pace = max(0.6 * self.pace, SLOWEST)
        elif self.error < 0.15:
            self.pace = min(1.5 * self.pace, FASTEST)

    def _dual(self, sweep: Sweep) -> float:
        return float(sweep.f.mean() + self.g.mean())


@dataclass(frozen=True)
class _Trial:
    """A step that was taken, from where, and what it may be taken again from."""

    g: Tensor
    dual: float
    sweep: Sweep
    equations: Equations
    step: Step


def _equations(gibbs: Gibbs, sweep: Sweep) -> Equations:
    assert sweep.entries is not None
    column = sweep.column * (len(gibbs.x) / len(gibbs.y))
    return Equations(sweep.entries, column.cpu().numpy())
