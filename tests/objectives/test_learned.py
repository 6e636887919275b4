"""An objective that trains the network and the path at once: each by its own term, to a known end, resumably."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rheos import nn as networks
from rheos import testing
from rheos.core import InputError, Rng, ShapeError
from rheos.couplings import BatchOT
from rheos.data import Shuffled, Tensors
from rheos.objectives import Matching
from rheos.objectives.learned import KineticEnergy, LearnedMatching, MetricEnergy
from rheos.paths import Affine
from rheos.paths.learned import Correction, LearnedInterpolant
from rheos.paths.metric import LAND, RBF
from rheos.recipes.serial import decode, encode
from rheos.schedules import VariancePreserving
from rheos.schedules.learned import Learned, bernstein
from rheos.training import LossModule, Stopped, Training, checkpoint, fit, load_weights
from rheos.training.journal import CLOCK

DATA = Rng(1).rows(torch.arange(40)).normal(3)
T = torch.tensor([0.1, 0.4, 0.7, 0.9])
X0, X1 = Rng(2).normal(4, 3), Rng(3).normal(4, 3)


def interpolant(width: int = 8) -> LearnedInterpolant:
    """A path that bends already."""
    path = LearnedInterpolant(Correction, {"shape": (3,), "width": width}, schedule=Learned(4))
    with torch.no_grad():
        for k, parameter in enumerate(p for part in path.learned.values() for p in part.parameters()):
            parameter.copy_(0.3 * Rng(4).fold(k).normal(*parameter.shape))
    return path


def network() -> nn.Module:
    """A network that is not zero."""
    with networks.seeded(5):
        net = networks.MLP(3, 12, 2, classes=4)
        nn.init.normal_(net.leave.weight)
    return net


def objectives() -> list[LearnedMatching]:
    return [
        LearnedMatching(interpolant()),
        LearnedMatching(interpolant(0), KineticEnergy(0.0), weight=0.5),
        LearnedMatching(Affine(Learned(4)), coupling=BatchOT()),
        LearnedMatching(interpolant(), MetricEnergy(LAND((3,), 1.0).fit(DATA, Rng(0)))),
        LearnedMatching(interpolant(), MetricEnergy(RBF((3,), 5).fit(DATA, Rng(0)))),
    ]


@pytest.mark.parametrize("objective", objectives())
def test_objectives_keep_the_laws(objective: LearnedMatching) -> None:
    testing.check_objective(objective)


def gradients(loss: Tensor, module: nn.Module) -> list[Tensor]:
    found = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, module.parameters(), strict=True)]


@pytest.mark.parametrize("objective", objectives())
def test_each_part_learns_from_its_own_term_alone(objective: LearnedMatching) -> None:
    net, label = network(), torch.tensor([0, 1, 2, 3])
    path = nn.ModuleDict(dict(objective.learned))
    loss = objective(net, X1, label, x0=X0, t=T)
    matching, energy = loss.parts["matching"].sum(), loss.parts["energy"].sum()
    torch.testing.assert_close(loss.rows, loss.parts["matching"] + objective.weight * loss.parts["energy"])
    assert not any(g.any() for g in gradients(energy, net))
    assert not any(g.any() for g in gradients(matching, path))
    assert all(g.any() for g in gradients(matching, net))
    if energy.requires_grad:
        assert any(g.any() for g in gradients(energy, path))
    # All of it reaches the parameters by one backward pass, and nothing has been left there before it.
    assert all(p.grad is None for p in [*net.parameters(), *path.parameters()])
    loss.rows.sum().backward()
    for part, term, weight in ((net, matching, 1.0), (path, energy, objective.weight)):
        again = objective(net, X1, label, x0=X0, t=T).parts["matching" if term is matching else "energy"].sum()
        for parameter, gradient in zip(part.parameters(), gradients(again, part), strict=True):
            if parameter.grad is None:
                assert not gradient.any()
            else:
                torch.testing.assert_close(parameter.grad, weight * gradient)


def test_the_networks_term_is_plain_flow_matching_on_the_path_as_it_is() -> None:
    objective, net = LearnedMatching(interpolant()), network()
    sample = objective.path.sample(X0, X1, T)
    plain = (net(sample.x.detach(), T) - sample.target.detach()).square().mean(1)
    found = objective(net, X1, x0=X0, t=T).parts["matching"]
    torch.testing.assert_close(found, plain)
    for got, want in zip(gradients(found.sum(), net), gradients(plain.sum(), net), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("conditional", [0.0, 0.3])
def test_the_paths_term_is_its_energy_against_a_network_that_is_held(conditional: float) -> None:
    objective, net = LearnedMatching(interpolant(), KineticEnergy(conditional)), network()
    held = copy.deepcopy(net).requires_grad_(False)
    sample = objective.path.sample(X0, X1, T)
    v = held(sample.x, T)
    plain = (2 * v * sample.target - v.square() + conditional * sample.target.square()).mean(1)
    found = objective(net, X1, x0=X0, t=T).parts["energy"]
    torch.testing.assert_close(found, plain)
    for part in objective.learned.values():
        for got, want in zip(gradients(found.sum(), part), gradients(plain.sum(), part), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
            assert want.any()


@pytest.mark.parametrize("number", [3, 4])
def test_the_cost_in_a_metric_counts_where_a_path_is_and_how_it_moves(number: int) -> None:
    objective = objectives()[number]
    assert isinstance(objective.energy, MetricEnergy)
    sample = objective.path.sample(X0, X1, T)
    plain = (objective.energy.metric(sample.x) * sample.target**2).mean(1)
    found = objective(network(), X1, x0=X0, t=T).parts["energy"]
    torch.testing.assert_close(found, plain)
    for part in (objective.learned["phi"], objective.learned["schedule"]):
        for got, want in zip(gradients(found.sum(), part), gradients(plain.sum(), part), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


# Data N(0, s^2) and noise N(0, 1), one number each. The marginal flow is x0 -> r(t)*x0 with r^2 = (alpha*s)^2 +
# sigma^2, whatever the schedule, its velocity r'/r * x, its kinetic energy the integral of r'^2. It is least, (s -
# 1)^2, where r is linear in t. (For s = 1 a smooth schedule does that; otherwise one with an infinite slope at an end.)
# All moments that count are those of the four pairs of signs.
S = 1.0
GRID = (torch.arange(100, dtype=torch.float64) + 0.5) / 100
SIGNS = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
PAIRS = SIGNS.repeat(100, 1)
NOISE, NUMBERS, TIMES = PAIRS[:, :1], S * PAIRS[:, 1:], GRID.repeat_interleave(4)


def radius(schedule: Learned, t: Tensor) -> tuple[Tensor, Tensor]:
    """r and r'."""
    (alpha, sigma), (rise, fall) = schedule(t), schedule.derivative(t)
    r = ((alpha * S) ** 2 + sigma**2).sqrt()
    return r, (S**2 * alpha * rise + sigma * fall) / r


