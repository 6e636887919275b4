"""Stochastic sampling by raising the noise before each step (Karras et al. 2022, algorithm 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from ..core.errors import InputError, UndeterminedError
from ..core.protocols import Dynamics, Memory, Step
from ..core.rng import Rng
from ..core.time import expand
from ..dynamics import Flow
from ..paths import Affine
from .base import FixedStep
from .heun import Heun
from .runge_kutta import RungeKutta

MOST = math.sqrt(2) - 1
"""The noise level is raised by no more than this share in a step, so that no more noise is added than is there."""


@final
@dataclass(frozen=True)
class Churn(FixedStep[Tensor]):
    """A one-step solver that goes back a little towards noise, with fresh noise, before each of its steps.

    From a level ``k = sigma/alpha`` between ``low`` and ``high`` the state is raised to ``k*(1 + gamma)``, with ``gamma
    = min(churn/N, sqrt(2) - 1)`` for a grid of N steps, and the solver carries it from there to the end of the step. So
    errors of earlier steps are forgotten. ``churn = 0`` is the solver itself.

    Args:
        path: the affine path that the flow was learned on.
        solver: of the steps; the paper's is Heun.
        churn: the paper's S_churn.
        low: the least level that is raised, S_tmin.
        high: the greatest, S_tmax.
        noise: the standard deviation of the fresh noise, S_noise; slightly above 1 makes up for detail that is lost.

    Raises:
        InputError: if a number is out of range.
    """

    path: Affine
    solver: RungeKutta[Tensor] = field(default_factory=Heun)
    churn: float = 40.0
    low: float = 0.05
    high: float = 50.0
    noise: float = 1.003

    def __post_init__(self) -> None:
        if not (0 <= self.churn < math.inf and 0 <= self.low <= self.high and 0 < self.noise < math.inf):
            raise InputError(
                f"0 <= churn, 0 <= low <= high and noise > 0 are needed, got {self.churn}, {self.low}, {self.high} and "
                f"{self.noise}."
            )

    @property
    def order(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the solver, where nothing is raised."""
        return self.solver.order

    def evaluations(self, steps: int) -> int:
        return self.solver.evaluations(steps)

    def steps(self, evaluations: int) -> int:
        return self.solver.steps(evaluations)

    def start(self, dynamics: Dynamics[Tensor], x: Tensor, grid: Tensor) -> Memory:
        """The share by which levels are raised.

        Raises:
            InputError: if the dynamics is no flow, or the grid leads to noise.
            UndeterminedError: if the noise was coupled to the data.
        """
        if not isinstance(dynamics, Flow):
            raise InputError(
                f"Churn raises the noise of a Flow on an affine path, got a {type(dynamics).__name__}, which draws its "
                "own; use its solver alone."
            )
        if not dynamics.independent:
            raise UndeterminedError(
                "fresh noise keeps the marginals only where it was Gaussian and independent of the data; this flow was "
                "trained on coupled pairs. Use the solver without Churn."
            )
        if bool(grid[0] > grid[-1]):
            raise InputError("Churn carries noise to data, and this grid runs the other way; use its solver alone.")
        return torch.tensor(min(self.churn / (len(grid) - 1), MOST), dtype=grid.dtype, device=grid.device)

    def step(
        self,
        dynamics: Dynamics[Tensor],
        x: Tensor,
        t: Tensor,
        s: Tensor,
        memory: Memory = (),
        rng: Rng | None = None,
    ) -> Step[Tensor]:
        if not isinstance(memory, Tensor):
            raise InputError("Churn takes its share from a memory; begin with start(dynamics, x, grid).")
        if rng is None:
            raise InputError("Churn draws noise: give integrate an rng (an Rng, a torch.Generator or a seed).")
        alpha, sigma = self.path.schedule(t)
        level = sigma / alpha
        raised = torch.where((level >= self.low) & (level <= self.high), level * (1 + memory), level)
        before = torch.where(raised > level, self.path.schedule.time_of(torch.ones_like(raised), raised), t)
        new_alpha, new_sigma = self.path.schedule(before)
        scale = torch.where(raised > level, new_alpha / alpha, 1.0)
        fresh = (new_sigma.square() - (scale * sigma).square()).clamp(min=0.0).sqrt()
        noise = rng.per_row(x.shape[0], x.device).normal(*x.shape[1:], dtype=x.dtype)
        x = expand(scale, x).to(x.dtype) * x + expand(self.noise * fresh, x).to(x.dtype) * noise
        return Step(self.solver.step(dynamics, x, before, s, (), rng).x, s, memory)
