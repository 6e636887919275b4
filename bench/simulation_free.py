"""What simulating costs: flow matching against maximum likelihood of a continuous normalizing flow (FFJORD).

    python bench/simulation_free.py [--quick] [--only iteration|likelihood] [--seeds 3] [--rounds 3]

One network for all (a perceptron of three layers of 64, tanh), batches of 256, one thread, processor seconds.

*Iteration*: one step (loss, gradient, Adam) in 2, 16 and 64 dimensions, on a network that was trained by likelihood for
a while, for an adaptive solver needs more evaluations as a flow takes shape. The rival is ours, and one written on
torchdiffeq: exact trace and Hutchinson's, back-propagation and adjoint, adaptive and fixed steps. The exact trace is
timed in every way that PyTorch has; the rival gets the fastest.

*Likelihood*: seconds until the likelihood of 10,000 held-out moons is at a level, everything from the data on counted,
pairs too. Every budget is a run of its own, whose learning rate falls to nothing at its end; a level is reached by the
cheapest budget whose median over the seeds reaches it. Likelihoods are by the exact trace and Dopri5 at 1e-5; the
entropy of the moons is known, so that a level can be read as an excess. The settings of each method are the best of a
search by hand (rates, decays, gains, tolerances, steps of the solver) for the level of 1.905.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from machine import keep
from rheos import nn as networks
from rheos.core import Loss, Rng
from rheos.data import digits, moons
from rheos.dynamics import Flow, log_likelihood
from rheos.objectives import Matching
from rheos.objectives.simulated import SimulatedLikelihood
from rheos.solvers import RK4, Dopri5

BATCH = 256
NOISE = 0.12
"""Of the moons: their entropy is then 1.87 nats, and the levels below are the hard ones."""
LEVELS = (1.95, 1.925, 1.905, 1.891, 1.885, 1.88, 1.875)
HELD_OUT = 10_000
TRAINING = 20_000


class Field(nn.Module):
    """A velocity: ``x`` and ``t`` through three layers of 64 with tanh. The last layer starts near zero, so that the
    first flow nearly stands still; ``gain`` scales the other layers' first weights."""

    def __init__(self, size: int, seed: int, gain: float, width: int = 64) -> None:
        super().__init__()
        with networks.seeded(seed):
            inner = [nn.Linear(n, width) for n in (size + 1, width, width)]
            for layer in inner:
                nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.in_features))
                nn.init.uniform_(layer.bias, -0.5, 0.5)
            last = nn.Linear(width, size)
            nn.init.normal_(last.weight, std=1e-3)
        self.layers = nn.Sequential(*(part for layer in inner for part in (layer, nn.Tanh())), last)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layers(torch.cat([x, t.expand(len(x))[:, None]], 1))


# The exact trace, in every way that PyTorch has. Each gives the velocity and the divergence, both differentiable.


