"""Reading a comparison's figures: medians and spreads over seeds, and quotients of two sides, seed by seed.

A seed fixes the first weights, the order of the data and the noise for all sides alike, so that two sides differ less
within a seed than between seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]
Side = Mapping[str, Any]
BySeed = Mapping[int, float]


def quality(side: Side, budget: int, way: str | None = None) -> dict[int, float]:
    """The distance of every seed at a budget, by a sampler or by the side's own; empty where it was not measured."""
    return _measured(side, "quality", budget, way)


def seconds(side: Side, budget: int, way: str | None = None) -> dict[int, float]:
    """The seconds in which all samples were drawn, likewise."""
    return _measured(side, "sampling seconds", budget, way)


def _measured(side: Side, what: str, budget: int, way: str | None) -> dict[int, float]:
    name = next(iter(side["ways"])) if way is None else way
    found = side["ways"].get(name, {what: {}})[what].get(str(budget), [])
    return dict(zip(side["seeds"], found, strict=False))


def middle(side: Side, budget: int, way: str | None = None) -> float | None:
    """The median of :func:`quality`; ``None`` where it was not measured."""
    found = quality(side, budget, way)
    return statistics.median(found.values()) if found else None


def last(side: Side) -> dict[int, float]:
    """The distance at the end of training, of the samples that were drawn while it went on."""
    curves = list(side["learning"].values())
    return dict(zip(side["seeds"], curves[-1], strict=False)) if curves else {}


def reached(side: Side, goal: BySeed) -> dict[int, float]:
    """The training steps after which each seed was as good as its goal, between two looks by a straight line in the
    logarithm of the distance; infinite where it never was. The first look is the earliest that can be told."""
    steps = [int(step) for step in side["learning"]]
    found = {}
    for place, seed in enumerate(side["seeds"]):
        if seed in goal and steps:
            found[seed] = _crossing(steps, [values[place] for values in side["learning"].values()], goal[seed])
    return found


def _crossing(steps: Sequence[int], values: Sequence[float], goal: float) -> float:
    for n, value in enumerate(values):
        if value > goal:
            continue
        if n == 0 or goal <= 0:
            return float(steps[n])
        # The look before was worse than the goal, so this is a share of at most one.
        share = math.log(values[n - 1] / goal) / math.log(values[n - 1] / value) if value > 0 else 1.0
        return steps[n - 1] + share * (steps[n] - steps[n - 1])
    return math.inf


def to_equal(one: Side, other: Side) -> list[float]:
    """The share of its training after which one side is as good as both are at their ends, over the other's share,
    seed by seed. The goal is the worse of the two ends, which both reach."""
    ends = last(one), last(other)
    goal = {seed: max(end[seed] for end in ends) for seed in ends[0] if seed in ends[1]}
    shares = [{seed: step / steps(side) for seed, step in reached(side, goal).items()} for side in (one, other)]
    return quotients(*shares)


def steps(side: Side) -> int:
    """The steps of its training."""
    return max(map(int, side["learning"]), default=0)


def plain_flow(sides: Mapping[str, Side]) -> Side | None:
    """The flow that stands for all of them: that on straight lines, or the first there is."""
    flows = {name: side for name, side in sides.items() if side["family"] == "flow"}
    return flows.get("flow", next(iter(flows.values()), None))


def quotients(one: BySeed, other: BySeed) -> list[float]:
    """One over the other for every seed that both have."""
    return [one[seed] / other[seed] if other[seed] else math.inf for seed in one if seed in other]


def spread(values: Iterable[float]) -> str:
    """The median, and the least and the greatest where there are several."""
    known = sorted(values)
    middle = _number(statistics.median(known))
    return middle if len(known) == 1 else f"{middle} ({_number(known[0])} to {_number(known[-1])})"


def _number(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.3g}"
