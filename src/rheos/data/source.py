"""Where encoded images lie: named entries, opened by number, in an order of their own."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import BinaryIO

import torch
from torch import Tensor

from ..core import DataError
from .decode import SUFFIXES

TRAINING = ("train", "training")
HELD_OUT = ("test", "testing", "val", "valid", "validation", "dev", "eval")


class Source(ABC):
    """Encoded images. It is sent to worker processes, so it pickles without its open files.

    Attributes:
        names: what reports call each entry.
        labels: int64 ``(N,)``, or ``None``.
        classes: the name of each label.
        ignored: files that were found beside the images: no images, or images of the held-out parts.
    """

    names: Sequence[str]
    labels: Tensor | None
    classes: tuple[str, ...]
    ignored: int

    @abstractmethod
    def open(self, entry: int) -> BinaryIO:
        """The encoded bytes of an entry, as a file."""

    def read(self, entry: int) -> bytes:
        """The encoded bytes of an entry."""
        with self.open(entry) as file:
            return file.read()


def is_image(name: str) -> bool:
    """Whether a name ends like an image's and is not one of the system files that look like it."""
    parts = PurePosixPath(name)
    return parts.suffix.lower() in SUFFIXES and not parts.name.startswith(".") and "__MACOSX" not in parts.parts


def training_part(names: Sequence[str]) -> list[str]:
    """The names in the folder ``train`` where it stands beside ``test`` and other parts of a data set only, else all.

    Parts taken for classes would teach a model which images are held out.
    """
    top = _top_folders(names)
    part = next((name for name in TRAINING if name in top), None)
    if part is None or not {str(name).lower() for name in top} <= {*TRAINING, *HELD_OUT}:
        return list(names)
    return [name for name, folder in zip(names, top, strict=True) if folder == part]


def by_folder(names: Sequence[str], where: str) -> tuple[Tensor | None, tuple[str, ...]]:
    """Labels from class folders: sorted by name, read below the folders that all images share.

    Args:
        names: paths with forward slashes, relative to ``where``.
        where: what holds them, for messages.

    Raises:
        DataError: if some images lie in class folders and others beside these.
    """
    top = _top_folders(names)
    classes = tuple(sorted({name for name in top if name is not None}))
    if not classes:
        return None, ()
    if None in top:
        raise DataError(
            f"{where} has class folders ({', '.join(classes[:3])}) and {top.count(None)} images beside them, such as "
            f"{names[top.index(None)]}; put every image into a class folder, or none."
        )
    number = {name: label for label, name in enumerate(classes)}
    return torch.tensor([number[name] for name in top if name is not None]), classes


def _top_folders(names: Sequence[str]) -> list[str | None]:
    """The first folder of each name below those that all names share, or ``None`` where there is no further one."""
    folders = [tuple(name.split("/")[:-1]) for name in names]
    # What the first and the last in sorted order share, all share.
    ends = zip(min(folders, default=()), max(folders, default=()), strict=False)
    depth = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], ends))
    return [folder[depth] if len(folder) > depth else None for folder in folders]
