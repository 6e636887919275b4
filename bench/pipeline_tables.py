"""What pipelines.py found, for docs/few_evaluations.md."""

from __future__ import annotations

from kept import ABSENT, read, table

TITLES = {"sd3": "SD3, guidance 4", "flux": "Flux"}


def pipelines_table() -> str:
    """A table a pipeline, nearest to its image of 200 steps first."""
    parts = []
    for name, title in TITLES.items():
        if (found := read(f"pipeline-{name}")) is None:
            continue
        errors = found["errors"]
        names = sorted(errors, key=lambda each: errors[each]["rmse from 200 steps"])
        rows = [_line(each, errors[each]) for each in names if errors[each]["rmse from 200 steps"] > 0]
        head = ["scheduler, evaluations", "shift", "to 200 steps: rmse", "median", "to the exact end: rmse", "median"]
        told = (
            f"{title}, {found['parameters'] / 1e6:.1f} million parameters after {found['steps']:,} steps; "
            f"{found['samples']} images; compiled in {found['compiled in seconds']:.0f} s:"
        )
        parts.append(f"{told}\n\n{table(head, rows)}")
    return "\n\n".join(parts) or ABSENT


def _line(name: str, found: dict[str, float]) -> list[str]:
    figures = [f"{kind} from {target}" for target in ("200 steps", "exact") for kind in ("rmse", "median")]
    return [name, f"{found['shift']:g}" if "shift" in found else "", *(f"{found[figure]:.3g}" for figure in figures)]


TABLES = {"pipelines": pipelines_table}
