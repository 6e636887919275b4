"""A small run as a program of its own, to be killed, stopped, starved and distributed.

``python tiny_run.py OUT [--name value]`` leaves the run folder, and samples as .npy files in it.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import sys
from pathlib import Path

import numpy as np
import torch

from rheos import nn, objectives, training
from rheos.core import RheosError, Rng
from rheos.couplings import BatchOT, Independent, PairStore
from rheos.data import Shuffled, Tensors

OBJECTIVES = {"matching": objectives.Matching, "lagrangian": objectives.lagrangian, "shortcut": objectives.shortcut}
COUPLINGS = {"independent": Independent(), "ot": BatchOT(), "store": PairStore(BatchOT())}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--coupling", choices=COUPLINGS, default="independent")
    parser.add_argument("--objective", choices=OBJECTIVES, default="matching")
    parser.add_argument("--checkpoint-every", type=int, default=20)
    parser.add_argument("--largest-file", type=int, default=0)
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    if given.largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (given.largest_file, given.largest_file))

    rng = Rng(1)
    coupling = COUPLINGS[given.coupling]
    labels = torch.arange(200) % 4 if coupling.independent else None
    data = Tensors(rng.rows(torch.arange(200)).normal(3), labels)
    with nn.seeded(2):
        # Dropout, so that a run whose masks were not resumed would differ.
        dropout = 0.0 if "WORLD_SIZE" in os.environ else 0.1
        network = nn.MLP(3, 16, 2, classes=4, dropout=dropout, two_times=given.objective != "matching")
    settings = training.Training(
        steps=given.steps,
        batch=16,
        accumulate=given.accumulate,
        workers=given.workers,
        pairs=40,
        log_every=7,
        sample_every=45,
        checkpoint_every=given.checkpoint_every,
        snapshots=4,
    )

    def draw_samples(step: int, average: torch.nn.Module) -> None:
        x = average(Rng(5).rows(torch.arange(8)).normal(3), torch.full((8,), 0.5), torch.arange(8) % 4)
        np.save(given.out / f"samples-{step:06d}.npy", x.numpy())

    try:
        training.fit(
            network,
            OBJECTIVES[given.objective](coupling=coupling),
            data,
            Shuffled(len(data)),
            settings,
            seed=3,
            out=given.out,
            draw_samples=draw_samples,
            progress=False,
        )
    except training.Stopped as stopped:
        return stopped.code
    except RheosError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
