"""Where encoded images lie: named entries, opened by number, in an order in which the file system has no say."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import BinaryIO

import torch
from torch import Tensor

from rheos.core import DataError

from .decode import SUFFIXES


class Source(ABC):
    """Encoded images. It is sent to worker processes, so it pickles without its open files.

    Attributes:
        names: what reports call each entry.
        labels: int64 ``(N,)``, or ``None``.
        classes: the name of each label.
        ignored: files that were found beside the images and are none.
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


def by_folder(names: Sequence[str], where: str) -> tuple[Tensor | None, tuple[str, ...]]:
    """Labels from class folders: sorted by name, read below the folders that all images share.

    Args:
        names: paths with forward slashes, relative to ``where``.
        where: what holds them, for messages.

    Raises:
        DataError: if some images lie in class folders and others beside these.
    """
    folders = [tuple(name.split("/")[:-1]) for name in names]
    # What the first and the last in sorted order share, all share.
    ends = zip(min(folders, default=()), max(folders, default=()), strict=False)
    depth = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], ends))
    top = [folder[depth] if len(folder) > depth else None for folder in folders]
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
