"""Evaluate or guess: what the solvers share that walk along a fine grid and evaluate at some of its points only.

Which points these are may differ from sample to sample. Then the rows that are due go through the network as a smaller
batch, with their own rows of the condition, and the others are carried along what was guessed for them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar, final

import torch
from torch import Tensor

from ..core.condition import Cond, take
from ..core.errors import InputError
from ..core.protocols import Dynamics, Model, Step, over
from ..core.rng import Rng
from ..core.time import factor
from .base import FixedStep, require_flow, require_rates

P = TypeVar("P")
"""What a rule remembers of its own."""


class Seen(NamedTuple):
    """The last two true velocities of every row (B, ...) and their times (B,)."""

    latest: Tensor
    before: Tensor
    at: Tensor
    prior: Tensor

    def extrapolated(self, t: Tensor) -> Tensor:
        """``v_k + (t - t_k)*(v_k - v_p)/(t_k - t_p)``; the latest itself where there is no earlier one."""
        gap = self.at - self.prior
        share = torch.where(gap == 0, 0.0, (t - self.at) / torch.where(gap == 0, 1.0, gap))
        return self.latest + factor(share, self.latest) * (self.latest - self.before)

    def change(self) -> Tensor:
        """The L1 change between the two over the L1 size of the latest and over the time between them, (B,)."""
        moved = (self.latest - self.before).flatten(1).abs().sum(1)
        size = self.latest.flatten(1).abs().sum(1)
        gap = (self.at - self.prior).abs()
        return torch.where(size * gap == 0, 0.0, moved / torch.where(size * gap == 0, 1.0, size * gap))

    def updated(self, rows: Tensor, velocity: Tensor, t: Tensor) -> Seen:
        """With a velocity at ``t`` in the rows where it was evaluated."""
        if not bool(rows.any()):
            return self
        mine = rows.to(self.at.device)
        wide = mine.view(-1, *(1,) * (velocity.dim() - 1))
        return Seen(
            torch.where(wide, velocity, self.latest),
            torch.where(wide, self.latest, self.before),
            torch.where(mine, t, self.at),
            torch.where(mine, self.at, self.prior),
        )


class Skipped(NamedTuple, Generic[P]):
    """What a solver that skips remembers.

    Attributes:
        seen: the last true velocities.
        place: the number of the next step.
        then: the time at which the last one began.
        opening: steps at the beginning in which everything is evaluated: two whose velocities are determined.
        points: where each row was evaluated, bools (B, N) on the CPU; ``points.sum(1)`` is its cost.
        own: what the rule remembers besides.
    """

    seen: Seen
    place: int
    then: Tensor
    opening: int
    points: Tensor
    own: P

    @property
    def last(self) -> bool:
        """Whether the next step is the last."""
        return self.place == self.points.shape[1] - 1


@dataclass(frozen=True)
class Skipping(FixedStep[Tensor], Generic[P]):
    """Euler's steps along a fine grid, with velocities that are evaluated where they are due and guessed elsewhere.

    What is due is decided on the host, which waits for the last velocity to be there. To add a rule, write ``begin``,
    ``due``, ``guess`` and ``after``.
    """

    def evaluations(self, steps: int) -> int:
        """At most so many on a grid of ``steps`` steps; ``memory.points`` tells how many there were."""
        return steps

    @abstractmethod
    def begin(self, rows: int, steps: int) -> P:
        """What the rule remembers before the first step of a batch."""

    @abstractmethod
    def due(self, memory: Skipped[P], t: Tensor) -> Tensor:
        """Which rows are to be evaluated at ``t``, bools (B,) on the CPU. Not asked in the opening."""

    @abstractmethod
    def guess(self, seen: Seen, t: Tensor) -> Tensor:
        """The velocities (B, ...) at ``t`` in the rows that are not."""

    @abstractmethod
    def after(self, memory: Skipped[P], rows: Tensor, guess: Tensor, velocity: Tensor, t: Tensor) -> P:
        """What the rule remembers once the velocities of these rows are known. ``memory`` is that before the step but
        for ``seen``, which is up to date."""

    def start(self, dynamics: Dynamics[Tensor], x: Tensor, grid: Tensor) -> Skipped[P]:
        require_rates(self, dynamics, x)
        require_flow(self, dynamics, "guesses the velocity of a Flow")
        known = dynamics.determined(grid[:-1])
        unknown = 0 if known is None else int((~known).sum())
        steps, rows = len(grid) - 1, x.shape[0]
        at = grid[0].expand(rows).clone()
        seen = Seen(torch.zeros_like(x), torch.zeros_like(x), at, at.clone())
        points = torch.zeros(rows, steps, dtype=torch.bool)
        return Skipped(seen, 0, grid[0], 2 + unknown, points, self.begin(rows, steps))

    def step(
        self,
        dynamics: Dynamics[Tensor],
        x: Tensor,
        t: Tensor,
        s: Tensor,
        memory: Skipped[P] | tuple[()] = (),
        rng: Rng | None = None,
    ) -> Step[Tensor]:
        if not isinstance(memory, Skipped):
            raise InputError(
                f"{type(self).__name__} decides by what it remembers; begin with start(dynamics, x, grid)."
            )
        opening = memory.place < memory.opening
        rows = torch.ones(x.shape[0], dtype=torch.bool) if opening else self.due(memory, t)
        guess = self.guess(memory.seen, t)
        velocity = evaluated(rows, dynamics, x, t, s, guess)
        points = memory.points.clone()
        points[:, memory.place] = rows
        memory = memory._replace(seen=memory.seen.updated(rows, velocity, t), points=points)
        own = self.after(memory, rows, guess, velocity, t)
        return Step(dynamics.move(x, velocity, t, s, rng), s, memory._replace(place=memory.place + 1, then=t, own=own))


@final
@dataclass(frozen=True)
class Rows:
    """A network for some rows of a batch whose condition has all of them."""

    model: Model
    rows: Tensor

    def __call__(self, x: Tensor, t: Tensor, cond: Cond | None = None) -> Any:
        return self.model(x, t) if cond is None else self.model(x, t, take(cond, self.rows))

    def over(self, wrap: Callable[[Model], Model]) -> Model:
        return Rows(over(self.model, wrap), self.rows)


def evaluated(rows: Tensor, dynamics: Dynamics[Tensor], x: Tensor, t: Tensor, s: Tensor, guess: Tensor) -> Tensor:
    """The rate at (x, t) in the ``rows``, bools (B,) on the CPU, and the guess (B, ...) in the others: one evaluation
    of so many rows, or none."""
    if bool(rows.all()):
        return dynamics.rate(x, t, s)
    if not bool(rows.any()):
        return guess
    index = rows.nonzero()[:, 0].to(x.device)
    # The condition is fixed further out, so its rows are taken where it arrives: at the networks themselves.
    part = dynamics.over(lambda model: over(model, lambda network: Rows(network, index)))
    return guess.index_copy(0, index, part.rate(x[index], t, s))
