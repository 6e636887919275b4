"""The ledger of what articles claim of flow matching, with what was measured here: docs/claims.json and its table.

`python bench/tables.py` writes both anew from the results that are kept; figures are never typed.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import few_tables
from compare import STUDIES
from kept import ABSENT, fastest, read, table
from rheos.compare import TEXTS, judged, verdicts
from rheos.compare.figures import quality, quotients, spread

LEDGER = Path(__file__).resolve().parents[1] / "docs" / "claims.json"


@dataclass(frozen=True)
class Claim:
    """One claim, and what became of it.

    Args:
        text: the claim in a line.
        settled: by what it is settled.
        verdict: confirmed, confirmed in part, refuted, not testable here, or open.
        measured: writes what was found, from the results that are kept.
        command: makes that again; for what cannot be tested here, on a larger machine.
        evidence: files of results or tests, from the root of the project.
    """

    text: str
    settled: str
    verdict: str = "open"
    measured: Callable[[], str] | None = None
    command: str = ""
    evidence: tuple[str, ...] = ()


def _kept(name: str) -> dict[str, Any]:
    result = read(name)
    if result is None:
        raise FileNotFoundError(f"bench/results/{name}.json is what a claim rests on; run its benchmark.")
    return result


def _special_case() -> str:
    return (
        "from matched noise, flows on VP, VE, cosine and DDPM schedules end in the same samples as straight lines and "
        "give them the mixture's own likelihood, to 1e-5; DDIM, DDPM and DPM-Solver++ equal diffusers' step by step to "
        "1e-6; a diffusers model is sampled by every flow solver"
    )


def _paths() -> str:
    found = _kept("learned_paths")
    lower = found["digits"]["compared"]
    best = max(lower, key=lambda name: statistics.median(lower[name]["curvature lower by"]))
    share = statistics.median(lower[best]["curvature lower by"])
    arcs = {name: row["share of straight"]["generated"] for name, row in found["arc"].items() if name != "straight"}
    arc = " and ".join(f"{share:.2f} ({name})" for name, share in arcs.items())
    return (
        f"straight, curved and learned paths train alike; a {best} lowers the curvature of what digits are generated "
        f"along by {100 * share:.0f} %; with a metric of the data trajectories keep to {arc} of the distance of "
        "straight ones from an arc"
    )


def _transport() -> str:
    points = _kept("quality-eight-gaussians")

    def middle(coupling: str, labelled: bool, budget: str) -> float:
        figure = "distance by class" if labelled else "distance"
        runs = [run for run in points["runs"] if (run["coupling"], run["labelled"]) == (coupling, labelled)]
        return statistics.median(run["curve"][budget][figure] for run in runs)

    plain = {name: middle(name, False, "1") for name in ("independent", "batch OT", "semidiscrete")}
    told = ", ".join(f"{value:.2g} ({name})" for name, value in plain.items())
    return (
        f"eight Gaussians, energy distance after one evaluation: {told}; but with labels a coupling that does not see "
        f"them ends at {middle('batch OT', True, '32'):.2g} where independent pairs reach "
        f"{middle('independent', True, '32'):.2g}"
    )


def _deterministic() -> str:
    return (
        "the same seed gives the same samples bit by bit; so it does with noise on the way, by DDPM and SDE samplers, "
        "whose noise is a function of the seed and the sample's number: it is no difference between the two"
    )


def _simulated() -> str:
    found = _kept("simulation_free")
    ratios = found["iteration"]["64"]["ratio"]
    exact, probed = (fastest(ratios, trace)[1] for trace in ("exact", "hutchinson"))
    times = found["likelihood"]["times the seconds of matching"]
    rivals = {name: row for name, row in times.items() if name.startswith(("ours", "torchdiffeq"))}
    reached = {name: row["1.905"] for name, row in rivals.items() if "1.905" in row}
    rival = min(reached, key=lambda name: reached[name])
    return (
        f"a step in 64-d costs the simulated rival at its fastest {exact:,.0f} times as much with the exact trace and "
        f"{probed:,.0f} times with Hutchinson's; to 1.905 nats on moons, pairing counted, the best rival ({rival}) "
        f"takes {reached[rival]:.0f} times as long"
    )


def _studies() -> dict[str, dict[str, Any]]:
    """The comparisons that are kept, by what they compared."""
    return {study.title: found for name, study in STUDIES.items() if (found := read(f"compare-{name}")) is not None}


def _compared() -> dict[str, Claim]:
    """The claims that comparisons touch: a verdict holds where all of them agree."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for title, result in _studies().items():
        for verdict in verdicts(result):
            found.setdefault(verdict.id, {})[title] = (verdict.verdict, verdict.measured)
    if architecture := _architectures():
        found["C16"] = {"UNet and DiT": architecture}
    return {name: _settled(name, each) for name, each in found.items()}


