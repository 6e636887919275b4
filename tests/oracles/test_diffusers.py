"""Diffusion samplers step by step against the schedulers of diffusers, whose tables are forced to double."""

from __future__ import annotations

import math
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rheos.core import Rng, Stream, integrate, walk
from rheos.core.protocols import Dynamics, Solver
from rheos.dynamics import Ancestral, DiffusionNoise, Flow
from rheos.interop import foreign_flow
from rheos.paths import Affine, as_velocity
from rheos.schedules import Betas, CosineBetas, Discrete, LinearBetas, ScaledBetas
from rheos.solvers import RK4, DPMSolver, Euler, Heun, UniPC

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


@pytest.fixture(scope="module")
def tiny(diffusers: ModuleType) -> Any:
    """A noise-predicting UNet2DModel, made offline, in double."""
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(3)
        model = diffusers.UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
        )
    # The two highest frequencies of the step, with which only a network without training trembles.
    with torch.no_grad():
        model.time_embedding.linear_1.weight[:, [0, 1, 4, 5]] = 0
    return model.double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def ends(tiny: Any) -> tuple[Tensor, Tensor]:
    """Noise, and where the model's flow carries it: by many steps of RK4, and DDIM's over the last step."""
    flow, path = foreign_flow(tiny, SimpleNamespace(config=CONFIG))
    schedule: Any = path.schedule
    x0 = path.prior(Rng(5).normal(2, 1, 8, 8, dtype=torch.float64))
    grid = schedule.time(torch.linspace(999, 0, 75))
    with torch.no_grad():
        x = integrate(RK4(), flow, x0, grid).x
        return x0, integrate(Euler(), Ancestral(flow, path, 0.0), x, torch.stack([grid[-1], 0 * grid[0] + 1])).x


CONFIG = {"beta_schedule": "linear", "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}


@pytest.mark.parametrize(("name", "order"), [("DDIMScheduler", 1), ("DPMSolverMultistepScheduler", 2)])
def test_a_checkpoint_ends_where_its_own_sampler_leads(
    diffusers: ModuleType, tiny: Any, ends: tuple[Tensor, Tensor], name: str, order: int
) -> None:
    options = {"clip_sample": False} if order == 1 else {"final_sigmas_type": "zero"}
    x0, exact = ends
    errors = []
    for steps in (50, 100):
        peer = doubled(getattr(diffusers, name)(timestep_spacing="trailing", **options, **CONFIG), LinearBetas())
        peer.set_timesteps(steps)
        x = x0
        for t in peer.timesteps:
            with torch.no_grad():
                x = peer.step(tiny(x, t).sample, t, x).prev_sample
        errors.append(float((x - exact).norm() / exact.norm()))
    assert errors[1] < 0.01
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("solver", ["Heun", "UniPC"])
def test_our_solvers_carry_it_with_their_order(tiny: Any, ends: tuple[Tensor, Tensor], solver: str) -> None:
    flow, path = foreign_flow(tiny, SimpleNamespace(config=CONFIG))
    schedule: Any = path.schedule
    chosen: Any = Heun() if solver == "Heun" else UniPC(path)
    first, last = schedule.time(torch.tensor([800, 60]))
    found = {}
    for steps in (20, 40, 160):
        grid = first + torch.linspace(0, 1, steps + 1, dtype=torch.float64) * (last - first)
        with torch.no_grad():
            found[steps] = integrate(chosen, flow, ends[0], grid).x
    errors = [float((found[steps] - found[160]).norm()) for steps in (20, 40)]
    assert math.log2(errors[0] / errors[1]) > 1.8


def test_with_noise_on_the_way_its_law_stays(tiny: Any) -> None:
    """Mean and spread of the pixels of many samples, by the flow and by a diffusion."""
    flow, path = foreign_flow(tiny, SimpleNamespace(config=CONFIG))
    schedule: Any = path.schedule
    x0 = path.prior(Rng(6).rows(torch.arange(200)).normal(1, 8, 8, dtype=torch.float64))
    grid = schedule.time(torch.linspace(999, 20, 31))
    with torch.no_grad():
        plain = integrate(Heun(), flow, x0, grid).x
        noisy = integrate(Heun(), DiffusionNoise(0.5)(flow, path), x0, grid, rng=7).x
    for one, other in ((plain.mean(0), noisy.mean(0)), (plain.std(0), noisy.std(0))):
        error = plain.std(0).mean() / 200**0.5
        assert float((one - other).abs().max()) < 6 * float(error)
