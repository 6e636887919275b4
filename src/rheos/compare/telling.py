"""What a comparison found, in plain sentences, in which a loss is as visible as a gain."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from .figures import Result, last, middle, plain_flow, quality, quotients, reached, spread, steps
from .study import SETTLED

FEW = 10
"""Evaluations that are called few."""

ONE_TO_FOUR = (1, 2, 4)
"""Evaluations that models of few steps are made for."""

MANY_RATES = 3
"""Learning rates from which on their spread is told."""


def findings(result: Result) -> dict[str, list[str]]:
    """What was found, by what it is about."""
    sides = {name: side for name, side in result["contenders"].items() if side["ways"]}
    about = {
        "The best": [
            line for budget in (*_made_for(sides), FEW, SETTLED) for line in _best(sides, budget, result["figure"])
        ],
        f"A flow in {FEW} evaluations beside diffusion in {SETTLED}": _few_against_many(sides),
        "Models of few steps": _few_steps(sides),
        "Errors of sampling and of training": _errors(sides, result["floor"]),
        "Pace of training": _pace(sides),
        "Diffusion and flow together": _hybrids(sides),
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
    if _made_for(result["contenders"]):
        told.append(
            "The network of a map is told where a step ends, and so begins at other weights; it is otherwise the same. "
            "Models of few steps took as many steps of training as the others, not as much time: see what a step costs."
        )
    if result["seeds"] == 1:
        told.append("There was one seed, so no spread is shown: differences of some per cent mean nothing.")
    told.append(
        f"{result['training data']:,} small data and {result['steps']:,} steps tell how the two behave on equal terms, "
        "not which is better at the scale of large models: there training is longer, errors of training are smaller, "
        "and those of sampling weigh more."
    )
    return told


def _best(sides: Mapping[str, Any], budget: int, figure: str) -> list[str]:
    found = {name: value for name, side in sides.items() if (value := middle(side, budget)) is not None}
    if not found:
        return []
    ranked = sorted(found, key=lambda name: found[name])
    others = ", ".join(f"{sides[name]['title']} {found[name]:.3g}" for name in ranked[1:])
    rest = f"; then {others}" if others else ""
    return [
        f"At {_times(budget)} a sample the least {figure} is that of {sides[ranked[0]]['title']}, "
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


def _made_for(sides: Mapping[str, Any]) -> list[int]:
    """The numbers of evaluations that sides are made for."""
    return sorted({side["judged at"] for side in sides.values() if side["family"] == "few steps"})


def _few_steps(sides: Mapping[str, Any]) -> list[str]:
    """What models of few steps do in one to four, how many a flow needs to be as good, and what pairs took."""
    flow, told = plain_flow(sides), []
    for side in sides.values():
        known = {n: value for n in ONE_TO_FOUR if (value := middle(side, n)) is not None}
        if side["family"] != "few steps" or not known:
            continue
        listed = ", ".join(f"{value:.3g} in {n}" for n, value in known.items() if n != 1)
        line = f"{_first(side['title'])} has {known[1]:.3g} in one evaluation, {listed}"
        told.append(line + ("." if flow is None else f"; {_as_good(flow, known[1])}."))
        told += _samplers(side)
        if pairs := side.get("pairs"):
            shares = [made["seconds"] / whole for made, whole in zip(pairs, side["training seconds"], strict=True)]
            told.append(
                f"{_first(side['title'])} made {pairs[0]['count']:,} pairs to learn from, which took "
                f"{100 * statistics.median(shares):.2g} % of its seconds of training."
            )
    return told


def _as_good(flow: Mapping[str, Any], goal: float) -> str:
    """In how many evaluations a flow is as good."""
    budgets = sorted(map(int, next(iter(flow["ways"].values()))["quality"]))
    enough = [budget for budget in budgets if (value := middle(flow, budget)) is not None and value <= goal]
    if not enough:
        return f"{flow['title']} is not as good as that in {_times(budgets[-1])} either"
    return f"{flow['title']} is as good as that in {_times(enough[0])}"


def _errors(sides: Mapping[str, Any], floor: float) -> list[str]:
    """What few evaluations cost, apart from what training left. A map errs anew at every step, so it has no part."""
    told = [f"What is left at {SETTLED} evaluations is the error of training; held-out data have {floor:.3g}."]
    for side in (side for side in sides.values() if side["family"] != "few steps"):
        for way in side["ways"]:
            few, many = middle(side, FEW, way), middle(side, SETTLED, way)
            if few is not None and many:
                told.append(
                    f"{_first(side['title'])} by {way}: {many:.3g} is left at {SETTLED}; {FEW} evaluations have "
                    f"{few / many:.2f} times as much."
                )
    return told if len(told) > 1 else []


def _pace(sides: Mapping[str, Any]) -> list[str]:
    """When the flow reached what each diffusion model ended with, and the other way round."""
    flow = plain_flow(sides)
    if flow is None:
        return []
    others = [side for side in sides.values() if side["family"] not in ("flow", "hybrid", "few steps")]
    pairs = [pair for other in others for pair in ((flow, other), (other, flow))]
    return [line for side, goal in pairs if (line := _reached(side, goal))]


def _reached(side: Mapping[str, Any], goal: Mapping[str, Any]) -> str:
    """When one side was as good as another in the end, in the median over seeds; nothing where that is not known."""
    found = reached(side, last(goal))
    if not found:
        return ""
    step = statistics.median(found.values())
    if math.isinf(step):
        return f"{_first(side['title'])} did not reach the final quality of {goal['title']}."
    total = steps(side)
    seconds = _seconds(statistics.median(side["training seconds"]) * step / total)
    return (
        f"{_first(side['title'])} reached the final quality of {goal['title']} by step {step:,.0f} of {total:,}, in "
        f"{seconds}."
    )


def _hybrids(sides: Mapping[str, Any]) -> list[str]:
    """What diffusion and flow gain from each other: of one network that goes on as the other, and of samplers."""
    told = []
    families = ([side for side in sides.values() if side["family"] == family] for family in ("flow", "diffusion"))
    best = [
        min(known, key=_few) for family in families if (known := [side for side in family if _few(side) < math.inf])
    ]
    for side in sides.values():
        if side["family"] == "hybrid":
            for other in best:
                ratio = quotients(quality(side, FEW), quality(other, FEW))
                told.append(
                    f"{_first(side['title'])} has {spread(ratio)} times the distance of {other['title']} at {FEW} "
                    "evaluations, after as many steps in all."
                )
                told += [line] if (line := _reached(side, other)) else []
    return told + [line for side in sides.values() if side["family"] != "few steps" for line in _samplers(side)]


def _samplers(side: Mapping[str, Any]) -> list[str]:
    """Every other sampler of a side beside its own."""
    own, *others = side["ways"]
    return [
        f"{_first(side['title'])} by {way} has {spread(ratio)} times the distance of {own} at {FEW} evaluations."
        for way in others
        if (ratio := quotients(quality(side, FEW, way), quality(side, FEW)))
    ]


def _few(side: Mapping[str, Any]) -> float:
    found = middle(side, FEW)
    return math.inf if found is None else found


def _rates(sides: Mapping[str, Any]) -> list[str]:
    """How much the learning rate matters, where more than two were tried."""
    told = []
    for side in sides.values():
        tried = side["quality by rate"]
        known = {rate: [v for v in values if v is not None] for rate, values in tried.items()}
        medians = [statistics.median(values) for values in known.values() if values]
        if len(tried) < MANY_RATES or not medians:
            continue
        lost = sum(len(tried[rate]) - len(known[rate]) for rate in tried)
        failed = f", and {lost} trainings diverged" if lost > 1 else ", and one training diverged" if lost else ""
        told.append(
            f"{_first(side['title'])}: over {len(tried)} learning rates from {min(tried, key=float)} to "
            f"{max(tried, key=float)} the worst distance is {max(medians) / min(medians):.3g} times the best{failed}."
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
        f"A training step of {known[name]['title']} takes {count:.3g} passes through the network."
        for name, count in passes.items()
        if count > 1
    ]
    for part, what in (("training", "the gradient of a batch"), ("sampling", "samples of ten evaluations")):
        for unit in ("operations", "bytes", "joules"):
            counts = {name: side["cost"][part][unit] for name, side in known.items()}
            if None in counts.values():
                continue
            least, most = (choose(counts, key=lambda name: counts[name]) for choose in (min, max))
            more = counts[most] / counts[least] - 1
            name = {"bytes": "memory", "joules": "energy"}.get(unit, unit)
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


def _times(evaluations: int) -> str:
    return "1 evaluation" if evaluations == 1 else f"{evaluations} evaluations"


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value < 180 else f"{value / 60:.0f} min"
