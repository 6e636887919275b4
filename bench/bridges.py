"""Schroedinger bridges against their closed form, and snapshots in time against pairwise chaining.

    python bench/bridges.py [--steps 3000] [--seeds 3] [--only bridge|snapshots]

Bridge: two normal laws in the plane, of which mean, covariance and entropic plan are known (Bunne et al. 2023). A
network is trained on pairs of the closed-form plan, and another on pairs that ``couplings.Sinkhorn`` joined,
``--block`` draws at a time, so that the error of the network and that of the coupling stand apart. Flow and diffusion
are run in both directions of time; kept are, at five times, the error of the mean over the mean's length and over the
standard deviation, that of the covariance over its size, and that of the covariance between both ends, which tells the
Schroedinger bridge from other processes with its marginals, such as the flow.

Snapshots: points on an arc turn by ``TURN``; unpaired draws are seen at the start, in the middle and at the end. The
same network is trained on splines and on straight lines between neighbours, on the same draws, joined by the same
optimal transport. Kept are distances to fresh draws at the times that were seen and at two that were not, with those
between two sets of fresh draws beside them.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from machine import keep
from rheos import nn as networks
from rheos.core import Coupling, Dynamics, Rng, integrate
from rheos.couplings import BatchOT, Sinkhorn
from rheos.metrics import energy_distance, sliced_wasserstein
from rheos.objectives.bridge import SchroedingerBridge, Twin
from rheos.objectives.snapshots import Snapshots
from rheos.paths.spline import Chain, Spline
from rheos.solvers import Heun

F64 = torch.float64
SIGMA = 0.8
MEANS = torch.tensor([[2.0, 0.0], [1.0, 2.5]], dtype=F64)
STARTS = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=F64)
ENDS = torch.tensor([[0.5, -0.3], [-0.3, 1.2]], dtype=F64)
MEASURED = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Times at which a bridge is measured; seen backward they are 1 - t."""
DRAWN = 100_000
"""Samples of a bridge: their covariance is known to about 0.4 %."""
HEUN = 20
"""Steps of Heun on a bridge; on the exact drift they leave the covariance wrong by 0.06 %."""

TURN = 2 * math.pi / 3
SEEN, UNSEEN = (0.0, 0.5, 1.0), (0.25, 0.75)
SNAPSHOT = 20_000
"""Draws of each snapshot that are trained on."""
FRESH = 10_000
"""Fresh draws that are measured against; exact transport takes the first 1,000."""


def root(matrix: Tensor) -> Tensor:
    values, axes = torch.linalg.eigh(matrix)
    return axes @ torch.diag(values.sqrt()) @ axes.T


def plan() -> Tensor:
    """Cov(x0, x1) under the entropic plan with epsilon 2*sigma**2."""
    half, eye = root(STARTS), torch.eye(2, dtype=F64)
    return (half @ root(4 * half @ ENDS @ half + SIGMA**4 * eye) @ torch.linalg.inv(half) - SIGMA**2 * eye) / 2


