"""Plans for pipelines of diffusers, compiled through the pipelines themselves.

What is compiled is the velocity that a pipeline hands to its scheduler: guided, masked and rounded as it does it. So
nothing has to be known of the network, and a plan serves the pipeline as it is used.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from ...core import CheckpointError, InputError, Rng
from ...dynamics import Flow
from ...solvers import RK4
from ...solvers.plans import Plan, calibrate, fingerprint
from .recording import begun, led, networks, scheduled
from .schedulers import PlanScheduler, SolverScheduler

DRAWS, JUDGED = 32, 64
"""Noises that a plan for a large network is fitted on, and those that judge it."""

EFFORT = 20_000
"""States that may be evaluated to fit each budget of a network of single precision. One of half precision rounds more
than the differences from which the second stage of the fit learns, so its plans are those of the first."""

BATCH = 4
"""Samples that the pipeline carries at once while it is compiled."""

FINE = 24
"""Steps of RK4 whose end is taken for exact when a plan is looked at again."""

WORSE = 2.0
"""A plan whose error is so many times what was expected is warned of."""

Prompts = Sequence[str] | Mapping[str, Any]
"""Prompts, or the pipeline's arguments that have a row a prompt, such as ``prompt_embeds``."""

logger = logging.getLogger(__name__)


