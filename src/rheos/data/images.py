"""Images of any size and kind, as one value: bytes ``(C, size, size)`` by number, labels, and a fingerprint.

Each is the largest central square of its original, resampled. All of them are checked when the set is opened, and are
kept decoded in memory where that is small enough; a larger set is decoded as it is read, with the same result.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..core import DataError, InputError
from .archive import Archive
from .arrays import Stored, read_npy, read_npz
from .check import Checked, Progress, Report, check, common_size, reason_of
from .decode import decode, fit
from .folder import Folder, list_files
from .parquet import Parquet, training_files
from .source import Source

CACHE_BYTES = 1 << 30
KINDS = "a folder, a .zip, an .npz, an .npy or a .parquet"


@final
@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images that have been checked. Made by :func:`open_images` and :func:`digits`; workers get them pickled.

    Attributes:
        shape: ``(C, H, W)`` of every image; C is 1 (grey) or 3 (RGB), H = W.
        labels: int64 ``(N,)``, or ``None``.
        classes: the name of each label; empty without labels.
        fingerprint: SHA-256 over the readable images as they are stored (the bytes of the files, or of the arrays), in
            order, and over the labels and classes. File names, dates, the container and the size asked for do not
            enter, so a folder and a zip of it have one fingerprint.
        report: what the check found.
    """

    shape: tuple[int, int, int]
    labels: Tensor | None
    classes: tuple[str, ...]
    fingerprint: str
    report: Report
    _members: Tensor
    _pixels: Tensor | None
    _source: Source | None = None

    def __len__(self) -> int:
        return len(self._members)

    def read(self, index: Tensor) -> Tensor:
        """The images ``index``, int64 ``(n,)``, as uint8 ``(n, C, H, W)``.

        Raises:
            DataError: if a file that was readable when the set was opened is no longer.
        """
        entries = self._members[index]
        if self._pixels is not None:
            return self._pixels[entries]
        assert self._source is not None, "a set holds pixels or knows where they are"
        channels, size, _ = self.shape
        out = torch.empty(len(entries), *self.shape, dtype=torch.uint8)
        for row, entry in enumerate(entries.tolist()):
            # As in the check: a decoder's error may be of nearly any class.
            try:
                out[row] = torch.from_numpy(decode(self._source.read(entry), size, channels))
            except Exception as error:
                name = self._source.names[entry]
                raise DataError(f"{name} was readable and no longer is: {reason_of(error)}; put it back.") from error
        return out

    def take(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """The images ``index`` as in :meth:`read`, and their labels."""
        return self.read(index), None if self.labels is None else self.labels[index]

    def subset(self, index: Tensor) -> ImageSet:
        """The images ``index`` as a set of their own, sharing the memory; classes stay as they are."""
        digest = _digest([self.fingerprint.encode(), index.numpy().tobytes()])
        labels = None if self.labels is None else self.labels[index]
        return replace(self, labels=labels, fingerprint=digest, _members=self._members[index])


def open_images(
    path: str | Path,
    size: int | None = None,
    channels: int | None = None,
    *,
    cache_bytes: int = CACHE_BYTES,
    progress: Progress | None = None,
) -> ImageSet:
    """Open and check images.

    Args:
        path: a folder of images or of class folders, a ``.zip`` of one, an ``.npz``, an ``.npy``, a ``.parquet`` file
            or a folder of them.
        size: the side of the squares that come out. When left out: the most common shorter side m, rounded down to a
            multiple of 4 if it is at most 64, else to a power of two of at most 256.
        channels: 1 (grey) or 3 (RGB). When left out: 1 if every image is grey.
        cache_bytes: decoded files are kept in memory when all fit into so many bytes (1 GiB). Arrays always are.
        progress: called with the number of files checked and the number of all.

    Raises:
        DataError: if the path does not exist, holds fewer than two images, is not safe to read, or more than 5 % of it
            is unreadable.
        MissingExtraError: if Parquet is to be read without pyarrow.
    """
    path = Path(path).expanduser()
    if size is not None and size < 1:
        raise InputError(f"the size of images is at least 1, got {size}.")
    if channels not in (None, 1, 3):
        raise InputError(f"images have 1 channel (grey) or 3 (RGB), got {channels}.")
    opened = _open(path)
    if isinstance(opened, Stored):
        return _from_stored(opened, str(path), size, channels)
    if len(opened.names) < 2:
        raise _too_few(str(path), len(opened.names), opened.ignored)
    return _from_checked(opened, check(opened, str(path), size, channels, cache_bytes, progress), str(path))


def digits() -> ImageSet:
    """Scikit-learn's 1,797 handwritten digits, 8 x 8, grey, ten classes. Their 17 levels, 0 to 16, become 0 to 255."""
    # Costs most of a second, which only those who want the digits should pay.
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(np.asarray(images) * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    stored = Stored(pixels, torch.from_numpy(np.asarray(labels).astype(np.int64)), tuple("0123456789"))
    return _from_stored(stored, "digits", 8, 1)


def _open(path: Path) -> Source | Stored:
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, siblings, n=1)
        hint = f"did you mean {path.parent / close[0]}?" if close else f"give {KINDS}."
        raise DataError(f"{path} does not exist; {hint}")
    if path.is_dir():
        folder = Folder(path)
        parts = [] if folder.names else [name for name in list_files(path) if _is_parquet(name)]
        return Parquet([path / part for part in training_files(parts)]) if parts else folder
    if _is_parquet(path.name):
        return Parquet([path])
    readers = {".zip": Archive, ".npz": read_npz, ".npy": read_npy}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} is not a set of images; give {KINDS}.")
    return reader(path)