def _settled(name: str, found: dict[str, tuple[str, str]]) -> Claim:
    words = {verdict for verdict, _ in found.values()}
    told = ". ".join(
        f"{title}: {'' if len(words) == 1 else f'{word}; '}{text}" for title, (word, text) in found.items()
    )
    names = [key for key, study in STUDIES.items() if study.title in found or name == "C16"]
    return Claim(
        KNOWN[name].text,
        KNOWN[name].settled,
        words.pop() if len(words) == 1 else "confirmed in part",
        lambda: told,
        "; ".join(f"python bench/compare.py {key}" for key in names),
        tuple(f"bench/results/compare-{key}.json" for key in names if read(f"compare-{key}") is not None),
    )


SPEED, LOSS = 2.6, 1.1
"""By how much FastFlow is said to be faster, and the error over that of Euler's 50 evaluations that is none lost."""


def _skipping() -> dict[str, Claim]:
    """What FastFlow loses where it evaluates so many times less than Euler's rule."""
    told, kept = [], []
    for title, figures in few_tables.scenes():
        euler = figures[few_tables.EULER]
        fewer = [row["FastFlow"] for row in figures["budgets"].values() if "FastFlow" in row]
        fewer = [found for found in fewer if SPEED * found["evaluations"] <= euler["evaluations"]]
        if fewer:
            found = min(fewer, key=lambda each: each["p95"])
            ratio = found["p95"] / euler["p95"]
            kept.append(ratio <= LOSS)
            told.append(
                f"{title}: {ratio:.2f} times Euler's error at {euler['evaluations'] / found['evaluations']:.1f}"
            )
    if not told:
        return {}
    verdict = "confirmed" if all(kept) else "confirmed in part" if any(kept) else "refuted"
    text = f"95th percentile of its errors over Euler's in 50, by how many times fewer evaluations: {'; '.join(told)}"
    names = list(few_tables.results())
    return {
        "C19": Claim(
            KNOWN["C19"].text,
            KNOWN["C19"].settled,
            verdict,
            lambda: text,
            f"python bench/few_evaluations.py {' '.join(names)}",
            tuple(f"bench/results/few-{name}.json" for name in names),
        )
    }


def _architectures() -> tuple[str, str] | None:
    """Whether a flow gains more on its rivals from a transformer than from convolutions."""
    pairs = {}
    for data in ("digits", "fashion"):
        unet, dit = (read(f"compare-{data}{suffix}") for suffix in ("", "-dit"))
        if unet is None or dit is None:
            continue
        for name, rival in unet["contenders"].items():
            other = dit["contenders"].get(name)
            if rival["family"] == "diffusion" and other and rival["ways"] and other["ways"]:
                by_unet, by_dit = (
                    quotients(quality(found["contenders"]["flow"], 50), quality(side, 50))
                    for found, side in ((unet, rival), (dit, other))
                )
                pairs[f"{data}, {rival['title']}"] = (by_unet, by_dit)
    if not pairs:
        return None
    gains = {name: [b / a for a, b in zip(*pair, strict=False)] for name, pair in pairs.items()}
    told = ", ".join(f"{spread(a)} on the UNet and {spread(b)} on the DiT ({name})" for name, (a, b) in pairs.items())
    return judged(gains), f"distance of the flow over the rival's at 50 evaluations: {told}"


