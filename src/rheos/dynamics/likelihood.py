r"""The density of a flow: integration of the pair (x, log p).

Along a trajectory ``d log p(x_t)/dt = -div u(x_t, t)`` (Chen et al. 2018), so a datum's log-density is that of the
noise it flows from, less the divergence met on the way. The divergence is exact, one backward pass a dimension, or
Hutchinson's estimate ``mean of e . J e`` over fixed probes (Grathwohl et al. 2019), whose spread over the probes
gives a standard error. Gradients are those of the solver's own steps, or those of the adjoint equation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import torch
from torch import Tensor

from ..core.condition import Cond
from ..core.errors import InputError
from ..core.loop import Solution, integrate
from ..core.protocols import Model, Solver
from ..core.rng import Rng, Stream
from ..core.time import expand
from .adjoint import integrate_adjoint
from .flow import Flow

Trace = Literal["exact", "hutchinson"]
Probe = Literal["rademacher", "normal"]

STEPS = 100
"""Steps of a uniform grid when a solver of fixed steps is given no grid."""

CHUNK = 64
"""Directions of the Jacobian that one batched backward pass covers."""


@dataclass(frozen=True)
class Likelihood:
    """Log-densities and how they were found.

    Attributes:
        log_prob: nats (B,).
        standard_error: of Hutchinson's estimate (B,); NaN for one probe, which has no spread; 0 for the exact trace.
        x: the other end of each trajectory: noise for given data, data for given noise.
        evaluations: calls of the velocity.
    """

    log_prob: Tensor
    standard_error: Tensor
    x: Tensor
    evaluations: int


def likelihood(
    flow: Flow,
    x1: Tensor,
    *,
    solver: Solver,
    trace: Trace = "exact",
    cond: Cond | None = None,
    rng: Rng | torch.Generator | int | None = None,
    probes: int = 8,
    probe: Probe = "rademacher",
    grid: Tensor | None = None,
    scale: float | Tensor = 1.0,
    adjoint: Iterable[Tensor] | None = None,
) -> Likelihood:
    """The log-density of data under a flow, with its error. Differentiable when grad mode is on.

    Args:
        flow: the flow, from normal noise at t = 0 to data at t = 1.
        x1: data (B, ...), of any shape.
        solver: what integrates; Dopri5 for certainty, a solver of fixed steps for a fixed cost.
        trace: "exact", or "hutchinson" for states of many dimensions.
        cond: the condition.
        rng: draws the probes of "hutchinson"; each row has its own.
        probes: probes a row.
        probe: the law of a probe's entries: signs, which have the least variance of all with independent entries, or
            normal numbers, which favour no axis.
        grid: times from 1 down to 0; for adaptive solvers the two ends, otherwise 100 uniform steps, when left out.
        scale: standard deviation of the noise, ``sigma(0)`` of the path.
        adjoint: the parameters of the velocity, for gradients by :func:`~rheos.dynamics.adjoint.integrate_adjoint`, in
            memory that does not grow with the steps; back-propagation through the solver when left out.
    """
    start = (x1, x1.new_zeros(_columns(x1, trace, probes)))
    pair = _pair(flow, start, trace, probe, rng)
    solution = _integrate(solver, pair, start, _grid(solver, grid, x1, (1.0, 0.0)), cond, adjoint)
    x0, change = solution.x
    columns = normal_log_prob(x0, scale)[:, None] + change
    return _summary(columns, x0, solution.evaluations, trace)


def log_likelihood(flow: Flow, x1: Tensor, *, solver: Solver, trace: Trace = "exact", **options: Any) -> Tensor:
    """The log-density of data in nats (B,); :func:`likelihood` tells more and lists the options."""
    return likelihood(flow, x1, solver=solver, trace=trace, **options).log_prob


def sample_with_log_prob(
    flow: Flow,
    x0: Tensor,
    *,
    solver: Solver,
    trace: Trace = "exact",
    cond: Cond | None = None,
    rng: Rng | torch.Generator | int | None = None,
    probes: int = 8,
    probe: Probe = "rademacher",
    grid: Tensor | None = None,
    scale: float | Tensor = 1.0,
    adjoint: Iterable[Tensor] | None = None,
) -> Likelihood:
    """Carry noise ``x0`` (of standard deviation ``scale``) to data, with the log-density of each sample.

    The arguments are those of :func:`likelihood`; the grid runs from 0 up to 1.
    """
    start = (x0, x0.new_zeros(_columns(x0, trace, probes)))
    pair = _pair(flow, start, trace, probe, rng)
    solution = _integrate(solver, pair, start, _grid(solver, grid, x0, (0.0, 1.0)), cond, adjoint)
    x1, change = solution.x
    columns = normal_log_prob(x0, scale)[:, None] - change
    return _summary(columns, x1, solution.evaluations, trace)


@final
@dataclass(frozen=True)
class WithDivergence:
    """The flow of the pair (x, c), where column k of ``c`` (B, K) gathers the divergence as probe k sees it.

    Args:
        flow: the flow of x.
        probes: directions (K, B, ...), or ``None`` for the exact divergence (K = 1).
    """

    flow: Flow
    probes: Tensor | None

    def over(self, wrap: Callable[[Model], Model]) -> WithDivergence:
        return replace(self, flow=self.flow.over(wrap))

    def rate(self, x: tuple[Tensor, Tensor], t: Tensor, s: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The velocity and its divergence (B, K): one evaluation, and backward passes."""
        state = x[0]
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            state = state if differentiable and state.requires_grad else state.detach().requires_grad_()
            velocity = self.flow.rate(state, t, s)
            if self.probes is None:
                divergence = _trace(velocity, state, differentiable)[:, None]
            else:
                pulled = _pull(velocity, state, self.probes, differentiable)
                divergence = (pulled * self.probes).reshape(*pulled.shape[:2], -1).sum(2).T
        return (velocity, divergence) if differentiable else (velocity.detach(), divergence.detach())

    def move(
        self, x: tuple[Tensor, Tensor], rate: tuple[Tensor, Tensor], t: Tensor, s: Tensor, rng: Rng | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.flow.move(x[0], rate[0], t, s), x[1] + expand(s - t, x[1]).to(x[1].dtype) * rate[1]

    def determined(self, t: Tensor) -> Tensor | None:
        return self.flow.determined(t)


def _trace(velocity: Tensor, state: Tensor, differentiable: bool) -> Tensor:
    """The exact divergence (B,)."""
    total = torch.zeros(len(state), dtype=velocity.dtype, device=velocity.device)
    for directions, pulled in jacobian_rows(velocity, state, differentiable):
        total = total + (pulled * directions).reshape(*pulled.shape[:2], -1).sum((0, 2))
    return total


def jacobian_rows(end: Tensor, start: Tensor, differentiable: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    """Axes (K, B, ...), :data:`CHUNK` at a time, and the rows of ``d end/d start`` that belong to them, alike; a row of
    a batch depends on no other."""
    count = start[0].numel()
    for first in range(0, count, CHUNK):
        axes = torch.arange(first, min(first + CHUNK, count), device=start.device)
        basis = torch.nn.functional.one_hot(axes, count).to(end.dtype)
        directions = basis.reshape(len(axes), 1, *start.shape[1:]).expand(len(axes), *start.shape)
        yield directions, _pull(end, start, directions, differentiable)


def _pull(velocity: Tensor, state: Tensor, directions: Tensor, differentiable: bool) -> Tensor:
    """Each direction (K, B, ...) times the Jacobian of the velocity, by one batched backward pass."""
    if not velocity.requires_grad:
        return torch.zeros_like(directions)
    # For a single direction the batching would only cost.
    batched = len(directions) > 1
    (pulled,) = torch.autograd.grad(
        velocity,
        state,
        directions if batched else directions[0],
        retain_graph=True,
        create_graph=differentiable,
        is_grads_batched=batched,
        allow_unused=True,
    )
    return torch.zeros_like(directions) if pulled is None else pulled.reshape(directions.shape)


def _pair(
    flow: Flow, start: tuple[Tensor, Tensor], trace: Trace, probe: Probe, rng: Rng | torch.Generator | int | None
) -> WithDivergence:
    """The dynamics of the pair, its probes drawn: they are the same along the whole trajectory."""
    if probe not in ("rademacher", "normal"):
        raise InputError(f'a probe is "rademacher" or "normal", got {probe!r}.')
    if trace == "exact":
        return WithDivergence(flow, None)
    x, columns = start
    if rng is None:
        raise InputError("Hutchinson's trace draws probes: give an rng (an Rng, a torch.Generator or a seed).")
    rows, shape = Rng.of(rng).per_row(len(x), x.device).fold(Stream.PROBE), (columns.shape[1], *x.shape[1:])
    if probe == "normal":
        return WithDivergence(flow, rows.normal(*shape, dtype=x.dtype).transpose(0, 1))
    return WithDivergence(flow, ((rows.bits(*shape) >> 63) * 2 + 1).transpose(0, 1).to(x.dtype))


def _integrate(
    solver: Solver,
    pair: WithDivergence,
    start: tuple[Tensor, Tensor],
    grid: Tensor,
    cond: Cond | None,
    adjoint: Iterable[Tensor] | None,
) -> Solution[tuple[Tensor, Tensor]]:
    if adjoint is None:
        return integrate(solver, pair, start, grid, cond)
    return integrate_adjoint(solver, pair, start, grid, cond, parameters=adjoint)


def _columns(x: Tensor, trace: Trace, probes: int) -> tuple[int, int]:
    if trace not in ("exact", "hutchinson"):
        raise InputError(f'the trace is "exact" or "hutchinson", got {trace!r}.')
    if probes < 1:
        raise InputError(f"at least one probe is needed, got {probes}.")
    return len(x), 1 if trace == "exact" else probes


def _grid(solver: Solver, grid: Tensor | None, x: Tensor, ends: tuple[float, float]) -> Tensor:
    if grid is not None:
        return grid
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return torch.linspace(*ends, 2 if solver.adaptive else STEPS + 1, dtype=dtype, device=x.device)


def _summary(columns: Tensor, x: Tensor, evaluations: int, trace: Trace) -> Likelihood:
    count = columns.shape[1]
    mean = columns.mean(1)
    if trace == "exact":
        error = torch.zeros_like(mean)
    else:
        error = columns.std(1) / math.sqrt(count) if count > 1 else torch.full_like(mean, torch.nan)
    return Likelihood(mean, error, x, evaluations)


def normal_log_prob(x: Tensor, scale: float | Tensor) -> Tensor:
    """Log-density (B,) of independent normal entries of standard deviation ``scale``."""
    scale = torch.as_tensor(scale, dtype=x.dtype, device=x.device)
    z = (x / scale).reshape(len(x), -1)
    return -0.5 * (z * z).sum(1) - z.shape[1] * (0.5 * math.log(2 * math.pi) + scale.log())
