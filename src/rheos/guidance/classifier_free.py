"""Guidance by a condition and its absence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from ..core.condition import Cond, null
from ..core.errors import InputError
from ..core.protocols import Model, over
from ..core.time import expand


@final
@dataclass(frozen=True)
class ClassifierFree:
    """``u = u_null + scale*(u_cond - u_null)`` (Ho and Salimans 2022), two passes an evaluation.

    Scale 1 is the conditional model itself (one pass), 0 the unconditional one; more than 1 exaggerates the
    condition. Works on a velocity as on any quantity that is linear in it.
    """

    scale: float

    def __call__(self, model: Model) -> Model:
        return model if self.scale == 1.0 else Contrasted(model, self.scale)


@final
@dataclass(frozen=True)
class ZeroStar:
    """CFG-Zero*: the unconditional velocity scaled by its projection ``<u_cond, u_null>/|u_null|**2`` before it is
    contrasted, and no motion at all before ``still_until`` (Fan et al. 2025).

    Args:
        scale: as for :class:`ClassifierFree`.
        still_until: times before this one have velocity 0; the paper holds the first 4 % of the steps.
    """

    scale: float
    still_until: float = 0.04

    def __call__(self, model: Model) -> Model:
        return Contrasted(model, self.scale, project=True, still_until=self.still_until)


@final
@dataclass(frozen=True)
class Contrasted:
    """A model under classifier-free guidance."""

    model: Model
    scale: float
    project: bool = False
    still_until: float = 0.0

    def __call__(self, x: Tensor, t: Tensor, cond: Cond | None = None, **end: Tensor) -> Tensor:
        if cond is None:
            raise InputError("classifier-free guidance contrasts a condition with its absence: give a condition.")
        with_cond = self.model(x, t, cond, **end)
        without = self.model(x, t, null(cond), **end)
        if self.project:
            without = without * projection(with_cond, without)
        guided = torch.lerp(without, with_cond, self.scale)
        if self.still_until > 0:
            guided = guided * expand((t >= self.still_until).to(guided.dtype), guided)
        return guided

    def over(self, wrap: Callable[[Model], Model]) -> Contrasted:
        return replace(self, model=over(self.model, wrap))


def projection(onto: Tensor, value: Tensor) -> Tensor:
    """``<onto, value>/|value|**2`` a row, ready to multiply ``value``; 1 where ``value`` is 0."""
    inner = (onto * value).flatten(1).sum(1)
    square = value.square().flatten(1).sum(1)
    ratio = torch.where(square == 0, 1.0, inner / torch.where(square == 0, 1.0, square))
    return expand(ratio, value)
