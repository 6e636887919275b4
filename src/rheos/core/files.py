"""A file that appears whole or not at all: what stood under its name stays until the new content is on the disk."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from .errors import RheosError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_whole(file: Path, content: bytes | str, *, sync: bool = True) -> None:
    """Write a file under a hidden name beside its place, sync it, and rename it. Missing folders are made.

    Args:
        file: its place.
        content: what it holds; text as UTF-8.
        sync: wait for the disk; not worth while for each of many files that can be made again.

    Raises:
        RheosError: if the disk is full or cannot be written to; what was there before is there still.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}.draft")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write(draft, content.encode() if isinstance(content, str) else content, sync)
        draft.replace(file)
    except OSError as error:
        raise unwritable(file, error) from error
    finally:
        with suppress(OSError):
            draft.unlink()


def write(file: Path, content: bytes, sync: bool = True) -> None:
    """Write a file, and wait until it is on the disk."""
    with file.open("wb") as handle:
        handle.write(content)
        if sync:
            handle.flush()
            os.fsync(handle.fileno())


def unwritable(path: Path, error: OSError) -> RheosError:
    """The error for a file or folder that could not be written."""
    full = error.errno in _FULL
    reason = "the disk is full" if full else error.strerror or str(error)
    mend = "free some space" if full else "mend that"
    return RheosError(
        f"{path} could not be written: {reason}. Nothing that was saved before is lost; {mend} and run the same "
        "command again."
    )
