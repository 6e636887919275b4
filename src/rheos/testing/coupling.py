"""The laws of a coupling."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from ..core.protocols import Coupling, Pairs
from ..core.rng import Rng
from .law import SEED, agree, normal, require


def check_coupling(coupling: Coupling[Tensor], *, rows: int = 8, shape: tuple[int, ...] = (3,)) -> None:
    """Hold a coupling against its laws.

    Every row of the noise and of the data is used once, ``x0 = noise[i]`` and ``x1 = data[j]``; the same rng gives the
    same pairs; the arguments are left as they were; and a coupling that calls itself independent pairs without looking
    at the values.

    Args:
        coupling: the coupling.
        rows: rows of the batches to join.
        shape: the shape of a row.

    Raises:
        AssertionError: if a law is broken.
    """
    for count in (1, 2, rows):
        noise, data = normal(count, *shape), normal(count, *shape, stream=1)
        kept = noise.clone(), data.clone()
        pairs = _join(coupling, noise, data)
        require(
            torch.equal(noise, kept[0]) & torch.equal(data, kept[1]), "a coupling leaves its arguments as they are."
        )
        for name, index in (("i", pairs.i), ("j", pairs.j)):
            once = index.dtype == torch.int64 and torch.equal(index.sort().values, torch.arange(count))
            require(once, f"{name} uses every one of {count} rows once, in int64: it is {index.tolist()}.")
        agree("x0 is noise[i]", pairs.x0, noise[pairs.i], 0.0)
        agree("x1 is data[j]", pairs.x1, data[pairs.j], 0.0)
        gap = pairs.gap
        require(
            gap is None or (math.isfinite(gap) and gap >= 0), f"gap is finite and not negative, or None: it is {gap}."
        )
        again = _join(coupling, noise, data)
        same = torch.equal(again.i, pairs.i) and torch.equal(again.j, pairs.j)
        require(same, "the same noise, data and rng give the same pairs.")
    if coupling.independent:
        _check_independence(coupling, rows, shape)


def _check_independence(coupling: Coupling[Tensor], count: int, shape: tuple[int, ...]) -> None:
    noise = normal(count, *shape)
    first = _partner(_join(coupling, noise, normal(count, *shape, stream=2)))
    for stream in range(3, 8):
        other = _partner(_join(coupling, noise, normal(count, *shape, stream=stream)))
        require(
            torch.equal(first, other),
            "a coupling whose independent is True pairs the same rows whatever the data: others were paired otherwise.",
        )


def _join(coupling: Coupling[Tensor], noise: Tensor, data: Tensor) -> Pairs[Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return coupling(noise, data, None, Rng(SEED))


def _partner(pairs: Pairs[Tensor]) -> Tensor:
    """The row of the noise that goes with each row of the data."""
    return pairs.i[pairs.j.argsort()]
