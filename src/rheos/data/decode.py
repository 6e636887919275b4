"""From the bytes of an image file to ``(C, size, size)`` bytes of pixels.

In this order: the file's orientation is respected, 16-bit grey is brought to 8 bits, transparency is laid on white,
colours become grey or RGB, the largest central square is cut out and resampled by Lanczos's filter (which smooths when
it shrinks). An image of the right size passes through unchanged.
"""

from __future__ import annotations

import io
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

# Only formats that are decoded in this process: Pillow hands others (EPS) to external programs.
FORMATS = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "PPM": (".ppm", ".pgm", ".pbm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)

PIXEL_LIMIT = 1 << 26
"""Pixels that an image may have (64 Mi). A file of a few bytes can claim thousands of times as many."""

_GREY = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"})
_WIDE = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})


def probe(file: BinaryIO) -> tuple[int, bool]:
    """The shorter side of an image, and whether it is grey, from its header alone."""
    with _open(file) as image:
        return min(image.size), image.mode in _GREY


def decode(data: bytes, size: int, channels: int) -> NDArray[np.uint8]:
    """The pixels ``(channels, size, size)`` of an encoded image.

    Raises:
        Exception: of whatever kind the decoder meets; files are hostile and decoders raise nearly anything.
    """
    with _open(io.BytesIO(data)) as image:
        # A JPEG can be decoded at 1/2, 1/4 or 1/8; twice the size keeps all that the filter needs.
        image.draft(None, (2 * size, 2 * size))
        return fit(ImageOps.exif_transpose(image), size, channels)


def fit(image: Image.Image, size: int, channels: int) -> NDArray[np.uint8]:
    """The central square of an image, resampled to ``(channels, size, size)``, with 1 channel (grey) or 3 (RGB)."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    if image.mode in _WIDE:
        image = Image.fromarray(_narrow(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    image = image.convert("L" if channels == 1 else "RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # Cut first: given a box, Pillow's filter would still reach for pixels outside of it.
    image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.array(image).reshape(size, size, channels).transpose(2, 0, 1))


def _open(file: BinaryIO) -> Image.Image:
    Image.init()
    image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
    if image.width * image.height > PIXEL_LIMIT:
        raise ValueError(f"it has {image.width} x {image.height} pixels, more than {PIXEL_LIMIT}")
    return image


def _narrow(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """16-bit grey as 8-bit: 65535 is 257 times 255."""
    wide = values.astype(np.int64)
    if wide.min() < 0 or wide.max() > 0xFFFF:
        raise ValueError(f"its pixels run from {wide.min()} to {wide.max()}; 16 bits end at 65535")
    return ((wide + 128) // 257).astype(np.uint8)
