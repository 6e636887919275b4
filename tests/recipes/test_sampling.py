"""Sample i of a seed is one function of (seed, i); budgets, steps and labels mean what they say."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rheos import couplings, objectives, paths, schedules, solvers
from rheos.core import InputError, Rng
from rheos.data import Shuffled
from rheos.dynamics import AncestralNoise, map_likelihood
from rheos.guidance import ClassifierFree
from rheos.nn import MLP, seeded
from rheos.recipes import Build, DataRef, Images, Kind, Recipe, Sampler, toy
from rheos.training import Training

CLASSES = ("cat", "dog", "owl")


def recipe(kind: Kind | None = None, **changes: Any) -> Recipe:
    plain = Recipe(
        name="test",
        kind=kind or Images(8, 1, CLASSES),
        data=DataRef(None, "", 10),
        network=Build(MLP, {"shape": 2}),
        objective=objectives.Matching(),
        order=Shuffled(10),
        solver=solvers.Euler(),
        grid=solvers.grids.Uniform(),
        evaluations=6,
        guidance=None,
        training=Training(),
    )
    return replace(plain, **changes)


class Push(nn.Module):
    """The velocity ``rate*x + table[label]``; an unknown label pushes nowhere."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate))
        self.register_buffer("table", torch.tensor([1.0, 2.0, 4.0, 0.0]))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled() or x.requires_grad
        push = torch.zeros(len(x)) if cond is None else self.table[cond]
        return self.rate * x + push.reshape(-1, *[1] * (x.dim() - 1))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with seeded(1):
        net = MLP((1, 8, 8), 32, 2, classes=3)
        for parameter in net.parameters():
            # The last layer begins at zero, which would hide everything before it.
            nn.init.normal_(parameter, std=0.2)
    return net


@pytest.mark.parametrize("batch", [1, 7, 16, 64, 500])
def test_samples_do_not_depend_on_the_batch(network: nn.Module, batch: int) -> None:
    whole = Sampler(recipe(), network, 7, 64).draw(64).states
    again = Sampler(recipe(), network, 7, batch).draw(64).states
    torch.testing.assert_close(again, whole, rtol=0, atol=1e-5)
    assert whole.std() > 0.1
    if batch in (64, 500):
        assert torch.equal(again, whole)


@pytest.mark.parametrize("batch", [1, 3, 10])
def test_noise_and_labels_are_the_same_bits_in_every_batch(batch: int) -> None:
    # Nothing but one multiplication an element, so that rounding cannot differ either.
    whole = Sampler(recipe(), Push(), 3, 10).draw(10)
    parts = Sampler(recipe(), Push(), 3, batch).draw(10)
    assert torch.equal(whole.states, parts.states)


def test_longer_requests_begin_with_shorter_ones(network: nn.Module) -> None:
    torch.testing.assert_close(
        Sampler(recipe(), network, 7).draw(20).states[:5],
        Sampler(recipe(), network, 7).draw(5).states,
        rtol=0,
        atol=1e-5,
    )


def test_seeds_and_samples_differ(network: nn.Module) -> None:
    one, two = (Sampler(recipe(), network, seed).draw(12).states for seed in (7, 8))
    assert (one - two).abs().amax((1, 2, 3)).min() > 0.1
    # Of one class, so that only the noise differs.
    assert (one[0] - one[3]).abs().max() > 0.1


def test_the_solver_never_changes_the_noise() -> None:
    """With no velocity, what comes out is the noise."""
    drawn = [
        Sampler(recipe(Images(8, 1), solver=solver), Push(), 5).draw(4).states
        for solver in (solvers.Euler(), solvers.RK4(), solvers.Dopri5())
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    assert abs(float(drawn[0].std()) - 1) < 0.2


def test_the_prior_has_the_scale_of_the_path() -> None:
    path = paths.Affine(schedules.VarianceExploding())
    wide = recipe(Images(8, 1), objective=objectives.Matching(path))
    ratio = Sampler(wide, Push(), 5).draw(4).states / Sampler(recipe(Images(8, 1)), Push(), 5).draw(4).states
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(path.schedule(torch.zeros(()))[1])))


