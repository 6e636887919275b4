"""FastFlow: a bandit with little regret, exact guesses, honest rewards, and counts that are true."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rheos.core import CheckpointError, InputError, Rng
from rheos.data.mixtures import GaussianMixture
from rheos.dynamics import Diffusion, Flow
from rheos.guidance import ClassifierFree
from rheos.paths import Affine
from rheos.solvers import Bandit, Euler, FastFlow, integrate
from rheos.solvers.grids import Cosine, Uniform

T = 40
FINE = Uniform()(T, torch.float64)
NOISE = Rng(0).rows(torch.arange(8)).normal(2, dtype=torch.float64)


def late(x: Tensor, t: Tensor) -> Tensor:
    """Straight on the first half, bent on the second."""
    return torch.ones_like(x) + (6 * (t - 0.5).clamp(min=0)) * torch.cos(15 * t + 3 * x)


def learned(flow: Any, generations: int, each: bool = False, cond: Any = None) -> Bandit:
    bandit = Bandit.fresh(T)
    for n in range(generations):
        noise = Rng(1 + n).rows(torch.arange(8)).normal(2, dtype=torch.float64)
        solver = FastFlow(bandit, learning=True, each=each, gamma=bandit.mu or 0.0)
        bandit = integrate(solver, flow, noise, FINE, cond).memory.own.bandit
    return bandit


def chose(*arms: int) -> Bandit:
    """A bandit that knows of one arm at each step, by place."""
    counts = tuple(tuple(int(place == arm) for place in range(4)) for arm in arms)
    return Bandit((0, 2, 4, 6), counts, tuple((0.0,) * 4 for _ in arms), 0.1)


def regret(rounds: int, gamma: float, random: bool = False) -> float:
    """The cumulative regret of one step's bandit on noisy rewards of known means."""
    means = (0.1, 0.7, 0.5, 0.2)
    bandit = Bandit.fresh(9)
    draws = Rng(5).normal(rounds, dtype=torch.float64)
    arms = (Rng(6).uniform(rounds) * 4).long().tolist()
    total = 0.0
    for noise, other in zip(draws.tolist(), arms, strict=True):
        arm = other if random else bandit.explore(1, gamma)
        bandit = bandit.rewarded(1, arm, means[arm] + 0.3 * noise)
        total += max(means) - means[arm]
    assert sum(bandit.counts[1]) == rounds
    assert random or bandit.best(1) == 1
    return total


def test_regret_grows_like_the_logarithm():
    few, many = regret(400, 0.6), regret(6400, 0.6)
    # Sixteen times the rounds: a logarithm grows by log(6400)/log(400) = 1.46, a constant share of rounds by 16.
    assert many / few < 2.2
    assert many < 0.05 * regret(6400, 0.6, random=True)
    assert regret(400, 2.0) < 0.8 * regret(400, 2.0, random=True)


def test_arms_that_were_never_played_come_first_and_the_bound_is_the_papers():
    bandit, order = Bandit.fresh(9, mu=0.0), []
    for reward in (0.3, 0.2, 0.1, 0.0):
        order.append(bandit.explore(1, 2.0))
        bandit = bandit.rewarded(1, order[-1], reward)
    assert order == [0, 1, 2, 3]
    bandit = bandit.rewarded(1, 0, 0.3).rewarded(1, 0, 0.3)
    # Q + gamma*sqrt(log(6)/N): .3 + .773*gamma of the first, .2 + 1.339*gamma of the second.
    assert bandit.explore(1, 0.17) == 0
    assert bandit.explore(1, 0.18) == 1
    assert bandit.best(1) == 0


def test_a_guess_is_exact_on_a_velocity_linear_in_time():
    flow = Flow(lambda x, t: (1 + 3 * t) * torch.tensor([1.0, -2.0], dtype=torch.float64).expand_as(x))
    for grid in (FINE, Cosine()(T, torch.float64), FINE.flip(0)):
        for each in (False, True):
            found = integrate(FastFlow(chose(*[3] * T), each=each), flow, NOISE, grid)
            torch.testing.assert_close(found.x, integrate(Euler(), flow, NOISE, grid).x, rtol=0, atol=1e-12)
            assert found.evaluations == 10


def test_skips_are_where_the_arms_say_and_evaluations_are_counted():
    calls = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        calls.append(round(float(t) * T))
        return torch.cos(t) * x

    # At step 1 four are skipped, at 6 none, at 7 two; from 10 on always six, as long as there is a step to evaluate.
    arms = [0] * T
    arms[1], arms[7], arms[10:] = 2, 1, [3] * (T - 10)
    solver = FastFlow(chose(*arms))
    found = integrate(solver, Flow(velocity), NOISE, FINE)
    expected = [0, 1, 6, 7, 10, 17, 24, 31, 38, 39]
    assert calls == expected == [n for n, point in enumerate(solver.bandit.points()) if point]
    assert found.evaluations == len(expected) == solver.evaluations(T)
    assert found.memory.points.sum(1).tolist() == [len(expected)] * 8
    assert solver.steps(10) == T
    with pytest.raises(InputError, match="up to 10"):
        solver.steps(9)


