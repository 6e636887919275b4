"""A full disk stops the run with one sentence, and nothing that was saved is lost."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from rheos.core import RheosError
from rheos.training import checkpoint

SCRIPT = Path(__file__).with_name("tiny_run.py")


def test_a_write_that_fails_leaves_the_former_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint.step_folder(tmp_path, 7)
    checkpoint.write(folder, [("a.bin", b"first"), ("b.bin", b"second")])
    written = []

    def full(path: Path, content: bytes) -> None:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        path.write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_file", full)
        with pytest.raises(RheosError, match=r"step-000007 could not be written: the disk is full.*free some space"):
            checkpoint.write(folder, [("a.bin", b"third"), ("b.bin", b"fourth")])
    checkpoint.verify(folder)
    assert (folder / "b.bin").read_bytes() == b"second"
    assert [p.name for p in tmp_path.iterdir()] == ["step-000007"]


def test_a_run_that_cannot_write_says_so_and_goes_on_later(tmp_path: Path) -> None:
    def run(steps: int, *options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPT), str(tmp_path), "--steps", str(steps), *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run(20).returncode == 0
    before = {p: p.read_bytes() for p in (tmp_path / "checkpoints").rglob("*") if p.is_file()}
    assert before
    # A limit on the size of a file, as a disk gives it that fills up in the middle of one.
    starved = run(40, "--largest-file", "8000")
    assert starved.returncode == 2, starved.stderr
    assert "the disk is full" in starved.stderr
    assert "Traceback" not in starved.stderr
    for path, content in before.items():
        assert path.read_bytes() == content
    assert run(40).returncode == 0
    assert (tmp_path / "checkpoints" / "step-000040").is_dir()
