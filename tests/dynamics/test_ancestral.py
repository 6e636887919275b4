"""The steps of DDIM and DDPM: their closed form, the marginals of a mixture kept for any eta, and their orders."""

from __future__ import annotations

import math

import pytest
import torch

from rheos import testing
from rheos.core import InputError, Rng, UndeterminedError, integrate
from rheos.couplings import BatchOT
from rheos.data.mixtures import GaussianMixture
from rheos.dynamics import Ancestral, Flow
from rheos.objectives import Matching
from rheos.paths import Affine
from rheos.schedules import EDM, Cosine, CosineBetas, Discrete, Linear, Polynomial, Schedule, VariancePreserving
from rheos.solvers import AdamsBashforth, Dopri5, DPMSolver, Euler, Heun
from rheos.solvers.grids import Uniform

F64 = torch.float64
MIX = GaussianMixture(
    torch.tensor([1.0, 2.0], dtype=F64),
    torch.tensor([[1.0, -0.5], [-1.0, 0.3]], dtype=F64),
    torch.tensor([[[0.5, 0.2], [0.2, 0.3]], [[0.3, -0.1], [-0.1, 0.4]]], dtype=F64),
)
X = Rng(1).normal(5, 2, dtype=F64)
SCHEDULES = [Linear(), Cosine(), VariancePreserving(), Discrete(CosineBetas(50)), EDM(5.0)]


def ancestral(schedule: Schedule, eta: float, wide: bool = False) -> Ancestral:
    path = Affine(schedule)
    return Ancestral(Flow(MIX.velocity(path)), path, eta, wide)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize(("eta", "wide"), [(0.0, False), (0.6, False), (1.0, False), (1.0, True)])
