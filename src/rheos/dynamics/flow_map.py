r"""A flow map: where a flow leads, as a network knows it, in one evaluation.

With ``X`` the map that carries a state from t to s along a velocity v, the network gives the average velocity u of
that way,

    X(x, t, s) = x + (s - t)*u(x, t, s),    u(x, t, t) = v(x, t)

(Boffi, Albergo and Vanden-Eijnden 2024; Geng et al. 2025, MeanFlow; Kim et al. 2024, consistency trajectory models).
Euler's rule on it is sampling in as many steps as the grid has; a grid that runs backward inverts, where the map was
trained for that. Every other solver combines rates of several times, which average velocities are not; it integrates
:attr:`FlowMap.flow`, the velocity on the diagonal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

from torch import Tensor

from ..core.protocols import Model
from ..core.rng import Rng
from ..core.time import factor
from .flow import Flow


@final
@dataclass(frozen=True)
class FlowMap:
    """The map of a flow on R^d.

    Args:
        average: the model, ``average(x, t, cond, s=s)``, like ``x``: the average velocity from ``t`` to ``s``, and the
            velocity at ``t`` when no ``s`` is given.
        independent: as for :class:`Flow`.
    """

    average: Model
    independent: bool = True

    @property
    def flow(self) -> Flow:
        """The flow of the velocity on the diagonal."""
        return Flow(self.average, self.independent)

    def over(self, wrap: Callable[[Model], Model]) -> FlowMap:
        """The same map with ``wrap`` around its model."""
        return replace(self, average=wrap(self.average))

    def rate(self, x: Tensor, t: Tensor, s: Tensor | None = None) -> Tensor:
        """The average velocity from ``t`` to ``s``, or the velocity at ``t``: one evaluation."""
        return self.average(x, t) if s is None else self.average(x, t, s=s)

    def move(self, x: Tensor, rate: Tensor, t: Tensor, s: Tensor, rng: Rng | None = None) -> Tensor:
        """``x + (s - t)*rate``."""
        return x + factor(s - t, x) * rate

    def determined(self, t: Tensor) -> Tensor | None:
        """``None``: the rate is determined everywhere."""
        return None