def batched_vjp(field: nn.Module, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    velocity, size = field(x, t), x.shape[1]
    basis = torch.eye(size)[:, None].expand(size, *x.shape)
    (rows,) = torch.autograd.grad(velocity, x, basis, create_graph=True, is_grads_batched=True)
    return velocity, torch.einsum("kbk->b", rows)


def loop_of_vjps(field: nn.Module, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """One backward pass after the other, as FFJORD's own code has it."""
    velocity, total = field(x, t), torch.zeros(len(x))
    for k in range(x.shape[1]):
        (row,) = torch.autograd.grad(velocity[:, k].sum(), x, create_graph=True)
        total = total + row[:, k]
    return velocity, total


def by_sample(jacobian: Any, field: nn.Module, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    def one(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        velocity = field(x[None], t[None])[0]
        return velocity, velocity

    matrix, velocity = torch.func.vmap(jacobian(one, has_aux=True))(x, t.expand(len(x)))
    return velocity, matrix.diagonal(dim1=1, dim2=2).sum(1)


def vmap_jvp(field: nn.Module, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    def along(axis: Tensor) -> tuple[Tensor, Tensor]:
        found = torch.func.jvp(lambda x: field(x, t), (x,), (axis.expand_as(x),))
        return found[0], (found[1] * axis).sum(1)

    once: Any = (None, 0)
    velocity, slopes = torch.func.vmap(along, out_dims=once)(torch.eye(x.shape[1]))
    return velocity, slopes.sum(0)


Trace = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]
TRACES: dict[str, Trace] = {
    "loop of vjps": loop_of_vjps,
    "batched vjp": batched_vjp,
    "vmap of jacrev": partial(by_sample, torch.func.jacrev),
    "vmap of jacfwd": partial(by_sample, torch.func.jacfwd),
    "vmap of jvp": vmap_jvp,
}


class Augmented(nn.Module):
    """The field and its divergence as torchdiffeq wants them. Without a ``trace`` it is Hutchinson's, by ``probe``."""

    def __init__(self, field: nn.Module, trace: Trace | None, probe: Tensor) -> None:
        super().__init__()
        self.field, self.trace, self.probe, self.evaluations = field, trace, probe, 0

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        self.evaluations += 1
        x = state[0]
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            if self.trace is not None:
                return self.trace(self.field, x, t)
            velocity = self.field(x, t)
            (row,) = torch.autograd.grad(velocity, x, self.probe, create_graph=True)
            return velocity, (row * self.probe).sum(1)


@dataclass
class Torchdiffeq:
    """FFJORD on torchdiffeq, called like an objective. ``steps`` are those of a fixed grid, RK4; None is Dopri5."""

    trace: Trace | None = None
    adjoint: bool = False
    tolerance: float = 1e-3
    steps: int | None = None
    evaluations: int = 0

    def __call__(self, field: nn.Module, x1: Tensor, cond: None, rng: Rng, **_: Any) -> Loss:
        import torchdiffeq

        signs = (rng.per_row(len(x1)).bits(x1.shape[1]) >> 63) * 2 + 1
        pair = Augmented(field, self.trace, signs.to(x1.dtype))
        options: dict[str, Any] = {"method": "rk4", "options": {"step_size": 1 / (self.steps or 1)}}
        if self.steps is None:
            options = {"method": "dopri5", "rtol": self.tolerance, "atol": self.tolerance}
        if self.adjoint:
            options["adjoint_params"] = tuple(field.parameters())
        solve = torchdiffeq.odeint_adjoint if self.adjoint else torchdiffeq.odeint
        x, change = solve(pair, (x1, torch.zeros(len(x1))), torch.tensor([1.0, 0.0]), **options)
        self.evaluations = pair.evaluations
        size = x1.shape[1]
        nll = 0.5 * x[-1].square().sum(1) + 0.5 * size * math.log(2 * math.pi) - change[-1]
        return Loss(nll / size)


@dataclass(frozen=True)
class Setting:
    """How a method is trained: the rate (of a run of n > 160 steps it is ``(160/n)**0.6`` times that), the share of the
    steps over which it falls, in a straight line, to nothing, and the gain of the first weights."""

    rate: float
    fall: float = 1.0
    gain: float = 1.0


Rows = tuple[Tensor, Tensor | None, Tensor | None]
"""Data, and the noise and the times where they are known."""


def train(field: nn.Module, objective: Any, batches: Iterator[Rows], steps: int, setting: Setting) -> None:
    """``steps`` optimiser steps; the loop by which every method is measured."""
    parameters = list(field.parameters())
    adam = torch.optim.Adam(parameters, betas=(0.9, 0.99), fused=True)
    rate = setting.rate * min(1.0, 160 / steps) ** 0.6
    for step in range(steps):
        x1, x0, t = next(batches)
        for parameter in parameters:
            parameter.grad = None
        objective(field, x1, None, Rng(step), x0=x0, t=t).rows.mean().backward()
        adam.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 5, (steps - step) / (setting.fall * steps))
        adam.step()


def plain(data: Tensor, seed: int) -> Iterator[Rows]:
    """Batches of data alone."""
    rng, epoch = Rng(seed), 0
    while True:
        for rows in rng.fold(epoch).permutation(len(data)).split(BATCH)[: len(data) // BATCH]:
            yield data[rows], None, None
        epoch += 1


def joined(x0: Tensor, x1: Tensor, seed: int) -> Iterator[Rows]:
    """Batches of pairs, with times that are spread evenly over each batch. Drawn an epoch at a time."""
    rng, epoch, used = Rng(seed), 0, len(x1) // BATCH * BATCH
    while True:
        keys = rng.fold(epoch)
        order = keys.permutation(len(x1))[:used]
        strata = keys.fold(1).bits(used // BATCH, BATCH).argsort(1)
        t = ((strata + keys.fold(2).uniform(used // BATCH, BATCH)) / BATCH).clamp_(2.0**-24, 1 - 2.0**-24)
        yield from zip(x1[order].split(BATCH), x0[order].split(BATCH), t.unbind(), strict=True)
        epoch += 1


def noise_for(data: Tensor, seed: int) -> Tensor:
    return Rng(seed).fold(7).rows(torch.arange(len(data))).normal(*data.shape[1:])


def independent(data: Tensor, seed: int) -> Iterator[Rows]:
    """Pairs with new noise every epoch."""
    for epoch in itertools.count():
        once = joined(noise_for(data, seed + 1000 * epoch), data, seed + 1000 * epoch)
        yield from itertools.islice(once, len(data) // BATCH)


def transported(data: Tensor, seed: int) -> Iterator[Rows]:
    """Pairs by optimal transport, made once, of 16,384 noises and data, and used over and over."""
    import ot

    x1 = data[Rng(seed).fold(5).permutation(len(data))[:16_384]]
    x0 = noise_for(x1, seed)
    # Four plans by binary space partition, merged: within a per cent of the optimum, in some hundredths of a second.
    _, place, _ = ot.bsp.compute_bspot_bijection(x0.double().numpy(), x1.double().numpy(), n_plans=4, seed=seed)
    yield from joined(x0, x1[torch.as_tensor(place, dtype=torch.int64)], seed)


@dataclass(frozen=True)
class Method:
    """How a flow is trained: the objective, where batches come from, the setting, and the budgets that are tried."""

    objective: Any
    batches: Callable[[Tensor, int], Iterator[Rows]]
    setting: Setting
    budgets: tuple[int, ...]
    after: tuple[str, int] | None = None
    """A method by which the network is trained first, on the clock, and for how many steps."""


@cache
def moon_data() -> tuple[Tensor, Tensor]:
    both = moons(TRAINING + HELD_OUT, Rng(0), NOISE)
    return both[:TRAINING], both[TRAINING:]


def held_out_nll(field: nn.Module) -> float:
    """Nats, by the exact trace and Dopri5 at 1e-5."""
    with torch.no_grad():
        parts = moon_data()[1].split(2500)
        rows = [log_likelihood(Flow(field), x, solver=Dopri5(1e-5, 1e-5)) for x in parts]
    return -float(torch.cat(rows).mean())


def entropy() -> float:
    """Minus the mean log-density of the held-out moons under their own law, an integral over the two arcs."""
    variance = (0.5 + 0.25) / 2 + (0.5 - 4 / math.pi**2 + (2 / math.pi - 0.25) ** 2) / 2 + NOISE**2
    angle = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000 * math.pi
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    arcs = torch.cat([upper, torch.tensor([1.0, 0.5], dtype=torch.float64) - upper])
    arcs = arcs - torch.tensor([0.5, 0.25], dtype=torch.float64)
    constant = math.log(2 * math.pi * NOISE**2 * len(arcs)) - math.log(variance)
    rows = [
        torch.logsumexp(-torch.cdist(x.double() * math.sqrt(variance), arcs).square() / (2 * NOISE**2), 1) - constant
        for x in moon_data()[1].split(2500)
    ]
    return -float(torch.cat(rows).mean())


def trained(method: Method, steps: int, seed: int) -> tuple[nn.Module, float]:
    """The network after ``steps`` steps, and the processor seconds since the data were there."""
    begun = time.process_time()
    if method.after is None:
        field: nn.Module = Field(2, seed, method.setting.gain)
    else:
        field = trained(METHODS[method.after[0]], method.after[1], seed)[0]
    train(field, method.objective, method.batches(moon_data()[0], seed), steps, method.setting)
    return field, time.process_time() - begun


def _ours(trace: Any, solver: Any, gradient: Any = "backpropagation", steps: int = 0) -> SimulatedLikelihood:
    grid = tuple(1 - n / steps for n in range(steps + 1)) if steps else None
    return SimulatedLikelihood(solver, trace, gradient, grid=grid)


MATCHED = "flow matching, OT pairs"
LIKELY = Setting(2e-2, 0.6)
LONG = (100, 130, 160, 200, 250, 300, 400, 600)
METHODS: dict[str, Method] = {
    MATCHED: Method(Matching(), transported, Setting(3e-2, 0.6, 1.6), (*LONG, 1000, 2000, 4000)),
    "flow matching, independent": Method(Matching(), independent, Setting(3e-2, 0.8, 1.6), (500, 1000, 2000, 4000)),
    "ours, Hutchinson, RK4 x 4": Method(_ours("hutchinson", RK4(), steps=4), plain, LIKELY, LONG[:7]),
    "ours, Hutchinson, Dopri5 1e-3": Method(_ours("hutchinson", Dopri5(1e-3, 1e-3)), plain, LIKELY, LONG[1:4]),
    "torchdiffeq, Hutchinson, Dopri5 1e-3": Method(Torchdiffeq(), plain, LIKELY, LONG),
    "torchdiffeq, exact, adjoint, Dopri5 1e-5": Method(Torchdiffeq(batched_vjp, True, 1e-5), plain, LIKELY, LONG[1:4]),
    "400 steps of matching, then ours": Method(
        _ours("hutchinson", RK4(), steps=4), plain, Setting(1e-3), (25, 50, 100, 200, 400), (MATCHED, 400)
    ),
}


def data_of(size: int) -> Tensor:
    """Moons; or the digits (N, 64) or the means of their 2 x 2 squares (N, 16), with noise of a level's width."""
    if size == 2:
        return moon_data()[0]
    images = digits()
    x = images.take(torch.arange(len(images)))[0].float() / 255 * 16
    x = x + Rng(3).rows(torch.arange(len(x))).uniform(*x.shape[1:]) - 0.5
    x = nn.functional.avg_pool2d(x, 2) if size == 16 else x
    return ((x - x.mean()) / x.std()).flatten(1)


def rivals() -> dict[str, Any]:
    """Everything that is timed beside matching, by name."""
    found: dict[str, Any] = {}
    for trace in ("exact", "hutchinson"):
        kind = batched_vjp if trace == "exact" else None
        for tolerance, way in itertools.product((1e-5, 1e-3), ("backpropagation", "adjoint")):
            solver = f"{way}, Dopri5 {tolerance:.0e}"
            found[f"{trace}, torchdiffeq, {solver}"] = Torchdiffeq(kind, way == "adjoint", tolerance)
            found[f"{trace}, ours, {solver}"] = _ours(trace, Dopri5(tolerance, tolerance), way)
        found[f"{trace}, torchdiffeq, backpropagation, RK4 x 4"] = Torchdiffeq(kind, steps=4)
        found[f"{trace}, ours, backpropagation, RK4 x 4"] = _ours(trace, RK4(), steps=4)
        found[f"{trace}, ours, adjoint, RK4 x 4"] = _ours(trace, RK4(), "adjoint", 4)
    found["exact, torchdiffeq, loop of vjps, adjoint, Dopri5 1e-05"] = Torchdiffeq(loop_of_vjps, True, 1e-5)
    return found


def traces(size: int, rounds: int) -> dict[str, float]:
    """Milliseconds of the velocity, its exact divergence and their gradient, at once for a batch, in every way."""
    field, x, t = Field(size, 0, 1.0), Rng(1).normal(BATCH, size).requires_grad_(), Rng(2).uniform(BATCH)

    def once(trace: Trace) -> None:
        velocity, divergence = trace(field, x, t)
        (velocity.square().mean() + divergence.square().mean()).backward()

    return {name: 1e3 * timed(partial(once, trace), rounds) for name, trace in TRACES.items()}


def timed(once: Callable[[], Any], rounds: int, most: float = 10.0) -> float:
    """Median processor seconds of a call, after one that does not count; fewer rounds once ``most`` seconds are
    spent."""
    once()
    seconds: list[float] = []
    while len(seconds) < rounds and sum(seconds) < most:
        begun = time.process_time()
        once()
        seconds.append(time.process_time() - begun)
    return statistics.median(seconds)


def iteration(size: int, rounds: int, quick: bool) -> dict[str, Any]:
    """Milliseconds of one step of every method in ``size`` dimensions, and their ratios to matching."""
    data, field = data_of(size), Field(size, 0, 1.0)
    train(field, _ours("hutchinson", RK4(), steps=4), plain(data, 0), 20 if quick else 300, Setting(1e-2))
    matching = timed(lambda: train(field, Matching(), independent(data, 0), 100, Setting(0.0)), rounds) / 100
    found: dict[str, Any] = {"milliseconds of matching": 1e3 * matching, "milliseconds": {}, "ratio": {}}
    for name, rival in rivals().items():
        seconds = timed(partial(train, field, rival, plain(data, 1), 1, Setting(0.0)), rounds)
        found["milliseconds"][name], found["ratio"][name] = 1e3 * seconds, seconds / matching
        print(f"{size:3d}-d {name:60s} {1e3 * seconds:9.1f} ms {seconds / matching:8.0f} times", flush=True)
    found["traces, milliseconds"] = traces(size, rounds)
    return found


def curve(name: str, seeds: int, quick: bool) -> list[dict[str, Any]]:
    """For each budget: steps, and the seconds and the held-out likelihoods of every seed."""
    method, points = METHODS[name], []
    for steps in (20,) if quick else method.budgets:
        runs = []
        for seed in range(1 if quick else seeds):
            field, seconds = trained(method, steps, seed)
            runs.append((seconds, held_out_nll(field)))
        point = {"steps": steps, "seconds": [run[0] for run in runs], "nats": [run[1] for run in runs]}
        middle = [statistics.median(point[key]) for key in ("seconds", "nats")]
        print(f"{name:45s} {steps:5d} steps {middle[0]:8.2f} s  {middle[1]:.4f} nats", flush=True)
        points.append({**point, "median seconds": middle[0], "median nats": middle[1]})
    return points


def seconds_to(points: Sequence[dict[str, Any]], level: float) -> float | None:
    """Of the cheapest budget that reaches the level; None when none does."""
    return min((p["median seconds"] for p in points if p["median nats"] <= level), default=None)


def crossing(matched: Sequence[dict[str, Any]], rival: Sequence[dict[str, Any]]) -> float | None:
    """The highest level, to a thousandth of a nat, that the rival reaches no later than matching does."""
    for thousandths in range(1950, 1860, -1):
        one, other = (seconds_to(points, thousandths / 1000) for points in (matched, rival))
        if other is not None and (one is None or other <= one):
            return thousandths / 1000
    return None


def likelihood(seeds: int, quick: bool) -> dict[str, Any]:
    """Curves of every method, their seconds to each level, and the level below which simulating wins."""
    # What is paid once in a process, imports and first calls, is no method's cost.
    for method in METHODS.values():
        trained(method, 2, 0)
    curves = {name: curve(name, seeds, quick) for name in METHODS}
    reached = {name: {str(level): seconds_to(points, level) for level in LEVELS} for name, points in curves.items()}
    ours = reached[MATCHED]
    ratios = {
        name: {key: value / own for key, value in row.items() if value is not None and (own := ours[key]) is not None}
        for name, row in reached.items()
    }
    crossings = {name: crossing(curves[MATCHED], points) for name, points in curves.items() if name != MATCHED}
    for name, row in ratios.items():
        print(f"{name:45s}", {key: f"{value:.0f}x" for key, value in row.items()}, "wins at", crossings.get(name))
    return {
        "entropy of the held-out moons": entropy(),
        "curves": curves,
        "seconds to a level": reached,
        "times the seconds of matching": ratios,
        "simulating wins at and below": crossings,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["iteration", "likelihood"])
    parser.add_argument("--quick", action="store_true", help="a try of under a minute; keeps nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"peers": {name: importlib.metadata.version(name) for name in ("torchdiffeq", "POT")}}
    if args.only != "likelihood":
        sizes = (2,) if args.quick else (2, 16, 64)
        rounds = 1 if args.quick else args.rounds
        result["iteration"] = {str(size): iteration(size, rounds, args.quick) for size in sizes}
    if args.only != "iteration":
        result["likelihood"] = likelihood(args.seeds, args.quick)
    if not args.quick:
        keep("simulation_free", result)


if __name__ == "__main__":
    main()
