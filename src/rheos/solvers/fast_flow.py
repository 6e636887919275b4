r"""FastFlow (Bajpai et al. 2026, arXiv 2602.11105): a bandit at each step learns how many evaluations may be left out.

Along a fine grid of T steps, once v_k is evaluated an arm a says how many steps are skipped. In these the velocity is

    v = v_k + (t - t_k)*(v_k - v_p)/(t_k - t_p),

from the last two true velocities, and Euler's rule makes the steps. At the next true velocity the arm that was played
at step k earns the reward ``mu*a - MSE(guess, truth)``. The bandit of step k is played by the upper confidence bound

    argmax_a Q_k(a) + gamma*sqrt(log(n_k)/N_k(a)),

with Q the mean reward, N the times that an arm was played and n their sum; arms that were never played come first.

The first generation sets mu to its greatest MSE over T. It skips nothing, and so it knows what every arm would have
lost at every step: all of them count as played, and the greatest is taken over all. (Over the guesses for one step
ahead alone, mu is so small that a bandit learns to skip nothing.)
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from ..core.errors import CheckpointError, InputError
from ..core.protocols import Dynamics
from .skipped_euler import SkippedEuler
from .skipping import Seen, Skipped, Skipping

VERSION = 1

ARMS = (0, 2, 4, 6)
"""The paper's."""

BEND = 8.0
"""How many times the loss of others a sample is taken to have at most."""


