"""A comparison's figures as plots: the median over seeds, and the band between the best and the worst."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Plot

from .figures import Result, Side
from .phases import LEARNING
from .study import BUDGETS, SETTLED

COLOURS = tuple(to_hex(colormaps["tab20"](place)) for place in (*range(0, 20, 2), *range(1, 20, 2)))
"""Ten strong ones, then as many light ones."""

MARKERS = {"flow": "o", "diffusion": "s", "hybrid": "D", "few steps": "P", "simulated": "^"}

BROAD = 48
"""Letters of a label beyond which two do not stand side by side."""

LINES, INCHES = 6, 0.155
"""Lines of a legend that the height of a plot has room for, and what every further one adds."""


def against_evaluations(result: Result) -> Plot:
    """Quality against evaluations, a line for every side and sampler."""
    plot, axes = _begun(5.0)
    for side, colour in _coloured(result):
        for (way, found), style in zip(side["ways"].items(), cycle(("-", "--", ":")), strict=False):
            quality = {int(budget): values for budget, values in found["quality"].items()}
            _band(axes, quality, f"{side['title']} by {way}", colour, style, MARKERS[side["family"]])
    axes.axhline(result["floor"], color="0.5", lw=1, ls=":", label="held-out data")
    axes.set_xscale("log")
    axes.set_xticks(BUDGETS, list(map(str, BUDGETS)))
    axes.minorticks_off()
    return _finished(plot, axes, "network evaluations a sample", result["figure"])


def against_steps(result: Result) -> Plot:
    """Quality against training."""
    plot, axes = _begun(4.0)
    for side, colour in _coloured(result):
        learning = {int(step): values for step, values in side["learning"].items()}
        _band(axes, learning, side["title"], colour, "-", MARKERS[side["family"]])
    return _finished(plot, axes, "training steps", f"{result['figure']},\n{LEARNING} evaluations")


def against_size(result: Result) -> Plot:
    """Quality against the size of the network, where that was measured."""
    counts, laws = (result["scaling"][part] for part in ("parameters", "contenders"))
    plot, axes = _begun(4.0)
    for name, colour in zip(laws, cycle(COLOURS), strict=False):
        side = result["contenders"][name]
        quality = {counts[width]: values for width, values in laws[name]["quality"].items()}
        _band(axes, quality, side["title"], colour, "-", MARKERS[side["family"]])
    axes.set_xscale("log")
    judged = sorted({result["contenders"][name].get("judged at", SETTLED) for name in laws})
    at = " or ".join(map(str, judged))
    return _finished(plot, axes, "parameters of the network", f"{result['figure']},\n{at} evaluations")


def _begun(height: float) -> tuple[Plot, Any]:
    plot = Plot(figsize=(7, height), layout="constrained")
    return plot, plot.subplots()


def _coloured(result: Result) -> list[tuple[Side, str]]:
    """Every side that was measured, with its colour."""
    sides = [side for side in result["contenders"].values() if side["ways"]]
    return list(zip(sides, cycle(COLOURS), strict=False))


def _band(axes: Any, found: Mapping[int, Sequence[float]], label: str, colour: str, style: str, marker: str) -> None:
    at = sorted(found)
    axes.plot(at, [statistics.median(found[n]) for n in at], style, color=colour, marker=marker, ms=4, label=label)
    if any(len(found[n]) > 1 for n in at):
        axes.fill_between(at, [min(found[n]) for n in at], [max(found[n]) for n in at], color=colour, alpha=0.15, lw=0)


def _finished(plot: Plot, axes: Any, across: str, figure: str) -> Plot:
    axes.set_yscale("log")
    axes.set_xlabel(across)
    axes.set_ylabel(figure, fontsize=8)
    axes.grid(alpha=0.3)
    # Under the curves, however many there are, and within the width of the plot.
    longest = max(map(len, axes.get_legend_handles_labels()[1]), default=0)
    columns = 1 if longest > BROAD else 2
    lines = math.ceil(len(axes.get_legend_handles_labels()[1]) / columns)
    plot.set_figheight(plot.get_figheight() + INCHES * max(0, lines - LINES))
    plot.legend(loc="outside lower center", ncols=columns, fontsize=7, handlelength=3.5)
    return plot
