"""A second-order rule, two evaluations a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from ..core.protocols import S
from .runge_kutta import RungeKutta, Tableau


@final
@dataclass(frozen=True)
class Midpoint(RungeKutta[S]):
    """The explicit midpoint rule (Runge 1895): the rate half-way carries the whole step."""

    order = 2
    stages: ClassVar[int] = 2
    tableau: ClassVar[Tableau] = Tableau(nodes=(0.5,), matrix=((0.5,),), weights=(0.0, 1.0))
