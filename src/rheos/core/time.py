"""Time: 0 is noise, 1 is data, in float32 or wider.

A time's shape is a prefix of the state's: ``()`` for one clock, ``(B,)`` for a clock a sample, ``(B, L)`` for a
clock an element. Broadcasting would align shapes from the right instead, and be silently wrong whenever the batch
size equals a data size; so :func:`expand` is the only place that adds axes to a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import ShapeError


def expand(t: Tensor, x: Tensor) -> Tensor:
    """View ``t``, whose shape is a prefix of the shape of ``x``, so that it multiplies ``x`` element by element.

    Raises:
        ShapeError: if the shape of ``t`` is no prefix of the shape of ``x``.
    """
    lead = t.dim()
    if lead == 0 or lead == x.dim():
        if lead and t.shape != x.shape:
            raise _mismatch(t, x)
        return t
    if t.shape != x.shape[:lead]:
        raise _mismatch(t, x)
    return t.reshape(t.shape + (1,) * (x.dim() - lead))


def as_time(t: Tensor | float, x: Tensor) -> Tensor:
    """``t`` as a floating tensor, in float32 or wider, on the device of ``x``.

    Raises:
        ShapeError: if its shape is no prefix of the shape of ``x``.
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    if not isinstance(t, Tensor):
        return torch.tensor(t, dtype=wide, device=x.device)
    if t.dtype not in (torch.float32, torch.float64):
        t = t.to(wide)
    if t.dim() and t.shape != x.shape[: t.dim()]:
        raise _mismatch(t, x)
    return t


def factor(value: Tensor, x: Tensor) -> Tensor:
    """A number a time, ready to multiply the state ``x``: expanded, and of its type."""
    return expand(value, x).to(x.dtype)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient of what depends on time, and 0 where the denominator is 0; with a gradient that is finite there
    too."""
    empty = denominator == 0
    return torch.where(empty, 0.0, numerator / torch.where(empty, 1.0, denominator))


def _mismatch(t: Tensor, x: Tensor) -> ShapeError:
    return ShapeError(
        f"the shape of a time must be a prefix of the state's: the state has {tuple(x.shape)}, the time has "
        f"{tuple(t.shape)}. Give one clock (), a clock a sample {tuple(x.shape[:1])}, or a clock an element."
    )
