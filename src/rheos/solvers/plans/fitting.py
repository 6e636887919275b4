r"""Fitting a rule to a field: step by step first, then all coefficients and times together.

The first stage walks on the rule's own states and fits each step around Adams-Bashforth 3 towards the exact state, for
grids of several powers. The second is Levenberg's and Marquardt's method for the error at the end *and* on the way: an
error at the end alone does not see a trajectory that goes over to another mode, which happens midway.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
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
class Descent:
    """Levenberg's and Marquardt's method over all coefficients and interior times of a rule.

    Args:
        field: the velocity.
        exact: where its draws go.
        aim: what is made small.
        moving: whether times may move.
    """

    def __init__(self, field: Field, exact: Reference, aim: Aim, moving: bool = True) -> None:
        self.field, self.exact, self.aim, self.moving = field, exact, aim, moving
        # Differences have to stand out from what the model rounds.
        self.epsilon = 1e-5 if field.precise else 1e-3
        self.damping = 1e-3

    def run(self, draft: Draft, iterations: int, effort: int) -> Draft:
        """At most so many iterations, and no more once so many states were evaluated."""
        limit = self.field.evaluated + effort
        rest = self._rest(draft)
        for _ in range(iterations):
            weight = self._weight(rest)
            cost = self._cost(rest, weight)
            gram, pull = self._slopes(draft, rest, weight)
            for _ in range(5):
                moved = self._moved(draft, gram, pull)
                found = self._rest(moved)
                if self._cost(found, weight) < cost:
                    draft, rest = moved, found
                    self.damping = max(self.damping / 3, 1e-9)
                    break
                self.damping *= 5
            else:
                return draft
            if self.field.evaluated > limit:
                return draft
        return draft

    def _rest(self, draft: Draft) -> Tensor:
        """What is left at every state, weighed: (N, B, D)."""
        return self._left(ends(draft, self.field)[1:], draft.times[1:])

    def _left(self, states: Tensor, times: Tensor) -> Tensor:
        left = (states - self.exact.at(times)) / self.exact.scale
        left[:-1] *= self._share(len(states))
        return left

    def _share(self, steps: int) -> float:
        return self.aim.way / math.sqrt(max(1, steps - 1))

    def _weight(self, rest: Tensor) -> Tensor:
        """Of every draw (B,), the mean 1."""
        square = rest.square().sum((0, 2))
        weight = (square + square.median() + 1e-30) ** (-(2 - self.aim.power) / 2)
        return weight / weight.mean()

    @staticmethod
    def _cost(rest: Tensor, weight: Tensor) -> float:
        return float((rest.square().sum((0, 2)) * weight).sum())

    def _slopes(self, draft: Draft, rest: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The products of slopes with each other (P, P) and with what is left (P,): only the steps after the one that
        a parameter changes are walked again, those of all parameters side by side."""
        field, steps = self.field, len(draft.rows)
        places = _places(steps, self.moving)
        times, rows, changes = self._changed(draft, places)
        first = torch.tensor([step for step, _ in places], device=rows.device)
        gram = torch.zeros(len(places), len(places), dtype=torch.float64, device=rows.device)
        pull = torch.zeros(len(places), dtype=torch.float64, device=rows.device)
        root = weight.sqrt()[:, None]
        # The unchanged rule walks along as the first of them; parameters are sorted by the step that they change.
        x, rates, active = field.x0[None], [], 1
        for n in range(steps):
            at = times[:active, n]
            rates = [field(x, at), *rates[: HISTORY - 1]]
            more = 1 + int((first <= n).sum())
            if more > active:
                x, *rates = (torch.cat([v, v[:1].expand(more - active, -1, -1)]) for v in (x, *rates))
                active = more
            gaps = times[:active, n + 1] - times[:active, n]
            x = _stepped(x, rates, rows[:active, n], gaps)
            left = (x - self.exact.at(times[:active, n + 1])) / self.exact.scale
            if n + 1 < steps:
                left = left * self._share(steps)
            slopes = ((left[1:] - left[:1]) / changes[: active - 1, None, None] * root).flatten(1)
            gram[: active - 1, : active - 1] += slopes @ slopes.T
            pull[: active - 1] += slopes @ (rest[n] * root).flatten()
        return gram, pull

    def _changed(self, draft: Draft, places: list[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Times (1+P, N+1), rows (1+P, N, 5) and changes (P,): the rule, and the rule with each parameter changed."""
        times = draft.times.repeat(1 + len(places), 1)
        rows = draft.rows.repeat(1 + len(places), 1, 1)
        changes = torch.full((len(places),), self.epsilon, dtype=torch.float64, device=rows.device)
        for number, (step, part) in enumerate(places):
            if part == TIME:
                # In units of the gap.
                changes[number] = self.epsilon * float(draft.times[step + 2] - draft.times[step])
                times[1 + number, step + 1] += changes[number]
            else:
                rows[1 + number, step, part] += changes[number]
        return times, rows, changes

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
