"""What the comparisons that are kept found, for docs/compared.md."""

from __future__ import annotations

from typing import Any

from compare import STUDIES
from kept import ABSENT, read, table
from rheos.compare import findings
from rheos.compare.figures import quality, spread

SHOWN = (1, 4, 10, 20, 50, 100)

TOLD = ("A flow in 10 evaluations beside diffusion in 50", "Pace of training", "Diffusion and flow together", "Cost")
"""What is told in words; the rest stands in the table."""


def compared() -> str:
    """A section for each study."""
    kept = {name: found for name in STUDIES if (found := read(f"compare-{name}")) is not None}
    return "\n\n".join(_section(name, found) for name, found in kept.items()) or ABSENT


def _section(name: str, result: dict[str, Any]) -> str:
    machine = result["machine"]
    head = [
        f"## {STUDIES[name].title[0].upper()}{STUDIES[name].title[1:]}",
        f"`python bench/compare.py {name}`: {result['training data']:,} data, {result['steps']:,} steps of "
        f"{result['batch']}, {result['seeds']} seeds; {result['figure']} of {result['samples']:,} samples, "
        f"{result['floor']:.3g} for held-out data. On {machine['accelerator'] or machine['processor']}.",
        f"![Distance against evaluations](pictures/compare-{name}.png)",
        _table(result),
    ]
    told = findings(result)
    for about in TOLD:
        if lines := told.get(about):
            head.append(f"**{about}**")
            head.append("\n".join(f"- {line}" for line in lines))
    return "\n\n".join(head)


def _table(result: dict[str, Any]) -> str:
    rows = []
    for side in result["contenders"].values():
        for way in side["ways"]:
            cells = [quality(side, budget, way) for budget in SHOWN]
            told = [spread(found.values()) if found else "" for found in cells]
            seconds = spread(side["training seconds"])
            rows.append([f"{side['title']} by {way}", f"{side['rate']:g}", *told, seconds])
    return table(["", "rate", *map(str, SHOWN), "seconds of training"], rows)
