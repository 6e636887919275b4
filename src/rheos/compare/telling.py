"""What a comparison found, in plain sentences, in which a loss is as visible as a gain."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from .study import SETTLED

FEW = 10
"""Evaluations that are called few."""

MANY_RATES = 3
"""Learning rates from which on their spread is told."""

Result = Mapping[str, Any]


def findings(result: Result) -> dict[str, list[str]]:
    """What was found, by what it is about."""
    sides = {name: side for name, side in result["contenders"].items() if side["ways"]}
    about = {
        "The best": [line for budget in (FEW, SETTLED) for line in _best(sides, budget, result["figure"])],
        f"A flow in {FEW} evaluations beside diffusion in {SETTLED}": _few_against_many(sides),
        "Errors of sampling and of training": [
            line for side in sides.values() for line in _errors(side, result["floor"])
        ],
        "Pace of training": _pace(sides),
        "Learning rates": _rates(result["contenders"]),
        "Size of the network": _scaling(result),
        "Cost": _cost(sides),
        "Errors of the network": _stress(sides),
        "Read with care": _cautions(result),
    }
    return {name: lines for name, lines in about.items() if lines}


def _cautions(result: Result) -> list[str]:
    told = [
        f"{_first(side['title'])} diverged: {reason}"
        for side in result["contenders"].values()
        for reason in side["diverged"]
    ]
    told.append(
        "Each side trained at its own learning rate, the best of the same few; network, first weights, order of the "
        "data, batch and steps were the same."
    )
    if result["seeds"] == 1:
        told.append("There was one seed, so no spread is shown: differences of some per cent mean nothing.")
    told.append(
        f"{result['training data']:,} small data and {result['steps']:,} steps tell how the two behave on equal terms, "
        "not which is better at the scale of large models: there training is longer, errors of training are smaller, "
        "and those of sampling weigh more."
    )
    return told


def middle(side: Mapping[str, Any], budget: int, way: str | None = None) -> float | None:
    """The median over seeds at a budget, by a sampler or by the side's own; ``None`` where it was not measured."""
    name = next(iter(side["ways"])) if way is None else way
    found = side["ways"].get(name, {"quality": {}})["quality"].get(str(budget))
    return None if found is None else statistics.median(found)


def _best(sides: Mapping[str, Any], budget: int, figure: str) -> list[str]:
    found = {name: value for name, side in sides.items() if (value := middle(side, budget)) is not None}
    if not found:
        return []
    ranked = sorted(found, key=lambda name: found[name])
    others = ", ".join(f"{sides[name]['title']} {found[name]:.3g}" for name in ranked[1:])
    rest = f"; then {others}" if others else ""
    return [
        f"At {budget} evaluations a sample the least {figure} is that of {sides[ranked[0]]['title']}, "
        f"{found[ranked[0]]:.3g}{rest}."
    ]


def _few_against_many(sides: Mapping[str, Any]) -> list[str]:
    """The best flow in few evaluations beside every diffusion model in many, by DDIM where it has it."""
    flows = {
        name: value
        for name, side in sides.items()
        if side["family"] == "flow" and (value := middle(side, FEW)) is not None
    }
    if not flows:
        return []
    best = min(flows, key=lambda name: flows[name])
    told = []
    for side in sides.values():
        for way in side["ways"]:
            many = middle(side, SETTLED, way)
            if side["family"] != "diffusion" or many is None:
                continue
            word = "at least as good as" if flows[best] <= many else "worse than"
            told.append(
                f"{_first(sides[best]['title'])} at {FEW} evaluations ({flows[best]:.3g}) is {word} "
                f"{side['title']} by {way} at {SETTLED} ({many:.3g})."
            )
    return told


def _errors(side: Mapping[str, Any], floor: float) -> list[str]:
    """What few evaluations cost, apart from what training left."""
    told = []
    for way in side["ways"]:
        few, many = middle(side, FEW, way), middle(side, SETTLED, way)
        if few is None or many is None:
            continue
        cost = few / many if many else 1.0
        told.append(
            f"{_first(side['title'])} by {way}: {FEW} evaluations give {cost:.2f} times the distance of {SETTLED}; "
            f"what is left at {SETTLED}, {many:.3g} beside {floor:.3g} for held-out data, is the error of training."
        )
    return told