@final
@dataclass(frozen=True)
class Bandit:
    """What was learned of each step of a grid. ``Bandit.fresh(50)`` knows nothing.

    Args:
        arms: numbers of steps to skip, 0 first, going up.
        counts: how often each arm was played, a row a step.
        means: their mean rewards, a row a step.
        mu: the reward of a skipped step; ``None`` before the first generation.

    Raises:
        InputError: if the arms are not in order from 0, or the tables do not fit them.
    """

    arms: tuple[int, ...]
    counts: tuple[tuple[int, ...], ...]
    means: tuple[tuple[float, ...], ...]
    mu: float | None = None

    def __post_init__(self) -> None:
        if not self.arms or self.arms[0] != 0 or any(a >= b for a, b in zip(self.arms, self.arms[1:], strict=False)):
            raise InputError(f"the arms of a bandit go up from 0, got {self.arms}.")
        rows = (*self.counts, *self.means)
        if not self.counts or len(self.counts) != len(self.means) or any(len(row) != len(self.arms) for row in rows):
            raise InputError(f"a bandit has a count and a mean reward for each of {len(self.arms)} arms at each step.")
        if any(count < 0 for row in self.counts for count in row) or not all(math.isfinite(q) for r in rows for q in r):
            raise InputError("the counts of a bandit are not negative, and its rewards finite.")
        if self.mu is not None and not 0 <= self.mu < math.inf:
            raise InputError(f"mu is the reward of a skipped step, at least 0, got {self.mu}.")

    @staticmethod
    def fresh(steps: int, arms: Sequence[int] = ARMS, mu: float | None = None) -> Bandit:
        """A bandit that has played nothing.

        Args:
            steps: of the grid.
            arms: numbers of steps to skip.
            mu: the reward of a skipped step; the first generation sets it when left out.
        """
        nothing = (0,) * len(arms)
        return Bandit(tuple(arms), (nothing,) * steps, (tuple(map(float, nothing)),) * steps, mu)

    @property
    def steps(self) -> int:
        return len(self.counts)

    def open_to(self, step: int) -> range:
        """The arms, by place, after which there is another step to evaluate."""
        return range(sum(step + skipped + 1 < self.steps for skipped in self.arms))

    def reward(self, arm: int, loss: float) -> float:
        """``mu*a - loss`` of the arm at this place."""
        return (self.mu or 0.0) * self.arms[arm] - loss

    def best(self, step: int, bend: float = 1.0) -> int:
        """The place of the arm with the greatest mean reward among those played; that which skips nothing if none was.

        Args:
            step: the number of a step that is not the last.
            bend: how many times the mean loss of each arm is expected.
        """
        played = [arm for arm in self.open_to(step) if self.counts[step][arm]]
        return max(played, key=lambda arm: self._expected(step, arm, bend), default=0)

    def explore(self, step: int, gamma: float, bend: float = 1.0, pending: Sequence[int] = ()) -> int:
        """The place of the arm with the greatest upper confidence bound.

        Args:
            step: the number of a step that is not the last.
            gamma: the weight of what is not known, in units of the reward.
            bend: as for :meth:`best`.
            pending: how often each arm is being played, with rewards to come.
        """
        pending = pending or [0] * len(self.arms)
        played = [count + more for count, more in zip(self.counts[step], pending, strict=True)]
        unknown = [arm for arm in self.open_to(step) if not self.counts[step][arm]]
        if unknown:
            return min(unknown, key=lambda arm: played[arm])
        total = math.log(sum(played))
        return max(
            self.open_to(step),
            key=lambda arm: self._expected(step, arm, bend) + gamma * math.sqrt(total / played[arm]),
        )

    def expected_loss(self, step: int, arm: int) -> float:
        """The mean loss of an arm, which its mean reward implies."""
        return self.reward(arm, 0.0) - self.means[step][arm]

    def _expected(self, step: int, arm: int, bend: float) -> float:
        return self.reward(arm, bend * self.expected_loss(step, arm))

    def rewarded(self, step: int, arm: int, reward: float) -> Bandit:
        """With one more play of the arm at this place."""
        count, mean = self.counts[step][arm] + 1, self.means[step][arm]
        counts = _put(self.counts[step], arm, count)
        means = _put(self.means[step], arm, mean + (reward - mean) / count)
        return replace(self, counts=_put(self.counts, step, counts), means=_put(self.means, step, means))

    def priced(self, mu: float) -> Bandit:
        """With what is skipped rewarded by ``mu``, in the means too."""
        more = mu - (self.mu or 0.0)
        means = tuple(
            tuple(mean + more * skipped * bool(count) for mean, count, skipped in zip(q, n, self.arms, strict=True))
            for q, n in zip(self.means, self.counts, strict=True)
        )
        return replace(self, means=means, mu=mu)

    def points(self, opening: int = 2) -> tuple[bool, ...]:
        """Which steps are evaluated when every step plays its best arm.

        Args:
            opening: steps at the beginning that are evaluated in any case.
        """
        found, step = [False] * self.steps, 0
        while step < self.steps:
            found[step] = True
            last = step == self.steps - 1
            step += 1 if last or step < opening - 1 else 1 + self.arms[self.best(step)]
        return tuple(found)

    def solver(self, grid: Tensor) -> SkippedEuler[Tensor]:
        """What :class:`FastFlow` does by this bandit when it learns no more and arms are shared, as a solver that knows
        its points beforehand and waits for nothing. Integrate along its own ``grid``.

        Args:
            grid: the fine grid, with a velocity that is determined at its beginning.

        Raises:
            InputError: if the grid has another number of steps.
        """
        self.require_steps(grid)
        return SkippedEuler(tuple(grid.tolist()), tuple(step for step, due in enumerate(self.points()) if due))

    def require_steps(self, grid: Tensor) -> None:
        """Refuse a grid of another number of steps."""
        if len(grid) - 1 != self.steps:
            raise InputError(
                f"this bandit has learned {self.steps} steps, and the grid has {len(grid) - 1}; sample along a grid of "
                "as many, or let a fresh one learn."
            )

    def to_json(self) -> str:
        """The bandit as text."""
        content = {
            "format": "rheos bandit",
            "version": VERSION,
            "steps": self.steps,
            "arms": self.arms,
            "mu": self.mu,
            "counts": self.counts,
            "means": self.means,
        }
        return json.dumps(content, indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> Bandit:
        """The bandit that :meth:`to_json` wrote.

        Raises:
            CheckpointError: if it is none, damaged, or of another version.
        """
        try:
            content = json.loads(text)
            if content["format"] != "rheos bandit" or content["version"] != VERSION:
                raise CheckpointError(
                    f"this is no bandit of version {VERSION}: {content['format']!r}, version {content['version']!r}."
                )
            bandit = Bandit(
                tuple(map(int, content["arms"])),
                tuple(tuple(map(int, row)) for row in content["counts"]),
                tuple(tuple(map(float, row)) for row in content["means"]),
                None if content["mu"] is None else float(content["mu"]),
            )
            if bandit.steps != content["steps"]:
                raise InputError(f"it has {bandit.steps} steps where it should have {content['steps']}")
        except CheckpointError:
            raise
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise CheckpointError(f"the bandit is damaged ({error!r}); let it learn anew.") from error
        return bandit


def _put(row: tuple[Any, ...], place: int, value: Any) -> tuple[Any, ...]:
    return (*row[:place], value, *row[place + 1 :])


def _loss(guess: Tensor, velocity: Tensor) -> Tensor:
    """The mean squared error of every row, float64 (B,) on the CPU."""
    return (guess - velocity).flatten(1).double().square().mean(1).cpu()


class Playing(NamedTuple):
    """What FastFlow remembers, on the host; tensors have one entry a sample.

    Attributes:
        bandit: with what this walk has learned so far.
        due: the step that is evaluated next.
        since: the step at which the arm was chosen.
        arm: its place.
        bend: how many times the loss of others a sample had at its last evaluation; 1 where arms are shared.
        past: in the first generation, the latest velocities and their times, the latest first.
        worst: in the first generation, the greatest loss so far.
    """

    bandit: Bandit
    due: Tensor
    since: Tensor
    arm: Tensor
    bend: Tensor
    past: tuple[tuple[Tensor, Tensor], ...] = ()
    worst: float = 0.0


@final
@dataclass(frozen=True)
class FastFlow(Skipping[Playing]):
    """FastFlow: the steps of Euler's rule on the grid of its bandit, most of them without an evaluation.

    Evaluated in any case: the first two steps whose velocity is determined, and the last. The host decides, and waits
    for every evaluation to end.

    Without ``learning`` every step plays its best arm, and nothing is changed or drawn: the same noise gives the same
    samples. With it, ``solution.memory.own.bandit`` is the bandit of the next generation.

    Args:
        bandit: what was learned of this model on such a grid.
        learning: whether to explore, and to learn from the rewards.
        each: whether every sample has its own arms, and earns its own rewards; else one arm is played for the batch, as
            in the paper, with the mean loss. The bandits are shared in either case. What distinguishes a sample is its
            last loss: where it was above the mean one, losses ahead are expected to be above by the same factor.
        gamma: the weight of what is not known, in units of the reward; the paper's is 2. Rewards are of the size of mu
            times an arm, so that a smaller one explores for a shorter time.

    Raises:
        InputError: if gamma is negative; from ``start``, on a grid of another number of steps.
    """

    bandit: Bandit
    learning: bool = False
    each: bool = False
    gamma: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < math.inf:
            raise InputError(f"gamma is at least 0, got {self.gamma}.")

    def evaluations(self, steps: int) -> int:
        """How many a sample takes where arms are shared and frozen, and at most ``steps`` elsewhere; one more where the
        first velocity is not determined."""
        return steps if self.learning or self.each else sum(self.bandit.points())

    def steps(self, evaluations: int) -> int:
        """The steps of the bandit, whatever more is allowed.

        Raises:
            InputError: if it may take more.
        """
        if evaluations < (least := self.evaluations(self.bandit.steps)):
            raise InputError(f"this bandit takes up to {least} evaluations, and {evaluations} are allowed.")
        return self.bandit.steps

    def start(self, dynamics: Dynamics[Tensor], x: Tensor, grid: Tensor) -> Skipped[Playing]:
        self.bandit.require_steps(grid)
        return super().start(dynamics, x, grid)

    def begin(self, rows: int, steps: int) -> Playing:
        nothing = torch.zeros(rows, dtype=torch.int64)
        return Playing(self.bandit, nothing, nothing, nothing, torch.ones(rows, dtype=torch.float64))

    def due(self, memory: Skipped[Playing], t: Tensor) -> Tensor:
        return memory.own.due == memory.place

    def guess(self, seen: Seen, t: Tensor) -> Tensor:
        return seen.extrapolated(t)

    def after(self, memory: Skipped[Playing], rows: Tensor, guess: Tensor, velocity: Tensor, t: Tensor) -> Playing:
        own, place, first = memory.own, memory.place, memory.opening - 1
        if not bool(rows.any()):
            return own
        if self.learning and self.bandit.mu is None:
            return self._taught(own, velocity, t, place, first, memory.last)
        if place > first:
            own = self._judged(own, rows, _loss(guess, velocity))
        return own if memory.last or place < first else self._played(own, rows, place)

    def _taught(self, own: Playing, velocity: Tensor, t: Tensor, place: int, first: int, last: bool) -> Playing:
        """A step of the first generation, in which nothing is skipped."""
        bandit, worst = own.bandit, own.worst
        for arm, skipped in enumerate(bandit.arms):
            step = place - skipped - 1
            if step < first:
                break
            (latest, at), (before, prior) = own.past[skipped : skipped + 2]
            losses = _loss(latest + (t - at) / (at - prior) * (latest - before), velocity)
            losses = losses if self.each else losses.mean(0, keepdim=True)
            for loss in losses.tolist():
                bandit, worst = bandit.rewarded(step, arm, -loss), max(worst, loss)
        if last:
            return own._replace(bandit=bandit.priced(worst / bandit.steps), past=())
        past = ((velocity, t), *own.past)[: bandit.arms[-1] + 2]
        return own._replace(bandit=bandit, worst=worst, past=past, due=torch.full_like(own.due, place + 1))

    def _judged(self, own: Playing, rows: Tensor, losses: Tensor) -> Playing:
        """The losses (B,) of these rows are known."""
        losses = losses if self.each else losses.mean().expand_as(losses)
        bandit, bend = own.bandit, own.bend.clone()
        for row in self._players(rows):
            step, arm, loss = int(own.since[row]), int(own.arm[row]), float(losses[row])
            if self.each:
                usual = own.bandit.expected_loss(step, arm) if own.bandit.counts[step][arm] else 0.0
                bend[row] = min(max(loss / usual, 1.0), BEND) if usual > 0 else 1.0
            if self.learning:
                bandit = bandit.rewarded(step, arm, bandit.reward(arm, loss))
        return own._replace(bandit=bandit, bend=bend)

    def _played(self, own: Playing, rows: Tensor, step: int) -> Playing:
        """An arm is chosen for these rows at a step."""
        bandit, pending = own.bandit, [0] * len(own.bandit.arms)
        arm = own.arm.clone()
        for row in self._players(rows):
            bend = float(own.bend[row])
            chosen = bandit.explore(step, self.gamma, bend, pending) if self.learning else bandit.best(step, bend)
            pending[chosen] += 1
            arm[row if self.each else rows] = chosen
        skipped = torch.tensor(bandit.arms)[arm]
        return own._replace(
            arm=arm, since=own.since.masked_fill(rows, step), due=torch.where(rows, step + 1 + skipped, own.due)
        )

    def _players(self, rows: Tensor) -> list[int]:
        """The samples that play: each of the rows, or the first for all."""
        found = rows.nonzero()[:, 0].tolist()
        return found if self.each else found[:1]
