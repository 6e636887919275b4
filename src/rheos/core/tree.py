"""States and rates as trees: a tensor, or a tuple of trees (a pair of positions and log-densities, an image with its
text).

Solvers combine rates and nothing else, so these few functions are all the algebra they need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .time import expand

Tree = Any
"""A tensor, or a tuple of trees. An object that is neither is a leaf and is passed on as it is."""


def leaves(tree: Tree) -> list[Tensor]:
    """The tensors of a tree, from left to right."""
    if isinstance(tree, tuple):
        return [leaf for part in tree for leaf in leaves(part)]
    # A tensor has a method of the name that a Ragged gives its elements.
    values = tree if isinstance(tree, Tensor) else getattr(tree, "values", None)
    return [values] if isinstance(values, Tensor) else []


def batch(tree: Tree) -> int:
    """The number of samples: the first axis of the first tensor."""
    return leaves(tree)[0].shape[0]


def transform(function: Callable[..., Any], *trees: Tree) -> Tree:
    """Apply ``function`` to the leaves that stand at the same place of every tree."""
    if isinstance(trees[0], tuple):
        return tuple(transform(function, *parts) for parts in zip(*trees, strict=True))
    return function(*trees)


def combine(weights: Sequence[float | Tensor], rates: Sequence[Tree]) -> Tree:
    """The weighted sum of rates. A weight is a number or a tensor whose shape is a prefix of each leaf's."""
    if isinstance(rates[0], tuple):
        return tuple(combine(weights, parts) for parts in zip(*rates, strict=True))
    total = None
    for weight, rate in zip(weights, rates, strict=True):
        if isinstance(weight, Tensor):
            weight = expand(weight, rate)
            total = rate * weight if total is None else torch.addcmul(total, rate, weight)
        elif weight == 0.0:
            continue
        elif total is None:
            total = rate if weight == 1.0 else rate * weight
        else:
            total = torch.add(total, rate, alpha=weight)
    return rates[0] * 0.0 if total is None else total
