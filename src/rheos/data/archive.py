"""Zip files that strangers made.

Nothing is ever unpacked to disk: members are read one at a time, each no longer than the directory says. What the
directory says is checked first: no name may leave the archive, no member may be a link, and the sizes must be those of
images.
"""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, cast, final

from ..core import DataError
from .source import Source, by_folder, is_image, training_part

MEMBER_LIMIT = 1 << 28
"""Bytes that one unpacked member may have (256 MiB); no encoded image needs as many."""

TOTAL_LIMIT = 1 << 40
"""Bytes that all unpacked members may have together (1 TiB)."""

RATIO_LIMIT = 200
"""How many times larger than the archive its unpacked members may be. Images hardly shrink, bombs do a thousandfold."""

HARMLESS = 1 << 24
"""Bytes of unpacked members (16 MiB) below which the ratio does not matter: blank bitmaps shrink well."""


@final
class Archive(Source):
    """The images inside a zip, labelled by class folders as in a folder.

    Raises:
        DataError: if it is no zip, or one that is not safe to read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        members = inspect(path)
        found = sorted({member.filename for member in members if not member.is_dir()})
        self.names = training_part([name for name in found if is_image(name)])
        self.ignored = len(found) - len(self.names)
        self.labels, self.classes = by_folder(self.names, str(path))
        self._handle: tuple[int, zipfile.ZipFile] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def open(self, entry: int) -> BinaryIO:
        # A forked worker shares its parent's file position, so every process opens the archive for itself.
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = os.getpid(), zipfile.ZipFile(self.path)
        return cast(BinaryIO, self._handle[1].open(self.names[entry]))


def inspect(path: Path, member_limit: int = MEMBER_LIMIT) -> list[zipfile.ZipInfo]:
    """The members of a zip, once its directory has been found safe.

    Raises:
        DataError: names the archive, the member and what is wrong with it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path} is not a readable zip file ({error}); make or download it again.") from error
    total, packed = 0, max(path.stat().st_size, 1)
    for member in members:
        fault = _fault(member, member_limit)
        if fault:
            raise DataError(f"{path} is refused: its member {member.filename!r} {fault}.")
        total += member.file_size
    if total > TOTAL_LIMIT or (total > HARMLESS and total > RATIO_LIMIT * packed):
        raise DataError(
            f"{path} is refused: its {packed} bytes would unpack to {total}, as only a zip bomb does "
            f"(the limits are {RATIO_LIMIT} times its size and {TOTAL_LIMIT} bytes); if you trust it, unpack it and "
            f"give the folder."
        )
    return members


def _fault(member: zipfile.ZipInfo, member_limit: int) -> str | None:
    name = member.filename.replace("\\", "/")
    if name.startswith("/") or name[1:2] == ":":
        return "has an absolute path"
    if ".." in name.split("/"):
        return "has a path that leaves the archive"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a symbolic link"
    if member.flag_bits & 1:
        return "is encrypted"
    if member.file_size > member_limit:
        return f"would unpack to {member.file_size} bytes, more than {member_limit}"
    return None
