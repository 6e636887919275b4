"""What a coupling that is computed ahead costs a training step.

    RHEOS_DATA=... python bench/prefetch.py [--rounds 5] [--steps 200]

Two cases. A network whose step takes about 50 ms, on Fashion-MNIST, with optimal transport of 4,096 pairs joined by
another process. A network whose step takes about 1 ms, in the plane, with pairs that were joined before (and, beside
it, pairs that are joined anew every epoch). Each is the same run as one with an independent coupling, in turn within
one process (A B A B ...); the figure is the median over rounds of the ratio of wall time a step. Training has one
thread, the couplers the other core; a run with two threads stands beside it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from machine import keep
from rheos import nn as networks
from rheos.core import Coupling, Rng
from rheos.couplings import BatchOT, Independent, PairStore
from rheos.data import Shuffled, Tensors, moons, to_unit
from rheos.objectives import Matching
from rheos.training import Training, fit

EVERY = 10
"""Steps between two looks at the clock."""

WARM = 2
"""Looks before the clock counts: the workers have started and the first blocks are there."""


def seconds_a_step(network: nn.Module, data: Tensors, coupling: Coupling[Any], settings: Training) -> float:
    """Mean wall seconds a step of a run with this coupling."""
    stamps: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        fit(
            network,
            Matching(coupling=coupling),
            data,
            Shuffled(len(data)),
            replace(settings, sample_every=EVERY, log_every=settings.steps, checkpoint_every=settings.steps),
            seed=0,
            out=Path(folder),
            draw_samples=lambda step, average: stamps.append(time.perf_counter()),
            progress=False,
            forecast=False,
        )
    # The last look comes before the last checkpoint.
    return (stamps[-1] - stamps[WARM]) / (EVERY * (len(stamps) - 1 - WARM))


def fashion() -> Tensors:
    if "RHEOS_DATA" not in os.environ:
        sys.exit("set RHEOS_DATA to the folder that holds fashion_mnist.npz")
    with np.load(Path(os.environ["RHEOS_DATA"]) / "fashion_mnist.npz") as stored:
        order = np.random.default_rng(0).permutation(len(stored["x_train"]))
        return Tensors(to_unit(torch.from_numpy(stored["x_train"][order]))[:, None])


def compare(
    build: Callable[[], nn.Module], data: Tensors, couplings: dict[str, Coupling[Any]], settings: Training, rounds: int
) -> dict[str, Any]:
    """Milliseconds a step without a coupling, and the ratio with each."""
    ratios: dict[str, list[float]] = {name: [] for name in couplings}
    plain: list[float] = []
    for number in range(rounds):
        alone = seconds_a_step(build(), data, Independent(), settings)
        plain.append(alone)
        for name, coupling in couplings.items():
            ratios[name].append(seconds_a_step(build(), data, coupling, settings) / alone)
        shown = ", ".join(f"{name} {values[-1]:.3f}" for name, values in ratios.items())
        print(f"round {number}: {1000 * alone:.2f} ms; {shown}", flush=True)
    return {
        "ms_a_step": 1000 * statistics.median(plain),
        **{name: {"ratio": statistics.median(values), "rounds": values} for name, values in ratios.items()},
    }


def unet() -> nn.Module:
    with networks.seeded(0):
        return networks.UNet(1, 16, (1, 2), 1, patch=2)


def mlp() -> nn.Module:
    with networks.seeded(0):
        return networks.MLP(2, 64, 3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=4096)
    given = parser.parse_args()
    found: dict[str, Any] = {"device": "cpu", "pairs": given.pairs}
    images = Training(steps=given.steps, batch=64, pairs=given.pairs, channels_last=True, snapshots=0, warmup=0.0)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        couplings: dict[str, Coupling[Any]] = {"optimal transport": BatchOT()}
        found[f"images, {threads} threads"] = compare(unet, fashion(), couplings, images, given.rounds)
    torch.set_num_threads(1)
    plane = replace(images, steps=10 * given.steps, batch=128, channels_last=False)
    couplings = {
        "pairs joined before": PairStore(BatchOT(), rounds=3, every=0),
        "pairs joined every epoch": PairStore(BatchOT()),
        "optimal transport": BatchOT(),
    }
    found["plane"] = compare(mlp, Tensors(moons(20_000, Rng(0))), couplings, plane, given.rounds)
    keep("prefetch", found)


if __name__ == "__main__":
    main()