def _pace(sides: Mapping[str, Any]) -> list[str]:
    """Steps in which each flow reached what each diffusion model ended with, and the other way round."""
    told = []
    for name, side in sides.items():
        final = _last(side)
        for other_name, other in sides.items():
            if final is None or name == other_name or side["family"] == other["family"]:
                continue
            reached = next(
                (int(step) for step, values in other["learning"].items() if statistics.median(values) <= final), None
            )
            when = "not within its steps" if reached is None else f"by step {reached:,}"
            told.append(f"{_first(other['title'])} reached the final quality of {side['title']} {when}.")
    return told


def _rates(sides: Mapping[str, Any]) -> list[str]:
    """How much the learning rate matters, where more than two were tried."""
    told = []
    for side in sides.values():
        tried = side["quality by rate"]
        known = [value for value in tried.values() if value is not None]
        if len(tried) < MANY_RATES or not known:
            continue
        lost = len(tried) - len(known)
        failed = f", and {lost} of them diverged" if lost else ""
        told.append(
            f"{_first(side['title'])}: over {len(tried)} learning rates from {min(tried, key=float)} to "
            f"{max(tried, key=float)} the worst distance is {max(known) / min(known):.3g} times the best{failed}."
        )
    return told


def _scaling(result: Result) -> list[str]:
    """How predictably quality follows the size of the network."""
    told = []
    for name, found in result.get("scaling", {"contenders": {}})["contenders"].items():
        if found["exponent"] is not None:
            told.append(
                f"{_first(result['contenders'][name]['title'])}: the distance goes with the number of parameters to "
                f"the power of {found['exponent']:.2f}; the widths lie off that line by a factor of "
                f"{found['off by a factor of']:.2f}."
            )
    return told


def _cost(sides: Mapping[str, Any]) -> list[str]:
    """What equal networks cost, and whether anything is simulated to train them."""
    known = {name: side for name, side in sides.items() if side["cost"]}
    if not known:
        return []
    told = []
    passes = {name: side["cost"]["training"]["passes"] for name, side in known.items()}
    if set(passes.values()) == {1}:
        told.append("Nothing is simulated to train: a step of each side takes one pass through the network.")
    told += [
        f"A training step of {known[name]['title']} takes {count} passes through the network."
        for name, count in passes.items()
        if count > 1
    ]
    for part, what in (("training", "the gradient of a batch"), ("sampling", "samples of ten evaluations")):
        for unit in ("operations", "bytes"):
            counts = {name: side["cost"][part][unit] for name, side in known.items()}
            least, most = (choose(counts, key=lambda name: counts[name]) for choose in (min, max))
            more = counts[most] / counts[least] - 1
            name = "memory" if unit == "bytes" else unit
            told.append(
                f"For {what} all take the same {name}, to {100 * more:.1f} %."
                if more < 0.05
                else f"For {what} {known[most]['title']} takes {100 * more:.0f} % more {name} than "
                f"{known[least]['title']}."
            )
    return told


def _stress(sides: Mapping[str, Any]) -> list[str]:
    """By how much samples move when the network errs."""
    known = {name: side for name, side in sides.items() if side["stress"]}
    if not known:
        return []
    told = []
    errors = [error for error in next(iter(known.values()))["stress"] if not error.startswith("same")]
    for error in errors:
        moved = {name: statistics.median(side["stress"][error]) for name, side in known.items()}
        ranked = sorted(moved, key=lambda name: moved[name])
        listed = ", ".join(f"{known[name]['title']} {100 * moved[name]:.2g} %" for name in ranked)
        told.append(f"With {error} samples move by, of their standard deviation: {listed}.")
    same = all(all(side["stress"]["same seed, same bits"]) for side in known.values())
    told.append(
        "The same seed gave the same bits for every side."
        if same
        else "The same seed did not give the same bits for every side; deterministic kernels would."
    )
    return told


def _first(title: str) -> str:
    """The title at the beginning of a sentence."""
    return title[:1].upper() + title[1:]


def _last(side: Mapping[str, Any]) -> float | None:
    values = list(side["learning"].values())
    return statistics.median(values[-1]) if values else None