def test_labels_are_the_classes_in_turn() -> None:
    drawn = Sampler(recipe(), Push(), 0, 4).draw(7)
    assert drawn.labels is not None
    assert drawn.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    start = Sampler(recipe(Images(8, 1)), Push(), 0).draw(7)
    assert start.labels is None
    moved = (drawn.states - start.states).mean((1, 2, 3))
    torch.testing.assert_close(moved, torch.tensor([1.0, 2, 4, 1, 2, 4, 1]), rtol=0, atol=1e-5)


def test_labels_asked_for_reach_their_samples() -> None:
    start = Sampler(recipe(Images(8, 1)), Push(), 0).draw(4).states
    for batch in (1, 3, 4):
        drawn = Sampler(recipe(), Push(), 0, batch).draw(4, torch.tensor([2, -1, 0, 2]))
        moved = (drawn.states - start).mean((1, 2, 3))
        torch.testing.assert_close(moved, torch.tensor([4.0, 0, 1, 4]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor([0, 1]),
        torch.tensor([0, 1, 3]),
        torch.tensor([0, -2, 1]),
        torch.tensor([0.0, 1.0, 2.0]),
        torch.tensor([True, False, True]),
        torch.tensor([[0, 1, 2]]),
    ],
)
def test_labels_that_are_none_are_refused(labels: Tensor) -> None:
    with pytest.raises(InputError, match=r"labels are \(3,\) integers from -1 \(any\) to 2"):
        Sampler(recipe(), Push()).draw(3, labels)


def test_requests_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="no classes"):
        Sampler(recipe(Images(8, 1)), Push()).draw(1, torch.tensor([0]))
    with pytest.raises(InputError, match="at least one sample"):
        Sampler(recipe(), Push()).draw(0)
    with pytest.raises(InputError, match="at least one sample"):
        Sampler(recipe(), Push(), batch=0)
    with pytest.raises(InputError, match="not both"):
        Sampler(recipe(), Push()).draw(1, steps=1, evaluations=1)
    with pytest.raises(InputError, match="steps = 0"):
        Sampler(recipe(), Push()).draw(1, steps=0)
    with pytest.raises(InputError, match="takes 4 evaluations, and 3 are allowed"):
        Sampler(recipe(solver=solvers.RK4()), Push()).draw(1, evaluations=3)
    with pytest.raises(InputError, match="as many evaluations as its tolerances need"):
        Sampler(recipe(solver=solvers.Dopri5()), Push()).draw(1, evaluations=30)


def all_solvers() -> list[tuple[solvers.FixedStep[Tensor], int]]:
    path = paths.Affine()
    multistep = [solvers.AdamsBashforth(2), solvers.AdamsBashforth(4), solvers.DPMSolver(path), solvers.UniPC(path)]
    multistep += [solvers.Stork(), solvers.MeanCache(), solvers.TeaCache(0.0)]
    staged = [(solvers.Euler(), 1), (solvers.Midpoint(), 2), (solvers.Heun(), 2), (solvers.RK4(), 4)]
    return [*staged, *((solver, 1) for solver in multistep)]


@pytest.mark.parametrize(("solver", "stages"), all_solvers(), ids=lambda v: str(v)[:14])
def test_evaluations_are_kept_and_steps_are_taken(solver: Any, stages: int) -> None:
    calls = []

    class Counting(Push):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
            calls.append(len(x))
            return super().forward(x, t, cond)

    for budget in (4, 7, 10):
        calls.clear()
        drawn = Sampler(recipe(solver=solver), Counting(-1.0)).draw(2, evaluations=budget)
        assert drawn.evaluations == drawn.passes == len(calls) == budget // stages * stages
    calls.clear()
    assert Sampler(recipe(solver=solver), Counting()).draw(2, steps=3).evaluations == 3 * stages == len(calls)
    assert Sampler(recipe(solver=solver), Counting(), 0, 1).draw(2, steps=3).evaluations == 3 * stages
    own = Sampler(recipe(solver=solver), Counting()).draw(2)
    assert own.evaluations == 6 // stages * stages


def test_an_adaptive_solver_tells_what_it_took() -> None:
    calls = []

    class Counting(Push):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
            calls.append(len(x))
            return super().forward(x, t, cond)

    drawn = Sampler(recipe(solver=solvers.Dopri5()), Counting(-3.0)).draw(2)
    assert drawn.evaluations == len(calls) > 12
    expected = Sampler(recipe(Images(8, 1)), Push()).draw(2).states * math.exp(-3)
    push = torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1) * (1 - math.exp(-3)) / 3
    torch.testing.assert_close(drawn.states, expected + push, rtol=0, atol=1e-4)
    # Each batch takes what it needs; the costliest is told, which is what all of them take together.
    split = Sampler(recipe(solver=solvers.Dopri5()), Counting(-3.0), 0, 1)
    assert split.draw(2).evaluations == drawn.evaluations
    # A measure that names a budget gets the samples all the same.
    assert torch.equal(split(torch.tensor([0, 1]), 2, 4), split.draw(2).states)


