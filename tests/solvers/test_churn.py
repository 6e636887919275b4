"""Raising the noise before each step: algorithm 2 of Karras et al. written out, the marginals, and what is refused."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rheos.core import InputError, Rng, Stream, UndeterminedError, integrate
from rheos.data.mixtures import GaussianMixture
from rheos.dynamics import Diffusion, Flow
from rheos.paths import Affine, as_velocity
from rheos.schedules import EDM, Linear
from rheos.solvers import RK4, Churn, Euler, Heun, grids

F64 = torch.float64
MIX = GaussianMixture(
    torch.tensor([1.0, 2.0], dtype=F64),
    torch.tensor([[1.0, -0.5], [-1.0, 0.3]], dtype=F64),
    torch.tensor([[[0.5, 0.2], [0.2, 0.3]], [[0.3, -0.1], [-0.1, 0.4]]], dtype=F64),
)
KEYS = Rng(7).rows(torch.arange(5))


def denoiser(x: Tensor, t: Any = None, *cond: Any) -> Tensor:
    """A data prediction that knows no noise level."""
    return torch.tanh(x) + 0.1 * x.flip(1)


@pytest.mark.parametrize("churn", [0.0, 3.0, 80.0])
def test_on_the_curve_of_edm_it_is_their_algorithm(churn: float) -> None:
    steps, path = 12, Affine(EDM(10.0))
    grid = grids.EDM(path.schedule, 7.0, 0.01, 10.0)(steps, F64)
    levels = path.schedule(grid)[1].tolist()
    flow = Flow(as_velocity(denoiser, path, "data"), True, lambda t: path.determined(t, "data"))
    start = 10 * KEYS.normal(2, dtype=F64)
    solver = Churn(path, churn=churn, low=0.1, high=3.0, noise=1.1)
    found = integrate(solver, flow, start, grid, rng=KEYS)

    x = start
    for n, (level, following) in enumerate(itertools.pairwise(levels)):
        noise = KEYS.fold(Stream.STEP).fold(n).normal(2, dtype=F64)
        gamma = min(churn / steps, math.sqrt(2) - 1) if 0.1 <= level <= 3.0 else 0.0
        raised = level * (1 + gamma)
        x = x + math.sqrt(raised**2 - level**2) * 1.1 * noise
        slope = (x - denoiser(x)) / raised
        ahead = x + (following - raised) * slope
        if following:
            slope = (slope + (ahead - denoiser(ahead)) / following) / 2
        x = x + (following - raised) * slope
    torch.testing.assert_close(found.x, x, rtol=1e-8, atol=1e-8)
    assert found.evaluations == solver.evaluations(steps)
    assert solver.steps(found.evaluations) == steps
    assert solver.order == 2


@pytest.mark.parametrize("solver", [Euler(), Heun()])
def test_the_marginals_of_a_mixture_are_kept_on_any_path(solver: Any) -> None:
    count, path = 4000, Affine(Linear())
    share = MIX.weights[:, None]
    mean = (share * MIX.means).sum(0)
    spread = MIX.means - mean
    covariance = (share[:, :, None] * (MIX.covariances + spread[:, :, None] * spread[:, None])).sum(0)
    churned = Churn(path, solver, churn=20.0, low=0.01, noise=1.0)
    steps = 100 if isinstance(solver, Euler) else 40
    grid = grids.Uniform()(steps, F64)
    x = integrate(churned, Flow(MIX.velocity(path)), Rng(1).normal(count, 2, dtype=F64), grid, rng=2).x
    variance = covariance.diagonal()
    assert bool(((x.mean(0) - mean).abs() < 4 * (variance / count).sqrt() + 0.03).all())
    limit = 4 * ((variance[:, None] * variance + covariance**2) / count).sqrt() + 0.03
    assert bool(((x.T.cov() - covariance).abs() < limit).all())


def test_no_churn_is_the_solver_itself() -> None:
    path, grid = Affine(), grids.Uniform()(6, F64)
    flow, x = Flow(MIX.velocity(path)), Rng(1).normal(5, 2, dtype=F64)
    for solver in (Heun(), RK4()):
        plain = integrate(solver, flow, x, grid).x
        torch.testing.assert_close(integrate(Churn(path, solver, churn=0.0), flow, x, grid, rng=1).x, plain)
        assert not torch.allclose(integrate(Churn(path, solver), flow, x, grid, rng=1).x, plain)


def test_what_it_cannot_do_is_refused() -> None:
    path, grid, x = Affine(), grids.Uniform()(4), torch.zeros(2, 2)
    flow = Flow(lambda x, t: x)
    with pytest.raises(InputError, match="Churn draws noise: give integrate an rng"):
        integrate(Churn(path), flow, x, grid)
    with pytest.raises(InputError, match="the other way"):
        integrate(Churn(path), flow, x, grid.flip(0), rng=1)
    with pytest.raises(InputError, match="got a Diffusion, which draws its own"):
        integrate(Churn(path), Diffusion(flow, path, torch.ones_like), x, grid, rng=1)
    with pytest.raises(UndeterminedError, match="coupled pairs"):
        integrate(Churn(path), Flow(lambda x, t: x, independent=False), x, grid, rng=1)
    with pytest.raises(InputError, match="begin with start"):
        Churn(path).step(flow, x, grid[0], grid[1], rng=Rng(1))
    for wrong in ({"churn": -1.0}, {"low": 2.0, "high": 1.0}, {"noise": 0.0}, {"churn": math.inf}):
        with pytest.raises(InputError, match="are needed"):
            Churn(path, **wrong)
