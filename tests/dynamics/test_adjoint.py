"""Gradients by the adjoint equation: against closed forms, finite differences and back-propagation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rheos.core import InputError, RheosError, Rng, expand, integrate
from rheos.core.protocols import Model, Solver, over
from rheos.core.tree import leaves
from rheos.dynamics import Diffusion, Flow, likelihood, sample_with_log_prob
from rheos.dynamics.adjoint import integrate_adjoint
from rheos.dynamics.likelihood import WithDivergence
from rheos.paths import Affine
from rheos.solvers import RK4, AdamsBashforth, Dopri5, Euler

TIGHT = Dopri5(rtol=1e-8, atol=1e-9)
ENDS = torch.tensor([0.0, 1.0], dtype=torch.float64)
SOLVERS = [
    (TIGHT, ENDS),
    (TIGHT, ENDS.flip(0)),
    (TIGHT, torch.tensor([0.2, 0.3, 0.9], dtype=torch.float64)),
    (RK4(), torch.linspace(1, 0, 41, dtype=torch.float64)),
]


class Bent(nn.Module):
    """A velocity that is nonlinear in the state, the time and the condition."""

    def __init__(self, size: int = 3, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.inner = nn.Parameter(0.7 * Rng(1).normal(size, size, dtype=dtype))
        self.outer = nn.Parameter(Rng(2).normal(size, size, dtype=dtype))
        self.bias = nn.Parameter(Rng(3).normal(size, dtype=dtype))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        time = expand(t, x).to(x.dtype)
        inside = torch.tanh(x @ self.inner + self.bias * time + (0 if cond is None else cond[:, None]))
        return inside @ self.outer - 0.3 * x * time


def state(count: int = 4, size: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return Rng(5).normal(count, size, dtype=dtype).requires_grad_()


def loss(x: Tensor) -> Tensor:
    return (torch.arange(1, x.numel() + 1, dtype=x.dtype).view_as(x) * torch.sin(x)).sum()


def both(
    solver: Solver[Any],
    dynamics: Any,
    x: Any,
    grid: Tensor,
    parameters: Iterable[Tensor],
    value: Callable[[Any], Tensor],
    cond: Tensor | None = None,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The value and its gradients for the leaves of ``x`` and the parameters: by the adjoint, and by
    back-propagation."""
    inputs = [leaf for leaf in (*leaves(x), *parameters) if leaf.requires_grad]
    found = []
    for end in (
        integrate_adjoint(solver, dynamics, x, grid, cond, parameters=parameters).x,
        integrate(solver, dynamics, x, grid, cond).x,
    ):
        total = value(end)
        found.append((total.detach(), *torch.autograd.grad(total, inputs)))
    return found[0], found[1]


@pytest.mark.parametrize(("solver", "grid"), SOLVERS)
def test_gradients_are_those_of_back_propagation(solver: Solver[Any], grid: Tensor) -> None:
    network = Bent()
    ours, theirs = both(solver, Flow(network), state(), grid, list(network.parameters()), loss)
    assert torch.equal(ours[0], theirs[0])
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_a_linear_flow_in_closed_form() -> None:
    """x(1) = x exp(A), whose derivative in A torch.linalg.matrix_exp knows."""
    matrix = (0.6 * Rng(1).normal(3, 3, dtype=torch.float64)).requires_grad_()
    x = state()
    solver = Dopri5(rtol=1e-10, atol=1e-11)
    end = integrate_adjoint(solver, Flow(lambda x, t: x @ matrix), x, ENDS, parameters=[matrix]).x
    found = torch.autograd.grad(loss(end), (x, matrix))
    exact = torch.autograd.grad(loss(x @ torch.linalg.matrix_exp(matrix)), (x, matrix))
    for got, want in zip(found, exact, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)


