r"""Straight mixtures of noise and data, ``x = alpha*x1 + sigma*x0``, and every quantity a network can predict on them.

Velocity ``u = d_alpha*x1 + d_sigma*x0``, data ``x1``, noise ``x0``, score ``-x0/sigma`` and ``v = alpha*x0 -
sigma*x1`` (Salimans and Ho 2022) determine one another at a given (x, t). All are linear, so the same laws hold for
their conditional expectations, which is what a network learns.

Undetermined cells. At a few ends what is given does not determine what is wanted; then the unknown one of (x0, x1) is
taken to be 0, the solution of least norm of ``x = alpha*x1 + sigma*x0``:

==========================  =================================================  =============================
given                       where                                              what is missing
==========================  =================================================  =============================
data                        sigma = 0                                          the noise
noise, score                alpha = 0                                          the data
velocity                    speed = 0 (a polynomial of n > 1 at t = 0)         the data
anything but score          sigma = 0, and the score is wanted                 the noise: the score is 0
data, noise, v              infinite speed, and the velocity is wanted         its infinite part
==========================  =================================================  =============================

:meth:`Affine.determined` says where a velocity is missing, and solvers give such an evaluation no weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from ..core.errors import InputError, ShapeError, nearest
from ..core.protocols import PathSample, Quantity
from ..core.rng import Rng
from ..core.time import expand, ratio
from ..schedules import Frame, Linear, Number, Schedule

QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)


@dataclass(frozen=True)
class Affine:
    """The path ``x = alpha(t)*x1 + sigma(t)*x0`` of a schedule.

    Args:
        schedule: the curve (alpha, sigma); straight lines at constant speed when left out.
    """

    schedule: Schedule = Linear()

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor, rng: Rng | None = None) -> PathSample[Tensor]:
        """The point at time ``t`` between noise ``x0`` and data ``x1``, with its conditional velocity as the target.

        Args:
            x0: noise (B, ...).
            x1: data, of the same shape.
            t: times, of a shape that is a prefix of the state's.
            rng: unused; an affine path is deterministic once its ends are known.
        """
        _same_shape(x0, x1, "noise and data")
        frame = self.frame(t, x1)
        return PathSample(frame.alpha * x1 + frame.sigma * x0, t, _blend(frame.d_alpha, x1, frame.d_sigma, x0))

    def prior(self, x0: Tensor) -> Tensor:
        """Where sampling starts: the noise at its weight at t = 0, ``sigma(0)*x0``."""
        sigma = self.schedule(torch.zeros((), device=x0.device, dtype=_wide(x0.dtype)))[1]
        return x0 * sigma

    def target(self, want: Quantity, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        """The quantity ``want`` when both ends are known. The score is infinite where sigma = 0."""
        if want == "data":
            return x1
        if want == "noise":
            return x0
        frame = self.frame(t, x1)
        if want == "velocity":
            return _blend(frame.d_alpha, x1, frame.d_sigma, x0)
        if want == "score":
            return -x0 / frame.sigma
        return frame.alpha * x0 - frame.sigma * x1

    def convert(self, value: Tensor, x: Tensor, t: Tensor, *, given: Quantity, want: Quantity) -> Tensor:
        """One predicted quantity from another, at the state ``x`` and the time ``t``.

        Args:
            value: the quantity ``given``, of the shape of ``x``.
            x: the state (B, ...).
            t: times, of a shape that is a prefix of the state's.
            given: what ``value`` is.
            want: what is returned, of the shape of ``x``.
        """
        for name in (given, want):
            if name not in QUANTITIES:
                raise InputError(f"{name!r} is no quantity of a path; {nearest(str(name), QUANTITIES)}")
        _same_shape(value, x, "a prediction and its state")
        if given == want:
            return value
        frame = self.frame(t, x)
        if given == "velocity" and want == "score":
            return self._score_from_velocity(value, x, frame)
        if given == "score" and want == "velocity":
            return self._velocity_from_score(value, x, frame)
        data, noise = _ends(value, x, frame, given)
        return _wanted(data, noise, frame, want)

    def determined(self, t: Tensor, given: Quantity) -> Tensor:
        """True where the quantity ``given`` determines the velocity; of the shape of ``t``."""
        frame = self.schedule.frame(t)
        always = torch.ones_like(t, dtype=torch.bool)
        finite = torch.isfinite(frame.speed) if isinstance(frame.speed, Tensor) else always
        if given == "velocity":
            return always
        if given == "data":
            return finite & (frame.sigma != 0)
        if given == "score":
            return frame.alpha != 0
        return finite & (frame.alpha != 0) if given == "noise" else finite

    def frame(self, t: Tensor, x: Tensor) -> Frame:
        """The schedule at ``t``, each entry ready to multiply the state ``x``."""
        dtype = _wide(x.dtype)
        frame = self.schedule.frame(t)
        return Frame._make(expand(e.to(dtype), x) if isinstance(e, Tensor) else e for e in frame)

    def _score_from_velocity(self, u: Tensor, x: Tensor, frame: Frame) -> Tensor:
        """``(alpha*u - d_alpha*x) / flux``; where the flux is 0 or infinite, ``-x0/sigma``."""
        flux = _tensor(_finite(frame.flux), x)
        direct = ratio(frame.alpha * u - _finite(frame.d_alpha) * x, flux)
        return torch.where(flux == 0, _wanted(*_ends(u, x, frame, "velocity"), frame, "score"), direct)

    def _velocity_from_score(self, score: Tensor, x: Tensor, frame: Frame) -> Tensor:
        """``(d_alpha*x + flux*score) / alpha``; where alpha is 0 the noise alone moves."""
        direct = ratio(_finite(frame.d_alpha) * x + _finite(frame.flux) * score, frame.alpha)
        return torch.where(frame.alpha == 0, _finite(frame.d_sigma) * (-frame.sigma * score), direct)


def _ends(value: Tensor, x: Tensor, frame: Frame, given: Quantity) -> tuple[Tensor, Tensor]:
    """(data, noise) from one quantity and the state; the part that is undetermined is 0."""
    alpha, sigma = frame.alpha, frame.sigma
    if given == "data":
        return value, ratio(x - alpha * value, sigma)
    if given == "noise":
        return ratio(x - sigma * value, alpha), value
    if given == "score":
        return ratio(x + sigma * sigma * value, alpha), -sigma * value
    square = alpha * alpha + sigma * sigma
    if given == "v":
        return (alpha * x - sigma * value) / square, (sigma * x + alpha * value) / square
    speed = _tensor(frame.speed, alpha)
    data = ratio(sigma, speed) * value - frame.q * x
    noise = frame.p * x - ratio(alpha, speed) * value
    # An infinite velocity has no weight where the speed is infinite, but inf*0 is no number.
    data = torch.where(torch.isinf(speed), -frame.q * x, data)
    noise = torch.where(torch.isinf(speed), frame.p * x, noise)
    still = speed == 0
    return torch.where(still, alpha * x / square, data), torch.where(still, sigma * x / square, noise)


def _wanted(data: Tensor, noise: Tensor, frame: Frame, want: Quantity) -> Tensor:
    if want == "data":
        return data
    if want == "noise":
        return noise
    if want == "score":
        return ratio(-noise, frame.sigma)
    if want == "v":
        return frame.alpha * noise - frame.sigma * data
    return _finite(frame.d_alpha) * data + _finite(frame.d_sigma) * noise


def _blend(a: Number, x1: Tensor, b: Number, x0: Tensor) -> Tensor:
    straight = isinstance(a, float) and isinstance(b, float) and a == 1.0 and b == -1.0
    return x1 - x0 if straight else a * x1 + b * x0


def _tensor(value: Number, like: Tensor) -> Tensor:
    """A number as a tensor in the dtype of another one; PyTorch's default would round it to float32."""
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=like.dtype)


def _finite(value: Number) -> Number:
    """The value, and 0 where it is infinite."""
    return torch.where(torch.isfinite(value), value, 0.0) if isinstance(value, Tensor) else value


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _same_shape(one: Tensor, other: Tensor, what: str) -> None:
    if one.shape != other.shape:
        raise ShapeError(f"{what} must have one shape, got {tuple(one.shape)} and {tuple(other.shape)}.")
