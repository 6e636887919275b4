"""Tables of what couplings and paths do, from the results that are kept."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from kept import ABSENT, fastest, read, spread, table

PEERS = ("torchcfm", "POT", "SciPy", "lapx")

MANY = 1e6
"""Batches beyond which a fit does not pay in any run."""

Result = dict[str, Any]


def _of(name: str, write: Callable[[Result], str]) -> Callable[[], str]:
    """The table of one result."""

    def written() -> str:
        result = read(name)
        return ABSENT if result is None else write(result)

    return written


def headlines() -> list[str]:
    """Rows of README.md, one or two for each result."""
    rows: list[tuple[str, str, str]] = []
    if (result := read("couplings")) is not None:
        for name in ("d = 2, n = 1024", "d = 784, n = 1024", "d = 784, n = 4096"):
            if (cell := result["cells"].get(name)) is not None:
                best = _best(cell)
                ratios = cell["times as fast as"][best]
                gap = cell["gap"][best]["measured"]
                beside = ", ".join(f"{ratio:.1f} x {peer}" for peer, ratio in ratios.items() if peer != "torchcfm")
                first = f"{ratios['torchcfm']:.0f} times torchcfm's speed" if "torchcfm" in ratios else beside
                rows.append((f"optimal transport of a batch, {name}", first, f"gap {100 * gap:.3f} %; {beside}"))
    if (result := read("semidiscrete")) is not None:
        gain = result["mean cost"]["gain over that of batch OT"]
        beside = f"chi-squared {result['fit']['chi squared']:.3f}"
        rows.append(("cost saved by semidiscrete transport over batch OT's, Fashion-MNIST", f"{gain:.2f}", beside))
    if (result := read("simulation_free")) is not None:
        ratios = result["iteration"]["64"]["ratio"]
        exact, probed = (fastest(ratios, trace) for trace in ("exact", "hutchinson"))
        rows.append(
            (
                "a step of simulated likelihood over one of matching, 64-d, rival's fastest setting",
                f"{exact[1]:,.0f} with the exact trace",
                f"{probed[1]:,.0f} with Hutchinson's",
            )
        )
    return [f"| {' | '.join(row)} |" for row in rows]


def _best(cell: Result) -> str:
    """Ours with potentials, where that is the faster."""
    ours = [name for name in cell["milliseconds"] if name not in PEERS]
    return min(ours, key=lambda name: cell["milliseconds"][name])


def couplings(result: Result) -> str:
    rows = []
    for name, cell in result["cells"].items():
        times, gaps = cell["milliseconds"], cell["gap"]
        best = _best(cell)
        shown = [f"{times[peer]:,.2f}" if peer in times else "-" for peer in ("rheos", *PEERS)]
        known = f"{times['rheos, with potentials']:,.2f}" if "rheos, with potentials" in times else "-"
        batches = cell.get("batches until the fit is paid for")
        paid = "-" if batches is None or batches > MANY else f"{batches:,.0f}"
        rows.append([name, shown[0], known, *shown[1:], f"{100 * gaps[best]['measured']:.3f}", paid])
    head = ["", "rheos", "with potentials", *PEERS, "gap of the faster, %", "batches that pay for the fit"]
    fits = "; ".join(
        f"{name}: {data['name']}, {data['seconds of fitting']:.0f} s of fitting"
        for name, data in result["datasets"].items()
        if isinstance(data, dict) and data["seconds of fitting"]
    )
    return table(head, rows) + f"\n\nPotentials of the whole dataset ({fits})."


def prefetch(result: Result) -> str:
    rows = []
    for case in ("images, 1 threads", "images, 2 threads", "plane"):
        found = result[case]
        for name, one in found.items():
            if isinstance(one, dict):
                low, high = min(one["rounds"]), max(one["rounds"])
                ratio = f"{one['ratio']:.3f} ({low:.3f} to {high:.3f})"
                rows.append([case, f"{found['ms_a_step']:.2f}", name, ratio])
    return table(["network", "ms a step without", "coupling", "step time over that without"], rows)


def semidiscrete(result: Result) -> str:
    fit, cost, seen = result["fit"], result["mean cost"], result["frequencies"]
    speed = result["milliseconds a noise"]
    beyond = seen["share of data off by more than so many sampling errors"]
    rows = [
        ["chi-squared of the fit", f"{fit['chi squared']:.4f}", "target 0.05"],
        ["chi-squared of fresh noise", f"{seen['chi squared']:.4f}", f"standard error {seen['standard error']:.4f}"],
        [
            "fit",
            f"{fit['seconds']:.0f} s",
            f"{fit['processor seconds']:.0f} processor seconds, threads: {fit['threads']}",
        ],
        ["memory of the process while fitting", f"{fit['peak resident MB']:,.0f} MB", f"data {fit['data MB']:,.0f} MB"],
        ["cost saved, over that of batch OT at 256", f"{cost['gain over that of batch OT']:.3f}", "1 is batch OT's"],
    ]
    for batch, one in speed.items():
        rows.append(
            [f"a noise finds its datum, {batch}", f"{one['assign']:.3f} ms", f"all scores {one['plain']:.3f} ms"]
        )
    for errors, one in beyond.items():
        found, chance = 100 * one["found"], 100 * one["by chance"]
        rows.append([f"data off by more than {errors} sampling errors", f"{found:.2f} %", f"by chance {chance:.2f} %"])
    never = f"by chance {seen['never met by chance']:.0f}"
    rows.append([f"data never met by {seen['noises']:,} noises", f"{seen['never met']:,}", never])
    missed = result["misses"]
    rows.append(
        ["noises that miss their datum", f"{missed['missed']} of {missed['noises']:,}", "the next best instead"]
    )
    if (million := result.get("a million data")) is not None:
        more = f"{million['more resident MB']:.0f} MB above the data's {million['data MB']:.0f}"
        rows.append(["a noise among a million data of 64-d", f"{million['milliseconds a noise']:.2f} ms", more])
    return table(["", "measured", "beside it"], rows)


def quality(name: str) -> Callable[[], str]:
    """Distances by the number of evaluations, the median over seeds, with and without labels."""

    def write(result: Result) -> str:
        parts = []
        for labelled in (False, True):
            runs = [run for run in result["runs"] if run["labelled"] == labelled]
            if not runs:
                continue
            figure = "distance by class" if labelled else "distance"
            budgets = list(runs[0]["curve"])
            rows = []
            for coupling in dict.fromkeys(run["coupling"] for run in runs):
                curves = [run["curve"] for run in runs if run["coupling"] == coupling]
                middle = [statistics.median(curve[budget][figure] for curve in curves) for budget in budgets]
                count = statistics.median(curve["adaptive"]["evaluations"] for curve in curves)
                rows.append([coupling, *(f"{value:.3g}" for value in middle), f"{count:.0f}"])
            title = "with labels" if labelled else "without labels"
            parts.append(table([title, *budgets, "adaptive's evaluations"], rows))
        return "\n\n".join(parts)

    return _of(f"quality-{name}", write)


def simulated_iteration(result: Result) -> str:
    rows = []
    for size, found in result["iteration"].items():
        ratios = found["ratio"]
        chosen = {trace: fastest(ratios, trace) for trace in ("exact", "hutchinson")}
        peers = {
            trace: fastest({k: v for k, v in ratios.items() if "torchdiffeq" in k}, trace)
            for trace in ("exact", "hutchinson")
        }
        row = [f"d = {size}", f"{found['milliseconds of matching']:.2f}"]
        for trace in ("exact", "hutchinson"):
            row += [f"{chosen[trace][1]:,.0f}", f"{peers[trace][1]:,.0f}"]
        rows.append(row)
    head = [
        "",
        "ms of matching",
        "exact, fastest",
        "exact, torchdiffeq's",
        "Hutchinson, fastest",
        "Hutchinson, torchdiffeq's",
    ]
    return table(head, rows)


def simulated_likelihood(result: Result) -> str:
    found = result["likelihood"]
    levels = list(next(iter(found["seconds to a level"].values())))
    rows = []
    for name, reached in found["seconds to a level"].items():
        cells = ["-" if reached[level] is None else f"{reached[level]:,.2f}" for level in levels]
        wins = found["simulating wins at and below"].get(name)
        rows.append([name, *cells, "-" if wins is None else f"{wins:.3f}"])
    return table(["processor seconds to nats", *levels, "wins at and below"], rows)


def learned(result: Result) -> str:
    rows = []
    for name, one in result["digits"]["compared"].items():
        lower = [
            f"{100 * statistics.median(one[f'{figure} lower by']):.0f} %" for figure in ("straightness", "curvature")
        ]
        at = [f"{value:.3f}" for key, value in one.items() if key.startswith("frechet distance at")]
        rows.append([name, *lower, *at])
    budgets = [
        key.rsplit(" ", 1)[1] for key in next(iter(result["digits"]["compared"].values())) if key.startswith("frech")
    ]
    head = ["digits", "straightness lower by", "curvature lower by", *(f"Frechet at {n}" for n in budgets)]
    bent = [
        [
            name,
            *(f"{row['share of straight'][part]:.2f}" for part in ("paths", "generated")),
            f"{row['energy distance of the ends']:.4f}",
        ]
        for name, row in result["arc"].items()
    ]
    second = table(["arc", "paths' distance from it", "trajectories' distance", "energy distance of the ends"], bent)
    return table(head, rows) + "\n\n" + second


def bridges(result: Result) -> str:
    names = list(next(iter(result["worst"].values())))
    rows = [[pairs, *(f"{100 * worst[name]:.2f}" for name in names)] for pairs, worst in result["worst"].items()]
    return table(["largest error, %, on pairs of", *names], rows)


def snapshots(result: Result) -> str:
    kinds = ("wasserstein", "sliced wasserstein", "energy")
    rows = [
        [name, when, *(f"{result['medians'][when][name][kind]:.4f}" for kind in kinds)]
        for when in ("seen", "unseen")
        for name in ("spline", "chain", "floor")
    ]
    return table(["", "at times", *kinds], rows)


def sinkhorn(result: Result) -> str:
    plan, alone = result["plan"], result["map, by the plan alone"]
    sizes = f"{result['count']:,} and {result['count']:,} points in {result['dimensions']}-d"
    held = f"{plan['largest resident GB of the process']:.2f} GB"
    rows = [
        ["entropy", f"{plan['entropy']:.4f}", f"target {plan['target entropy']}"],
        ["marginal error", f"{plan['marginal error of the data']:.1e}", "tolerance 1e-3"],
        ["largest memory of the process", held, f"the plan itself {plan['GB of the plan in float32']:.0f} GB"],
        ["time", f"{plan['seconds']:.0f} s", f"{plan['sweeps of all points']} sweeps of all points"],
    ]
    names = {"plan": "pairs of the plan", "independent": "independent pairs"}
    for name, title in names.items():
        runs = result["map, by a flow"][name]
        relative, share = (spread([run[key] for run in runs], ".2f") for key in ("relative", "L2-UVP"))
        rows.append([f"map by a flow on {title}", f"{relative} %", f"L2-UVP {share} %"])
    for name in ("barycentric", "less its bias"):
        rows.append(
            [f"map by the plan, {name}", f"{alone[name]['relative']:.2f} %", f"L2-UVP {alone[name]['L2-UVP']:.2f} %"]
        )
    return table([sizes, "measured", "beside it"], rows)


def translation(result: Result) -> str:
    rows = []
    for name in dict.fromkeys(run["coupling"] for run in result["runs"]):
        runs = [run["figures"] for run in result["runs"] if run["coupling"] == name]
        for budget in runs[0]:
            read_as, paid = (
                spread([run[budget][key] for run in runs], ".3f") for key in ("read as boots", "cost over independent")
            )
            rows.append([name, budget, read_as, paid])
    real = f"{result['real boots read as boots']:.3f}"
    return table(["coupling", "evaluations", f"read as boots (real ones {real})", "cost over independent pairs'"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "couplings": _of("couplings", couplings),
    "prefetch": _of("prefetch", prefetch),
    "semidiscrete": _of("semidiscrete", semidiscrete),
    **{f"quality-{name}": quality(name) for name in ("eight-gaussians", "moons", "digits", "fashion")},
    "simulated-iteration": _of("simulation_free", simulated_iteration),
    "simulated-likelihood": _of("simulation_free", simulated_likelihood),
    "learned": _of("learned_paths", learned),
    "bridges": _of("bridges", bridges),
    "snapshots": _of("snapshots", snapshots),
    "sinkhorn": _of("sinkhorn", sinkhorn),
    "translation": _of("translation", translation),
}
