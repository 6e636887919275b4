"""Densities of flows: exact mixtures, linear flows in closed form, and the statistics of Hutchinson's estimate."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rheos import testing
from rheos.core import InputError, Rng
from rheos.data.mixtures import GaussianMixture
from rheos.dynamics import Flow, likelihood, log_likelihood, sample_with_log_prob
from rheos.dynamics.likelihood import CHUNK, STEPS, WithDivergence
from rheos.paths import Affine
from rheos.schedules import Cosine, Linear, Schedule, VarianceExploding
from rheos.solvers import RK4, Dopri5, Euler, Heun

FINE = Dopri5(rtol=1e-6, atol=1e-7)


def mixture(size: int) -> GaussianMixture:
    rng = Rng(size)
    root = rng.fold(0).normal(3, size, size, dtype=torch.float64) / math.sqrt(size)
    return GaussianMixture(
        torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64),
        rng.fold(1).normal(3, size, dtype=torch.float64),
        0.3 * root @ root.mT + 0.2 * torch.eye(size, dtype=torch.float64),
    )


def growth(rate: float | Tensor) -> Flow:
    """x' = rate*x, so that log p(x1) is the noise's at x1*exp(-rate), less the rate for each dimension."""
    return Flow(lambda x, t, cond=None: rate * x)


def grown(x1: Tensor, rate: float | Tensor, scale: float = 1.0) -> Tensor:
    z = (x1 * torch.exp(-torch.as_tensor(rate, dtype=torch.float64))).reshape(len(x1), -1) / scale
    return -0.5 * z.square().sum(1) - z.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(scale) + rate)


@pytest.mark.parametrize("size", [2, 16])
@pytest.mark.parametrize("schedule", [Linear(), Cosine()])
def test_an_exact_velocity_gives_the_density_of_the_mixture(size: int, schedule: Schedule) -> None:
    mix = mixture(size)
    x1 = mix.sample(8, 3)
    with torch.no_grad():
        found = likelihood(Flow(mix.velocity(Affine(schedule))), x1, solver=FINE)
    assert float((found.log_prob - mix.log_prob(x1)).abs().max()) < 1e-4
    assert found.standard_error.tolist() == [0.0] * 8
    assert found.evaluations > 10


def test_a_path_that_starts_wide_needs_its_scale() -> None:
    """Variance explodes around the data, which are nearly drowned: the noise at t = 0 is that of sigma(0)."""
    mix, schedule = mixture(2), VarianceExploding(1e-3, 300.0)
    x1 = mix.sample(6, 3)
    grid = torch.linspace(1, 0, 81, dtype=torch.float64)
    flow = Flow(mix.velocity(Affine(schedule)))
    with torch.no_grad():
        found = log_likelihood(flow, x1, solver=RK4(), scale=300.0, grid=grid)
    assert float((found - mix.log_prob(x1)).abs().max()) < 0.01


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (1, 2, 2)])
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_states_of_any_shape(shape: tuple[int, ...], trace: Any) -> None:
    x1 = Rng(1).normal(4, *shape, dtype=torch.float64)
    found = likelihood(growth(0.4), x1, solver=RK4(), trace=trace, rng=5)
    assert found.log_prob.shape == (4,)
    assert found.x.shape == x1.shape
    torch.testing.assert_close(found.log_prob, grown(x1, 0.4), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.x, x1 * math.exp(-0.4), rtol=1e-9, atol=1e-9)
    # A diagonal Jacobian shows every probe its whole trace.
    torch.testing.assert_close(found.standard_error, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 2])
def test_every_direction_is_counted_once(size: int) -> None:
    rates = torch.linspace(0.1, 0.9, size, dtype=torch.float64)
    mixing = Rng(2).normal(size, size, dtype=torch.float64)
    mixing = mixing - torch.diag(mixing.diagonal())
    pair = (torch.zeros(2, size, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64))
    velocity, divergence = WithDivergence(Flow(lambda x, t: x * rates + x @ mixing), None).rate(pair, torch.tensor(0.5))
    assert velocity.shape == (2, size)
    torch.testing.assert_close(divergence, rates.sum().expand(2, 1))
    assert CHUNK == 64


def test_a_divergence_is_each_rows_own() -> None:
    x = Rng(1).normal(3, 2, dtype=torch.float64)
    flow = WithDivergence(Flow(lambda x, t: x**3), None)
    _, divergence = flow.rate((x, torch.zeros(3, 1)), torch.tensor(0.5))
    torch.testing.assert_close(divergence[:, 0], (3 * x**2).sum(1))


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_a_velocity_that_does_not_see_the_state_keeps_volume(trace: Any) -> None:
    x1 = Rng(1).normal(3, 2, dtype=torch.float64)
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    for flow in (Flow(lambda x, t: torch.ones_like(x)), Flow(lambda x, t: weight * torch.ones_like(x))):
        found = log_likelihood(flow, x1, solver=Euler(), trace=trace, rng=1)
        torch.testing.assert_close(found.detach(), grown(x1 - 1, 0.0))


def test_hutchinson_is_within_three_of_its_standard_errors() -> None:
    mix = mixture(16)
    x1 = mix.sample(24, 3)
    flow = Flow(mix.velocity(Affine()))
    with torch.no_grad():
        found = likelihood(flow, x1, solver=Dopri5(), trace="hutchinson", probes=32, rng=7)
        few = likelihood(flow, x1, solver=Dopri5(), trace="hutchinson", rng=7)
    exact = mix.log_prob(x1)
    ratio = (found.log_prob - exact).abs() / found.standard_error
    assert float(found.standard_error.min()) > 0.01
    assert float((ratio < 3).double().mean()) > 0.95
    assert float((ratio < 1).double().mean()) < 0.95
    assert 1.5 < float((few.standard_error / found.standard_error).mean()) < 2.7


def test_the_standard_error_is_that_of_the_probes() -> None:
    """For v = a*(x2, x1) a probe sees e.Je = +-2a, so that the mean says how many probes saw which sign."""
    a, probes = 0.3, 64
    flow = Flow(lambda x, t: a * x.flip(1))
    x1 = Rng(1).normal(5, 2, dtype=torch.float64)
    found = likelihood(flow, x1, solver=RK4(), trace="hutchinson", probes=probes, rng=3)
    exact = log_likelihood(flow, x1, solver=RK4())
    share = ((found.log_prob - exact) / (2 * a)).detach()
    expected = 2 * a * ((1 - share.square()) / (probes - 1)).sqrt()
    torch.testing.assert_close(found.standard_error.detach(), expected, rtol=1e-9, atol=1e-9)
    assert float((share * probes).round().sub(share * probes).abs().max()) < 1e-9
    assert len(set(share.tolist())) > 1


def test_one_probe_has_no_spread() -> None:
    x1 = Rng(1).normal(3, 2)
    found = likelihood(growth(0.2), x1, solver=RK4(), trace="hutchinson", probes=1, rng=3)
    assert bool(found.standard_error.isnan().all())
    torch.testing.assert_close(found.log_prob, grown(x1, 0.2), rtol=1e-4, atol=1e-4)


def test_a_row_has_its_own_probes_whatever_the_batch() -> None:
    flow = Flow(lambda x, t: torch.sin(x.flip(1)))
    x1 = Rng(1).normal(6, 3, dtype=torch.float64)
    options: dict[str, Any] = {"solver": Heun(), "trace": "hutchinson", "probes": 3}
    whole = log_likelihood(flow, x1, rng=Rng(5), **options)
    rows = Rng(5).rows(torch.arange(6))
    part = log_likelihood(flow, x1[2:4], rng=Rng(rows.key[2:4]), **options)
    torch.testing.assert_close(part, whole[2:4], rtol=1e-12, atol=1e-12)
    assert torch.equal(log_likelihood(flow, x1, rng=5, **options), whole)
    assert not torch.equal(log_likelihood(flow, x1, rng=6, **options), whole)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_the_density_is_differentiable_in_parameters_and_data(trace: Any) -> None:
    rate = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    x1 = Rng(1).normal(4, 2, dtype=torch.float64).requires_grad_()

    def value(rate: Tensor, x1: Tensor) -> Tensor:
        flow = Flow(lambda x, t: rate * torch.tanh(x) + 0.2 * rate**2 * x.flip(1))
        return log_likelihood(flow, x1, solver=RK4(), trace=trace, rng=2, grid=torch.linspace(1, 0, 9).double()).sum()

    found = torch.autograd.grad(value(rate, x1), (rate, x1))
    h = 1e-5
    slope = (value(rate + h, x1) - value(rate - h, x1)) / (2 * h)
    assert float(found[0]) == pytest.approx(slope.item(), rel=1e-7)
    bump = torch.zeros_like(x1)
    bump[2, 1] = h
    slope = (value(rate, x1 + bump) - value(rate, x1 - bump)) / (2 * h)
    assert float(found[1][2, 1]) == pytest.approx(slope.item(), rel=1e-6)


def test_without_gradients_the_values_are_the_same_and_hold_no_graph() -> None:
    rate = torch.tensor(0.3, requires_grad=True)
    x1 = Rng(1).normal(4, 2)
    with_grad = log_likelihood(growth(rate), x1, solver=RK4())
    with torch.no_grad():
        without = likelihood(growth(rate), x1, solver=RK4())
    assert with_grad.requires_grad
    assert not without.log_prob.requires_grad
    assert not without.x.requires_grad
    assert torch.equal(without.log_prob, with_grad)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_a_sample_comes_with_the_density_that_it_has(scale: float) -> None:
    mix = mixture(2)
    flow = Flow(mix.velocity(Affine()))
    x0 = scale * Rng(4).normal(5, 2, dtype=torch.float64)
    with torch.no_grad():
        drawn = sample_with_log_prob(flow, x0, solver=FINE, scale=scale)
        back = likelihood(flow, drawn.x, solver=FINE, scale=scale)
    torch.testing.assert_close(drawn.log_prob, back.log_prob, rtol=0, atol=1e-4)
    torch.testing.assert_close(back.x, x0, rtol=0, atol=1e-4)
    linear = sample_with_log_prob(growth(0.4), x0, solver=RK4(), scale=scale)
    torch.testing.assert_close(linear.log_prob, grown(x0 * math.exp(0.4), 0.4, scale), rtol=1e-9, atol=1e-9)
    noisy = sample_with_log_prob(growth(0.4), x0, solver=RK4(), scale=torch.tensor(scale), trace="hutchinson", rng=1)
    torch.testing.assert_close(noisy.log_prob, linear.log_prob, rtol=1e-9, atol=1e-9)
    assert noisy.evaluations == 4 * STEPS
    if scale == 1.0:
        torch.testing.assert_close(drawn.log_prob, mix.log_prob(drawn.x), rtol=0, atol=1e-4)


def test_a_fixed_solver_takes_a_hundred_steps_unless_told_otherwise() -> None:
    x1 = Rng(1).normal(2, 2)
    assert STEPS == 100
    assert likelihood(growth(0.1), x1, solver=RK4()).evaluations == 400
    assert likelihood(growth(0.1), x1, solver=Euler()).evaluations == 100
    assert likelihood(growth(0.1), x1, solver=Euler(), grid=torch.linspace(1, 0, 4)).evaluations == 3
    assert sample_with_log_prob(growth(0.1), x1, solver=Euler(), grid=torch.linspace(0, 1, 6)).evaluations == 5
    assert likelihood(growth(0.1), x1, solver=Dopri5()).evaluations < 60


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clocks_are_as_wide_as_the_state(dtype: torch.dtype) -> None:
    seen = set()

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        seen.add((x.dtype, t.dtype))
        return 0.1 * x

    found = likelihood(Flow(velocity), torch.ones(2, 2, dtype=dtype), solver=Euler())
    assert seen == {(dtype, dtype)}
    assert found.log_prob.dtype == dtype


def test_eight_probes_unless_told_otherwise() -> None:
    signs = set()
    flow = Flow(lambda x, t: 0.3 * x.flip(1))
    x1 = Rng(1).normal(40, 2, dtype=torch.float64)
    exact = log_likelihood(flow, x1, solver=RK4())
    found = log_likelihood(flow, x1, solver=RK4(), trace="hutchinson", rng=3)
    drawn = sample_with_log_prob(flow, x1, solver=RK4(), trace="hutchinson", rng=3)
    for got, want in ((found, exact), (drawn.log_prob, sample_with_log_prob(flow, x1, solver=RK4()).log_prob)):
        signs = {round(share, 6) for share in ((got - want) / 0.6).tolist()}
        assert signs <= {k / 4 - 1 for k in range(9)}
        assert len(signs) > 3


def test_the_condition_reaches_the_velocity() -> None:
    x1, label = Rng(1).normal(3, 2, dtype=torch.float64), torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    flow = Flow(lambda x, t, cond: cond[:, None] * x)
    want = torch.cat([grown(x1[n : n + 1], label[n]) for n in range(3)])
    torch.testing.assert_close(log_likelihood(flow, x1, solver=RK4(), cond=label), want, rtol=1e-9, atol=1e-9)
    drawn = sample_with_log_prob(flow, x1, solver=RK4(), cond=label)
    torch.testing.assert_close(drawn.x, x1 * label.exp()[:, None], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("function", [likelihood, sample_with_log_prob])
def test_what_cannot_be_asked_is_refused(function: Any) -> None:
    x = torch.zeros(2, 2)
    with pytest.raises(InputError, match='the trace is "exact" or "hutchinson", got \'exakt\''):
        function(growth(0.1), x, solver=Euler(), trace="exakt")
    with pytest.raises(InputError, match="Hutchinson's trace draws probes: give an rng"):
        function(growth(0.1), x, solver=Euler(), trace="hutchinson")
    for probes in (0, -1):
        with pytest.raises(InputError, match=f"at least one probe is needed, got {probes}"):
            function(growth(0.1), x, solver=Euler(), trace="hutchinson", rng=1, probes=probes)


def test_a_solver_is_named() -> None:
    for function in (likelihood, log_likelihood, sample_with_log_prob):
        with pytest.raises(TypeError, match="positional"):
            function(growth(0.1), torch.zeros(2, 2), Euler())  # pyright: ignore[reportCallIssue]


def test_the_pair_is_a_dynamics() -> None:
    pair = WithDivergence(Flow(lambda x, t: torch.tanh(x)), None)
    x = (Rng(1).normal(3, 2, dtype=torch.float64), Rng(2).normal(3, 1, dtype=torch.float64))
    testing.check_dynamics(pair, x)
    t = torch.tensor([0.0, 1.0])
    assert pair.determined(t) is None
    known = WithDivergence(Flow(torch.add, known=lambda t: t > 0), None).determined(t)
    assert known is not None
    assert known.tolist() == [False, True]
