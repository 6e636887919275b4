"""What articles claim of flow matching and diffusion, held against one comparison.

Each claim has its own quotient of a flow over each diffusion model, taken seed by seed. *Confirmed* means that it holds
for every diffusion model and sampler in every seed, *refuted* that it holds for none in any; what lies between is
*confirmed in part*.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .figures import Result, Side, plain_flow, quality, quotients, seconds, spread, to_equal
from .study import SETTLED

FEW, MANY = 20, 100
"""Evaluations of a flow, and of a diffusion model, of which articles speak."""

ENOUGH = 1.05
"""Budgets suffice whose distance is at most so many times that of the most evaluations."""

LISTED = 3
"""Quotients that are told one by one."""

ALIKE = 1.01
"""Quotients of cost below which two sides cost the same."""

SAVED, FASTER = 1 - 0.36, 2.3
"""The share of training time that is left, and the gain in speed, of which articles speak."""

TEXTS = {
    "C02": "diffusion models simulate the whole generation during training",
    "C03": "fewer training iterations than diffusion for equal images",
    "C04": "36 % (or 55 %) less training time: 14 to 9 days",
    "C05": "20 flow steps replace 50 diffusion steps, 2.3 times as fast",
    "C06": "10 to 20 steps, elsewhere 4 to 10, suffice where diffusion needs 100",
    "C08": "peak training memory 78 to 62 GB, 21 % less",
    "C12": "deterministic: the same seed gives the same output",
    "C13": "sampling is more stable, small errors compound less",
    "C14": "the velocity is a more direct target than score or noise",
    "C15": "more sensitive to hyper-parameters and initialisation",
    "C17": "scales more predictably with model size",
    "C26": "lower energy and cost",
    "C27": "hybrids of diffusion and flow profit from both",
}
"""The claims that a comparison may touch."""


class Verdict(NamedTuple):
    """What became of a claim: its number in the ledger, its text, the verdict, and the figures."""

    id: str
    claim: str
    verdict: str
    measured: str


Finding = tuple[str, str] | None
"""A verdict and its figures; ``None`` where the comparison does not touch the claim."""


def verdicts(result: Result) -> list[Verdict]:
    """Every claim that a comparison touches. They are of flows and diffusion models; those of few steps have none."""
    own = result["contenders"].items()
    sides = {name: side for name, side in own if side["ways"] and side["family"] != "few steps"}
    found = {name: judge(sides, result) for name, judge in _JUDGES.items()}
    return [Verdict(name, TEXTS[name], *finding) for name, finding in found.items() if finding is not None]


def judged(ratios: Mapping[str, Sequence[float]], most: float = 1.0) -> str:
    """The verdict on the claim that all quotients are at most ``most``."""
    every = [ratio for values in ratios.values() for ratio in values]
    if all(ratio <= most for ratio in every):
        return "confirmed"
    return "refuted" if all(ratio > most for ratio in every) else "confirmed in part"


def _rivals(sides: Mapping[str, Side]) -> list[Side]:
    """Diffusion models that predict their own quantity."""
    return [side for name, side in sides.items() if side["family"] == "diffusion" and ":" not in name]


def _beside(sides: Mapping[str, Side]) -> list[tuple[Side, Side]]:
    """The flow with each of the rivals."""
    flow = plain_flow(sides)
    return [] if flow is None else [(flow, rival) for rival in _rivals(sides)]


def _listed(ratios: Mapping[str, Sequence[float]]) -> str:
    """Each with its name; of many the least and the greatest."""
    told = {name: f"{spread(values)} ({name})" for name, values in ratios.items()}
    if len(told) <= LISTED:
        return ", ".join(told.values())
    ranked = sorted(told, key=lambda name: statistics.median(ratios[name]))
    return f"from {told[ranked[0]]} to {told[ranked[-1]]}, of {len(told)}"


def _simulated(sides: Mapping[str, Side], result: Result) -> Finding:
    passes = {side["title"]: side["cost"]["training"]["passes"] for side in _rivals(sides) if side["cost"]}
    if not passes:
        return None
    told = ", ".join(f"{count:.3g} ({name})" for name, count in passes.items())
    return judged({name: [1 / count] for name, count in passes.items()}, 0.5), (
        f"passes through the network in a training step: {told}; one, as of flow matching, generates nothing"
    )


def _steps(sides: Mapping[str, Side], result: Result) -> Finding:
    ratios = {rival["title"]: ratio for flow, rival in _beside(sides) if (ratio := to_equal(flow, rival))}
    if not ratios:
        return None
    return judged(ratios, 1 - 1e-9), (
        "steps of the flow until it is as good as the worse of the two is at its end, over the rival's until then: "
        f"{_listed(ratios)}"
    )


def _time(sides: Mapping[str, Side], result: Result) -> Finding:
    ratios = {}
    for flow, rival in _beside(sides):
        # One network and one loop: seconds of the same training differ by chance, and by pairing and conversions.
        pace = statistics.median(flow["training seconds"]) / statistics.median(rival["training seconds"])
        if ratio := to_equal(flow, rival):
            ratios[rival["title"]] = [pace * each for each in ratio]
    if not ratios:
        return None
    some = any(statistics.median(values) < 1 for values in ratios.values())
    return ("confirmed" if judged(ratios, SAVED) == "confirmed" else "confirmed in part" if some else "refuted"), (
        f"seconds of the flow's training until it is as good as the worse of the two is at its end, over the rival's: "
        f"{_listed(ratios)}"
    )


def _fifty(sides: Mapping[str, Side], result: Result) -> Finding:
    better, faster = {}, []
    for flow, rival in _beside(sides):
        for way in rival["ways"]:
            if ratio := quotients(quality(flow, FEW), quality(rival, SETTLED, way)):
                better[f"{rival['title']}, {way}"] = ratio
                faster += quotients(seconds(rival, SETTLED, way), seconds(flow, FEW))
    if not better:
        return None
    verdict = judged(better)
    if verdict == "confirmed" and statistics.median(faster) < FASTER:
        verdict = "confirmed in part"
    return verdict, (
        f"distance of the flow at {FEW} over the rival's at {SETTLED}: {_listed(better)}; the flow's samples take "
        f"{spread(faster)} times less time"
    )


def _suffices(side: Side, way: str) -> int:
    """The fewest evaluations that do what the most do, in the median over seeds."""
    found = {int(budget): statistics.median(each) for budget, each in side["ways"][way]["quality"].items()}
    return min(budget for budget, value in found.items() if value <= ENOUGH * found[max(found)])


def _few(sides: Mapping[str, Side], result: Result) -> Finding:
    flow, rivals = plain_flow(sides), _rivals(sides)
    if flow is None or not rivals:
        return None
    own = _suffices(flow, next(iter(flow["ways"])))
    needed = {f"{side['title']}, {way}": _suffices(side, way) for side in rivals for way in side["ways"]}
    tens = {
        name: quotients(quality(side, 10), quality(side, MANY))
        for name, side in [("the flow", flow), *((rival["title"], rival) for rival in rivals)]
    }
    told = _listed({name: [count] for name, count in needed.items()})
    verdict = "refuted" if own > FEW else "confirmed" if min(needed.values()) >= MANY else "confirmed in part"
    return verdict, (
        f"evaluations that come within 5 % of {MANY}: {own} of the flow, {told}; distance at 10 over that at {MANY} by "
        f"the own sampler: {_listed({name: values for name, values in tens.items() if values})}"
    )


def _memory(sides: Mapping[str, Side], result: Result) -> Finding:
    pairs = [(flow, rival) for flow, rival in _beside(sides) if flow["cost"] and rival["cost"]]
    if not pairs:
        return None
    ratios = {r["title"]: [f["cost"]["training"]["bytes"] / r["cost"]["training"]["bytes"]] for f, r in pairs}
    return judged(ratios, 1 / ALIKE), (
        f"bytes held in a training step, flow over rival: {_listed(ratios)}. What costs memory is the network, its "
        "width and the batch: activations wait for the gradient, whatever the target is"
    )


def _deterministic(sides: Mapping[str, Side], result: Result) -> Finding:
    key = "same seed, same bits"
    same = {side["title"]: all(side["stress"][key]) for side in sides.values() if side["stress"]}
    if not same:
        return None
    lost = [name for name, equal in same.items() if not equal]
    if lost:
        return "refuted", f"drawn twice, samples are not the same: {', '.join(lost)}"
    return "confirmed", "drawn twice, samples are equal bit by bit, for every side alike"


def _stable(sides: Mapping[str, Side], result: Result) -> Finding:
    ratios = {}
    for flow, rival in _beside(sides):
        for error in flow["stress"]:
            if not error.startswith("same"):
                moved = (dict(zip(side["seeds"], side["stress"][error], strict=True)) for side in (flow, rival))
                ratios[f"{rival['title']}, {error}"] = quotients(*moved)
    if not ratios:
        return None
    return judged(ratios), f"how far samples of the flow move over the rival's, from the same error: {_listed(ratios)}"


def _target(sides: Mapping[str, Side], result: Result) -> Finding:
    """The velocity beside every other quantity, on one path."""
    ratios = {}
    for name, side in sides.items():
        plain, _, quantity = name.partition(":")
        own = sides.get(plain)
        if quantity in ("noise", "score", "data", "v") and own is not None and own["family"] == "flow":
            for budget in (10, SETTLED):
                if ratio := quotients(quality(own, budget), quality(side, budget)):
                    ratios[f"{quantity}, {own['title']}, {budget}"] = ratio
    if not ratios:
        return None
    return judged(ratios), f"distance where the velocity is predicted, over another quantity: {_listed(ratios)}"


def _sensitive(sides: Mapping[str, Side], result: Result) -> Finding:
    """Spread over learning rates, seed by seed, and over seeds."""
    pairs = [(f, r) for f, r in _beside(sides) if min(len(one["quality by rate"]) for one in (f, r)) > 2]
    if not pairs:
        return None
    ratios, rates, seeds = {}, {}, {}
    for pair in pairs:
        own, other = (_over_rates(side) for side in pair)
        # The claim is that the flow has the greater spread.
        ratios[pair[1]["title"]] = [1.0 if a == b else b / a for a, b in zip(own, other, strict=False)]
        for side, spreads in zip(pair, (own, other), strict=True):
            rates[side["title"]] = spreads
            seeds[side["title"]] = [_worst(list(quality(side, SETTLED).values()))]
    return judged(ratios, 1 - 1e-9), (
        f"worst over best distance of all learning rates: {_listed(rates)}; of seeds at the best rate: {_listed(seeds)}"
    )


def _over_rates(side: Side) -> list[float]:
    """For every seed that trained at all rates, the worst distance over the best."""
    return [_worst(values) for values in zip(*side["quality by rate"].values(), strict=False)]


def _worst(values: Sequence[float | None]) -> float:
    """The worst over the best; infinite where one diverged."""
    known = [value for value in values if value is not None]
    return math.inf if len(known) < len(values) else max(known) / min(known)


def _predictable(sides: Mapping[str, Side], result: Result) -> Finding:
    laws = result.get("scaling", {"contenders": {}})["contenders"]
    off = {sides[name]["title"]: law["off in each seed"] for name, law in laws.items() if name in sides}
    pairs = [(f["title"], r["title"]) for f, r in _beside(sides) if off.get(f["title"]) and off.get(r["title"])]
    if not pairs:
        return None
    ratios = {
        rival: [math.log(a) / math.log(b) if b > 1 else math.inf for a, b in zip(off[flow], off[rival], strict=False)]
        for flow, rival in pairs
    }
    told = {title: off[title] for title in dict.fromkeys(name for pair in pairs for name in pair)}
    return judged(ratios), f"factor by which widths lie off a power law in the number of parameters: {_listed(told)}"


def _cost(sides: Mapping[str, Side], result: Result) -> Finding:
    """Operations to equal quality, of training and of a sample."""
    training, sampling, energy = {}, {}, []
    for flow, rival in _beside(sides):
        if not (flow["cost"] and rival["cost"]):
            continue
        for unit in ("operations", "joules"):
            counts = [side["cost"]["training"][unit] for side in (flow, rival)]
            if None in counts:
                continue
            found = [counts[0] / counts[1] * ratio for ratio in to_equal(flow, rival)]
            if unit == "operations":
                training[rival["title"]] = found
            else:
                energy += found
        goal = {seed: ENOUGH * value for seed, value in _best(rival, SETTLED).items()}
        needed = [_needed(flow, seed, value) / SETTLED for seed, value in goal.items() if seed in flow["seeds"]]
        if needed:
            sampling[rival["title"]] = needed
    if not training or not sampling:
        return None
    told = f"energy of training likewise {spread(energy)}" if energy else "no counter of energy could be read"
    return judged({**training, **{f"{name}, a sample": v for name, v in sampling.items()}}, 1 - 1e-9), (
        f"operations of training to equal quality, flow over rival: {_listed(training)}; evaluations of a sample as "
        f"good as the rival's best at {SETTLED}, over {SETTLED}: {_listed(sampling)}; {told}"
    )


def _best(side: Side, budget: int) -> dict[int, float]:
    """The least distance of every seed over the samplers that were measured there."""
    ways = [found for way in side["ways"] if (found := quality(side, budget, way))]
    return {seed: min(way[seed] for way in ways) for seed in side["seeds"]} if ways else {}


def _needed(side: Side, seed: int, goal: float) -> float:
    """The fewest evaluations in which a seed is as good as its goal."""
    budgets = sorted(map(int, next(iter(side["ways"].values()))["quality"]))
    return next((float(b) for b in budgets if quality(side, b).get(seed, math.inf) <= goal), math.inf)


def _hybrids(sides: Mapping[str, Side], result: Result) -> Finding:
    """A network that goes on as a flow beside the flow and the diffusion model, after equal steps; and a diffusion
    model by a flow's solver."""
    flow, rivals = plain_flow(sides), _rivals(sides)
    ratios = {}
    for side in sides.values():
        if side["family"] == "hybrid":
            for parent in [*([flow] if flow else []), *rivals]:
                ratios[f"{side['title']} over {parent['title']}"] = quotients(quality(side, 10), _best(parent, 10))
    for rival in rivals:
        for way in rival["ways"]:
            if flow and way in flow["ways"]:
                others = {**rival, "ways": {name: found for name, found in rival["ways"].items() if name != way}}
                ratio = quotients(quality(rival, 10, way), _best(others, 10))
                ratios[f"{rival['title']}, {way} over its own samplers"] = ratio
    ratios = {name: values for name, values in ratios.items() if values}
    return (judged(ratios), f"distance at 10 evaluations: {_listed(ratios)}") if ratios else None


_Judge = Callable[[Mapping[str, Side], Mapping[str, Any]], Finding]

_JUDGES: Mapping[str, _Judge] = {
    "C02": _simulated,
    "C03": _steps,
    "C04": _time,
    "C05": _fifty,
    "C06": _few,
    "C08": _memory,
    "C12": _deterministic,
    "C13": _stable,
    "C14": _target,
    "C15": _sensitive,
    "C17": _predictable,
    "C26": _cost,
    "C27": _hybrids,
}
