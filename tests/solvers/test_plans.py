"""Plans: rules that step as they say, fits that find what is known, a guard that holds, and files that are refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rheos import nn
from rheos.core import CheckpointError, InputError, Rng, integrate
from rheos.data.mixtures import GaussianMixture
from rheos.dynamics import Diffusion, Flow
from rheos.paths import Affine
from rheos.schedules import Cosine, VariancePreserving
from rheos.solvers import AdamsBashforth, Dopri5, FixedStep, Heun, grids
from rheos.solvers.plans import Entry, Figures, Fitted, Plan, PlanSolver, Rule, calibrate, fingerprint
from rheos.solvers.plans.classical import CLASSICAL
from rheos.solvers.plans.field import Field, Reference
from rheos.solvers.plans.fitting import (
    POWERS,
    TIME,
    Aim,
    Changed,
    Descent,
    Draft,
    Target,
    _places,
    adams_bashforth,
    ends,
    power_grid,
    step_by_step,
)
from rheos.solvers.plans.gaussians import WIDTHS, gaussians

CPU = torch.device("cpu")


def ring(modes: int = 8, radius: float = 3.0, std: float = 0.3) -> GaussianMixture:
    angle = torch.arange(modes, dtype=torch.float64) * 2 * math.pi / modes
    means = radius * torch.stack([angle.cos(), angle.sin()], 1)
    return GaussianMixture(torch.ones(modes).double(), means, std**2 * torch.eye(2).double().expand(modes, 2, 2))


def noise(seed: int, count: int) -> Tensor:
    return Rng(seed).rows(torch.arange(count)).normal(2, dtype=torch.float64)


RING = Flow(ring().velocity(Affine()))


def of(x0: Tensor, flow: Flow = RING) -> Field:
    return Field([flow], x0, None, torch.zeros(len(x0), dtype=torch.int64))


def powers(steps: int) -> list[Tensor]:
    return [power_grid(steps, power, CPU) for power in POWERS]


def field(seed: int, count: int, flow: Flow = RING) -> Field:
    return of(noise(seed, count), flow)


def random_rule(steps: int, seed: int = 1) -> Rule:
    times = power_grid(steps, 1.4, CPU).tolist()
    rows = 0.5 * Rng(seed).normal(steps, 5, dtype=torch.float64)
    return Rule(tuple(times), tuple(tuple(row[: n + 2]) + (0.0,) * (3 - n) for n, row in enumerate(rows.tolist())))


def by_hand(rule: Rule, x: Tensor, velocity: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    rates: list[Tensor] = []
    for n, row in enumerate(rule.rows):
        rates.insert(0, velocity(x, torch.tensor(rule.times[n], dtype=torch.float64)))
        gap = rule.times[n + 1] - rule.times[n]
        x = (1 + row[0]) * x + gap * sum(c * v for c, v in zip(row[1:], rates, strict=False))  # type: ignore[assignment]
    return x


class TestRule:
    def test_it_steps_as_its_formula_says(self) -> None:
        rule, x0 = random_rule(6), noise(3, 5)
        grid = torch.tensor(rule.times, dtype=torch.float64)
        solution = integrate(Fitted(rule), RING, x0, grid)
        torch.testing.assert_close(solution.x, by_hand(rule, x0, RING.velocity), rtol=1e-9, atol=1e-9)
        assert solution.evaluations == 6

    @pytest.mark.parametrize("order", [1, 2, 3])
    def test_adams_bashforth_is_one(self, order: int) -> None:
        grid, x0 = power_grid(7, 0.8, CPU), noise(3, 5)
        rule = Draft(grid, adams_bashforth(grid, order)).rule
        found = integrate(Fitted(rule), RING, x0, grid).x
        torch.testing.assert_close(found, integrate(AdamsBashforth(order), RING, x0, grid).x, rtol=1e-10, atol=1e-10)

    def test_it_keeps_its_grid_and_is_no_noises(self) -> None:
        rule, x0 = random_rule(4), noise(3, 5)
        with pytest.raises(InputError, match="its own grid of 4 steps, got another, of 5"):
            integrate(Fitted(rule), RING, x0, grids.Uniform()(5, torch.float64))
        with pytest.raises(InputError, match="its own grid of 4 steps"):
            integrate(Fitted(rule), RING, x0, grids.Uniform()(4, torch.float64))
        noisy = Diffusion(RING, Affine(), lambda t: torch.ones_like(t))
        with pytest.raises(InputError, match="fitted to a flow, and Diffusion is none"):
            integrate(Fitted(rule), noisy, x0, torch.tensor(rule.times, dtype=torch.float64), rng=0)

    @pytest.mark.parametrize(
        ("times", "rows", "said"),
        [
            ((0.0, 0.5), ((0.0,) * 5,), "from 0 to 1"),
            ((0.0, 0.6, 0.5, 1.0), ((0.0,) * 5,) * 3, "from 0 to 1 in order"),
            ((0.0, 1.0), (), "5 coefficients for each of its 1 steps"),
            ((0.0, 1.0), ((0.0,) * 4,), "5 coefficients"),
            ((0.0, 1.0), ((0.0, 1.0, 0.5, 0.0, 0.0),), "of no velocity"),
            ((0.0, 1.0), ((0.0, math.nan, 0.0, 0.0, 0.0),), "not finite"),
        ],
    )
    def test_what_is_no_rule_is_refused(self, times: Any, rows: Any, said: str) -> None:
        with pytest.raises(InputError, match=said):
            Rule(times, rows)


class TestFit:
    def test_the_reference_is_exact_between_its_points_too(self) -> None:
        exact = Reference.of(field(1, 6))
        times = torch.tensor([0.013, 0.31, 0.777, 1.0]).double()
        for t, state in zip(times, exact.at(times), strict=True):
            grid = torch.stack([torch.zeros(()).double(), t])
            truth = integrate(Dopri5(1e-10, 1e-10), RING, noise(1, 6), grid).x
            torch.testing.assert_close(state, truth, rtol=0, atol=2e-5)
        assert exact.scale == pytest.approx(float(exact.end.square().sum(1).mean().sqrt()))

    def test_one_gaussian_is_a_scale_which_every_budget_fits(self) -> None:
        one = GaussianMixture(torch.ones(1).double(), torch.zeros(1, 2).double(), 0.25 * torch.eye(2).double()[None])
        given = field(1, 32, Flow(one.velocity(Affine())))
        exact = Reference.of(given)
        draft = step_by_step(powers(3), given, exact)
        # The ridge and the interpolated reference leave a little.
        assert Figures.of(ends(draft, given)[-1], exact).rmse < 1e-4
        assert Figures.of(ends(Draft(draft.times, adams_bashforth(draft.times)), given)[-1], exact).rmse > 1e-2

    def test_slopes_are_those_of_the_whole_walk(self) -> None:
        given = field(2, 12)
        exact = Reference.of(given)
        draft = step_by_step(powers(5), given, exact)
        target = Target(given, exact, Aim(1, 0.3), share=2.0)
        rest = target.rest(draft)
        weight = target.weight(rest)
        assert float(weight.mean()) == pytest.approx(2)
        changed = Changed.of(draft, True, target.epsilon)
        gram, pull = target.slopes(changed, rest, weight, torch.arange(12))
        halves = [target.slopes(changed, rest, weight, torch.arange(n, 12, 2)) for n in range(2)]
        torch.testing.assert_close(halves[0][0] + halves[1][0], gram)
        torch.testing.assert_close(halves[0][1] + halves[1][1], pull)
        slopes = []
        for step, part in _places(5, True):
            sides = []
            for sign in (1, -1):
                times, rows = draft.times.clone(), draft.rows.clone()
                if part == TIME:
                    times[step + 1] += sign * 1e-5
                else:
                    rows[step, part] += sign * 1e-5
                sides.append(target.rest(Draft(times, rows)))
            slopes.append((sides[0] - sides[1]) / 2e-5 * weight.sqrt()[:, None])
        by_hand = torch.stack(slopes).flatten(1)
        scale = by_hand.square().sum(1).sqrt()
        torch.testing.assert_close(
            gram / scale / scale[:, None], by_hand @ by_hand.T / scale / scale[:, None], rtol=0, atol=2e-3
        )
        left = (rest * weight.sqrt()[:, None]).flatten()
        torch.testing.assert_close(pull / scale, by_hand @ left / scale, rtol=0, atol=2e-3 * float(left.norm()))

    def test_the_descent_lowers_what_it_aims_at_and_ends_in_time(self) -> None:
        given = field(2, 48)
        exact = Reference.of(given)
        first = step_by_step(powers(6), given, exact)
        before, began = Figures.of(ends(first, given)[-1], exact), given.evaluated
        target = Target(given, exact, Aim(1, 0.1))
        last = Descent(target).run(first, 15, 10**9)
        long = given.evaluated - began
        assert Figures.of(ends(last, given)[-1], exact).together < 0.9 * before.together
        assert bool((last.times.diff() > 0).all())
        assert not torch.equal(last.times, first.times)
        began = given.evaluated
        Descent(target).run(first, 15, 1)
        assert given.evaluated - began < long / 4

    def test_parts_of_the_draws_in_turn_lead_as_far_for_less(self) -> None:
        given = field(2, 48)
        exact = Reference.of(given)
        first = step_by_step(powers(6), given, exact)
        target = Target(given, exact, Aim(1, 0.1))
        spent, found = [], []
        for effort in (10**9, 15_000):
            began = given.evaluated
            last = Descent(target).run(first, 8, effort)
            spent.append(given.evaluated - began)
            found.append(Figures.of(ends(last, given)[-1], exact).together)
        assert spent[1] < 0.6 * spent[0]
        assert found[1] < 0.9 * Figures.of(ends(first, given)[-1], exact).together
        # Without a right memory of the other parts it ends 1.6 times as far.
        assert found[1] < 1.3 * found[0]

    def test_single_gaussians_are_integrated_well_beside_what_is_fitted(self) -> None:
        given, path = field(2, 48), Affine(VariancePreserving())
        exact = Reference.of(given)
        first = step_by_step(powers(8), given, exact)
        for of_path in (Affine(), path):
            easy, truth = gaussians(of_path, CPU)
            # On every path a Gaussian's flow is a scale: from deviation 1 to that of the data.
            torch.testing.assert_close(truth.end[:, 0], torch.tensor(WIDTHS).double(), rtol=1e-4, atol=1e-6)
        easy, truth = gaussians(Affine(), CPU)
        alone, both = (
            Descent(Target(given, exact, Aim(1, 0.3)), beside).run(first, 10, 10**9)
            for beside in ((), (Target(easy, truth, Aim(2, 0.3), 0.05),))
        )
        errors = [Figures.of(ends(rule, easy)[-1], truth).rmse for rule in (alone, both)]
        assert errors[1] < 0.3 * errors[0]
        errors = [Figures.of(ends(rule, given)[-1], exact).together for rule in (alone, both)]
        assert errors[1] < 3 * errors[0]

    def test_draws_are_dealt_out_to_their_flows_with_their_conditions(self) -> None:
        def velocity(scale: float) -> Callable[..., Tensor]:
            return lambda x, t, cond: scale * x + cond[:, None] + t.reshape(-1, 1)

        flows, which = [Flow(velocity(1.0)), Flow(velocity(2.0))], torch.tensor([0, 1, 0, 1, 1])
        given = Field(flows, noise(1, 5), torch.arange(5).double(), which)
        x, t = Rng(4).normal(3, 5, 2, dtype=torch.float64), torch.tensor([0.1, 0.2, 0.3]).double()
        scale = torch.tensor([1.0, 2.0, 1.0, 2.0, 2.0]).double()[:, None]
        want = scale * x + torch.arange(5).double()[:, None] + t[:, None, None]
        torch.testing.assert_close(given(x, t), want)
        assert given.evaluated == 15


@pytest.fixture(scope="module")
def plan() -> Plan:
    return calibrate(RING, noise(5, 32 + 384), budgets=(1, 5, 8), draws=32, model="ring", effort=200_000)


class TestPlan:
    def test_fresh_draws_are_nearer_than_by_any_classical_solver(self, plan: Plan) -> None:
        x0 = noise(77, 500)
        exact = Reference.of(of(x0))
        for budget, better in ((5, 2.0), (8, 4.0)):
            solver = PlanSolver(plan.at(budget))
            assert plan.at(budget).solver is None
            solution = integrate(solver, RING, x0, solver.grid.double())
            found = Figures.of(solution.x, exact)
            assert solution.evaluations == budget
            for name, make in CLASSICAL.items():
                classical = make(Affine())
                grid = grids.Uniform()(classical.steps(budget), torch.float64)
                other = Figures.of(integrate(classical, RING, x0, grid).x, exact)
                assert better * found.p95 < other.p95, name
            # What is foretold is what comes.
            assert found.p95 == pytest.approx(plan.at(budget).expected.p95, rel=0.5)

    def test_times_that_may_not_move_stay(self) -> None:
        fixed = grids.Shifted(3.0)
        found = calibrate(RING, noise(5, 32 + 384), budgets=(6,), draws=32, grid=fixed, effort=100_000).at(6)
        assert found.solver is None
        assert found.rule.times == tuple(fixed(6, torch.float64).tolist())
        assert 2 * found.expected.median < found.classical.median

    def test_it_is_the_classical_solver_where_no_rule_is_better(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Figures, "within", lambda self, other: False)
        found = calibrate(RING, noise(5, 8 + 384), budgets=(4,), draws=8, effort=0).at(4)
        assert found.solver in CLASSICAL
        assert found.expected.together <= 1.5 * found.classical.together
        solver = PlanSolver(found)
        x0 = noise(3, 4)
        inner = CLASSICAL[found.solver](Affine())
        assert integrate(solver, RING, x0, solver.grid).x.equal(integrate(inner, RING, x0, solver.grid).x)
        assert (solver.order, solver.evaluations(4)) == (inner.order, inner.evaluations(4))

    def test_budgets_between_use_the_one_below(self, plan: Plan) -> None:
        assert plan.at(7) == plan.at(5)
        assert plan.at(100) == plan.at(8)
        solver = PlanSolver(plan.at(5))
        assert (solver.steps(7), solver.evaluations(5), len(solver.grid)) == (5, 5, 6)
        with pytest.raises(InputError, match="takes 5 evaluations, and 4 are allowed"):
            solver.steps(4)
        with pytest.raises(InputError, match="begins at 1 evaluations, 0 are allowed"):
            plan.at(0)

    def test_what_it_says_of_itself(self, plan: Plan) -> None:
        assert str(plan.at(8)).startswith("a fitted rule in 8 evaluations, expected error ")
        named = replace(plan.at(8), solver="Heun")
        assert str(named).startswith("Heun in 8 evaluations")
        assert all(0 < plan.costs[budget] < 400_000 for budget in (5, 8))

    def test_it_is_kept_to_the_last_digit(self, plan: Plan) -> None:
        assert Plan.from_json(plan.to_json()) == plan
        content = json.loads(plan.to_json())
        assert (content["format"], content["version"], content["time"]) == ("rheos plan", 1, "noise at 0, data at 1")

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"version": 2}, "no plan of version 1"),
            ({"format": "poem"}, "no plan of version 1: 'poem'"),
            ({"guidance": [1]}, "damaged"),
            ({"entries": [{}]}, "damaged"),
        ],
    )
    def test_damaged_files_are_refused(self, plan: Plan, change: dict[str, Any], said: str) -> None:
        with pytest.raises(CheckpointError, match=said):
            Plan.from_json(json.dumps({**json.loads(plan.to_json()), **change}))
        with pytest.raises(CheckpointError, match="damaged"):
            Plan.from_json(plan.to_json()[:200])
        unknown = json.loads(plan.to_json())
        unknown["entries"][0]["solver"] = "Magic"
        with pytest.raises(CheckpointError, match="there is no solver 'Magic'"):
            Plan.from_json(json.dumps(unknown))

    def test_another_model_or_guidance_is_refused(self, plan: Plan) -> None:
        guided = replace(plan, guidance=(1.0, 4.0))
        guided.require("ring", 2.5)
        with pytest.raises(CheckpointError, match="compiled for another model"):
            guided.require("rang", 2.5)
        with pytest.raises(InputError, match="guidance from 1 to 4, not 7"):
            guided.require("ring", 7.0)

    def test_a_sharp_plan_learns_from_its_worst_draws(self) -> None:
        given = noise(5, 24 + 200 + 384)
        sharp = calibrate(RING, given, budgets=(5,), draws=24, sharp=True, effort=50_000)
        assert sharp.sharp
        assert sharp.at(5).expected.within(sharp.at(5).classical)
        assert sharp.costs[5] > 0

    def test_other_paths_and_guidance(self) -> None:
        path = Affine(Cosine())
        flow = Flow(ring().velocity(path))
        found = calibrate({2.0: flow, 1.0: flow}, noise(5, 16 + 384), budgets=(4,), draws=16, path=path, effort=30_000)
        assert found.guidance == (1.0, 2.0)
        entry = found.at(4)
        assert entry.expected.within(entry.classical) or entry.solver is not None

    def test_few_noises_may_judge(self) -> None:
        few = calibrate(RING, noise(5, 16 + 24), budgets=(4,), draws=16, judged=24, effort=0).at(4)
        # All that were not fitted on judge.
        more = calibrate(RING, noise(5, 16 + 24), budgets=(4,), draws=16, judged=10, effort=0).at(4)
        assert few == more
        many = calibrate(RING, noise(5, 16 + 384), budgets=(4,), draws=16, effort=0).at(4)
        assert few.expected.median == pytest.approx(many.expected.median, rel=0.5)

    def test_too_little_is_refused(self) -> None:
        with pytest.raises(InputError, match="448 noises, and 8 of each at least; got 400"):
            calibrate(RING, noise(5, 400))
        with pytest.raises(InputError, match="16 draws to fit on and 20 to judge by need 36 noises"):
            calibrate(RING, noise(5, 35), draws=16, judged=20)
        with pytest.raises(InputError, match="8 of each at least"):
            calibrate(RING, noise(5, 35), draws=16, judged=7)
        with pytest.raises(InputError, match="at least one evaluation, got"):
            calibrate(RING, noise(5, 600), budgets=(0, 3))
        with pytest.raises(InputError, match="at least one evaluation, got"):
            calibrate(RING, noise(5, 600), budgets=())


def test_a_fingerprint_tells_models_from_others() -> None:
    with nn.seeded(0):
        model = nn.MLP(2, width=80, depth=2)
    before = fingerprint(model)
    assert before == fingerprint(model)
    with nn.seeded(1):
        assert fingerprint(nn.MLP(2, width=80, depth=2)) != before
    assert fingerprint(model.double()) != before
    model.float()
    assert fingerprint(model) == before
    next(iter(model.parameters())).data.flatten()[0] += 1e-3
    assert fingerprint(model) != before


def test_networks_in_single_precision(plan: Plan) -> None:
    x0 = noise(3, 16 + 384).float()
    single = Flow(lambda x, t: RING.velocity(x.double(), t.double()).float())
    found = calibrate(single, x0, budgets=(4,), draws=16, effort=30_000)
    solver: FixedStep[Tensor] = PlanSolver(found.at(4))
    drawn = integrate(solver, single, x0[:5], PlanSolver(found.at(4)).grid).x
    assert drawn.dtype == torch.float32
    assert isinstance(found.at(4), Entry)
    by_heun = integrate(Heun(), single, x0[:5], grids.Uniform()(60)).x
    torch.testing.assert_close(drawn, by_heun, atol=0.3, rtol=0)
