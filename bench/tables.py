"""Writes the tables of README.md and of the docs, and the ledger of claims, anew from the results that are kept:
`python bench/tables.py`, or `--check`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import claims
import compare_tables
import coupling_tables
import few_tables
import pipeline_tables
import step_tables
from kept import RESULTS, read, spread

ROOT = Path(__file__).resolve().parents[1]
FILES = (
    "README.md",
    "docs/measured.md",
    "docs/compared.md",
    "docs/few_evaluations.md",
    "docs/flow_maps.md",
    "docs/claims.md",
)
TABLE = re.compile(r"<!-- table: (\S+) -->\n.*?<!-- end -->", re.DOTALL)


def results_table() -> str:
    """Every result that is kept, as one Markdown table."""
    lines = ["| what | figure | beside it |", "|---|---|---|"]
    for name, title in (("digits", "digits 8 x 8"), ("fashion", "Fashion-MNIST 28 x 28, folders of mixed sizes")):
        if (result := read(name)) is not None:
            lines += _image_rows(title, result)
    if (result := read("overhead")) is not None:
        lines += _overhead_rows(result)
    if (result := read("mutation")) is not None:
        score = result["score"]
        lines.append(f"| planted faults that the tests find | {100 * score:.1f} % | of {result['judged']} mutants |")
    lines += coupling_tables.headlines()
    lines += few_tables.headlines()
    machines = sorted({_machine(result) for name in _names() if (result := read(name)) is not None})
    return "\n".join([*lines, "", f"On: {'; '.join(machines)}."])


def _image_rows(title: str, result: dict[str, Any]) -> list[str]:
    runs = result["runs"]
    seeds = f"{len(runs)} seeds" if len(runs) > 1 else "1 seed"
    figures = [{row["name"]: row for row in run["findings"]["rows"]} for run in runs]
    curves = [dict(next(iter(run["findings"]["curves"].values()))) for run in runs]
    seconds = [run["training"]["seconds"] for run in runs]
    processor = [run["training"]["processor seconds"] for run in runs]
    frechet = next(iter(figures[0]))
    ratio = [curve[10] / curve[100] for curve in curves]
    near = "distance to nearest training image, median, over held-out's"

    def row(what: str, values: list[float], form: str, beside: str) -> str:
        return f"| {title}: {what} ({seeds}) | {spread(values, form)} | {beside} |"

    def figure(name: str) -> list[float]:
        return [each[name]["value"] for each in figures]

    def reference(name: str, form: str) -> str:
        return f"{spread([each[name]['reference'] for each in figures], form)} {figures[0][name]['meaning']}"

    return [
        row("training, seconds", seconds, ".0f", f"{spread(processor, '.0f')} processor seconds"),
        row("read as the class asked for", figure("class agreement"), ".3f", reference("class agreement", ".3f")),
        row("Frechet distance, own classifier", figure(frechet), ".2f", reference(frechet, ".2f")),
        row("Frechet distance, 10 over 100 evaluations", ratio, ".2f", "1 is no loss"),
        row("coverage", figure("coverage"), ".2f", reference("coverage", ".2f")),
        row("distance to nearest training image", figure(near), ".2f", "1 is held-out images'"),
    ]


def _overhead_rows(result: dict[str, Any]) -> list[str]:
    rows = []
    for network, found in result["training"].items():
        for loop, ratio in found["rheos over"].items():
            rows.append(f"| training step over that of the loop {loop!r}, {network} | {ratio:.3f} | 1 is equal |")
    for case, found in result["sampling"].items():
        large = found["milliseconds a step by hand"] >= 5
        figure = f"{found['ratio']:.3f}" if large else f"{found['microseconds more a step']:.0f} microseconds"
        beside = "1 is equal" if large else "a step more than written out"
        rows.append(f"| sampling over the solver written out, {case} | {figure} | {beside} |")
    if "memory" in result:
        rows.append(f"| peak memory of training over that by hand | {result['memory']['ratio']:.3f} | 1 is equal |")
    return rows


def _machine(result: dict[str, Any]) -> str:
    machine = result["machine"]
    if isinstance(machine, str):
        return f"{machine}, torch {result['versions']['torch']}"
    device = machine["accelerator"] or machine["processor"]
    return f"{device}, {machine['cores']} cores, torch {machine['torch']}, Python {machine['python']}"


def _names() -> list[str]:
    return sorted(file.stem for file in RESULTS.glob("*.json"))


TABLES: dict[str, Callable[[], str]] = {
    "results": results_table,
    "claims": claims.claims_table,
    "compared": compare_tables.compared,
    **coupling_tables.TABLES,
    **few_tables.TABLES,
    **pipeline_tables.TABLES,
    **step_tables.TABLES,
}


def written(text: str) -> str:
    """A page with all its tables anew."""
    return TABLE.sub(lambda found: f"<!-- table: {found[1]} -->\n{TABLES[found[1]]()}\n<!-- end -->", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when the tables are not current")
    args = parser.parse_args()
    pages = {ROOT / name: written((ROOT / name).read_text()) for name in FILES}
    for page, current in {**pages, claims.LEDGER: claims.ledger()}.items():
        if not args.check:
            page.write_text(current)
        elif not page.exists() or current != page.read_text():
            sys.exit(f"{page.name} is not current: run python bench/tables.py")


if __name__ == "__main__":
    main()
