"""Maximum likelihood by simulation: closed forms, finite differences, and that training by it raises the likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rheos import testing
from rheos.core import InputError, Rng, expand
from rheos.core.protocols import Model, Quantity, Solver, over
from rheos.couplings import Independent
from rheos.data import Shuffled, Tensors
from rheos.data.mixtures import GaussianMixture
from rheos.dynamics import log_likelihood
from rheos.objectives import Matching
from rheos.objectives.simulated import STEPS, SimulatedLikelihood
from rheos.paths import QUANTITIES, Affine
from rheos.recipes.serial import decode, encode
from rheos.schedules import Cosine, VarianceExploding
from rheos.solvers import RK4, Dopri5, Euler, Heun
from rheos.training import Training, fit

TIGHT = Dopri5(rtol=1e-7, atol=1e-8)
FINE = tuple(1 - n / 16 for n in range(17))
X1 = Rng(2).normal(4, 3, dtype=torch.float64)
OBJECTIVES = [
    SimulatedLikelihood(Dopri5()),
    SimulatedLikelihood(RK4(), "hutchinson"),
    SimulatedLikelihood(Heun(), "hutchinson", probes=3, probe="normal", grid=(1.0, 0.4, 0.0)),
    SimulatedLikelihood(Dopri5(), "exact", "adjoint"),
    SimulatedLikelihood(RK4(), "hutchinson", "adjoint"),
]


class Bent(nn.Module):
    """A nonlinear velocity with a condition."""

    def __init__(self, size: int = 3, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.inner = nn.Parameter(0.7 * Rng(1).normal(size, size, dtype=dtype))
        self.outer = nn.Parameter(0.7 * Rng(2).normal(size, size, dtype=dtype))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        inside = x @ self.inner + expand(t, x).to(x.dtype) + (0 if cond is None else cond[:, None])
        return torch.tanh(inside) @ self.outer


class Growth(nn.Module):
    """``x' = rate*x``, so that x1 was ``x1*exp(-rate)`` in the noise."""

    def __init__(self, rate: float, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate, dtype=dtype))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.rate * x if cond is None else expand(cond, x) * self.rate * x


def grown(x1: Tensor, rate: float | Tensor, scale: float = 1.0) -> Tensor:
    """-log p(x1) for the flow above, in closed form."""
    x0 = x1.reshape(len(x1), -1) * torch.exp(-torch.as_tensor(rate, dtype=torch.float64)).reshape(-1, 1) / scale
    size = x0.shape[1]
    return 0.5 * x0.square().sum(1) + size * (0.5 * math.log(2 * math.pi) + math.log(scale) + rate)


