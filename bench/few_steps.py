"""One step: flow maps, consistency models and reflow, from scratch at equal budgets.

    python bench/few_steps.py checkerboard digits [--seeds 3] [--steps 5000] [--out DIR]

Every method trains the same network (an MLP, 4 x 192) for as many steps on the same batches; reflow takes half of them
for its teacher and half for itself. Held against data that nobody trained on by the energy distance, in 1, 2 and 4
steps and along the velocity by RK4 in 32: of the checkerboard against fresh points, of digits against images that were
held out. Kept: every figure by seed, the floor, milliseconds a step, straightness, and whether a training diverged.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from machine import keep
from rheos import nn as networks
from rheos import objectives
from rheos.core import DivergedError, Objective, Rng, integrate
from rheos.data import Shuffled, Tensors, checkerboard, digits, split, to_unit
from rheos.dynamics import Flow, FlowMap, RestartNoise
from rheos.metrics import energy_distance
from rheos.metrics.trajectories import flow_figures
from rheos.objectives import FlowMapMatching, Matching, Rectified
from rheos.objectives.times import LogitNormal, Uniform
from rheos.paths import Affine
from rheos.solvers import RK4, AdamsBashforth, Euler, Midpoint, grids
from rheos.training import Training, fit

STEPS = (1, 2, 4)
FINE = 32
"""Steps of RK4 along the velocity."""

DRAWN = 10_000
"""Samples that are judged, at most as many as there are real ones to hold them against, and pairs of reflow."""

WIDTH, DEPTH = 192, 4

EVEN = Uniform(stratified=True)
"""Times of training, where a method has none of its own."""


@dataclass(frozen=True)
class Case:
    """What is learned.

    Args:
        title: for a reader.
        training: states (N, d).
        real: states that nobody trained on.
        batch: rows of a step.
    """

    title: str
    training: Tensor
    real: Tensor
    batch: int


def board() -> Case:
    points = checkerboard(20_000 + 2 * DRAWN, Rng(0))
    return Case("checkerboard", points[: -2 * DRAWN], points[-2 * DRAWN :], 512)


def small_digits() -> Case:
    found = digits()
    values, _ = found.take(torch.arange(len(found)))
    states = to_unit(values).flatten(1)
    training, held_out = split(len(states), 0.2, seed=0)
    return Case("digits 8 x 8", states[training], states[held_out], 256)


CASES = {"checkerboard": board, "digits": small_digits}

FLOW, REFLOW = "flow", "reflow"
MAPS: Mapping[str, Callable[[], FlowMapMatching]] = {
    "mean flow": objectives.mean_flow,
    "mean flow, p = 1": lambda: objectives.mean_flow(power=1.0),
    "mean flow, logit-normal times": lambda: objectives.mean_flow(times=LogitNormal(mean=-0.4)),
    "improved mean flow": objectives.improved_mean_flow,
    "Lagrangian": objectives.lagrangian,
    "Lagrangian, by differences": lambda: objectives.lagrangian(how="difference"),
    "shortcut": objectives.shortcut,
    "consistency": objectives.consistency,
    "consistency flow matching": objectives.consistency_flow_matching,
    "continuous consistency": objectives.continuous_consistency,
}


@dataclass(frozen=True)
class Trained:
    """A network, what it stands for, and the milliseconds of a step."""

    network: nn.Module
    dynamics: Flow | FlowMap
    milliseconds: float


def trained(
    objective: Objective[Tensor], data: Tensor, case: Case, seed: int, steps: int, out: Path, start: Any = None
) -> Trained:
    """Train in a folder, or go on there."""
    with networks.seeded(seed):
        two = isinstance(objective, FlowMapMatching)
        network = networks.MLP(case.training.shape[1], WIDTH, DEPTH, two_times=two)
    settings = Training(steps=steps, batch=case.batch, learning_rate=0.002, sample_every=0, snapshots=0)
    began = time.perf_counter()
    found = fit(
        network,
        objective,
        Tensors(data),
        Shuffled(len(data)),
        settings,
        seed=seed,
        out=out,
        start_from=start,
        progress=False,
        forecast=False,
    )
    dynamics: Any = objective.dynamics(found.average.eval())
    return Trained(found.average, dynamics, 1000 * (time.perf_counter() - began) / steps)


def pairs(teacher: Flow, case: Case, seed: int) -> Tensor:
    """Noise and data that the teacher joins, half begun at either end, (N, 2, d)."""
    grid = grids.Uniform()(FINE)
    count = min(DRAWN, len(case.training))
    x1 = case.training[:count]
    x0 = Rng(seed).fold(1).rows(torch.arange(DRAWN)).normal(x1.shape[1])
    with torch.no_grad():
        back = integrate(AdamsBashforth(3), teacher, x1, grid.flip(0)).x
        there = integrate(AdamsBashforth(3), teacher, x0, grid).x
    return torch.cat([torch.stack([back, x1], 1), torch.stack([x0, there], 1)])


def judged(found: Trained, objective: Any, case: Case) -> dict[str, Any]:
    """Every figure of a network."""
    dynamics, real = found.dynamics, case.real[:DRAWN]
    flow = dynamics.flow if isinstance(dynamics, FlowMap) else dynamics
    noise = Rng(99).rows(torch.arange(DRAWN)).normal(case.training.shape[1])
    moves: Any = dynamics
    if isinstance(dynamics, FlowMap) and objective.segments == 1:
        moves = RestartNoise()(dynamics, Affine(objective.path.schedule))
    with torch.no_grad():
        drawn = {str(n): integrate(Euler(), moves, noise, grids.Uniform()(n), rng=7).x for n in STEPS}
        drawn[f"RK4 x {FINE}"] = integrate(RK4(), flow, noise, grids.Uniform()(FINE)).x
        bent = flow_figures(flow, noise[:1000], solver=Midpoint(), grid=grids.Uniform()(FINE))
    return {
        "distance": {name: energy_distance(real, states) for name, states in drawn.items()},
        "milliseconds a step": found.milliseconds,
        "straightness": bent.straightness,
    }


def compared(case: Case, seed: int, steps: int, out: Path) -> dict[str, Any]:
    """Every method of one seed."""
    matching = Matching(times=EVEN)
    found: dict[str, Any] = {}

    def note(name: str, make: Callable[[], tuple[Trained, Any]]) -> None:
        try:
            found[name] = judged(*make(), case)
        except DivergedError:
            found[name] = None
        print(case.title, seed, name, found[name] and found[name]["distance"], flush=True)

    note(FLOW, lambda: (trained(matching, case.training, case, seed, steps, out / FLOW), matching))

    def reflow() -> tuple[Trained, Any]:
        half = steps // 2
        teacher = trained(matching, case.training, case, seed, half, out / "teacher")
        assert isinstance(teacher.dynamics, Flow)
        objective = Rectified(Matching(times=EVEN))
        data, start = pairs(teacher.dynamics, case, seed), teacher.network.state_dict()
        return trained(objective, data, case, seed, steps - half, out / REFLOW, start), objective

    note(REFLOW, reflow)
    for name, make in MAPS.items():
        objective = make()
        if objective.times == Uniform():
            objective = replace(objective, times=EVEN)
        place = out / name.replace(" ", "-").replace(",", "").replace("=", "")
        note(name, lambda o=objective, p=place: (trained(o, case.training, case, seed, steps, p), o))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=list(CASES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--out", type=Path, default=Path("few-steps"))
    given = parser.parse_args()
    for name in given.names:
        case = CASES[name]()
        real = case.real
        floor = energy_distance(real[: len(real) // 2], real[len(real) // 2 :])
        runs = [compared(case, seed, given.steps, given.out / name / f"seed-{seed}") for seed in range(given.seeds)]
        keep(f"few-steps-{name}", {"title": case.title, "steps": given.steps, "floor": floor, "runs": runs})


if __name__ == "__main__":
    main()
