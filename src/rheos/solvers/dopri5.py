r"""The adaptive fifth-order rule of Dormand and Prince, with a clock a sample.

Every sample has its own time, step and error estimate, so its result is what it would be alone. The norm of the error
is the root mean square over a leaf's elements of ``error / (atol + rtol*max(|x|, |x'|))``, and of several leaves the
largest: a log-density is not drowned by the image beside it. A step is accepted where the norm is at most 1, and the
next one is

    h * safety * norm**-(1/5 - 3/4*beta) * previous_norm**beta        (Hairer, Norsett and Wanner 1993, II.4 and IV.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.protocols import Dynamics, S, Step
from ..core.rng import Rng
from ..core.tree import Tree, batch, combine, leaves
from ..dynamics import Diffusion
from .base import Solver, pick, require_rates
from .runge_kutta import Tableau, evaluate

_TABLEAU = Tableau(
    nodes=(1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    matrix=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    weights=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
    error=(71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
)


class Control(NamedTuple):
    """What Dopri5 remembers: of each sample the last rate, the size of its next step, and the last accepted norm."""

    rate: Tree
    size: Tensor
    norm: Tensor


@final
@dataclass(frozen=True)
class Dopri5(Solver[S]):
    """Dormand and Prince (1980), order 5 with an embedded rule of order 4; six evaluations an attempt, two at the
    start.

    Deterministic dynamics only. ``step`` makes one attempt for every sample and returns the times ``(B,)`` reached; a
    sample whose attempt was rejected, or that stands at ``s`` already, is unchanged. ``Step.error`` is the last
    accepted norm, in units of the tolerance. Gradients flow through the states, not through the choice of steps.

    Args:
        rtol: relative tolerance of the error of one step.
        atol: absolute tolerance, in the units of the state.
        safety: factor below 1 on every new step.
        shrink: smallest ratio of one step to the last.
        grow: largest.
        beta: weight of the previous norm; 0 is the plain integral controller, 0.04 a gentle proportional-integral one.
    """

    rtol: float = 1e-5
    atol: float = 1e-6
    safety: float = 0.9
    shrink: float = 0.2
    grow: float = 10.0
    beta: float = 0.04

    order = 5
    adaptive = True

    def __post_init__(self) -> None:
        if not (self.rtol >= 0 and self.atol >= 0 and self.rtol + self.atol > 0):
            raise InputError(f"tolerances must be positive, got rtol = {self.rtol} and atol = {self.atol}.")
        if not (0 < self.safety < 1 and 0 < self.shrink < 1 < self.grow and 0 <= self.beta < 0.2):
            raise InputError(
                "a controller needs 0 < safety < 1, 0 < shrink < 1 < grow and 0 <= beta < 0.2, got "
                f"{self.safety}, {self.shrink}, {self.grow} and {self.beta}."
            )

    def start(self, dynamics: Dynamics[S], x: S, grid: Tensor) -> Control:
        """The first rate, and a first step from the sizes of state, rate and change of rate (Hairer II.4)."""
        require_rates(self, dynamics, x)
        if isinstance(dynamics, Diffusion):
            raise InputError("Dopri5 measures smooth errors and a diffusion is not smooth; use Euler() or Heun().")
        t, way = grid[0].expand(batch(x)), grid[-1] - grid[0]
        rate = dynamics.rate(x, t, grid[-1])
        with torch.no_grad():
            position, speed = (self._norm(value, x, x).to(grid.dtype) for value in (x, rate))
            trial = torch.where((position < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * position / speed).minimum(way.abs())
            ahead = t + torch.copysign(trial, way)
            change = combine((1.0, -1.0), (dynamics.rate(dynamics.move(x, rate, t, ahead), ahead, grid[-1]), rate))
            steepest = torch.maximum(speed, self._norm(change, x, x).to(grid.dtype) / trial)
            size = torch.where(steepest <= 1e-15, (1e-3 * trial).clamp(min=1e-6), (0.01 / steepest) ** (1 / 5)).minimum(
                100 * trial
            )
            size = torch.where(torch.isfinite(size), size, trial)
        return Control(rate, size, torch.ones_like(size))

    def step(
        self,
        dynamics: Dynamics[S],
        x: S,
        t: Tensor,
        s: Tensor,
        memory: Control | tuple[()] = (),
        rng: Rng | None = None,
    ) -> Step[S]:
        memory = memory if isinstance(memory, Control) else self.start(dynamics, x, torch.stack([t, s]))
        t = t.expand(batch(x))
        gap = s - t
        whole = gap.abs() <= memory.size
        end = torch.where(whole, s, t + torch.copysign(memory.size, gap))
        rates, ahead = evaluate(_TABLEAU, dynamics, x, t, end, memory.rate)
        with torch.no_grad():
            width = (end - t).abs()
            norm = width * self._norm(combine(_TABLEAU.error, rates), x, ahead).to(t.dtype)
            accepted = (norm <= 1) & (gap != 0)
            # A step below the rounding of the time has no width to grow from.
            wanted = torch.where(width > 0, width, memory.size) * self._ratio(norm, memory.norm)
            # A step cut short by a grid point says little about the next one: it may only lengthen it.
            size = torch.where(accepted & whole, torch.maximum(wanted, memory.size), wanted)
            size = torch.where(gap == 0, memory.size, size)
        control = Control(pick(accepted, rates[-1], memory.rate), size, torch.where(accepted, norm, memory.norm))
        return Step(pick(accepted, ahead, x), torch.where(accepted, end, t), control, control.norm)

    def _ratio(self, norm: Tensor, previous: Tensor) -> Tensor:
        """The next step over this one, from this step's norm and the last accepted one's."""
        after = norm.clamp(min=1e-10) ** (0.75 * self.beta - 0.2) * previous.clamp(min=1e-4) ** self.beta
        again = norm.clamp(min=1.0) ** -0.2
        ratio = self.safety * torch.where(norm <= 1, after, again)
        return torch.nan_to_num(ratio, nan=self.shrink).clamp(self.shrink, self.grow)

    def _norm(self, value: Tree, one: S, other: S) -> Tensor:
        """The norm ``(B,)`` of ``value``, like a state, in units of the tolerance at ``one`` or ``other``."""
        worst = None
        for part, a, b in zip(leaves(value), leaves(one), leaves(other), strict=True):
            wide = torch.promote_types(part.dtype, torch.float32)
            scaled = part.to(wide) / (self.atol + self.rtol * torch.maximum(a.abs(), b.abs()).to(wide))
            norm = scaled.reshape(len(scaled), -1).square().mean(1).sqrt()
            worst = norm if worst is None else torch.maximum(worst, norm)
        assert worst is not None, "a state has at least one leaf"
        return worst
