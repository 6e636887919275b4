"""A flow map that adds noise back after each of its steps (Song et al. 2023, multistep consistency sampling; Kim et
al. 2024, gamma-sampling).

A step from t to s goes beyond s, to the time at which the level ``sigma/alpha`` is ``sqrt(1 - share**2)`` times that at
s, and comes back to s by fresh noise. Share 0 is the map itself; 1 goes to the data every time. Errors of earlier steps
are forgotten, as noise covers them; what the last step gives has no noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from ..core.errors import InputError, UndeterminedError
from ..core.protocols import Model
from ..core.rng import Rng
from ..core.time import factor
from .diffusion import Convertible
from .flow_map import FlowMap


@final
@dataclass(frozen=True)
class Restarted:
    """The steps of the module's page.

    Args:
        map: the flow map, of noise that is independent of the data.
        path: the affine path that it was learned on.
        share: of the noise at s that is fresh.

    Raises:
        InputError: if the share is not between 0 and 1.
        UndeterminedError: if the noise was coupled to the data.
    """

    map: FlowMap
    path: Convertible
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise InputError(f"the share of fresh noise is between 0 and 1, got {self.share}.")
        if self.share and not self.map.independent:
            raise UndeterminedError(
                "fresh noise keeps the marginals only where it was Gaussian and independent of the data; this map was "
                "trained on coupled pairs. Sample it without restarts."
            )

    def over(self, wrap: Callable[[Model], Model]) -> Restarted:
        """The same dynamics with ``wrap`` around the map's model."""
        return replace(self, map=self.map.over(wrap))

    def rate(self, x: Tensor, t: Tensor, s: Tensor | None = None) -> Tensor:
        """The average velocity from ``t`` to where a step to ``s`` turns, or the velocity at ``t``: one evaluation."""
        return self.map.rate(x, t, None if s is None else self._turn(t, s))

    def move(self, x: Tensor, rate: Tensor, t: Tensor, s: Tensor, rng: Rng | None = None) -> Tensor:
        """The state at ``s``: along the rate to the turn, and back by noise with a key a row."""
        turn = self._turn(t, s)
        x = self.map.move(x, rate, t, turn)
        if not self.share:
            return x
        if rng is None:
            raise InputError("restarts draw noise: give integrate an rng (an Rng, a torch.Generator or a seed).")
        (a, b), (alpha, sigma) = self.path.schedule(turn), self.path.schedule(s)
        kept = torch.where(turn == s, 1.0, alpha / a)
        fresh = (sigma.square() - (kept * b).square()).clamp(min=0.0).sqrt()
        noise = rng.per_row(x.shape[0], x.device).normal(*x.shape[1:], dtype=x.dtype)
        return factor(kept, x) * x + factor(fresh, x) * noise

    def determined(self, t: Tensor) -> Tensor | None:
        """``None``: the rate is determined everywhere."""
        return None

    def _turn(self, t: Tensor, s: Tensor) -> Tensor:
        """Where a step turns; at its end for one that goes nowhere, or towards noise, or to the data."""
        alpha, sigma = self.path.schedule(s)
        beyond = self.path.schedule.time_of(alpha, (1 - self.share**2) ** 0.5 * sigma)
        return torch.where((s > t) & (sigma > 0), beyond, s)