def test_a_reward_by_hand():
    """``v = t**2`` on ten steps with known arms: the guess for .4 from .1 and 0 is .04, and the truth .16."""
    flow = Flow(lambda x, t: t**2 * torch.ones_like(x))
    bandit = Bandit.fresh(10, mu=0.01)
    for step in range(10):
        for arm in (0, 2, 3):
            bandit = bandit.rewarded(step, arm, 0.0)
    taught = integrate(FastFlow(bandit, learning=True), flow, NOISE, Uniform()(10, torch.float64)).memory.own.bandit
    assert taught.counts[1] == (1, 1, 1, 1)
    assert taught.means[1][1] == pytest.approx(0.01 * 2 - (0.16 - 0.04) ** 2)
    # The next choice is at .4, with .1 before it: a guess .16 + .3*.5 = .31 for .7, where the truth is .49.
    assert taught.means[4][1] == pytest.approx(0.01 * 2 - (0.49 - 0.31) ** 2)
    assert bandit.counts[1] == (1, 0, 1, 1)


def test_the_first_generation_skips_nothing_and_sets_mu():
    """``v = t**2``: from two neighbours the guess d ahead misses by ``d*(d + h)``, most for six skipped, d = 7*h."""
    flow = Flow(lambda x, t: t**2 * torch.ones_like(x))
    for each in (False, True):
        found = integrate(FastFlow(Bandit.fresh(T), learning=True, each=each), flow, NOISE, FINE)
        assert found.evaluations == T
        bandit, h = found.memory.own.bandit, 1 / T
        assert bandit.mu == pytest.approx((7 * h * 8 * h) ** 2 / T)
        for arm, skipped in enumerate(bandit.arms):
            loss = ((skipped + 1) * h * (skipped + 2) * h) ** 2
            assert bandit.means[5][arm] == pytest.approx(bandit.mu * skipped - loss)
            assert bandit.counts[5][arm] == (8 if each else 1)
        # Six can be skipped from 32 on no more, and nothing is chosen at the first step and the last.
        assert [bool(row[3]) for row in bandit.counts] == [0 < n < 33 for n in range(T)]
        assert [bool(row[0]) for row in bandit.counts] == [0 < n < 39 for n in range(T)]


@pytest.mark.parametrize("each", [False, True])
def test_it_learns_to_skip_where_the_flow_is_straight(each):
    flow = Flow(late)
    bandit = learned(flow, 8, each)
    found = integrate(FastFlow(bandit, each=each), flow, NOISE, FINE).memory.points
    # Two in the opening, and at most three more on the straight half.
    assert bool((found[:, :20].sum(1) <= 5).all())
    assert bool((found[:, 20:].sum(1) >= 8).all())


@pytest.mark.parametrize("each", [False, True])
def test_it_is_nearer_to_euler_than_euler_with_as_many_evaluations(each):
    angle = torch.arange(8) * math.pi / 4
    means = 3 * torch.stack([angle.cos(), angle.sin()], 1).double()
    spread = 0.09 * torch.eye(2, dtype=torch.float64).expand(8, 2, 2)
    flow = Flow(GaussianMixture(torch.ones(8, dtype=torch.float64), means, spread).velocity(Affine()))
    found = integrate(FastFlow(learned(flow, 20), each=each), flow, NOISE, FINE)
    spent = int(found.memory.points.sum(1).double().mean().ceil())
    assert spent < 30
    euler, fewer = (integrate(Euler(), flow, NOISE, Uniform()(n, torch.float64)).x for n in (T, spent))
    assert (found.x - euler).abs().mean() < 0.3 * (fewer - euler).abs().mean()


@pytest.mark.parametrize("each", [False, True])
def test_frozen_nothing_changes_and_learning_changes_it(each):
    bandit = learned(Flow(late), 3)
    solver = FastFlow(bandit, each=each)
    first, second = (integrate(solver, Flow(late), NOISE, FINE) for _ in range(2))
    assert torch.equal(first.x, second.x)
    assert first.memory.own.bandit == bandit
    taught = integrate(replace(solver, learning=True), Flow(late), NOISE, FINE).memory.own.bandit
    assert taught != bandit
    assert sum(map(sum, taught.counts)) > sum(map(sum, bandit.counts))


def test_its_solver_takes_the_same_steps_and_knows_them_beforehand():
    bandit = learned(Flow(late), 6)
    waits = integrate(FastFlow(bandit), Flow(late), NOISE, FINE)
    knows = bandit.solver(FINE)
    assert 3 < waits.evaluations < T
    solution = integrate(knows, Flow(late), NOISE, knows.grid)
    assert solution.evaluations == waits.evaluations
    torch.testing.assert_close(solution.x, waits.x, rtol=1e-12, atol=1e-12)
    with pytest.raises(InputError, match="has learned 40 steps, and the grid has 9"):
        bandit.solver(FINE[:10])


