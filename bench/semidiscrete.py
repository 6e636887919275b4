"""Semidiscrete transport on all of Fashion-MNIST: the fit, the gain over exact batch OT, assignment, and frequencies.

    RHEOS_DATA=... python bench/semidiscrete.py [--count 60000] [--rounds 7] [--visits 8] [--device cpu]

The fit runs on all cores. Everything that is timed afterwards runs on one: processor time of one thread, the median
over rounds in which the pruned search and the plain one (the product with all data, and its argmax) take turns. The
gain of a coupling is what it saves of the cost of independent pairs; batch OT is solved to the optimum by SciPy in
float64. What data are met is counted with noise that neither the fit nor its measurement has seen. Last, a million
data: what an assignment costs and how much memory it takes beyond the data.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import poisson
from torch import Tensor

from machine import keep
from rheos.core import Rng
from rheos.couplings.semidiscrete import Semidiscrete
from rheos.couplings.semidiscrete.points import Points

BATCH = 256
"""Rows of the batches of exact batch OT."""

MILLION = 1_000_000


def images(count: int) -> Tensor:
    """Training images of Fashion-MNIST in [-1, 1], shuffled, (count, 784)."""
    with np.load(Path(os.environ["RHEOS_DATA"]) / "fashion_mnist.npz") as file:
        x = torch.from_numpy(file["x_train"]).reshape(-1, 784)
    return x[Rng(0).permutation(len(x))[:count]].float() / 127.5 - 1


def noise(stream: int, start: int, count: int, like: Tensor) -> Tensor:
    rows = torch.arange(start, start + count, device=like.device)
    return Rng(1).fold(stream).rows(rows).normal(like.shape[1])


def fitted(data: Tensor) -> tuple[Semidiscrete, dict[str, Any]]:
    wall, processor = time.perf_counter(), time.process_time()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        coupling = Semidiscrete().fit(data, None, Rng(2))
    return coupling, {
        "chi squared": coupling.chi_squared,
        "cost ratio": coupling.cost_ratio,
        "seconds": time.perf_counter() - wall,
        "processor seconds": time.process_time() - processor,
        "warnings": [str(warning.message) for warning in said],
        "peak resident MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "data MB": data.numel() * data.element_size() / 2**20,
    }


def gains(coupling: Semidiscrete, data: Tensor, rounds: int) -> dict[str, Any]:
    """The mean cost of independent pairs, of exact batch OT and of the coupling, on the same noise."""
    costs: dict[str, list[float]] = {"independent": [], "batch OT": [], "semidiscrete": []}
    for k in range(8 * rounds):
        z = noise(1, k * BATCH, BATCH, data)
        batch = data[Rng(3).fold(k).permutation(len(data))[:BATCH].to(data.device)]
        cost = torch.cdist(z.double(), batch.double()).square().cpu()
        i, j = linear_sum_assignment(cost.numpy())
        costs["independent"].append(float(cost.mean()))
        costs["batch OT"].append(float(cost[i, j].mean()))
        costs["semidiscrete"].append(float((z - data[coupling.assign(z)]).double().square().sum(1).mean()))
    means = {name: statistics.fmean(values) for name, values in costs.items()}
    saved = {name: means["independent"] - mean for name, mean in means.items()}
    return {**means, "gain over that of batch OT": saved["semidiscrete"] / saved["batch OT"], "batches": 8 * rounds}


def plain(data: Tensor, potentials: Tensor) -> Callable[[Tensor], Tensor]:
    """The same argmax by one product with all data, in float32."""
    h = ((potentials - data.double().square().sum(1)) / 2).float()
    return lambda z: torch.addmm(h, z, data.T).argmax(1)


def timed(coupling: Semidiscrete, data: Tensor, rounds: int) -> dict[str, Any]:
    """Milliseconds a noise."""
    clock = time.process_time if data.is_cpu else time.perf_counter
    found: dict[str, Any] = {}
    for size in (64, 256, 1024, 4096):
        looks = {"assign": coupling.assign, "plain": plain(data, coupling.potentials)}
        spent: dict[str, list[float]] = {name: [] for name in looks}
        for k in range(rounds + 1):
            z = noise(4, k * size, size, data)
            for name, look in looks.items():
                start = clock()
                look(z).cpu()
                spent[name].append(1e3 * (clock() - start) / size)
        # The first round warms caches.
        found[f"batch {size}"] = {name: statistics.median(values[1:]) for name, values in spent.items()}
    return found


def misses(coupling: Semidiscrete, data: Tensor, count: int) -> dict[str, Any]:
    """How often the search and the argmax of all scores differ beyond rounding, and what that costs."""
    look, wrong, lost, cost = plain(data, coupling.potentials), 0, 0.0, 0.0
    h = (coupling.potentials - data.double().square().sum(1)) / 2
    for start in range(0, count, 500):
        z = noise(5, start, min(500, count - start), data)
        ours, theirs = coupling.assign(z), look(z)
        both = [(z.double() * data[j].double()).sum(1) + h[j] for j in (ours, theirs)]
        wrong += int((both[0] < both[1] - 1e-6).sum())
        costs = [(z - data[j]).double().square().sum(1) for j in (ours, theirs)]
        lost += float((costs[0] - costs[1]).sum())
        cost += float(costs[1].sum())
    return {"noises": count, "missed": wrong, "share": wrong / count, "relative change of the cost": lost / cost}


def frequencies(coupling: Semidiscrete, data: Tensor, visits: int) -> dict[str, Any]:
    """How often each datum is met by ``visits`` noises a datum, beside what chance makes of equal frequencies."""
    count, drawn = len(data), visits * len(data)
    found = torch.zeros(count, dtype=torch.float64)
    for start in range(0, drawn, 4096):
        z = noise(6, start, min(4096, drawn - start), data)
        found += torch.bincount(coupling.assign(z).cpu(), minlength=count)
    estimate = count * float((found * (found - 1)).sum()) / (drawn * (drawn - 1)) - 1
    off = (found - visits).abs() / visits**0.5
    k = np.arange(0, 20 * visits)
    chance = poisson.pmf(k, visits)
    return {
        "noises": drawn,
        "chi squared": estimate,
        "standard error": (2 * count) ** 0.5 / drawn,
        "share of data off by more than so many sampling errors": {
            s: {
                "found": float((off > s).double().mean()),
                "by chance": float(chance[abs(k - visits) > s * visits**0.5].sum()),
            }
            for s in (2, 3, 4)
        },
        "largest deviation in sampling errors": float(off.amax()),
        "never met": int((found == 0).sum()),
        "never met by chance": count * float(chance[0]),
    }


def million() -> dict[str, Any]:
    """A process of its own: assignment of 1,000 noises among a million points, and its memory."""
    code = "import sys; sys.path[:0] = sys.argv[1:]; import semidiscrete; semidiscrete.stream()"
    folder = str(Path(__file__).parent)
    run = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def stream() -> None:
    """What :func:`million` runs. Fitting a million takes hours; these potentials spread the noise like fitted ones."""
    torch.set_num_threads(1)
    data = torch.empty(MILLION, 64)
    for start in range(0, MILLION, 10_000):
        data[start : start + 10_000] = Rng(0).rows(torch.arange(start, start + 10_000)).normal(64)
    norms = torch.linalg.vector_norm(data, dim=1, dtype=torch.float64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tensors = {"potentials": norms.square() - 2 * 4.75 * norms, "data": Points.of(data).mark, "measured": norms[:3]}
    clock = time.process_time()
    coupling = Semidiscrete().restored(data, None, tensors)
    ready = time.process_time() - clock
    z = Rng(1).rows(torch.arange(1000)).normal(64)
    clock = time.process_time()
    found = coupling.assign(z)
    spent = time.process_time() - clock
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {
        "data": MILLION,
        "dimensions": 64,
        "milliseconds a noise": spent,
        "seconds to restore": ready,
        "data MB": data.numel() * 4 / 2**20,
        "more resident MB": (after - before) / 1024,
        "MB of all scores at once": 4 * 1000 * MILLION / 2**20,
        "distinct data found": len(found.unique()),
    }
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--visits", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    data = images(given.count).to(given.device)
    found: dict[str, Any] = {"device": given.device, "images": given.count, "dimensions": data.shape[1]}

    def told(name: str, part: dict[str, Any]) -> None:
        found[name] = part
        print(f"{name}: {json.dumps(part, indent=1)}", flush=True)

    coupling, part = fitted(data)
    told("fit", {**part, "threads": torch.get_num_threads()})
    torch.set_num_threads(1)
    told("milliseconds a noise", timed(coupling, data, given.rounds))
    told("mean cost", gains(coupling, data, given.rounds))
    told("misses", misses(coupling, data, 2_000 * given.rounds))
    told("frequencies", frequencies(coupling, data, given.visits))
    if given.device == "cpu":
        told("a million data", million())
    keep("semidiscrete", found)


if __name__ == "__main__":
    main()