KNOWN: dict[str, Claim] = {
    "C01": Claim(
        "training is 1000 times faster than simulation-based training; 10 to 100 times is the conservative figure",
        "simulated rival: per iteration and to equal likelihood",
        "confirmed in part",
        _simulated,
        "python bench/simulation_free.py",
        ("bench/results/simulation_free.json",),
    ),
    "C02": Claim(TEXTS["C02"], "compare: training steps"),
    "C03": Claim(TEXTS["C03"], "compare: time to equal quality"),
    "C04": Claim(TEXTS["C04"], "compare: ratio; scaling with width"),
    "C05": Claim(TEXTS["C05"], "compare: quality and time"),
    "C06": Claim(TEXTS["C06"], "compare, plans"),
    "C07": Claim(
        "Frechet distance 3.92 against 4.89 and 5.48",
        "a larger machine; ordering on our sets",
        "not testable here",
        command="rheos compare images --data imagenet/ --size 64 --width 192 --steps 500000 --batch 1024 --n 50000",
    ),
    "C08": Claim(TEXTS["C08"], "compare: memory of equal networks"),
    "C09": Claim(
        "diffusion is a special case; one framework covers both",
        "analytic test, hybrids",
        "confirmed",
        _special_case,
        "pytest tests/dynamics/test_special_case.py tests/oracles/test_diffusers.py",
        ("tests/dynamics/test_special_case.py", "tests/oracles/test_diffusers.py"),
    ),
    "C10": Claim(
        "any smooth path may be chosen: straight, curved, learned",
        "paths",
        "confirmed",
        _paths,
        "python bench/learned_paths.py",
        ("bench/results/learned_paths.json",),
    ),
    "C11": Claim(
        "optimal transport gives efficient, straighter paths with guarantees",
        "couplings",
        "confirmed in part",
        _transport,
        "python bench/quality.py eight-gaussians",
        ("bench/results/quality-eight-gaussians.json", "bench/results/couplings.json"),
    ),
    "C12": Claim(
        TEXTS["C12"],
        "bitwise test, also of diffusion samplers",
        "confirmed",
        _deterministic,
        "pytest tests/cli/test_drawing.py",
        ("tests/cli/test_drawing.py",),
    ),
    "C13": Claim(TEXTS["C13"], "compare: perturbed velocities"),
    "C14": Claim(TEXTS["C14"], "compare: target ablation"),
    "C15": Claim(TEXTS["C15"], "compare: sweep"),
    "C16": Claim("transformers suit it better than convolutions", "compare: UNet against DiT"),
    "C17": Claim(TEXTS["C17"], "compare: scaling law over four widths"),
    "C18": Claim("conditioning is less mature", "guidance and conditioning at equal strength"),
    "C19": Claim("FastFlow keeps quality at 2.6 times the speed, with no retraining", "few evaluations"),
    "C20": Claim("Flowception's any-order video beats full-sequence generation", "video"),
    "C21": Claim("multi-scale architectures raise quality and speed sampling", "multi-scale"),
    "C22": Claim("one step (consistency) costs some quality", "one step"),
    "C23": Claim("rectified flows straighten paths, so fewer steps", "reflow"),
    "C24": Claim("extends naturally to video and 3D, text, several modalities at once", "recipes"),
    "C25": Claim("real-time generation with 10 steps", "latency"),
    "C26": Claim(TEXTS["C26"], "compare: operations and time to equal quality"),
    "C27": Claim(TEXTS["C27"], "compare: hybrids"),
    "C28": Claim("useful for drugs, design, synthetic data, medicine, simulation", "recipes and their limits"),
}


CLAIMS = {
    **KNOWN,
    **{name: claim for name, claim in {**_compared(), **_skipping()}.items() if KNOWN[name].verdict == "open"},
}


def ledger() -> str:
    """The content of docs/claims.json."""
    rows = [
        {
            "id": name,
            "claim": claim.text,
            "settled by": claim.settled,
            "verdict": claim.verdict,
            "measured": None if claim.measured is None else claim.measured(),
            "command": claim.command or None,
            "evidence": list(claim.evidence),
        }
        for name, claim in CLAIMS.items()
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def claims_table() -> str:
    """What has a verdict, and what is open yet."""
    rows = [
        [name, claim.text, claim.verdict, ABSENT if claim.measured is None else claim.measured()]
        for name, claim in CLAIMS.items()
    ]
    return table(["", "claim", "verdict", "measured"], rows)
