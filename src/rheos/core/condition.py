"""Conditions, and the absence of one.

A condition is a tensor or a mapping of names to tensors, each with the batch in front. Integers are labels, floating
numbers are vectors (or sequences of them). *Unknown* is written into the tensor itself: a label of -1, a vector of NaN.
So a row, or one entry of a row, can be unconditional while its neighbour is not.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .time import expand

Cond = Tensor | Mapping[str, Tensor]

UNKNOWN_LABEL = -1


def _unknown(value: Tensor) -> float:
    return float("nan") if value.is_floating_point() else UNKNOWN_LABEL


def null(cond: Cond) -> Cond:
    """The same condition with everything unknown."""
    if isinstance(cond, Mapping):
        return {name: torch.full_like(value, _unknown(value)) for name, value in cond.items()}
    return torch.full_like(cond, _unknown(cond))


def drop(cond: Cond, rows: Tensor) -> Cond:
    """The same condition with the ``rows``, a bool tensor ``(B,)``, made unknown."""
    if isinstance(cond, Mapping):
        return {name: value.masked_fill(expand(rows, value), _unknown(value)) for name, value in cond.items()}
    return cond.masked_fill(expand(rows, cond), _unknown(cond))


def known(cond: Cond, count: int) -> Tensor:
    """Which of ``count`` rows have a condition of which anything is known, bool ``(count,)``."""
    if isinstance(cond, Mapping):
        found = [known(value, count) for value in cond.values()]
        return torch.stack(found).any(0) if found else torch.zeros(count, dtype=torch.bool)
    unknown = cond.isnan() if cond.is_floating_point() else cond < 0
    return ~unknown.reshape(count, -1).all(1)


def take(cond: Cond | None, index: Tensor) -> Cond | None:
    """The rows ``index`` of a condition, in that order."""
    if cond is None:
        return None
    if isinstance(cond, Mapping):
        return {name: value[index] for name, value in cond.items()}
    return cond[index]
