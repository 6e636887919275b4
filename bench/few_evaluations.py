"""Sampling in few evaluations: compiled plans against every other solver, on exact mixtures and trained networks.

    python bench/few_evaluations.py ring separated overlapping anisotropic plane digits [--budgets 4 8 12]
    RHEOS_DATA=... python bench/few_evaluations.py fashion fashion-dit [--out DIR]

Every solver is tuned on 64 draws, on the best of the same nine grids: seven powers, and shifts of 3 and 7. FastFlow,
MeanCache and TeaCache learn where to evaluate on the same draws and grids (of networks, on shifts 1, 3 and 7). Plans
are compiled on as many draws, and their guard looks at 384 others. Judged on fresh draws: errors of the ends, relative
to the root mean square length of the exact ones (root mean square, 95th percentile, median), the share that ends in
another mode or class, and the sliced Wasserstein distance between ends. Networks with labels are compiled for guidance
1 to 7 at once and judged at each of 1, 4 and 7; the others are tuned at each. Mixtures are also judged with their modes
moved.

With ``--shifts`` the grid is fixed, and only coefficients may change. Kept as bench/results/few-NAME.json.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from few_cases import LEARNED, MIXTURES, MOVED, ROWS, Case, in_parts
from machine import keep
from rheos.core import InputError, Rng, Solver, integrate
from rheos.metrics import sliced_wasserstein
from rheos.paths import Affine
from rheos.solvers import (
    RK4,
    AdamsBashforth,
    Dopri5,
    DPMSolver,
    Euler,
    FastFlow,
    Heun,
    MeanCache,
    Midpoint,
    Stork,
    UniPC,
    grids,
)
from rheos.solvers.base import FixedStep
from rheos.solvers.fast_flow import Bandit
from rheos.solvers.mean_cache import schedule
from rheos.solvers.plans import Figures, Plan, PlanSolver, calibrate
from rheos.solvers.plans.calibrate import JUDGED
from rheos.solvers.plans.fitting import POWERS, power_grid
from rheos.solvers.tea_cache import within

BUDGETS = (4, 6, 8, 10, 12, 20, 30, 50)
DRAWS = 64
SHIFTS = (1.0, 3.0, 7.0)
FINE = 50
"""Steps of the grids on which skipping solvers leave evaluations out."""

GENERATIONS = 12
"""In which a bandit learns, of all draws each."""

PRICES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""By which the reward of a skipped step is multiplied: how FastFlow is brought to a budget, which its paper leaves
open."""

MOVES = (0.05, 0.1, 0.3)
"""Shares of their distance from the middle by which modes are moved."""

TOLERANCES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4)
RESAMPLES = 1000
SPED, ROUNDS = 8, 3
"""Evaluations in which plans are timed beside Euler's 50, and how often."""

TRAINED, FITTED, JUDGES = 11, 12, 13
"""Seeds."""


@dataclass(frozen=True)
class Setting:
    """A case at one scale of guidance, with draws to tune on."""

    case: Case
    scale: float
    noise: Tensor
    cond: Tensor | None
    exact: Tensor
    shift: float | None

    @staticmethod
    def of(case: Case, scale: float, shift: float | None) -> Setting:
        noise, cond = case.draws(FITTED, DRAWS)
        return Setting(case, scale, noise, cond, case.exact(scale, noise, cond), shift)

    def grids(self, steps: int) -> list[Tensor]:
        """The grids that every solver may choose from."""
        if self.shift is not None:
            return [grids.Shifted(self.shift)(steps, torch.float64)]
        powers = [power_grid(steps, power, torch.device("cpu")) for power in POWERS]
        return [*powers, *(grids.Shifted(shift)(steps, torch.float64) for shift in SHIFTS[1:])]

    def fine(self) -> list[Tensor]:
        """The grids on which evaluations are left out: all of these for a mixture, the shifted ones for a network, on
        which learning where to evaluate takes hours."""
        every = self.grids(FINE)
        if self.shift is not None or self.case.dtype == torch.float64:
            return every
        return [grids.Shifted(shift)(FINE, torch.float64) for shift in SHIFTS]

    def ends(self, ready: Ready, noise: Tensor, cond: Tensor | None) -> tuple[Tensor, float]:
        """Where a solver leads, and the evaluations of a sample in the mean."""
        flow, found, spent = self.case.widened(self.scale), [], 0.0
        for x, c in in_parts(noise, cond):
            solution = integrate(ready.solver, flow, x, ready.grid, c)
            found.append(solution.x)
            points = getattr(solution.memory, "points", None)
            spent += len(x) * (solution.evaluations if points is None else float(points.sum(1).double().mean()))
        return torch.cat(found), spent / len(noise)

    def error(self, ready: Ready) -> float:
        """On the draws to tune on; infinite for what is not finite."""
        return figures(self.ends(ready, self.noise, self.cond)[0], self.exact).together


