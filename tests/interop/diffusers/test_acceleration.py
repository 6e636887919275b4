"""Plans that are compiled through pipelines."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from rheos.core import CheckpointError, InputError, Rng, integrate
from rheos.dynamics import Flow
from rheos.guidance import ClassifierFree
from rheos.solvers import RK4, grids
from rheos.solvers.plans import field
from support.pipelines import CASES, normal
from support.runs import tiny_run

LABELS = {"class_labels": [3, 1, 4, 1, 5, 9, 2, 6]}


@pytest.fixture(autouse=True)
def frugal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Followed at few points, on few grids, for speed."""
    monkeypatch.setattr(field, "KEPT", 8)
    monkeypatch.setattr(importlib.import_module("rheos.solvers.plans.calibrate"), "POWERS", (1.0, 1.6))


@pytest.fixture
def pipe(tmp_path: Path, diffusers: Any) -> Any:
    """A pipeline that needs no transformers: that of a run."""
    from rheos.interop.diffusers import export

    return export(tiny_run(tmp_path / "run"), tmp_path / "out")


def compiled(pipe: Any, **given: Any) -> Any:
    from rheos.interop.diffusers import accelerate

    return accelerate(
        pipe, **{"evaluations": 3, "prompts": LABELS, "draws": 8, "judged": 8, "effort": 0, "batch": 16, **given}
    )


def test_a_pipeline_is_a_velocity(pipe: Any) -> None:
    from rheos.interop.diffusers.acceleration import Guided

    x, t, rows = normal(1, 6, 1, 8, 8), torch.tensor([0.3, 0.3, 0.8, 0.3, 0.8, 0.0]), torch.tensor([5, 1, 0, 3, 2, 7])
    labels = torch.tensor(LABELS["class_labels"])
    own: Flow = pipe.network.recipe.objective.dynamics(pipe.network.network).over(ClassifierFree(2.0))
    for batch in (1, 2, 5):
        velocity = Guided(pipe, LABELS, {"guidance_scale": 2.0}, batch)
        with torch.no_grad():
            torch.testing.assert_close(velocity(x, t, rows), own.velocity(x, t, labels[rows]), rtol=1e-4, atol=1e-5)
        assert velocity.evaluated == [6]


def test_a_plan_takes_the_place_of_the_scheduler(pipe: Any) -> None:
    from rheos.interop.diffusers import PlanScheduler

    told: list[str] = []
    assert compiled(pipe, evaluations=(3, 5), guidance=(3.0, 1.0), tell=told.append) is pipe
    plan = pipe.scheduler.plan
    assert isinstance(pipe.scheduler, PlanScheduler)
    assert (plan.guidance, sorted(plan.entries), plan.draws) == ((1.0, 3.0), [3, 5], 8)
    assert pipe.scheduler.config.calibrated_shift == 1.0
    assert [line.split(" in ")[1][:13] for line in told[:2]] == ["3 evaluations", "5 evaluations"]
    assert "expected error" in told[0]
    # The exact ends alone take 4 evaluations for each of 8 steps, and those at the points that are kept.
    assert int(told[2].split()[0]) > 16 * (4 * 8 + 9)
    # It is nearer the end than the pipeline's own solver, and as near as was expected.
    noise = Rng(5).rows(torch.arange(40)).normal(1, 8, 8)
    labels = torch.arange(40) % 10
    flow = pipe.network.recipe.objective.dynamics(pipe.network.network)
    asked = {"class_labels": labels.tolist(), "latents": noise, "output_type": "latent", "return_dict": False}
    with torch.no_grad():
        exact = integrate(RK4(), flow, noise, grids.Uniform()(64), labels).x
        planned = pipe(**asked, num_inference_steps=3)[0]
    error = float((planned - exact).norm() / exact.norm())
    assert error < 2 * plan.at(3).expected.rmse
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe(**asked, num_inference_steps=5, guidance_scale=2.0)
    with pytest.warns(UserWarning, match="guidance from 1 to 3, not 4"):
        pipe(**asked, num_inference_steps=5, guidance_scale=4.0)


