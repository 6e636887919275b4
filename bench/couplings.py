"""Pairs of a batch: ``couplings.BatchOT`` beside torchcfm, POT, SciPy and lapx.

    RHEOS_DATA=... OMP_NUM_THREADS=1 python bench/couplings.py [--sizes 64 256 1024 2048 4096] [--dimensions 2 8 784]

Everybody starts from the same two tensors and ends with pairs (x0[i], x1[j]), one thread, in turn within one process;
the figure is the median of processor milliseconds. torchcfm is ``OTPlanSampler("exact").sample_plan``, the sampling of
its plan included; POT is ``ot.emd`` with its cap on pivots raised, so that it reaches the optimum; SciPy and lapx solve
the distances that torchcfm forms. The data are moons (d = 2), a mixture of normals (d = 8) and Fashion-MNIST in [-1, 1]
(d = 784), the noise is standard normal.

A gap is ``(cost - optimum)/cost``, in float64: ``measured`` against the least cost that anybody found, ``reported`` by
the coupling itself. With potentials means those of the whole dataset, which ``couplings.Semidiscrete`` fits here first;
how long that took and after how many batches it has paid for itself stands beside.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lap
import numpy as np
import ot
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchcfm.optimal_transport import OTPlanSampler

from machine import keep
from rheos.core import Rng
from rheos.couplings import BatchOT
from rheos.couplings.semidiscrete import Semidiscrete
from rheos.data import moons

SIZES = (64, 256, 1024, 2048, 4096)
DIMENSIONS = (2, 8, 784)

ONCE = 5.0
"""Seconds beyond which a solver is measured once."""

PATIENCE = 90.0
"""Seconds that a solver is expected to take, by its time at half the size, beyond which it is left out."""

Pairs = tuple[Tensor, Tensor]


class Dataset(NamedTuple):
    name: str
    points: Tensor
    potentials: Tensor | None
    seconds: float


def fashion() -> Tensor:
    """The training images of Fashion-MNIST in [-1, 1], float32 (60000, 784)."""
    folder = os.environ.get("RHEOS_DATA")
    if not folder:
        raise SystemExit("RHEOS_DATA must name the folder of fashion_mnist.npz, or leave 784 out of --dimensions.")
    images = np.load(Path(folder) / "fashion_mnist.npz")["x_train"]
    return torch.from_numpy(images).reshape(len(images), -1).float() / 127.5 - 1


def mixture(n: int, d: int) -> Tensor:
    """Six normal distributions of standard deviation 0.3 with centres of standard deviation 2, float32 (n, d)."""
    keys = Rng(5).rows(torch.arange(n))
    centres = 2 * Rng(6).normal(6, d)
    return centres[(6 * keys.fold(0).uniform()).long()] + 0.3 * keys.fold(1).normal(d)


def dataset(d: int, target: float) -> Dataset:
    if d == 2:
        return Dataset("moons", moons(20000, Rng(3)), None, 0.0)
    name, points = ("Fashion-MNIST", fashion()) if d == 784 else ("mixture of six normals", mixture(20000, d))
    began = time.process_time()
    fitted = Semidiscrete(target).fit(points, None, Rng(7))
    return Dataset(name, points, fitted.potentials.float(), time.process_time() - began)


def distances(x0: Tensor, x1: Tensor) -> Any:
    return (torch.cdist(x0, x1) ** 2).numpy()


def by_torchcfm(x0: Tensor, x1: Tensor) -> Pairs:
    return OTPlanSampler("exact").sample_plan(x0, x1)


def by_pot(x0: Tensor, x1: Tensor) -> Pairs:
    plan, log = ot.emd([], [], distances(x0, x1), numItermax=2**31 - 1, log=True)
    assert log["warning"] is None
    return x0, x1[torch.from_numpy(plan.argmax(1))]


def by_scipy(x0: Tensor, x1: Tensor) -> Pairs:
    i, j = linear_sum_assignment(distances(x0, x1))
    return x0[torch.from_numpy(i)], x1[torch.from_numpy(j)]


def by_lapx(x0: Tensor, x1: Tensor) -> Pairs:
    i, j = lap.lapjvr(distances(x0, x1), return_cost=False)
    return x0[torch.from_numpy(i)], x1[torch.from_numpy(j)]


PEERS: dict[str, Callable[[Tensor, Tensor], Pairs]] = {
    "torchcfm": by_torchcfm,
    "POT": by_pot,
    "SciPy": by_scipy,
    "lapx": by_lapx,
}


def cost(pairs: Pairs) -> float:
    return float((pairs[0].double() - pairs[1].double()).square().sum())


def timed(run: Callable[[], Pairs]) -> tuple[float, Pairs]:
    began = time.process_time()
    pairs = run()
    return time.process_time() - began, pairs


def medians(runs: dict[str, Callable[[], Pairs]], seconds: float) -> tuple[dict[str, float], dict[str, Pairs]]:
    """Processor milliseconds of each, and what each found. A first run is warm-up unless it took long; then they take
    turns of 20 runs, or of fewer that fill a tenth of a second."""
    first = {name: timed(run) for name, run in runs.items()}
    times = {name: [took] if took > ONCE else [] for name, (took, _) in first.items()}
    wanted = {name: 1 if took > ONCE else max(3, min(400, int(seconds / took))) for name, (took, _) in first.items()}
    while any(len(times[name]) < wanted[name] for name in runs):
        for name, run in runs.items():
            turn = max(1, min(20, int(0.1 / first[name][0])))
            times[name] += [timed(run)[0] for _ in range(min(turn, wanted[name] - len(times[name])))]
    found = {name: pairs for name, (_, pairs) in first.items()}
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}, found


def plan_of_torchcfm(x0: Tensor, x1: Tensor, optimum: float) -> dict[str, Any]:
    """What torchcfm's plan costs above the optimum, whether it was stopped, and how many rows a sample of it keeps."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = OTPlanSampler("exact").get_map(x0, x1)
    paid = len(x0) * float((plan * distances(x0.double(), x1.double())).sum())
    kept = len(by_torchcfm(x0, x1)[0].unique(dim=0)) / len(x0) if len(x0) <= 1024 else None
    return {"measured gap": (paid - optimum) / paid, "stopped": bool(caught), "rows kept": kept}


