"""Quality against the size of the network: a known law is found, and each width is a comparison of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rheos.compare import Study, findings, law, page, scaled
from rheos.nn import parameter_count
from rheos.recipes import Recipe, toy


def test_a_power_law_is_found_and_what_lies_off_it() -> None:
    points = {n: 7.0 * n**-0.5 for n in (100, 300, 1000, 5000)}
    found = law(points)
    assert found["exponent"] == pytest.approx(-0.5)
    assert found["off by a factor of"] == pytest.approx(1.0)
    # Up and down by ten per cent in turn: four points off the line, two degrees of freedom left.
    shaken = law({n: value * (1.1 if k % 2 else 1 / 1.1) for k, (n, value) in enumerate(points.items())})
    assert 1.1 < float(shaken["off by a factor of"] or 0) < 1.16
    assert law({100: 1.0, 200: 0.5}) == {"exponent": None, "off by a factor of": None}


def build(width: int) -> Recipe:
    recipe = toy(width=width)
    return replace(recipe, training=replace(recipe.training, steps=40, batch=32))


def test_every_width_is_a_comparison_and_the_page_tells_of_all(tmp_path: Path) -> None:
    study = Study(build(4), ("flow", "ddpm", "shortcut"), (3e-3,), 1, 20, tmp_path, torch.device("cpu"))
    said: list[str] = []
    found = scaled(study, (4, 6, 8), build, said.append)
    assert found["parameters"] == {str(w): parameter_count(build(w).network(0)) for w in (4, 6, 8)}
    for side in found["contenders"].values():
        assert list(side["quality"]) == ["4", "6", "8"]
        assert all(len(values) == 1 and values[0] > 0 for values in side["quality"].values())
        assert side["exponent"] is not None
    for name, budget in (("flow", "50"), ("shortcut", "1")):
        cell = next((tmp_path / "width-6" / "runs" / name).glob("*/*/cell.json"))
        measured = next(iter(json.loads(cell.read_text())["ways"].values()))["quality"]
        assert found["contenders"][name]["quality"]["6"] == [measured[budget]]
    assert said[0].startswith("width 4, ")
    again: list[str] = []
    assert scaled(study, (4, 6, 8), build, again.append) == found
    assert len(again) == 3
    result: dict[str, Any] = {**study.run(said.append), "scaling": found}
    told = findings(result)["Size of the network"]
    assert len(told) == 3
    assert told[0].startswith("Flow matching: the distance goes with the number of parameters")
    assert "quality against size" in page(result, {})
