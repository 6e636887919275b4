r"""The Brownian bridge: a straight line between two known ends, with noise that is nothing at either of them.

    x = (1 - t)*x0 + t*x1 + lam*z,    lam = sigma*sqrt(t*(1 - t)),    z standard normal, independent of the ends.

It is where a Brownian motion of variance ``sigma**2`` a unit of time stands at t, when it is known to start at x0 and
to end at x1. Its velocity and score, given the ends (Tong et al. 2024, "Simulation-free Schroedinger bridges via score
and flow matching"):

    u = x1 - x0 + (1 - 2*t)/(2*t*(1 - t)) * (x - mean) = x1 - x0 + (1 - 2*t)*sigma/(2*sqrt(t*(1 - t))) * z,
    score = -(x - mean)/lam**2 = -z/lam.

Hence ``u = (x1 - x0) - (1 - 2*t)/2 * sigma**2 * score``, and so it is for their expectations given (x, t): a network
that knows the *displacement* ``E[x1 - x0 | x]`` and the score knows the velocity, and what it is asked for stays finite
where u does not. The score may be told as it is, or as the *noise* ``E[z | x] = -lam*score``. Every stochastic process
with these marginals follows from

    drift = velocity + square/2 * score = displacement + (square - (1 - 2*t)*sigma**2)/2 * score,

which is the flow for ``square = 0``, and for noise of coefficient g the process towards data for ``g**2`` and the one
towards t = 0 for ``-g**2`` (with ``g = sigma``: coefficients ``t*sigma**2`` and ``-(1 - t)*sigma**2``).

Undetermined cells, where the infinite part is taken to be 0: u and the score at t = 0 and t = 1 when the ends are
known, and the drift there when the noise is given instead of the score. :meth:`Bridge.determined` says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor

from ..core.errors import InputError, ShapeError, nearest
from ..core.protocols import Model, PathSample, over
from ..core.rng import Rng
from ..core.time import factor, ratio

Told = Literal["score", "noise"]
"""How the score is told: as it is, or as the noise ``-lam*score``, which stays finite for data without a density."""


@final
@dataclass(frozen=True)
class Bridge:
    """The Brownian bridge of a diffusion coefficient.

    Args:
        sigma: the coefficient, positive, in units of the state per square root of time. Towards 0 the bridge is the
            straight line of :class:`~rheos.paths.Affine`.

    Raises:
        InputError: if sigma is not positive and finite.
    """

    sigma: float

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise InputError(f"the sigma of a bridge must be positive and finite, got {self.sigma}.")

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor, rng: Rng | None = None) -> PathSample[Tensor]:
        """A point at time ``t`` between the ends, with its conditional velocity as the target.

        Args:
            x0: the start (B, ...).
            x1: the end, of the same shape.
            t: times, of a shape that is a prefix of the state's.
            rng: draws z, a key a row.

        Raises:
            InputError: without an rng.
        """
        if rng is None:
            raise InputError("a bridge is random between its ends: give an rng, with a key a row or a single key.")
        z = self.noise(x1, rng)
        return PathSample(self.point(x0, x1, t, z), t, self.velocity(x0, x1, t, z))

    def noise(self, like: Tensor, rng: Rng) -> Tensor:
        """z like ``like``, a key a row."""
        return rng.per_row(len(like), like.device).normal(*like.shape[1:], dtype=like.dtype)

    def point(self, x0: Tensor, x1: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """The state, ``mean + lam*z``."""
        return _mean(x0, x1, t) + factor(self.scale(t), z) * z

    def velocity(self, x0: Tensor, x1: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """The conditional velocity u, the time derivative of :meth:`point`; at the ends of time its finite part."""
        _same_shape(x0, x1)
        return x1 - x0 + factor(ratio(0.5 * (1 - 2 * t) * self.sigma**2, self.scale(t)), z) * z

    def score(self, x: Tensor, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        """The conditional score at ``x``, ``-(x - mean)/lam**2``; 0 at the ends of time, where there is no density."""
        return factor(ratio(-torch.ones_like(t), self.scale(t).square()), x) * (x - _mean(x0, x1, t))

    def scale(self, t: Tensor) -> Tensor:
        """lam, the standard deviation at ``t`` of every entry when the ends are known."""
        return self.sigma * torch.sqrt(t * (1 - t))

    def drift(self, output: Tensor, t: Tensor, square: Tensor | float = 0.0, *, told: Told = "score") -> Tensor:
        """``velocity + square/2 * score`` from what a network gives.

        Args:
            output: displacement and score (or noise) side by side, (B, 2C, ...) for states (B, C, ...).
            t: times, of a shape that is a prefix of the state's.
            square: the squared diffusion coefficient towards data, its negative towards t = 0; 0 for the flow.
            told: what the second half is.
        """
        displacement, second = halves(output)
        bend = 0.5 * (square - (1 - 2 * t) * self.sigma**2)
        if require_told(told) == "noise":
            bend = ratio(-bend, self.scale(t))
        return displacement + factor(bend, second) * second

    def determined(self, t: Tensor, told: Told = "score") -> Tensor:
        """True where what a network gives determines every drift; of the shape of ``t``."""
        return torch.ones_like(t, dtype=torch.bool) if require_told(told) == "score" else (t > 0) & (t < 1)


@final
@dataclass(frozen=True)
class BridgeVelocity:
    """A network that gives displacement and score side by side, as the velocity of the flow: ``path.drift(network(x, t,
    cond), t)``."""

    network: Model
    path: Bridge
    told: Told = "score"

    def __call__(self, x: Tensor, t: Tensor, *cond: Any) -> Tensor:
        return self.path.drift(self.network(x, t, *cond), t, told=self.told)

    def over(self, wrap: Callable[[Model], Model]) -> BridgeVelocity:
        return replace(self, network=over(self.network, wrap))


def halves(output: Tensor) -> tuple[Tensor, Tensor]:
    """The two halves of a network's output along axis 1.

    Raises:
        ShapeError: if there is no such axis, or it cannot be halved.
    """
    if output.dim() < 2 or output.shape[1] % 2:
        raise ShapeError(
            "a bridge's network gives displacement and score side by side along axis 1, (B, 2C, ...) for states "
            f"(B, C, ...), got {tuple(output.shape)}; see objectives.bridge.Twin and UNet's out_channels."
        )
    displacement, second = output.chunk(2, 1)
    return displacement, second


def require_told(told: Told) -> Told:
    """``told`` itself, or an error when a score cannot be told so."""
    if told not in get_args(Told):
        raise InputError(f"a score is not told as {told!r}; {nearest(str(told), get_args(Told))}")
    return told


def _mean(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    _same_shape(x0, x1)
    return factor(1 - t, x0) * x0 + factor(t, x1) * x1


def _same_shape(x0: Tensor, x1: Tensor) -> None:
    if x0.shape != x1.shape:
        raise ShapeError(f"the ends of a bridge must have one shape, got {tuple(x0.shape)} and {tuple(x1.shape)}.")
