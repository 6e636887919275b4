"""Pixels as bytes and as numbers: byte b is ``b / 127.5 - 1`` in [-1, 1], and the way back is exact."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core import InputError, Rng, Stream, expand


def to_unit(pixels: Tensor) -> Tensor:
    """Bytes, uint8 of any shape, as float32 in [-1, 1].

    Raises:
        InputError: if the pixels are not uint8.
    """
    if pixels.dtype != torch.uint8:
        raise InputError(f"pixels are uint8, got {pixels.dtype}.")
    return pixels.to(torch.float32).div_(127.5).sub_(1.0)


def to_uint8(x: Tensor) -> Tensor:
    """Numbers as bytes: the nearest byte, those outside [-1, 1] clamped to the ends. ``to_uint8(to_unit(b)) == b``.

    Raises:
        InputError: if a value is NaN, which is no colour.
    """
    unknown = int(x.isnan().sum())
    if unknown:
        raise InputError(f"{unknown} of {x.numel()} values are NaN and cannot be shown as pixels.")
    return x.to(torch.float32).add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def flip(x: Tensor, rng: Rng) -> Tensor:
    """Mirror each image ``(B, C, H, W)`` left to right with probability 1/2, by the row's key (stream ``AUGMENT``)."""
    mirrored = rng.per_row(len(x), x.device).fold(Stream.AUGMENT).bits() < 0
    return torch.where(expand(mirrored, x), x.flip(-1), x)
