"""What a comparison says: gains and losses alike, sampling apart from training, and the page around it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rheos.compare import findings, page, plots

BUDGETS = ("1", "10", "50")


def sentences(found: dict[str, Any]) -> list[str]:
    return [line for lines in findings(found).values() for line in lines]


def side(title: str, family: str, ways: dict[str, tuple[float, float, float]], **changes: Any) -> dict[str, Any]:
    """A side of three seeds around given medians."""
    found = {
        way: {
            "quality": {b: [v, 0.9 * v, 1.2 * v] for b, v in zip(BUDGETS, values, strict=True)},
            "sampling seconds": {"20": [1.0, 1.0, 1.0]},
        }
        for way, values in ways.items()
    }
    plain = {
        "title": title,
        "family": family,
        "rate": 1e-3,
        "seeds": [0, 1, 2],
        "quality by rate": {"0.001": [2.0, 1.8, 2.4], "0.003": [None]},
        "diverged": [],
        "ways": found,
        "learning": {"10": [9.0, 9.0, 9.0], "20": [2.0, 2.0, 2.0]},
        "training seconds": [3.0, 3.0, 3.0],
        "stress": {"same seed, same bits": [True] * 3, "noise of 5%": [0.02, 0.01, 0.03]},
        "cost": {
            "training": {"passes": 1, "operations": 1000, "bytes": 500, "joules": None},
            "sampling": {"operations": 200, "bytes": 100, "joules": None},
        },
    }
    return {**plain, **changes}


def result(*sides: dict[str, Any], **changes: Any) -> dict[str, Any]:
    plain = {
        "recipe": "images",
        "data": "built in",
        "training data": 1437,
        "network": "UNet",
        "steps": 400,
        "batch": 128,
        "samples": 600,
        "seeds": 3,
        "figure": "Frechet distance",
        "floor": 0.2,
        "contenders": {f"side-{number}": one for number, one in enumerate(sides)},
    }
    return {**plain, **changes}


FLOW = side("flow matching", "flow", {"Adams-Bashforth 2": (30.0, 3.0, 2.0)})
DDPM = side("DDPM", "diffusion", {"DDIM": (40.0, 8.0, 4.0), "DPM-Solver++ (2M)": (40.0, 4.0, 2.5)})


def test_the_best_is_named_at_few_and_at_many_evaluations() -> None:
    told = sentences(result(DDPM, FLOW))
    assert told[0] == "At 10 evaluations a sample the least Frechet distance is that of flow matching, 3; then DDPM 8."
    assert told[1] == "At 50 evaluations a sample the least Frechet distance is that of flow matching, 2; then DDPM 4."


def test_a_flow_in_few_steps_beside_a_diffusion_model_in_many() -> None:
    told = sentences(result(DDPM, FLOW))
    assert "Flow matching at 10 evaluations (3) is at least as good as DDPM by DDIM at 50 (4)." in told
    assert "Flow matching at 10 evaluations (3) is worse than DDPM by DPM-Solver++ (2M) at 50 (2.5)." in told


def test_diffusion_wins_as_visibly() -> None:
    strong = side("EDM", "diffusion", {"Heun": (9.0, 1.0, 0.5)}, learning={"10": [1.5] * 3, "20": [1.0] * 3})
    told = sentences(result(FLOW, strong))
    assert told[0].startswith("At 10 evaluations a sample the least Frechet distance is that of EDM, 1;")
    assert "Flow matching at 10 evaluations (3) is worse than EDM by Heun at 50 (0.5)." in told
    assert "EDM reached the final quality of flow matching by step 10 of 20, in 2 s." in told
    assert "Flow matching did not reach the final quality of EDM." in told


def test_the_error_of_sampling_stands_apart_from_that_of_training() -> None:
    told = sentences(result(DDPM))
    assert "What is left at 50 evaluations is the error of training; held-out data have 0.2." in told
    assert "DDPM by DDIM: 4 is left at 50; 10 evaluations have 2.00 times as much." in told
    assert "DDPM by DPM-Solver++ (2M): 2.5 is left at 50; 10 evaluations have 1.60 times as much." in told


def test_equal_networks_cost_alike_and_what_does_not_is_named() -> None:
    told = findings(result(DDPM, FLOW))["Cost"]
    assert told[0] == "Nothing is simulated to train: a step of each side takes one pass through the network."
    assert "For the gradient of a batch all take the same memory, to 0.0 %." in told
    dear = {
        "training": {"passes": 2, "operations": 1500, "bytes": 510, "joules": 3.0},
        "sampling": {"operations": 200, "bytes": 130, "joules": 1.0},
    }
    told = findings(result(side("Twice", "flow", {"Euler": (3.0, 2.0, 1.0)}, cost=dear), DDPM))["Cost"]
    assert told[0] == "A training step of Twice takes 2 passes through the network."
    assert "For the gradient of a batch Twice takes 50 % more operations than DDPM." in told
    assert "For the gradient of a batch all take the same memory, to 2.0 %." in told
    assert "For samples of ten evaluations Twice takes 30 % more memory than DDPM." in told
    # Energy is compared where every side's was read.
    assert not any("energy" in line for line in told)
    hot = {**dear, "training": {**dear["training"], "joules": 6.0}}
    sides = [side(name, "flow", {"Euler": (3.0, 2.0, 1.0)}, cost=cost) for name, cost in (("A", dear), ("B", hot))]
    assert "For the gradient of a batch B takes 100 % more energy than A." in findings(result(*sides))["Cost"]


def test_what_the_learning_rate_matters_is_told_of_three_or_more() -> None:
    assert "Learning rates" not in findings(result(FLOW))
    rates = {"0.001": [4.0, 5.0, 3.0], "0.003": [2.0], "0.01": [3.0], "0.03": [None]}
    swept = side("DDPM", "diffusion", {"DDIM": (4.0, 3.0, 2.0)}, **{"quality by rate": rates})
    assert findings(result(swept))["Learning rates"] == [
        "DDPM: over 4 learning rates from 0.001 to 0.03 the worst distance is 2 times the best, and one training "
        "diverged."
    ]


def test_hybrids_stand_beside_what_they_come_from() -> None:
    mixed = side("Mixed", "hybrid", {"Adams-Bashforth 2": (9.0, 1.5, 1.0)})
    told = findings(result(FLOW, DDPM, mixed))["Diffusion and flow together"]
    assert "Mixed has 0.5 times" in told[0].replace("0.5 (0.5 to 0.5)", "0.5")
    assert told[0].endswith("times the distance of flow matching at 10 evaluations, after as many steps in all.")
    assert any(
        line.startswith("DDPM by DPM-Solver++ (2M) has 0.5 (0.5 to 0.5) times the distance of DDIM") for line in told
    )


def few(title: str, at: tuple[float, ...], **changes: Any) -> dict[str, Any]:
    """A side that is made for one evaluation, with its map at 1, 2, 4, 10 and 50."""
    found = side(title, "few steps", {"its map": (0.0, 0.0, 0.0), "Adams-Bashforth 2": (9.0, 6.0, 3.0)}, **changes)
    found["ways"]["its map"]["quality"] = {
        b: [v, 0.9 * v, 1.2 * v] for b, v in zip(("1", "2", "4", "10", "50"), at, strict=True)
    }
    return {**found, "judged at": 1}


def test_a_model_of_few_steps_stands_beside_the_steps_that_a_flow_needs() -> None:
    found = findings(result(FLOW, DDPM, few("mean flow", (3.5, 3.25, 3.125, 3.0, 2.5)), few("shortcut", (1.0,) * 5)))
    assert found["The best"][0] == (
        "At 1 evaluation a sample the least Frechet distance is that of shortcut, 1; then mean flow 3.5, flow matching "
        "30, DDPM 40."
    )
    told = found["Models of few steps"]
    assert told[0] == (
        "Mean flow has 3.5 in one evaluation, 3.25 in 2, 3.12 in 4; flow matching is as good as that in 10 evaluations."
    )
    assert told[1] == "Mean flow by Adams-Bashforth 2 has 2 (2 to 2) times the distance of its map at 10 evaluations."
    assert told[2].endswith("flow matching is not as good as that in 50 evaluations either.")
    # It is told here and nowhere else.
    elsewhere = ("Diffusion and flow together", "Pace of training", "Errors of sampling and of training")
    assert not any("Mean flow" in line for about in elsewhere for line in found[about])
    assert "The network of a map is told where a step ends" in " ".join(found["Read with care"])
    alone = findings(result(few("mean flow", (3.5,) * 5)))
    assert alone["Models of few steps"][0] == "Mean flow has 3.5 in one evaluation, 3.5 in 2, 3.5 in 4."


def test_a_plot_of_many_sides_keeps_its_height_and_its_colours() -> None:
    def drawn(count: int) -> tuple[float, int]:
        sides = [few(f"side {number}", (3.5, 3.0, 2.5, 2.0, 1.0)) for number in range(count)]
        plot = plots.against_evaluations(result(*sides))
        plot.draw_without_rendering()
        axes = plot.axes[0]
        height = axes.get_position().height * plot.get_figheight()
        return height, len({line.get_color() for line in axes.get_lines()[: 2 * count]})

    (some, three), (many, twelve) = drawn(3), drawn(12)
    assert many > 0.9 * some
    assert (three, twelve) == (3, 12)


def test_pairs_are_told_with_the_time_that_they_took() -> None:
    pairs = [{"count": 2560, "seconds": seconds} for seconds in (0.3, 0.9, 0.6)]
    found = result(FLOW, few("reflow", (3.5,) * 5, pairs=pairs))
    assert (
        "Reflow made 2,560 pairs to learn from, which took 20 % of its seconds of training."
        in (findings(found)["Models of few steps"])
    )
    text = page(found, {})
    assert "<td>reflow</td><td>at 1: 0.001: 2" in text
    assert "<td>flow matching</td><td>0.001: 2" in text


def test_errors_of_the_network_are_ranked() -> None:
    calm = side(
        "Calm", "flow", {"Euler": (3.0, 2.0, 1.0)}, stress={"noise of 5%": [0.001], "same seed, same bits": [True]}
    )
    told = findings(result(DDPM, calm))["Errors of the network"]
    assert told[0] == "With noise of 5% samples move by, of their standard deviation: Calm 0.1 %, DDPM 2 %."
    assert told[1] == "The same seed gave the same bits for every side."
    odd = side(
        "Odd", "flow", {"Euler": (3.0, 2.0, 1.0)}, stress={"noise of 5%": [0.1], "same seed, same bits": [False]}
    )
    assert "did not give the same bits" in findings(result(odd))["Errors of the network"][1]


def test_what_the_reader_must_not_miss() -> None:
    told = sentences(result(FLOW, seeds=1))
    assert "There was one seed, so no spread is shown: differences of some per cent mean nothing." in told
    assert told[-2].startswith("There was one seed") or told[-1].startswith("1,437 small data and 400 steps tell")
    gone = side(
        "DDPM",
        "diffusion",
        {},
        rate=None,
        seeds=[],
        diverged=["the loss is not finite"],
        learning={},
        stress={},
        cost={},
    )
    gone["training seconds"] = []
    told = sentences(result(FLOW, gone))
    assert "DDPM diverged: the loss is not finite" in told
    assert not any(line.startswith("There was one seed") for line in told)
    assert "DDPM" in page(result(FLOW, gone), {})
    assert list(findings(result(gone))) == ["Read with care"]
    nobody = page(result(gone), {})
    assert "the loss is not finite" in nobody


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, dict[int, Path]]:
    file = tmp_path / "x.png"
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(file)
    return {"side-0": {1: file, 10: file}, "side-1": {}}


def test_pictures_of_many_sides_stand_in_tables_of_equal_columns(pictures: dict[str, dict[int, Path]]) -> None:
    many = result(*(side(f"side {number}", "flow", {"Euler": (3.0, 2.0, 1.0)}) for number in range(7)))
    text = page(many, {f"side-{number}": pictures["side-0"] for number in range(7)})
    heads = re.findall(r"<tr><th>evaluations</th>(.*?)</tr>", text)
    assert [re.findall(r"side \d", head) for head in heads] == [
        [f"side {n}" for n in part] for part in (range(5), (5, 6))
    ]
    assert [head.count("<th>") for head in heads] == [5, 5]
    rows = re.findall(r"<tr><th>\d+</th>(.*?)</tr>", text)
    assert [row.count("<td>") for row in rows] == [5] * 4
    assert [row.count("<img class=samples") for row in rows] == [5, 5, 2, 2]


def test_the_page_holds_everything_and_needs_nothing_else(pictures: dict[str, dict[int, Path]]) -> None:
    found = result(DDPM, FLOW)
    text = page(found, pictures)
    assert text == page(found, pictures)
    for part in (
        "DDPM by DDIM",
        "flow matching by Adams-Bashforth 2",
        "8 (7.2 to 9.6)",
        "0.001: 2 (1.8 to 2.4); 0.003: diverged",
    ):
        assert part in text, part
    assert "<td>C05</td><td>20 flow steps replace" not in text
    assert "<td>C13</td><td>sampling is more stable, small errors compound less</td><td>confirmed</td>" in text
    # Two plots and two pictures of samples, all inside.
    assert len(re.findall(r"<img[^>]* src=\"data:image/png;base64,", text)) == 4
    assert len(re.findall(r"<img class=samples", text)) == 2
    # A row a number of evaluations, a column a side that has pictures.
    assert re.findall(r"<tr><th>(\d+)</th>", text) == ["1", "10"]
    assert "<tr><th>evaluations</th><th>DDPM</th></tr>" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "3 seeds" in text
    assert "without bands" in page(result(FLOW, seeds=1), {})
