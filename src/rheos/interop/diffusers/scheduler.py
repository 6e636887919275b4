"""Solvers as schedulers of diffusers.

diffusers' time is a noise level: sigma = 1 - t, the data at 0 and the noise at 1, and its velocity points to the
noise, so it is minus ours. Sigmas that a pipeline asks for go through diffusers' own scheduler for flows, with its
shifts: the one by resolution, the fixed one, and its second application where no sigmas are passed (diffusers issue
13243). On the grid that comes out, or on one of its own, a solver steps.

A pipeline evaluates its network at every entry of ``timesteps``. A solver of several stages has one for every
evaluation.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core import InputError
from ...solvers import FixedStep
from .installed import diffusers
from .walk import Walk, evaluated

_Euler: Any = diffusers().FlowMatchEulerDiscreteScheduler


def flow_config(scheduler: Any) -> dict[str, Any]:
    """What a scheduler of a flow is configured by, in the words of diffusers' own scheduler for flows.

    Raises:
        InputError: if it is no scheduler of a flow.
    """
    config = getattr(scheduler, "config", {})
    known = inspect.signature(_Euler.__init__).parameters.keys() - {"self"}
    name = str(config.get("_class_name", type(scheduler).__name__))
    if name.startswith("FlowMatch") or isinstance(scheduler, _Euler):
        return {key: value for key, value in config.items() if key in known}
    if config.get("use_flow_sigmas") and config.get("prediction_type") == "flow_prediction":
        shared = ("num_train_timesteps", "use_dynamic_shifting", "time_shift_type", "shift_terminal")
        return {"shift": config.get("flow_shift", 1.0), **{key: config[key] for key in shared if key in config}}
    raise InputError(
        f"{type(scheduler).__name__} is the scheduler of no flow: it predicts "
        f"{config.get('prediction_type', 'noise')!r}. Flow pipelines have a FlowMatchEulerDiscreteScheduler, or one "
        "with prediction_type='flow_prediction' and use_flow_sigmas; for a model that predicts noise, v or data take "
        "rheos.interop.foreign_flow."
    )


class FlowScheduler(_Euler, ABC):
    """What the schedulers of rheos share. To add one, write ``choose``.

    The configuration is that of diffusers' FlowMatchEulerDiscreteScheduler and what the scheduler adds to it.

    Raises:
        InputError: if it asks for noise on the way, or for sigmas that rise.
    """

    order = 1

    def __init__(self, **flow: Any) -> None:
        if flow.get("stochastic_sampling"):
            raise InputError(
                f"{type(self).__name__} steps without noise, and stochastic_sampling is set; leave it out, or keep the "
                "pipeline's own scheduler."
            )
        if flow.get("invert_sigmas"):
            raise InputError("invert_sigmas runs from data to noise, which this scheduler does not; leave it out.")
        super().__init__(**flow)
        self._walk: Walk | None = None
        self._step_index: Any = None
        self._solver: FixedStep[Tensor] | None = None

    @staticmethod
    def _get_init_keys(input_class: Any) -> set[str]:
        """The names of the configuration; diffusers asks for them when it saves and loads."""
        keys = set(inspect.signature(input_class.__init__).parameters)
        if issubclass(input_class, FlowScheduler):
            keys |= set(inspect.signature(_Euler.__init__).parameters)
        return keys - {"flow"}

    @abstractmethod
    def choose(self, sigmas: Tensor, asked: Mapping[str, Any]) -> tuple[FixedStep[Tensor], Tensor]:
        """The solver, and its grid of times in float64.

        Args:
            sigmas: what the pipeline asks for, after its shifts, float64 (N+1,), down to 0.
            asked: the arguments of ``set_timesteps``.
        """

    def resumed(self, solver: FixedStep[Tensor], step: int) -> FixedStep[Tensor]:
        """The solver that goes on from ``step`` with what another made of the noise."""
        return solver

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        timesteps: Sequence[float] | None = None,
    ) -> None:
        """Fix the times of all evaluations.

        Args:
            num_inference_steps: steps.
            device: where ``timesteps`` are wanted.
            sigmas: noise levels before they are shifted.
            mu: the shift by resolution, where the configuration has one.
            timesteps: noise levels times ``num_train_timesteps``, instead of sigmas; they are not shifted.

        Raises:
            InputError: if sigmas and timesteps are given, or none of the three, or sigmas that do not fall.
        """
        if sigmas is not None and timesteps is not None:
            raise InputError("give sigmas or timesteps: one follows from the other.")
        if num_inference_steps is None and sigmas is None and timesteps is None:
            raise InputError("a number of steps, sigmas or timesteps are needed.")
        train = self.config.num_train_timesteps
        if timesteps is None:
            super().set_timesteps(num_inference_steps, None, sigmas, mu)
            levels = self.sigmas.double()
        else:
            levels = torch.from_numpy(np.append(np.asarray(timesteps, dtype=np.float64) / train, 0.0))
        if not bool((levels.diff() < 0).all()) or float(levels[0]) > 1 + 1e-6:
            raise InputError(f"sigmas fall from at most 1 to 0, got {[round(s, 4) for s in levels.tolist()]}.")
        asked = {"num_inference_steps": num_inference_steps, "sigmas": sigmas, "mu": mu, "timesteps": timesteps}
        self._solver, self._grid = self.choose(levels, asked)
        times, self._starts = evaluated(self._solver, self._grid)
        self.sigmas = (1 - torch.cat([times, self._grid[-1:]])).float().to(device)
        self.timesteps = self.sigmas[:-1] * train
        self.num_inference_steps = len(self.timesteps)
        self._walk = self._step_index = self._begin_index = None

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        s_churn: float = 0.0,
        generator: torch.Generator | None = None,
        per_token_timesteps: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """From the velocity at a sample to the sample that is evaluated next, and at last to the data.

        Args:
            model_output: the (guided) velocity, from data to noise.
            timestep: the entry of ``timesteps`` that it belongs to.
            sample: the state that was evaluated. What was changed in it since the last step is kept.
            s_churn: not 0 asks for noise, which is refused.
            generator: not used; some pipelines pass one.
            per_token_timesteps: refused.
            return_dict: whether the sample comes in diffusers' own output, or a tuple.

        Raises:
            InputError: before ``set_timesteps``, for a timestep that is none of them, or where noise is asked for.
        """
        if s_churn or per_token_timesteps is not None:
            raise InputError(
                f"{type(self).__name__} steps without noise and all of a sample at one time; leave s_churn and "
                "per_token_timesteps out, or keep the pipeline's own scheduler."
            )
        wide = torch.promote_types(sample.dtype, torch.float32)
        walk = self._walk
        if walk is None:
            walk = self._walk = self._begun(timestep, sample.to(wide))
        if walk.ended:
            raise InputError("all steps were taken; call set_timesteps before another sample.")
        # Between two steps the state is kept wide: what the pipeline holds is rounded.
        walk.nudge(sample.to(wide) - walk.point.to(sample.dtype).to(wide))
        walk.feed(-model_output.to(wide))
        self._step_index += 1
        following = walk.point.to(model_output.dtype, copy=True)
        return diffusers().schedulers.scheduling_utils.SchedulerOutput(following) if return_dict else (following,)

    def _begun(self, timestep: float | Tensor, x: Tensor) -> Walk:
        if self._solver is None:
            raise InputError("call set_timesteps before step.")
        self._step_index = self._place(timestep) if self._begin_index is None else self._begin_index
        if self._step_index not in self._starts:
            raise InputError(
                f"sampling cannot begin at evaluation {self._step_index}, inside a step of "
                f"{type(self._solver).__name__}; begin at one of {self._starts}, or take a solver of one stage."
            )
        first = self._starts.index(self._step_index)
        solver = self.resumed(self._solver, first) if first else self._solver
        return Walk(solver, x, self._grid[first:])

    def _place(self, timestep: float | Tensor) -> int:
        """The number of a timestep; of two alike, a step ends at the first and begins at the second."""
        alike = (self.timesteps == torch.as_tensor(timestep, device=self.timesteps.device)).nonzero().flatten().tolist()
        if not alike:
            raise InputError(f"{timestep} is none of the timesteps {self.timesteps.tolist()}.")
        return alike[-1]
