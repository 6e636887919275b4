r"""A schedule that is learned: two polynomials that are monotone, and have exact ends, whatever their parameters.

In Bernstein's form, with ``b_kn(t) = C(n, k) t^k (1 - t)^(n - k)``,

    alpha(t) = sum_k a_k b_kn(t),    alpha'(t) = n sum_k (a_(k+1) - a_k) b_k(n-1)(t),

so that alpha rises from exactly 0 to exactly 1 if its coefficients do: ``a_0 = 0 < a_1 < ... < a_n = 1``. Their
increments are a softmax. Sigma falls from 1 to 0 in the same way. Every monotone curve with these ends is the limit of
such ones (Bernstein 1912), and the derivative is finite everywhere, so that a velocity can be predicted.

What such a schedule is trained for is the objective's affair: see :mod:`rheos.objectives.learned`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from .base import Number, Schedule


def bernstein(degree: int, t: Tensor) -> Tensor:
    """Bernstein's polynomials of a degree at times ``(...)``: ``(..., degree + 1)``, not negative, of sum 1."""
    k = torch.arange(degree + 1, device=t.device, dtype=t.dtype)
    choose = torch.tensor([math.comb(degree, i) for i in range(degree + 1)], device=t.device, dtype=t.dtype)
    return choose * t[..., None] ** k * (1 - t[..., None]) ** (degree - k)


@final
class Increments(nn.Module):
    """The increments of both curves' coefficients, as logits (2, n); all alike at the start."""

    def __init__(self, degree: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(2, degree))

    def forward(self, t: Tensor) -> Tensor:
        """The increments (2, n), positive and of sum 1: how much alpha rises and how much sigma falls. Of the precision
        and on the device of the times ``t``, because a schedule is asked at all sorts."""
        return self.logits.to(t).softmax(-1)


@final
@dataclass(frozen=True)
class Learned(Schedule):
    """A learned schedule with alpha from 0 to 1 and sigma from 1 to 0; :class:`~rheos.schedules.Linear` until it is
    trained.

    Args:
        degree: of both polynomials. 8 comes within .005 of the quarter circle.

    Attributes:
        increments: the part that is trained.

    Raises:
        InputError: if the degree is not at least 1.
    """

    degree: int = 8
    increments: Increments = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.degree, bool) or not isinstance(self.degree, int) or self.degree < 1:
            raise InputError(f"the polynomials of a learned schedule have a degree of at least 1, got {self.degree!r}.")
        object.__setattr__(self, "increments", Increments(self.degree))

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        rise, fall = self.increments(t).unbind()
        basis = bernstein(self.degree, t)
        # A sum of positive terms each, from its own end: alpha(0) = 0 and sigma(1) = 0 exactly, and next to them no
        # digit is lost. The last coefficient is 1 by definition, and not what the increments round to.
        one = torch.ones(1, device=t.device, dtype=t.dtype)
        alpha = (basis[..., 1:] * torch.cat([rise.cumsum(0)[:-1], one])).sum(-1)
        sigma = (basis[..., :-1] * torch.cat([one, fall.flip(0).cumsum(0).flip(0)[1:]])).sum(-1)
        return alpha, sigma

    def derivative(self, t: Tensor) -> tuple[Number, Number]:
        rise, fall = self.increments(t).unbind()
        basis = self.degree * bernstein(self.degree - 1, t)
        return (basis * rise).sum(-1), -(basis * fall).sum(-1)