def excess(schedule: Learned) -> float:
    """The kinetic energy of the marginal flow above the least."""
    return float(radius(schedule, GRID)[1].detach().square().mean()) - (S - 1) ** 2


def exact(schedule: Learned) -> Callable[[Tensor, Tensor], Tensor]:
    """The network at its best."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        with torch.no_grad():
            r, slope = radius(schedule, t)
        return (slope / r)[:, None] * x

    return velocity


def test_the_gradient_is_that_of_the_marginal_kinetic_energy() -> None:
    schedule = Learned(5)
    logits = schedule.increments.double().logits
    logits.data = Rng(6).normal(2, 5, dtype=torch.float64)
    loss = LearnedMatching(Affine(schedule), KineticEnergy(0.0))(exact(schedule), NUMBERS, x0=NOISE, t=TIMES)
    (found,) = torch.autograd.grad(loss.parts["energy"].mean(), logits)

    def energy() -> Tensor:
        return radius(schedule, GRID)[1].square().mean()

    assert float(loss.parts["energy"].mean().detach()) == pytest.approx(float(energy().detach()), rel=1e-12)
    (want,) = torch.autograd.grad(energy(), logits)
    torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-12)
    assert float(want.abs().max()) > 0.1


def test_a_learned_schedule_makes_a_gaussian_flow_straight() -> None:
    schedule = Learned(6)
    schedule.increments.double()
    objective = LearnedMatching(Affine(schedule), KineticEnergy(0.0))
    optimizer = torch.optim.Adam(schedule.increments.parameters(), 0.2)
    assert excess(schedule) == pytest.approx(excess(Learned(1)), rel=1e-9)
    for _ in range(100):
        optimizer.zero_grad()
        objective(exact(schedule), NUMBERS, x0=NOISE, t=TIMES).rows.mean().backward()
        optimizer.step()
    assert 0 <= excess(schedule) < 1e-3 * excess(Learned(1))
    torch.testing.assert_close(radius(schedule, GRID)[0].detach(), 1 + (S - 1) * GRID, rtol=0, atol=5e-3)


class Slope(nn.Module):
    """A velocity linear in x: a polynomial of t times x, which holds the exact one nearly."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(9))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return (bernstein(8, t) * self.table).sum(1, keepdim=True) * x