@dataclass(frozen=True)
class Ready:
    """A solver that was tuned, and its grid."""

    solver: Solver[Tensor]
    grid: Tensor


def figures(ends: Tensor, exact: Tensor) -> Figures:
    return Figures.of_errors(lengths(ends - exact) / scale_of(exact))


def lengths(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1).sqrt()


def scale_of(exact: Tensor) -> float:
    return float(lengths(exact).square().mean().sqrt())


CLASSICAL: Mapping[str, FixedStep[Tensor]] = {
    "Euler": Euler(),
    "Midpoint": Midpoint(),
    "Heun": Heun(),
    "RK4": RK4(),
    "Adams-Bashforth 2": AdamsBashforth(2),
    "Adams-Bashforth 3": AdamsBashforth(3),
    "Adams-Bashforth 4": AdamsBashforth(4),
    "DPM-Solver++ (2M)": DPMSolver(Affine()),
    "UniPC": UniPC(Affine()),
    "STORK-2": Stork(2, 2),
    "STORK-4": Stork(4, 3),
}
"""On the best grid of the family, chosen on the draws to tune on."""


def best(setting: Setting, tried: Sequence[Ready]) -> Ready | None:
    return min(tried, key=setting.error) if tried else None


def classical(solver: FixedStep[Tensor]) -> Callable[[Setting, int], Ready | None]:
    def tuned(setting: Setting, budget: int) -> Ready | None:
        if budget < solver.stages:
            return None
        return best(setting, [Ready(solver, grid) for grid in setting.grids(solver.steps(budget))])

    return tuned


def mean_cache(setting: Setting, budget: int) -> Ready | None:
    flow = setting.case.widened(setting.scale)
    tried = [schedule(flow, setting.noise, fine, budget, setting.cond) for fine in setting.fine()]
    return best(setting, [Ready(MeanCache(), chosen(len(chosen.at) - 1, torch.float64)) for chosen in tried])


def tea_cache(setting: Setting, budget: int) -> Ready | None:
    flow, tried = setting.case.widened(setting.scale), []
    for fine in setting.fine():
        # Some budgets are too small for the longest time that it holds a velocity.
        with contextlib.suppress(InputError):
            tried.append(Ready(within(budget, flow, setting.noise, fine, setting.cond), fine))
    return best(setting, tried)


def fast_flow(each: bool) -> Callable[[Setting, int], Ready | None]:
    """A bandit a grid, which learns once for all budgets; then the price of a step that brings it nearest to a budget
    from below."""
    # The setting stands beside what was learned: while it lives, no other has its id.
    learned: dict[int, tuple[Setting, list[tuple[Bandit, Tensor]]]] = {}

    def bandits(setting: Setting) -> list[tuple[Bandit, Tensor]]:
        found, flow = [], setting.case.widened(setting.scale)
        for fine in setting.fine():
            bandit = Bandit.fresh(FINE)
            for _ in range(GENERATIONS):
                # Small batches: in each of them one arm is played.
                for x, c in in_parts(setting.noise, setting.cond, 16):
                    solution = integrate(FastFlow(bandit, True, each), flow, x, fine, c)
                    bandit = solution.memory.own.bandit
            found.append((bandit, fine))
        return found

    def tuned(setting: Setting, budget: int) -> Ready | None:
        if id(setting) not in learned:
            learned[id(setting)] = setting, bandits(setting)
        tried = []
        for bandit, fine in learned[id(setting)][1]:
            assert bandit.mu is not None
            for price in PRICES:
                ready = Ready(FastFlow(bandit.priced(price * bandit.mu), each=each), fine)
                if setting.ends(ready, setting.noise, setting.cond)[1] <= budget:
                    tried.append(ready)
        return best(setting, tried)

    return tuned


