"""Diffusions: the drift against the exact score, and the marginals of a mixture kept for any diffusion coefficient."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rheos import testing
from rheos.core import InputError, Rng, UndeterminedError, integrate
from rheos.couplings import BatchOT
from rheos.data.mixtures import GaussianMixture
from rheos.dynamics import Diffusion, Flow
from rheos.objectives import Matching
from rheos.paths import Affine
from rheos.schedules import Cosine, Linear, Polynomial, Schedule, VarianceExploding, VariancePreserving
from rheos.solvers import Heun

MIX = GaussianMixture(
    torch.tensor([1.0, 2.0], dtype=torch.float64),
    torch.tensor([[1.0, -0.5], [-1.0, 0.3]], dtype=torch.float64),
    torch.tensor([[[0.5, 0.2], [0.2, 0.3]], [[0.3, -0.1], [-0.1, 0.4]]], dtype=torch.float64),
)
SHARE = MIX.weights[:, None]
MEAN = (SHARE * MIX.means).sum(0)
SPREAD = MIX.means - MEAN
COVARIANCE = (MIX.weights[:, None, None] * (MIX.covariances + SPREAD[:, :, None] * SPREAD[:, None])).sum(0)
X = Rng(1).normal(5, 2, dtype=torch.float64)


def diffusion(schedule: Schedule, g: Callable[[Tensor], Tensor]) -> Diffusion:
    path = Affine(schedule)
    return Diffusion(Flow(MIX.velocity(path)), path, g)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_diffusion_keeps_the_laws(dtype: torch.dtype) -> None:
    sde = Diffusion(Flow(lambda x, t: torch.tanh(x)), Affine(), lambda t: 1 + t)
    testing.check_dynamics(sde, X.to(dtype))


@pytest.mark.parametrize(
    "schedule", [Linear(), Cosine(), Polynomial(), VariancePreserving(), VarianceExploding(0.1, 3.0)], ids=repr
)
def test_the_drift_is_balanced_by_the_exact_score(schedule: Schedule) -> None:
    sde = diffusion(schedule, lambda t: 0.3 + 2 * t)
    velocity, score = MIX.velocity(Affine(schedule)), MIX.score(Affine(schedule))
    times = (torch.tensor(0.4, dtype=torch.float64), torch.tensor([0.2, 0.3, 0.4, 0.5, 0.6], dtype=torch.float64))
    for t in times:
        half = ((0.3 + 2 * t) ** 2 / 2).reshape(-1, 1)
        for later, sign in ((None, 1.0), (t + 0.1, 1.0), (t - 0.1, -1.0)):
            want = velocity(X, t) + sign * half * score(X, t)
            torch.testing.assert_close(sde.rate(X, t, later), want, rtol=1e-9, atol=1e-9)


def test_a_move_adds_noise_of_the_coefficient_in_the_middle_of_the_step() -> None:
    sde = diffusion(Linear(), lambda t: 1 + t)
    count = 20_000
    x = torch.full((count, 2), 3.0, dtype=torch.float64)
    rng = Rng(4).rows(torch.arange(count))
    for t, s in ((0.2, 0.6), (0.6, 0.2)):
        clock, later = torch.tensor(t, dtype=torch.float64), torch.tensor(s, dtype=torch.float64)
        moved = sde.move(x, torch.full_like(x, 5.0), clock, later, rng)
        noise = (moved - 3.0 - 5.0 * (s - t)) / (1.4 * math.sqrt(0.4))
        torch.testing.assert_close(noise, rng.normal(2, dtype=torch.float64))
    many = sde.move(x[:3], x[:3], torch.full((3,), 0.2), torch.tensor([0.2, 0.6, 0.6]), Rng(4).rows(torch.arange(3)))
    assert torch.equal(many[0], x[0])
    single = sde.move(x[:3], x[:3], torch.tensor(0.2), torch.tensor(0.6), Rng(4))
    torch.testing.assert_close(many[1:], single[1:], rtol=1e-6, atol=1e-6)


COEFFICIENTS: list[Callable[[Tensor], Tensor]] = [
    lambda t: torch.sqrt(2 * (1 - t)),
    lambda t: torch.full_like(t, 0.9),
    lambda t: 3 * t * (1 - t),
]


@pytest.mark.parametrize("g", COEFFICIENTS)
@pytest.mark.parametrize("backward", [False, True])
def test_the_marginals_of_a_mixture_are_kept(g: Callable[[Tensor], Tensor], backward: bool) -> None:
    count = 4000
    sde = diffusion(Cosine(), g)
    grid = torch.linspace(0.0, 1.0, 31, dtype=torch.float64)
    if backward:
        x = integrate(Heun(), sde, MIX.sample(count, 1), grid.flip(0), rng=2).x
        mean, covariance = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    else:
        x = integrate(Heun(), sde, Rng(1).normal(count, 2, dtype=torch.float64), grid, rng=2).x
        mean, covariance = MEAN, COVARIANCE
    # Four standard errors, and a hundredth for the length of the steps.
    variance = covariance.diagonal()
    assert bool(((x.mean(0) - mean).abs() < 4 * (variance / count).sqrt() + 0.01).all())
    limit = 4 * ((variance[:, None] * variance + covariance**2) / count).sqrt() + 0.01
    assert bool(((x.T.cov() - covariance).abs() < limit).all())
    if not backward:
        left = (x[:, 0] < -0.2).double().mean()
        exact = (MIX.sample(20_000, 9)[:, 0] < -0.2).double().mean()
        assert float((left - exact).abs()) < 4 * math.sqrt(0.25 / count) + 0.01


def test_no_noise_is_the_flow_itself() -> None:
    t, s = torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    sde = diffusion(Linear(), torch.zeros_like)
    flow = sde.flow
    assert torch.equal(sde.rate(X, t, s), flow.rate(X, t, s))
    assert torch.equal(sde.move(X, X, t, s, Rng(0)), flow.move(X, X, t, s))


def test_noise_wants_an_rng() -> None:
    t = torch.tensor(0.5, dtype=torch.float64)
    with pytest.raises(InputError, match="a diffusion needs randomness: give integrate an rng"):
        diffusion(Linear(), torch.ones_like).move(X, X, t, t)
    with pytest.raises(InputError, match="needs randomness"):
        integrate(Heun(), diffusion(Linear(), torch.ones_like), X, torch.tensor([0.1, 0.2], dtype=torch.float64))


def test_coupled_noise_has_no_score() -> None:
    coupled = Matching(coupling=BatchOT()).dynamics(lambda x, t: x)
    for flow in (coupled, Flow(lambda x, t: x, independent=False)):
        with pytest.raises(UndeterminedError, match=r"train with couplings\.Independent"):
            Diffusion(flow, Affine(), torch.ones_like)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Linear(), [True, True, False]),
        (Polynomial(), [False, True, False]),
        (VariancePreserving(), [True, True, True]),
        (VarianceExploding(), [True, True, True]),
    ],
)
def test_a_drift_is_determined_where_score_and_velocity_are(schedule: Schedule, expected: list[bool]) -> None:
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert diffusion(schedule, torch.ones_like).determined(t).tolist() == expected  # pyright: ignore[reportOptionalMemberAccess]
    late = Diffusion(Flow(MIX.velocity(Affine()), known=lambda t: t > 0.2), Affine(schedule), torch.ones_like)
    found = late.determined(t)
    assert found is not None
    assert found.tolist() == [False, *expected[1:]]


def test_over_wraps_the_velocity_and_keeps_the_rest() -> None:
    def g(t: Tensor) -> Tensor:
        return t

    sde = diffusion(Linear(), g)
    wrapped = sde.over(lambda model: lambda x, t: 2 * model(x, t))
    t = torch.tensor(0.5, dtype=torch.float64)
    torch.testing.assert_close(wrapped.flow.rate(X, t), 2 * sde.flow.rate(X, t))
    assert wrapped.diffusion is g
    assert wrapped.path is sde.path
