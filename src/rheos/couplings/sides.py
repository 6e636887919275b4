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
    require_one_device(x0, x1)
    x, y = rows_of(x0), rows_of(x1)
    require_finite(x, y)
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype), y.to(dtype)


def require_one_device(x0: Tensor, x1: Tensor) -> None:
    """Raise :class:`InputError` for noise and data on two devices."""
    if x0.device != x1.device:
        raise InputError(f"noise and data must be on one device, got {x0.device} and {x1.device}.")


def require_finite(noise: Tensor, data: Tensor) -> None:
    """Raise :class:`InputError` where a distance between noise and data, as rows, is not finite."""
    if not math.isfinite(torch.linalg.vector_norm(noise) * torch.linalg.vector_norm(data)):
        raise InputError("a distance between noise and data is not finite; look for NaN or infinity in the data.")
