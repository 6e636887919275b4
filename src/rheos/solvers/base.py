"""What all fixed-step solvers share: their cost, and what they do where a rate is not determined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.protocols import Dynamics, S, Solver
from ..core.ragged import Ragged
from ..core.time import expand
from ..core.tree import Tree, transform
from ..dynamics import Flow, FlowMap, Restarted

TOLERANCE = 1e-5
"""How far a grid may lie from that which something was made for; float32 rounds to less."""


@dataclass(frozen=True)
class FixedStep(Solver[S]):
    """A solver whose steps are the gaps of its grid, and which does not wait for the host unless it says so.

    Attributes:
        stages: evaluations of the rate in each step.
    """

    stages: ClassVar[int] = 1

    def evaluations(self, steps: int) -> int:
        """Evaluations of the rate on a grid of ``steps`` steps."""
        return self.stages * steps

    def steps(self, evaluations: int) -> int:
        """The most steps that a budget of ``evaluations`` pays for.

        Raises:
            InputError: if it does not pay for one.
        """
        if evaluations < self.stages:
            raise InputError(
                f"one step of {type(self).__name__} takes {self.stages} evaluations, and {evaluations} are allowed; "
                f"allow at least {self.stages}, or take a solver of one evaluation a step."
            )
        return evaluations // self.stages


def hold(known: Tensor | None, rate: Tree, other: Tree) -> Tree:
    """The rate where it is ``known``, and elsewhere the ``other`` one, which is held instead.

    Args:
        known: what ``dynamics.determined`` says: bools of a shape that is a prefix of each leaf's, or ``None`` for
            everywhere.
        rate: the rate at the time in question.
        other: the rate of the nearest time at which it is determined.
    """
    return rate if known is None else pick(known, rate, other)


def pick(rows: Tensor, one: Tree, other: Tree) -> Tree:
    """``one`` where ``rows`` is true and ``other`` elsewhere, leaf by leaf."""
    return transform(lambda a, b: torch.where(expand(rows, a), a, b), one, other)


def require_rates(solver: Solver[Any], dynamics: Dynamics[Any], x: Tree) -> None:
    """Refuse what has no rates that could be combined: a flow map, whose rate is the average of one step, and a state
    that grows, whose rates are of different lengths."""
    if isinstance(dynamics, FlowMap | Restarted):
        raise InputError(
            f"{type(solver).__name__} combines rates of several times, and that of a flow map is the average of one "
            "step; use Euler(), one evaluation a step, or integrate the velocity of the map, its `flow`."
        )
    if isinstance(x, tuple):
        for part in x:
            require_rates(solver, dynamics, part)
    elif isinstance(x, Ragged):
        raise InputError(
            f"{type(solver).__name__} combines rates of several times, and the elements of a growing state differ from "
            "time to time; use Euler(), which has one stage."
        )


def require_flow(solver: object, dynamics: object, does: str) -> None:
    """Refuse a dynamics that is no flow on R^d.

    Args:
        solver: that refuses.
        dynamics: what it was given.
        does: what it does with a Flow, as the end of a sentence.
    """
    if not isinstance(dynamics, Flow):
        raise InputError(
            f"{type(solver).__name__} {does}, got a {type(dynamics).__name__}; use AdamsBashforth(), Heun() or Euler() "
            "for it."
        )


def require_grid(whose: str, times: Sequence[float], grid: Tensor) -> None:
    """Refuse a grid other than that which something was made for.

    Args:
        whose: what was made for it.
        times: (N+1,).
        grid: what it was given, float64.
    """
    own = torch.tensor(times, dtype=torch.float64)
    if grid.shape != own.shape or float((grid - own).abs().max()) > TOLERANCE:
        raise InputError(
            f"{whose} has its own grid of {len(own) - 1} steps, got another, of {len(grid) - 1}: integrate along "
            "`solver.grid`."
        )