def test_network_and_path_find_the_straight_flow_together(tmp_path: Path) -> None:
    data = Tensors(S * Rng(7).rows(torch.arange(2000)).normal(1))
    settings = Training(steps=300, batch=256, learning_rate=0.02, snapshots=0, decay="constant")
    schedule, net = Learned(6), Slope()
    objective = LearnedMatching(Affine(schedule), KineticEnergy(0.0))
    arguments: dict[str, Any] = {"seed": 0, "progress": False, "forecast": False}
    fit(net, objective, data, Shuffled(2000), settings, out=tmp_path, **arguments)
    assert excess(schedule) < 0.05 * excess(Learned())
    # The network has followed: it leaves the noise where it is, and that is the data.
    flow, x = objective.dynamics(net), torch.ones(1, 1)
    with torch.no_grad():
        speeds = [float(flow.rate(x, torch.tensor([time]))) for time in (0.1, 0.5, 0.9)]
    assert speeds == pytest.approx([0, 0, 0], abs=0.15)


@dataclass(frozen=True)
class Cluster:
    """A source on one spot."""

    def __call__(self, rng: Rng, like: Tensor) -> Tensor:
        return torch.tensor([-1.0, 0.0]) + 0.05 * rng.normal(2, dtype=like.dtype)


def training(out: Path, objective: LearnedMatching, stop: int = 0, **changes: Any) -> nn.Module:
    """A short run; one that is to stop is asked for an end, as Ctrl-C would, when it draws at that step."""

    def draw(step: int, average: nn.Module) -> None:
        if step == stop:
            raise KeyboardInterrupt

    numbers: dict[str, Any] = {"steps": 16, "batch": 8, "log_every": 5, "checkpoint_every": 6, "snapshots": 2}
    settings = Training(**{**numbers, "sample_every": 1 if stop else 0, **changes})
    data = Tensors(DATA, torch.arange(40) % 4)
    arguments: dict[str, Any] = {"seed": 3, "progress": False, "forecast": False, "draw_samples": draw}
    return fit(network(), objective, data, Shuffled(40), settings, out=out, **arguments).network


def traces(out: Path) -> dict[str, Any]:
    last = sorted((out / "checkpoints").iterdir())[-1]
    files = {str(p.relative_to(out)): p.read_bytes() for p in [*last.iterdir(), *out.glob("snapshots/*/*")]}
    curve = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {**files, "curve": [{k: v for k, v in line.items() if k not in CLOCK} for line in curve]}


@pytest.mark.filterwarnings("ignore:optimal transport within a batch")
@pytest.mark.parametrize("number", [0, 2, 3, 4])
def test_an_interrupted_run_equals_an_unbroken_one(tmp_path: Path, number: int) -> None:
    # As run.json holds it: each start rebuilds the objective from plain JSON, its metric without data.
    stored = json.dumps(encode(objectives()[number]))
    training(tmp_path / "whole", objectives()[number])
    with pytest.raises((KeyboardInterrupt, Stopped)):
        training(tmp_path / "cut", objectives()[number], stop=8)
    training(tmp_path / "cut", decode(json.loads(stored)))
    assert traces(tmp_path / "cut") == traces(tmp_path / "whole")


def test_what_is_learned_is_kept_and_averaged(tmp_path: Path) -> None:
    objective = LearnedMatching(interpolant())
    before = copy.deepcopy(dict(objective.learned))
    training(tmp_path, objective)
    for name, part in objective.learned.items():
        last, average = (load_weights(tmp_path, f"learned.{name}", average=a) for a in (False, True))
        for key, value in part.state_dict().items():
            assert torch.equal(last[key], value)
            assert not torch.equal(average[key], value)
            assert not torch.equal(before[name].state_dict()[key], value)


