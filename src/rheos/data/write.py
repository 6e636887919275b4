"""Samples as files: one picture of a grid, a folder of pictures, or arrays. A file gets its name once whole."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..core import InputError, ShapeError
from ..core.files import write_whole

SHOWN_SIDE = 32
"""Images with a smaller side are magnified by a whole factor up to it."""


def grid_image(samples: Tensor, columns: int | None = None, padding: int = 2, scale: int | None = None) -> Image.Image:
    """Samples side by side on white, row after row.

    Args:
        samples: uint8 ``(N, C, H, W)`` with C 1 or 3.
        columns: images a row; the least square that holds them when left out.
        padding: white pixels around each.
        scale: magnification, each pixel becoming a square; when left out the largest that keeps the side within 32 (8 x
            8 digits are shown four times as large), and at least 1.

    Raises:
        ShapeError: if the samples are no images.
    """
    _check(samples)
    count, channels, height, width = samples.shape
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    scale = scale or max(1, SHOWN_SIDE // max(height, width))
    if columns < 1 or padding < 0 or scale < 1:
        raise InputError(f"a grid has columns and scale >= 1 and padding >= 0, got {columns}, {scale} and {padding}.")
    tiles = samples.cpu().repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    tall, wide = height * scale + padding, width * scale + padding
    rows = math.ceil(count / columns)
    sheet = torch.full((rows * tall + padding, columns * wide + padding, channels), 255, dtype=torch.uint8)
    for place, tile in enumerate(tiles):
        top, left = place // columns * tall + padding, place % columns * wide + padding
        sheet[top : top + height * scale, left : left + width * scale] = tile.permute(1, 2, 0)
    return _picture(sheet)


def write_png(path: str | Path, samples: Tensor, columns: int | None = None) -> None:
    """Write the :func:`grid_image` of samples, uint8 ``(N, C, H, W)``."""
    write_whole(Path(path), _png(grid_image(samples, columns)))


def write_folder(
    path: str | Path, samples: Tensor, labels: Tensor | None = None, classes: Sequence[str] | None = None
) -> None:
    """Write one PNG a sample, ``00000.png`` upward; with labels, each in the folder of its class.

    What is written can be read again by :func:`rheos.data.open_images`.

    Args:
        path: a folder that does not exist yet or is empty.
        samples: uint8 ``(N, C, H, W)``.
        labels: int64 ``(N,)``.
        classes: names of the folders; the labels' numbers when left out.

    Raises:
        InputError: if the folder holds something, or a label has no name.
    """
    _check(samples, labels)
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(
            f"{path} exists and is not an empty folder; name another one, so that old and new samples do not mix."
        )
    folders = [""] * len(samples) if labels is None else _folders(labels, classes)
    digits = max(5, len(str(len(samples) - 1)))
    for number, (sample, folder) in enumerate(zip(samples.cpu(), folders, strict=True)):
        write_whole(path / folder / f"{number:0{digits}d}.png", _png(_picture(sample.permute(1, 2, 0))), sync=False)


def write_npz(path: str | Path, samples: Tensor, labels: Tensor | None = None) -> None:
    """Write arrays ``samples``, uint8 ``(N, H, W, C)``, and ``labels``, int64 ``(N,)``, where there are labels."""
    _check(samples, labels)
    arrays = {"samples": np.ascontiguousarray(samples.cpu().permute(0, 2, 3, 1).numpy())}
    if labels is not None:
        arrays["labels"] = labels.cpu().numpy()
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    write_whole(Path(path), buffer.getvalue())


def _check(samples: Tensor, labels: Tensor | None = None) -> None:
    if samples.dtype != torch.uint8 or samples.dim() != 4 or samples.shape[1] not in (1, 3) or 0 in samples.shape:
        raise ShapeError(f"images are uint8 (N, 1 or 3, H, W), got {samples.dtype} {tuple(samples.shape)}.")
    if labels is not None and labels.shape != samples.shape[:1]:
        raise ShapeError(f"{len(samples)} images need labels ({len(samples)},), got {tuple(labels.shape)}.")


def _folders(labels: Tensor, classes: Sequence[str] | None) -> list[str]:
    names = list(classes) if classes else [str(label) for label in range(int(labels.max()) + 1)]
    if int(labels.min()) < 0 or int(labels.max()) >= len(names):
        raise InputError(f"labels run from {int(labels.min())} to {int(labels.max())}, there are {len(names)} classes.")
    for name in names:
        if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise InputError(f"a class named {name!r} cannot name a folder.")
    return [names[label] for label in labels.tolist()]


def _picture(pixels: Tensor) -> Image.Image:
    """Bytes ``(H, W, C)`` as a picture."""
    array = pixels.contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
