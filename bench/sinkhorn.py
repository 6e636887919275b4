"""Entropic transport of 65,536 points, and an optimal map that it recovers.

    python bench/sinkhorn.py [--count 65536] [--seeds 3] [--steps 4000]

Two normal laws in 16 dimensions whose covariances do not commute, so that their optimal map is known, linear, and not
what independent pairs lead to.

*Plan*: ``couplings.Sinkhorn(entropy=0.1)`` between draws of both; seconds, sweeps, the largest resident memory of the
process, the marginal error and the entropy, both counted again here, block by block in float64.

*Map*: the same network is trained as a flow on pairs drawn from that plan and on independent pairs of the same points,
on equal budgets; then fresh points are carried along it. Beside it, without a network, the plan's barycentric map less
its bias, at an epsilon that is best for it. Errors are root mean squares over that of the true map, and as L2-UVP, the
mean squared error over the variance of the data (Korotin et al. 2021), each in percent.
"""

from __future__ import annotations

import argparse
import math
import resource
import time
from typing import Any

import torch
from torch import Tensor, nn

from machine import keep
from rheos import nn as networks
from rheos.core import Rng, integrate
from rheos.couplings import Sinkhorn
from rheos.couplings.sinkhorn import Plan
from rheos.objectives import Matching
from rheos.solvers import Heun

D = 16
EPSILON = 2.5
"""At which bias and noise of the barycentric map are about equal with 65,536 points."""
FRESH = 10_000
AT_ONCE = 8
"""Passes over the data whose pairs are drawn together."""


def root(matrix: Tensor) -> Tensor:
    values, axes = torch.linalg.eigh(matrix)
    return axes @ torch.diag(values.sqrt()) @ axes.T


def laws() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Square roots of both covariances, the linear part of the optimal map, and the mean of the data."""
    starts, ends = (
        x @ x.T / D + 0.3 * torch.eye(D, dtype=torch.float64)
        for x in (Rng(seed).normal(D, D, dtype=torch.float64) for seed in (1, 2))
    )
    half = root(starts)
    back = torch.linalg.inv(half)
    return half, root(ends), back @ root(half @ ends @ half) @ back, Rng(3).normal(D, dtype=torch.float64)


def draws(count: int, half: Tensor, mean: Tensor | float, seed: int) -> Tensor:
    return (Rng(seed).rows(torch.arange(count)).normal(D, dtype=torch.float64) @ half + mean).float()


def counted(plan: Plan) -> dict[str, float]:
    """Marginal errors and entropy, from all entries of the plan in float64, a block of rows at a time."""
    x, y = plan.x0.double(), plan.x1.double()
    n, m = len(x), len(y)
    columns, rows, entropy = torch.zeros(m, dtype=torch.float64), 0.0, 0.0
    for start in range(0, n, 256):
        part = slice(start, start + 256)
        logs = (plan.f[part, None] + plan.g - torch.cdist(x[part], y).square_()) / plan.epsilon - math.log(n * m)
        entries = logs.exp()
        columns += entries.sum(0)
        rows += float((entries.sum(1) - 1 / n).abs().sum())
        entropy -= float((entries * logs).sum())
    return {
        "marginal error of the data": float((columns - 1 / m).abs().sum()),
        "marginal error of the noise": rows,
        "entropy": (entropy - math.log(n)) / math.log(m),
    }


def errors(got: Tensor, want: Tensor) -> dict[str, float]:
    off = (got.double() - want).square().sum(1).mean()
    return {
        "relative": 100 * float((off / want.square().sum(1).mean()).sqrt()),
        "L2-UVP": 100 * float(off / want.var(0).sum()),
    }


def trained(plan: Plan, joined: bool, steps: int, seed: int) -> nn.Module:
    """The average of a network that was trained by Adam on pairs of the plan, drawn anew for every pass, or on
    independent ones."""
    rng, n, batch = Rng(100 + seed), len(plan.x0), 1024
    with networks.seeded(seed):
        network = networks.MLP(D, 256, 3)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    objective, order, j, partners = Matching(), torch.empty(0), torch.empty(0), torch.empty(0, 0)
    for step in range(steps):
        place = step * batch % n
        if place == 0:
            keys, drawn = rng.fold(0).fold(step), step * batch // n % AT_ONCE
            order = keys.fold(0).permutation(n)
            if joined and drawn == 0:
                partners = plan.sample(keys.fold(1), AT_ONCE)
            j = partners[:, drawn] if joined else keys.fold(1).permutation(n)
        rows = order[place : place + batch]
        optimizer.zero_grad(set_to_none=True)
        loss = objective(network, plan.x1[j[rows]], None, rng.fold(1).fold(step), x0=plan.x0[rows])
        loss.rows.mean().backward()
        optimizer.step()
        rate.step()
        average.update_parameters(network)
    return average.module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=65536)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4000)
    args = parser.parse_args()
    half, ends, linear, mean = laws()
    x0, x1 = draws(args.count, half, 0.0, 10), draws(args.count, ends, mean, 11)
    fresh = draws(FRESH, half, 0.0, 12)
    want = fresh.double() @ linear + mean

    began = time.perf_counter()
    plan = Sinkhorn(entropy=0.1).solve(x0, x1)
    seconds = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found: dict[str, Any] = {
        "count": args.count,
        "dimensions": D,
        "plan": {
            "target entropy": 0.1,
            **counted(plan),
            "epsilon": plan.epsilon,
            "gap": plan.gap,
            "seconds": seconds,
            "sweeps of all points": plan.sweeps,
            "largest resident GB of the process": memory,
            "GB of the plan in float32": 4 * args.count**2 / 2**30,
        },
    }
    print(found["plan"], flush=True)

    flows: dict[str, list[dict[str, float]]] = {"plan": [], "independent": []}
    for seed in range(args.seeds):
        for name, rows in flows.items():
            network = trained(plan, name == "plan", args.steps, seed)
            with torch.no_grad():
                flow = Matching().dynamics(network)
                carried = integrate(Heun(), flow, fresh, torch.linspace(0, 1, 33)).x
            rows.append(errors(carried, want))
            print(f"flow on pairs of {name}, seed {seed}: {rows[-1]}", flush=True)
    found["map, by a flow"] = {"steps": args.steps, **flows}

    coupling = Sinkhorn(epsilon=EPSILON)
    began = time.perf_counter()
    other = coupling.solve(x0, x1)
    own = coupling.solve(x0, draws(args.count, half, 0.0, 13))
    alone = other.barycentric(fresh)
    found["map, by the plan alone"] = {
        "epsilon": EPSILON,
        "seconds": time.perf_counter() - began,
        "barycentric": errors(alone, want),
        "less its bias": errors(fresh + alone - own.barycentric(fresh), want),
    }
    print(found["map, by the plan alone"])
    keep("sinkhorn", found)


if __name__ == "__main__":
    main()
