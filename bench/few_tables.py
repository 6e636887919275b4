"""What few_evaluations.py found, for docs/few_evaluations.md: tables, what was asked of plans, and pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kept import ABSENT, read, spread, table

NAMES = ("ring", "separated", "overlapping", "anisotropic", "plane", "digits", "fashion", "fashion-dit")

NORMAL = 1.645
"""Deviations beyond which a difference is chance in 5 of 100."""

EULER = "Euler-50"
FASTFLOW = ("FastFlow", "FastFlow, arms a sample")


def results() -> dict[str, dict[str, Any]]:
    """Those that are kept, by case."""
    return {name: found for name in NAMES if (found := read(f"few-{name}")) is not None}


def scenes() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every case whose times may move, at every scale of guidance, with its figures."""
    for found in results().values():
        free = found["free"]
        for scale, figures in free["scales"].items():
            guided = f", guidance {float(scale):g}" if len(free["scales"]) > 1 else ""
            yield free["title"] + guided, figures


def rivals(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found for name, found in row.items() if name != "plan"}


def best(row: Mapping[str, Any], figure: str) -> tuple[str, float]:
    """The rival that is best in a figure."""
    found = rivals(row)
    name = min(found, key=lambda each: found[each][figure])
    return name, found[name][figure]


def headlines() -> list[str]:
    """A row of README.md: what 8 evaluations are worth."""
    rows = [(figures, figures["budgets"]["8"]) for _, figures in scenes() if "8" in figures["budgets"]]
    if not rows:
        return []
    gains = [best(row, "median")[1] / row["plan"]["median"] for _, row in rows]
    euler = [row["plan"]["p95"] / figures[EULER]["p95"] for figures, row in rows]
    what = f"8 evaluations: median error of the best other solver over a compiled plan's ({len(rows)} cases)"
    beside = f"95th percentile {spread(euler, '.2f')} of Euler's in 50"
    return [f"| {what} | {spread(gains, '.1f')} | {beside} |"]


def few_table() -> str:
    """A table a case: the plan and the best of all others in each figure."""
    parts = []
    for title, figures in scenes():
        rows = [_line(EULER, figures[EULER], None)]
        rows += [_line(budget, row["plan"], row) for budget, row in figures["budgets"].items()]
        head = ["evaluations", "rmse", "95th percentile", "median", "other mode", "best of the others at p95", "median"]
        parts.append(f"### {title[0].upper()}{title[1:]}\n\n{table(head, rows)}")
    return "\n\n".join(parts) or ABSENT


def _line(what: str, own: Mapping[str, Any], row: Mapping[str, Any] | None) -> list[str]:
    cells = [what, *(f"{own[figure]:.2g}" for figure in ("rmse", "p95", "median")), str(own["flips"])]
    if row is None:
        return [*cells, "", ""]
    p95, median = best(row, "p95"), best(row, "median")
    return [*cells, f"{p95[1]:.2g} ({p95[0]})", f"{median[1]:.2g} ({median[0]})"]


def solvers_table() -> str:
    """Every solver at 8 and 12 evaluations: the 95th percentile of its error over the plan's."""
    parts = []
    for budget in ("8", "12"):
        shown = [(title, found["budgets"][budget]) for title, found in scenes() if budget in found["budgets"]]
        names = list(dict.fromkeys(name for _, row in shown for name in rivals(row)))
        rows = []
        for name in names:
            ratios = [f"{row[name]['p95'] / row['plan']['p95']:.1f}" if name in row else "" for _, row in shown]
            rows.append([name, *ratios])
        if shown:
            parts.append(f"At {budget} evaluations:\n\n{table(['', *(title for title, _ in shown)], rows)}")
    return "\n\n".join(parts) or ABSENT


def held_table() -> str:
    """What plans were asked to do, with what they did."""
    found = list(scenes())
    rows = [row for check in (_euler, _p95, _median, _flips, _fast_flow) for row in check(found)]
    return table(["asked", "held in", "where it did not"], rows) if rows else ABSENT


Scenes = Sequence[tuple[str, Mapping[str, Any]]]


def _told(asked: str, verdicts: Mapping[str, bool]) -> list[list[str]]:
    if not verdicts:
        return []
    missed = [place for place, held in verdicts.items() if not held]
    return [[asked, f"{len(verdicts) - len(missed)} of {len(verdicts)}", "; ".join(missed)]]


def _euler(found: Scenes) -> list[list[str]]:
    rows = []
    for figure, most in (("rmse", 8), ("p95", 8), ("median", 6)):
        verdicts = {}
        for title, figures in found:
            tried = [row["plan"][figure] for budget, row in figures["budgets"].items() if int(budget) <= most]
            if tried:
                verdicts[title] = min(tried) <= figures[EULER][figure]
        rows += _told(f"Euler's error at 50 evaluations, {figure}, in at most {most}", verdicts)
    return rows


