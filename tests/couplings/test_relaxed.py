"""Couplings that leave data out: their plans against a linear program and a fixed point, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from rheos.core import InputError, MissingExtraError, RheosError, Rng, ShapeError
from rheos.couplings import Conditional, Partial, Unbalanced
from rheos.testing import check_coupling

pytest.importorskip("ot")


def with_outliers(n: int, outliers: int, far: float = 30.0) -> tuple[Tensor, Tensor]:
    x0, x1 = Rng(0).normal(n, 2), Rng(1).normal(n, 2) + 1
    x1[:outliers] += far
    return x0, x1


def frequencies(coupling: Partial | Unbalanced, x0: Tensor, x1: Tensor, draws: int) -> Tensor:
    """How often each noise is joined with each datum, by draws (n, m)."""
    counts = torch.zeros(len(x0), len(x1)).double()
    for draw in range(draws):
        counts[torch.arange(len(x0)), coupling(x0, x1, None, Rng(5).fold(draw)).j] += 1
    return counts / draws


@pytest.mark.parametrize("share", [0.35, 0.6, 1.0])
def test_partial_transport_costs_what_the_linear_program_costs(share: float) -> None:
    n, m = 5, 6
    x0, x1 = Rng(0).normal(n, 2), Rng(1).normal(m, 2)
    cost = (x0[:, None] - x1).square().sum(2).double().numpy()
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    best = linprog(cost.ravel(), columns, np.full(m, 1 / (m * share)), rows, np.full(n, 1 / n)).fun
    found = frequencies(Partial(share), x0, x1, 3000)
    assert float((found.numpy() * cost).sum() / n) == pytest.approx(best, rel=0.05)
    # No datum is met more often than 1/share times its due.
    assert float(found.sum(0).max()) <= n / m / share + 0.1


def test_partial_transport_leaves_the_dearest_out() -> None:
    x0, x1 = with_outliers(80, 8)
    met = Partial(0.9)(x0, x1, None, Rng(2)).j.unique()
    assert int((met < 8).sum()) == 0
    assert len(met) > 60
    whole = Partial(1.0)(x0, x1, None, Rng(2))
    assert whole.j.sort().values.tolist() == list(range(80))


def test_unbalanced_transport_is_its_fixed_point() -> None:
    x0, x1 = with_outliers(6, 1, 2.0)
    coupling = Unbalanced(penalty=0.7, epsilon=0.4)
    cost = (x0[:, None] - x1).square().sum(2).double()
    scale = float(cost.mean())
    kernel, v = (-cost / (0.4 * scale)).exp() / 36, torch.ones(6).double()
    for _ in range(3000):
        u = 1 / 6 / (kernel @ v)
        v = (1 / 6 / (kernel.T @ u)) ** (0.7 / (0.7 + 0.4))
    law = 6 * u[:, None] * kernel * v
    draws = 4000
    found = frequencies(coupling, x0, x1, draws)
    error = (law * (1 - law) / draws).sqrt().clamp(min=1e-3)
    assert float(((found - law).abs() / error).max()) < 4.5
    assert float(law.sum(0).max()) > 1.05


def test_unbalanced_transport_meets_dear_data_less_often() -> None:
    x0, x1 = with_outliers(80, 8)
    dear = [int((Unbalanced(penalty)(x0, x1, None, Rng(2)).j < 8).sum()) for penalty in (0.1, 5.0, 1000.0)]
    assert dear[0] == 0
    assert dear[0] <= dear[1] < dear[2]
    assert dear[2] >= 6
    # So far that rounding sees nothing of them.
    assert int((Unbalanced()(*with_outliers(80, 8, 1e5), None, Rng(2)).j < 8).sum()) == 0
    same = torch.ones(4, 2)
    assert Unbalanced()(same, same, None, Rng(0)).i.tolist() == [0, 1, 2, 3]


def test_what_does_not_converge_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rheos.couplings.relaxed.ITERATIONS", 1)
    with pytest.raises(RheosError, match=r"did not converge: after 1 iterations .* couplings.Partial\(\)"):
        Unbalanced(epsilon=0.01)(*with_outliers(20, 4), None, Rng(0))


def test_without_pot_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rheos.couplings.relaxed.pot", lambda: None)
    for coupling in (Partial(), Unbalanced()):
        with pytest.raises(MissingExtraError, match=rf"{type(coupling).__name__} needs POT.*rheos\[ot\]"):
            coupling(*with_outliers(4, 1), None, Rng(0))


@pytest.mark.parametrize("coupling", [Partial(), Unbalanced()])
def test_what_cannot_be_joined_is_refused(coupling: Partial | Unbalanced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rheos.couplings.ignored._warned", set())
    x0, x1 = with_outliers(4, 1)
    with pytest.raises(InputError, match="takes an rng"):
        coupling(x0, x1)
    with pytest.raises(InputError, match="not finite"):
        coupling(x0, x1 * math.nan, None, Rng(0))
    with pytest.raises(ShapeError, match="one shape a row"):
        coupling(x0, x1[:, :1], None, Rng(0))
    with pytest.warns(UserWarning, match="transport ignores the condition"):
        coupling(x0, x1, torch.arange(4), Rng(0))
    labels = torch.arange(4) % 2
    pairs = Conditional(coupling)(x0, x1, labels, Rng(0))
    assert torch.equal(labels[pairs.i], labels[pairs.j])


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: Partial(0.0), "above 0 and at most 1, got 0.0"),
        (lambda: Partial(1.1), "above 0 and at most 1, got 1.1"),
        (lambda: Unbalanced(penalty=0.0), "penalty must be positive"),
        (lambda: Unbalanced(epsilon=math.inf), "epsilon must be positive"),
    ],
)
def test_numbers_out_of_range_are_refused(build: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        build()


@pytest.mark.parametrize("coupling", [Partial(), Partial(0.3), Unbalanced(), Unbalanced(0.01, 0.01)])
def test_the_conformance_kit_accepts_it(coupling: Partial | Unbalanced) -> None:
    check_coupling(coupling, balanced=False)
