"""A folder of image files, with or without class sub-folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, final

from .source import Source, by_folder, is_image, training_part


@final
class Folder(Source):
    """The images below a folder at any depth, links followed, sorted by relative path. Hidden files are ignored."""

    def __init__(self, root: Path) -> None:
        self.root = root
        found = list_files(root)
        self.names = training_part([name for name in found if is_image(name)])
        self.ignored = len(found) - len(self.names)
        self.labels, self.classes = by_folder(self.names, str(root))

    def open(self, entry: int) -> BinaryIO:
        return open(self.root / self.names[entry], "rb")


def list_files(root: Path) -> list[str]:
    """All files below ``root`` as sorted relative paths with forward slashes. No folder is entered twice."""
    found: list[str] = []
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        below = Path(folder).relative_to(root)
        found.extend((below / name).as_posix() for name in files)
    return sorted(found)
