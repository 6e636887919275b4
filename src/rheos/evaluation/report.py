"""What was measured, as a table to read, as JSON to compare, and as one self-contained page to look at."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any, final

from matplotlib.figure import Figure as Plot

from . import html


@final
@dataclass(frozen=True)
class Row:
    """One figure.

    Args:
        name: what was measured, with the feature extractor's name where there is one.
        value: the figure.
        reference: what it is held against; ``None`` when there is nothing.
        meaning: what the reference is: "floor", "held-out", ...
        better: which way is better, in a word: "lower", "higher", "1".
    """

    name: str
    value: float
    reference: float | None = None
    meaning: str = ""
    better: str = ""


@final
@dataclass(frozen=True)
class Findings:
    """What measuring one kind of data found.

    Args:
        rows: the figures.
        curves: figures against network evaluations: by name, pairs (evaluations, value).
        remarks: sentences that a reader should not miss.
    """

    rows: tuple[Row, ...]
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Report:
    """All that one evaluation found.

    Args:
        title: one line.
        facts: what was evaluated and how, by name.
        findings: what was found.
    """

    title: str
    facts: Mapping[str, Any]
    findings: Findings

    def table(self) -> str:
        """The figures as lines of text."""
        cells = [("figure", "value", "beside", "")]
        for row in self.findings.rows:
            beside = "" if row.reference is None else f"{_number(row.reference)} {row.meaning}".rstrip()
            cells.append((row.name, _number(row.value), beside, row.better))
        widths = [max(len(line[column]) for line in cells) for column in range(4)]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells
        ]
        return "\n".join([*lines, *self.findings.remarks])

    def json(self) -> str:
        """The report as JSON, in a fixed order."""
        return json.dumps(_finite(asdict(self)), indent=1, allow_nan=False) + "\n"

    def page(self, pictures: Mapping[str, Path] | None = None) -> str:
        """The report as one HTML page that needs no other file.

        Args:
            pictures: PNG files to show, by caption.
        """
        facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in self.facts.items())
        body = [f"<dl>{facts}</dl>"]
        body += [f"<p class=remark>{escape(remark)}</p>" for remark in self.findings.remarks]
        body.append(html.table(("figure", "value", "beside it", "better"), [_cells(row) for row in self.findings.rows]))
        body += [html.picture(_plot(name, points), name) for name, points in self.findings.curves.items()]
        for caption, file in (pictures or {}).items():
            shown = html.picture(file.read_bytes(), caption, samples=True)
            body.append(f"<h2>{escape(caption)}</h2>{shown}")
        return html.whole(self.title, body)


def _cells(row: Row) -> tuple[str, ...]:
    beside = "" if row.reference is None else f"{_number(row.reference)} {row.meaning}"
    return row.name, _number(row.value), beside, row.better


def _plot(name: str, points: Sequence[tuple[int, float]]) -> bytes:
    plot = Plot(figsize=(6, 3.2), layout="constrained")
    axes = plot.subplots()
    axes.plot([n for n, _ in points], [value for _, value in points], marker="o")
    axes.set_xscale("log")
    axes.set_xticks([n for n, _ in points], [str(n) for n, _ in points])
    axes.minorticks_off()
    axes.set_xlabel("network evaluations")
    axes.set_ylabel(name)
    axes.grid(alpha=0.3)
    return html.png(plot)


def _number(value: float) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:.4g}"


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity; they become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
