"""What was measured, as a table to read, as JSON to compare, and as one self-contained page to look at."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

from matplotlib.figure import Figure as Plot


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
        body = [f"<h1>{html.escape(self.title)}</h1>"]
        facts = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd>" for k, v in self.facts.items())
        body.append(f"<dl>{facts}</dl>")
        body += [f"<p class=remark>{html.escape(remark)}</p>" for remark in self.findings.remarks]
        head = "<tr><th>figure</th><th>value</th><th>beside it</th><th>better</th></tr>"
        body.append(f"<table>{head}{''.join(_html_row(row) for row in self.findings.rows)}</table>")
        body += [_image(_plot(name, points), name) for name, points in self.findings.curves.items()]
        for caption, file in (pictures or {}).items():
            body.append(f"<h2>{html.escape(caption)}</h2>{_image(file.read_bytes(), caption)}")
        return _PAGE.format(title=html.escape(self.title), body="\n".join(body))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }}
table {{ border-collapse: collapse; width: 100%; margin: 1rem 0; }}
th, td {{ text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #d8dee4; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }} dt {{ color: #57606a; }} dd {{
margin: 0; }} img {{ max-width: 100%; image-rendering: pixelated; }} .remark {{ border-left: 4px solid #bf8700;
padding-left: .8rem; }} </style></head><body>
{body}
</body></html>
"""


def _html_row(row: Row) -> str:
    beside = "" if row.reference is None else f"{_number(row.reference)} {row.meaning}"
    cells = (row.name, _number(row.value), beside, row.better)
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


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
    buffer = io.BytesIO()
    plot.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _image(data: bytes, caption: str) -> str:
    return f'<img alt="{html.escape(caption)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def _number(value: float) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:.4g}"


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity; they become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
