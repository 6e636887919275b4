"""The laws of a schedule."""

from __future__ import annotations

import torch
from torch import Tensor

from ..schedules import Schedule
from .law import agree, clocks, lawful, require, slope

_STEP = 1e-5


def check_schedule(schedule: Schedule, *, tolerance: float = 1e-9) -> None:
    """Hold a schedule against its laws, in float64.

    It keeps shape and dtype and treats every time by itself; it is finite and not negative on [0, 1], and alpha/sigma
    increases; its derivative is that of forward-mode differentiation and of finite differences; its frame satisfies
    ``p*sigma - q*alpha = 1``, ``speed = d_alpha*sigma - alpha*d_sigma >= 0`` and ``flux = speed*sigma``; ``time_of`` is
    its inverse.

    Args:
        schedule: the schedule.
        tolerance: of all but the finite differences, relative above 1.

    Raises:
        AssertionError: if a law is broken.
    """
    _check_shapes(schedule, tolerance)
    _check_curve(schedule)
    _check_derivative(schedule, tolerance)
    _check_frame(schedule, tolerance)
    _check_inverse(schedule, tolerance)


def _check_shapes(schedule: Schedule, tolerance: float) -> None:
    t = clocks((5, 3), 0.02, 0.98)
    for name, values in _values(schedule, t).items():
        for place in ((0, 0), (1, 2), (4, 1)):
            with lawful("a schedule takes a time of shape ()"):
                alone = _values(schedule, t[place])[name]
            agree(f"{name} treats every time by itself", values[place], alone, tolerance, t[place])
        agree(f"{name} keeps the shape (B,)", _values(schedule, t[:, 0])[name], values[:, 0], tolerance, t[:, 0])
    for dtype in (torch.float32, torch.float64):
        for name, value in zip(("alpha", "sigma"), schedule(t.to(dtype)), strict=True):
            require(value.dtype == dtype, f"{name} keeps the dtype of the time: {value.dtype} came for {dtype}.")


def _check_curve(schedule: Schedule) -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    alpha, sigma = schedule(t)
    for name, value in (("alpha", alpha), ("sigma", sigma)):
        bad = ~torch.isfinite(value) | (value < 0)
        require(
            ~bad, f"{name} is finite and not negative on [0, 1]: it is {_first(value, bad)} at t = {_first(t, bad)}."
        )
    require(sigma[0] > 0, "sigma is positive at t = 0, where the noise stands.")
    require(alpha[-1] > 0, "alpha is positive at t = 1, where the data stand.")
    bad = ~(alpha[1:] * sigma[:-1] > alpha[:-1] * sigma[1:])
    require(~bad, f"alpha/sigma increases: it does not after t = {_first(t[:-1], bad)}.")


def _check_derivative(schedule: Schedule, tolerance: float) -> None:
    t = clocks((32,), 0.02, 0.98, 1)
    given = [torch.as_tensor(d, dtype=t.dtype).expand_as(t) for d in schedule.derivative(t)]
    forward = slope(schedule, t)
    ahead, behind = schedule(t + _STEP), schedule(t - _STEP)
    for k, name in enumerate(("d_alpha", "d_sigma")):
        agree(f"{name} is the forward-mode derivative", given[k], forward[k], tolerance, t)
        difference = (ahead[k] - behind[k]) / (2 * _STEP)
        agree(f"{name} is the limit of finite differences", given[k], difference, 1e-5, t)


def _check_frame(schedule: Schedule, tolerance: float) -> None:
    t = torch.cat([torch.tensor([0.0, 1.0], dtype=torch.float64), clocks((32,), 0.02, 0.98, 2)])
    f = _values(schedule, t)
    alpha, sigma = schedule(t)
    agree("frame.alpha is alpha", f["alpha"], alpha, tolerance, t)
    agree("frame.sigma is sigma", f["sigma"], sigma, tolerance, t)
    agree("p*sigma - q*alpha is 1, ends included", f["p"] * sigma - f["q"] * alpha, torch.ones_like(t), tolerance, t)
    require(~torch.isnan(f["flux"]) & ~torch.isnan(f["speed"]), "speed and flux are numbers at both ends.")
    require((f["speed"] >= 0) & (f["flux"] >= 0), "the speed d_alpha*sigma - alpha*d_sigma is not negative.")
    inner = slice(2, None)
    f, t, alpha, sigma = {name: value[inner] for name, value in f.items()}, t[inner], alpha[inner], sigma[inner]
    d_alpha, d_sigma = (torch.as_tensor(d, dtype=t.dtype).expand_as(t) for d in schedule.derivative(t))
    agree("frame.d_alpha is the derivative", f["d_alpha"], d_alpha, tolerance, t)
    agree("frame.d_sigma is the derivative", f["d_sigma"], d_sigma, tolerance, t)
    agree("speed is d_alpha*sigma - alpha*d_sigma", f["speed"], d_alpha * sigma - alpha * d_sigma, tolerance, t)
    agree("flux is speed*sigma", f["flux"], f["speed"] * sigma, tolerance, t)
    agree("p*speed is d_alpha", f["p"] * f["speed"], d_alpha, tolerance, t)
    agree("q*speed is d_sigma", f["q"] * f["speed"], d_sigma, tolerance, t)


def _check_inverse(schedule: Schedule, tolerance: float) -> None:
    t = clocks((16, 2), 0.05, 0.95, 3)
    alpha, sigma = schedule(t)
    for scale in (1.0, 0.3):
        agree("time_of inverts alpha/sigma", schedule.time_of(scale * alpha, scale * sigma), t, 10 * tolerance, t)
    zero, one = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    # A curve that stands still at an end reaches it, to rounding, before its time.
    agree("time_of pure noise is 0", schedule.time_of(zero, one), zero, 1e-4)
    agree("time_of pure data is 1", schedule.time_of(one, zero), one, 1e-4)


def _values(schedule: Schedule, t: Tensor) -> dict[str, Tensor]:
    """The frame's entries by name, numbers spread over the shape of the time."""
    frame = schedule.frame(t)._asdict()
    out = {}
    for name, entry in frame.items():
        value = torch.as_tensor(entry, dtype=t.dtype)
        require(value.dim() == 0 or value.shape == t.shape, f"{name} has the shape of the time, or is one number.")
        out[name] = value.expand_as(t)
    return out


def _first(value: Tensor, where: Tensor) -> float:
    return float(value[where][0]) if bool(where.any()) else float("nan")
