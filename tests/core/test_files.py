"""A file appears whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rheos.core import RheosError
from rheos.core.files import write_whole


def test_a_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "report.html"
    write_whole(file, "first")
    # A reader that opened the former file goes on reading it: the new one took its name, not its place.
    with file.open() as reader:
        write_whole(file, "other")
        assert reader.read() == "first"
    write_whole(file, b"first")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RheosError, match="the disk is full"):
            write_whole(file, "second")
    assert file.read_text() == "first"
    assert list(tmp_path.iterdir()) == [file]
