"""How quality follows the size of the network: a comparison at every width, and a power law through them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..nn import parameter_count
from ..recipes import Recipe
from .study import Say, Study

LEAST_WIDTHS = 3
"""Widths below which a line through them leaves nothing to be off."""


def scaled(study: Study, widths: Sequence[int], build: Callable[[int], Recipe], say: Say) -> dict[str, Any]:
    """The comparison at each width, in a folder of its own, and for every side the law ``quality = c*parameters**p``.

    Args:
        study: what is compared.
        widths: features of the network.
        build: the recipe of a width.
        say: is told of progress.
    """
    counts, found = {}, {}
    for width in widths:
        recipe = build(width)
        counts[str(width)] = parameter_count(recipe.network(0))
        say(f"width {width}, {counts[str(width)]:,} parameters")
        found[str(width)] = replace(study, recipe=recipe, out=study.out / f"width-{width}").run(say)
    sides = {}
    for name in study.names:
        quality = {}
        for width, result in found.items():
            side = result["contenders"][name]
            if ways := side["ways"]:
                quality[width] = next(iter(ways.values()))["quality"][str(side["judged at"])]
        fitted = law({counts[w]: statistics.median(q) for w, q in quality.items()})
        seeds = zip(*quality.values(), strict=False)
        each = [law(dict(zip(map(counts.__getitem__, quality), values, strict=True))) for values in seeds]
        off = [one["off by a factor of"] for one in each if one["off by a factor of"] is not None]
        sides[name] = {"quality": quality, **fitted, "off in each seed": off}
    return {"parameters": counts, "contenders": sides}


def law(points: Mapping[int, float]) -> dict[str, float | None]:
    """The exponent p of ``c*parameters**p`` through points in least squares of the logarithms, and by what factor the
    points lie off it in the root mean square; ``None`` for too few points."""
    if len(points) < LEAST_WIDTHS:
        return {"exponent": None, "off by a factor of": None}
    x, y = (np.log(np.array(values, dtype=np.float64)) for values in (list(points), list(points.values())))
    slope, start = np.polyfit(x, y, 1)
    # Two degrees of freedom went into the line.
    off = math.sqrt(float(((y - start - slope * x) ** 2).sum()) / (len(x) - 2))
    return {"exponent": float(slope), "off by a factor of": math.exp(off)}