def cell(data: Dataset, n: int, seconds: float, last: dict[str, float]) -> dict[str, Any]:
    """One batch size of one dataset; ``last`` are the milliseconds at half the size."""
    index = Rng(8).permutation(len(data.points))[:n]
    x0, x1 = Rng(9).rows(torch.arange(n)).normal(data.points.shape[1]), data.points[index]
    runs: dict[str, Callable[[], Pairs]] = {name: partial(solve, x0, x1) for name, solve in PEERS.items()}
    left_out = {}
    for name in PEERS:
        expected = last.get(name, 0.0) / 1e3 * 16
        if expected > PATIENCE:
            left_out[name] = f"would take about {expected:.0f} s by its time at a smaller size"
            del runs[name]
    reported: dict[str, float | None] = {}

    def ours(name: str, potentials: Tensor | None) -> Callable[[], Pairs]:
        def run() -> Pairs:
            pairs = BatchOT()(x0, x1, potentials=potentials)
            reported[name] = pairs.gap
            return pairs.x0, pairs.x1

        return run

    runs["rheos"] = ours("rheos", None)
    if data.potentials is not None:
        runs["rheos, with potentials"] = ours("rheos, with potentials", data.potentials[index])
    times, found = medians(runs, seconds)
    proven = BatchOT(exact=True)(x0, x1)
    costs = {name: cost(pairs) for name, pairs in found.items() if name != "torchcfm"}
    optimum = min(*costs.values(), cost((proven.x0, proven.x1)))
    gaps: dict[str, dict[str, float | None]] = {
        name: {"measured": (paid - optimum) / paid} for name, paid in costs.items()
    }
    for name, gap in reported.items():
        gaps[name]["reported"] = gap
    peers = {name: times[name] for name in PEERS if name in times}
    out = {
        "milliseconds": times,
        "left out": left_out,
        "gap": gaps,
        "torchcfm": plan_of_torchcfm(x0, x1, optimum),
        "mean cost": optimum / n,
        "mean cost of independent pairs": cost((x0, x1)) / n,
        "proven": {"gap": proven.gap},
        "slower than the fastest peer by": {
            name: times[name] - min(peers.values()) for name in times if name not in PEERS
        },
        "times as fast as": {name: {peer: peers[peer] / times[name] for peer in peers} for name in reported},
    }
    if data.potentials is not None:
        saved = (times["rheos"] - times["rheos, with potentials"]) / 1e3
        out["batches until the fit is paid for"] = data.seconds / saved if saved > 0 else None
    return out


def claims(cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The figures of the claim, each by the better of our two where potentials may be used."""
    wanted = {
        "10 times torchcfm, d = 2, n = 1024, gap 0.5 %": ("d = 2, n = 1024", "torchcfm", 10, 5e-3),
        "10 times torchcfm, d = 784, n = 1024, gap 0.1 %": ("d = 784, n = 1024", "torchcfm", 10, 1e-3),
        "15 times POT, d = 784, n = 4096": ("d = 784, n = 4096", "POT", 15, math.inf),
    }
    found: dict[str, Any] = {}
    for claim, (name, peer, times, gap) in wanted.items():
        if name in cells and peer in cells[name]["milliseconds"]:
            best = max(cells[name]["times as fast as"].items(), key=lambda item: item[1][peer])
            measured = cells[name]["gap"][best[0]]["measured"]
            found[claim] = {
                "by": best[0],
                "times": best[1][peer],
                "measured gap": measured,
                "met": best[1][peer] >= times and measured <= gap,
            }
    worst = {name: min(one["slower than the fastest peer by"].values()) for name, one in cells.items()}
    found["never slower than the fastest by more than 0.1 ms"] = {
        "worst": max(worst, key=lambda name: worst[name]),
        "milliseconds": max(worst.values()),
        "met": max(worst.values()) <= 0.1,
    }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--dimensions", type=int, nargs="+", default=DIMENSIONS)
    parser.add_argument("--target", type=float, default=0.2, help="chi-squared that potentials are fitted to")
    parser.add_argument("--seconds", type=float, default=2.0, help="for which each solver is repeated in a cell")
    parser.add_argument("--no-keep", action="store_true", help="print, and write no file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cells: dict[str, dict[str, Any]] = {}
    datasets: dict[str, Any] = {"chi-squared of potentials": args.target}
    for d in args.dimensions:
        data = dataset(d, args.target)
        datasets[f"d = {d}"] = {"name": data.name, "rows": len(data.points), "seconds of fitting": data.seconds}
        last: dict[str, float] = {}
        for n in sorted(args.sizes):
            found = cell(data, n, args.seconds, last)
            last = found["milliseconds"] if n >= 1024 else {}
            cells[f"d = {d}, n = {n}"] = found
            print(f"d = {d}, n = {n}", json.dumps(found, indent=1), flush=True)
    result = {"datasets": datasets, "cells": cells, "claims": claims(cells), "pot": ot.__version__}
    result["lapx"] = lap.__version__
    print(json.dumps([datasets, result["claims"]], indent=1))
    if not args.no_keep:
        keep("couplings", result)


if __name__ == "__main__":
    main()
