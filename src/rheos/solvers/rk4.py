"""The fourth-order rule, four evaluations a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from ..core.protocols import S
from .runge_kutta import RungeKutta, Tableau


@final
@dataclass(frozen=True)
class RK4(RungeKutta[S]):
    """The classical rule of Kutta (1901)."""

    order = 4
    stages: ClassVar[int] = 4
    tableau: ClassVar[Tableau] = Tableau(
        nodes=(0.5, 0.5, 1.0), matrix=((0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), weights=(1 / 6, 1 / 3, 1 / 3, 1 / 6)
    )