def test_guidance_is_applied_and_counted() -> None:
    start = Sampler(recipe(Images(8, 1)), Push(), 0).draw(3).states
    drawn = Sampler(recipe(guidance=ClassifierFree(3.0)), Push(), 0).draw(3)
    torch.testing.assert_close((drawn.states - start).mean((1, 2, 3)), torch.tensor([3.0, 6, 12]), rtol=0, atol=1e-4)
    assert (drawn.evaluations, drawn.passes) == (6, 12)


@pytest.mark.parametrize("fails", [False, True])
def test_the_mode_of_every_part_is_restored(fails: bool) -> None:
    network = Push()
    network.train()
    network.dropout.eval()
    if fails:
        network.rate = nn.Parameter(torch.ones(3))
        with pytest.raises(RuntimeError):
            Sampler(recipe(), network).draw(2)
    else:
        Sampler(recipe(), network).draw(2)
    assert network.training
    assert not network.dropout.training


def test_nothing_is_recorded_for_gradients(network: nn.Module) -> None:
    assert not Sampler(recipe(), network).draw(2).states.requires_grad


def test_a_curve_names_what_was_taken() -> None:
    found, own = Sampler(recipe(solver=solvers.Heun()), Push(-1.0)).curve(None, 3, (1, 5, 100, 101))
    # One evaluation pays for no step of Heun; 100 and 101 pay for the same.
    assert (list(found), own) == ([4, 6, 100], 6)
    assert torch.equal(found[6], Sampler(recipe(solver=solvers.Heun()), Push(-1.0)).draw(3).states)
    exact = Sampler(recipe(solver=solvers.Dopri5()), Push(-1.0)).draw(3).states
    errors = [float((found[budget] - exact).abs().max()) for budget in found]
    assert errors[0] > 2 * errors[1] > 100 * errors[2]
    found, own = Sampler(recipe(solver=solvers.Dopri5()), Push(-1.0)).curve(None, 3, (1, 5, 100))
    assert list(found) == [own]


class TestLogProb:
    """The flow of ``v = rate*x + push`` carries N(0, s^2) to a normal distribution that is known."""

    @pytest.mark.parametrize("schedule", [schedules.Linear(), schedules.VarianceExploding()])
    @pytest.mark.parametrize("batch", [2, 500])
    def test_of_a_linear_flow(self, schedule: schedules.Schedule, batch: int) -> None:
        rate, states = 0.7, Rng(0).rows(torch.arange(5)).normal(1, 8, 8)
        labels = torch.tensor([0, 1, 2, -1, 0])
        path = paths.Affine(schedule)
        sampler = Sampler(recipe(objective=objectives.Matching(path)), Push(rate), 0, batch)
        found = sampler.log_prob(states, labels, Rng(3))
        shift = torch.tensor([1.0, 2.0, 4.0, 0.0])[labels] * (math.exp(rate) - 1) / rate
        scale = float(schedule(torch.zeros(()))[1]) * math.exp(rate)
        normal = torch.distributions.Normal(shift[:, None, None, None].double(), scale)
        expected = normal.log_prob(states.double()).sum((1, 2, 3))
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-3)

    def test_does_not_depend_on_the_batch(self, network: nn.Module) -> None:
        states = Rng(0).rows(torch.arange(6)).normal(1, 8, 8)
        labels = torch.arange(6) % 3
        one, two = (Sampler(recipe(), network, 0, batch).log_prob(states, labels, Rng(3)) for batch in (2, 6))
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-3)
        other = Sampler(recipe(), network, 0, 6).log_prob(states, labels, Rng(4))
        assert not torch.equal(two, other)

    def test_wants_normal_noise(self) -> None:
        @dataclass(frozen=True)
        class Flat:
            def __call__(self, rng: Rng, like: Tensor) -> Tensor:
                return torch.zeros_like(like)

        flat = recipe(objective=objectives.Matching(source=Flat()))
        with pytest.raises(InputError, match="from normal noise"):
            Sampler(flat, Push()).log_prob(torch.zeros(1, 1, 8, 8), None, Rng(0))

    def test_where_an_end_is_undetermined(self) -> None:
        """A network that predicts noise, on a path whose speed is infinite at the data."""
        objective = objectives.Matching(paths.Affine(schedules.VariancePreserving()), predict="noise")
        found = Sampler(recipe(objective=objective), Push(0.5)).log_prob(torch.zeros(2, 1, 8, 8), None, Rng(0))
        assert torch.isfinite(found).all()


