"""The first-order rule, one evaluation a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from ..core.protocols import Dynamics, Memory, S, Step
from ..core.rng import Rng
from .base import FixedStep


@final
@dataclass(frozen=True)
class Euler(FixedStep[S]):
    """Euler's rule (1768): evaluate, move. Euler-Maruyama on a diffusion, tau-leaping on a jump process; and the only
    rule for states that grow. On the linear path it is DDIM."""

    def step(
        self, dynamics: Dynamics[S], x: S, t: Tensor, s: Tensor, memory: Memory = (), rng: Rng | None = None
    ) -> Step[S]:
        return Step(dynamics.move(x, dynamics.rate(x, t, s), t, s, rng), s)
