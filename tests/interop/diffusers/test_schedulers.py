"""Plans and skipped steps as schedulers."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rheos.core import CheckpointError, InputError, integrate
from rheos.dynamics import Flow
from rheos.solvers import AdamsBashforth
from rheos.solvers.fast_flow import Bandit
from rheos.solvers.plans import Entry, Figures, Plan, PlanSolver, Rule
from rheos.solvers.skipped_euler import SkippedEuler

pytestmark = pytest.mark.usefixtures("diffusers")

X = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
TIMES = (0.0, 0.13, 0.4, 0.8, 1.0)
ROWS = ((0.1, 0.9, 0, 0, 0), (0.0, 1.3, -0.2, 0, 0), (0.02, 1.6, -0.8, 0.2, 0), (0.0, 2.0, -1.3, 0.5, -0.1))
SOME = Figures(0.1, 0.2, 0.05)
FLAT = ((0.0,) * 5,)
PLAN = Plan(
    {
        4: Entry(4, Rule(TIMES, ROWS), None, SOME, SOME),
        6: Entry(6, Rule((0.0, 0.2, 0.6, 1.0), 3 * FLAT), "Heun", SOME, SOME),
    },
    (2.0, 5.0),
)
FLOW = Flow(lambda x, t: -predicted(x, 1 - t))


def predicted(x: Tensor, sigma: Any) -> Tensor:
    """What a pipeline hands over: from data to noise."""
    return torch.tanh(2 * x) * (0.5 + sigma) - x.flip(0)


def sampled(scheduler: Any, **asked: Any) -> Tensor:
    scheduler.set_timesteps(**asked)
    x = X
    for time in scheduler.timesteps:
        x = scheduler.step(predicted(x, time / 1000), time, x, return_dict=False)[0]
    return x


def planned(**given: Any) -> Any:
    from rheos.interop.diffusers import PlanScheduler

    return PlanScheduler(PLAN, **given)


@pytest.mark.parametrize(("asked", "budget"), [(4, 4), (5, 4), (6, 6), (28, 6)])
def test_the_plan_is_what_its_solver_is(asked: int, budget: int) -> None:
    solver: PlanSolver[Tensor] = PlanSolver(PLAN.at(budget))
    end = integrate(solver, FLOW, X.double(), solver.grid.double()).x
    own = planned(shift=3.0)
    torch.testing.assert_close(sampled(own, num_inference_steps=asked).double(), end, rtol=1e-4, atol=1e-5)
    assert len(own.timesteps) == budget
    # Sigmas that a pipeline passes unasked change nothing.
    torch.testing.assert_close(
        sampled(own, sigmas=np.linspace(1, 1 / asked, asked)).double(), end, rtol=1e-4, atol=1e-5
    )


def test_velocities_are_remembered_in_single_precision() -> None:
    own = planned()
    own.set_timesteps(4)
    x = X.bfloat16()
    rates = [x * 0.01 + n for n in range(4)]
    for rate, time in zip(rates, own.timesteps, strict=True):
        x = own.step(rate, time, x, return_dict=False)[0]
    handed = iter(rates)
    solver: PlanSolver[Tensor] = PlanSolver(PLAN.at(4))
    end = integrate(solver, Flow(lambda x, t: -next(handed).float()), X.bfloat16().float(), solver.grid).x
    torch.testing.assert_close(x, end.bfloat16(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("config", "asked", "reason"),
    [
        ({}, {"sigmas": [0.6, 0.5, 0.3, 0.1]}, "begins midway, at sigma 0.6"),
        ({}, {"sigmas": [1.0, 0.5, 0.3, 0.1]}, "sigmas of the user's own"),
        ({}, {"timesteps": [1000.0, 500.0, 200.0, 50.0]}, "sigmas of the user's own"),
        ({"shift": 3.0, "calibrated_shift": 2.0}, {"num_inference_steps": 4}, "shift 2, and this resolution has 3"),
        (
            {"use_dynamic_shifting": True, "calibrated_shift": 2.0},
            {"num_inference_steps": 4, "mu": 1.0},
            "shift 2, and this resolution has 2.72",
        ),
    ],
)
def test_elsewhere_adams_bashforth_takes_its_place(config: Any, asked: Any, reason: str) -> None:
    own = planned(**config)
    with pytest.warns(UserWarning, match=f"Adams-Bashforth 3 is: .*{reason}"):
        found = sampled(own, **asked)
    grid = 1 - own.sigmas.double()
    end = integrate(AdamsBashforth(3), FLOW, X.double(), grid).x
    torch.testing.assert_close(found.double(), end, rtol=1e-4, atol=1e-5)
    assert len(own.timesteps) == 4


def test_the_shift_that_it_was_compiled_at_serves() -> None:
    dynamic = planned(use_dynamic_shifting=True, calibrated_shift=float(np.exp(1.0)))
    linear = planned(use_dynamic_shifting=True, calibrated_shift=1.0, time_shift_type="linear")
    fixed = planned(shift=3.0, calibrated_shift=3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for own, mu in ((dynamic, 1.0), (dynamic, 1.03), (linear, 1.0), (fixed, 9.9)):
            own.set_timesteps(4, mu=mu)
            torch.testing.assert_close(own.sigmas, 1 - torch.tensor(TIMES))


def test_an_image_that_is_changed_goes_on_by_adams_bashforth() -> None:
    own = planned()
    own.set_timesteps(4)
    own.set_begin_index(2)
    with pytest.warns(UserWarning, match="sampling begins midway"):
        x = own.step(predicted(X, own.sigmas[2]), own.timesteps[2], X, return_dict=False)[0]
    x = own.step(predicted(x, own.sigmas[3]), own.timesteps[3], x, return_dict=False)[0]
    end = integrate(AdamsBashforth(3), FLOW, X.double(), torch.tensor(TIMES[2:], dtype=torch.float64)).x
    torch.testing.assert_close(x.double(), end, rtol=1e-4, atol=1e-5)
    # A classical solver of the plan serves from anywhere.
    own.set_timesteps(6)
    own.set_begin_index(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own.step(X, own.timesteps[2], X)


def test_the_scale_of_guidance_is_read_off_the_pipeline() -> None:
    class Pipe:
        _guidance_scale = 3.0

    own, pipe = planned(), Pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own.watch(pipe)
        own.set_timesteps(4)
        pipe._guidance_scale = 5.0
        own.set_timesteps(4)
    pipe._guidance_scale = 5.5
    with pytest.warns(UserWarning, match=r"for guidance from 2 to 5, not 5\.5"):
        own.set_timesteps(4)


def test_too_few_evaluations_and_no_plan_are_refused() -> None:
    from rheos.interop.diffusers import PlanScheduler

    with pytest.raises(InputError, match="begins at 4 evaluations, 3 are allowed"):
        planned().set_timesteps(3)
    with pytest.raises(InputError, match="PlanScheduler needs a plan"):
        PlanScheduler()
    with pytest.raises(CheckpointError, match="the plan is damaged"):
        PlanScheduler({"format": "rheos plan", "version": 1})
    with pytest.raises(InputError, match="stochastic_sampling"):
        planned(stochastic_sampling=True)


def test_a_plan_is_saved_and_loaded_by_diffusers(tmp_path: Path) -> None:
    from rheos.interop.diffusers import PlanScheduler

    own = planned(shift=3.0, calibrated_shift=3.0)
    own.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "scheduler_config.json").read_text())["plan"]["format"] == "rheos plan"
    again = PlanScheduler.from_pretrained(tmp_path)
    assert again.plan == PLAN
    assert again.config.calibrated_shift == 3.0
    assert torch.equal(sampled(again, num_inference_steps=4), sampled(own, num_inference_steps=4))
    other = PlanScheduler.like(own, PLAN)
    assert (other.config.shift, other.config.calibrated_shift) == (3.0, None)


def test_skipped_steps_on_the_sigmas_of_the_pipeline(tmp_path: Path) -> None:
    from rheos.interop.diffusers import FastFlowScheduler, SolverScheduler

    own = FastFlowScheduler([0, 1, 3, 6, 7], 10, shift=3.0)
    every = SolverScheduler(shift=3.0)
    every.set_timesteps(10)
    fine = 1 - every.sigmas.double()
    solver: SkippedEuler[Tensor] = SkippedEuler(tuple(fine.tolist()), (0, 1, 3, 6, 7))
    end = integrate(solver, FLOW, X.double(), solver.grid).x
    found = sampled(own, num_inference_steps=10)
    torch.testing.assert_close(found.double(), end, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own.timesteps, every.timesteps[[0, 1, 3, 6, 7]])
    own.save_pretrained(tmp_path)
    assert torch.equal(sampled(FastFlowScheduler.from_pretrained(tmp_path), num_inference_steps=10), found)
    whole = FastFlowScheduler.like(every, Bandit.fresh(10))
    torch.testing.assert_close(sampled(whole, num_inference_steps=10), sampled(every, num_inference_steps=10))
    with pytest.raises(InputError, match="chosen among 10 steps, and 9 are asked for"):
        own.set_timesteps(9)
    with pytest.raises(InputError, match="go upward from 0"):
        FastFlowScheduler([1, 2], 10)


def test_skipped_steps_begin_anew_midway() -> None:
    from rheos.interop.diffusers import FastFlowScheduler

    own = FastFlowScheduler([0, 2, 5, 7], 10)
    own.set_timesteps(10)
    own.set_begin_index(1)
    x = X
    for time in own.timesteps[1:]:
        x = own.step(predicted(x, time / 1000), time, x, return_dict=False)[0]
    own.set_timesteps(10)
    fine = 1 - np.linspace(1, 0.001, 10)
    rest: SkippedEuler[Tensor] = SkippedEuler((*fine[2:], 1.0), (0, 3, 5))
    end = integrate(rest, FLOW, X.double(), rest.grid).x
    torch.testing.assert_close(x.double(), end, rtol=1e-4, atol=1e-5)
