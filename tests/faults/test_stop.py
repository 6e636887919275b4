"""SIGTERM and Ctrl-C save at the end of the step; the run then goes on as if nothing had been."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("tiny_run.py")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_at_the_steps_end(tmp_path: Path, number: signal.Signals, code: int) -> None:
    # So long, and so rarely saved, that only the signal can have written what is found.
    command = [sys.executable, str(SCRIPT), str(tmp_path), "--steps", "1000000", "--checkpoint-every", "1000000"]
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "metrics.jsonl").exists() or not (tmp_path / "metrics.jsonl").read_bytes():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(60) == code
    saved = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert saved[0] == "step-000000"
    assert len(saved) == 2