def dopri5(setting: Setting, budget: int) -> Ready | None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    tried = [Ready(Dopri5(tolerance, tolerance), ends) for tolerance in TOLERANCES]
    return best(setting, [one for one in tried if setting.ends(one, setting.noise, setting.cond)[1] <= budget])


RIVALS: Mapping[str, Callable[[Setting, int], Ready | None]] = {
    **{name: classical(solver) for name, solver in CLASSICAL.items()},
    "Dopri5": dopri5,
    "FastFlow": fast_flow(False),
    "FastFlow, arms a sample": fast_flow(True),
    "MeanCache": mean_cache,
    "TeaCache": tea_cache,
}


@dataclass(frozen=True)
class Judge:
    """Fresh draws of a case at one scale, with their exact ends."""

    case: Case
    scale: float
    noise: Tensor
    cond: Tensor | None
    exact: Tensor

    @staticmethod
    def of(case: Case, scale: float) -> Judge:
        noise, cond = case.draws(JUDGES, case.count)
        return Judge(case, scale, noise, cond, case.exact(scale, noise, cond))

    def found(self, ready: Ready) -> tuple[dict[str, Any], Tensor]:
        """The figures of a solver, and the error of every draw."""
        setting = Setting(self.case, self.scale, self.noise, self.cond, self.exact, None)
        ends, evaluations = setting.ends(ready, self.noise, self.cond)
        errors = lengths(ends - self.exact) / scale_of(self.exact)
        whole = Figures.of_errors(errors)
        stays = self.case.mode(ends) == self.case.mode(self.exact)
        kept = errors[stays].square().mean().sqrt() if bool(stays.any()) else torch.tensor(float("inf"))
        return {
            "evaluations": evaluations,
            "rmse": whole.rmse,
            "p95": whole.p95,
            "median": whole.median,
            "flips": int((~stays).sum()),
            "rmse of others": float(kept),
            "sliced Wasserstein": sliced_wasserstein(ends, self.exact, rng=0),
        }, errors


def above(plan: Tensor, other: Tensor) -> float:
    """The upper end of a bootstrap interval (95 %) of the plan's RMSE less that of another solver."""
    rows = (Rng(0).uniform(RESAMPLES, len(plan)) * len(plan)).long().clamp(max=len(plan) - 1)
    gaps = plan[rows].square().mean(1).sqrt() - other[rows].square().mean(1).sqrt()
    return float(gaps.quantile(0.975))


def compiled(case: Case, budgets: Sequence[int], shift: float | None) -> tuple[Plan, float]:
    """A plan over all scales of the case, and the seconds that it took."""
    noise, cond = case.draws(TRAINED, DRAWS + JUDGED)
    began = time.perf_counter()
    grid = None if shift is None else grids.Shifted(shift)
    plan = calibrate(case.flows, noise.to(case.dtype), cond, budgets, draws=DRAWS, grid=grid)
    return plan, time.perf_counter() - began


def compared(case: Case, budgets: Sequence[int], shift: float | None, moved: Mapping[float, Case]) -> dict[str, Any]:
    """Every figure of a case, by scale of guidance, evaluations and solver; and of cases whose modes were moved."""
    plan, seconds = compiled(case, budgets, shift)
    result: dict[str, Any] = {
        "title": case.title,
        "draws": case.count,
        "compiled in seconds": seconds,
        "states evaluated to compile": dict(plan.costs),
        "scales": {},
    }
    for scale in case.flows:
        setting, judge = Setting.of(case, scale, shift), Judge.of(case, scale)
        euler, _ = judge.found(Ready(Euler(), grids.Uniform()(50, torch.float64)))
        found: dict[str, Any] = {"Euler-50": euler, "budgets": {}}
        for budget in budgets:
            found["budgets"][budget] = _row(plan, setting, judge, budget)
            print(case.title, scale, shift, budget, _short(found["budgets"][budget]), flush=True)
        if SPED in budgets:
            found |= sped(plan, judge, seconds)
        result["scales"][scale] = found
    for share, other in moved.items():
        judge = Judge.of(other, 1.0)
        result.setdefault("moved", {})[share] = {budget: _moved(plan, judge, budget) for budget in budgets}
    return result


