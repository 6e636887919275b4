"""Students of one teacher, by its own commands: `rheos train`, then `rheos distill` to every method.

    RHEOS_DATA=... python bench/students.py [--steps 2000] [--methods reflow lagrangian ...] [--out DIR] [--device cuda]

Fashion-MNIST and a UNet of width 16. Every student takes as many steps as the teacher did, or fewer where it no longer
helps. Kept: the Frechet distance in 1, 2 and 4 steps, the teacher's over its evaluations, seconds of training and of
sampling side by side, and a picture of what all of them make of the same noises. What stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from torch import Tensor

from machine import keep
from rheos.cli import main as rheos
from rheos.cli.parts import METHODS
from rheos.cli.train import trained_network
from rheos.compare.phases import training_seconds
from rheos.data import grid_image, to_uint8
from rheos.recipes import Run, Sampler
from rheos.training import checkpoint

mpl.use("Agg")
from matplotlib import pyplot as plt

TEACHER, STUDENT = (1, 2, 4, 10, 25, 50), (1, 2, 4)
"""Evaluations and steps at which each is measured."""

SHOWN = {"teacher": (1, 4, 50), "student": (1, 4)}
"""Those that are shown."""

COUNT, PICTURED, TIMED, ROUNDS = 4_000, 10, 200, 5
"""Samples that are measured, shown, and timed so often."""

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "students.png"


def made(words: list[str]) -> None:
    """Run a command of rheos."""
    if code := rheos(words):
        sys.exit(code)


def sampler(folder: Path, device: str) -> Sampler:
    run = Run.open(folder)
    return Sampler(run.recipe, trained_network(run, device), 1)


def side_by_side(one: Callable[[], Any], other: Callable[[], Any]) -> float:
    """How many times as long the one takes as the other, in turns: the median ratio."""
    ratios = []
    for _ in range(ROUNDS):
        times = []
        for call in (one, other):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        ratios.append(times[0] / times[1])
    return statistics.median(ratios)


def measured(folder: Path, distance: Callable[[Tensor], float], teacher: Sampler, device: str) -> dict[str, Any]:
    """Every figure of a student."""
    own = sampler(folder, device)
    return {
        "steps": checkpoint.steps(folder / "checkpoints")[-1],
        "training seconds": training_seconds(folder),
        "distance": {str(n): distance(own.draw(COUNT, steps=n).states) for n in STUDENT},
        "times as fast as the teacher at 25": side_by_side(
            lambda: teacher.draw(TIMED, evaluations=25), lambda: own.draw(TIMED, steps=1)
        ),
    }


def picture(rows: dict[str, Tensor]) -> None:
    """A row of samples a sampler, each column from one noise."""
    figure, places = plt.subplots(len(rows), 1, figsize=(7, 0.52 * len(rows)), layout="constrained")
    for axes, (name, states) in zip(places, rows.items(), strict=True):
        axes.imshow(grid_image(to_uint8(states), columns=PICTURED, scale=2), cmap="gray", interpolation="nearest")
        axes.set_axis_off()
        axes.text(-0.01, 0.5, name, transform=axes.transAxes, ha="right", va="center", fontsize=8)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--out", type=Path, default=Path("students"))
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    if "RHEOS_DATA" not in os.environ:
        sys.exit("set RHEOS_DATA to the folder that holds fashion_mnist.npz")
    data = str(Path(os.environ["RHEOS_DATA"]) / "fashion_mnist.npz")
    place, device = given.out / "teacher", ("--device", given.device)
    length = ("--steps", str(given.steps), "--learning-rate", ".003")
    made(["train", "images", "--data", data, "--width", "16", *length, "--out", str(place), *device])
    run, teacher = Run.open(place), sampler(place, given.device)
    judge = run.recipe.kind.judge(run.recipe.kind.open(run.recipe.data.path), run.measures)
    drawn, _ = teacher.curve(None, COUNT, TEACHER)
    found: dict[str, Any] = {
        "title": "Fashion-MNIST, UNet",
        "device": given.device,
        "figure": judge.name,
        "floor": judge.floor,
        "teacher": {
            "steps": given.steps,
            "training seconds": training_seconds(place),
            "distance": {str(n): judge.distance(states) for n, states in drawn.items()},
        },
        "students": {},
    }
    rows = {f"teacher, {n}": drawn[n][:PICTURED] for n in SHOWN["teacher"]}
    for method in given.methods:
        student = given.out / method
        made(["distill", str(place), "--to", method, "--out", str(student), *device])
        found["students"][method] = measured(student, judge.distance, teacher, given.device)
        print(method, found["students"][method], flush=True)
        rows |= {
            f"{method}, {n}": sampler(student, given.device).draw(PICTURED, steps=n).states for n in SHOWN["student"]
        }
    keep("students-fashion", found)
    picture(rows)


if __name__ == "__main__":
    main()
