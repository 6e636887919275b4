"""Exact samples stand near their floor, others far above it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rheos.core import Rng
from rheos.data import moons
from rheos.evaluation import Findings, Row, measure_points

COUNT = 400


def points(seed: int, count: int = COUNT) -> Tensor:
    return moons(count, Rng(seed))


def measured(**drawn: Tensor) -> Findings:
    by_budget = {int(name.removeprefix("at")): states for name, states in drawn.items()}
    return measure_points(by_budget, 10, points(1, 2 * COUNT), Rng(0))


def rows(findings: Findings) -> dict[str, Row]:
    return {row.name: row for row in findings.rows}


def test_exact_samples_are_near_the_floor() -> None:
    for name, row in rows(measured(at10=points(2))).items():
        assert row.reference is not None
        assert row.meaning == "floor"
        if row.better == "lower":
            assert abs(row.value) < 3 * abs(row.reference) + 1e-3, name
        else:
            assert abs(row.value - row.reference) < 0.15, name


@pytest.mark.parametrize("fault", ["shifted", "widened", "collapsed"])
def test_wrong_samples_are_far_from_it(fault: str) -> None:
    exact = points(2)
    wrong = {"shifted": exact + 1.0, "widened": exact * 2, "collapsed": exact[:1].expand(COUNT, 2) + 0.01 * exact}[
        fault
    ]
    found = rows(measured(at10=wrong))
    for name in ("energy distance", "sliced Wasserstein", "MMD"):
        row = found[name]
        assert row.reference is not None
        assert row.value > 5 * abs(row.reference), name
        assert row.better == "lower"
    worst = min(found[name].value for name in ("precision", "recall", "coverage"))
    assert worst < 0.5


def test_the_curve_has_every_budget_and_the_figures_the_chosen_one() -> None:
    exact, shifted = points(2), points(2) + 1.0
    found = measured(at10=exact, at2=shifted, at100=exact)
    ((name, curve),) = found.curves.items()
    assert name == "energy distance"
    assert [budget for budget, _ in curve] == [2, 10, 100]
    assert curve[0][1] > 20 * abs(curve[1][1])
    assert curve[1][1] == curve[2][1]
    assert found.rows == measured(at10=exact).rows


def test_figures_are_reproducible() -> None:
    assert measured(at10=points(2)) == measured(at10=points(2))
    assert torch.equal(points(2), points(2))
