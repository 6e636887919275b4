"""A comparison as one page that needs no other file."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Plot

from ..evaluation import html
from .study import BUDGETS, LEARNING, SETTLED
from .telling import Result, findings

COLOURS = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C7")
MARKERS = {"flow": "o", "diffusion": "s", "simulated": "^"}


def page(result: Result, pictures: Mapping[str, Mapping[int, Path]]) -> str:
    """The page.

    Args:
        result: what :meth:`~rheos.compare.Study.run` told.
        pictures: PNG files of samples by contender and number of evaluations.
    """
    title = f"Flow matching and diffusion on equal terms: {result['recipe']}"
    facts = {
        "data": f"{result['data']}, {result['training data']:,} to train on",
        "network": result["network"],
        "training": f"{result['steps']:,} steps of {result['batch']}, {_seeds(result['seeds'])}",
        "measured": f"{result['figure']}, {result['samples']:,} samples; held-out data have {result['floor']:.3g}",
    }
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    body = [f"<dl>{listed}</dl>", "<h2>What was found</h2>"]
    for about, lines in findings(result).items():
        body.append(f"<h3>{escape(about)}</h3><ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>")
    sides = {name: side for name, side in result["contenders"].items() if side["ways"]}
    if sides:
        body += ["<h2>Quality against evaluations</h2>", _against_evaluations(result, sides), _table(sides)]
        body += ["<h2>Quality against training</h2>", _against_steps(result, sides)]
        body += ["<h2>Learning rates and time</h2>", _rates(result["contenders"])]
        body += ["<h2>Cost and errors</h2>", _costs(sides)]
    if "scaling" in result:
        body += ["<h2>Quality against the size of the network</h2>", _against_size(result)]
    shown = {name: files for name, files in pictures.items() if files}
    if shown:
        body += ["<h2>Samples from the same noise</h2>", _grid(result["contenders"], shown)]
    return html.whole(title, body)


def _seeds(count: int) -> str:
    return f"{count} seeds" if count > 1 else "1 seed, so without bands"


def _against_evaluations(result: Result, sides: Mapping[str, Any]) -> str:
    plot = Plot(figsize=(7, 4), layout="constrained")
    axes = plot.subplots()
    for side, colour in zip(sides.values(), COLOURS * len(sides), strict=False):
        for number, (way, found) in enumerate(side["ways"].items()):
            quality = {int(budget): values for budget, values in found["quality"].items()}
            style = ("-", "--", ":")[number % 3]
            _band(axes, quality, f"{side['title']}, {way}", colour, style, MARKERS[side["family"]])
    axes.axhline(result["floor"], color="0.5", lw=1, ls=":", label="held-out data")
    return _finished(plot, axes, "network evaluations a sample", result["figure"], log=True)


def _against_steps(result: Result, sides: Mapping[str, Any]) -> str:
    plot = Plot(figsize=(7, 3.4), layout="constrained")
    axes = plot.subplots()
    for side, colour in zip(sides.values(), COLOURS * len(sides), strict=False):
        learning = {int(step): values for step, values in side["learning"].items()}
        _band(axes, learning, side["title"], colour, "-", MARKERS[side["family"]])
    return _finished(plot, axes, "training steps", f"{result['figure']}, {LEARNING} evaluations", log=False)


def _against_size(result: Result) -> str:
    counts = result["scaling"]["parameters"]
    plot = Plot(figsize=(7, 3.4), layout="constrained")
    axes = plot.subplots()
    for (name, found), colour in zip(result["scaling"]["contenders"].items(), COLOURS * len(counts), strict=False):
        side = result["contenders"][name]
        quality = {counts[width]: values for width, values in found["quality"].items()}
        _band(axes, quality, side["title"], colour, "-", MARKERS[side["family"]])
    axes.set_xscale("log")
    return _finished(plot, axes, "parameters of the network", f"{result['figure']}, {SETTLED} evaluations", log=False)


def _band(axes: Any, found: Mapping[int, Sequence[float]], label: str, colour: str, style: str, marker: str) -> None:
    """The median over seeds, and what lies between the best and the worst."""
    at = sorted(found)
    axes.plot(at, [statistics.median(found[n]) for n in at], style, color=colour, marker=marker, ms=4, label=label)
    if any(len(found[n]) > 1 for n in at):
        axes.fill_between(at, [min(found[n]) for n in at], [max(found[n]) for n in at], color=colour, alpha=0.15, lw=0)


def _finished(plot: Plot, axes: Any, across: str, figure: str, *, log: bool) -> str:
    axes.set_yscale("log")
    if log:
        axes.set_xscale("log")
        axes.set_xticks(BUDGETS, list(map(str, BUDGETS)))
        axes.minorticks_off()
    axes.set_xlabel(across)
    axes.set_ylabel(figure)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return html.picture(html.png(plot), f"{figure} against {across}")


def _table(sides: Mapping[str, Any]) -> str:
    budgets = sorted({int(b) for side in sides.values() for way in side["ways"].values() for b in way["quality"]})
    rows = []
    for side in sides.values():
        for way, found in side["ways"].items():
            cells = [found["quality"].get(str(budget)) for budget in budgets]
            rows.append([f"{side['title']}, {way}", *("" if cell is None else _spread(cell) for cell in cells)])
    return html.table(["median (least to greatest)", *map(str, budgets)], rows)


def _spread(values: Sequence[float]) -> str:
    middle = f"{statistics.median(values):.3g}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.3g} to {max(values):.3g})"


def _rates(sides: Mapping[str, Any]) -> str:
    rows = []
    for side in sides.values():
        tried = ", ".join(
            f"{rate}: {'diverged' if value is None else f'{value:.3g}'}"
            for rate, value in side["quality by rate"].items()
        )
        trained = _spread(side["training seconds"]) if side["training seconds"] else ""
        ways = side["ways"]
        drawn = _spread(next(iter(ways.values()))["sampling seconds"][str(LEARNING)]) if ways else ""
        rate = "" if side["rate"] is None else f"{side['rate']:g}"
        rows.append([side["title"], tried, rate, trained, drawn])
    quality, drawing = f"distance at {SETTLED} evaluations by rate", f"seconds for all samples at {LEARNING}"
    return html.table(["", quality, "rate", "seconds of training", drawing], rows)


def _costs(sides: Mapping[str, Any]) -> str:
    """What the machine does not change: operations, memory, and how far samples move when the network errs."""
    errors = [name for name in next(iter(sides.values()))["stress"] if not name.startswith("same")]
    rows = []
    for side in sides.values():
        training, sampling = side["cost"]["training"], side["cost"]["sampling"]
        counted = [f"{training['operations'] / 1e9:.3g}", f"{training['bytes'] / 2**20:.3g}"]
        counted += [f"{sampling['operations'] / 1e9:.3g}", f"{sampling['bytes'] / 2**20:.3g}"]
        moved = [_spread([100 * value for value in side["stress"][error]]) for error in errors]
        rows.append([side["title"], *counted, *moved])
    head = ["", "training: billion operations a batch", "MiB", "sampling 64 by 10: billion operations", "MiB"]
    return html.table([*head, *(f"{error}: samples move, %" for error in errors)], rows)


def _grid(sides: Mapping[str, Any], pictures: Mapping[str, Mapping[int, Path]]) -> str:
    """A column a side, a row a number of evaluations."""
    head = "".join(f"<th>{escape(sides[name]['title'])}</th>" for name in pictures)
    rows = []
    for budget in sorted({budget for files in pictures.values() for budget in files}):
        cells = []
        for name, files in pictures.items():
            caption = f"{sides[name]['title']}, {budget} evaluations"
            shown = html.picture(files[budget].read_bytes(), caption, samples=True) if budget in files else ""
            cells.append(f"<td>{shown}</td>")
        rows.append(f"<tr><th>{budget}</th>{''.join(cells)}</tr>")
    return f"<table><tr><th>evaluations</th>{head}</tr>{''.join(rows)}</table>"
