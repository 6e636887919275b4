"""What few_steps.py found, for docs/flow_maps.md."""

from __future__ import annotations

from typing import Any

from kept import ABSENT, read, spread, table

CASES = ("checkerboard", "digits")


def steps_table() -> str:
    """A table a case: every method's distance in few steps, what a step of training took, and straightness."""
    parts = []
    for name in CASES:
        if (found := read(f"few-steps-{name}")) is None:
            continue
        runs = found["runs"]
        columns = [*next(iter(runs[0].values()))["distance"]]
        rows = [_line(method, [run[method] for run in runs], columns) for method in runs[0]]
        head = ["", *(f"at {column}" for column in columns), "ms a step", "straightness"]
        title = f"{found['title'][0].upper()}{found['title'][1:]}"
        told = f"{title}, energy distance (floor {found['floor']:.2g}), {len(runs)} seeds, {found['steps']:,} steps:"
        parts.append(f"{told}\n\n{table(head, rows)}")
    return "\n\n".join(parts) or ABSENT


def _line(method: str, runs: list[dict[str, Any] | None], columns: list[str]) -> list[str]:
    whole = [run for run in runs if run is not None]
    diverged = f" ({len(runs) - len(whole)} diverged)" if len(whole) < len(runs) else ""
    if not whole:
        return [method + diverged, *("" for _ in columns), "", ""]
    distances = [spread([run["distance"][column] for run in whole], ".2g") for column in columns]
    milliseconds = spread([run["milliseconds a step"] for run in whole], ".1f")
    return [method + diverged, *distances, milliseconds, spread([run["straightness"] for run in whole], ".2g")]


TABLES = {"few-steps": steps_table}
