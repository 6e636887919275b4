"""What the library costs beside a hand-written loop, and beside the peers' own example loops.

    python bench/overhead.py [--rounds 5] [--steps 60] [--device cpu]

Both sides of a ratio do the same work on the same network, data and batch, in turn within one process (A B A B ...);
the figure is the median over rounds of A/B, in processor time of one thread (with a GPU: wall time). Training: a
step of ``fit`` against a plain loop with the same EMA, clipping and fused optimiser; and against the loops of
TorchCFM's and Meta's image examples (their optimiser, clipping and EMA as in those examples), where these are
installed. Sampling: ``integrate`` against the solver written out. Memory: peak resident size of a process of each kind.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from machine import keep
from rheos import nn as networks
from rheos import solvers
from rheos.core import Rng
from rheos.data import Shuffled, Tensors, digits, to_unit
from rheos.dynamics import Flow
from rheos.objectives import Matching
from rheos.training import Training, fit

WARM = 10
"""Steps before the clock starts."""


def clock() -> float:
    """Processor seconds of this process, which other programs on the machine do not change; wall seconds with a GPU."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


class Clocked:
    """A dataset that notes when each batch is taken; the gaps are the durations of steps."""

    def __init__(self, data: Tensors) -> None:
        self.data, self.times = data, []

    def __len__(self) -> int:
        return len(self.data)

    def take(self, index: Tensor) -> Any:
        self.times.append(clock())
        return self.data.take(index)

    def seconds(self) -> float:
        """Mean seconds a step, the first ones left out. The end of the last step is not seen, so it is left out too."""
        return (self.times[-1] - self.times[WARM]) / (len(self.times) - 1 - WARM)


def networks_under_test(device: torch.device) -> dict[str, Callable[[], nn.Module]]:
    def unet() -> nn.Module:
        with networks.seeded(0):
            return networks.UNet(1, 32, (1, 2), 1, classes=10).to(device)

    def mlp() -> nn.Module:
        with networks.seeded(0):
            return networks.MLP((1, 8, 8), 256, 4, classes=10).to(device)

    return {"unet": unet, "mlp": mlp}


def ours(network: nn.Module, data: Clocked, settings: Training, device: torch.device) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fit(
            network,
            Matching(),
            data,
            Shuffled(len(data)),
            settings,
            seed=0,
            out=Path(folder),
            device=device,
            progress=False,
            forecast=False,
        )


def by_hand(network: nn.Module, data: Clocked, settings: Training, device: torch.device) -> None:
    """The loop that a careful practitioner writes: fused AdamW, clipping, EMA by one foreach, warm-up and cosine."""
    parameters = list(network.parameters())
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, betas=settings.betas, weight_decay=0.0, fused=True
    )
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=settings.steps + 1)
    network.train()
    order = torch.randperm(len(data))
    for step in range(settings.steps):
        place = step * settings.batch % (len(data) - settings.batch)
        x1, cond = data.take(order[place : place + settings.batch])
        x1, cond = x1.to(device, non_blocking=True), cond.to(device, non_blocking=True)
        cond = cond.masked_fill(torch.rand(len(x1), device=device) < settings.drop, -1)
        x0, t = torch.randn_like(x1), torch.rand(len(x1), device=device)
        wide = t.reshape(-1, *[1] * (x1.dim() - 1))
        loss = (network((1 - wide) * x0 + wide * x1, t, cond) - (x1 - x0)).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip, foreach=True)
        optimizer.step()
        rate.step()
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - min(0.999, (1 + step) / (10 + step)))


def torchcfm_example(network: nn.Module, data: Clocked, settings: Training, device: torch.device) -> None:
    """The loop of TorchCFM's CIFAR-10 example: Adam, clipping, a scheduler, EMA entry by entry of the state dict."""
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

    matcher = ConditionalFlowMatcher(sigma=0.0)
    with networks.seeded(0):
        average = {key: value.detach().clone() for key, value in network.state_dict().items()}
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(step, 5000) / 5000)
    order = torch.randperm(len(data))
    for step in range(settings.steps):
        place = step * settings.batch % (len(data) - settings.batch)
        x1, cond = data.take(order[place : place + settings.batch])
        x1, cond = x1.to(device), cond.to(device)
        optimizer.zero_grad()
        x0 = torch.randn_like(x1)
        t, xt, ut = matcher.sample_location_and_conditional_flow(x0, x1)
        loss = torch.mean((network(xt, t, cond) - ut) ** 2)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rate.step()
        state = network.state_dict()
        for key in average:
            average[key].data.copy_(average[key].data * 0.9999 + state[key].data * (1 - 0.9999))


def meta_example(network: nn.Module, data: Clocked, settings: Training, device: torch.device) -> None:
    """The loop of Meta's image example: AdamW, a conditional-OT path, EMA parameter by parameter, the loss read each
    step."""
    from flow_matching.path import CondOTProbPath

    path = CondOTProbPath()
    average = [p.detach().clone() for p in network.parameters()]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.9, 0.95))
    order = torch.randperm(len(data))
    for step in range(settings.steps):
        place = step * settings.batch % (len(data) - settings.batch)
        x1, cond = data.take(order[place : place + settings.batch])
        x1, cond = x1.to(device), cond.to(device)
        cond = cond if torch.rand(1) >= settings.drop else torch.full_like(cond, -1)
        optimizer.zero_grad()
        noise, t = torch.randn_like(x1), torch.rand(len(x1), device=device)
        sample = path.sample(t=t, x_0=noise, x_1=x1)
        loss = torch.pow(network(sample.x_t, sample.t, cond) - sample.dx_t, 2).mean()
        loss.item()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for own, p in zip(average, network.parameters(), strict=True):
                own.sub_((own - p) * (1 - 0.9999))


