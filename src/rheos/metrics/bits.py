"""Bits per dimension: how many bits a model needs for one number of an image.

An image holds integers ``k`` in ``0 .. levels - 1``. Dequantised as ``x = low + (high - low)(k + u) / levels`` with
``u`` uniform on [0, 1), each integer becomes a cell of width ``w = (high - low) / levels``. Then ``log P(k) >= E_u
log p(x) + D log w`` (Theis et al. 2016), so ``-(log p(x) + D log w) / (D log 2)`` bounds the bits from above in
expectation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core import InputError, Rng


def bits_per_dimension(log_prob: Tensor, dims: int, levels: int = 256, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Bits per dimension ``(B,)`` from the log-density of dequantised data; log2(levels) for uniform noise.

    Args:
        log_prob: ``(B,)``, in nats, of ``x`` itself (in the range ``low .. high``), not of the integers.
        dims: D, the numbers in one image.
        levels: the number of integers.
        low: where level 0 begins.
        high: where the last level ends.

    Raises:
        InputError: if ``dims``, ``levels`` or the range is not positive.
    """
    _check(levels, low, high)
    if dims < 1:
        raise InputError(f"an image has at least one dimension, got dims = {dims}.")
    return log_prob / (-dims * math.log(2.0)) + math.log2(levels / (high - low))


def dequantise(
    images: Tensor, rng: Rng | torch.Generator | int, levels: int = 256, low: float = -1.0, high: float = 1.0
) -> Tensor:
    """Integers ``(B, ...)`` as float32 spread uniformly over their cells; row ``i`` depends on the i-th key alone.

    Raises:
        InputError: if the images are not integers in ``0 .. levels - 1``.
    """
    _check(levels, low, high)
    if images.is_floating_point() or images.is_complex() or images.dtype == torch.bool:
        raise InputError(f"only integers can be dequantised, got {images.dtype}; give the images before scaling.")
    if images.numel() and (int(images.min()) < 0 or int(images.max()) >= levels):
        raise InputError(
            f"levels must lie in 0 .. {levels - 1}, got {int(images.min())} .. {int(images.max())}; raise levels."
        )
    keys = Rng.of(rng).per_row(len(images), images.device)
    unit = keys.uniform(*images.shape[1:])
    return low + (high - low) / levels * (images + unit)


def _check(levels: int, low: float, high: float) -> None:
    if levels < 1 or not high > low:
        raise InputError(f"dequantising needs levels >= 1 and high > low, got {levels} and {low} .. {high}.")
