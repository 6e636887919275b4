"""Solvers as schedulers: diffusers' own where it has the same one, and the loop of rheos elsewhere."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rheos.core import InputError, integrate
from rheos.dynamics import Flow
from rheos.paths import Affine
from rheos.solvers import RK4, AdamsBashforth, Dopri5, Euler, FixedStep, Heun, UniPC
from rheos.solvers.grids import Cosine

pytestmark = pytest.mark.usefixtures("diffusers")

X = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
EVEN = np.linspace(1.0, 1 / 7, 7)
DEFAULT: dict[str, Any] = {"num_inference_steps": 7}
SETTINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, DEFAULT),
    # The fixed shift is applied twice here, and once with sigmas.
    ({"shift": 3.0}, DEFAULT),
    ({"shift": 3.0}, {"sigmas": EVEN}),
    ({"use_dynamic_shifting": True}, {"sigmas": EVEN, "mu": 0.9}),
    ({"use_dynamic_shifting": True, "time_shift_type": "linear"}, {"sigmas": EVEN, "mu": 2.5}),
    ({"shift": 3.0, "use_karras_sigmas": True}, DEFAULT),
    ({"use_dynamic_shifting": True, "shift_terminal": 0.1}, {"sigmas": EVEN, "mu": 1.2}),
    ({"num_train_timesteps": 500}, DEFAULT),
]


def predicted(x: Tensor, sigma: Any) -> Tensor:
    """What a pipeline hands over: from data to noise."""
    return torch.tanh(2 * x) * (0.5 + sigma) - x.flip(0)


def sampled(scheduler: Any, start: Tensor = X, **asked: Any) -> Tensor:
    scheduler.set_timesteps(**asked)
    x = start
    for time in scheduler.timesteps:
        sigma = time / scheduler.config.num_train_timesteps
        x = scheduler.step(predicted(x, sigma), time, x, return_dict=False)[0]
    return x


def ours(solver: FixedStep[Tensor], **config: Any) -> Any:
    from rheos.interop.diffusers import SolverScheduler

    return SolverScheduler(solver, **config)


@pytest.mark.parametrize(("config", "asked"), SETTINGS)
def test_euler_is_that_of_diffusers(diffusers: ModuleType, config: dict[str, Any], asked: dict[str, Any]) -> None:
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(**config)
    own = ours(Euler(), **config)
    torch.testing.assert_close(sampled(own, **asked), sampled(theirs, **asked), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(own.timesteps, theirs.timesteps, rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(own.sigmas, theirs.sigmas, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("solver", [Heun(), RK4(), AdamsBashforth(3), UniPC(Affine())])
def test_a_solver_goes_where_the_loop_goes(solver: FixedStep[Tensor]) -> None:
    # No sigmas are given, so the shift of 3 acts twice, from 1 down to that of the last training step.
    least = 3 * 0.001 / (1 + 2 * 0.001)
    raw = np.linspace(1, least, 7)
    grid = torch.tensor([*(1 - 3 * raw / (1 + 2 * raw)), 1.0])
    flow = Flow(lambda x, t: -predicted(x, 1 - t))
    end = integrate(solver, flow, X.double(), grid).x
    own = ours(solver, shift=3.0)
    torch.testing.assert_close(sampled(own, **DEFAULT).double(), end, rtol=1e-4, atol=1e-5)
    assert len(own.timesteps) == solver.evaluations(7)


def test_a_grid_of_ones_own_stands_where_no_sigmas_are_given() -> None:
    from rheos.interop.diffusers import SolverScheduler

    own = SolverScheduler(Heun(), Cosine(), shift=3.0)
    flow = Flow(lambda x, t: -predicted(x, 1 - t))
    end = integrate(Heun(), flow, X, Cosine()(7)).x
    torch.testing.assert_close(sampled(own, **DEFAULT), end, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sampled(own, sigmas=EVEN), sampled(ours(Heun(), shift=3.0), sigmas=EVEN))


@pytest.mark.parametrize("solver", [Euler(), Heun(), AdamsBashforth(2)])
def test_images_that_are_changed_begin_midway(diffusers: ModuleType, solver: FixedStep[Tensor]) -> None:
    own = ours(solver, shift=2.0)
    own.set_timesteps(8)
    begin = 3 * solver.stages
    own.set_begin_index(begin)
    data, noise = X, X.flip(1)
    x = own.scale_noise(data, own.timesteps[begin : begin + 1], noise)
    sigma = own.sigmas[begin]
    torch.testing.assert_close(x, sigma * noise + (1 - sigma) * data)
    grid = 1 - own.sigmas[begin::1].double().unique().flip(0)
    end = integrate(solver, Flow(lambda x, t: -predicted(x, 1 - t)), x.double(), grid).x
    for time in own.timesteps[begin:]:
        x = own.step(predicted(x, time / 1000), time, x, return_dict=False)[0]
    torch.testing.assert_close(x.double(), end, rtol=1e-4, atol=1e-5)


def test_without_a_begin_index_the_timestep_tells_the_step() -> None:
    own = ours(AdamsBashforth(2))
    own.set_timesteps(5)
    x = own.step(X, own.timesteps[2], X).prev_sample
    torch.testing.assert_close(x, X + (own.sigmas[3] - own.sigmas[2]) * X)
    own.set_timesteps(5)
    with pytest.raises(InputError, match="none of the timesteps"):
        own.step(X, 123.4, X)
    two = ours(Heun())
    two.set_timesteps(4)
    # The second step begins at the time at which the first one ends.
    x = X
    for time in two.timesteps[2:]:
        x = two.step(predicted(x, time / 1000), time, x, return_dict=False)[0]
    end = integrate(Heun(), Flow(lambda x, t: -predicted(x, 1 - t)), X, 1 - two.sigmas[[2, 4, 6, 8]].double()).x
    torch.testing.assert_close(x, end, rtol=1e-4, atol=1e-5)
    two.set_timesteps(3)
    two.set_begin_index(1)
    with pytest.raises(InputError, match="cannot begin at evaluation 1, inside a step of Heun"):
        two.step(X, two.timesteps[1], X)


def test_what_is_painted_in_meanwhile_is_kept(diffusers: ModuleType) -> None:
    theirs, own = diffusers.FlowMatchEulerDiscreteScheduler(shift=2.0), ours(Euler(), shift=2.0)
    ends = []
    for scheduler in (theirs, own):
        scheduler.set_timesteps(6)
        x = X
        for n, time in enumerate(scheduler.timesteps):
            x = scheduler.step(predicted(x, time / 1000), time, x, return_dict=False)[0]
            if n == 2:
                x[:, 0] = 0.5
        ends.append(x)
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-6)


def test_half_precision_rounds_the_output_alone() -> None:
    """A constant rate leads to its end, rounded once, however many steps are rounded for the pipeline on the way."""
    own = ours(AdamsBashforth(3))
    own.set_timesteps(200)
    rate = torch.full_like(X, 0.37).bfloat16()
    start = x = X.bfloat16()
    for time in own.timesteps:
        x = own.step(rate, time, x, return_dict=False)[0]
        assert x.dtype == torch.bfloat16
    torch.testing.assert_close(x.float(), start.float() - rate.float(), rtol=2**-8, atol=1e-6)


def test_it_is_saved_and_loaded_by_diffusers(tmp_path: Path) -> None:
    from rheos.interop.diffusers import SolverScheduler

    own = SolverScheduler(UniPC(Affine(), order=3), Cosine(), shift=2.5)
    own.save_pretrained(tmp_path)
    again = SolverScheduler.from_pretrained(tmp_path)
    kept, written = ({k: v for k, v in one.config.items() if k[0] != "_"} for one in (again, own))
    assert kept == written
    assert torch.equal(sampled(again, **DEFAULT), sampled(own, **DEFAULT))
    other = SolverScheduler.from_config(own.config, shift=1.0)
    assert other.config.shift == 1.0
    assert not torch.equal(sampled(other, sigmas=EVEN), sampled(own, sigmas=EVEN))


def test_it_takes_the_shifts_of_a_pipelines_own(diffusers: ModuleType) -> None:
    from rheos.interop.diffusers import SolverScheduler

    for theirs in (
        diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
        diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
        diffusers.FlowMatchHeunDiscreteScheduler(shift=5.0),
        ours(Heun(), shift=5.0),
    ):
        assert SolverScheduler.like(theirs, Euler()).config.shift == 5.0
    with pytest.raises(InputError, match="DDIMScheduler is the scheduler of no flow: it predicts 'epsilon'"):
        SolverScheduler.like(diffusers.DDIMScheduler(), Euler())


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(InputError, match="steps without noise, and stochastic_sampling is set"):
        ours(Euler(), stochastic_sampling=True)
    with pytest.raises(InputError, match="invert_sigmas"):
        ours(Euler(), invert_sigmas=True)
    own = ours(Euler())
    with pytest.raises(InputError, match="call set_timesteps before step"):
        own.step(X, 1000.0, X)
    with pytest.raises(InputError, match="sigmas or timesteps: one follows"):
        own.set_timesteps(sigmas=EVEN, timesteps=1000 * EVEN)
    with pytest.raises(InputError, match="a number of steps, sigmas or timesteps are needed"):
        own.set_timesteps()
    with pytest.raises(InputError, match=r"sigmas fall from at most 1 to 0, got \[0.5, 0.7, 0.0\]"):
        own.set_timesteps(sigmas=[0.5, 0.7])
    own.set_timesteps(1)
    with pytest.raises(InputError, match="steps without noise"):
        own.step(X, own.timesteps[0], X, s_churn=0.5)
    own.step(X, own.timesteps[0], X)
    with pytest.raises(InputError, match="all steps were taken"):
        own.step(X, own.timesteps[0], X)
    with pytest.raises(InputError, match="which Dopri5 does not know"):
        ours(Dopri5()).set_timesteps(4)  # pyright: ignore[reportArgumentType]


def test_timesteps_are_taken_as_they_are() -> None:
    own = ours(Euler(), shift=3.0)
    own.set_timesteps(timesteps=[900.0, 400.0, 100.0])
    torch.testing.assert_close(own.timesteps, torch.tensor([900.0, 400.0, 100.0]))
    torch.testing.assert_close(own.sigmas, torch.tensor([0.9, 0.4, 0.1, 0.0]))