@pytest.mark.parametrize("objective", [o for o in OBJECTIVES if o.probe == "rademacher"])
@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_a_linear_flow_in_closed_form(objective: SimulatedLikelihood, shape: tuple[int, ...]) -> None:
    """A multiple of the identity shows a probe of signs its whole trace."""
    x1, network = Rng(3).normal(5, *shape, dtype=torch.float64), Growth(0.4)
    loss = objective(network, x1, rng=Rng(4))
    torch.testing.assert_close(loss.parts["nll"], grown(x1, 0.4), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loss.rows, loss.parts["nll"] / math.prod(shape), rtol=1e-12, atol=0)
    (slope,) = torch.autograd.grad(loss.rows.sum(), network.rate)
    z = (x1 * math.exp(-0.4)).reshape(5, -1)
    assert float(slope) == pytest.approx(float((1 - z.square().mean(1)).sum()), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("objective", OBJECTIVES[:3])
def test_objectives_keep_the_laws(objective: SimulatedLikelihood) -> None:
    testing.check_objective(objective)
    testing.check_objective(objective, Rng(5).normal(4, 2, 3, dtype=torch.float64))


@pytest.mark.parametrize("gradient", ["backpropagation", "adjoint"])
@pytest.mark.parametrize(("solver", "grid"), [(TIGHT, None), (RK4(), FINE)])
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_gradients_are_those_of_finite_differences(
    solver: Solver[Any], grid: tuple[float, ...] | None, trace: Any, gradient: Any
) -> None:
    objective = SimulatedLikelihood(solver, trace, gradient, grid=grid)
    network, cond, h = Bent(), torch.tensor([0.3, -0.2, 0.0, 1.0], dtype=torch.float64), 1e-5
    parameters = list(network.parameters())

    def value() -> Tensor:
        return objective(network, X1, cond, Rng(6)).rows.mean()

    found = torch.autograd.grad(value(), parameters)
    with torch.no_grad():
        for parameter, slopes in zip(parameters, found, strict=True):
            parameter[1, 2] += h
            above = float(value())
            parameter[1, 2] -= 2 * h
            slope = (above - float(value())) / (2 * h)
            parameter[1, 2] += h
            assert float(slopes[1, 2]) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_numbers_are_as_wide_as_the_data(objective: SimulatedLikelihood, dtype: torch.dtype) -> None:
    network = Bent(dtype=dtype)
    loss = objective(network, X1.to(dtype), None, Rng(6))
    loss.rows.mean().backward()
    assert loss.rows.dtype == dtype
    assert network.inner.grad is not None
    assert network.inner.grad.dtype == dtype
    assert bool(network.inner.grad.isfinite().all())


@pytest.mark.parametrize("probe", ["rademacher", "normal"])
def test_the_estimate_is_unbiased(probe: Any) -> None:
    """The mean over many draws of one probe is the exact likelihood, within its standard error."""
    network, count = Bent(), 600
    x1 = X1[:1].expand(count, 3)
    options: dict[str, Any] = {"grid": (1.0, 0.75, 0.5, 0.25, 0.0)}
    with torch.no_grad():
        exact = SimulatedLikelihood(RK4(), **options)(network, x1[:1]).parts["nll"]
        objective = SimulatedLikelihood(RK4(), "hutchinson", probe=probe, **options)
        drawn = objective(network, x1, rng=Rng(9)).parts["nll"]
        fewer = SimulatedLikelihood(RK4(), "hutchinson", probes=16, probe=probe, **options)(network, x1, rng=Rng(9))
    error = drawn.std() / math.sqrt(count)
    assert 0.005 < float(error) < 0.1
    assert float((drawn.mean() - exact).abs()) < 3 * float(error)
    assert float(drawn.std() / fewer.parts["nll"].std()) == pytest.approx(4, rel=0.2)


def test_probes_are_a_rows_own_and_new_with_every_key() -> None:
    objective, network = SimulatedLikelihood(RK4(), "hutchinson"), Bent()
    rows = Rng(7).rows(torch.arange(4))
    whole = objective(network, X1, rng=rows).rows
    torch.testing.assert_close(objective(network, X1[2:], rng=Rng(rows.key[2:])).rows, whole[2:])
    assert not torch.allclose(objective(network, X1, rng=Rng(8)).rows, whole)
    normal = SimulatedLikelihood(RK4(), "hutchinson", probe="normal")
    assert not torch.allclose(normal(network, X1, rng=rows).rows, whole)


def test_a_condition_reaches_the_network() -> None:
    cond = torch.tensor([0.5, 1.0, 2.0, 0.0], dtype=torch.float64)
    for gradient in ("backpropagation", "adjoint"):
        loss = SimulatedLikelihood(TIGHT, gradient=gradient)(Growth(0.4), X1, cond)
        torch.testing.assert_close(loss.parts["nll"], grown(X1, 0.4 * cond[:, None]).diagonal())


class Doubled:
    """A model around a network, as guidance is."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __call__(self, x: Tensor, t: Tensor, *cond: Any) -> Tensor:
        return 2 * self.model(x, t, *cond)

    def over(self, wrap: Callable[[Model], Model]) -> Doubled:
        return Doubled(over(self.model, wrap))


def test_the_adjoint_finds_the_networks_inside_a_model() -> None:
    found = []
    for gradient in ("backpropagation", "adjoint"):
        network = Bent()
        SimulatedLikelihood(TIGHT, gradient=gradient)(Doubled(network), X1).rows.mean().backward()
        assert network.inner.grad is not None
        found.append(network.inner.grad)
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-8)
    with pytest.raises(InputError, match=r"a network inside the model is no nn\.Module"):
        SimulatedLikelihood(TIGHT, gradient="adjoint")(Doubled(lambda x, t: x), X1)


MIX = GaussianMixture(
    torch.tensor([1.0, 2.0], dtype=torch.float64),
    torch.tensor([[1.0, -0.5], [-1.0, 0.3]], dtype=torch.float64),
    torch.tensor([[[0.5, 0.2], [0.2, 0.3]], [[0.2, -0.1], [-0.1, 0.4]]], dtype=torch.float64),
)


@pytest.mark.parametrize("predict", QUANTITIES)
def test_a_network_of_any_quantity_is_tuned_where_matching_left_it(predict: Quantity) -> None:
    """The exact field of a mixture, given as any quantity, has the mixture's density."""
    path = Affine(Cosine())
    score = MIX.score(path)

    def network(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return path.convert(score(x, t), x, t, given="score", want=predict)

    x1 = MIX.sample(5, 3)
    objective = SimulatedLikelihood(Dopri5(rtol=1e-6, atol=1e-7), path=path, predict=predict)
    with torch.no_grad():
        found = objective(network, x1).parts["nll"]
    torch.testing.assert_close(found, -MIX.log_prob(x1), rtol=1e-3, atol=1e-3)
    flow, matched = objective.dynamics(network), Matching(path, predict=predict).dynamics(network)
    t = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    torch.testing.assert_close(flow.rate(x1[:3], t), matched.rate(x1[:3], t))
    assert (flow.independent, matched.independent) == (False, True)
    ours, theirs = flow.determined(t), matched.determined(t)
    assert (None if ours is None else ours.tolist()) == (None if theirs is None else theirs.tolist())


def test_the_noise_has_the_paths_scale() -> None:
    objective = SimulatedLikelihood(TIGHT, path=Affine(VarianceExploding(1e-2, 3.0)))
    torch.testing.assert_close(objective(Growth(0.4), X1).parts["nll"], grown(X1, 0.4, 3.0))
    rng = Rng(7).rows(torch.arange(4))
    torch.testing.assert_close(objective.prior(rng, X1), 3 * SimulatedLikelihood(TIGHT).prior(rng, X1))
    assert torch.equal(SimulatedLikelihood(TIGHT).prior(rng, X1), Matching().prior(rng, X1))


def test_nothing_is_drawn_ahead_or_joined() -> None:
    objective = SimulatedLikelihood(RK4())
    x0, t = objective.draw(Rng(7).rows(torch.arange(4)), X1)
    assert not x0.any()
    assert not t.any()
    assert (x0.shape, x0.dtype, t.shape) == (X1.shape, X1.dtype, (4,))
    assert objective.coupling == Independent()
    assert objective.learned == {}


def test_fixed_steps_are_eight_unless_a_grid_is_given() -> None:
    seen = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t.reshape(-1)[0]))
        return 0.1 * x

    assert STEPS == 8
    SimulatedLikelihood(Euler())(network, X1)
    assert seen == [1 - n / 8 for n in range(8)]
    seen.clear()
    SimulatedLikelihood(Euler(), grid=(1.0, 0.3, 0.0))(network, X1)
    assert seen == pytest.approx([1.0, 0.3])


