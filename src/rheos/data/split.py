"""Held-out data: datum i is held out when the hash of (seed, i), a uniform number, lies below the fraction."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core import DataError, InputError, Rng, Stream


def split(count: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """The indices to train on and those held out, both ascending int64.

    A datum's side does not depend on ``count``, so it keeps its side when the data grow. The number held out is
    therefore ``count * fraction`` give or take its square root, and at least one on either side: where the hash leaves
    a side empty, the datum nearest to it goes there.

    Args:
        count: the number of data, at least 2.
        fraction: the share held out, in (0, 1).
        seed: the seed of the hash.

    Raises:
        DataError: if there are fewer than two data.
        InputError: if the fraction is not inside (0, 1).
    """
    if count < 2:
        raise DataError(f"holding data out needs at least 2 of them, got {count}.")
    if not 0 < fraction < 1:
        raise InputError(f"the held-out fraction must lie between 0 and 1, got {fraction}.")
    hashes = Rng(seed).fold(Stream.ORDER).rows(torch.arange(count)).uniform(dtype=torch.float64)
    held = hashes < fraction
    if not held.any():
        held[hashes.argmin()] = True
    if held.all():
        held[hashes.argmax()] = False
    return (~held).nonzero().squeeze(1), held.nonzero().squeeze(1)
