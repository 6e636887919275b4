"""Diffusion samplers step by step against the schedulers of diffusers, whose tables are forced to double."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from rheos.core import Rng, Stream, walk
from rheos.core.protocols import Dynamics, Solver
from rheos.dynamics import Ancestral, Flow
from rheos.paths import Affine, as_velocity
from rheos.schedules import Betas, CosineBetas, Discrete, LinearBetas, ScaledBetas
from rheos.solvers import DPMSolver, Euler

X = Rng(1).normal(5, 3, dtype=torch.float64)
KEYS = Rng(7).rows(torch.arange(5))
BETAS: dict[str, Betas] = {
    "linear": LinearBetas(),
    "scaled_linear": ScaledBetas(1000, 1e-4, 2e-2),
    "squaredcos_cap_v2": CosineBetas(),
}


def network(x: Tensor, t: Tensor, *cond: Any) -> Tensor:
    """The noise, or v, that a network might predict."""
    return torch.tanh(1.3 * x) + 0.2 * x.flip(1)


def ours(solver: Solver[Tensor], dynamics: Dynamics[Tensor], grid: Tensor) -> list[Tensor]:
    return [step.x for step in walk(solver, dynamics, X, grid, rng=KEYS)][1:]


def noise(step: int) -> Tensor:
    """What a walk draws in a step."""
    return KEYS.fold(Stream.STEP).fold(step).normal(3, dtype=torch.float64)


def doubled(scheduler: Any, betas: Betas) -> Any:
    """The scheduler with its tables in double; its last step goes to the data."""
    alphas = 1 - betas.values()
    torch.testing.assert_close(scheduler.betas.double(), betas.values(), rtol=1e-4, atol=1e-7)
    scheduler.betas, scheduler.alphas, scheduler.alphas_cumprod = 1 - alphas, alphas, alphas.cumprod(0)
    if hasattr(scheduler, "alpha_t"):
        scheduler.alpha_t, scheduler.sigma_t = (
            scheduler.alphas_cumprod.sqrt(),
            (1 - scheduler.alphas_cumprod).sqrt(),
        )
        scheduler.lambda_t = scheduler.alpha_t.log() - scheduler.sigma_t.log()
    scheduler.final_alpha_cumprod = scheduler.one = torch.ones((), dtype=torch.float64)
    return scheduler


def flow(path: Affine, predict: Any) -> Flow:
    return Flow(as_velocity(network, path, predict), True, lambda t: path.determined(t, predict))


def grid_of(schedule: Discrete, steps: Tensor) -> Tensor:
    return torch.cat([schedule.time(steps), torch.ones(1, dtype=torch.float64)])


PREDICTIONS = {"epsilon": "noise", "v_prediction": "v", "sample": "data"}


@pytest.mark.parametrize("name", BETAS)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ddim_of_any_eta(diffusers: ModuleType, name: str, eta: float, prediction: str) -> None:
    schedule = Discrete(BETAS[name])
    path = Affine(schedule)
    peer = doubled(
        diffusers.DDIMScheduler(
            beta_schedule=name, clip_sample=False, timestep_spacing="trailing", prediction_type=prediction
        ),
        schedule.betas,
    )
    # Of a number of steps that does not divide 1,000, diffusers ends steps beside the next one's beginning.
    peer.set_timesteps(20)
    theirs, x = [], X
    for n, t in enumerate(peer.timesteps):
        x = peer.step(network(x, t), t, x, eta=eta, variance_noise=noise(n)).prev_sample
        theirs.append(x)
    dynamics = Ancestral(flow(path, PREDICTIONS[prediction]), path, eta)
    found = ours(Euler(), dynamics, grid_of(schedule, peer.timesteps))
    for a, b in zip(found, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", BETAS)
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_ddpm_of_either_variance(
    diffusers: ModuleType, name: str, variance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = Discrete(BETAS[name])
    path = Affine(schedule)
    scheduler = diffusers.DDPMScheduler(
        beta_schedule=name, clip_sample=False, timestep_spacing="leading", variance_type=variance
    )
    peer = doubled(scheduler, schedule.betas)
    peer.set_timesteps(100)
    drawn: list[Tensor] = []
    module = __import__(type(peer).__module__, fromlist=["randn_tensor"])
    monkeypatch.setattr(module, "randn_tensor", lambda *args, **options: drawn.pop())
    theirs, x = [], X
    for n, t in enumerate(peer.timesteps):
        drawn[:] = [noise(n)]
        x = peer.step(network(x, t), t, x).prev_sample
        theirs.append(x)
    dynamics = Ancestral(flow(path, "noise"), path, wide=variance == "fixed_large")
    found = ours(Euler(), dynamics, grid_of(schedule, peer.timesteps))
    for a, b in zip(found, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["linear", "scaled_linear"])
@pytest.mark.parametrize(("algorithm", "order"), [("dpmsolver++", 1), ("dpmsolver++", 2), ("sde-dpmsolver++", 2)])
def test_dpm_solver_in_data_prediction(diffusers: ModuleType, name: str, algorithm: str, order: int) -> None:
    schedule = Discrete(BETAS[name])
    path = Affine(schedule)
    peer = doubled(
        diffusers.DPMSolverMultistepScheduler(
            beta_schedule=name,
            algorithm_type=algorithm,
            solver_order=order,
            timestep_spacing="trailing",
            final_sigmas_type="zero",
            lower_order_final=True,
        ),
        schedule.betas,
    )
    peer.set_timesteps(20)
    # Set again: the levels are made in single precision.
    levels = (1 / peer.alphas_cumprod - 1).sqrt()[peer.timesteps]
    peer.sigmas = torch.cat([levels, torch.zeros(1, dtype=torch.float64)])
    given = flow(path, "noise")
    dynamics: Any = Ancestral(given, path) if algorithm.startswith("sde") else given
    found = [X, *ours(DPMSolver(path, order), dynamics, grid_of(schedule, peer.timesteps))]
    # From our state each time, for the peer rounds its noise to single precision.
    for n, t in enumerate(peer.timesteps):
        theirs = peer.step(network(found[n], t), t, found[n], variance_noise=noise(n)).prev_sample
        torch.testing.assert_close(found[n + 1], theirs, rtol=1e-6, atol=1e-6)