GRID = torch.linspace(1, 0, 9)


def moved(size: int) -> Tensor:
    """Data that are far from the noise: a narrow normal around 1.5."""
    return 1.5 + 0.4 * Rng(11).rows(torch.arange(size)).normal(2)


@pytest.mark.parametrize("objective", OBJECTIVES[1:4])
def test_training_by_it_raises_the_likelihood(objective: SimulatedLikelihood, tmp_path: Path) -> None:
    data, network = moved(256), Bent(2, torch.float32)

    def measured() -> float:
        with torch.no_grad():
            return float(log_likelihood(objective.dynamics(network), data, solver=RK4(), grid=GRID).mean())

    before = measured()
    settings = Training(
        steps=12, batch=64, learning_rate=1e-1, sample_every=0, checkpoint_every=100, snapshots=0, ema_decay=0.0
    )
    done = fit(
        network,
        objective,
        Tensors(data),
        Shuffled(256),
        settings,
        seed=1,
        out=tmp_path,
        progress=False,
        forecast=False,
    )
    assert done.step == 12
    assert before < -4
    assert measured() > before + 1


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_recipe_can_hold_it(objective: SimulatedLikelihood) -> None:
    assert decode(encode(objective)) == objective


def test_what_cannot_be_meant_is_refused() -> None:
    build: Any = SimulatedLikelihood
    for name in ("trace", "gradient", "probe", "predict"):
        with pytest.raises(InputError, match=f"{name} cannot be 'wrong'; "):
            build(RK4(), **{name: "wrong"})
    with pytest.raises(InputError, match="did you mean 'adjoint'"):
        build(RK4(), gradient="ajoint")
    with pytest.raises(InputError, match="at least one probe is needed, got 0"):
        build(RK4(), "hutchinson", probes=0)
    for grid in ((0.0, 1.0), (1.0, 0.5), (0.5, 0.0)):
        with pytest.raises(InputError, match="data are carried back from t = 1 to t = 0"):
            build(RK4(), grid=grid)
    with pytest.raises(InputError, match="strictly"):
        build(RK4(), grid=(1.0, 0.2, 0.3, 0.0))
    with pytest.raises(InputError, match="Hutchinson's trace draws probes: give an rng"):
        build(RK4(), "hutchinson")(Bent(), X1)
