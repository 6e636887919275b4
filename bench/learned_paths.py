"""What learning the path buys: straighter trajectories on real images, and paths that stay near curved data.

    python bench/learned_paths.py [--seeds 3] [--steps 2000]

Digits (scikit-learn's, by an MLP): plain flow matching on straight lines and on the quarter circle, with independent
coupling, against a learned schedule and a learned interpolant; the same network, steps, noise and batches for all.
Measured on trajectories that the trained, averaged networks generate from 1,000 noises: the figures of
rheos.metrics.trajectories (64 steps of Heun), and quality against held-out digits at several numbers of evaluations.

Arc (points of the plane, by a small MLP): from a cluster at one end of a half circle to one at the other, with data on
the arc that only a metric sees. Measured: how far the paths, and what is generated along them, are from the arc.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from machine import keep
from rheos import nn as networks
from rheos.core import Objective, Rng, integrate
from rheos.data import Shuffled, Tensors, digits, split, to_unit
from rheos.metrics import energy_distance, frechet_distance
from rheos.metrics.trajectories import flow_figures
from rheos.objectives import Matching
from rheos.objectives.learned import LearnedMatching, MetricEnergy
from rheos.objectives.times import Uniform
from rheos.paths import Affine
from rheos.paths.learned import Correction, LearnedInterpolant
from rheos.paths.metric import LAND, RBF
from rheos.schedules import Cosine
from rheos.schedules.learned import Learned
from rheos.solvers import Euler, Heun
from rheos.training import Training, fit

SHAPE = (1, 8, 8)
SAMPLES = 1_000
BUDGETS = (2, 4, 8, 200)
"""Evaluations at which quality is measured: steps of Euler, and of Heun for the last."""


def trained(network: nn.Module, objective: Objective[Tensor], data: Tensor, steps: int, seed: int) -> nn.Module:
    """The averaged network after so many steps."""
    settings = Training(steps=steps, batch=128, snapshots=0, checkpoint_every=steps)
    with tempfile.TemporaryDirectory() as folder:
        order, arguments = Shuffled(len(data)), {"seed": seed, "progress": False, "forecast": False}
        return fit(network, objective, Tensors(data), order, settings, out=Path(folder), **arguments).average


def digit_objectives() -> dict[str, Objective[Tensor]]:
    even = Uniform(stratified=True)
    return {
        "straight": Matching(times=even),
        "quarter circle": Matching(Affine(Cosine()), times=even),
        "learned schedule": LearnedMatching(Affine(Learned()), times=even),
        "learned interpolant": LearnedMatching(LearnedInterpolant(Correction, {"shape": SHAPE}, Learned()), times=even),
    }


def one_seed(seed: int, steps: int) -> dict[str, Any]:
    found = digits()
    images = to_unit(found.take(torch.arange(len(found)))[0])
    training, held_out = (images[index] for index in split(len(found), 0.2, seed=0))
    noise = Rng(99).rows(torch.arange(SAMPLES)).normal(*SHAPE)
    rows = {}
    for name, objective in digit_objectives().items():
        with networks.seeded(seed):
            network = networks.MLP(SHAPE, 256, 4)
        began = time.process_time()
        average = trained(network, objective, training, steps, seed)
        seconds = time.process_time() - began
        flow = objective.dynamics(average)
        figures = flow_figures(flow, noise, solver=Heun(), grid=torch.linspace(0, 1, 65)).asdict()
        quality = {}
        for budget in BUDGETS:
            solver = Heun() if budget == BUDGETS[-1] else Euler()
            with torch.no_grad():
                drawn = integrate(solver, flow, noise, torch.linspace(0, 1, solver.steps(budget) + 1)).x
            quality[budget] = {
                "frechet distance": frechet_distance(drawn, held_out),
                "energy distance": energy_distance(drawn, held_out),
            }
        rows[name] = {"processor seconds": round(seconds, 1), **figures, "by evaluations": quality}
        print(f"seed {seed}  {name:20s} curvature {figures['curvature']:.4f}  {quality[BUDGETS[-1]]}", flush=True)
    floor = {
        "frechet distance": frechet_distance(training, held_out),
        "energy distance": energy_distance(training, held_out),
    }
    return {"floor": floor, "paths": rows}


def compared(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Each path against the straight one: what share of curvature it takes away, and what it changes in quality."""

    def each(name: str, figure: str) -> list[float]:
        return [1 - seed["paths"][name][figure] / seed["paths"]["straight"][figure] for seed in seeds]

    def quality(name: str, figure: str, budget: int) -> float:
        return statistics.median(seed["paths"][name]["by evaluations"][budget][figure] for seed in seeds)

    names = list(seeds[0]["paths"])
    return {
        name: {
            **{f"{figure} lower by": each(name, figure) for figure in ("straightness", "curvature", "length_excess")},
            **{f"{figure} at {n}": quality(name, figure, n) for figure in seeds[0]["floor"] for n in BUDGETS},
        }
        for name in names
    }


@dataclass(frozen=True)
class Cluster:
    """A source: a cluster at the left end of the arc."""

    def __call__(self, rng: Rng, like: Tensor) -> Tensor:
        return torch.tensor([-1.0, 0.0]) + 0.05 * rng.normal(2, dtype=like.dtype)


def away(points: Tensor) -> float:
    """The mean distance of points (..., 2) from the upper half of the unit circle."""
    ends = (points.abs() - torch.tensor([1.0, 0.0])).norm(dim=-1)
    return float(torch.where(points[..., 1] > 0, (points.norm(dim=-1) - 1).abs(), ends).mean())


def arc(steps: int) -> dict[str, Any]:
    angle = math.pi * Rng(2).rows(torch.arange(1_000)).uniform()
    seen = torch.stack([angle.cos(), angle.sin()], 1) * (1 + 0.03 * Rng(3).normal(1_000, 1))
    ends = torch.tensor([1.0, 0.0]) + 0.05 * Rng(1).normal(1_000, 2)
    metrics = {"LAND": LAND((2,), 0.2), "RBF": RBF((2,), 20, spread=4.0)}
    objectives: dict[str, Any] = {"straight": Matching(source=Cluster())}
    for name, metric in metrics.items():
        path = LearnedInterpolant(Correction, {"shape": (2,), "width": 64})
        objectives[name] = LearnedMatching(path, MetricEnergy(metric.fit(seen, Rng(0))), source=Cluster())
    noise, grid = Cluster()(Rng(9).rows(torch.arange(SAMPLES)), ends), torch.linspace(0, 1, 65)
    rows = {}
    for name, objective in objectives.items():
        with networks.seeded(0):
            network = networks.MLP(2, 64, 3)
        flow = objective.dynamics(trained(network, objective, ends, steps, 0))
        with torch.no_grad():
            paths = torch.stack([objective.path.sample(noise, ends, t.expand(SAMPLES)).x for t in grid])
            states = integrate(Heun(), flow, noise, grid, trajectory=True).trajectory
        generated = torch.stack(states or ())
        rows[name] = {
            "paths": away(paths),
            "generated": away(generated),
            "energy distance of the ends": energy_distance(generated[-1], ends),
        }
        print(f"arc  {name:10s} {rows[name]}", flush=True)
    straight = rows["straight"]
    for row in rows.values():
        row["share of straight"] = {part: row[part] / straight[part] for part in ("paths", "generated")}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    bent = arc(args.steps // 2)
    seeds = [one_seed(seed, args.steps) for seed in range(args.seeds)]
    keep("learned_paths", {"steps": args.steps, "arc": bent, "digits": {"compared": compared(seeds), "seeds": seeds}})


if __name__ == "__main__":
    main()
