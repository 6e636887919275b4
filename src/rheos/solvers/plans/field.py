"""The velocity of many states at once, each at its own time, and where exact integration leads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ...core.condition import Cond, take
from ...core.loop import walk
from ...dynamics import Flow
from ..dopri5 import Dopri5
from ..rk4 import RK4

ROWS = 2048
"""States that are given to the network at once."""

KEPT = 64
"""Steps between which the exact trajectory is kept."""


@final
class Field:
    """Velocities in float64 of states (V, B, D) at times (V,), for B draws.

    Args:
        flows: one for each scale of guidance.
        x0: noise (B, ...), as the model takes it.
        cond: the condition of each draw.
        which: the place of the flow of each draw, int64 (B,).
    """

    def __init__(self, flows: Sequence[Flow], x0: Tensor, cond: Cond | None, which: Tensor) -> None:
        self.flows, self.shape, self.dtype, self.cond, self.which = flows, x0.shape[1:], x0.dtype, cond, which
        self.x0 = x0.double().flatten(1)
        self.evaluated = 0

    def __len__(self) -> int:
        return len(self.x0)

    def part(self, rows: Tensor) -> Field:
        """Some of the draws, which count their evaluations for themselves."""
        x0 = self.x0[rows].to(self.dtype).view(-1, *self.shape)
        return Field(self.flows, x0, None if self.cond is None else take(self.cond, rows), self.which[rows])

    @property
    def precise(self) -> bool:
        """Whether the model computes in float64."""
        return self.dtype == torch.float64

    @property
    def flow(self) -> Flow:
        """The draws together, to be integrated."""
        return Flow(lambda x, t: self(x, t.expand(len(x))))

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """(V, B, D) at (V,); or (B, D) at (B,)."""
        if x.dim() == 2:
            return self._rows(x, t, torch.arange(len(x), device=x.device))
        variants, draws, _ = x.shape
        place = torch.arange(draws, device=x.device).repeat(variants)
        return self._rows(x.flatten(0, 1), t.repeat_interleave(draws), place).view_as(x)

    def _rows(self, x: Tensor, t: Tensor, draws: Tensor) -> Tensor:
        out = torch.empty_like(x)
        for number, flow in enumerate(self.flows):
            own = (self.which[draws] == number).nonzero()[:, 0]
            for rows in own.split(ROWS):
                states = x[rows].to(self.dtype).view(-1, *self.shape)
                cond = () if self.cond is None else (take(self.cond, draws[rows]),)
                found = flow.velocity(states, t[rows].to(self.dtype), *cond)
                out[rows] = found.double().flatten(1)
        self.evaluated += len(x)
        return out


@final
@dataclass(frozen=True)
class Reference:
    """The exact trajectories.

    Args:
        states, rates: states and velocities (M+1, B, D) at even times.
        scale: the root mean square length of the ends, of all draws that belong together.
    """

    states: Tensor
    rates: Tensor
    scale: float

    @staticmethod
    def of(field: Field) -> Reference:
        """By Dopri5 to 1e-8 where the field computes in float64; in single precision, where a network is dear and
        rounds, by RK4 in as many steps as are kept."""
        grid = torch.linspace(0, 1, KEPT + 1, dtype=torch.float64, device=field.x0.device)
        solver = Dopri5(1e-8, 1e-8) if field.precise else RK4()
        states = torch.stack([step.x for step in walk(solver, field.flow, field.x0, grid)])
        rates = torch.stack([field(x, t.expand(len(x))) for x, t in zip(states, grid, strict=True)])
        return Reference(states, rates, float(states[-1].square().sum(1).mean().sqrt()))

    def part(self, rows: Tensor) -> Reference:
        """Some of the draws, in the scale of all."""
        return Reference(self.states[:, rows], self.rates[:, rows], self.scale)

    @property
    def end(self) -> Tensor:
        return self.states[-1]

    def at(self, t: Tensor) -> Tensor:
        """The states (V, B, D) at times (V,), by cubic Hermite interpolation."""
        place = (t * KEPT).clamp(0, KEPT - 1e-9)
        n = place.floor().long()
        u = (place - n)[:, None, None]
        h = 1 / KEPT
        before, after = self.states[n], self.states[n + 1]
        return (
            (1 + 2 * u) * (1 - u) ** 2 * before
            + u**2 * (3 - 2 * u) * after
            + h * u * (1 - u) * ((1 - u) * self.rates[n] - u * self.rates[n + 1])
        )


@final
@dataclass(frozen=True)
class Figures:
    """Errors of the ends over the root mean square length of the exact ones.

    Args:
        rmse: their root mean square over draws.
        p95: the 95th of a hundred.
        median: the middle one.
    """

    rmse: float
    p95: float
    median: float

    @staticmethod
    def of(end: Tensor, exact: Reference) -> Figures:
        return Figures.of_errors((end - exact.end).square().sum(1).sqrt() / exact.scale)

    @staticmethod
    def of_errors(errors: Tensor) -> Figures:
        """Of the errors of all draws (B,)."""
        if not bool(errors.isfinite().all()):
            return Figures(float("inf"), float("inf"), float("inf"))
        return Figures(float(errors.square().mean().sqrt()), float(errors.quantile(0.95)), float(errors.median()))

    @staticmethod
    def least(several: Iterable[Figures]) -> Figures:
        """The least of each."""
        known = list(several)
        return Figures(*(min(getattr(figures, part) for figures in known) for part in ("rmse", "p95", "median")))

    @property
    def together(self) -> float:
        """Their geometric mean."""
        return float(self.rmse * self.p95 * self.median) ** (1 / 3)

    def behind(self, other: Figures, times: float) -> bool:
        """Whether each is more than so many times the other's."""
        return self.rmse > times * other.rmse and self.p95 > times * other.p95 and self.median > times * other.median

    def within(self, other: Figures) -> bool:
        """Whether none is above the other's."""
        return self.rmse <= other.rmse and self.p95 <= other.p95 and self.median <= other.median