LOOPS = {"by hand": by_hand, "torchcfm": torchcfm_example, "flow_matching": meta_example}


def training(steps: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """Seconds a step of each loop, and the ratio of ours to each, for both networks."""
    images = digits()
    x, labels = images.take(torch.arange(len(images)))
    found: dict[str, Any] = {}
    for name, build in networks_under_test(device).items():
        settings = Training(
            steps=steps, batch=128, log_every=10, sample_every=0, checkpoint_every=10 * steps, snapshots=0
        )
        times: dict[str, list[float]] = {"rheos": [], **{loop: [] for loop in LOOPS}}
        for _ in range(rounds):
            for loop, run in {"rheos": ours, **LOOPS}.items():
                data = Clocked(Tensors(to_unit(x), labels))
                try:
                    run(build(), data, settings, device)
                except ImportError:
                    continue
                times[loop].append(data.seconds())
        ratios = {
            loop: statistics.median(a / b for a, b in zip(times["rheos"], others, strict=True))
            for loop, others in times.items()
            if loop != "rheos" and others
        }
        found[name] = {
            "milliseconds a step": {loop: 1e3 * statistics.median(values) for loop, values in times.items() if values},
            "rheos over": ratios,
        }
        print(name, json.dumps(found[name], indent=1), flush=True)
    return found


def euler_by_hand(velocity: Callable[..., Tensor], x: Tensor, grid: Tensor) -> Tensor:
    for t, s in itertools.pairwise(grid):
        x = x + (s - t) * velocity(x, t)
    return x


def heun_by_hand(velocity: Callable[..., Tensor], x: Tensor, grid: Tensor) -> Tensor:
    for t, s in itertools.pairwise(grid):
        first = velocity(x, t)
        second = velocity(x + (s - t) * first, s)
        x = x + (s - t) * (0.5 * first + 0.5 * second)
    return x


def adams_by_hand(velocity: Callable[..., Tensor], x: Tensor, grid: Tensor) -> Tensor:
    last = None
    for t, s in itertools.pairwise(grid):
        rate = velocity(x, t)
        x = x + (s - t) * (rate if last is None else 1.5 * rate - 0.5 * last)
        last = rate
    return x


def sampling(rounds: int, device: torch.device) -> dict[str, Any]:
    """``integrate`` against the solver written out: the ratio for a large forward pass, microseconds a step for a
    tiny one."""
    unet = networks_under_test(device)["unet"]().eval()
    cases = {
        "unet, 256 images": (lambda x, t: unet(x, t), torch.randn(256, 1, 8, 8, device=device), 10),
        "tiny": (lambda x, t: -x, torch.randn(16, 2, device=device), 200),
    }
    pairs = {
        "Euler": (solvers.Euler(), euler_by_hand),
        "Heun": (solvers.Heun(), heun_by_hand),
        "AdamsBashforth(2)": (solvers.AdamsBashforth(2), adams_by_hand),
    }
    found: dict[str, Any] = {}
    for case, (velocity, x, steps) in cases.items():
        grid = torch.linspace(0, 1, steps + 1, device=device)
        for name, (solver, hand) in pairs.items():
            sides: tuple[list[float], list[float]] = ([], [])
            runs = (
                partial(solvers.integrate, solver, Flow(velocity), x, grid),
                partial(hand, velocity, x, grid),
            )
            with torch.no_grad():
                for _ in range(2 * rounds):
                    for side, run in zip(sides, runs, strict=True):
                        side.append(_timed(run, device))
            ratio = statistics.median(a / b for a, b in zip(*sides, strict=True))
            extra = statistics.median(a - b for a, b in zip(*sides, strict=True)) / steps * 1e6
            found[f"{name}, {case}"] = {
                "ratio": ratio,
                "microseconds more a step": extra,
                "milliseconds a step by hand": statistics.median(sides[1]) / steps * 1e3,
            }
            print(f"{name}, {case}", found[f"{name}, {case}"], flush=True)
    return found


def _timed(run: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - began


def memory(rounds: int) -> dict[str, Any]:
    """Peak resident memory of a process that trains by ``fit``, over that of one that trains by hand."""
    sides = {loop: [_peak_of(loop) for _ in range(rounds)] for loop in ("rheos", "by hand")}
    ratio = statistics.median(a / b for a, b in zip(sides["rheos"], sides["by hand"], strict=True))
    return {"ratio": ratio, "mebibytes": {loop: statistics.median(values) / 1024 for loop, values in sides.items()}}


def _peak_of(loop: str) -> int:
    done = subprocess.run([sys.executable, __file__, "--memory-of", loop], check=True, capture_output=True, text=True)
    return int(done.stdout.splitlines()[-1])


def memory_of(loop: str) -> None:
    """In a process of its own: train a larger network for a few steps and print the peak resident kilobytes."""
    with networks.seeded(0):
        network = networks.UNet(3, 64, (1, 2, 2), 2, classes=10)
    x = Rng(0).rows(torch.arange(256)).normal(3, 32, 32)
    data = Clocked(Tensors(x, torch.arange(256) % 10))
    settings = Training(steps=4, batch=32, log_every=10, sample_every=0, checkpoint_every=100, snapshots=0)
    (ours if loop == "rheos" else by_hand)(network, data, settings, torch.device("cpu"))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        memory_of(args.memory_of)
        return
    device = torch.device(args.device)
    # One thread: processor time then is time at work, and not time that threads wait for one another.
    torch.set_num_threads(1)
    result = {"device": args.device, "training": training(args.steps, args.rounds, device)}
    result["sampling"] = sampling(args.rounds, device)
    if device.type == "cpu":
        result["memory"] = memory(3)
        print("memory", result["memory"])
    keep("overhead", result)


if __name__ == "__main__":
    main()
