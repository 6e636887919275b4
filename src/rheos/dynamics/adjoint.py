r"""Gradients of an integration by the adjoint equation, in memory that does not grow with the number of steps.

For ``x' = f(x, t)``, from t = a to t = b, and a loss L of the end x(b), the adjoint ``p(t) = dL/dx(t)`` obeys

    p' = -p . df/dx,        dL/dtheta = integral from a to b of  p . df/dtheta dt

(Pontryagin et al. 1962; Chen et al. 2018). So the pair (x, p) is integrated from b back to a, where the state is found
again on the way and the parameters' gradient is gathered beside it; nothing of the way there is kept.

*One clock for the way back.* The parameters' gradient is a sum over the batch. On a clock a sample it would have to be
gathered a sample, B times the size of the network; so the batch goes back as a single sample, with one clock and one
error norm for all its rows. The way there keeps a clock a sample.

*The gradient does not steer the steps.* It feeds back into nothing, so its error need not be controlled at every step
(Kidger, Chen and Lyons 2021); it is carried in units so large that no tolerance notices it. The adjoint is carried in
units of its own largest entry, since the equation is linear in it: a tolerance then means the same whatever the loss is
multiplied by.

The result is the gradient of the exact solution, up to the solver's error, and not that of the computed one, which
back-propagation gives. The two agree as the steps shrink. Where a flow contracts strongly the state cannot be found
again: then back-propagate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..core.condition import Cond
from ..core.errors import InputError
from ..core.loop import Conditioned, Solution, integrate
from ..core.protocols import Dynamics, Model, S, Solver
from ..core.rng import Rng
from ..core.time import expand
from ..core.tree import Tree, leaves, transform
from .diffusion import Diffusion

UNIT = 2.0**40
"""The parameters' gradient is carried in these units. A power of two, so that no digit is lost."""


def integrate_adjoint(
    solver: Solver[S],
    dynamics: Dynamics[S],
    x: S,
    grid: Tensor,
    cond: Cond | None = None,
    *,
    parameters: Iterable[Tensor],
    back: Solver[Any] | None = None,
) -> Solution[S]:
    """:func:`rheos.core.integrate`, with gradients by the adjoint equation where grad mode is on.

    Args:
        solver: the rule for one step, the same on both ways.
        dynamics: deterministic, with ``move(x, rate, t, s) = x + (s - t)*rate``. Its state is a tensor (B, ...) or a
            tree of such.
        x: the state at ``grid[0]``; its gradient is found.
        grid: times ``(N+1,)``, walked back in the other order; they get no gradient.
        cond: the condition, fixed for the whole walk.
        parameters: every tensor besides the state that the rate depends on and that needs a gradient: the parameters of
            the networks inside. One that is not named gets none.
        back: the solver of the way back, where it is to be another one.

    Raises:
        InputError: for a diffusion, or for a state that is not made of tensors.
    """
    if isinstance(dynamics, Diffusion):
        raise InputError(
            "the adjoint equation is that of an ordinary differential equation, and a diffusion is none; "
            "back-propagate through integrate(), or take the flow inside it."
        )
    if cond is not None:
        dynamics = dynamics.over(lambda model: Conditioned(model, cond))
    with torch.no_grad():
        solution = integrate(solver, dynamics, transform(_detached, x), grid)
    starts, ends = leaves(x), tuple(leaves(solution.x))
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    if not torch.is_grad_enabled() or not (wanted or any(leaf.requires_grad for leaf in starts)):
        return solution
    course = _Course(back or solver, dynamics, grid, _shape(solution.x))
    found = _Adjoint.apply(course, ends, *starts, *wanted)
    return replace(solution, x=_planted(course.shape, found))


@dataclass(frozen=True)
class _Course:
    """What the way back needs besides tensors. ``shape`` is a state with None for each leaf."""

    solver: Solver[Any]
    dynamics: Dynamics[Any]
    grid: Tensor
    shape: Tree


