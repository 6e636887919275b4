"""The schedulers that drop into ``pipe.scheduler``: of a solver, of a plan, and of FastFlow's skipped steps."""

from __future__ import annotations

import json
import math
import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from ...core import InputError
from ...recipes import decode, encode
from ...solvers import AdamsBashforth, Euler, FixedStep, Grid
from ...solvers.fast_flow import Bandit
from ...solvers.plans import Fitted, Plan, PlanSolver
from ...solvers.skipped_euler import SkippedEuler
from .installed import diffusers
from .scheduler import FlowScheduler, flow_config

SchedulerMixin: Any = diffusers().SchedulerMixin
"""diffusers asks the module of a component for it, to learn how the component is loaded."""

NEAR = 1.05
"""The ratio of shifts up to which a plan serves another resolution than that which it was compiled at."""


@final
class SolverScheduler(FlowScheduler):
    """A solver of rheos on the sigmas that the pipeline asks for.

    Args:
        solver: of fixed steps, such as ``Heun()`` or ``AdamsBashforth(3)``; Euler when left out. A pipeline's number of
            steps is the number of its steps, each with as many evaluations as it has stages.
        grid: of rheos, which stands wherever a pipeline asks for a number of steps and for no sigmas.
        flow: the configuration of diffusers' own scheduler.
    """

    def __init__(
        self,
        solver: FixedStep[Tensor] | Mapping[str, Any] | None = None,
        grid: Grid | Mapping[str, Any] | None = None,
        **flow: Any,
    ) -> None:
        super().__init__(**flow)
        self._stepper: Any = decode(dict(solver)) if isinstance(solver, Mapping) else (solver or Euler())
        self._own: Any = decode(dict(grid)) if isinstance(grid, Mapping) else grid
        self.register_to_config(solver=encode(self._stepper), grid=encode(self._own))

    @staticmethod
    def like(scheduler: Any, solver: FixedStep[Tensor]) -> SolverScheduler:
        """The scheduler of a solver with the shifts of a pipeline's own.

        Raises:
            InputError: if that is the scheduler of no flow.
        """
        return SolverScheduler(solver, **flow_config(scheduler))

    def choose(self, sigmas: Tensor, asked: Mapping[str, Any]) -> tuple[FixedStep[Tensor], Tensor]:
        if self._own is None or asked["sigmas"] is not None or asked["timesteps"] is not None:
            return self._stepper, 1 - sigmas
        return self._stepper, self._own(len(sigmas) - 1, torch.float64)


@final
class PlanScheduler(FlowScheduler):
    """The rules of a plan, each on its own grid.

    A pipeline's number of steps is the most that are taken: a plan of 4 and 8 takes 8 where 28 are asked for. A fitted
    rule leads from pure noise to data, at the resolution and guidance that it was compiled for. Anywhere else its
    place is taken by Adams-Bashforth 3 on the sigmas that the pipeline asks for, with a warning that says why: for
    samples that begin midway, such as images that are changed; for sigmas of the user's own; for another shift, where
    the resolution makes one; and for another scale of guidance, where the scheduler is told its pipeline by
    :meth:`watch`.

    Args:
        plan: what :meth:`Plan.to_json` wrote, as a mapping; or the plan.
        calibrated_shift: the shift at which it was compiled, as a factor of sigma/(1 - sigma); any when left out.
        flow: the configuration of diffusers' own scheduler.
    """

    def __init__(
        self, plan: Plan | Mapping[str, Any] | None = None, calibrated_shift: float | None = None, **flow: Any
    ) -> None:
        super().__init__(**flow)
        if plan is None:
            raise InputError("PlanScheduler needs a plan; rheos.interop.diffusers.accelerate compiles one.")
        self.plan = plan if isinstance(plan, Plan) else Plan.from_json(json.dumps(plan))
        self.register_to_config(plan=json.loads(self.plan.to_json()), calibrated_shift=calibrated_shift)
        self._pipe: weakref.ref[Any] | None = None

    @staticmethod
    def like(scheduler: Any, plan: Plan, calibrated_shift: float | None = None) -> PlanScheduler:
        """The scheduler of a plan with the shifts of a pipeline's own.

        Raises:
            InputError: if that is the scheduler of no flow.
        """
        return PlanScheduler(plan, calibrated_shift, **flow_config(scheduler))

    def watch(self, pipe: Any) -> None:
        """Read the scale of guidance off this pipeline before each sample. It is not kept alive, nor saved."""
        self._pipe = weakref.ref(pipe)

    def shift_at(self, mu: float | None) -> float:
        """The factor by which sigma/(1 - sigma) is multiplied, for a pipeline's ``mu``."""
        if not self.config.use_dynamic_shifting or mu is None:
            return float(self.shift)
        return math.exp(mu) if self.config.time_shift_type == "exponential" else float(mu)

    def choose(self, sigmas: Tensor, asked: Mapping[str, Any]) -> tuple[FixedStep[Tensor], Tensor]:
        entry = self.plan.at(len(sigmas) - 1)
        reason = self._reason(sigmas, asked)
        if reason is not None:
            return _instead(reason), 1 - sigmas
        return PlanSolver(entry).solver, torch.tensor(entry.rule.times, dtype=torch.float64)

    def resumed(self, solver: FixedStep[Tensor], step: int) -> FixedStep[Tensor]:
        return _instead("sampling begins midway") if isinstance(solver, Fitted) else solver

    def _reason(self, sigmas: Tensor, asked: Mapping[str, Any]) -> str | None:
        """Why the plan does not serve, if it does not."""
        if float(sigmas[0]) < 1 - 1e-4:
            return f"sampling begins midway, at sigma {float(sigmas[0]):.3g}"
        if asked["timesteps"] is not None or not _even(asked["sigmas"]):
            return "sigmas of the user's own were given"
        shift, own = self.shift_at(asked["mu"]), self.config.calibrated_shift
        if own is not None and not 1 / NEAR <= shift / own <= NEAR:
            return f"it was compiled at shift {own:.3g}, and this resolution has {shift:.3g}"
        scale = getattr(self._pipe() if self._pipe else None, "_guidance_scale", None)
        low, high = self.plan.guidance
        if scale is not None and not low <= float(scale) <= high:
            return f"it was compiled for guidance from {low:g} to {high:g}, not {float(scale):g}"
        return None