def test_accumulated_parts_equal_the_whole_batch(tmp_path: Path) -> None:
    for parts in (1, 4):
        training(tmp_path / str(parts), LearnedMatching(interpolant()), accumulate=parts)
    whole, parts = (checkpoint.read_tensors(tmp_path / n / "checkpoints" / "step-000016", "model") for n in "14")
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-4)


def test_a_dropout_mask_is_one_for_both_terms() -> None:
    class Masked(nn.Module):
        calls = 0

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            self.calls += 1
            return x

    net = Masked()
    LearnedMatching(interpolant())(net, X1, x0=X0, t=T)
    assert net.calls == 1


def test_a_model_of_any_kind_will_do() -> None:
    objective = LearnedMatching(interpolant())
    for model in (lambda x, t: torch.zeros_like(x), lambda x, t: torch.ones(4, 3, requires_grad=True)):
        loss = objective(model, X1, x0=X0, t=T)
        assert bool(loss.rows.isfinite().all())
    with torch.no_grad():
        quiet = objective(network(), X1, x0=X0, t=T)
    assert not quiet.rows.requires_grad
    torch.testing.assert_close(quiet.rows, objective(network(), X1, x0=X0, t=T).rows.detach())


@pytest.mark.parametrize("objective", [LearnedMatching(interpolant()), objectives()[3]])
def test_it_trains_under_autocast(objective: LearnedMatching) -> None:
    module = LossModule(network(), objective)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = module(X1, None, torch.arange(4), torch.arange(4), X0, T)
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())
    exact, _ = module(X1, None, torch.arange(4), torch.arange(4), X0, T)
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=0.05)


def test_a_score_exists_on_an_affine_path_alone() -> None:
    assert LearnedMatching(Affine(Learned())).dynamics(network()).independent
    assert not LearnedMatching(interpolant()).dynamics(network()).independent
    assert not LearnedMatching(Affine(Learned()), coupling=BatchOT()).dynamics(network()).independent
    assert not LearnedMatching(Affine(Learned()), source=Cluster()).dynamics(network()).independent


def test_noise_and_times_are_those_of_plain_matching() -> None:
    rng = Rng(7).rows(torch.arange(4))
    objective = LearnedMatching(interpolant())
    for got, want in zip(objective.draw(rng, X1), Matching().draw(rng, X1), strict=True):
        assert torch.equal(got, want)
    assert torch.equal(objective.prior(rng, X1), Matching().prior(rng, X1))


@pytest.mark.filterwarnings("ignore:optimal transport within a batch")
def test_a_coupling_joins_noise_data_and_condition() -> None:
    rng, label = Rng(7).rows(torch.arange(4)), torch.arange(4)
    objective, net = LearnedMatching(interpolant(), coupling=BatchOT()), network()
    x0, t = objective.draw(rng, X1)
    pairs = BatchOT()(x0, X1)
    want = objective(net, pairs.x1, label[pairs.j], x0=pairs.x0, t=t).rows
    torch.testing.assert_close(objective(net, X1, label, rng).rows, want)


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="nothing of"):
        LearnedMatching(Affine())
    with pytest.raises(InputError, match="infinite at an end"):
        LearnedMatching(LearnedInterpolant(Correction, {"shape": 3}, schedule=VariancePreserving()))
    with pytest.raises(InputError, match="weight"):
        LearnedMatching(interpolant(), weight=0.0)
    with pytest.raises(InputError, match="conditional"):
        KineticEnergy(-0.1)
    with pytest.raises(InputError, match=r"metric\.fit"):
        LearnedMatching(interpolant(), MetricEnergy(RBF((3,))))(network(), X1, rng=0)
    objective = LearnedMatching(interpolant())
    with pytest.raises(InputError, match="give an rng"):
        objective(network(), X1)
    with pytest.raises(ShapeError, match="one a row"):
        objective(network(), X1, x0=X0, t=T[:3])
    with pytest.raises(ShapeError, match="network must return"):
        objective(lambda x, t: x[:, :2], X1, x0=X0, t=T)