class Labelled:
    """A velocity that bends by its label, and knows which rows it is given."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        assert len(x) == len(cond)
        self.rows.append(len(x))
        bend = cond.clamp(min=0).to(x)[:, None]
        return torch.ones_like(x) + 0.3 * bend * torch.sin(9 * t + x)


@pytest.mark.parametrize("guided", [False, True])
def test_with_arms_of_its_own_a_sample_does_not_depend_on_its_batch(guided):
    labels, model = torch.arange(8), Labelled()
    flow: Any = Flow(model)
    flow = flow.over(ClassifierFree(2.0)) if guided else flow
    bandit = learned(flow, 4, cond=labels)
    model.rows.clear()
    whole = integrate(FastFlow(bandit, each=True), flow, NOISE, FINE, labels)
    spent = whole.memory.points.sum(1)
    assert spent.unique().numel() > 1
    assert sum(model.rows) == int(spent.sum()) * (2 if guided else 1)
    assert whole.evaluations == int(whole.memory.points.any(0).sum())
    assert whole.passes == len(model.rows)
    for row in (0, 3, 7):
        alone = integrate(FastFlow(bandit, each=True), flow, NOISE[row : row + 1], FINE, labels[row : row + 1])
        torch.testing.assert_close(alone.x[0], whole.x[row], rtol=0, atol=1e-12)
        assert alone.evaluations == spent[row]


def test_what_bends_more_than_usual_is_skipped_less():
    bandit = Bandit.fresh(20, mu=1.0)
    for arm, loss in enumerate((0.0, 0.1, 0.4, 1.5)):
        bandit = bandit.rewarded(2, arm, bandit.reward(arm, loss))
        assert bandit.expected_loss(2, arm) == pytest.approx(loss)
    # mu*a - bend*loss: 4.5 of the last against 3.6 without a bend, 0 against 2.4 with four, -6 against 1.2 and .8.
    assert [bandit.best(2, bend) for bend in (1.0, 4.0, 8.0)] == [3, 2, 1]


def test_with_a_first_velocity_that_says_nothing_a_third_is_evaluated():
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(t == 0, 1e6, 1 + t).expand_as(x)

    flow = Flow(velocity, known=lambda t: t != 0)
    found = integrate(FastFlow(chose(*[3] * T)), flow, NOISE, FINE, trajectory=True)
    assert found.memory.points[0, :10].nonzero()[:, 0].tolist() == [0, 1, 2, 9]
    after = integrate(Euler(), flow, found.trajectory[1], FINE[1:]).x  # pyright: ignore[reportOptionalSubscript]
    torch.testing.assert_close(found.x, after, rtol=1e-12, atol=1e-9)
    bandit = integrate(FastFlow(Bandit.fresh(T), learning=True), flow, NOISE, FINE).memory.own.bandit
    assert bandit.mu == pytest.approx(0.0, abs=1e-20)


def test_saved_and_loaded():
    bandit = learned(Flow(late), 2)
    assert Bandit.from_json(bandit.to_json()) == bandit
    assert Bandit.from_json(Bandit.fresh(5, (0, 1)).to_json()) == Bandit.fresh(5, (0, 1))
    content = json.loads(bandit.to_json())
    broken = [
        {**content, "version": 2},
        {**content, "format": "rheos plan"},
        {**content, "steps": 39},
        {**content, "arms": [0, 2, 4]},
        {**content, "arms": [2, 0, 4, 6]},
        {**content, "counts": content["counts"][:-1]},
        {**content, "mu": -1.0},
        {**content, "means": [[math.nan] * 4] * T},
        {key: value for key, value in content.items() if key != "means"},
        [],
    ]
    for each in broken:
        with pytest.raises(CheckpointError, match=r"no bandit of version 1|damaged"):
            Bandit.from_json(json.dumps(each))
    with pytest.raises(CheckpointError, match="damaged"):
        Bandit.from_json(bandit.to_json()[:-20])


def test_what_they_refuse():
    with pytest.raises(InputError, match="learned 40 steps, and the grid has 20"):
        integrate(FastFlow(Bandit.fresh(T)), Flow(late), NOISE, Uniform()(20, torch.float64))
    diffusion = Diffusion(Flow(late), Affine(), torch.ones_like)
    with pytest.raises(InputError, match="Diffusion"):
        integrate(FastFlow(Bandit.fresh(T)), diffusion, NOISE, FINE, rng=0)
    with pytest.raises(InputError, match="gamma"):
        FastFlow(Bandit.fresh(T), gamma=-1.0)
    with pytest.raises(InputError, match="arms"):
        Bandit.fresh(T, (1, 2))
    with pytest.raises(InputError, match="start"):
        FastFlow(Bandit.fresh(T)).step(Flow(late), NOISE, FINE[0], FINE[1])
