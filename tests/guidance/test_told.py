"""A scale that the network is told: one pass, the scale as it is, and who is told another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.support.guided_map import GuidedMap
from torch import Tensor

from rheos import testing
from rheos.core import InputError, Rng, integrate, over
from rheos.dynamics import Flow, FlowMap
from rheos.guidance import ClassifierFree, Told
from rheos.solvers import RK4, Euler
from rheos.solvers.grids import Uniform

X = Rng(1).normal(5, 2, dtype=torch.float64)
LABEL = torch.tensor([0, 1, -1, 1, 0])
EXACT = GuidedMap()


def plain(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    return EXACT(x, t, cond)


def test_being_told_keeps_the_laws() -> None:
    testing.check_guidance(Told(3.0, 1.0, 5.0))
    testing.check_guidance(Told(1.0, 1.0, 5.0))


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_one_step_of_the_map_is_the_contrasted_flow_at_half_its_passes(scale: float) -> None:
    one, many = (Uniform()(steps, dtype=torch.float64) for steps in (1, 64))
    fine = integrate(RK4(), Flow(plain).over(ClassifierFree(scale)), X, many, LABEL)
    told = FlowMap(EXACT).over(Told(scale, 0.0, 4.0))
    found = integrate(Euler(), told, X, one, LABEL)
    torch.testing.assert_close(found.x, fine.x, rtol=0.0, atol=1e-6)
    assert (found.evaluations, found.passes) == (1, 1)
    # Any other solver integrates the velocity that is told the scale.
    flow = integrate(
        RK4(), FlowMap(EXACT).over(Told(scale, 0.0, 4.0)).flow, X, Uniform()(64, dtype=torch.float64), LABEL
    )
    torch.testing.assert_close(flow.x, fine.x, rtol=0.0, atol=1e-12)
    assert flow.passes == 64 * 4


def test_rows_without_a_class_are_told_one_and_nothing_is_told_without_conditions() -> None:
    heard: list[Any] = []

    def network(x: Tensor, t: Tensor, cond: Any = None, **told: Any) -> Tensor:
        heard.append(told)
        return x

    model, t, end = Told(3.0, 1.0, 5.0)(network), torch.tensor(0.5), torch.tensor(0.7)
    model(X, t, LABEL, s=end)
    assert heard[-1]["scale"].tolist() == [3.0, 3.0, 1.0, 3.0, 3.0]
    assert heard[-1]["s"] is end
    model(X, t, {"label": LABEL})
    assert heard[-1]["scale"].tolist() == [3.0, 3.0, 1.0, 3.0, 3.0]
    model(X, t)
    assert heard[-1] == {}
    model(X, t, {})
    assert heard[-1]["scale"].tolist() == [1.0] * 5
    Told(1.0, 1.0, 5.0)(network)(X, t, LABEL)
    assert heard[-1]["scale"].tolist() == [1.0] * 5


def test_over_reaches_the_network() -> None:
    wrapped = over(Told(3.0, 1.0, 5.0)(EXACT), lambda model: lambda *args, **told: 2 * model(*args, **told))
    t = torch.tensor(0.4, dtype=torch.float64)
    torch.testing.assert_close(wrapped(X, t, LABEL), 2 * Told(3.0, 1.0, 5.0)(EXACT)(X, t, LABEL))


@pytest.mark.parametrize("scale", [0.99, 5.01, float("nan")])
def test_what_was_not_learned_is_refused_with_what_was(scale: float) -> None:
    with pytest.raises(InputError, match=r"scales from 1 to 5, and was asked for"):
        Told(scale, 1.0, 5.0)
