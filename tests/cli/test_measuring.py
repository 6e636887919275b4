"""``rheos evaluate``: a table, JSON and a page, of the data that were held out."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rheos.metrics import train_classifier


def strict(constant: str) -> None:
    raise AssertionError(f"JSON has no {constant}")


def found(run: Path) -> dict[str, Any]:
    return json.loads((run / "evaluation.json").read_text(), parse_constant=strict)


def test_points(rheos: Any, toy: Path) -> None:
    ended = rheos.done("evaluate", toy, "--n", 50)
    assert "energy distance" in ended.out
    assert ended.err == ""
    report = found(toy)
    names = [row["name"] for row in report["findings"]["rows"]]
    assert names[:3] == ["energy distance", "sliced Wasserstein", "MMD"]
    assert report["facts"]["sampler"] == "AdamsBashforth, 10 evaluations"
    assert [budget for budget, _ in report["findings"]["curves"]["energy distance"]] == [2, 5, 10, 100]
    assert (toy / "report.html").read_text().startswith("<!doctype html>")
    # The same request, the same figures.
    rheos.done("evaluate", toy, "--n", 50, "--batch", 7)
    again = found(toy)
    for one, two in zip(report["findings"]["rows"], again["findings"]["rows"], strict=True):
        assert two["value"] == pytest.approx(one["value"], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("solver", "sampler", "budgets"),
    [
        ("rk4", "RK4, 8 evaluations", [4, 8, 100]),
        ("heun", "Heun, 10 evaluations", [2, 4, 10, 100]),
        ("dopri5", "Dopri5, as many evaluations as its tolerances need", None),
    ],
)
def test_budgets_are_those_that_were_spent(rheos: Any, toy: Path, solver: str, sampler: str, budgets: Any) -> None:
    rheos.done("evaluate", toy, "--n", 20, "--solver", solver)
    report = found(toy)
    assert report["facts"]["sampler"] == sampler
    spent = [budget for budget, _ in report["findings"]["curves"]["energy distance"]]
    assert spent == budgets if budgets else (len(spent) == 1 and spent[0] > 10)


def test_images(rheos: Any, digits: Path) -> None:
    rheos.done("evaluate", digits, "--n", 60, "--guidance", 2)
    report = found(digits)
    rows = {row["name"]: row for row in report["findings"]["rows"]}
    assert any(name.startswith("Frechet distance (cnn-images-") for name in rows)
    assert 0 <= rows["class agreement"]["value"] <= 1
    assert rows["class agreement"]["reference"] > 0.9
    assert rows["memorised"]["value"] is False
    assert not any(name.startswith("bits") for name in rows)


def test_noisy_images_have_bits_per_dimension(
    rheos: Any, trained: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(trained("images", "--net", "mlp", "--noisy"), tmp_path / "run")
    module = sys.modules["rheos.recipes.images"]
    monkeypatch.setattr(module, "CODED", 12)
    monkeypatch.setattr(module, "train_classifier", functools.partial(train_classifier, epochs=1))
    rheos.done("evaluate", run, "--n", 60)
    (row,) = [row for row in found(run)["findings"]["rows"] if row["name"].startswith("bits per dimension")]
    assert row["name"] == "bits per dimension given the class, 12 held-out images"
    # So short a training leaves the flow near the normal noise that it began with.
    assert 6 < row["value"] < 10
    assert 0 < row["reference"] < 0.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--n", 9), "--n must be at least 10"),
        (("--batch", 0), "got batch = 0"),
        (("--weights", "none.pt"), "cannot read Inception weights from none.pt"),
        (("--solver", "eulre"), "did you mean 'euler'?"),
        (("--device", "gpu"), "there is no device 'gpu'"),
    ],
)
def test_requests_that_cannot_be_met(rheos: Any, digits: Path, words: Any, said: str) -> None:
    before = rheos.prints(digits)
    assert said in rheos.refused("evaluate", digits, *words)
    after = rheos.prints(digits)
    assert {name: after[name] for name in before} == before
