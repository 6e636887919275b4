"""Each family's flow is what its own pipeline hands to its scheduler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rheos.core import InputError, ShapeError
from rheos.guidance import ClassifierFree
from support.pipelines import CASES, Case, normal

pytestmark = pytest.mark.usefixtures("pipelines")


def recorded(case: Case, given: dict[str, Any], steps: int = 4) -> list[tuple[Tensor, Tensor, Tensor]]:
    """What diffusers' own scheduler is handed: velocity, timestep and sample of each step."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    from rheos.interop.diffusers.recording import scheduled
    from rheos.interop.diffusers.scheduler import flow_config

    handed = []

    class Recording(FlowMatchEulerDiscreteScheduler):  # pyright: ignore[reportUntypedBaseClass]
        def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **rest: Any) -> Any:
            handed.append((model_output, timestep, sample))
            return super().step(model_output, timestep, sample, **rest)

    with scheduled(case.pipe, Recording(**flow_config(case.pipe.scheduler))) as pipe:
        noise = torch.Generator().manual_seed(1)
        pipe(**{**case.call, **given}, num_inference_steps=steps, output_type="latent", generator=noise)
    return handed


def test_every_family_of_the_table_is_tested() -> None:
    from rheos.interop.diffusers import FAMILIES

    assert FAMILIES.keys() == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_the_velocity_of_the_pipeline(name: str) -> None:
    from rheos.interop.diffusers import FAMILIES, load

    case = CASES[name]()
    flow, cond, like = load(case.pipe, case.call)
    handed = recorded(case, dict(FAMILIES[name].plain))
    assert len(handed) == 4
    for velocity, timestep, sample in handed:
        assert like.shape == sample.shape
        with torch.no_grad():
            found = flow.velocity(sample, 1 - timestep.double() / 1000, cond)
        torch.testing.assert_close(found, -velocity, rtol=1e-6, atol=1e-6 * float(velocity.abs().max()))
    # Every input shows in the output, so that none of them is wrong unseen.
    velocity, timestep, sample = handed[1]
    with torch.no_grad():
        for x, t, given in (
            (sample + 0.1, 1 - timestep.double() / 1000, cond),
            (sample, 1.1 - timestep.double() / 1000, cond),
            *((sample, 1 - timestep.double() / 1000, {**cond, part: changed(cond[part])}) for part in cond),
        ):
            assert float((flow.velocity(x, t, given) + velocity).abs().max()) > 1e-4


def changed(value: Tensor) -> Tensor:
    return value + 1 if value.is_floating_point() else value.flip(1)


@pytest.mark.parametrize("name", CASES)
def test_a_time_a_sample(name: str) -> None:
    from rheos.interop.diffusers import load

    case = CASES[name]()
    flow, cond, like = load(case.pipe, case.call)
    t = torch.tensor([0.2, 0.7])
    with torch.no_grad():
        found = flow.velocity(like, t, cond)
        for row in range(2):
            alone = flow.velocity(like, t[row], cond)
            torch.testing.assert_close(found[row], alone[row], rtol=1e-5, atol=1e-5)


# These contrast a condition with a negative prompt and do no more; Qwen and Lumina rescale what they have contrasted.
PLAIN = [name for name in CASES if name[:4] not in ("Qwen", "Lumi")]


@pytest.mark.parametrize("name", PLAIN)
def test_guidance_of_rheos_is_that_of_the_pipeline(name: str) -> None:
    from rheos.interop.diffusers import FAMILIES, load
    from rheos.interop.diffusers.recording import led

    case = CASES[name]()
    unknown = {key.removeprefix("negative_"): value for key, value in case.guided.items()}
    flow, cond, like = load(case.pipe, case.call, unknown)
    (knob,) = FAMILIES[name].plain
    # The same negative prompt for both.
    negative = {key: value[:1].expand(2, *value.shape[1:]) for key, value in case.guided.items()}
    call = {**case.call, **negative, knob: case.scale}
    x = normal(9, *like.shape)
    (velocity,) = led(case.pipe, call, [x], [0.3])
    with torch.no_grad():
        found = flow.over(ClassifierFree(case.scale)).velocity(x, torch.tensor(0.3, dtype=torch.float64), cond)
        plain = flow.velocity(x, torch.tensor(0.3, dtype=torch.float64), cond)
    torch.testing.assert_close(found, velocity, rtol=1e-5, atol=1e-5 * float(velocity.abs().max()))
    assert float((plain - velocity).abs().max()) > 1e-2


@pytest.mark.parametrize("name", CASES)
def test_euler_draws_what_diffusers_draws(name: str) -> None:
    """Through the whole pipeline: two steps of shift where SD3's path has them, one where Flux's has."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    from rheos.interop.diffusers import SolverScheduler
    from rheos.interop.diffusers.recording import scheduled
    from rheos.interop.diffusers.scheduler import flow_config
    from rheos.solvers import Euler

    case = CASES[name]()
    drawn = []
    for scheduler in (
        FlowMatchEulerDiscreteScheduler(**flow_config(case.pipe.scheduler)),
        SolverScheduler.like(case.pipe.scheduler, Euler()),
    ):
        with scheduled(case.pipe, scheduler) as pipe:
            noise = torch.Generator().manual_seed(1)
            drawn.append(
                pipe(
                    **case.call,
                    **case.guided,
                    num_inference_steps=3,
                    output_type="latent",
                    generator=noise,
                    return_dict=False,
                )[0]
            )
    size = float(drawn[0].abs().max())
    torch.testing.assert_close(drawn[1], drawn[0], rtol=1e-5, atol=1e-5 * size)


def test_what_is_led_is_what_was_handed_over() -> None:
    from rheos.interop.diffusers.recording import led

    case = CASES["Lumina2Transformer2DModel"]()
    call = {**case.call, **case.guided, "guidance_scale": 4.0}
    handed = recorded(case, {**case.guided, "guidance_scale": 4.0})
    times = [1 - float(timestep.double()) / 1000 for _, timestep, _ in handed]
    own = case.pipe.scheduler
    found = led(case.pipe, call, [sample for _, _, sample in handed], times)
    assert case.pipe.scheduler is own
    for velocity, (theirs, _, _) in zip(found, handed, strict=True):
        torch.testing.assert_close(velocity, -theirs, rtol=1e-5, atol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    from rheos.interop.diffusers import load
    from rheos.interop.diffusers.families import family_of

    with pytest.raises(InputError, match="how Identity is called is not known here"):
        family_of(torch.nn.Identity())
    case = CASES["FluxTransformer2DModel"]()
    longer = {"prompt_embeds": normal(1, 2, 6, 32), "pooled_prompt_embeds": normal(2, 2, 32)}
    with pytest.raises(InputError, match=r"encoder_hidden_states is \(1, 6, 32\) of the unknown prompt"):
        load(case.pipe, case.call, longer)
    sd3 = CASES["SD3Transformer2DModel"]()
    flow, cond, like = load(sd3.pipe, sd3.call)
    sd3.pipe.transformer.register_forward_hook(lambda module, args, out: (torch.cat([out[0]] * 3, 1),))
    with torch.no_grad(), pytest.raises(ShapeError, match="SD3Transformer2DModel gave"):
        flow.velocity(like, torch.tensor(0.5), cond)
