"""Quality against network evaluations for each coupling, at equal budgets of training.

    python bench/quality.py eight-gaussians moons digits [--seeds 3]
    RHEOS_DATA=... python bench/quality.py fashion [--seeds 3] [--steps 400]

Same network, initial weights, data order, noise, optimiser and number of steps for every coupling; another seed changes
all of them. Without labels: energy distance to fresh points in the plane; Frechet distance to the training images on
the features of a classifier trained beside. With labels (images and eight Gaussians): the share read as the class
asked for, and the same distances class by class, averaged. All budgets start from the same noise; the solver is AB2
(one evaluation: Euler) and, last, Dopri5. Kept: every figure, seconds of training and of fitting.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from machine import keep
from rheos import nn as networks
from rheos.core import Coupling, Rng, Solver, Stream, fits, integrate
from rheos.core.condition import take
from rheos.couplings import BatchOT, Conditional, Independent, Semidiscrete
from rheos.data import Shuffled, Tensors, digits, eight_gaussians, moons, to_uint8, to_unit
from rheos.metrics import energy_distance, frechet_distance, train_classifier
from rheos.objectives import Matching
from rheos.objectives.times import Uniform
from rheos.solvers import AdamsBashforth, Dopri5, grids
from rheos.training import Training, fit

BUDGETS = (1, 2, 4, 8, 10, 16, 32)
TOLERANCE = 1e-3
"""Of the adaptive solver, relative and absolute."""

ROWS = 500
"""Samples that are drawn together."""

Distance = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Case:
    """One set of data: what is trained on, what samples are held against, and how: ``real`` is described already."""

    x: Tensor
    labels: Tensor
    describe: Callable[[Tensor], Tensor]
    real: Tensor
    real_labels: Tensor
    classes: int
    build: Callable[[int], nn.Module]
    settings: Training
    distance: Distance
    read: Callable[[Tensor], Tensor]
    samples: int


def plane(points: Callable[[int, Rng], Tensor], steps: int | None) -> Case:
    """Points; the label is the eighth of the circle, in which each of eight Gaussians has one to itself."""
    x, real = points(20_000, Rng(1)), points(20_000, Rng(2))

    def read(x: Tensor) -> Tensor:
        return (torch.atan2(x[:, 1], x[:, 0]) / (torch.pi / 4)).round().long() % 8

    return Case(
        x=x,
        labels=read(x),
        describe=lambda drawn: drawn,
        real=real,
        real_labels=read(real),
        classes=8,
        build=lambda classes: networks.MLP(2, 128, 3, classes=classes),
        settings=Training(steps=steps or 4_000, batch=512, snapshots=0, sample_every=0, checkpoint_every=100_000),
        distance=energy_distance,
        read=read,
        samples=4_000,
    )


def pictures(x: Tensor, labels: Tensor, steps: int) -> Case:
    """Images (N, C, H, W) in [-1, 1]."""
    classifier = train_classifier(x, labels, Rng(0))
    side = x.shape[-1]
    patch = 1 if side <= 16 else 2

    return Case(
        x=x,
        labels=labels,
        # As a user gets them, in bytes.
        describe=lambda drawn: classifier.features(to_unit(to_uint8(drawn))),
        real=classifier.features(x),
        real_labels=labels,
        classes=10,
        build=lambda classes: networks.UNet(x.shape[1], 16, (1, 2), 1, patch=patch, classes=classes),
        settings=Training(
            steps=steps,
            batch=128 if side <= 16 else 64,
            snapshots=0,
            sample_every=0,
            checkpoint_every=100_000,
            channels_last=True,
        ),
        distance=frechet_distance,
        read=classifier.predict,
        samples=2_000 if side <= 16 else 1_000,
    )


def opened(name: str, steps: int | None) -> Case:
    if name in ("eight-gaussians", "moons"):
        return plane(eight_gaussians if name == "eight-gaussians" else moons, steps)
    if name == "digits":
        found = digits()
        values, labels = found.take(torch.arange(len(found)))
        assert labels is not None
        return pictures(to_unit(values), labels, steps or 1_000)
    if "RHEOS_DATA" not in os.environ:
        sys.exit("set RHEOS_DATA to the folder that holds fashion_mnist.npz")
    with np.load(Path(os.environ["RHEOS_DATA"]) / "fashion_mnist.npz") as stored:
        order = np.random.default_rng(0).permutation(len(stored["x_train"]))
        values, labels = (torch.from_numpy(stored[key][order]) for key in ("x_train", "y_train"))
    return pictures(to_unit(values)[:, None], labels.long(), steps or 1_000)


def trained(case: Case, coupling: Coupling[Any], labelled: bool, seed: int) -> tuple[nn.Module, float]:
    """The averaged network, and the seconds that training took."""
    with networks.seeded(seed):
        network = case.build(case.classes if labelled else 0)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(
            network,
            Matching(coupling=coupling, times=Uniform(stratified=True)),
            Tensors(case.x, case.labels if labelled else None),
            Shuffled(len(case.x)),
            case.settings,
            seed=seed,
            out=Path(folder),
            progress=False,
            forecast=False,
        )
    return fitted.average.eval(), time.perf_counter() - began


def curve(case: Case, network: nn.Module, labelled: bool, seed: int) -> dict[str, Any]:
    """Every figure by the number of evaluations."""
    rows = torch.arange(case.samples)
    x0 = Rng(1_000 + seed).fold(Stream.SOURCE).rows(rows).normal(*case.x.shape[1:])
    cond = rows % case.classes if labelled else None
    flow = Matching().dynamics(network)
    solvers: dict[str, tuple[Solver[Tensor], Tensor]] = {
        **{str(budget): (AdamsBashforth(2), grids.Uniform()(budget)) for budget in BUDGETS},
        "adaptive": (Dopri5(TOLERANCE, TOLERANCE), torch.tensor([0.0, 1.0])),
    }
    found: dict[str, Any] = {}
    for name, (solver, grid) in solvers.items():
        with torch.no_grad():
            # An adaptive solver chooses its steps for all rows of a batch.
            solved = [integrate(solver, flow, x0[part], grid, take(cond, part)) for part in rows.split(ROWS)]
        drawn = torch.cat([solution.x for solution in solved])
        evaluations = statistics.mean(solution.evaluations for solution in solved)
        found[name] = {**figures(case, drawn, cond), "evaluations": evaluations}
    return found


def figures(case: Case, drawn: Tensor, cond: Tensor | None) -> dict[str, float]:
    described = case.describe(drawn)
    if cond is None:
        return {"distance": case.distance(case.real, described)}
    each = [case.distance(case.real[case.real_labels == k], described[cond == k]) for k in range(case.classes)]
    agreement = float((case.read(drawn) == cond).double().mean())
    return {"distance by class": statistics.mean(each), "agreement": agreement}


def prepared(case: Case, coupling: Any, labelled: bool) -> tuple[Any, float]:
    """A coupling of the whole dataset fitted once, for all seeds, and the seconds that it took."""
    if not fits(coupling):
        return coupling, 0.0
    began = time.perf_counter()
    found = coupling.fit(case.x, case.labels if labelled else None, Rng(0).fold(Stream.COUPLING))
    return found, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+", choices=("eight-gaussians", "moons", "digits", "fashion"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    for name in given.names:
        case = opened(name, given.steps)
        plain = {"independent": Independent(), "batch OT": BatchOT(), "semidiscrete": Semidiscrete()}
        by_class = {
            "independent": Independent(),
            "batch OT": BatchOT(),
            "batch OT by class": Conditional(BatchOT()),
            "semidiscrete by class": Conditional(Semidiscrete()),
        }
        found: dict[str, Any] = {"device": "cpu", "data": name, "steps": case.settings.steps, "runs": []}
        for labelled, couplings in ((False, plain), (True, by_class if name != "moons" else {})):
            for title, unfitted in couplings.items():
                coupling, fitting = prepared(case, unfitted, labelled)
                for seed in range(given.seeds):
                    network, seconds = trained(case, coupling, labelled, seed)
                    run = {"coupling": title, "labelled": labelled, "seed": seed, "seconds": seconds}
                    run |= {"fitting_seconds": fitting, "curve": curve(case, network, labelled, seed)}
                    found["runs"].append(run)
                    first = {k: next(iter(v.values())) for k, v in run["curve"].items() if k != "adaptive"}
                    shown = ", ".join(f"{k}: {v:.4g}" for k, v in first.items())
                    print(
                        f"{name} {title}{' with labels' if labelled else ''} {seed}: {shown} ({seconds:.0f} s)",
                        flush=True,
                    )
        keep(f"quality-{name}", found)


if __name__ == "__main__":
    main()
