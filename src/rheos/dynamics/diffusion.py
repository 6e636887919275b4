r"""A stochastic differential equation with the marginals of a flow.

For any diffusion coefficient g(t), ``dx = (u + g**2/2 * score) dt + g dW`` has at every time the distribution that
``dx = u dt`` has (Song et al. 2021; Albergo, Boffi and Vanden-Eijnden 2023). g = 0 is the flow itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, final

import torch
from torch import Tensor

from ..core.errors import InputError, UndeterminedError
from ..core.protocols import Model, Quantity
from ..core.rng import Rng
from ..core.time import expand
from ..schedules import Schedule
from .flow import Flow


class Convertible(Protocol):
    """A path on which a velocity determines a score: :class:`rheos.paths.Affine`."""

    @property
    def schedule(self) -> Schedule: ...

    def convert(self, value: Tensor, x: Tensor, t: Tensor, *, given: Quantity, want: Quantity) -> Tensor: ...


@final
@dataclass(frozen=True)
class Diffusion:
    """A flow with noise added and the score that balances it.

    Args:
        flow: the flow whose marginals are kept.
        path: the affine path it was learned on, which turns its velocity into a score.
        diffusion: the coefficient g(t), not negative, in units of the state per square root of time. On the linear path
            ``g(t)**2 = 2*eta*sigma(t)`` gives a drift without singularity.

    Raises:
        UndeterminedError: when the noise was coupled to the data, for then the velocity determines no score.
    """

    flow: Flow
    path: Convertible
    diffusion: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        if not self.flow.independent:
            raise UndeterminedError(
                "a diffusion needs a score, and a score exists only for Gaussian noise independent of the data; this "
                "flow was trained on coupled pairs. Sample it as a flow, or train with couplings.Independent()."
            )

    def over(self, wrap: Callable[[Model], Model]) -> Diffusion:
        """The same diffusion with ``wrap`` around its velocity."""
        return replace(self, flow=self.flow.over(wrap))

    def rate(self, x: Tensor, t: Tensor, s: Tensor | None = None) -> Tensor:
        """The drift, ``u + g**2/2 * score`` towards data and ``u - g**2/2 * score`` towards noise: one evaluation."""
        velocity = self.flow.rate(x, t, s)
        score = self.path.convert(velocity, x, t, given="velocity", want="score")
        half = 0.5 * self.diffusion(t) ** 2
        if s is not None:
            half = half * torch.sign(s - t)
        return velocity + expand(half, x).to(x.dtype) * score

    def move(self, x: Tensor, rate: Tensor, t: Tensor, s: Tensor, rng: Rng | None = None) -> Tensor:
        """``x + (s - t)*rate + g*sqrt(|s - t|)*normal``, with g in the middle of the step."""
        return self.flow.move(x, rate, t, s) + kick(self.diffusion, x, t, s, rng)

    def determined(self, t: Tensor) -> Tensor | None:
        """Where the drift is determined: where the flow's velocity is, and the score."""
        flux = self.path.schedule.frame(t).flux
        scored = flux != 0 if isinstance(flux, Tensor) else torch.ones_like(t, dtype=torch.bool)
        flow = self.flow.determined(t)
        return scored if flow is None else scored & flow


def kick(diffusion: Callable[[Tensor], Tensor], x: Tensor, t: Tensor, s: Tensor, rng: Rng | None) -> Tensor:
    """``g*sqrt(|s - t|)*normal`` like ``x``, with g in the middle of the step and a key a row."""
    if rng is None:
        raise InputError("a diffusion needs randomness: give integrate an rng (an Rng, a torch.Generator or a seed).")
    scale = diffusion((t + s) / 2) * (s - t).abs().sqrt()
    noise = rng.per_row(x.shape[0], x.device).normal(*x.shape[1:], dtype=x.dtype)
    return expand(scale, x).to(x.dtype) * noise
