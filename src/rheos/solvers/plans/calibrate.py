"""Compiling a plan: rules are fitted on some draws, and judged on others beside the classical solvers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...core.condition import Cond, take
from ...core.errors import InputError
from ...dynamics import Flow
from ...paths import Affine
from ..grids import Grid
from .classical import Candidate, solved, tuned
from .field import Field, Figures, Reference
from .fitting import COST, LEAST, POWERS, Aim, Descent, Draft, Target, ends, power_grid, step_by_step
from .gaussians import gaussians
from .plan import Entry, Plan
from .rule import HISTORY, Rule

DRAWS = 64
"""Noises that rules are fitted on."""

JUDGED = 384
"""Noises that they are judged on, at least."""

AIMS = (Aim(1, 0.3), Aim(1, 0.1), Aim(2, 0.3))
"""What the second stage is tried with: each with half of the effort that is left, the last with the rest."""

TUNED = 24
"""Of them those on which grids of the classical solvers are chosen."""

BESIDE = 1e-3
"""The weight of the flows of single Gaussians in a plan that is not sharp."""

ITERATIONS = 15

EFFORT = 400_000
"""States that may be evaluated to fit the rule of one budget, the classical solvers and the exact ends apart."""

WORST, ROUNDS, AFTER = 32, 2, 6
"""Draws of the greatest errors that a sharp plan learns from besides, how often, and iterations for them."""


def calibrate(
    dynamics: Flow | Mapping[float, Flow],
    noise: Tensor,
    cond: Cond | None = None,
    budgets: Iterable[int] = range(4, 51),
    *,
    path: Affine | None = None,
    grid: Grid | None = None,
    draws: int = DRAWS,
    judged: int | None = None,
    sharp: bool = False,
    effort: int = EFFORT,
    model: str = "",
    tell: Callable[[Entry], Any] = lambda entry: None,
) -> Plan:
    """Compile a plan for a flow.

    Args:
        dynamics: the flow; or flows by the scale of their guidance, among which the draws are dealt out.
        noise: (n, ...), fresh; the first ``draws`` are fitted on, the others judge. A sharp plan learns from the worst
            of these and is judged on the last ``judged``.
        cond: the condition of each.
        budgets: evaluations.
        path: the path that the flow was learned on, for the solvers that step on it; straight lines when left out.
        grid: the times to keep to, where they may not move; plans are better when they may.
        draws: noises to fit on: 64 to 128, or 32 for a large network.
        judged: noises that judge, at least; 384 when left out. With few of them the expected errors are coarse, which a
            large network has to bear with.
        sharp: fit one fixed distribution more closely. A plan that is not sharp stays good when conditions change.
        effort: states that may be evaluated to fit each budget; the fit ends where it stands.
        model: the model's :func:`fingerprint`.
        tell: is told of each entry.

    Raises:
        InputError: if there are too few noises, or a budget that is no positive number.
    """
    budgets = sorted(set(budgets))
    judged = JUDGED if judged is None else judged
    kept = judged + (WORST if sharp else 0)
    if not budgets or budgets[0] < 1:
        raise InputError(f"a plan is compiled for budgets of at least one evaluation, got {budgets}.")
    if draws < 8 or judged < 8 or len(noise) < draws + kept:
        raise InputError(
            f"{draws} draws to fit on and {kept} to judge by need {draws + kept} noises, and 8 of each at least; got "
            f"{len(noise)}."
        )
    flows = {1.0: dynamics} if isinstance(dynamics, Flow) else dict(sorted(dynamics.items()))
    path = Affine() if path is None else path
    with torch.no_grad():
        bench = _Bench(flows, noise, cond, (draws, judged), sharp, path, grid)
        found = {}
        for budget in budgets:
            found[budget] = bench.entry(budget, effort)
            tell(found[budget][0])
    entries = {budget: entry for budget, (entry, _) in found.items()}
    costs = {budget: cost for budget, (_, cost) in found.items()}
    return Plan(entries, (min(flows), max(flows)), model, draws, sharp, costs)


class _Bench:
    """The draws that rules are fitted on and those that judge them, with their exact ends."""

    def __init__(
        self,
        flows: Mapping[float, Flow],
        noise: Tensor,
        cond: Cond | None,
        counts: tuple[int, int],
        sharp: bool,
        path: Affine,
        grid: Grid | None,
    ) -> None:
        self.flows, self.path, self.grid = list(flows.values()), path, grid
        draws, judged = counts
        self.fitted = self._part(noise, cond, slice(0, draws))
        self.pool = self._part(noise, cond, slice(draws, -judged if sharp else None))
        self.judges = self._part(noise, cond, slice(-judged, None)) if sharp else self.pool
        self.noise, self.cond, self.sharp, self.draws = noise, cond, sharp, draws
        self.easy = None if sharp else gaussians(path, noise.device)
        some = torch.arange(min(draws, TUNED), device=noise.device)
        self.tuning = self.fitted[0].part(some), self.fitted[1].part(some)

    def _part(self, noise: Tensor, cond: Cond | None, part: slice) -> tuple[Field, Reference]:
        rows = torch.arange(len(noise), device=noise.device)[part]
        return self._rows(noise, cond, rows)

    def _rows(self, noise: Tensor, cond: Cond | None, rows: Tensor) -> tuple[Field, Reference]:
        field = Field(self.flows, noise[rows], None if cond is None else take(cond, rows), rows % len(self.flows))
        return field, Reference.of(field)

    def grids(self, steps: int) -> list[Tensor]:
        """The grids that every solver may choose from, and that a fit begins at."""
        device = self.noise.device
        if self.grid is not None:
            return [self.grid(steps, torch.float64, device)]
        return [power_grid(steps, power, device) for power in POWERS]

    def entry(self, budget: int, effort: int) -> tuple[Entry, int]:
        """What is best for a budget, and the states that were evaluated to fit it."""
        field, (judge, ends_of) = self.fitted[0], self.judges
        classical = [
            (Figures.of(solved(candidate, judge, self.path), ends_of), candidate)
            for candidate in tuned(budget, *self.tuning, self.path, self.grids)
        ]
        least = Figures.least(figures for figures, _ in classical)
        began = field.evaluated
        drafts = self._drafts(budget, effort)
        cost = field.evaluated - began
        judged = [(Figures.of(ends(draft, judge)[-1], ends_of), draft) for draft in drafts]
        fitting = [(found, draft) for found, draft in judged if found.within(least)]
        if fitting:
            found, draft = min(fitting, key=lambda pair: pair[0].together)
            return Entry(budget, draft.rule, None, found, least), cost
        found, best = min(classical, key=lambda pair: pair[0].together)
        return Entry(budget, _grid(best), best.name, found, least), cost

    def _drafts(self, budget: int, effort: int) -> list[Draft]:
        """Rules that may be best."""
        field, exact = self.fitted
        first = step_by_step(self.grids(budget), field, exact)
        limit = field.evaluated + effort
        drafts = [first]
        for aim in AIMS:
            left = limit - field.evaluated
            left = left if aim is AIMS[-1] else left // 2
            if left > COST * budget**2 * LEAST:
                drafts.append(self._descent(field, exact, aim).run(first, ITERATIONS, left))
        return [*drafts, self._sharpened(drafts, effort)] if self.sharp else drafts

    def _descent(self, field: Field, exact: Reference, aim: Aim) -> Descent:
        beside = [Target(*self.easy, Aim(2, aim.way), BESIDE * len(field) / len(self.easy[0]))] if self.easy else []
        return Descent(Target(field, exact, aim), beside, self.grid is None)

    def _sharpened(self, drafts: list[Draft], effort: int) -> Draft:
        """The best of rules, after it has learned from the draws on which it was worst."""
        pool, exact = self.pool
        best = min(drafts, key=lambda draft: Figures.of(ends(draft, pool)[-1], exact).together)
        rows = torch.arange(self.draws, device=self.noise.device)
        for _ in range(ROUNDS):
            errors = (ends(best, pool)[-1] - exact.end).square().sum(1)
            rows = torch.cat([rows, self.draws + errors.topk(min(WORST, len(errors))).indices]).unique()
            field, aimed = self._rows(self.noise, self.cond, rows)
            best = self._descent(field, aimed, AIMS[0]).run(best, AFTER, effort)
            self.fitted[0].evaluated += field.evaluated
        return best


def _grid(candidate: Candidate) -> Rule:
    """The grid of a classical solver, with rows that say nothing."""
    times = [0.0, *candidate.times[1:-1].tolist(), 1.0]
    return Rule(tuple(times), ((0.0,) * (1 + HISTORY),) * (len(times) - 1))