def _each(found: Scenes, low: int, high: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for title, figures in found:
        for budget, row in figures["budgets"].items():
            if low <= int(budget) <= high:
                yield f"{title} at {budget}", row


def _p95(found: Scenes) -> list[list[str]]:
    # Percentiles of some thousand draws are uncertain by more.
    verdicts = {place: row["plan"]["p95"] <= 1.05 * best(row, "p95")[1] for place, row in _each(found, 4, 50)}
    return _told("a 95th percentile no worse (by 5 %) than the best of all others, 4 to 50 evaluations", verdicts)


def _median(found: Scenes) -> list[list[str]]:
    verdicts = {place: 4 * row["plan"]["median"] <= best(row, "median")[1] for place, row in _each(found, 8, 20)}
    return _told("a median four times smaller than the best of all others, 8 to 20 evaluations", verdicts)


def _flips(found: Scenes) -> list[list[str]]:
    verdicts = {}
    for place, row in _each(found, 4, 20):
        own, other = row["plan"]["flips"], best(row, "flips")[1]
        # Counts so small are Poisson's; their difference has the variance of their sum.
        verdicts[place] = own - other <= NORMAL * math.sqrt(own + other)
    return _told(
        "no more samples in another mode than by any other, beyond chance (95 %), 4 to 20 evaluations", verdicts
    )


def _fast_flow(found: Scenes) -> list[list[str]]:
    places = [(place, row) for place, row in _each(found, 12, 20) if FASTFLOW[0] in row]

    def least(row: Mapping[str, Any], figure: str) -> float:
        return min(row[name][figure] for name in FASTFLOW if name in row)

    p95 = {place: 8 * row["plan"]["p95"] <= least(row, "p95") for place, row in places}
    rmse = {place: 8 * row["plan"]["rmse of others"] <= least(row, "rmse of others") for place, row in places}
    flips = {place: 3 * row["plan"]["flips"] <= least(row, "flips") for place, row in places}
    return [
        *_told("a 95th percentile 8 times smaller than FastFlow's, 12 and 20 evaluations", p95),
        *_told("rmse of samples in the right mode 8 times smaller than FastFlow's", rmse),
        *_told("a third of FastFlow's samples in another mode", flips),
    ]


def moved_table() -> str:
    """Plans where the modes were moved after they were compiled."""
    rows = []
    for found in results().values():
        for share, budgets in found["free"].get("moved", {}).items():
            for budget, row in budgets.items():
                own, other = row["plan"]["p95"], row["Adams-Bashforth 3"]["p95"]
                cells = [found["free"]["title"], f"{100 * float(share):g} %", budget, f"{own:.2g}", f"{other:.2g}"]
                rows.append([*cells, f"{other / own:.1f}"])
    head = ["", "modes moved by", "evaluations", "plan, p95", "Adams-Bashforth 3, p95", "ratio"]
    return table(head, rows) if rows else ABSENT


def fixed_table() -> str:
    """Plans on grids that may not move."""
    rows = []
    for found in results().values():
        for name, fixed in found.items():
            if name.startswith("shift"):
                for figures in fixed["scales"].values():
                    for budget, row in figures["budgets"].items():
                        p95, median = best(row, "p95"), best(row, "median")
                        ratios = [f"{p95[1] / row['plan']['p95']:.1f}", f"{median[1] / row['plan']['median']:.1f}"]
                        rows.append([fixed["title"], name, budget, f"{row['plan']['p95']:.2g}", *ratios, p95[0]])
    head = ["", "grid", "evaluations", "plan, p95", "best other over it, p95", "median", "which at p95"]
    return table(head, rows) if rows else ABSENT


def cost_table() -> str:
    """What compiling took."""
    rows = []
    for found in results().values():
        free = found["free"]
        states = free["states evaluated to compile"]
        machine = found["machine"]["accelerator"] or found["machine"]["processor"]
        seconds = free["compiled in seconds"] / len(states)
        timed = next(iter(free["scales"].values()))
        faster = spread(timed["times faster than Euler-50"], ".1f") if "times faster than Euler-50" in timed else ""
        pays = timed.get("pays after samples")
        costs = ", ".join(f"{budget}: {count:,}" for budget, count in states.items())
        rows.append([free["title"], f"{seconds:.1f}", costs, faster, f"{pays:,.0f}" if pays else "", machine])
    head = ["", "seconds a budget", "states evaluated, by budget", "8 evaluations, times faster", "pays after", "on"]
    return table(head, rows) if rows else ABSENT


TABLES = {
    "few": few_table,
    "few-solvers": solvers_table,
    "few-held": held_table,
    "few-moved": moved_table,
    "few-fixed": fixed_table,
    "few-cost": cost_table,
}

DRAWN = ("Euler", "Adams-Bashforth 3", "DPM-Solver++ (2M)", "UniPC", "FastFlow", "MeanCache", "TeaCache")


def draw(axes: Any, title: str, figures: Mapping[str, Any]) -> None:
    """The 95th percentile against evaluations."""
    budgets = figures["budgets"]
    for name in ("plan", *DRAWN):
        shown = {int(budget): row[name]["p95"] for budget, row in budgets.items() if name in row}
        style = {"lw": 2.5, "color": "C0"} if name == "plan" else {"lw": 1}
        axes.plot(list(shown), list(shown.values()), "o-", ms=3, label=name, **style)
    axes.axhline(figures[EULER]["p95"], color="0.5", ls=":", lw=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = [int(budget) for budget in budgets]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3)
