"""A file that appears whole or not at all: what stood under its name stays until the new content is on the disk."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ..training.checkpoint import unwritable


def write_whole(file: Path, content: bytes | str) -> None:
    """Write a file under a hidden name beside its place, sync it, and rename it.

    Raises:
        CheckpointError: if the disk is full or cannot be written to; what was there before is there still.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}.draft")
    try:
        with draft.open("wb") as handle:
            handle.write(content.encode() if isinstance(content, str) else content)
            handle.flush()
            os.fsync(handle.fileno())
        draft.replace(file)
    except OSError as error:
        raise unwritable(file, error) from error
    finally:
        with suppress(OSError):
            draft.unlink()
