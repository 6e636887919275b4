"""Both sides of a batch as rows, checked."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core.errors import InputError, ShapeError


def rows_of(x: Tensor) -> Tensor:
    """The rows (n, d) of x (n, ...), in float32 or float64, without their history."""
    flat = x.detach().reshape(len(x), math.prod(x.shape[1:]))
    return flat if flat.dtype in (torch.float32, torch.float64) else flat.float()


def sides(x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    """Noise (n, ...) and data (m, ...) as rows of one type.

    Raises:
        ShapeError: if a noise is not shaped like a datum, or there is none.
        InputError: if they are on two devices, or a distance between them is not finite.
    """
    if 0 in (x0.dim(), x1.dim()) or x0.shape[1:] != x1.shape[1:] or not x0.numel() or not x1.numel():
        raise ShapeError(
            f"noise (n, ...) and data (m, ...) are of one shape a row and have at least one row each, got "
            f"{tuple(x0.shape)} and {tuple(x1.shape)}."
        )
    if x0.device != x1.device:
        raise InputError(f"noise and data must be on one device, got {x0.device} and {x1.device}.")
    x, y = rows_of(x0), rows_of(x1)
    dtype = torch.promote_types(x.dtype, y.dtype)
    if not math.isfinite(torch.linalg.vector_norm(x) * torch.linalg.vector_norm(y)):
        raise InputError("a distance between noise and data is not finite; look for NaN or infinity in the data.")
    return x.to(dtype), y.to(dtype)
