"""Draws the pictures of the docs from the results that are kept: docs/pictures/quality.png of bench/quality.py, one for
each study of bench/compare.py, and few.png of bench/few_evaluations.py."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

import few_tables
from compare import STUDIES
from kept import read
from rheos.compare.plots import against_evaluations

mpl.use("Agg")
from matplotlib import pyplot as plt

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "quality.png"
NAMES = ("eight-gaussians", "moons", "digits", "fashion")
COLOURS = {
    "independent": "C7",
    "batch OT": "C3",
    "semidiscrete": "C0",
    "batch OT by class": "C1",
    "semidiscrete by class": "C2",
}


def draw(axes: Any, result: dict[str, Any], labelled: bool) -> None:
    """The median over seeds, and the band between the best and the worst."""
    figure = "distance by class" if labelled else "distance"
    runs = [run for run in result["runs"] if run["labelled"] == labelled]
    for coupling in dict.fromkeys(run["coupling"] for run in runs):
        curves = [run["curve"] for run in runs if run["coupling"] == coupling]
        budgets = [budget for budget in curves[0] if budget != "adaptive"]
        columns = [[curve[budget][figure] for curve in curves] for budget in budgets]
        count = [int(budget) for budget in budgets]
        colour = COLOURS[coupling]
        axes.plot(count, [statistics.median(column) for column in columns], "o-", ms=3, color=colour, label=coupling)
        axes.fill_between(count, [min(c) for c in columns], [max(c) for c in columns], color=colour, alpha=0.2, lw=0)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    axes.set_title(f"{result['data']}, {'with' if labelled else 'without'} labels", fontsize=9)
    axes.grid(alpha=0.3)


def main() -> None:
    results = {name: result for name in NAMES if (result := read(f"quality-{name}")) is not None}
    figure, rows = plt.subplots(2, len(results), figsize=(3.2 * len(results), 6), squeeze=False, layout="constrained")
    for column, result in enumerate(results.values()):
        for labelled in (False, True):
            axes = rows[int(labelled), column]
            if any(run["labelled"] == labelled for run in result["runs"]):
                draw(axes, result, labelled)
            else:
                axes.set_visible(False)
    for row in rows:
        row[0].set_ylabel("distance")
        row[0].legend(fontsize=7)
    for axes in rows[-1]:
        axes.set_xlabel("evaluations")
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=120)
    print(f"drawn: {PICTURE}")
    for name in STUDIES:
        if (result := read(f"compare-{name}")) is not None:
            file = PICTURE.with_name(f"compare-{name}.png")
            against_evaluations(result).savefig(file, dpi=120)
            print(f"drawn: {file}")
    _draw_few(PICTURE.with_name("few.png"))


def _draw_few(file: Path) -> None:
    scenes = list(few_tables.scenes())
    if not scenes:
        return
    across = min(3, len(scenes))
    down = math.ceil(len(scenes) / across)
    figure, rows = plt.subplots(down, across, figsize=(3.6 * across, 3 * down), squeeze=False, layout="constrained")
    for axes, scene in zip(rows.flat, scenes, strict=False):
        few_tables.draw(axes, *scene)
    for axes in rows.flat[len(scenes) :]:
        axes.set_visible(False)
    rows[0, 0].legend(fontsize=6)
    for row in rows:
        row[0].set_ylabel("error, 95th percentile")
    figure.savefig(file, dpi=120)
    print(f"drawn: {file}")


if __name__ == "__main__":
    main()
