r"""What the multistep solvers share: coefficients known from the grid alone, and a memory of earlier rates.

A rule that integrates the interpolant of values at some nodes against a weight w has the coefficients ``sum_m c_jm *
moment_m``, where ``sum_m c_jm u**m`` is the Lagrange polynomial that is 1 at node j, and ``moment_m`` the integral of
``u**m * w(u)``. The grid fixes all of them before the first step, so they are computed once, in float64, and every step
looks up its row: no step waits for the host, and all steps are one graph.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.protocols import Dynamics, S, Step
from ..core.rng import Rng
from ..core.tree import Tree, combine, leaves, transform
from .base import FixedStep, require_rates


class Past(NamedTuple):
    """What a multistep solver remembers. It belongs to its grid: a walk goes on from it along the rest of that grid.

    Attributes:
        table: the coefficients, one row a step (N, k).
        place: the number of the next step, int64 of shape ().
        values: earlier rates or predictions, the latest first; zeros, of no weight, where there were none yet.
        corrected: the last corrected state, for solvers that correct.
    """

    table: Tensor
    place: Tensor
    values: tuple[Tree, ...]
    corrected: Tree = ()


@dataclass(frozen=True)
class Multistep(FixedStep[S]):
    """A solver of one evaluation a step that combines it with earlier ones. To add one, write ``table`` and ``step``.

    ``order``, a field of each of them, is the number of values that are combined.
    """

    def check_order(self, highest: int) -> None:
        """Refuse an order that is not one of 1, 2, ... ``highest``."""
        if isinstance(self.order, bool) or self.order not in range(1, highest + 1):
            raise InputError(f"{type(self).__name__} has the orders 1 to {highest}, got {self.order!r}.")

    @property
    def kept(self) -> int:
        """How many earlier values are remembered."""
        return self.order - 1

    @abstractmethod
    def table(self, dynamics: Dynamics[S], grid: Tensor) -> list[list[float]]:
        """The coefficients of every step, N rows of one length, for a float64 grid on the CPU."""

    def start(self, dynamics: Dynamics[S], x: S, grid: Tensor) -> Past:
        require_rates(self, dynamics, x)
        first = leaves(x)[0]
        wide = torch.float64 if first.dtype == torch.float64 else torch.float32
        rows = self.table(dynamics, grid.detach().to("cpu", torch.float64))
        table = torch.tensor(rows, dtype=wide, device=first.device)
        # One tensor each: a compiled step is compiled anew when two of its inputs are one.
        nothing = tuple(transform(torch.zeros_like, x) for _ in range(self.kept))
        return Past(table, torch.zeros((), dtype=torch.int64, device=first.device), nothing)

    def row(self, memory: Past | tuple[()]) -> tuple[Past, tuple[Tensor, ...]]:
        """The memory, and the coefficients of its next step, each of shape ()."""
        if not isinstance(memory, Past):
            raise InputError(
                f"{type(self).__name__} takes its steps from a memory; begin with start(dynamics, x, grid)."
            )
        return memory, memory.table.index_select(0, memory.place).view(-1).unbind()


@dataclass(frozen=True)
class RateMultistep(Multistep[S]):
    """One that moves along a weighted sum of the latest rates, its own first. To add one, write ``table``."""

    def step(
        self, dynamics: Dynamics[S], x: S, t: Tensor, s: Tensor, memory: Past | tuple[()] = (), rng: Rng | None = None
    ) -> Step[S]:
        memory, row = self.row(memory)
        rates = (dynamics.rate(x, t, s), *memory.values)
        x = dynamics.move(x, combine(row, rates), t, s, rng)
        return Step(x, s, Past(memory.table, memory.place + 1, rates[: self.kept]))


def interpolant(nodes: Sequence[float], moments: Sequence[float]) -> list[float]:
    """The coefficients of the rule that integrates the Lagrange interpolant at ``nodes``.

    Args:
        nodes: distinct numbers u_j.
        moments: the integrals of ``u**m`` against the weight, for m = 0 .. len(nodes) - 1.
    """
    out = []
    for j, node in enumerate(nodes):
        polynomial = [1.0]
        for other in (*nodes[:j], *nodes[j + 1 :]):
            # Times (u - other) / (node - other), lowest power first.
            scale = 1 / (node - other)
            shifted, scaled = [0.0, *polynomial], [*polynomial, 0.0]
            polynomial = [scale * (a - other * b) for a, b in zip(shifted, scaled, strict=True)]
        out.append(sum(c * m for c, m in zip(polynomial, moments, strict=True)))
    return out


def known_points(dynamics: Dynamics[S], grid: Tensor) -> list[bool]:
    """At which points of the grid the rate is determined; the others get no weight in later steps."""
    known = dynamics.determined(grid)
    return [True] * len(grid) if known is None else known.tolist()