def sped(plan: Plan, judge: Judge, compiling: float) -> dict[str, Any]:
    """How many times faster the plan draws in few evaluations than Euler's rule in 50, side by side, and after how many
    samples compiling all budgets has paid."""
    rows = slice(0, ROWS)
    cond = None if judge.cond is None else judge.cond[rows]
    setting = Setting(judge.case, judge.scale, judge.noise[rows], cond, judge.exact[rows], None)
    solvers = {"Euler": Ready(Euler(), grids.Uniform()(50, torch.float64)), "plan": planned(plan, SPED)}
    seconds: dict[str, list[float]] = {name: [] for name in solvers}
    for _ in range(ROUNDS):
        for name, ready in solvers.items():
            began = time.perf_counter()
            setting.ends(ready, setting.noise, setting.cond)
            seconds[name].append((time.perf_counter() - began) / len(setting.noise))
    ratios = [slow / fast for slow, fast in zip(seconds["Euler"], seconds["plan"], strict=True)]
    saved = statistics.median(seconds["Euler"]) - statistics.median(seconds["plan"])
    return {"times faster than Euler-50": ratios, "pays after samples": compiling / saved if saved > 0 else None}


def planned(plan: Plan, budget: int) -> Ready:
    solver = PlanSolver[Tensor](plan.at(budget))
    return Ready(solver, solver.grid.double())


def _row(plan: Plan, setting: Setting, judge: Judge, budget: int) -> dict[str, Any]:
    entry = plan.at(budget)
    own, errors = judge.found(planned(plan, budget))
    row = {"plan": {**own, "is": entry.solver or "a fitted rule", "p95 expected": entry.expected.p95}}
    others = {}
    for name, tune in RIVALS.items():
        if (ready := tune(setting, budget)) is not None:
            row[name], others[name] = judge.found(ready)
    least = min(others, key=lambda name: row[name]["rmse"])
    row["plan"]["rmse above the least, at most"] = above(errors, others[least])
    return row


def _moved(plan: Plan, judge: Judge, budget: int) -> dict[str, Any]:
    """The plan where the modes were moved after it was compiled, and Adams-Bashforth 3 on even steps."""
    even = Ready(AdamsBashforth(3), grids.Uniform()(budget, torch.float64))
    solvers = {"plan": planned(plan, budget), "Adams-Bashforth 3": even}
    return {name: judge.found(ready)[0] for name, ready in solvers.items()}


def _short(row: Mapping[str, Any]) -> str:
    others = {name: found for name, found in row.items() if name != "plan"}
    best_p95 = min(others, key=lambda name: others[name]["p95"])
    median = min(found["median"] for found in others.values())
    return (
        f"plan p95 {row['plan']['p95']:.2g}, median {row['plan']['median']:.2g}; "
        f"{best_p95} {others[best_p95]['p95']:.2g}, least median {median:.2g}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=[*MIXTURES, *LEARNED])
    parser.add_argument("--budgets", type=int, nargs="+", default=BUDGETS)
    parser.add_argument("--shifts", action="store_true", help="fixed grids of shift 1, 3 and 7, too")
    parser.add_argument("--out", type=Path, default=Path("few"), help="where networks are trained")
    given = parser.parse_args()
    torch.set_grad_enabled(False)
    for name in given.names:
        with torch.enable_grad():
            case = MIXTURES[name]() if name in MIXTURES else LEARNED[name].case(given.out / name)
        moved = {share: MIXTURES[name](share) for share in MOVES} if name in MOVED else {}
        result = {"free": compared(case, given.budgets, None, moved)}
        if given.shifts:
            result |= {f"shift {shift:g}": compared(case, given.budgets, shift, {}) for shift in SHIFTS}
        keep(f"few-{name}", result)


if __name__ == "__main__":
    main()