def test_it_keeps_the_laws_of_a_dynamics(dtype: torch.dtype, eta: float, wide: bool) -> None:
    given = Ancestral(Flow(lambda x, t: torch.tanh(x)), Affine(Cosine()), eta, wide)
    testing.check_dynamics(given, X.to(dtype), tolerance=2e-6)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_its_rate_is_the_data_prediction(schedule: Schedule) -> None:
    path, t = Affine(schedule), torch.tensor([0.2, 0.3, 0.4, 0.5, 0.6], dtype=F64)
    alpha, sigma = (part[:, None] for part in schedule(t))
    want = (X + sigma**2 * MIX.score(path)(X, t)) / alpha
    torch.testing.assert_close(ancestral(schedule, 1.0).rate(X, t), want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_data_that_are_known_are_approached_as_the_noising_process_left_them(schedule: Schedule, eta: float) -> None:
    """Draws of x_t given x1 become draws of x_s given x1; for eta = 1 with the right covariance of both."""
    count, x1 = 40_000, 1.7
    t, s = (torch.tensor(time, dtype=F64) for time in (0.35, 0.6))
    (a, b), (alpha, sigma) = schedule(t), schedule(s)
    x = a * x1 + b * Rng(3).normal(count, 1, dtype=F64)
    moved = ancestral(schedule, eta).move(x, torch.full_like(x, x1), t, s, Rng(4).rows(torch.arange(count)))
    error = 4 * float(sigma) / math.sqrt(count)
    assert float(moved.mean()) == pytest.approx(float(alpha) * x1, abs=error)
    assert float(moved.var()) == pytest.approx(float(sigma**2), rel=4 * math.sqrt(2 / count))
    if eta == 1:
        # x_t = (a/alpha)*x_s + independent noise.
        joint = float(((x - x.mean()) * (moved - moved.mean())).mean())
        assert joint == pytest.approx(float(a / alpha * sigma**2), abs=4 * float(b * sigma) / math.sqrt(count))


def test_wide_noise_is_that_of_data_of_unit_variance() -> None:
    """Standard normal data: their prediction is the posterior mean, and wide steps keep the variance 1 exactly."""
    count, path = 40_000, Affine(Cosine())
    t, s = (torch.tensor(time, dtype=F64) for time in (0.35, 0.6))
    x = Rng(3).normal(count, 1, dtype=F64)
    dynamics = Ancestral(Flow(lambda x, t: 0 * x), path, wide=True)
    moved = dynamics.move(x, dynamics.rate(x, t), t, s, Rng(4).rows(torch.arange(count)))
    assert float(moved.var()) == pytest.approx(1, rel=4 * math.sqrt(2 / count))
    narrow = Ancestral(dynamics.flow, path).move(x, dynamics.rate(x, t), t, s, Rng(4).rows(torch.arange(count)))
    assert float(narrow.var()) < 0.95
    # The last step draws nothing.
    one = torch.tensor(1.0, dtype=F64)
    assert torch.equal(dynamics.move(x, x, s, one, Rng(4)), dynamics.move(x, x, s, one, Rng(5)))


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("schedule", [Linear(), VariancePreserving()], ids=repr)
def test_the_marginals_of_a_mixture_are_kept(schedule: Schedule, eta: float) -> None:
    count = 4000
    share = MIX.weights[:, None]
    mean = (share * MIX.means).sum(0)
    spread = MIX.means - mean
    covariance = (share[:, :, None] * (MIX.covariances + spread[:, :, None] * spread[:, None])).sum(0)
    dynamics = ancestral(schedule, eta)
    start = dynamics.path.prior(Rng(1).normal(count, 2, dtype=F64))  # pyright: ignore[reportAttributeAccessIssue]
    x = integrate(Euler(), dynamics, start, Uniform()(100, F64), rng=2).x
    # Four standard errors, and two hundredths for the length of the steps.
    variance = covariance.diagonal()
    assert bool(((x.mean(0) - mean).abs() < 4 * (variance / count).sqrt() + 0.02).all())
    limit = 4 * ((variance[:, None] * variance + covariance**2) / count).sqrt() + 0.02
    assert bool(((x.T.cov() - covariance).abs() < limit).all())


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), VariancePreserving()], ids=repr)
@pytest.mark.parametrize(("solver", "order"), [(Euler(), 1), (Heun(), 2), (AdamsBashforth(2), 2)])
def test_without_noise_it_is_the_flow_to_the_order_of_the_solver(
    schedule: Schedule, solver: object, order: int
) -> None:
    dynamics, grid = ancestral(schedule, 0.0), torch.linspace(0.1, 0.9, 2, dtype=F64)
    exact = integrate(Dopri5(1e-11, 1e-11), dynamics.flow, X, grid).x
    errors = []
    for steps in (32, 64):
        fine = torch.linspace(0.1, 0.9, steps + 1, dtype=F64)
        errors.append(float((integrate(solver, dynamics, X, fine).x - exact).norm()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_dpm_solver_is_the_same_on_it_and_on_the_flow(order: int) -> None:
    for schedule in (Linear(), VariancePreserving()):
        dynamics, grid = ancestral(schedule, 0.0), Uniform()(8, F64)
        solver = DPMSolver(Affine(schedule), order)
        on_flow = integrate(solver, dynamics.flow, X, grid).x
        torch.testing.assert_close(integrate(solver, dynamics, X, grid).x, on_flow, rtol=1e-9, atol=1e-9)


def test_what_dpm_solver_cannot_carry_is_refused() -> None:
    grid = Uniform()(8, F64)
    with pytest.raises(InputError, match="and the dynamics is on"):
        integrate(DPMSolver(), ancestral(Cosine(), 0.0), X, grid)
    with pytest.raises(InputError, match="order 3 draws no noise"):
        integrate(DPMSolver(Affine(Cosine()), 3), ancestral(Cosine(), 0.5), X, grid, rng=1)


def test_towards_noise_it_draws_none_and_finds_the_way_back() -> None:
    dynamics = ancestral(Cosine(), 1.0)
    t, s = torch.tensor(0.7, dtype=F64), torch.tensor(0.2, dtype=F64)
    data = dynamics.rate(X, t)
    assert torch.equal(dynamics.move(X, data, t, s, Rng(1)), dynamics.move(X, data, t, s, Rng(2)))
    plain = ancestral(Cosine(), 0.0)
    torch.testing.assert_close(plain.move(plain.move(X, data, t, s), data, s, t), X)
    # All the way to alpha = 0, and standing still there.
    zero = torch.tensor(0.0, dtype=F64)
    assert bool(dynamics.move(X, data, t, zero, Rng(1)).isfinite().all())
    torch.testing.assert_close(dynamics.move(X, data, zero, zero, Rng(1)), X)


def test_the_data_are_determined_where_the_velocity_tells_them() -> None:
    t = torch.tensor([0.0, 0.5, 1.0], dtype=F64)
    for schedule, expected in ((Linear(), [True, True, False]), (Polynomial(), [False, True, False])):
        assert ancestral(schedule, 0.0).determined(t).tolist() == expected
    late = Ancestral(Flow(MIX.velocity(Affine()), known=lambda t: t > 0.2), Affine())
    assert late.determined(t).tolist() == [False, True, False]


def test_what_has_no_such_steps_is_refused() -> None:
    for eta in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="eta is between 0"):
            ancestral(Linear(), eta)
    coupled = Matching(coupling=BatchOT()).dynamics(lambda x, t: x)
    with pytest.raises(UndeterminedError, match="trained on coupled pairs"):
        Ancestral(coupled, Affine())
    assert Ancestral(coupled, Affine(), 0.0).eta == 0
    t, s = torch.tensor(0.3, dtype=F64), torch.tensor(0.5, dtype=F64)
    with pytest.raises(InputError, match="ancestral steps draw noise: give integrate an rng"):
        ancestral(Linear(), 0.5).move(X, X, t, s)


def test_over_wraps_the_velocity_and_keeps_the_rest() -> None:
    given = ancestral(Linear(), 0.5, True)

    wrapped = given.over(lambda model: lambda x, t: 2 * model(x, t))
    t = torch.tensor(0.5, dtype=F64)
    torch.testing.assert_close(wrapped.flow.rate(X, t), 2 * given.flow.rate(X, t))
    assert (wrapped.eta, wrapped.wide, wrapped.path) == (0.5, True, given.path)
