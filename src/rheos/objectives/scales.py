"""Guidance that is learned, for a range of scales at once.

Classifier-free guidance of scale w contrasts a velocity with that of no condition, ``v_null + w*(v - v_null)``, at
twice the cost. A network that is told w can learn the outcome (Meng et al. 2023, "On distillation of guided diffusion
models", from a teacher; Geng et al. 2025, MeanFlow and "Improved mean flows", from scratch): then sampling costs one
pass, and the scale is chosen at sampling still. A map leads across the whole of an interval of guidance, so the scale
that it is told is the same at all times; what acts on the velocity is 1 outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..core.condition import Cond, known, null, take
from ..core.errors import InputError
from ..core.protocols import Model
from ..core.rng import Rng
from ..core.time import factor


@final
@dataclass(frozen=True)
class Scales:
    """The scales of guidance that a network is taught, uniform from ``low`` to ``high`` as in Meng et al. 2023: the
    velocity is linear in the scale, so that none is harder than another.

    Args:
        low: the least scale; 1 is no guidance.
        high: the greatest.
        start: the first time at which guidance acts, as for :class:`~rheos.guidance.Interval`.
        end: the last.

    Raises:
        InputError: if they are no range, or no interval of times.
    """

    low: float
    high: float
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise InputError(f"a range of guidance needs two scales, low < high, got [{self.low}, {self.high}].")
        if not 0 <= self.start < self.end <= 1:
            raise InputError(f"guidance acts between two times of [0, 1], start < end, got [{self.start}, {self.end}].")

    @property
    def middle(self) -> float:
        """The scale halfway, which is sampled when nothing else is asked."""
        return (self.low + self.high) / 2

    def draw(self, rng: Rng, given: Given) -> Given:
        """The rows with the scale that each is told, a function of its key alone; rows without a condition have nothing
        to contrast, and are told 1.

        Raises:
            InputError: if there is no condition at all.
        """
        if given.cond is None:
            raise InputError("guidance contrasts a condition with its absence: give a condition, or leave guided out.")
        scale = self.low + (self.high - self.low) * rng.uniform(dtype=torch.float32)
        return Given(given.cond, torch.where(known(given.cond, len(scale)), scale, 1.0))

    def contrast(self, value: Tensor, without: Tensor, scale: Tensor, t: Tensor) -> Tensor:
        """``without + w*(value - without)`` with the w that acts at ``t``; the value itself, exactly, where it is 1.

        Args:
            value: with the condition, (B, ...).
            without: the same without.
            scale: that each row is told (B,).
            t: times (B,).
        """
        acting = torch.where((t >= self.start) & (t <= self.end), scale, 1.0)
        return torch.lerp(without, value, factor(acting, value))


@final
@dataclass(frozen=True)
class Given:
    """What a model is given beside the states and times of rows.

    Args:
        cond: the condition of each.
        scale: of guidance (B,), for a network that is told it.
    """

    cond: Cond | None
    scale: Tensor | None = None

    def __call__(self, model: Model, x: Tensor, t: Tensor, **end: Tensor) -> Tensor:
        """The model at these rows."""
        cond = () if self.cond is None else (self.cond,)
        return model(x, t, *cond, **end) if self.scale is None else model(x, t, *cond, **end, scale=self.scale)

    def taken(self, index: Tensor) -> Given:
        """The rows ``index``, in that order."""
        return Given(take(self.cond, index), None if self.scale is None else self.scale[index])

    @property
    def unconditional(self) -> Given:
        """The same rows without their condition, and so without guidance."""
        assert self.cond is not None
        return Given(null(self.cond), None if self.scale is None else torch.ones_like(self.scale))
