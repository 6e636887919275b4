"""What is run for a comparison, and what is kept of it.

Every side trains at each learning rate with the first seed; the best rate is its own from then on, and the other seeds
follow. A training is a run folder like any other, which ``rheos sample`` opens. What it measured stands in its
``cell.json``, so that a comparison that stopped goes on with the first training that has none, and within a training
where that stopped.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from torch import nn

from ..core import DivergedError, InputError
from ..core.files import write_whole
from ..recipes import Judge, Recipe, Sampler, Splits
from .contenders import Contender, contender
from .cost import sampling_cost, training_cost
from .phases import Trainer, distance, learning, pairing_seconds, training_seconds
from .stress import stressed

BUDGETS = (1, 2, 4, 10, 20, 50, 100)
"""Network evaluations a sample at which quality is measured."""

SHOWN = (1, 2, 4, 10, 20, 50)
"""Those whose samples are shown side by side, from the same noise."""

PICTURED = 100
"""Samples in a picture."""

SETTLED = 50
"""Evaluations at which learning rates are compared, and the last that are compared in words: what is left then is the
error of training more than that of sampling. A side that is made for fewer steps is judged at those."""

STRESSED = 64
"""Samples that are drawn under errors."""

LEAST_STEPS = 40
"""Steps below which nothing is learned that could be compared."""

CELL = "cell.json"

Say = Callable[[str], object]


class Cell(NamedTuple):
    """One training."""

    side: Contender
    rate: float
    seed: int


@final
@dataclass(frozen=True)
class Study:
    """A comparison.

    Args:
        recipe: network, data, batch and steps that all sides share.
        names: the sides.
        rates: learning rates that each side tries.
        seeds: trainings of each side, from seed 0.
        count: samples that are measured.
        out: the folder.
        device: where to train and to sample.
        full: train every seed at every rate, which tells how much either matters, rather than at the best.

    Raises:
        InputError: if a number makes no sense, a side cannot take part, or the recipe trains too short to learn
            anything.
    """

    recipe: Recipe
    names: tuple[str, ...]
    rates: tuple[float, ...]
    seeds: int
    count: int
    out: Path
    device: torch.device = torch.device("cpu")
    full: bool = False

    def __post_init__(self) -> None:
        if not self.names or not self.rates or self.seeds < 1:
            raise InputError(
                f"a comparison takes a contender, a learning rate and a seed at least, got {len(self.names)}, "
                f"{len(self.rates)} and {self.seeds}."
            )
        if self.count < 10:
            raise InputError(f"at least 10 samples are needed to measure anything, got {self.count}.")
        if self.recipe.training.steps < LEAST_STEPS:
            raise InputError(
                f"{self.recipe.training.steps} steps train nothing that could be compared; give at least "
                f"{LEAST_STEPS}, and some hundred to see a difference."
            )
        for name in ("names", "rates"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise InputError(f"a comparison has each of its {name} once, got {getattr(self, name)}.")
        # Sides that cannot take part are refused before anything is made.
        for name in self.names:
            contender(name, self.recipe)

    def run(self, say: Say) -> dict[str, Any]:
        """Train and measure what is not there yet, and tell all of it."""
        splits = self.recipe.kind.open(self.recipe.data.path)
        judge = self.recipe.kind.judge(splits, self.out / "measures")
        sides = self.sides
        each = len(self.rates) * self.seeds if self.full else len(self.rates) + self.seeds - 1
        total = len(sides) * each
        clock = _Clock(total, say)
        found: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
        for side in sides:
            for rate in self.rates:
                found[side.name].append(self._cell(Cell(side, rate, 0), splits, judge, clock))
        for side in sides:
            best = chosen_rate(found[side.name], side.budget or SETTLED)
            for rate in self.rates if self.full else (best,):
                for seed in range(1, self.seeds):
                    if rate is None:
                        clock.skip()
                    else:
                        found[side.name].append(self._cell(Cell(side, rate, seed), splits, judge, clock))
        return {
            "recipe": self.recipe.name,
            "data": self.recipe.data.path or "built in",
            "training data": self.recipe.data.count,
            "network": self.recipe.network.network.__name__,
            "steps": self.recipe.training.steps,
            "batch": self.recipe.training.batch,
            "samples": self.count,
            "seeds": self.seeds,
            "figure": judge.name,
            "floor": judge.floor,
            "contenders": {side.name: _told(side, found[side.name]) for side in sides},
        }

    @property
    def sides(self) -> list[Contender]:
        """Who takes part."""
        return [contender(name, self.recipe) for name in self.names]

    def pictures(self, result: Mapping[str, Any]) -> dict[str, dict[int, Path]]:
        """The pictures of samples from the same noise, by side and number of evaluations."""
        found = {}
        for side in self.sides:
            rate = result["contenders"][side.name]["rate"]
            files = {} if rate is None else {n: self.picture(Cell(side, rate, 0), n) for n in SHOWN}
            found[side.name] = {budget: file for budget, file in files.items() if file.exists()}
        return found

    def folder(self, cell: Cell) -> Path:
        """Where a training stands."""
        return self.out / "runs" / cell.side.name.replace(":", "-") / f"rate-{cell.rate:g}" / f"seed-{cell.seed}"

    def picture(self, cell: Cell, budget: int) -> Path:
        """Where samples of a training are shown."""
        return self.folder(cell) / f"evaluations-{budget:03d}.png"

    def _cell(self, cell: Cell, splits: Splits, judge: Judge, clock: _Clock) -> dict[str, Any]:
        """What a training and its samples measured, as kept or anew."""
        folder = self.folder(cell)
        file = folder / CELL
        if file.exists():
            clock.skip()
            return json.loads(file.read_text())
        clock.begin(f"{cell.side.title}, learning rate {cell.rate:g}, seed {cell.seed}")
        found: dict[str, Any] = {"rate": cell.rate, "seed": cell.seed}
        try:
            phases = Trainer(splits, judge, max(10, self.count // 2), self.device)(
                cell.side, folder, cell.rate, cell.seed
            )
            network = phases[-1].average
            found |= {"learning": learning(folder), "training seconds": training_seconds(folder)}
            if phases[-1].pairs:
                found["pairs"] = {"count": phases[-1].pairs, "seconds": pairing_seconds(folder)}
            found["ways"] = {way: self._measured(cell, way, network, judge) for way in cell.side.ways}
            found["stress"] = stressed(cell.side.recipe, network, STRESSED, cell.seed)
            if cell.seed == 0:
                sampling = sampling_cost(cell.side.recipe, network)
                found["cost"] = {"training": training_cost(phases, sampling, self.device), "sampling": sampling}
        except DivergedError as error:
            found = {"rate": cell.rate, "seed": cell.seed, "diverged": str(error)}
        write_whole(file, json.dumps(found, indent=1) + "\n")
        clock.end()
        return found

    def _measured(self, cell: Cell, way: str, network: nn.Module, judge: Judge) -> dict[str, Any]:
        """Quality and time by the number of evaluations."""
        sampler = Sampler(cell.side.ways[way], network, seed=cell.seed)
        quality, seconds = {}, {}
        for budget in BUDGETS:
            if budget < cell.side.ways[way].solver.stages:  # pyright: ignore[reportAttributeAccessIssue]
                continue
            began = time.perf_counter()
            drawn = sampler.draw(self.count, evaluations=budget)
            seconds[str(budget)] = time.perf_counter() - began
            quality[str(budget)] = distance(drawn, judge)
            if cell.seed == 0 and budget in SHOWN and way == next(iter(cell.side.ways)):
                labels = None if drawn.labels is None else drawn.labels[:PICTURED]
                self.recipe.kind.write(drawn.states[:PICTURED], labels, self.picture(cell, budget))
        return {"quality": quality, "sampling seconds": seconds}


def chosen_rate(cells: list[dict[str, Any]], budget: int = SETTLED) -> float | None:
    """The learning rate of the best quality at a number of evaluations, by the paper's own sampler; ``None`` when every
    training diverged."""
    judged = {cell["rate"]: _settled(cell, budget) for cell in cells if cell["seed"] == 0 and "diverged" not in cell}
    return min(judged, key=lambda rate: judged[rate]) if judged else None


def _settled(cell: Mapping[str, Any], budget: int) -> float:
    first = next(iter(cell["ways"].values()))
    return first["quality"][str(budget)]


def _told(side: Contender, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """One side: its rate, and every figure of the trainings at it, in the order of their seeds."""
    budget = side.budget or SETTLED
    rate = chosen_rate(cells, budget)
    own = [cell for cell in cells if cell["rate"] == rate and "diverged" not in cell]
    rates: dict[str, list[float | None]] = {}
    for cell in cells:
        rates.setdefault(f"{cell['rate']:g}", []).append(None if "diverged" in cell else _settled(cell, budget))
    ways = {}
    for way in side.ways if own else ():
        budgets = own[0]["ways"][way]["quality"]
        ways[way] = {
            "quality": {b: [cell["ways"][way]["quality"][b] for cell in own] for b in budgets},
            "sampling seconds": {b: [cell["ways"][way]["sampling seconds"][b] for cell in own] for b in budgets},
        }
    return {
        "title": side.title,
        "family": side.family,
        "judged at": budget,
        "rate": rate,
        "seeds": [cell["seed"] for cell in own],
        "quality by rate": rates,
        "diverged": [cell["diverged"] for cell in cells if "diverged" in cell],
        "ways": ways,
        "learning": {step: [cell["learning"][step] for cell in own] for step in (own[0]["learning"] if own else ())},
        "training seconds": [cell["training seconds"] for cell in own],
        "pairs": [cell["pairs"] for cell in own if "pairs" in cell],
        "stress": {error: [cell["stress"][error] for cell in own] for error in (own[0]["stress"] if own else ())},
        "cost": own[0]["cost"] if own else {},
    }


class _Clock:
    """Tells what is being done, and how long the rest will take."""

    def __init__(self, total: int, say: Say) -> None:
        self.total, self.say, self.done, self.began = total, say, 0, 0.0
        self.spent: list[float] = []

    def begin(self, what: str) -> None:
        left = ""
        if self.spent:
            minutes = statistics.fmean(self.spent) * (self.total - self.done) / 60
            left = f", about {minutes:.0f} min left"
        self.say(f"{self.done + 1} of {self.total}: {what}{left}")
        self.began = time.monotonic()

    def end(self) -> None:
        self.spent.append(time.monotonic() - self.began)
        self.done += 1

    def skip(self) -> None:
        self.done += 1