def test_gradients_are_those_of_finite_differences() -> None:
    network, x, h = Bent(), state(), 1e-5
    parameters = list(network.parameters())
    end = integrate_adjoint(TIGHT, Flow(network), x, ENDS, parameters=parameters).x
    found = torch.autograd.grad(loss(end), [x, *parameters])
    with torch.no_grad():
        for tensor, gradient in zip([x, *parameters], found, strict=True):
            place = (-1,) * tensor.dim()
            values = []
            for step in (h, -2 * h):
                tensor[place] += step
                values.append(float(loss(integrate(TIGHT, Flow(network), x, ENDS).x)))
            tensor[place] += h
            assert float(gradient[place]) == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-6)


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_states_of_any_shape(shape: tuple[int, ...]) -> None:
    rate = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    x = Rng(5).normal(4, *shape, dtype=torch.float64).requires_grad_()
    end = integrate_adjoint(TIGHT, Flow(lambda x, t: rate * x), x, ENDS, parameters=[rate]).x
    found = torch.autograd.grad(end.square().sum() / 2, (x, rate))
    torch.testing.assert_close(found[0], x.detach() * math.exp(0.8))
    torch.testing.assert_close(found[1], x.detach().square().sum() * math.exp(0.8))


@pytest.mark.parametrize("probes", [None, Rng(8).normal(2, 4, 3, dtype=torch.float64)])
@pytest.mark.parametrize("solver", [TIGHT, RK4()])
def test_a_pair_of_state_and_log_density(solver: Solver[Any], probes: Tensor | None) -> None:
    network, columns = Bent(), 1 if probes is None else len(probes)
    grid = ENDS.flip(0) if solver.adaptive else torch.linspace(1, 0, 41, dtype=torch.float64)
    x = (state(), torch.zeros(4, columns, dtype=torch.float64, requires_grad=True))
    pair, parameters = WithDivergence(Flow(network), probes), list(network.parameters())
    ours, theirs = both(solver, pair, x, grid, parameters, lambda end: loss(end[0]) + (end[1] ** 2).sum())
    tolerance = 1e-6 if solver.adaptive else 1e-5
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@dataclass(frozen=True)
class Nested:
    """Three states that drive one another, the last of them by nothing."""

    velocity: Model

    def over(self, wrap: Callable[[Model], Model]) -> Nested:
        return replace(self, velocity=over(self.velocity, wrap))

    def rate(self, x: Any, t: Tensor, s: Tensor | None = None) -> Any:
        (a, b), c = x
        return (self.velocity(a, t) + b[:, None], torch.sin(a).sum(1) * c[:, 0]), torch.ones_like(c)

    def move(self, x: Any, rate: Any, t: Tensor, s: Tensor, rng: Rng | None = None) -> Any:
        (a, b), c = x
        gap = s - t
        return (a + expand(gap, a) * rate[0][0], b + gap * rate[0][1]), c + expand(gap, c) * rate[1]

    def determined(self, t: Tensor) -> None:
        return None


def test_trees_of_states() -> None:
    network = Bent()
    start = (
        (state(), Rng(6).normal(4, dtype=torch.float64).requires_grad_()),
        Rng(7).normal(4, 2, dtype=torch.float64).requires_grad_(),
    )

    def value(end: Any) -> Tensor:
        return loss(end[0][0]) + 2 * loss(end[0][1]) - loss(end[1])

    ours, theirs = both(TIGHT, Nested(network), start, ENDS, list(network.parameters()), value)
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_leaves_that_the_loss_does_not_use() -> None:
    network = Bent()
    x = (state(), torch.zeros(4, 1, dtype=torch.float64))
    pair, parameters = WithDivergence(Flow(network), None), list(network.parameters())
    ours, theirs = both(TIGHT, pair, x, ENDS, parameters, lambda end: loss(end[0]))
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_a_condition_and_its_gradient() -> None:
    network = Bent()
    cond = torch.tensor([0.1, -0.4, 0.8, 0.0], dtype=torch.float64, requires_grad=True)
    parameters = [*network.parameters(), cond]
    ours, theirs = both(TIGHT, Flow(network), state(), ENDS, parameters, loss, cond)
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_single_precision() -> None:
    network = Bent(dtype=torch.float32)
    x = state(dtype=torch.float32)
    ours, theirs = both(Dopri5(), Flow(network), x, ENDS.float(), list(network.parameters()), loss)
    for got, want in zip(ours, theirs, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, want, rtol=2e-3, atol=2e-3)


def test_a_solver_that_remembers() -> None:
    """The gap between the two gradients falls with the square of the step, as the solver's error does."""
    network, gaps = Bent(), []
    for steps in (20, 40):
        grid = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        ours, theirs = both(AdamsBashforth(2), Flow(network), state(), grid, list(network.parameters()), loss)
        gaps.append(max(float((got - want).abs().max()) for got, want in zip(ours, theirs, strict=True)))
    assert gaps[1] < 0.1
    assert math.log2(gaps[0] / gaps[1]) == pytest.approx(2, abs=0.4)


