"""A comparison as one page that needs no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Plot

from ..evaluation import html
from . import plots
from .claims import verdicts
from .figures import Result, spread
from .phases import LEARNING
from .study import SETTLED
from .telling import findings

ACROSS = 5
"""Sides whose samples stand beside one another."""

CLAIMED = ("", "claim", "here", "measured: median (least to greatest of the seeds)")


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
        body += [
            "<h2>Quality against evaluations</h2>",
            _plot(plots.against_evaluations(result), "quality against evaluations"),
            _table(sides),
        ]
        body += [
            "<h2>Quality against training</h2>",
            _plot(plots.against_steps(result), "quality against training steps"),
        ]
        body += ["<h2>Learning rates and time</h2>", _rates(result["contenders"])]
        body += ["<h2>Cost and errors</h2>", _costs(sides)]
        rows = [[*verdict] for verdict in verdicts(result)]
        body += ["<h2>What articles claim, and what this comparison says</h2>", html.table(CLAIMED, rows)]
    if "scaling" in result:
        body += [
            "<h2>Quality against the size of the network</h2>",
            _plot(plots.against_size(result), "quality against size"),
        ]
    shown = {name: files for name, files in pictures.items() if files}
    if shown:
        body += ["<h2>Samples from the same noise</h2>", _grid(result["contenders"], shown)]
    return html.whole(title, body)


def _plot(plot: Plot, caption: str) -> str:
    return html.picture(html.png(plot), caption)


def _seeds(count: int) -> str:
    return f"{count} seeds" if count > 1 else "1 seed, so without bands"


def _table(sides: Mapping[str, Any]) -> str:
    budgets = sorted({int(b) for side in sides.values() for way in side["ways"].values() for b in way["quality"]})
    rows = []
    for side in sides.values():
        for way, found in side["ways"].items():
            cells = [found["quality"].get(str(budget)) for budget in budgets]
            rows.append([f"{side['title']} by {way}", *("" if cell is None else spread(cell) for cell in cells)])
    return html.table(["median (least to greatest)", *map(str, budgets)], rows)


def _rates(sides: Mapping[str, Any]) -> str:
    rows = []
    for side in sides.values():
        tried = "; ".join(f"{rate}: {_tried(values)}" for rate, values in side["quality by rate"].items())
        if (judged := side.get("judged at", SETTLED)) != SETTLED:
            tried = f"at {judged}: {tried}"
        trained = spread(side["training seconds"]) if side["training seconds"] else ""
        ways = side["ways"]
        drawn = spread(next(iter(ways.values()))["sampling seconds"][str(LEARNING)]) if ways else ""
        rate = "" if side["rate"] is None else f"{side['rate']:g}"
        rows.append([side["title"], tried, rate, trained, drawn])
    quality, drawing = f"distance at {SETTLED} evaluations by rate", f"seconds for all samples at {LEARNING}"
    return html.table(["", quality, "rate", "seconds of training", drawing], rows)


def _tried(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    lost = len(values) - len(known)
    return ", ".join(
        [*([spread(known)] if known else []), *([f"{lost} diverged" if lost > 1 else "diverged"] * (lost > 0))]
    )


def _costs(sides: Mapping[str, Any]) -> str:
    """What the machine does not change: operations, memory, and how far samples move when the network errs."""
    errors = [name for name in next(iter(sides.values()))["stress"] if not name.startswith("same")]
    rows = []
    for side in sides.values():
        training, sampling = side["cost"]["training"], side["cost"]["sampling"]
        counted = [f"{training['operations'] / 1e9:.3g}", f"{training['bytes'] / 2**20:.3g}"]
        counted += [f"{sampling['operations'] / 1e9:.3g}", f"{sampling['bytes'] / 2**20:.3g}"]
        moved = [spread([100 * value for value in side["stress"][error]]) for error in errors]
        rows.append([side["title"], *counted, *moved])
    head = ["", "training: billion operations a batch", "MiB", "sampling 64 by 10: billion operations", "MiB"]
    return html.table([*head, *(f"{error}: samples move, %" for error in errors)], rows)


def _grid(sides: Mapping[str, Any], pictures: Mapping[str, Mapping[int, Path]]) -> str:
    """A column a side, a row a number of evaluations; of many sides a table for each few, of equal columns."""
    names = list(pictures)
    parts = [names[start : start + ACROSS] for start in range(0, len(names), ACROSS)]
    return "".join(_samples(sides, {name: pictures[name] for name in part}, min(ACROSS, len(names))) for part in parts)


def _samples(sides: Mapping[str, Any], pictures: Mapping[str, Mapping[int, Path]], columns: int) -> str:
    """The pictures of so many sides, with empty columns in place of those that are missing."""
    empty = columns - len(pictures)
    head = "".join(f"<th>{escape(sides[name]['title'])}</th>" for name in pictures) + "<th></th>" * empty
    rows = []
    for budget in sorted({budget for files in pictures.values() for budget in files}):
        cells = []
        for name, files in pictures.items():
            caption = f"{sides[name]['title']}, {budget} evaluations"
            shown = html.picture(files[budget].read_bytes(), caption, samples=True) if budget in files else ""
            cells.append(f"<td>{shown}</td>")
        rows.append(f"<tr><th>{budget}</th>{''.join(cells)}{'<td></td>' * empty}</tr>")
    head = f"<thead><tr><th>evaluations</th>{head}</tr></thead>"
    return f"<table class=samples>{head}<tbody>{''.join(rows)}</tbody></table>"
