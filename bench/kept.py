"""Results that are kept, as tables show them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

ABSENT = "*Not measured yet.*"


def read(name: str) -> dict[str, Any] | None:
    """What a benchmark has kept under this name, if it has."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def spread(values: Sequence[float], form: str) -> str:
    """The median, with the least and the largest where they differ."""
    low, high = min(values), max(values)
    middle = format(statistics.median(values), form)
    return middle if format(low, form) == format(high, form) else f"{middle} ({low:{form}} to {high:{form}})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def fastest(ratios: dict[str, float], start: str) -> tuple[str, float]:
    """The least of those whose names start so."""
    return min(((name, value) for name, value in ratios.items() if name.startswith(start)), key=lambda pair: pair[1])