def test_a_tolerance_means_the_same_whatever_the_loss_is_multiplied_by() -> None:
    network, x, solver = Bent(), state(), Dopri5(rtol=1e-4, atol=1e-4)
    parameters = list(network.parameters())
    found = []
    for factor in (1.0, 2.0**-40):
        end = integrate_adjoint(solver, Flow(network), x, ENDS, parameters=parameters).x
        found.append([g / factor for g in torch.autograd.grad(factor * loss(end), [x, *parameters])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("trace", "probe"), [("exact", "rademacher"), ("hutchinson", "rademacher"), ("hutchinson", "normal")]
)
@pytest.mark.parametrize("function", [likelihood, sample_with_log_prob])
def test_likelihoods_by_the_adjoint(function: Any, trace: Any, probe: Any) -> None:
    network, x, found = Bent(), state(), []
    parameters = list(network.parameters())
    options: dict[str, Any] = {"trace": trace, "probe": probe, "rng": 3, "probes": 2, "scale": 1.3}
    for adjoint in (None, parameters):
        result = function(Flow(network), x, solver=TIGHT, adjoint=adjoint, **options)
        assert ("_Adjoint" in str(result.x.grad_fn)) == (adjoint is not None)
        total = loss(result.log_prob) + 0.1 * loss(result.x)
        found.append((result.log_prob.detach(), *torch.autograd.grad(total, [x, *parameters])))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_normal_probes() -> None:
    """For v = a*(x2, x1) a probe e sees e.Je = 2*a*e1*e2; over many rows that has mean 0 and the variance 4*a**2."""
    x = Rng(5).rows(torch.arange(2000)).normal(2, dtype=torch.float64)
    flow = Flow(lambda x, t: 0.3 * x.flip(1))
    wrong: Any = "gauss"
    options: dict[str, Any] = {"solver": RK4(), "trace": "hutchinson", "probes": 1, "rng": 3}
    for function, grid in ((likelihood, ENDS.flip(0)), (sample_with_log_prob, ENDS)):
        exact = function(flow, x, solver=RK4(), grid=grid).log_prob.detach()
        seen = (function(flow, x, grid=grid, probe="normal", **options).log_prob.detach() - exact) / 0.6
        assert abs(float(seen.mean())) < 3 / math.sqrt(2000)
        assert float(seen.var()) == pytest.approx(1, rel=0.2)
        assert len(set(seen.tolist())) == 2000
        signs = (function(flow, x, grid=grid, **options).log_prob - exact) / 0.6
        torch.testing.assert_close(signs.abs(), torch.ones_like(signs))
        with pytest.raises(InputError, match='a probe is "rademacher" or "normal", got \'gauss\''):
            function(flow, x, grid=grid, solver=RK4(), probe=wrong)


def kept(function: Callable[[], Any]) -> int:
    """Tensors that are kept for a backward pass."""
    count = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function()
    return count


def test_memory_does_not_grow_with_the_steps() -> None:
    network, x = Bent(), state()
    parameters = list(network.parameters())
    grids = [torch.linspace(0, 1, n + 1, dtype=torch.float64) for n in (4, 64)]
    few, many = (
        kept(lambda grid=grid: integrate_adjoint(RK4(), Flow(network), x, grid, parameters=parameters))
        for grid in grids
    )
    assert few == many == 4
    assert kept(lambda: integrate(RK4(), Flow(network), x, grids[1])) > 1000


def counted(network: nn.Module, seen: list[Tensor]) -> Model:
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return network(x, t)

    return velocity


def test_the_way_there_has_a_clock_a_sample_and_the_way_back_one() -> None:
    network, x, seen = Bent(), state(), []
    solution = integrate_adjoint(Dopri5(), Flow(counted(network, seen)), x, ENDS, parameters=list(network.parameters()))
    assert solution.evaluations == len(seen) > 10
    assert {t.shape for t in seen} == {(4,)}
    loss(solution.x).backward()
    back = seen[solution.evaluations :]
    assert len(back) > 10
    assert {t.shape for t in back} == {()}
    assert (float(back[0]), float(back[-1])) == (1.0, 0.0)


def test_the_parameters_gradient_does_not_steer_the_steps() -> None:
    """A parameter whose gradient is large and quick, in a flow that it does not move."""
    wild = torch.zeros((), dtype=torch.float64, requires_grad=True)

    counts: list[int] = []
    for parameters in ([], [wild]):
        x, seen = state(), []

        def velocity(x: Tensor, t: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(t)
            return torch.sin(x) + wild * 50 * torch.cos(9 * expand(t, x))

        end = integrate_adjoint(Dopri5(rtol=1e-6, atol=1e-6), Flow(velocity), x, ENDS, parameters=parameters).x
        there = len(seen)
        torch.autograd.grad(loss(end), [x, *parameters])
        counts.append(len(seen) - there)
    assert counts[0] == counts[1]


def test_another_solver_for_the_way_back() -> None:
    network, x, seen = Bent(), state(), []
    grid = torch.linspace(0, 1, 11, dtype=torch.float64)
    solution = integrate_adjoint(
        RK4(), Flow(counted(network, seen)), x, grid, parameters=list(network.parameters()), back=Euler()
    )
    assert solution.evaluations == 40
    loss(solution.x).backward()
    assert len(seen) == 50


def test_without_gradients_it_is_an_integration() -> None:
    network, x = Bent(), state()
    parameters = list(network.parameters())
    plain = integrate(RK4(), Flow(network), x, ENDS)
    with torch.no_grad():
        quiet = integrate_adjoint(RK4(), Flow(network), x, ENDS, parameters=parameters)
    assert torch.equal(quiet.x, plain.x)
    assert (quiet.evaluations, quiet.passes) == (plain.evaluations, plain.passes)
    assert not quiet.x.requires_grad
    assert not integrate_adjoint(
        RK4(), Flow(network.requires_grad_(False)), x.detach(), ENDS, parameters=[]
    ).x.requires_grad


def test_only_what_is_named_and_wanted_gets_a_gradient() -> None:
    network, x = Bent(), state()
    network.bias.requires_grad_(False)
    end = integrate_adjoint(RK4(), Flow(network), x, ENDS, parameters=[network.inner, network.bias]).x
    loss(end).backward()
    assert network.inner.grad is not None
    assert network.outer.grad is None
    assert network.bias.grad is None
    unused = torch.ones(2, dtype=torch.float64, requires_grad=True)
    end = integrate_adjoint(RK4(), Flow(lambda x, t: torch.ones_like(x)), x, ENDS, parameters=[unused]).x
    found = torch.autograd.grad(end.sum(), (x, unused))
    torch.testing.assert_close(found[0], torch.ones_like(x))
    torch.testing.assert_close(found[1], torch.zeros_like(unused))


@pytest.mark.parametrize(("factor", "expected"), [(0.0, 0.0), (math.nan, math.nan), (math.inf, math.nan)])
def test_a_gradient_of_nothing_or_of_no_number(factor: float, expected: float) -> None:
    network, x = Bent(), state()
    parameters = list(network.parameters())
    end = integrate_adjoint(Dopri5(), Flow(network), x, ENDS, parameters=parameters).x
    for gradient, tensor in zip(
        torch.autograd.grad(factor * end.sum(), [x, *parameters]), [x, *parameters], strict=True
    ):
        assert torch.equal(gradient.isnan(), torch.full_like(gradient, math.isnan(expected), dtype=torch.bool))
        assert gradient.shape == tensor.shape
        assert math.isnan(expected) or not gradient.any()


def test_weights_that_changed_before_the_way_back_are_noticed() -> None:
    network, x = Bent(), state()
    end = integrate_adjoint(RK4(), Flow(network), x, ENDS, parameters=list(network.parameters())).x
    with torch.no_grad():
        network.inner.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss(end).backward()


def test_what_has_no_adjoint_equation_is_refused() -> None:
    noisy = Diffusion(Flow(lambda x, t: -x), Affine(), lambda t: 0.1 + 0 * t)
    with pytest.raises(InputError, match="a diffusion is none; back-propagate through integrate"):
        integrate_adjoint(Euler(), noisy, state(), ENDS, parameters=[])
    with pytest.raises(InputError, match=r"states made of floating tensors, got torch\.int64"):
        integrate_adjoint(Euler(), Flow(lambda x, t: x), torch.arange(4), ENDS, parameters=[])
    with pytest.raises(RheosError, match="not finite"):
        integrate_adjoint(Dopri5(), Flow(lambda x, t: x / 0), state(), ENDS, parameters=[])