@final
@dataclass
class Guided:
    """The guided velocity of a pipeline: ``velocity(x, t, rows)`` of states (B, ...) at times (B,), for the prompts of
    these numbers (B,).

    Args:
        pipe: the pipeline.
        prompts: its arguments with a row a prompt.
        call: its other arguments.
        batch: samples that it carries at once.
        evaluated: how many states were evaluated so far.
    """

    pipe: Any
    prompts: Mapping[str, Any]
    call: Mapping[str, Any]
    batch: int = BATCH
    evaluated: list[int] = field(default_factory=lambda: [0])

    def __call__(self, x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        # A pipeline has one time for all its samples, and the same prompts for all its steps.
        visits: dict[tuple[int, ...], list[tuple[Tensor, float]]] = {}
        for time in t.unique():
            for own in (t == time).nonzero()[:, 0].split(self.batch):
                visits.setdefault(tuple(rows[own].tolist()), []).append((own, float(time)))
        out = torch.empty_like(x)
        for numbers, stops in visits.items():
            call = {**self.call, **chosen(self.prompts, numbers)}
            found = led(self.pipe, call, [x[own] for own, _ in stops], [time for _, time in stops])
            for (own, _), velocity in zip(stops, found, strict=True):
                out[own] = velocity.to(out)
        self.evaluated[0] += len(x)
        return out


def accelerate(
    pipe: Any,
    evaluations: int | Iterable[int] = 8,
    *,
    prompts: Prompts,
    call: Mapping[str, Any] | None = None,
    guidance: Sequence[float] = (),
    scale: str = "guidance_scale",
    draws: int = DRAWS,
    judged: int = JUDGED,
    effort: int | None = None,
    batch: int = BATCH,
    seed: int = 0,
    tell: Callable[[str], Any] = logger.info,
) -> Any:
    """Compile a plan for a pipeline, and put it in the place of its scheduler.

    Args:
        pipe: a pipeline of a flow. Its safety checker, and everything else, stays in place.
        evaluations: of the guided velocity a sample; or several such budgets.
        prompts: what it is compiled on, dealt out among the draws.
        call: the pipeline's other arguments, such as its size.
        guidance: scales that the plan is to serve; the pipeline's own when left out.
        scale: the argument of the pipeline that is the scale of guidance.
        draws: noises to fit on.
        judged: noises that judge.
        effort: states to be evaluated at most in fitting each budget, exact ends and classical solvers apart.
        batch: samples that the pipeline carries at once.
        seed: of the noises.
        tell: is told what was found and what it cost.

    Returns:
        The same pipeline. ``pipe.scheduler.plan`` is the plan.

    Raises:
        InputError: if the pipeline is none of a flow, there is no prompt, or the numbers make no sense.
    """
    named = _named(prompts)
    count = _count(named)
    start, mu = begun(pipe, {**(call or {}), **chosen(named, (0,))})
    scales = _scales(pipe, call or {}, guidance, scale)
    tally = [0]
    flows = {
        value: Flow(Guided(pipe, named, {**(call or {}), **given}, batch, tally)) for value, given in scales.items()
    }
    rows = torch.arange(draws + judged)
    noise = Rng(seed).rows(rows).normal(*start.shape[1:])
    half = next(networks(pipe)[0].parameters()).dtype in (torch.float16, torch.bfloat16)
    plan = calibrate(
        flows,
        noise,
        rows // len(scales) % count,
        [evaluations] if isinstance(evaluations, int) else evaluations,
        draws=draws,
        judged=judged,
        effort=(0 if half else EFFORT) if effort is None else effort,
        model=_fingerprint(pipe),
        tell=lambda entry: tell(str(entry)),
    )
    tell(f"{tally[0]} states were evaluated to compile this plan.")
    scheduler = PlanScheduler.like(pipe.scheduler, plan)
    return _put(pipe, plan, scheduler.shift_at(mu), scale)


def use_plan(
    pipe: Any,
    plan: Plan,
    *,
    calibrated_shift: float | None = None,
    scale: str = "guidance_scale",
    prompts: Prompts | None = None,
    call: Mapping[str, Any] | None = None,
) -> Any:
    """Put a plan that was compiled earlier in the place of a pipeline's scheduler.

    Args:
        pipe: the pipeline.
        plan: compiled for its network.
        calibrated_shift: as ``pipe.scheduler.config.calibrated_shift`` was when it was compiled.
        scale: the argument of the pipeline that is the scale of guidance.
        prompts: where the network has changed since, by a LoRA or by quantisation, the plan is looked at again on these
            (see :func:`recheck`) instead of being refused.
        call: the pipeline's other arguments.

    Raises:
        CheckpointError: if the network is another one, and there are no prompts.
        InputError: if the pipeline is none of a flow.
    """
    same = plan.model == _fingerprint(pipe)
    if not same and prompts is None:
        raise CheckpointError(
            "this plan was compiled for another network, or this one was changed since, by a LoRA or by quantisation; "
            "give prompts to see how well it serves, or compile another: accelerate(pipe, prompts=...)."
        )
    _put(pipe, plan, calibrated_shift, scale)
    if prompts is not None and not same:
        recheck(pipe, prompts=prompts, call=call, scale=scale)
    return pipe


def recheck(
    pipe: Any,
    *,
    prompts: Prompts,
    call: Mapping[str, Any] | None = None,
    scale: str = "guidance_scale",
    draws: int = 4,
    seed: int = 1,
) -> dict[int, float]:
    """How far the plan of a pipeline is from exact integration now, by budget; a warning where that is more than twice
    what was expected of it.

    Args:
        pipe: a pipeline with a plan.
        prompts: what it is looked at with.
        call: the pipeline's other arguments.
        scale: the argument of the pipeline that is the scale of guidance; the least that the plan serves, if ``call``
            has none.
        draws: noises; each costs 96 evaluations, and those of every budget.
        seed: of the noises.

    Returns:
        The root mean square error over the size of the exact ends.
    """
    own = pipe.scheduler
    if not isinstance(own, PlanScheduler):
        raise InputError(f"this pipeline has no plan, but a {type(own).__name__}; accelerate compiles one.")
    named = _named(prompts)
    numbers = tuple(n % _count(named) for n in range(draws))
    guided = {scale: own.plan.guidance[0]} if scale in inspect.signature(type(pipe).__call__).parameters else {}
    given = {**guided, **(call or {}), **chosen(named, numbers)}
    start, _ = begun(pipe, given)
    noise = Rng(seed).rows(torch.arange(draws)).normal(*start.shape[1:]).to(start)

    def end(scheduler: Any, steps: int) -> Tensor:
        with scheduled(pipe, scheduler):
            drawn = pipe(
                **{**given, "latents": noise.clone(), "num_inference_steps": steps},
                output_type="latent",
                return_dict=False,
            )
        return drawn[0].double()

    exact = end(SolverScheduler.like(own, RK4()), FINE)
    found = {}
    for budget, entry in own.plan.entries.items():
        found[budget] = float((end(own, budget) - exact).norm() / exact.norm())
        if not found[budget] <= WORSE * entry.expected.rmse:
            warnings.warn(
                f"in {budget} evaluations the plan is now off by {found[budget]:.2g}, where {entry.expected.rmse:.2g} "
                "was expected; compile another: accelerate(pipe, prompts=...).",
                stacklevel=2,
            )
    return found


def chosen(prompts: Mapping[str, Any], numbers: Sequence[int]) -> dict[str, Any]:
    """The rows of these numbers."""
    return {
        name: value[list(numbers)] if isinstance(value, Tensor) else [value[n] for n in numbers]
        for name, value in prompts.items()
    }


def _named(prompts: Prompts) -> Mapping[str, Any]:
    if isinstance(prompts, str):
        raise InputError("prompts are several: give a list of them.")
    return prompts if isinstance(prompts, Mapping) else {"prompt": list(prompts)}


def _count(prompts: Mapping[str, Any]) -> int:
    counts = {name: len(value) for name, value in prompts.items()}
    if len(set(counts.values())) != 1 or not next(iter(counts.values())):
        raise InputError(f"prompts have a row each, and at least one, got {counts or 'none'}.")
    return next(iter(counts.values()))


def _scales(
    pipe: Any, call: Mapping[str, Any], guidance: Sequence[float], scale: str
) -> Mapping[float, Mapping[str, float]]:
    """The arguments of the pipeline for each scale of guidance, the pipeline's own when none is named."""
    parameter = inspect.signature(type(pipe).__call__).parameters.get(scale)
    if parameter is None:
        if guidance:
            raise InputError(
                f"{type(pipe).__name__} has no argument {scale!r}; name the one that guides, or leave it out."
            )
        return {1.0: {}}
    own = call.get(scale, parameter.default)
    wanted = sorted(set(guidance)) or ([float(own)] if isinstance(own, int | float) else [])
    return {float(value): {scale: value} for value in wanted} or {1.0: {}}


def _fingerprint(pipe: Any) -> str:
    return fingerprint(nn.ModuleList(networks(pipe)))


def _put(pipe: Any, plan: Plan, calibrated_shift: float | None, scale: str) -> Any:
    scheduler = PlanScheduler.like(pipe.scheduler, plan, calibrated_shift)
    if scale == "guidance_scale":
        # The only one that pipelines keep where a scheduler can read it.
        scheduler.watch(pipe)
    pipe.scheduler = scheduler
    return pipe