def test_a_coupling_changes_no_sample() -> None:
    paired = replace(toy(width=8), objective=objectives.Matching(coupling=couplings.BatchOT()))
    network = toy(width=8).network(0)
    assert torch.equal(Sampler(paired, network).draw(5).states, Sampler(toy(width=8), network).draw(5).states)


def test_trajectories_are_those_that_samples_follow() -> None:
    """A velocity that turns about the origin: every trajectory is an arc of one radian."""
    recipe = toy(width=8)

    class Turning(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
            return torch.stack([-x[:, 1], x[:, 0]], 1)

    found = Sampler(recipe, Turning(), seed=3).trajectories(40)
    start = recipe.objective.prior(Rng(3).rows(torch.arange(40)), torch.zeros(40, 2))
    assert found.turning == pytest.approx(1.0, abs=1e-3)
    assert found.kinetic_energy == pytest.approx(float(start.square().sum(1).mean()), rel=1e-3)
    assert found.length_excess == pytest.approx(0.5 / math.sin(0.5) - 1, abs=1e-3)
    assert Sampler(recipe, Turning(), seed=3, batch=7).trajectories(40) == found


def test_noise_is_added_on_the_way_and_trajectories_are_followed_without() -> None:
    with seeded(1):
        network = Push(0.3)
    plain = Sampler(recipe(evaluations=12), network)
    noisy = Sampler(recipe(evaluations=12, noise=AncestralNoise()), network)
    assert not torch.allclose(noisy.draw(5).states, plain.draw(5).states)
    # Sample i is a function of (seed, i), the noise on its way included.
    one_by_one = Sampler(recipe(evaluations=12, noise=AncestralNoise()), network, batch=2)
    torch.testing.assert_close(one_by_one.draw(5).states, noisy.draw(5).states, rtol=0, atol=1e-6)
    assert not torch.allclose(replace(noisy, seed=1).draw(5).states, noisy.draw(5).states)
    assert noisy.trajectories(5) == plain.trajectories(5)
    bridge = recipe(objective=objectives.SchroedingerBridge(0.5, couplings.Independent()), noise=AncestralNoise())
    with pytest.raises(InputError, match="noise is added to a flow on an affine path, and SchroedingerBridge has none"):
        Sampler(bridge, network).draw(2)
    with pytest.raises(InputError, match="the noise of a recipe must be callable, got 3"):
        recipe(noise=3)


def test_a_map_leads_states_back() -> None:
    """As the map that it is, from noise of the path's own size; with labels told."""
    with seeded(3):
        two = MLP((1, 8, 8), 8, 1, classes=3, two_times=True)
        nn.init.normal_(two.leave.weight, std=0.05)
    objective = objectives.lagrangian(backward=0.25, path=paths.Affine(schedules.VarianceExploding()))
    scale = float(objective.path.schedule(torch.zeros(()))[1])
    x, labels = Rng(1).normal(4, 1, 8, 8), torch.tensor([2, -1, 0, 1])
    for learned in (objective, objectives.Rectified(objective)):
        sampler = Sampler(recipe(objective=learned), two)
        found = sampler.inverted(x, labels, 2)
        grid = solvers.grids.Uniform()(2).flip(0)
        own = map_likelihood(objective.dynamics(two), x, solver=solvers.Euler(), grid=grid, cond=labels, scale=scale)
        torch.testing.assert_close(found.log_prob, own.log_prob)
        assert found.evaluations == 2
        assert not torch.equal(found.x, sampler.inverted(x, None, 2).x)
    for learned in (objectives.lagrangian(), objectives.Matching()):
        assert not Sampler(recipe(objective=learned), two).leads_back
        with pytest.raises(InputError, match="--backward X"):
            Sampler(recipe(objective=learned), two).inverted(x, labels, 1)
