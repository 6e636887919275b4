"""What few_steps.py and students.py found, for docs/flow_maps.md."""

from __future__ import annotations

from typing import Any

from kept import ABSENT, read, spread, table

BETTER = 5
"""A student is recommended for one step where it is so many times better there than its teacher."""

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


def students_table() -> str:
    """Every student of one teacher: its distance in few steps, held against the teacher's, and what it cost."""
    if (found := read("students-fashion")) is None:
        return ABSENT
    teacher = found["teacher"]["distance"]
    rows = []
    for name, one in found["students"].items():
        ratios = [
            f"{one['distance'][steps]:.2f} ({one['distance'][steps] / teacher['50']:.2f})" for steps in ("1", "2", "4")
        ]
        advised = "" if one["distance"]["1"] * BETTER <= teacher["1"] else "not recommended"
        cost = f"{one['steps']:,} steps, {one['training seconds'] / 60:.0f} min"
        rows.append([name, *ratios, cost, f"{one['times as fast as the teacher at 25']:.0f}", advised])
    head = [
        "student",
        "at 1 (over the teacher's at 50)",
        "at 2",
        "at 4",
        "training",
        "times as fast as the teacher at 25",
        "",
    ]
    curve = ", ".join(f"{value:.2f} at {evaluations}" for evaluations, value in teacher.items())
    told = (
        f"{found['title']}, {found['figure']} (floor {found['floor']:.2g}), one seed. The teacher, "
        f"{found['teacher']['steps']:,} steps in {found['teacher']['training seconds'] / 60:.0f} min: {curve}."
    )
    picture = "![the same noises by the teacher and by every student](pictures/students.png)"
    return f"{told}\n\n{table(head, rows)}\n\n{picture}"


TABLES = {"few-steps": steps_table, "students": students_table}
