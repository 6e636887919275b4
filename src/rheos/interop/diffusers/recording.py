"""A pipeline's own loop, listened to and led.

A pipeline evaluates its guided velocity wherever its scheduler sends it. So a scheduler that sends it to given states
at given times, and keeps what it hands over, makes the pipeline a function: its guidance, its conditions and its
dtypes are its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor

from ...core import InputError
from .installed import diffusers
from .scheduler import flow_config

_Euler: Any = diffusers().FlowMatchEulerDiscreteScheduler
_Output: Any = diffusers().schedulers.scheduling_utils.SchedulerOutput

NETWORKS = ("transformer", "transformer_2", "unet", "network")
"""The names under which pipelines hold what they evaluate."""


@final
class Led(_Euler):
    """Sends a pipeline to states at times, and keeps the velocities that it hands over.

    Args:
        states: (B, ...) each, as the pipeline holds them; without any it stays where it is.
        times: ours, one each.
        flow: the configuration of the pipeline's own scheduler.
    """

    def __init__(self, states: Sequence[Tensor], times: Sequence[float], **flow: Any) -> None:
        super().__init__(**flow)
        self.states, self.times = states, times
        self.found: list[Tensor] = []
        self.start: Tensor | None = None
        self.mu: float | None = None

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        timesteps: Sequence[float] | None = None,
    ) -> None:
        """Whatever is asked for: the times to be visited."""
        self.mu = mu
        levels = 1 - torch.tensor(self.times, dtype=torch.float64)
        self.sigmas = torch.cat([levels, torch.zeros(1, dtype=torch.float64)]).float().to(device)
        self.timesteps = self.sigmas[:-1] * self.config.num_train_timesteps

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True, **rest: Any) -> Any:
        """Keep the velocity, and go to the next state."""
        self.found.append(-model_output.float())
        self.start = sample if self.start is None else self.start
        following = self.states[len(self.found)].to(sample) if len(self.found) < len(self.states) else sample
        return _Output(following) if return_dict else (following,)


@contextmanager
def scheduled(pipe: Any, scheduler: Any) -> Iterator[Any]:
    """A pipeline with another scheduler and no progress bar; afterwards it has its own again."""
    own, bar = pipe.scheduler, getattr(pipe, "_progress_bar_config", None)
    pipe.scheduler = scheduler
    pipe.set_progress_bar_config(**{**(bar or {}), "disable": True})
    try:
        yield pipe
    finally:
        pipe.scheduler = own
        if bar is None:
            del pipe._progress_bar_config
        else:
            pipe._progress_bar_config = bar


def led(pipe: Any, call: Mapping[str, Any], states: Sequence[Tensor], times: Sequence[float]) -> list[Tensor]:
    """The pipeline's guided velocities, from noise to data, float32, at states and times.

    Args:
        pipe: the pipeline.
        call: its arguments; the latents, the number of steps and the kind of output are set here.
        states: (B, ...), a row a sample, as its ``latents``.
        times: one each, t = 0 the noise.

    Raises:
        InputError: if the pipeline visited other states than it was sent to.
    """
    scheduler = Led(states, times, **flow_config(pipe.scheduler))
    own = {"latents": states[0], "num_inference_steps": len(times), "output_type": "latent", "return_dict": False}
    with scheduled(pipe, scheduler):
        pipe(**{**call, **own})
    if len(scheduler.found) != len(times):
        raise InputError(
            f"{type(pipe).__name__} evaluated {len(scheduler.found)} of {len(times)} states: its loop is not that of a "
            "flow pipeline."
        )
    return scheduler.found


def first_call(pipe: Any, call: Mapping[str, Any]) -> tuple[dict[str, Any], Tensor]:
    """The arguments by name that a pipeline passes to its network first, and the state (B, ...) that it begins at."""
    network: Any = networks(pipe)[0]
    names = list(inspect.signature(network.forward).parameters)
    seen: list[dict[str, Any]] = []

    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append({**dict(zip(names, args, strict=False)), **kwargs})

    handle = network.register_forward_pre_hook(note, with_kwargs=True)
    try:
        start = begun(pipe, call)[0]
    finally:
        handle.remove()
    return seen[0], start


def begun(pipe: Any, call: Mapping[str, Any]) -> tuple[Tensor, float | None]:
    """The noise (B, ...) that a pipeline begins at, and the ``mu`` that it asks its scheduler for."""
    scheduler = Led((), (0.0,), **flow_config(pipe.scheduler))
    given = {"generator": torch.Generator().manual_seed(0), **call}
    own = {"num_inference_steps": 1, "output_type": "latent", "return_dict": False}
    with scheduled(pipe, scheduler):
        pipe(**{**given, **own})
    if scheduler.start is None:
        raise InputError(f"{type(pipe).__name__} took no step: its loop is not that of a flow pipeline.")
    return scheduler.start, scheduler.mu


def networks(pipe: Any) -> list[Any]:
    """What a pipeline evaluates.

    Raises:
        InputError: if it holds nothing under a name that is known.
    """
    found = [getattr(pipe, name, None) for name in NETWORKS]
    found = [network for network in found if network is not None]
    if not found:
        raise InputError(f"{type(pipe).__name__} has no network under one of the names {', '.join(NETWORKS)}.")
    return found
