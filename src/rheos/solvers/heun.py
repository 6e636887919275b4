"""A second-order rule, two evaluations a step, both at grid points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from ..core.protocols import S
from .runge_kutta import RungeKutta, Tableau


@final
@dataclass(frozen=True)
class Heun(RungeKutta[S]):
    """Heun's rule (1900): the mean of the rates at both ends. The sampler of Karras et al. 2022; on a diffusion,
    stochastic Heun, of weak order 2 where the noise is additive."""

    order = 2
    stages: ClassVar[int] = 2
    tableau: ClassVar[Tableau] = Tableau(nodes=(1.0,), matrix=((1.0,),), weights=(0.5, 0.5))
