r"""Fitting a rule to a field: step by step first, then all coefficients and times together.

The first stage walks on the rule's own states and fits each step around Adams-Bashforth 3 towards the exact state, for
grids of several powers. The second is Levenberg's and Marquardt's method for the error at the end *and* on the way: an
error at the end alone does not see a trajectory that goes over to another mode, which happens midway.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..adams_bashforth import coefficients
from .field import Field, Figures, Reference
from .rule import HISTORY, Rule

POWERS = (0.6, 0.8, 1.0, 1.3, 1.6, 2.2, 3.0)
"""Of the grids ``(n/N)**q`` that are tried."""

RIDGE = 1e-5
"""By which the fit of a step is held near Adams-Bashforth, in units of the squares of what it combines."""

SOME, LEAST, MEMORY = 8, 8, 0.7
"""Iterations that the effort should pay for, the fewest draws of a part, and what is kept of the parts before."""

TRIES = 5
"""Dampings that are tried in an iteration."""

COST = 3
"""Slopes cost so many times the square of the steps for each draw."""

STRIDE = 0.3
"""The share of the gap beside it by which a time may move in one iteration."""


@final
@dataclass
class Draft:
    """A rule that is being fitted: times (..., N+1) and rows (..., N, 5), float64."""

    times: Tensor
    rows: Tensor

    @property
    def rule(self) -> Rule:
        times = [0.0, *self.times[1:-1].tolist(), 1.0]
        return Rule(tuple(times), tuple(map(tuple, self.rows.tolist())))


def power_grid(steps: int, power: float, device: torch.device) -> Tensor:
    """``(n/N)**power``, float64."""
    return (torch.arange(steps + 1, dtype=torch.float64, device=device) / steps) ** power


def adams_bashforth(times: Tensor, order: int = 3) -> Tensor:
    """The rows of Adams-Bashforth on a grid."""
    rows = torch.zeros(len(times) - 1, 1 + HISTORY, dtype=torch.float64, device=times.device)
    weights = coefficients(times.tolist(), [True] * len(times), order)
    rows[:, 1 : 1 + order] = torch.tensor(weights, dtype=torch.float64)
    return rows


def ends(draft: Draft, field: Field) -> Tensor:
    """The states (N+1, B, D) on the way of a rule."""
    states, rates = [field.x0], []
    for n, gap in enumerate(draft.times.diff()):
        rates = [field(states[-1], draft.times[n].expand(len(field))), *rates[: HISTORY - 1]]
        states.append(_stepped(states[-1], rates, draft.rows[n], gap))
    return torch.stack(states)


def _stepped(x: Tensor, rates: list[Tensor], row: Tensor, gap: Tensor) -> Tensor:
    """A step of states (..., B, D), with rows (..., 5) and gaps (...)."""
    moved = sum(row[..., 1 + j, None, None] * rate for j, rate in enumerate(rates))
    return (1 + row[..., 0, None, None]) * x + gap[..., None, None] * moved


def step_by_step(grids: Iterable[Tensor], field: Field, exact: Reference) -> Draft:
    """The rule whose steps are fitted one after the other, on the best of some grids."""
    drafts = [_greedy(grid, field, exact) for grid in grids]
    return min(drafts, key=lambda draft: Figures.of(ends(draft, field)[-1], exact).together)


def _greedy(times: Tensor, field: Field, exact: Reference) -> Draft:
    rows = adams_bashforth(times)
    x, rates = field.x0, []
    for n, gap in enumerate(times.diff()):
        rates = [field(x, times[n].expand(len(field))), *rates[: HISTORY - 1]]
        rest = exact.at(times[n + 1 : n + 2])[0] - _stepped(x, rates, rows[n], gap)
        error = rest.square().sum(1)
        weight = (error + error.median() + 1e-30) ** -0.5
        parts = torch.stack([x, *(gap * rate for rate in rates)])
        gram = torch.einsum("ibd,jbd,b->ij", parts, parts, weight)
        pull = torch.einsum("ibd,bd,b->i", parts, rest, weight)
        held = gram + RIDGE * torch.diag(gram.diagonal() + 1e-30)
        rows[n, : len(parts)] += torch.linalg.solve(held, pull)
        x = _stepped(x, rates, rows[n], gap)
    return Draft(times, rows)


@final
@dataclass(frozen=True)
class Aim:
    """What the second stage makes small.

    Args:
        power: errors of draws count by this power, 2 for squares; 1 heeds outliers less.
        way: the weight of errors on the way beside that at the end; never 0.
    """

    power: float
    way: float


@final
@dataclass(frozen=True)
class Target:
    """What a rule is fitted to.

    Args:
        field: the velocity.
        exact: where its draws go.
        aim: what is made small.
        share: its weight beside other targets.
    """

    field: Field
    exact: Reference
    aim: Aim
    share: float = 1.0

    @property
    def epsilon(self) -> float:
        """The size of differences, which have to stand out from what the model rounds."""
        return 1e-5 if self.field.precise else 1e-3

    def rest(self, draft: Draft) -> Tensor:
        """What is left at every state, weighed: (N, B, D)."""
        return self._weighed((ends(draft, self.field)[1:] - self.exact.at(draft.times[1:])) / self.exact.scale)

    def _weighed(self, left: Tensor) -> Tensor:
        left[:-1] *= self.way(len(left))
        return left

    def way(self, steps: int) -> float:
        """The weight of each error on the way."""
        return self.aim.way / math.sqrt(max(1, steps - 1))

    def weight(self, rest: Tensor) -> Tensor:
        """Of every draw (B,), with its share; the mean is the share."""
        square = rest.square().sum((0, 2))
        weight = (square + square.median() + 1e-30) ** (-(2 - self.aim.power) / 2)
        return self.share * weight / weight.mean()

    @staticmethod
    def cost(rest: Tensor, weight: Tensor) -> float:
        return float((rest.square().sum((0, 2)) * weight).sum())

    def slopes(self, changed: Changed, rest: Tensor, weight: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """The products of slopes with each other (P, P) and with what is left (P,) for some of the draws: only the
        steps after the one that a parameter changes are walked again, those of all parameters side by side."""
        field, exact, steps = self.field.part(draws), self.exact.part(draws), changed.rows.shape[1]
        count = len(changed.by)
        gram = torch.zeros(count, count, dtype=torch.float64, device=rest.device)
        pull = torch.zeros(count, dtype=torch.float64, device=rest.device)
        root = weight[draws].sqrt()[:, None]
        # The unchanged rule walks along as the first of them; parameters are sorted by the step that they change.
        x, rates, active = field.x0[None], [], 1
        for n in range(steps):
            rates = [field(x, changed.times[:active, n]), *rates[: HISTORY - 1]]
            more = 1 + int((changed.first <= n).sum())
            if more > active:
                x, *rates = (torch.cat([v, v[:1].expand(more - active, -1, -1)]) for v in (x, *rates))
                active = more
            gaps = changed.times[:active, n + 1] - changed.times[:active, n]
            x = _stepped(x, rates, changed.rows[:active, n], gaps)
            left = (x - exact.at(changed.times[:active, n + 1])) / exact.scale
            if n + 1 < steps:
                left = left * self.way(steps)
            slopes = ((left[1:] - left[:1]) / changed.by[: active - 1, None, None] * root).flatten(1)
            gram[: active - 1, : active - 1] += slopes @ slopes.T
            pull[: active - 1] += slopes @ (rest[n, draws] * root).flatten()
        self.field.evaluated += field.evaluated
        return gram, pull


@final
@dataclass(frozen=True)
class Changed:
    """A rule, and the rule with each of P parameters changed.

    Args:
        times, rows: (1+P, N+1) and (1+P, N, 5).
        by: the changes (P,).
        first: the step that each changes first (P,).
    """

    times: Tensor
    rows: Tensor
    by: Tensor
    first: Tensor

    @staticmethod
    def of(draft: Draft, moving: bool, epsilon: float) -> Changed:
        places = _places(len(draft.rows), moving)
        times = draft.times.repeat(1 + len(places), 1)
        rows = draft.rows.repeat(1 + len(places), 1, 1)
        by = torch.full((len(places),), epsilon, dtype=torch.float64, device=rows.device)
        for number, (step, part) in enumerate(places):
            if part == TIME:
                # In units of the gap.
                by[number] = epsilon * float(draft.times[step + 2] - draft.times[step])
                times[1 + number, step + 1] += by[number]
            else:
                rows[1 + number, step, part] += by[number]
        return Changed(times, rows, by, torch.tensor([step for step, _ in places], device=rows.device))


@final
class Descent:
    """Levenberg's and Marquardt's method over all coefficients and interior times of a rule.

    Where the effort does not pay for slopes of all draws in each of some iterations, each takes those of a part of the
    draws, in turn, and adds them to what it remembers of the parts before.

    Args:
        target: what the rule is fitted to.
        beside: other targets, which cost nothing to evaluate.
        moving: whether times may move.
    """

    def __init__(self, target: Target, beside: Sequence[Target] = (), moving: bool = True) -> None:
        self.targets, self.moving = (target, *beside), moving
        self.damping = 1e-3

    def run(self, draft: Draft, iterations: int, effort: int) -> Draft:
        """At most so many iterations, and no more once so many states of the first target were evaluated."""
        field, parts = self.targets[0].field, self._parts(len(draft.rows), effort)
        limit = field.evaluated + effort
        rests = [target.rest(draft) for target in self.targets]
        gram = pull = torch.zeros((), dtype=torch.float64, device=draft.rows.device)
        for turn in range(iterations):
            weights = [target.weight(rest) for target, rest in zip(self.targets, rests, strict=True)]
            kept = MEMORY if parts > 1 else 0.0
            gram, pull = kept * gram, kept * pull
            for found in self._slopes(draft, rests, weights, turn % parts, parts):
                gram, pull = gram + found[0], pull + found[1]
            before = self._cost(rests, weights)
            for _ in range(TRIES):
                moved = self._moved(draft, gram, pull)
                left = [target.rest(moved) for target in self.targets]
                if self._cost(left, weights) < before:
                    # What is remembered is a quadratic, whose slope is another at the new place.
                    pull = pull + gram @ (self._vector(moved) - self._vector(draft))
                    draft, rests = moved, left
                    self.damping = max(self.damping / 3, 1e-9)
                    break
                self.damping *= 5
            else:
                if parts == 1:
                    return draft
            if field.evaluated > limit:
                return draft
        return draft

    def _parts(self, steps: int, effort: int) -> int:
        """Into how many parts the draws are cut so that the effort pays for some iterations."""
        draws = len(self.targets[0].field)
        return max(1, min(math.ceil(SOME * COST * steps**2 * draws / max(effort, 1)), draws // LEAST))

    def _slopes(
        self, draft: Draft, rests: list[Tensor], weights: list[Tensor], turn: int, parts: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each target: of a part of the draws of the first, and of all draws of the others."""
        for number, (target, rest, weight) in enumerate(zip(self.targets, rests, weights, strict=True)):
            changed = Changed.of(draft, self.moving, target.epsilon)
            first, every = (turn, parts) if number == 0 else (0, 1)
            draws = torch.arange(first, len(target.field), every, device=rest.device)
            yield target.slopes(changed, rest, weight, draws)

    def _cost(self, rests: list[Tensor], weights: list[Tensor]) -> float:
        return sum(Target.cost(rest, weight) for rest, weight in zip(rests, weights, strict=True))

    def _vector(self, draft: Draft) -> Tensor:
        """All parameters (P,)."""
        places = _places(len(draft.rows), self.moving)
        return torch.stack([draft.times[n + 1] if part == TIME else draft.rows[n, part] for n, part in places])

    def _moved(self, draft: Draft, gram: Tensor, pull: Tensor) -> Draft:
        scale = gram.diagonal().sqrt().clamp_min(1e-12)
        scaled = gram / scale[:, None] / scale[None] + self.damping * torch.eye(len(gram), dtype=gram.dtype).to(gram)
        change = -torch.linalg.solve(scaled, pull / scale) / scale
        times, rows = draft.times.clone(), draft.rows.clone()
        gaps = draft.times.diff()
        for (step, part), delta in zip(_places(len(rows), self.moving), change.tolist(), strict=True):
            if part == TIME:
                most = STRIDE * float(torch.minimum(gaps[step], gaps[step + 1]))
                times[step + 1] += min(max(delta, -most), most)
            else:
                rows[step, part] += delta
        return Draft(times, rows)


TIME = -1
"""The place of a time among the parameters of a step: that at which the step ends."""


def _places(steps: int, moving: bool) -> list[tuple[int, int]]:
    """Every parameter, as the step that it changes first and its place there."""
    found = []
    for step in range(steps):
        found += [(step, part) for part in range(min(step, HISTORY - 1) + 2)]
        if moving and step + 1 < steps:
            found.append((step, TIME))
    return found
