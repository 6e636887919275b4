"""Labels as users store them, as numbers 0 .. K-1 with names."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core import DataError

CLASS_LIMIT = 1 << 16
"""Classes that labels may name; identifiers and measurements given by mistake go far beyond."""


def number_labels(values: NDArray[Any], count: int, where: str) -> tuple[Tensor, tuple[str, ...]]:
    """Labels int64 ``(count,)`` and the names of the classes.

    Integers stand for themselves, ``K`` being one more than the largest; strings are numbered in sorted order.

    Raises:
        DataError: if there is not one label an image, or one is no class: negative, fractional, or beyond the limit.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (count,):
        raise DataError(
            f"{where}: there are {count} images but labels of shape {values.shape}; give one whole number "
            f"or one name an image."
        )
    if values.dtype.kind in "USO":
        names, numbers = np.unique(values.astype(str), return_inverse=True)
        return torch.from_numpy(numbers.astype(np.int64)), tuple(names.tolist())
    whole = values.dtype.kind in "iub" or (values.dtype.kind == "f" and bool((values == np.floor(values)).all()))
    if not whole or values.min() < 0 or values.max() >= CLASS_LIMIT:
        raise DataError(
            f"{where}: labels are whole numbers from 0 to {CLASS_LIMIT - 1} or names, got {values.dtype} from "
            f"{values.min()} to {values.max()}."
        )
    return torch.from_numpy(values.astype(np.int64)), tuple(str(k) for k in range(int(values.max()) + 1))
