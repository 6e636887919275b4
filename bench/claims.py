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

from kept import ABSENT, fastest, read, table

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
    reached = {name: row["1.905"] for name, row in times.items() if "1.905" in row and not name.startswith("flow")}
    rival = min(reached, key=lambda name: reached[name])
    return (
        f"a step in 64-d costs the simulated rival at its fastest {exact:,.0f} times as much with the exact trace and "
        f"{probed:,.0f} times with Hutchinson's; to 1.905 nats on moons, pairing counted, the best rival ({rival}) "
        f"takes {reached[rival]:.0f} times as long"
    )


CLAIMS: dict[str, Claim] = {
    "C01": Claim(
        "training is 1000 times faster than simulation-based training; 10 to 100 times is the conservative figure",
        "simulated rival: per iteration and to equal likelihood",
        "confirmed in part",
        _simulated,
        "python bench/simulation_free.py",
        ("bench/results/simulation_free.json",),
    ),
    "C02": Claim("diffusion models simulate the whole generation during training", "compare: training steps"),
    "C03": Claim("fewer training iterations than diffusion for equal images", "compare: time to equal quality"),
    "C04": Claim("36 % (or 55 %) less training time: 14 to 9 days", "compare: ratio; scaling with width"),
    "C05": Claim("20 flow steps replace 50 diffusion steps, 2.3 times as fast", "compare: quality and time"),
    "C06": Claim("10 to 20 steps, elsewhere 4 to 10, suffice where diffusion needs 100", "compare, plans"),
    "C07": Claim("Frechet distance 3.92 against 4.89 and 5.48", "a larger machine; ordering on our sets"),
    "C08": Claim("peak training memory 78 to 62 GB, 21 % less", "compare: memory of equal networks"),
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
        "deterministic: the same seed gives the same output",
        "bitwise test, also of diffusion samplers",
        "confirmed",
        _deterministic,
        "pytest tests/cli/test_drawing.py",
        ("tests/cli/test_drawing.py",),
    ),
    "C13": Claim("sampling is more stable, small errors compound less", "compare: perturbed velocities"),
    "C14": Claim("the velocity is a more direct target than score or noise", "compare: target ablation"),
    "C15": Claim("more sensitive to hyper-parameters and initialisation", "compare: sweep"),
    "C16": Claim("transformers suit it better than convolutions", "compare: UNet against DiT"),
    "C17": Claim("scales more predictably with model size", "compare: scaling law over four widths"),
    "C18": Claim("conditioning is less mature", "guidance and conditioning at equal strength"),
    "C19": Claim("FastFlow keeps quality at 2.6 times the speed, with no retraining", "few evaluations"),
    "C20": Claim("Flowception's any-order video beats full-sequence generation", "video"),
    "C21": Claim("multi-scale architectures raise quality and speed sampling", "multi-scale"),
    "C22": Claim("one step (consistency) costs some quality", "one step"),
    "C23": Claim("rectified flows straighten paths, so fewer steps", "reflow"),
    "C24": Claim("extends naturally to video and 3D, text, several modalities at once", "recipes"),
    "C25": Claim("real-time generation with 10 steps", "latency"),
    "C26": Claim("lower energy and cost", "compare: operations and time to equal quality"),
    "C27": Claim("hybrids of diffusion and flow profit from both", "compare: hybrids"),
    "C28": Claim("useful for drugs, design, synthetic data, medicine, simulation", "recipes and their limits"),
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
