"""A run that is killed at random moments equals one that was never disturbed, bit by bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rheos.training.journal import CLOCK

SCRIPT = Path(__file__).with_name("tiny_run.py")


def start(out: Path, *options: object) -> subprocess.Popen[bytes]:
    """The run as a process group of its own, so that a kill takes its workers too."""
    command = [sys.executable, str(SCRIPT), str(out), *map(str, options)]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)


def kill(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_step(out: Path) -> int:
    return max((int(p.name[5:]) for p in (out / "checkpoints").glob("step-*")), default=-1)


def traces(out: Path) -> dict[str, object]:
    """Everything a run left that does not tell of the machine's clock."""
    found: dict[str, object] = {}
    for path in sorted([*out.glob("checkpoints/*/*"), *out.glob("snapshots/*/*"), *out.glob("samples-*.npy")]):
        found[str(path.relative_to(out))] = path.read_bytes()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    found["metrics"] = [{k: v for k, v in line.items() if k not in CLOCK} for line in lines]
    return found


def disturb(out: Path, options: tuple[object, ...], kills: int, chance: random.Random) -> int:
    """Run to the end, with kills on the way; gives how many there were."""
    done = 0
    while True:
        process = start(out, *options)
        before, deadline = last_step(out), time.monotonic() + 120
        while process.poll() is None and last_step(out) <= before:
            assert time.monotonic() < deadline, "the run makes no way"
            time.sleep(0.01)
        if done < kills:
            time.sleep(chance.uniform(0, 0.15))
        if done == kills or process.poll() is not None:
            assert process.wait() == 0
            return done
        kill(process)
        done += 1


def compare(tmp_path: Path, kills: dict[int, int], *options: object) -> None:
    """An unbroken run against one that is killed, for each number of workers that often."""
    whole = start(tmp_path / "whole", *options)
    counts = {}
    for workers, wanted in kills.items():
        given = (*options, "--workers", workers)
        counts[workers] = disturb(tmp_path / f"killed-{workers}", given, wanted, random.Random(workers))
    assert whole.wait() == 0
    expected = traces(tmp_path / "whole")
    for workers in kills:
        assert 2 * counts[workers] >= kills[workers]
        found = traces(tmp_path / f"killed-{workers}")
        assert found.keys() == expected.keys()
        assert [name for name in expected if expected[name] != found[name]] == []


def test_kills_leave_no_trace(tmp_path: Path) -> None:
    compare(tmp_path, {0: 2, 2: 1}, "--steps", 400)


@pytest.mark.slow
@pytest.mark.parametrize("coupling", ["ot", "store"])
def test_kills_of_a_run_that_joins_ahead_leave_no_trace(tmp_path: Path, coupling: str) -> None:
    compare(tmp_path, {0: 6, 2: 4}, "--steps", 1200, "--checkpoint-every", 50, "--coupling", coupling)


@pytest.mark.slow
def test_twenty_kills_leave_no_trace(tmp_path: Path) -> None:
    compare(tmp_path, {0: 20, 2: 20}, "--steps", 3000, "--checkpoint-every", 50)
