"""From data to data: sneakers to boots, on Fashion-MNIST.

    RHEOS_DATA=... python bench/translation.py [--seeds 3] [--steps 1500]

A flow starts at training images of sneakers instead of noise and ends at boots, joined by optimal transport in one run
and independently in the other, on equal budgets. The test set's sneakers are carried along it, in 10 and in 100
evaluations. Kept: the share that a classifier of all ten classes reads as boots (beside what it reads of real test
boots), and the mean squared distance that an image is moved, over that of independent pairs of the same images.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from machine import keep
from rheos import nn as networks
from rheos.core import Coupling, Rng, integrate
from rheos.couplings import BatchOT, Independent
from rheos.data import Shuffled, Tensors, to_uint8, to_unit
from rheos.metrics import Classifier, train_classifier
from rheos.objectives import Matching, Samples
from rheos.objectives.times import Uniform
from rheos.solvers import AdamsBashforth, grids
from rheos.training import Training, fit

SNEAKER, BOOT = 7, 9
BUDGETS = (5, 10, 100)


def opened() -> dict[str, Tensor]:
    if "RHEOS_DATA" not in os.environ:
        sys.exit("set RHEOS_DATA to the folder that holds fashion_mnist.npz")
    with np.load(Path(os.environ["RHEOS_DATA"]) / "fashion_mnist.npz") as stored:
        found = {key: torch.from_numpy(stored[key]) for key in stored}
    return {key: to_unit(value)[:, None] if key.startswith("x") else value.long() for key, value in found.items()}


def trained(start: Tensor, end: Tensor, coupling: Coupling[Any], steps: int, seed: int) -> tuple[Any, Any]:
    """The averaged network and its objective."""
    with networks.seeded(seed):
        network = networks.UNet(1, 16, (1, 2), 1, patch=2)
    objective = Matching(coupling=coupling, source=Samples(start), times=Uniform(stratified=True))
    settings = Training(
        steps=steps, batch=64, snapshots=0, sample_every=0, checkpoint_every=steps, channels_last=True, pairs=1024
    )
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(network, objective, Tensors(end), Shuffled(len(end)), settings, seed=seed, out=Path(folder))
    return fitted.average.eval(), objective


def cost(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().flatten(1).sum(1).mean())


def carried(network: Any, objective: Any, start: Tensor, ends: Tensor, classifier: Classifier) -> dict[str, Any]:
    """The figures of given starts, by the number of evaluations."""
    shuffled = Rng(0).permutation(len(ends))[: len(start)]
    independent = cost(start[: len(shuffled)], ends[shuffled])
    found = {}
    for budget in BUDGETS:
        with torch.no_grad():
            flow = objective.dynamics(network)
            parts = [integrate(AdamsBashforth(2), flow, x, grids.Uniform()(budget)).x for x in start.split(250)]
        moved = torch.cat(parts)
        read = classifier.predict(to_unit(to_uint8(moved)))
        found[str(budget)] = {
            "read as boots": float((read == BOOT).double().mean()),
            "cost over independent": cost(start, moved) / independent,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1_500)
    given = parser.parse_args()
    data = opened()
    classifier = train_classifier(data["x_train"], data["y_train"], Rng(0))
    sneakers, boots = (data["x_train"][data["y_train"] == label] for label in (SNEAKER, BOOT))
    test_sneakers, test_boots = (data["x_test"][data["y_test"] == label] for label in (SNEAKER, BOOT))
    real = float((classifier.predict(test_boots) == BOOT).double().mean())
    found: dict[str, Any] = {"device": "cpu", "steps": given.steps, "real boots read as boots": real, "runs": []}
    for name, coupling in (("optimal transport", BatchOT()), ("independent", Independent())):
        for seed in range(given.seeds):
            network, objective = trained(sneakers, boots, coupling, given.steps, seed)
            figures = carried(network, objective, test_sneakers, boots, classifier)
            found["runs"].append({"coupling": name, "seed": seed, "figures": figures})
            print(name, seed, figures, flush=True)
    keep("translation", found)


if __name__ == "__main__":
    main()
