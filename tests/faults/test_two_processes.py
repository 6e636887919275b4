"""One and two processes train the same run: the same rows, the same noise, sums in another order."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rheos.cli import main
from rheos.training.journal import CLOCK

SCRIPT = Path(__file__).with_name("tiny_run.py")
STEPS = "30"


def launch(out: Path, world: int, *options: str) -> None:
    """So many processes of a tiny run."""
    together(world, str(SCRIPT), str(out), "--steps", STEPS, *options)


def together(world: int, *words: str) -> None:
    """The processes that torchrun would start, without the seconds that its agent takes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in range(world):
        names = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
        environment = {**os.environ, **names, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        processes.append(subprocess.Popen([sys.executable, *words], env=environment))
    assert [process.wait(120) for process in processes] == [0] * world


@pytest.mark.parametrize(
    ("accumulate", "coupling", "objective"),
    [
        pytest.param("1", "independent", "matching", marks=pytest.mark.slow),
        ("2", "independent", "matching"),
        ("2", "ot", "matching"),
        # Its targets are forward-mode derivatives, which no exchange of gradients may miss.
        ("1", "independent", "lagrangian"),
    ],
)
def test_two_processes_equal_one(tmp_path: Path, accumulate: str, coupling: str, objective: str) -> None:
    options = ("--coupling", coupling, "--objective", objective)
    launch(tmp_path / "one", 1, *options)
    launch(tmp_path / "two", 2, "--accumulate", accumulate, *options)
    for part in ("model", "ema", "power"):
        path = f"checkpoints/step-0000{STEPS}/{part}.safetensors"
        one, two = load_file(tmp_path / "one" / path), load_file(tmp_path / "two" / path)
        assert one.keys() == two.keys()
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5)
    curves = []
    for name in ("one", "two"):
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        curves.append([[v for k, v in line.items() if k not in CLOCK] for line in lines])
    torch.testing.assert_close(torch.tensor(curves[1]), torch.tensor(curves[0]), rtol=1e-4, atol=1e-5)
    # One process goes on with what two began.
    launch(tmp_path / "two", 1, "--steps", "40", *options)
    assert (tmp_path / "two" / "checkpoints/step-000040").is_dir()


def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    """Which the first moments gather; at the first step the layers below the last have none."""
    moments = []
    for name, world in (("one", 1), ("two", 2)):
        launch(tmp_path / name, world, "--steps", "3", "--objective", "lagrangian")
        kept = load_file(tmp_path / name / "checkpoints/step-000003/optimizer.safetensors")
        moments.append({key: value for key, value in kept.items() if key.startswith("exp_avg/")})
    one, two = moments
    assert one.keys() == two.keys()
    for name, value in one.items():
        size = float(value.abs().max())
        assert size > 0
        torch.testing.assert_close(two[name], value, rtol=0, atol=min(1e-6, 1e-3 * size))


def test_two_processes_make_the_pairs_of_one(tmp_path: Path) -> None:
    """Each makes its share, and both learn from all."""
    small = ("--steps", "10", "--width", "8", "--batch", "16")
    assert main(["train", "toy", *small, "--out", str(tmp_path / "teacher")]) == 0
    words = ("distill", str(tmp_path / "teacher"), "--to", "reflow", "--pairs", "4500", "--training-steps", "4")
    for name, world in (("one", 1), ("two", 2)):
        together(world, "-m", "rheos", *words, "--out", str(tmp_path / name))
    for number in range(3):
        file = f"reflow/shard-{number:05d}/pairs.safetensors"
        assert (tmp_path / "two" / file).read_bytes() == (tmp_path / "one" / file).read_bytes()
    weights = "checkpoints/step-000004/model.safetensors"
    one, two = load_file(tmp_path / "one" / weights), load_file(tmp_path / "two" / weights)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-6)
