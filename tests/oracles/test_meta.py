"""Meta's flow_matching: schedules, points, conversions, a changed schedule, solutions and likelihoods.

Its schedules run as ours do, from noise at 0 to data at 1. Its VP is not finite at t = 1, where sigma is 0 and its
derivative infinite; its conversions divide by what vanishes at an end, and broadcast a time from the right. So it is
asked strictly inside (0, 1), with a time of the state's own shape.
"""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

from rheos import dynamics, paths, schedules, solvers
from rheos.core import Rng
from rheos.core.protocols import Quantity

PAIRS = {
    "linear": ("CondOTScheduler", (), schedules.Linear()),
    "polynomial": ("PolynomialConvexScheduler", (3.0,), schedules.Polynomial(3.0)),
    "root": ("PolynomialConvexScheduler", (0.5,), schedules.Polynomial(0.5)),
    "cosine": ("CosineScheduler", (), schedules.Cosine()),
    "vp": ("VPScheduler", (), schedules.VariancePreserving()),
    "slow vp": ("VPScheduler", (0.3, 8.0), schedules.VariancePreserving(0.3, 8.0)),
}
CONVERSIONS: list[tuple[str, Quantity, Quantity]] = [
    ("target_to_velocity", "data", "velocity"),
    ("epsilon_to_velocity", "noise", "velocity"),
    ("velocity_to_target", "velocity", "data"),
    ("epsilon_to_target", "noise", "data"),
    ("velocity_to_epsilon", "velocity", "noise"),
    ("target_to_epsilon", "data", "noise"),
]
TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}
INSIDE = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)


@pytest.mark.parametrize("name", PAIRS)
def test_schedule_and_derivative(meta_scheduler: ModuleType, name: str) -> None:
    theirs, arguments, schedule = PAIRS[name]
    out = getattr(meta_scheduler, theirs)(*arguments)(INSIDE)
    frame = schedule.frame(INSIDE)
    for ours, peer in [
        (frame.alpha, out.alpha_t),
        (frame.sigma, out.sigma_t),
        (frame.d_alpha, out.d_alpha_t),
        (frame.d_sigma, out.d_sigma_t),
    ]:
        torch.testing.assert_close(torch.as_tensor(ours, dtype=torch.float64).expand(7), peer, **TOLERANCE)


@pytest.mark.parametrize("name", PAIRS)
def test_time_of_a_ratio(meta_scheduler: ModuleType, name: str) -> None:
    theirs, arguments, schedule = PAIRS[name]
    alpha, sigma = schedule(INSIDE)
    peer = getattr(meta_scheduler, theirs)(*arguments).snr_inverse(alpha / sigma)
    torch.testing.assert_close(schedule.time_of(alpha, sigma), peer, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("shape", [(7, 1), (7, 2), (7, 7), (7, 3, 4)])
@pytest.mark.parametrize("name", PAIRS)
def test_point_and_velocity(
    meta_path: ModuleType, meta_scheduler: ModuleType, rng: Rng, name: str, shape: tuple[int, ...]
) -> None:
    theirs, arguments, schedule = PAIRS[name]
    x0, x1 = (rng.fold(k).normal(*shape, dtype=torch.float64) for k in (0, 1))
    peer = meta_path.AffineProbPath(getattr(meta_scheduler, theirs)(*arguments)).sample(x_0=x0, x_1=x1, t=INSIDE)
    ours = paths.Affine(schedule).sample(x0, x1, INSIDE)
    torch.testing.assert_close(ours.x, peer.x_t, **TOLERANCE)
    torch.testing.assert_close(ours.target, peer.dx_t, **TOLERANCE)


@pytest.mark.parametrize(("method", "given", "want"), CONVERSIONS)
@pytest.mark.parametrize("name", PAIRS)
def test_conversion(
    meta_path: ModuleType,
    meta_scheduler: ModuleType,
    rng: Rng,
    name: str,
    method: str,
    given: Quantity,
    want: Quantity,
) -> None:
    theirs, arguments, schedule = PAIRS[name]
    value, x = (rng.fold(k).normal(7, 3, dtype=torch.float64) for k in (0, 1))
    peer_path = meta_path.AffineProbPath(getattr(meta_scheduler, theirs)(*arguments))
    peer = getattr(peer_path, method)(value, x, INSIDE[:, None].expand_as(x))
    ours = paths.Affine(schedule).convert(value, x, INSIDE, given=given, want=want)
    torch.testing.assert_close(ours, peer, rtol=1e-11, atol=1e-12)


def bent(x: Tensor, t: Tensor) -> Tensor:
    """A velocity that is nonlinear in the state and depends on time."""
    return torch.sin(2 * x.flip(1) + t) - 0.3 * x


@pytest.mark.parametrize("new", ["cosine", "polynomial", "slow vp"])
@pytest.mark.parametrize("own", ["linear", "cosine", "polynomial"])
def test_change_of_schedule(meta_scheduler: ModuleType, rng: Rng, own: str, new: str) -> None:
    (their_own, arguments_own, own_schedule), (their_new, arguments_new, new_schedule) = PAIRS[own], PAIRS[new]
    peer = meta_scheduler.ScheduleTransformedModel(
        velocity_model=bent,
        original_scheduler=getattr(meta_scheduler, their_own)(*arguments_own),
        new_scheduler=getattr(meta_scheduler, their_new)(*arguments_new),
    )
    ours = paths.Rescheduled(bent, own_schedule, new_schedule)
    x = rng.normal(5, 2, dtype=torch.float64)
    for t in INSIDE:
        torch.testing.assert_close(ours(x, t), peer(x, t), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("method", "solver"), [("euler", solvers.Euler()), ("midpoint", solvers.Midpoint())])
def test_samples(meta_solver: ModuleType, rng: Rng, method: str, solver: solvers.Solver[Tensor]) -> None:
    x, grid = rng.normal(5, 2, dtype=torch.float64), torch.linspace(0, 1, 11, dtype=torch.float64)
    peer = meta_solver.ODESolver(velocity_model=bent).sample(x, step_size=None, method=method, time_grid=grid)
    ours = solvers.integrate(solver, dynamics.Flow(bent), x, grid)
    torch.testing.assert_close(ours.x, peer, **TOLERANCE)


def test_log_likelihood(meta_solver: ModuleType, rng: Rng) -> None:
    x1, grid = rng.normal(5, 3, dtype=torch.float64), torch.linspace(1, 0, 11, dtype=torch.float64)

    def normal(x0: Tensor) -> Tensor:
        return torch.distributions.Normal(0.0, 1.0).log_prob(x0).sum(1)

    x0, peer = meta_solver.ODESolver(velocity_model=bent).compute_likelihood(
        x1, normal, step_size=None, method="midpoint", time_grid=grid, exact_divergence=True
    )
    ours = dynamics.likelihood(dynamics.Flow(bent), x1, solver=solvers.Midpoint(), trace="exact", grid=grid)
    torch.testing.assert_close(ours.x, x0, **TOLERANCE)
    torch.testing.assert_close(ours.log_prob, peer, rtol=1e-11, atol=1e-11)
