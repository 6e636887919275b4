"""Distributions in the plane, small enough to see.

Each is centred and scaled by one factor, so that its mean is 0 and the mean of its two variances is 1 (exactly, for the
default noise and for any other). Point i is a function of (seed, i) only: a longer sample begins with the shorter one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core import Rng


def moons(n: int, rng: Rng, noise: float = 0.05) -> Tensor:
    """Two interleaved half circles of radius 1, with normal noise; float32 ``(n, 2)``.

    Before scaling: ``(cos a, sin a)`` or ``(1 - cos a, 1/2 - sin a)``, a uniform in (0, pi), each half the time.
    """
    keys = rng.per_row(n)
    u = keys.fold(0).uniform(2, dtype=torch.float32)
    angle, lower = math.pi * u[:, 0], u[:, 1] < 0.5
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    x = torch.where(lower[:, None], torch.tensor([1.0, 0.5]) - upper, upper) - torch.tensor([0.5, 0.25])
    # Variances of one moon, and of the two moons' means (2/pi is the mean of sin a).
    variance = (0.5 + 0.25) / 2 + (0.5 - 4 / math.pi**2 + (2 / math.pi - 0.25) ** 2) / 2
    return _finish(x, keys, noise, variance)


def eight_gaussians(n: int, rng: Rng, noise: float = 0.1) -> Tensor:
    """Eight normal distributions of standard deviation ``noise`` on a unit circle, scaled; float32 ``(n, 2)``."""
    keys = rng.per_row(n)
    angle = (8 * keys.fold(0).uniform(dtype=torch.float32)).floor() * (math.pi / 4)
    return _finish(torch.stack([angle.cos(), angle.sin()], 1), keys, noise, 0.5)


def checkerboard(n: int, rng: Rng) -> Tensor:
    """Uniform on the 8 black cells of a 4 x 4 board; float32 ``(n, 2)``. A cell is ``sqrt(3)/2`` wide after scaling."""
    u = rng.per_row(n).fold(0).uniform(2, dtype=torch.float32)
    x, y = 4 * u[:, 0], 2 * u[:, 1]
    # In column k the black cells are those of rows k, k + 2, ...: a height in (0, 2) is stretched over two of them.
    y = y + y.floor() + x.floor() % 2
    return (torch.stack([x, y], 1) - 2) / math.sqrt(4 / 3)


def spirals(n: int, rng: Rng, noise: float = 0.02, turns: float = 1.5) -> Tensor:
    """Two arms ``+-r (cos 2 pi k r, sin 2 pi k r)``, r in (0, 1) with density 2r, k ``turns``; float32 ``(n, 2)``."""
    keys = rng.per_row(n)
    u = keys.fold(0).uniform(2, dtype=torch.float32)
    radius = u[:, 0].sqrt()
    angle, side = 2 * math.pi * turns * radius, torch.where(u[:, 1] < 0.5, -1.0, 1.0)
    x = (side * radius)[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return _finish(x, keys, noise, 0.25)


def _finish(x: Tensor, keys: Rng, noise: float, variance: float) -> Tensor:
    """Add normal noise and divide by the standard deviation, whose noiseless square is ``variance``."""
    return (x + noise * keys.fold(1).normal(2, dtype=torch.float32)) / math.sqrt(variance + noise**2)
