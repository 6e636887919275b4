"""STORK and the stabilised rule under it: orders, stability, and what virtual evaluations are worth."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from rheos.core import InputError
from rheos.dynamics import Flow
from rheos.solvers import AdamsBashforth, Euler, Stabilised, Stork, integrate
from rheos.solvers.grids import Cosine, Uniform
from rheos.solvers.stork import gegenbauer
from rheos.testing import check_solver

NOISE = torch.linspace(-2, 2, 6, dtype=torch.float64).reshape(3, 2)


def stands(solver: Any, z: float) -> bool:
    """Whether ``x' = -x`` with steps of length z stays bounded."""
    grid = z * torch.arange(601, dtype=torch.float64)
    end = integrate(solver, Flow(lambda x, t: -x), torch.ones(1, 1, dtype=torch.float64), grid).x
    return abs(float(end)) <= 1


@pytest.mark.parametrize("stages", [2, 5, 12])
def test_the_stabilised_rule_keeps_the_laws_of_a_solver(stages):
    check_solver(Stabilised(stages))


@pytest.mark.parametrize(("order", "derivatives"), [(2, 1), (2, 2), (2, 3), (4, 1), (4, 2), (4, 3)])
def test_stork_keeps_the_laws_of_a_solver(order, derivatives):
    check_solver(Stork(order, derivatives, 8), order=min(order, derivatives + 1))


@pytest.mark.parametrize("stages", [3, 8])
def test_one_stabilised_step_is_its_polynomial(stages):
    """SciPy's Gegenbauer polynomial, to which the three-term recurrence must come."""
    from scipy.special import eval_gegenbauer

    w, b = 6 / ((stages + 4) * (stages - 1)), 4 * (stages - 1) * (stages + 4) / 3
    b /= stages * (stages + 1) * (stages + 2) * (stages + 3)
    for z in (-0.5, -3.0, -2 / w):
        x = integrate(
            Stabilised(stages),
            Flow(lambda x, t: z * x),  # noqa: B023
            torch.ones(1, 1, dtype=torch.float64),
            torch.tensor([0.0, 1.0], dtype=torch.float64),
        ).x
        a = 1 - b * eval_gegenbauer(stages, 1.5, 1.0)
        assert float(x) == pytest.approx(a + b * eval_gegenbauer(stages, 1.5, 1 + w * z), rel=1e-10)


@pytest.mark.parametrize("stages", [8, 12])
def test_true_stages_widen_the_stability_interval(stages):
    limit = (stages + 4) * (stages - 1) / 3
    assert stands(Stabilised(stages), 0.999 * limit)
    assert not stands(Stabilised(stages), 1.02 * limit)
    # As many evaluations of the others do not stand it.
    assert not stands(Euler(), 0.999 * limit / stages)
    assert not stands(AdamsBashforth(2), 0.999 * limit / stages)


@pytest.mark.parametrize("virtual", [2, 8, 50])
def test_virtual_stages_do_not(virtual):
    assert stands(Stork(2, 1, virtual), 0.99)
    for derivatives in (1, 2, 3):
        assert not stands(Stork(2, derivatives, virtual), 1.01)
        assert not stands(Stork(4, derivatives, virtual), 1.01)


@pytest.mark.parametrize("grid", [Uniform()(9, torch.float64), Cosine()(9, torch.float64)])
@pytest.mark.parametrize("virtual", [2, 9, 50])
def test_limiting_cases_are_adams_and_bashforths(grid, virtual):
    flow = Flow(lambda x, t: torch.sin(3 * x.flip(-1) + 2 * t) + x)
    for solver, order in ((Stork(2, 1, virtual), 2), (Stork(4, 1), 2), (Stork(4, 2), 3), (Stork(4, 3), 4)):
        found = integrate(solver, flow, NOISE, grid)
        torch.testing.assert_close(found.x, integrate(AdamsBashforth(order), flow, NOISE, grid).x, rtol=0, atol=1e-12)
        assert found.evaluations == 9


def test_stork_is_the_stages_of_the_rule_run_one_by_one():
    """Stage after stage with the expansion in place of the velocity, as the paper writes it."""
    stages, derivatives = 7, 2
    grid = torch.tensor([0.0, 0.1, 0.25, 0.45], dtype=torch.float64)
    flow = Flow(lambda x, t: torch.cos(5 * t) * x + t**2)
    solver = Stork(2, derivatives, stages)
    steps, x, memory = [], NOISE, solver.start(flow, NOISE, grid)
    for t, s in pairwise(grid):
        steps.append((t, flow.rate(x, t)))
        before = x
        x, _, memory, _ = solver.step(flow, x, t, s, memory)
    (t0, v0), (t1, v1), (t2, v2) = steps
    first, earlier = (v2 - v1) / (t2 - t1), (v1 - v0) / (t1 - t0)
    second = 2 * (first - earlier) / (t2 - t0)
    slope, h, rule = first + second * (t2 - t1) / 2, grid[3] - grid[2], gegenbauer(stages)
    rates = [v2 + c * h * slope + (c * h) ** 2 / 2 * second for c in (0.0, *rule.nodes)]
    expected = before + h * sum(w * rate for w, rate in zip(rule.weights, rates, strict=True))
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("stages", [2, 3, 10, 40])
def test_nodes_are_those_of_the_rule(stages):
    """``c_j = (j - 1)*(j + 4)/((s - 1)*(s + 4))``, from the derivative of the stage's polynomial at 0."""
    rule = gegenbauer(stages)
    j = np.arange(2, stages)
    np.testing.assert_allclose(rule.nodes[1:], (j - 1) * (j + 4) / ((stages - 1) * (stages + 4)), rtol=1e-9)
    assert sum(w * c for w, c in zip(rule.weights[1:], rule.nodes, strict=True)) == pytest.approx(0.5)


def test_costs():
    assert Stabilised(8).evaluations(5) == 40
    assert Stabilised(8).steps(25) == 3
    assert Stork().evaluations(5) == 5
    found = integrate(Stabilised(6), Flow(lambda x, t: -x), NOISE, Uniform()(4, torch.float64))
    assert found.evaluations == 24
    torch.testing.assert_close(found.x, NOISE * math.exp(-1), rtol=1e-2, atol=0)


def test_what_they_refuse():
    for stages in (1, True, 2.5):
        with pytest.raises(InputError, match="two stages"):
            Stabilised(stages)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="orders 2 and 4"):
        Stork(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="derivatives"):
        Stork(2, 4)