def moments(t: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the Schroedinger bridge at a time."""
    mixed = t * (1 - t) * (plan() + plan().T + SIGMA**2 * torch.eye(2, dtype=F64))
    return (1 - t) * MEANS[0] + t * MEANS[1], (1 - t) ** 2 * STARTS + t**2 * ENDS + mixed


def normal(count: int, mean: Tensor, covariance: Tensor, rng: Rng) -> Tensor:
    rows = rng.rows(torch.arange(count))
    return (mean + rows.normal(len(mean), dtype=F64) @ torch.linalg.cholesky(covariance).T).float()


def closed_form_pairs(count: int, rng: Rng) -> tuple[Tensor, Tensor]:
    joint = torch.cat([torch.cat([STARTS, plan()], 1), torch.cat([plan().T, ENDS], 1)])
    x0, x1 = normal(count, MEANS.flatten(), joint, rng).chunk(2, 1)
    return x0, x1


def joined_pairs(coupling: Coupling[Tensor], count: int, block: int, rng: Rng) -> tuple[Tensor, Tensor]:
    """Fresh draws of both laws, joined ``block`` at a time."""
    found = []
    for number in range(count // block):
        keys = rng.fold(number)
        x0, x1 = normal(block, MEANS[0], STARTS, keys.fold(0)), normal(block, MEANS[1], ENDS, keys.fold(1))
        found.append(coupling(x0, x1, None, keys.fold(2))[:2])
    return torch.cat([x0 for x0, _ in found]), torch.cat([x1 for _, x1 in found])


def trained(network: nn.Module, loss: Callable[[nn.Module, int], Tensor], steps: int) -> nn.Module:
    """The average of a network that was trained by Adam, its rate falling along a cosine."""
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, fused=True)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        loss(network, step).backward()
        optimizer.step()
        rate.step()
        weights = [p.detach() for p in network.parameters()]
        torch._foreach_lerp_(list(average.parameters()), weights, 1 - min(0.999, (1 + step) / (10 + step)))
    return average


def relative(error: Tensor, size: Tensor) -> float:
    return float(error.norm() / size.norm())


def measured(dynamics: Dynamics[Tensor], start: Tensor, backward: bool, rng: Rng) -> dict[str, Any]:
    """Errors of the marginals at the five times, and of the covariance between both ends."""
    grid = torch.linspace(0, 1, HEUN + 1)
    grid = grid.flip(0) if backward else grid
    states = integrate(Heun(), dynamics, start, grid, None, rng, trajectory=True).trajectory
    assert states is not None
    rows = []
    for passed in MEASURED:
        t = 1 - passed if backward else passed
        x = states[round(passed * HEUN)].double()
        mean, covariance = moments(t)
        error = x.mean(0) - mean
        rows.append(
            {
                "t": round(t, 3),
                "mean": relative(error, mean),
                "mean over standard deviation": float(error.norm() / covariance.trace().sqrt()),
                "covariance": relative(x.T.cov() - covariance, covariance),
            }
        )
    first, last = (states[-1], states[0]) if backward else (states[0], states[-1])
    both = torch.cat([first, last], 1).double().T.cov()
    return {"times": rows, "covariance between the ends": relative(both[:2, 2:] - plan(), plan())}


def bridge(steps: int, seed: int, block: int) -> dict[str, Any]:
    """Both networks of one seed, and the four processes of each."""
    rng = Rng(seed)
    coupling = Sinkhorn(epsilon=2 * SIGMA**2)
    count = 100 * block
    began = time.perf_counter()
    sinkhorn = joined_pairs(coupling, count, block, rng.fold(1))
    seconds = time.perf_counter() - began
    objective = SchroedingerBridge(SIGMA, coupling)
    found: dict[str, Any] = {"seconds of joining": seconds}
    for name, (x0, x1) in {"closed form": closed_form_pairs(count, rng.fold(2)), "sinkhorn": sinkhorn}.items():
        with networks.seeded(seed):
            network = Twin(networks.MLP(2, 64, 3), networks.MLP(2, 64, 3))

        def loss(network: nn.Module, step: int, x0: Tensor = x0, x1: Tensor = x1) -> Tensor:
            keys = rng.fold(3).fold(step)
            rows = (keys.uniform(1024) * count).long()
            return objective(network, x1[rows], None, keys, x0=x0[rows]).rows.mean()

        began = time.perf_counter()
        network = trained(network, loss, steps)
        cross = torch.cat([x0, x1], 1).double().T.cov()[:2, 2:]
        result: dict[str, Any] = {
            "seconds of training": time.perf_counter() - began,
            "covariance of the pairs": relative(cross - plan(), plan()),
        }
        starts = normal(DRAWN, MEANS[0], STARTS, rng.fold(4)), normal(DRAWN, MEANS[1], ENDS, rng.fold(5))
        with torch.no_grad():
            for process, dynamics in (
                ("flow", objective.dynamics(network)),
                ("diffusion", objective.diffusion(network)),
            ):
                for direction, start in zip(("forward", "backward"), starts, strict=True):
                    result[f"{process}, {direction}"] = measured(dynamics, start, direction == "backward", rng.fold(6))
        found[name] = result
        print(f"seed {seed}, {name}: worst errors", worst(result), flush=True)
    return found


def worst(result: dict[str, Any]) -> dict[str, float]:
    """The largest error of each kind over processes and times."""
    processes = [part for part in result.values() if isinstance(part, dict)]
    rows = [row for process in processes for row in process["times"]]
    names = ("mean", "mean over standard deviation", "covariance")
    return {name: max(row[name] for row in rows) for name in names} | {
        "covariance between the ends": max(
            part["covariance between the ends"] for name, part in result.items() if name.startswith("diffusion")
        )
    }


def arc(t: float, count: int, rng: Rng) -> Tensor:
    """Draws of the turning population at a time."""
    z = rng.rows(torch.arange(count)).normal(2)
    radius, angle = 1 + 0.1 * z[:, 0], 0.3 * z[:, 1] + TURN * t
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)


def transport(x: Tensor, y: Tensor) -> float:
    """The Wasserstein distance of order 2 between the first 1,000 points of each, exactly."""
    cost = torch.cdist(x[:1000].double(), y[:1000].double()).square()
    i, j = linear_sum_assignment(cost.numpy())
    return math.sqrt(float(cost[i, j].mean()))


def distances(x: Tensor, y: Tensor) -> dict[str, float]:
    return {
        "wasserstein": transport(x, y),
        "sliced wasserstein": sliced_wasserstein(x, y, rng=0),
        "energy": energy_distance(x, y, unbiased=True),
    }


def snapshots(steps: int, seed: int) -> dict[str, Any]:
    """Both curves of one seed, at the times that were seen and at those that were not."""
    rng = Rng(seed)
    columns = [arc(t, SNAPSHOT, rng.fold(1).fold(k)) for k, t in enumerate(SEEN)]
    grid, times = torch.linspace(0, 1, 81), sorted({*SEEN[1:], *UNSEEN})
    fresh = {t: (arc(t, FRESH, rng.fold(2).fold(k)), arc(t, FRESH, rng.fold(3).fold(k))) for k, t in enumerate(times)}
    found: dict[str, Any] = {"floor": {str(t): distances(*pair) for t, pair in fresh.items()}}
    for name, curve in {"spline": Spline(SEEN), "chain": Chain(SEEN)}.items():
        objective = Snapshots(curve, BatchOT())
        with networks.seeded(seed):
            network = networks.MLP(2, 64, 3)

        def loss(network: nn.Module, step: int, objective: Snapshots = objective) -> Tensor:
            keys = rng.fold(4).fold(step)
            rows = (keys.uniform(256, 3) * SNAPSHOT).long()
            x = torch.stack([column[rows[:, k]] for k, column in enumerate(columns)], 1)
            return objective(network, x, None, keys).rows.mean()

        flow = objective.dynamics(trained(network, loss, steps))
        with torch.no_grad():
            states = integrate(Heun(), flow, arc(0.0, FRESH, rng.fold(5)), grid, trajectory=True).trajectory
        assert states is not None
        found[name] = {str(t): distances(states[round(80 * t)], fresh[t][0]) for t in times}
        print(f"seed {seed}, {name}:", {t: round(d["wasserstein"], 4) for t, d in found[name].items()}, flush=True)
    return found


def summary(runs: list[dict[str, Any]], times: Sequence[float]) -> dict[str, dict[str, float]]:
    """The median over seeds of the mean over some times, of each distance and each curve."""
    return {
        name: {
            kind: statistics.median(statistics.mean(run[name][str(t)][kind] for t in times) for run in runs)
            for kind in ("wasserstein", "sliced wasserstein", "energy")
        }
        for name in ("spline", "chain", "floor")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--block", type=int, default=2048)
    parser.add_argument("--only", choices=("bridge", "snapshots"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    options = {"steps": args.steps, "block": args.block}
    if args.only != "snapshots":
        runs = [bridge(args.steps, seed, args.block) for seed in range(args.seeds)]
        worsts = {
            name: {kind: max(worst(run[name])[kind] for run in runs) for kind in worst(runs[0][name])}
            for name in ("closed form", "sinkhorn")
        }
        print("worst over seeds", worsts)
        keep("bridges", {**options, "sigma": SIGMA, "worst": worsts, "runs": runs})
    if args.only != "bridge":
        runs = [snapshots(args.steps, seed) for seed in range(args.seeds)]
        medians = {"seen": summary(runs, SEEN[1:]), "unseen": summary(runs, UNSEEN)}
        print("medians", medians)
        keep("snapshots", {**options, "turn": TURN, "medians": medians, "runs": runs})


if __name__ == "__main__":
    main()