def test_the_second_stage_is_for_single_precision(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("rheos.interop.diffusers.acceleration")
    efforts = []

    def noted(*args: Any, effort: int, **rest: Any) -> Any:
        efforts.append(effort)
        raise InterruptedError

    monkeypatch.setattr(module, "calibrate", noted)
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(InterruptedError):
            compiled(pipe.to(dtype), effort=None)
    assert efforts == [module.EFFORT, 0]


def test_every_scale_sees_every_prompt(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[int, set[int]] = {0: set(), 1: set()}

    def noted(flows: Any, noise: Any, cond: torch.Tensor, *args: Any, **rest: Any) -> Any:
        # The draws are dealt out to the scales in turn.
        for row, prompt in enumerate(cond.tolist()):
            seen[row % len(flows)].add(prompt)
        raise InterruptedError

    monkeypatch.setattr(importlib.import_module("rheos.interop.diffusers.acceleration"), "calibrate", noted)
    with pytest.raises(InterruptedError):
        compiled(pipe, guidance=(1.0, 3.0))
    assert seen == {0: set(range(8)), 1: set(range(8))}


def test_another_network_is_refused_and_a_changed_one_is_looked_at(pipe: Any, tmp_path: Path) -> None:
    from rheos.interop.diffusers import export, recheck, use_plan

    plan = compiled(pipe).scheduler.plan
    expected = plan.at(3).expected.rmse
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert recheck(pipe, prompts=LABELS, draws=16)[3] < 2 * expected
        other = export(tiny_run(tmp_path / "other"), tmp_path / "other-out")
        assert use_plan(other, plan).scheduler.plan == plan
    with torch.no_grad():
        for parameter in other.network.parameters():
            parameter.mul_(1.5)
    other.scheduler = pipe.scheduler
    with pytest.raises(CheckpointError, match="compiled for another network, or this one was changed since"):
        use_plan(other, plan)
    with pytest.warns(UserWarning, match="in 3 evaluations the plan is now off by"):
        use_plan(other, plan, prompts=LABELS)


def test_what_does_not_fit_is_refused(pipe: Any, diffusers: Any) -> None:
    from rheos.interop.diffusers import recheck

    with pytest.raises(InputError, match="this pipeline has no plan, but a SolverScheduler"):
        recheck(pipe, prompts=LABELS)
    with pytest.raises(InputError, match="give a list of them"):
        compiled(pipe, prompts="a cat")
    with pytest.raises(InputError, match="a row each, and at least one"):
        compiled(pipe, prompts={"a": [1, 2], "b": [1]})
    with pytest.raises(InputError, match="has no argument 'true_cfg_scale'"):
        compiled(pipe, scale="true_cfg_scale", guidance=(2.0,))
    with pytest.raises(InputError, match="8 of each at least"):
        compiled(pipe, judged=4)
    pipe.scheduler = diffusers.DDIMScheduler()
    with pytest.raises(InputError, match="DDIMScheduler is the scheduler of no flow"):
        compiled(pipe)


def test_an_accelerated_pipeline_is_saved_whole(pipe: Any, tmp_path: Path) -> None:
    from rheos.interop.diffusers import RheosPipeline, save

    compiled(pipe)
    with pytest.warns(UserWarning, match="no licence was found"):
        save(pipe, tmp_path / "fast")
    again = RheosPipeline.open(tmp_path / "fast")
    asked = {"num_images": 4, "num_inference_steps": 3, "output_type": "latent", "return_dict": False}
    assert float((again(**asked)[0] - pipe(**asked)[0]).abs().max()) == 0.0


@pytest.mark.parametrize("name", ["SD3Transformer2DModel", "FluxTransformer2DModel", "WanTransformer3DModel"])
def test_pipelines_of_diffusers_are_accelerated(
    name: str, pipelines: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from rheos.interop.diffusers import accelerate, save

    monkeypatch.setattr(field, "KEPT", 4)
    case = CASES[name]()
    prompts = {key: case.call[key] for key in case.call if key.endswith("embeds")} | case.guided
    call = {key: value for key, value in case.call.items() if key not in prompts}
    case.pipe.safety_checker = safety = object()
    fast = accelerate(case.pipe, 2, prompts=prompts, call=call, draws=8, judged=8, effort=0, batch=8)
    assert fast.safety_checker is safety
    with pytest.warns(UserWarning, match="no licence was found"):
        save(fast, tmp_path)
    drawn = []
    for pipe in (fast, again(fast, tmp_path)):
        pipe.set_progress_bar_config(disable=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="the plan is not used")
            noise = torch.Generator().manual_seed(0)
            asked = {"num_inference_steps": 2, "generator": noise, "output_type": "latent", "return_dict": False}
            drawn.append(pipe(**call, **prompts, **asked)[0])
        assert len(pipe.scheduler.timesteps) == 2
    assert bool(drawn[0].isfinite().all())
    assert float((drawn[1] - drawn[0]).abs().max()) == 0.0


def again(pipe: Any, folder: Path) -> Any:
    """The saved pipeline. It was made without text encoders, which would be missed, and its network is loaded by
    nobody:
    Wan's wants another package for that."""
    from rheos.interop.diffusers import PlanScheduler, open_pipeline

    if type(pipe).__name__ == "WanPipeline":
        scheduler = PlanScheduler.from_pretrained(folder, subfolder="scheduler")
        return type(pipe)(None, None, None, scheduler, pipe.transformer)
    parts = {name: part for name, part in pipe.components.items() if name != "scheduler"}
    return open_pipeline(folder, **parts)
