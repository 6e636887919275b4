"""Images stored as arrays, in ``.npz`` and ``.npy`` files.

Three layouts are read: ``(N, H, W)``, ``(N, H, W, C)`` and ``(N, C, H, W)``, with C one of 1, 3, 4 (where both axes
could be C it is the last). Bytes are 0 to 255; floating numbers lie in [0, 1] or [-1, 1], and the first is taken when
both hold.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..core import DataError
from .archive import TOTAL_LIMIT, inspect
from .labels import number_labels

IMAGE_KEYS = ("images", "x_train", "samples")
LABEL_KEYS = ("labels", "y_train", "y")


@final
@dataclass(frozen=True, eq=False)
class Stored:
    """Images of one size: bytes ``(N, H, W, C)`` with C 1 (grey), 3 (RGB) or 4 (RGBA), and their labels."""

    pixels: NDArray[np.uint8]
    labels: Tensor | None
    classes: tuple[str, ...]


def read_npz(path: Path) -> Stored:
    """The images of an ``.npz``: key ``images``, ``x_train`` or ``samples``, else the first array of 3 or 4 axes.

    Labels are under ``labels``, ``y_train`` or ``y``.

    Raises:
        DataError: if the file is damaged or a bomb, holds no images, or holds what are none.
    """
    inspect(path, TOTAL_LIMIT)
    try:
        with np.load(path, allow_pickle=False) as file:
            key = next((key for key in IMAGE_KEYS if key in file), None)
            key = key or next((key for key in file if np.ndim(file[key]) in (3, 4)), None)
            label_key = next((key for key in LABEL_KEYS if key in file), None)
            held, keys = {name: file[name] for name in (key, label_key) if name}, list(file)
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise _unreadable(path, error) from error
    if key is None:
        raise DataError(f"{path} has no array of images (3 or 4 axes); its keys are {', '.join(keys) or 'none'}.")
    pixels = to_bytes(held[key], f"{path}, key {key!r}")
    if label_key is None:
        return Stored(pixels, None, ())
    return Stored(pixels, *number_labels(held[label_key], len(pixels), f"{path}, key {label_key!r}"))


def read_npy(path: Path) -> Stored:
    """The images of an ``.npy``, without labels.

    Raises:
        DataError: if the file is damaged or holds what are no images.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(path, error) from error
    return Stored(to_bytes(values, str(path)), None, ())


def to_bytes(values: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """An array of images as bytes ``(N, H, W, C)``.

    Raises:
        DataError: if the shape, the type or the values are not those of images.
    """
    if values.ndim not in (3, 4) or 0 in values.shape[1:]:
        raise DataError(f"{where}: images have shape (N, H, W), (N, H, W, C) or (N, C, H, W), got {values.shape}.")
    if values.ndim == 3:
        values = values[..., None]
    elif values.shape[3] not in (1, 3, 4):
        if values.shape[1] not in (1, 3, 4):
            raise DataError(f"{where}: images have 1, 3 or 4 channels, first or last; got shape {values.shape}.")
        values = values.transpose(0, 2, 3, 1)
    if len(values) == 0:
        raise DataError(f"{where}: there are no images in an array of shape {values.shape}.")
    if values.dtype.kind == "b":
        return values.astype(np.uint8) * 255
    if values.dtype.kind in "iu":
        return _from_integers(values, where)
    if values.dtype.kind == "f":
        return _from_floats(values, where)
    raise DataError(f"{where}: images are uint8, other integers or floating numbers, got {values.dtype}.")


def _from_integers(values: NDArray[Any], where: str) -> NDArray[np.uint8]:
    least, most = values.min(), values.max()
    if least < 0 or most > 255:
        raise DataError(f"{where}: integer pixels run from 0 to 255, got {least} to {most}; rescale and save as uint8.")
    if most <= 1:
        raise DataError(
            f"{where}: all pixels are 0 or 1 of 255, which is black; multiply by 255, or save as bool or float."
        )
    return values.astype(np.uint8)


def _from_floats(values: NDArray[Any], where: str) -> NDArray[np.uint8]:
    unknown = int(np.count_nonzero(~np.isfinite(values)))
    if unknown:
        image = int(np.argwhere(~np.isfinite(values))[0][0])
        raise DataError(f"{where}: {unknown} of {values.size} values are NaN or infinite, the first in image {image}.")
    least, most = float(values.min()), float(values.max())
    if least < -1 or most > 1:
        mend = "divide by 255, or save as uint8" if least >= 0 and most <= 255 else "rescale them"
        raise DataError(f"{where}: floating pixels lie in [0, 1] or [-1, 1], got {least:.4g} to {most:.4g}; {mend}.")
    scaled = values.astype(np.float32) * 255 if least >= 0 else (values.astype(np.float32) + 1) * 127.5
    return scaled.round().astype(np.uint8)


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read as an array ({str(error).splitlines()[0] if str(error) else error!r}).")