def _is_parquet(name: str) -> bool:
    return name.lower().endswith((".parquet", ".pq"))


def _from_checked(source: Source, checked: Checked, where: str) -> ImageSet:
    members = checked.members
    if len(members) < 2:
        raise _too_few(where, len(members), source.ignored)
    labels = None if source.labels is None else source.labels[members]
    fingerprint = _digest([*checked.digests, *_label_parts(labels, source.classes)])
    shape = (checked.channels, checked.size, checked.size)
    kept = None if checked.pixels is not None else source
    return ImageSet(shape, labels, source.classes, fingerprint, checked.report, members, checked.pixels, kept)


def _from_stored(stored: Stored, where: str, size: int | None, channels: int | None) -> ImageSet:
    count, height, width, depth = stored.pixels.shape
    if count < 2:
        raise _too_few(where, count, 0)
    size = size or common_size([min(height, width)])
    channels = channels or (1 if depth == 1 else 3)
    shape = (channels, size, size)
    content = np.ascontiguousarray(stored.pixels)
    parts = [str(content.shape).encode(), content.tobytes(), *_label_parts(stored.labels, stored.classes)]
    if (depth, height, width) == shape:
        pixels = np.ascontiguousarray(content.transpose(0, 3, 1, 2))
    else:
        pixels = np.stack(
            [fit(Image.fromarray(image.squeeze(-1) if depth == 1 else image), size, channels) for image in content]
        )
    report = Report(count)
    return ImageSet(
        shape, stored.labels, stored.classes, _digest(parts), report, torch.arange(count), torch.from_numpy(pixels)
    )


def _label_parts(labels: Tensor | None, classes: Sequence[str]) -> list[bytes]:
    return [] if labels is None else [labels.numpy().tobytes(), "\0".join(classes).encode()]


def _digest(parts: list[bytes]) -> str:
    """SHA-256 over parts, each with its length so that no two lists of parts read the same."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _too_few(where: str, count: int, ignored: int) -> DataError:
    found = "no images" if count == 0 else "one image"
    others = f" among {ignored} other files" if ignored else ""
    return DataError(
        f"{where} holds {found}{others}; at least 2 are needed (.png, .jpg, .webp, .bmp, .gif, .tif, .ppm, .avif)."
    )