class _Adjoint(torch.autograd.Function):
    """From the leaves of the state at the start, and the parameters, to the leaves at the end."""

    @staticmethod
    def forward(ctx: Any, course: _Course, ends: tuple[Tensor, ...], *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.course, ctx.count = course, len(ends)
        ctx.save_for_backward(*ends, *inputs[len(ends) :])
        return ends

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *adjoints: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        course: _Course = ctx.course
        saved = ctx.saved_tensors
        ends, parameters = saved[: ctx.count], saved[ctx.count :]
        wide = torch.promote_types(torch.float32, ends[0].dtype)
        unit = torch.stack([adjoint.abs().max().to(wide) for adjoint in adjoints]).max()
        if not 0 < float(unit) < math.inf:
            # Nothing to carry back, or nothing that a solver could: the gradients are 0, or not finite either.
            return None, None, *(torch.full_like(value, float(unit) * 0.0) for value in saved)
        # A leaf of no entries has no norm, so without parameters there is one entry of nothing.
        sizes = [p.numel() for p in parameters]
        state = (
            _planted(course.shape, [end[None] for end in ends]),
            _planted(course.shape, [adjoint[None] / unit for adjoint in adjoints]),
            torch.zeros(1, max(1, sum(sizes)), dtype=wide, device=ends[0].device),
        )
        backward = _Backward(course.dynamics, course.shape, parameters)
        _, adjoint, gradient = integrate(course.solver, backward, state, course.grid.flip(0)).x
        pieces = (gradient[0, : sum(sizes)] * (UNIT * unit)).split(sizes)
        shaped = (piece.view_as(p).to(p.dtype) for piece, p in zip(pieces, parameters, strict=True))
        return None, None, *(leaf[0] * unit for leaf in leaves(adjoint)), *shaped


@final
@dataclass(frozen=True)
class _Backward:
    """The dynamics of (state, adjoint, the parameters' gradient / UNIT); the batch is one sample, so each leaf has an
    axis of length 1 in front."""

    dynamics: Dynamics[Any]
    shape: Tree
    parameters: tuple[Tensor, ...]

    def over(self, wrap: Callable[[Model], Model]) -> _Backward:
        return replace(self, dynamics=self.dynamics.over(wrap))

    def rate(self, x: tuple[Tree, Tree, Tensor], t: Tensor, s: Tensor | None = None) -> tuple[Tree, Tree, Tensor]:
        """The rate of the state, and the products of the adjoint with its derivatives: one evaluation."""
        state, adjoint, gradient = x
        inside = [leaf[0].detach().requires_grad_() for leaf in leaves(state)]
        with torch.enable_grad():
            rate = self.dynamics.rate(_planted(self.shape, inside), t.reshape(()), None if s is None else s.reshape(()))
        rates, pushes = leaves(rate), [leaf[0].neg() for leaf in leaves(adjoint)]
        reached = [n for n, leaf in enumerate(rates) if leaf.requires_grad]
        inputs = (*inside, *self.parameters)
        found: tuple[Tensor | None, ...] = (None,) * len(inputs)
        if reached:
            outputs, weights = [rates[n] for n in reached], [pushes[n] for n in reached]
            found = torch.autograd.grad(outputs, inputs, weights, allow_unused=True)
        known = [torch.zeros_like(i) if g is None else g for g, i in zip(found, inputs, strict=True)]
        pulled, parts = known[: len(inside)], known[len(inside) :]
        flat = [part.reshape(1, -1).to(gradient.dtype) / UNIT for part in parts]
        return (
            _planted(self.shape, [leaf.detach()[None] for leaf in rates]),
            _planted(self.shape, [leaf[None] for leaf in pulled]),
            torch.cat(flat, 1) if flat else torch.zeros_like(gradient),
        )

    def move(self, x: Tree, rate: Tree, t: Tensor, s: Tensor, rng: Rng | None = None) -> Tree:
        gap = s - t
        return transform(lambda leaf, speed: leaf + speed * expand(gap, leaf).to(leaf.dtype), x, rate)

    def determined(self, t: Tensor) -> Tensor | None:
        return self.dynamics.determined(t)


def _detached(leaf: Any) -> Tensor:
    if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
        kind = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
        raise InputError(f"the adjoint equation is of states made of floating tensors, got {kind}.")
    return leaf.detach()


def _shape(tree: Tree) -> Tree:
    return transform(lambda leaf: None, tree)


def _planted(shape: Tree, values: Iterable[Tensor]) -> Tree:
    """The tree of this shape with these leaves, from left to right."""
    following = iter(values)
    return transform(lambda _: next(following), shape)