@final
class FastFlowScheduler(FlowScheduler):
    """Euler on the sigmas that the pipeline asks for, with the network evaluated at some of them only: FastFlow's rule
    (arXiv 2602.11105) once its bandit is frozen.

    Args:
        points: which of the sigmas are evaluated, from 0 upward.
        steps: how many sigmas the points were chosen among; a pipeline has to ask for so many.
        flow: the configuration of diffusers' own scheduler.

    Raises:
        InputError: if the points do not go upward from 0 within the steps.
    """

    def __init__(self, points: Sequence[int] = (0,), steps: int = 1, **flow: Any) -> None:
        super().__init__(**flow)
        # Refused here rather than in the first sample.
        SkippedEuler(tuple(n / steps for n in range(steps + 1)), tuple(points))
        self.register_to_config(points=list(points), steps=steps)

    @staticmethod
    def like(scheduler: Any, bandit: Bandit) -> FastFlowScheduler:
        """The scheduler of what a bandit has learned, with the shifts of a pipeline's own.

        Raises:
            InputError: if that is the scheduler of no flow.
        """
        points = [step for step, due in enumerate(bandit.points()) if due]
        return FastFlowScheduler(points, bandit.steps, **flow_config(scheduler))

    def choose(self, sigmas: Tensor, asked: Mapping[str, Any]) -> tuple[FixedStep[Tensor], Tensor]:
        if len(sigmas) - 1 != self.config.steps:
            raise InputError(
                f"these points were chosen among {self.config.steps} steps, and {len(sigmas) - 1} are asked for; pass "
                f"num_inference_steps={self.config.steps}."
            )
        solver: SkippedEuler[Tensor] = SkippedEuler(tuple((1 - sigmas).tolist()), tuple(self.config.points))
        return solver, solver.grid

    def resumed(self, solver: FixedStep[Tensor], step: int) -> FixedStep[Tensor]:
        return solver.rest(step) if isinstance(solver, SkippedEuler) else solver


def _instead(reason: str) -> FixedStep[Tensor]:
    warnings.warn(f"the plan is not used, and Adams-Bashforth 3 is: {reason}.", stacklevel=2)
    return AdamsBashforth(3)


def _even(sigmas: Sequence[float] | None) -> bool:
    """Whether sigmas are those that pipelines pass when nobody chose any: 1, 1 - 1/N, ... 1/N."""
    if sigmas is None:
        return True
    given = np.asarray(sigmas, dtype=np.float64)
    return bool(np.allclose(given, np.linspace(1, 1 / len(given), len(given)), atol=1e-4))
